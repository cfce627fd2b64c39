//! Files put on a host whole, or not at all.

use super::error::RemoteError;
use super::exec::{Exec, Remote, RemoteExt};
use async_trait::async_trait;
use std::fmt;

/// Writes beside the target, checks the length (a lost link looks like an end of file), makes it durable, renames.
const SCRIPT: &str = r#"set -eu
umask 077
dir=$(dirname -- "$1")
tmp=$(mktemp -- "$dir/.rackhand.XXXXXX")
trap 'rm -f -- "$tmp"' EXIT
cat >"$tmp"
got=$(stat -c %s -- "$tmp")
[ "$got" = "$4" ] || { echo "only $got of $4 bytes arrived" >&2; exit 1; }
[ -z "$3" ] || chown -- "$3" "$tmp"
chmod -- "$2" "$tmp"
sync -- "$tmp"
mv -fT -- "$tmp" "$1"
sync -- "$dir"
"#;

/// A file for a host; mode 0600 and owned by the login unless said otherwise.
#[derive(Clone)]
pub struct Upload {
    path: String,
    content: Vec<u8>,
    mode: u32,
    owner: Option<String>,
}

impl Upload {
    /// This content at this absolute path, mode 0600.
    pub fn new(path: impl Into<String>, content: impl Into<Vec<u8>>) -> Self {
        Upload { path: path.into(), content: content.into(), mode: 0o600, owner: None }
    }

    /// Permission bits.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// Owner, as `chown` takes it: `ceph:ceph`.
    #[must_use]
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.owner = Some(owner.into());
        self
    }

    /// The command that writes it; the content travels on stdin.
    pub fn exec(&self) -> Exec {
        let mode = format!("{:04o}", self.mode);
        let length = self.content.len().to_string();
        let owner = self.owner.clone().unwrap_or_default();
        Exec::argv(["sh", "-c", SCRIPT, "sh", &self.path, &mode, &owner, &length]).stdin(self.content.clone())
    }
}

/// The content may be a secret.
impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upload({}, {} bytes, {:04o})", self.path, self.content.len(), self.mode)
    }
}

/// Puts files on a host.
#[async_trait]
pub trait UploadExt: Remote {
    /// Writes a file whole or not at all: beside the target, made durable, then renamed over it.
    async fn upload(&self, file: Upload) -> Result<(), RemoteError> {
        self.check(file.exec()).await.map(drop)
    }
}

impl<T: Remote + ?Sized> UploadExt for T {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_never_shows_in_argv_or_debug() {
        let upload = Upload::new("/etc/key", "hunter2").mode(0o640).owner("ceph:ceph");
        let exec = upload.exec();
        assert!(!format!("{upload:?} {exec:?}").contains("hunter2"));
        assert_eq!(exec.argv[4..], ["/etc/key", "0640", "ceph:ceph", "7"]);
        assert_eq!(exec.stdin, b"hunter2");
    }
}
