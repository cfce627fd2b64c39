//! What is run on a host, and how it can end.

use super::channel::Channel;
use super::error::RemoteError;
use super::forward::Forward;
use async_trait::async_trait;
use std::fmt;
use std::time::Duration;

/// A command for a host: quoted argv, stdin, a deadline.
///
/// Scripts and secrets travel on stdin, never in argv.
#[derive(Clone)]
pub struct Exec {
    /// Program and arguments; quoted for the remote shell by the runner.
    pub argv: Vec<String>,
    /// Bytes for its stdin.
    pub stdin: Vec<u8>,
    /// How long it may run; enforced on the host and here.
    pub deadline: Duration,
    /// Whether root is needed; `sudo -n` is put before it where the login is not root.
    pub root: bool,
}

impl Exec {
    /// A program with arguments, as root, for at most 30 s.
    pub fn argv<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Exec {
            argv: argv.into_iter().map(Into::into).collect(),
            stdin: Vec::new(),
            deadline: Duration::from_secs(30),
            root: true,
        }
    }

    /// A POSIX shell script, sent on stdin to `sh -s`; `args` become `$1`...
    pub fn script<S: Into<String>>(script: impl Into<String>, args: impl IntoIterator<Item = S>) -> Self {
        let mut argv = vec!["sh".to_owned(), "-s".to_owned(), "--".to_owned()];
        argv.extend(args.into_iter().map(Into::into));
        Exec::argv(argv).stdin(script.into().into_bytes())
    }

    /// Gives it these bytes on stdin.
    #[must_use]
    pub fn stdin(mut self, stdin: impl Into<Vec<u8>>) -> Self {
        self.stdin = stdin.into();
        self
    }

    /// Lets it run at most this long.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs it as the login user.
    #[must_use]
    pub fn as_login(mut self) -> Self {
        self.root = false;
        self
    }
}

/// The argv alone: stdin may hold secrets.
impl fmt::Debug for Exec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({} bytes of stdin)", self.argv, self.stdin.len())
    }
}

/// What a command that ran to its end left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Exit status; 128 + n for signal n.
    pub status: i32,
    /// Its stdout, bounded.
    pub stdout: Vec<u8>,
    /// Its stderr, bounded.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Whether the exit status is 0.
    pub fn ok(&self) -> bool {
        self.status == 0
    }

    /// stdout as text.
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.stdout)
    }

    /// The last lines of stderr (else of stdout), for an error message.
    pub fn tail(&self) -> String {
        let bytes = if self.stderr.iter().all(u8::is_ascii_whitespace) { &self.stdout } else { &self.stderr };
        last_lines(&String::from_utf8_lossy(bytes))
    }
}

/// The last lines of a text that say something, for an error message.
pub(super) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

/// A host one can run commands on: over SSH, or scripted for tests.
#[async_trait]
pub trait Remote: Send + Sync + fmt::Debug {
    /// The host's name in the inventory.
    fn name(&self) -> &str;

    /// Runs a command to its end; any exit status is an `Ok`.
    async fn run(&self, exec: Exec) -> Result<Output, RemoteError>;

    /// Starts a command that stays.
    async fn channel(&self, exec: Exec) -> Result<Channel, RemoteError>;

    /// Makes a unix socket of the host reachable here, while the answer lives.
    async fn forward_socket(&self, remote: &str) -> Result<Forward, RemoteError>;

    /// Connects now instead of with the first command.
    async fn connect(&self) -> Result<(), RemoteError> {
        Ok(())
    }

    /// Ends the connection once nothing uses it; the next command connects anew.
    async fn disconnect(&self) {}

    /// The shortest time seen from asking for a command to the first byte of its output.
    fn exec_latency(&self) -> Option<Duration> {
        None
    }
}

/// What every [`Remote`] can do on top.
#[async_trait]
pub trait RemoteExt: Remote {
    /// Runs a command; an exit status other than 0 is an error with the end of its stderr.
    async fn check(&self, exec: Exec) -> Result<Output, RemoteError> {
        let command = exec.argv.first().cloned().unwrap_or_default();
        let output = self.run(exec).await?;
        if output.ok() {
            return Ok(output);
        }
        Err(RemoteError::Status { host: self.name().to_owned(), command, status: output.status, stderr: output.tail() })
    }
}

impl<T: Remote + ?Sized> RemoteExt for T {}
