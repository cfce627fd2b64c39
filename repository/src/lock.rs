//! One run at a time for each guest: a lock with its owner and an expiry.
//!
//! On one machine the kernel's lock on the file decides, which no death outlives and no clock bends. A repository that several
//! machines mount, where that lock may not reach, is guarded by what the file says: another machine's lease, renewed in time.

use crate::error::{Error, ErrorKind, Named, Result};
use crate::files::FILE_MODE;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The lock's file in a guest's directory.
pub(crate) const LOCK: &str = ".lock";
/// How long a lease of another machine is believed: five renewals may fail.
const LEASE: SignedDuration = SignedDuration::from_mins(10);
/// The file always has this length, in bytes: a lock can be taken on a file system that is full.
const LENGTH: usize = 1024;
/// No owner is told at greater length, in characters.
const OWNER: usize = 100;
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
    lease: Lease,
    /// Another machine has written its own lease over ours.
    lost: Arc<AtomicBool>,
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
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        let mut file = options.open(&path).named(&path)?;
        let held = match file.try_lock() {
            Ok(()) => false,
            Err(TryLockError::WouldBlock) => true,
            Err(TryLockError::Error(error)) => return Err(Error::io(&path, &error)),
        };
        let mut text = String::new();
        (&mut file).take(64 << 10).read_to_string(&mut text).named(&path)?;
        let lease: Option<Lease> = serde_json::from_str(text.trim()).ok();
        let elsewhere = lease.as_ref().is_some_and(|l| l.machine != machine && l.expires > now);
        if held || elsewhere {
            return Err(busy(&path, lease.as_ref()));
        }
        let lease = Lease {
            owner: owner.chars().take(OWNER).collect(),
            machine: machine.to_owned(),
            pid: std::process::id(),
            since: now,
            expires: now,
        };
        write(&file, &path, &lease, now)?;
        // Two machines may have found it free at the same time: the later one has it.
        own(&path, &lease)?;
        let lost = Arc::new(AtomicBool::new(false));
        let (stop, stopped) = mpsc::channel();
        let renewed = file.try_clone().named(&path)?;
        let (renewed_path, renewed_lease, told) = (path.clone(), lease.clone(), Arc::clone(&lost));
        let renewal = thread::spawn(move || {
            while stopped.recv_timeout(RENEWAL) == Err(RecvTimeoutError::Timeout) {
                if !renew(&renewed, &renewed_path, &renewed_lease, &told) {
                    return;
                }
            }
        });
        Ok(Self { file, path, lease, lost, stop: Some(stop), renewal: Some(renewal) })
    }

    /// Asked before anything gets or loses its name.
    ///
    /// # Errors
    /// Another machine has taken the lock meanwhile.
    pub(crate) fn check(&self) -> Result<()> {
        match self.lost.load(Ordering::Relaxed) {
            true => Err(busy(&self.path, None)),
            false => own(&self.path, &self.lease),
        }
    }
}

/// Renews a lease that is still ours; says whether it is.
fn renew(file: &File, path: &Path, lease: &Lease, lost: &AtomicBool) -> bool {
    match own(path, lease) {
        Err(error) if error.kind == ErrorKind::Locked => {
            lost.store(true, Ordering::Relaxed);
            return false;
        }
        // What fails is tried again; the lease outlasts several renewals.
        Err(_) => {}
        Ok(()) => drop(write(file, path, lease, Timestamp::now())),
    }
    true
}

/// Reads back whose lease the file has. It is opened anew, which is when a network's file system asks its server.
fn own(path: &Path, lease: &Lease) -> Result<()> {
    let text = std::fs::read(path).named(path)?;
    let found: Option<Lease> = serde_json::from_slice(text.trim_ascii()).ok();
    let same = found
        .as_ref()
        .is_some_and(|found| (&found.machine, found.pid, found.since) == (&lease.machine, lease.pid, lease.since));
    if same { Ok(()) } else { Err(busy(path, found.as_ref())) }
}

fn busy(path: &Path, lease: Option<&Lease>) -> Error {
    let who = lease.map_or("another run".to_owned(), |l| {
        format!(
            "{} (process {} on {}, since {}, until {} unless renewed)",
            l.owner, l.pid, l.machine, l.since, l.expires
        )
    });
    let directory = path.parent().unwrap_or(path);
    Error::new(ErrorKind::Locked, format!("{}: {who} works on this guest; try later", directory.display()))
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(renewal) = self.renewal.take() {
            let _ = renewal.join();
        }
        // The file stays: one that is removed could be locked twice. A lease that is not ours stays as well.
        if self.check().is_ok() {
            let _ = self.file.write_all_at(&blank(), 0);
        }
        let _ = self.file.unlock();
    }
}

fn write(file: &File, path: &Path, lease: &Lease, now: Timestamp) -> Result<()> {
    let lease = Lease { expires: now.checked_add(LEASE).unwrap_or(now), ..lease.clone() };
    let text = serde_json::to_vec(&lease).map_err(|error| Error::new(ErrorKind::Io, error.to_string()))?;
    let mut whole = blank();
    if text.len() >= whole.len() {
        return Err(Error::new(ErrorKind::Request, "the name of the lock's owner is too long"));
    }
    whole[..text.len()].copy_from_slice(&text);
    file.write_all_at(&whole, 0).and_then(|()| file.set_len(LENGTH as u64)).named(path)?;
    file.sync_data().named(path)
}

/// The file when no one has the lock: blanks.
fn blank() -> Vec<u8> {
    let mut blank = vec![b' '; LENGTH];
    blank[LENGTH - 1] = b'\n';
    blank
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

    #[test]
    fn a_lock_that_another_machine_has_overwritten_is_lost_and_neither_renewed_nor_blanked() {
        let directory = tempfile::tempdir().unwrap();
        let lock = Lock::take_as(directory.path(), "first", "a", at(0)).unwrap();
        lock.check().unwrap();
        let other = Lease { owner: "second".into(), machine: "b".into(), pid: 1, since: at(0), expires: at(600) };
        let path = directory.path().join(LOCK);
        write(&lock.file, &path, &other, at(0)).unwrap();
        let text = std::fs::read(&path).unwrap();
        assert!(own(&path, &lock.lease).unwrap_err().message.contains("second"));
        assert!(!renew(&lock.file, &path, &lock.lease, &lock.lost));
        assert_eq!(lock.check().unwrap_err().kind, ErrorKind::Locked);
        drop(lock);
        assert_eq!(std::fs::read(&path).unwrap(), text);
    }

    #[test]
    fn the_file_of_a_lock_keeps_its_length_so_that_a_full_file_system_can_be_pruned() {
        let directory = tempfile::tempdir().unwrap();
        let length = || std::fs::metadata(directory.path().join(LOCK)).unwrap().len();
        let lock = Lock::take(directory.path(), "one").unwrap();
        assert_eq!(length(), LENGTH as u64);
        drop(lock);
        assert_eq!(length(), LENGTH as u64);
        Lock::take_as(directory.path(), "next", "elsewhere", at(0)).unwrap();
        Lock::take_as(directory.path(), &"x".repeat(LENGTH), "a", at(601)).unwrap();
    }
}
