//! The private directory of this run: sockets of the ssh masters and the ssh configuration they read.

use nix::fcntl::{Flock, FlockArg};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;

const PREFIX: &str = "rackhand-";
/// Longest base directory: a socket's path may have 108 bytes (unix(7)), of which ssh takes 17 for a name of its own
/// while it binds.
const BASE_LIMIT: usize = 48;

/// A directory of mode 0700 with a short path. It is locked while its process lives, so that the next run can tell
/// one that was left behind.
#[derive(Debug)]
pub(super) struct ControlDir {
    dir: TempDir,
    config: PathBuf,
    next: AtomicU64,
    _lock: Flock<File>,
}

impl ControlDir {
    /// A new one, with the ssh configuration inside; those left behind by killed runs are removed.
    pub(super) fn new(connect: Duration, extra: &[String]) -> io::Result<Self> {
        let base = base();
        sweep(&base);
        let private = fs::Permissions::from_mode(0o700);
        let dir = tempfile::Builder::new().prefix(PREFIX).permissions(private).tempdir_in(&base)?;
        let unlocked = dir.path().join("lock.new");
        let lock = Flock::lock(File::create(&unlocked)?, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| e)?;
        // Named only now: a sweeper never sees a lock that is not held.
        fs::rename(&unlocked, dir.path().join("lock"))?;
        let config = dir.path().join("config");
        fs::write(&config, configuration(connect, extra))?;
        Ok(ControlDir { dir, config, next: AtomicU64::new(0), _lock: lock })
    }

    /// The configuration file for `ssh -F`.
    pub(super) fn config(&self) -> &Path {
        &self.config
    }

    /// A path in it that was never given out before.
    pub(super) fn fresh(&self, kind: char) -> PathBuf {
        self.dir.path().join(format!("{kind}{}", self.next.fetch_add(1, Ordering::Relaxed)))
    }
}

fn base() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    runtime
        .filter(|dir| dir.is_absolute() && dir.is_dir() && dir.as_os_str().len() <= BASE_LIMIT)
        .unwrap_or_else(|| PathBuf::from("/tmp"))
}

/// Removes what killed runs of this user left; nothing here is worth an error.
fn sweep(base: &Path) {
    let me = nix::unistd::geteuid().as_raw();
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let path = entry.path();
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX)
            && fs::symlink_metadata(&path).is_ok_and(|m| m.is_dir() && m.uid() == me);
        let Some(lock) = ours.then(|| File::open(path.join("lock")).ok()).flatten() else { continue };
        let Ok(_held) = Flock::lock(lock, FlockArg::LockExclusiveNonblock) else { continue };
        for socket in fs::read_dir(&path).into_iter().flatten().flatten() {
            if socket.file_name().to_string_lossy().starts_with('m') {
                let _ = openssh_mux_client::shutdown_mux_master(socket.path());
            }
        }
        let _ = fs::remove_dir_all(&path);
    }
}

/// Ours first, because ssh takes the first value it meets; then the operator's own.
fn configuration(connect: Duration, extra: &[String]) -> String {
    let mut text = String::from("# Written by rackhand for this run.\n");
    for line in [
        "BatchMode yes",
        "StrictHostKeyChecking yes",
        "UpdateHostKeys no",
        "ConnectionAttempts 1",
        "ServerAliveInterval 3",
        "ServerAliveCountMax 3",
        "ClearAllForwardings yes",
        "ForwardAgent no",
        "ForwardX11 no",
        "PermitLocalCommand no",
        "RemoteCommand none",
        "RequestTTY no",
        "EscapeChar none",
        "VisualHostKey no",
        "LogLevel INFO",
    ] {
        text.push_str(line);
        text.push('\n');
    }
    // Writing to a String cannot fail.
    let _ = writeln!(text, "ConnectTimeout {}", connect.as_secs().max(1));
    for line in extra {
        text.push_str(line);
        text.push('\n');
    }
    text.push_str("Include ~/.ssh/config\nMatch all\nInclude /etc/ssh/ssh_config\n");
    text
}

/// A path as a value in ssh's configuration: quoted, and safe from its `%` tokens.
pub(super) fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('%', "%%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_runs_directory_is_swept_and_a_living_ones_is_not() {
        let base = tempfile::tempdir().unwrap();
        let (dead, alive) = (base.path().join("rackhand-dead"), base.path().join("rackhand-alive"));
        for dir in [&dead, &alive] {
            fs::create_dir(dir).unwrap();
            fs::write(dir.join("lock"), "").unwrap();
        }
        let held = Flock::lock(File::open(alive.join("lock")).unwrap(), FlockArg::LockExclusive).unwrap();
        sweep(base.path());
        assert!(!dead.exists() && alive.exists());
        drop(held);
    }

    #[test]
    fn the_directory_is_private_and_ours_come_first() {
        let control = ControlDir::new(Duration::from_secs(5), &["IdentityFile \"/k\"".to_owned()]).unwrap();
        let mode = fs::metadata(control.dir.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let text = fs::read_to_string(control.config()).unwrap();
        let at = |needle: &str| text.find(needle).unwrap();
        assert!(at("StrictHostKeyChecking yes") < at("Include ~/.ssh/config"));
        assert!(at("IdentityFile \"/k\"") < at("Include ~/.ssh/config"));
        assert!(at("ConnectTimeout 5") > 0);
        assert_ne!(control.fresh('m'), control.fresh('m'));
    }
}
