//! One run at a time for each guest: a lock with its owner and an expiry.
//!
//! On one machine the kernel's lock on the file decides, which no death outlives and no clock bends. A repository that several
//! machines mount, where that lock may not reach, is guarded by what the file says: another machine's lease, renewed in time.

use crate::error::{Error, ErrorKind, Named, Result};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The lock's file in a guest's directory.
pub(crate) const LOCK: &str = ".lock";
/// How long a lease of another machine is believed: five renewals may fail.
const LEASE: SignedDuration = SignedDuration::from_mins(10);
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(120);

/// Who holds a lock, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Lease {
    owner: String,
    machine: String,
    pid: u32,
    since: Timestamp,
    expires: Timestamp,
}

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    path: PathBuf,
    stop: Option<Sender<()>>,
    renewal: Option<JoinHandle<()>>,
}

impl Lock {
    /// Takes the lock of a guest's directory, or says who has it.
    pub(crate) fn take(directory: &Path, owner: &str) -> Result<Self> {
        Self::take_as(directory, owner, &machine(), Timestamp::now())
    }

    fn take_as(directory: &Path, owner: &str, machine: &str, now: Timestamp) -> Result<Self> {
        let path = directory.join(LOCK);
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).named(&path)?;
        let held = match file.try_lock() {
            Ok(()) => false,
            Err(TryLockError::WouldBlock) => true,
            Err(TryLockError::Error(error)) => return Err(Error::io(&path, &error)),
        };
        let mut text = String::new();
        (&mut file).take(64 << 10).read_to_string(&mut text).named(&path)?;
        let lease: Option<Lease> = serde_json::from_str(&text).ok();
        let elsewhere = lease.as_ref().is_some_and(|l| l.machine != machine && l.expires > now);
        if held || elsewhere {
            let who = lease.map_or("another run".to_owned(), |l| {
                format!(
                    "{} (process {} on {}, since {}, until {} unless renewed)",
                    l.owner, l.pid, l.machine, l.since, l.expires
                )
            });
            let message = format!("{}: {who} works on this guest; try later", directory.display());
            return Err(Error::new(ErrorKind::Locked, message));
        }
        let lease = Lease {
            owner: owner.to_owned(),
            machine: machine.to_owned(),
            pid: std::process::id(),
            since: now,
            expires: now,
        };
        write(&file, &path, &lease, now)?;
        let (stop, stopped) = mpsc::channel();
        let renewed = file.try_clone().named(&path)?;
        let renewed_path = path.clone();
        let renewal = thread::spawn(move || {
            while stopped.recv_timeout(RENEWAL) == Err(RecvTimeoutError::Timeout) {
                // A renewal that fails is tried again; the lease outlasts several.
                let _ = write(&renewed, &renewed_path, &lease, Timestamp::now());
            }
        });
        Ok(Self { file, path, stop: Some(stop), renewal: Some(renewal) })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(renewal) = self.renewal.take() {
            let _ = renewal.join();
        }
        // The file stays: one that is removed could be locked twice.
        let _ = self.file.set_len(0).named(&self.path);
        let _ = self.file.unlock();
    }
}

fn write(file: &File, path: &Path, lease: &Lease, now: Timestamp) -> Result<()> {
    let lease = Lease { expires: now.checked_add(LEASE).unwrap_or(now), ..lease.clone() };
    let mut text = serde_json::to_vec(&lease).map_err(|error| Error::new(ErrorKind::Io, error.to_string()))?;
    text.push(b'\n');
    let length = text.len() as u64;
    file.write_all_at(&text, 0).and_then(|()| file.set_len(length)).and_then(|()| (&mut &*file).flush()).named(path)
}

/// What tells machines apart; a name alone may be that of many.
fn machine() -> String {
    let name = nix::unistd::gethostname().map_or_else(|_| String::new(), |name| name.to_string_lossy().into_owned());
    let id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    format!("{name}/{}", id.trim().get(..12).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    #[test]
    fn a_second_run_is_told_who_has_it_and_waits_for_no_one() {
        let directory = tempfile::tempdir().unwrap();
        let lock = Lock::take(directory.path(), "backup run of alice").unwrap();
        let refused = Lock::take(directory.path(), "another").unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Locked);
        assert!(refused.message.contains("backup run of alice"), "{refused}");
        drop(lock);
        Lock::take(directory.path(), "another").unwrap();
    }

    #[test]
    fn what_a_dead_process_of_this_machine_wrote_counts_for_nothing_whatever_the_clock_says() {
        let directory = tempfile::tempdir().unwrap();
        let lease = Lease { owner: "dead".into(), machine: "a".into(), pid: 1, since: at(0), expires: at(1_000_000) };
        std::fs::write(directory.path().join(LOCK), serde_json::to_vec(&lease).unwrap()).unwrap();
        Lock::take_as(directory.path(), "next", "a", at(0)).unwrap();
    }

    #[test]
    fn a_lease_of_another_machine_holds_until_it_expires() {
        let directory = tempfile::tempdir().unwrap();
        let lease = Lease { owner: "far".into(), machine: "b".into(), pid: 1, since: at(0), expires: at(600) };
        std::fs::write(directory.path().join(LOCK), serde_json::to_vec(&lease).unwrap()).unwrap();
        assert_eq!(Lock::take_as(directory.path(), "next", "a", at(599)).unwrap_err().kind, ErrorKind::Locked);
        Lock::take_as(directory.path(), "next", "a", at(601)).unwrap();
    }
}
