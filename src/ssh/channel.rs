//! A command that stays: lines in, lines out, and how it ended.

use super::error::RemoteError;
use super::marked::StderrTail;
use futures::future::BoxFuture;
use std::fmt;
use std::pin::Pin;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

/// The stdin of a command that stays.
pub type ChannelIn = Pin<Box<dyn AsyncWrite + Send>>;

/// The stdout of a command that stays.
pub type ChannelOut = Pin<Box<dyn AsyncRead + Send>>;

/// A command that stays. Dropping it closes its stdin and ends it.
pub struct Channel {
    /// Its stdin.
    pub stdin: ChannelIn,
    /// Its stdout.
    pub stdout: ChannelOut,
    end: ChannelEnd,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Channel")
    }
}

impl Channel {
    /// A channel over any two streams; `guard` lives as long as it, and its status is 0.
    pub fn new(
        stdin: impl AsyncWrite + Send + 'static,
        stdout: impl AsyncRead + Send + 'static,
        guard: impl std::any::Any + Send,
    ) -> Self {
        let status = async move {
            drop(guard);
            Ok(0)
        };
        Channel::ending(stdin, stdout, StderrTail::default(), Box::pin(status))
    }

    /// A channel whose end is known.
    pub(super) fn ending(
        stdin: impl AsyncWrite + Send + 'static,
        stdout: impl AsyncRead + Send + 'static,
        stderr: StderrTail,
        status: BoxFuture<'static, Result<i32, RemoteError>>,
    ) -> Self {
        Channel { stdin: Box::pin(stdin), stdout: Box::pin(stdout), end: ChannelEnd { stderr, status } }
    }

    /// Its stdin, its stdout, and its end, which has to live as long as they are used.
    pub fn into_parts(self) -> (ChannelIn, ChannelOut, ChannelEnd) {
        (self.stdin, self.stdout, self.end)
    }
}

/// How a command that stays ends; dropped, it ends the command.
pub struct ChannelEnd {
    stderr: StderrTail,
    status: BoxFuture<'static, Result<i32, RemoteError>>,
}

impl fmt::Debug for ChannelEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChannelEnd")
    }
}

impl ChannelEnd {
    /// The end of what the command has said on stderr so far; 16 KiB at most.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits until the command has ended: its exit status and the end of its stderr. Its stdin has to be closed before,
    /// and its stdout read to the end; `None` when it has not ended within `limit`.
    ///
    /// # Errors
    /// [`RemoteError::Lost`] when the connection broke: how it ended is unknown.
    pub async fn wait(mut self, limit: Duration) -> Result<Option<(i32, String)>, RemoteError> {
        let ended = async {
            let status = (&mut self.status).await?;
            self.stderr.ended().await;
            Ok(status)
        };
        match timeout(limit, ended).await {
            Ok(status) => status.map(|status| Some((status, self.stderr.text()))),
            Err(_) => Ok(None),
        }
    }
}
