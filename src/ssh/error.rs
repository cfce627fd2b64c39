//! How a command on a host can fail, and whether it ran.

use crate::error::{Failure, Kind};
use std::time::Duration;

/// How a command on a host can fail; whether it ran is part of the type.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RemoteError {
    /// No connection: nothing was run.
    #[error("host {host}: cannot connect: {reason}")]
    Unreachable {
        /// The host.
        host: String,
        /// What ssh said.
        reason: String,
    },
    /// The host presented another key than the recorded one, or none is recorded: nothing was run.
    #[error("host {host}: host key refused: {reason}")]
    HostKey {
        /// The host.
        host: String,
        /// What was found, and what to do.
        reason: String,
    },
    /// The login was refused: nothing was run.
    #[error("host {host}: login refused: {reason}")]
    Login {
        /// The host.
        host: String,
        /// What ssh said.
        reason: String,
    },
    /// The login is not root and may not become it without a password: nothing was run.
    #[error("host {host}: `sudo -n` refused: {reason}; allow the login NOPASSWD in sudoers, or log in as root")]
    Sudo {
        /// The host.
        host: String,
        /// What sudo said.
        reason: String,
    },
    /// Its login shell refused the command, or something before the command did: nothing was run.
    #[error("host {host}: its login shell did not run `{command}`: {reason}")]
    LoginShell {
        /// The host.
        host: String,
        /// Its program.
        command: String,
        /// What was said instead.
        reason: String,
    },
    /// It ran into its deadline and was killed on the host.
    #[error("host {host}: `{command}` did not end within {} s", .after.as_secs())]
    TimedOut {
        /// The host.
        host: String,
        /// Its program.
        command: String,
        /// The deadline.
        after: Duration,
    },
    /// The connection broke while it ran: nobody knows how it ended.
    #[error("host {host}: connection lost while `{command}` ran, its outcome is unknown: {reason}")]
    Lost {
        /// The host.
        host: String,
        /// Its program.
        command: String,
        /// What broke.
        reason: String,
    },
    /// It ran to its end with a status that is not 0.
    #[error("host {host}: `{command}` exited with {status}: {stderr}")]
    Status {
        /// The host.
        host: String,
        /// Its program.
        command: String,
        /// Its status.
        status: i32,
        /// The end of its stderr.
        stderr: String,
    },
    /// It was killed before its end.
    #[error("host {host}: `{command}` was killed by {by}: {stderr}")]
    Killed {
        /// The host.
        host: String,
        /// Its unit.
        command: String,
        /// By what.
        by: String,
        /// The end of its output.
        stderr: String,
    },
}

impl RemoteError {
    /// Whether it is certain that nothing was run.
    pub fn nothing_ran(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::HostKey { .. }
                | Self::Login { .. }
                | Self::Sudo { .. }
                | Self::LoginShell { .. }
        )
    }

    /// Whether the command may have had its effect or not.
    pub fn unknown(&self) -> bool {
        match self {
            Self::Lost { .. } | Self::TimedOut { .. } => true,
            Self::Unreachable { .. }
            | Self::HostKey { .. }
            | Self::Login { .. }
            | Self::Sudo { .. }
            | Self::LoginShell { .. }
            | Self::Status { .. }
            | Self::Killed { .. } => false,
        }
    }

    /// The host it happened on.
    pub fn host(&self) -> &str {
        match self {
            Self::Unreachable { host, .. }
            | Self::HostKey { host, .. }
            | Self::Login { host, .. }
            | Self::Sudo { host, .. }
            | Self::LoginShell { host, .. }
            | Self::TimedOut { host, .. }
            | Self::Lost { host, .. }
            | Self::Status { host, .. }
            | Self::Killed { host, .. } => host,
        }
    }
}

impl From<RemoteError> for Failure {
    fn from(error: RemoteError) -> Self {
        match error.unknown() {
            true => Failure::new(Kind::Unknown, error).hint("run the same command again: it looks before it acts"),
            false => Failure::new(Kind::Failed, error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_chooses_its_kind() {
        let (host, text) = (|| "h1".to_owned(), || "x".to_owned());
        let table = [
            (RemoteError::Unreachable { host: host(), reason: text() }, Kind::Failed),
            (RemoteError::HostKey { host: host(), reason: text() }, Kind::Failed),
            (RemoteError::Login { host: host(), reason: text() }, Kind::Failed),
            (RemoteError::Sudo { host: host(), reason: text() }, Kind::Failed),
            (RemoteError::TimedOut { host: host(), command: text(), after: Duration::from_secs(1) }, Kind::Unknown),
            (RemoteError::Lost { host: host(), command: text(), reason: text() }, Kind::Unknown),
            (RemoteError::Status { host: host(), command: text(), status: 1, stderr: text() }, Kind::Failed),
            (RemoteError::Killed { host: host(), command: text(), by: text(), stderr: text() }, Kind::Failed),
        ];
        for (error, kind) in table {
            assert_eq!(Failure::from(error.clone()).kind, kind, "{error:?}");
        }
    }
}
