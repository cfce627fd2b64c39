//! One error at the command's edge: its kind decides the exit code.

use std::fmt;
use std::process::ExitCode;

/// Why a command ended the way it did; scripts branch on the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Exit 1: it was tried and failed.
    Failed,
    /// Exit 2: the command line or the inventory is wrong; nothing was touched.
    Usage,
    /// Exit 3: some of it is done; the rest is listed, run again.
    Partial,
    /// Exit 4: a check found a problem.
    Problem,
    /// Exit 5: refused because it would be unsafe.
    Refused,
    /// Exit 6: the outcome is unknown and has to be looked at.
    Unknown,
    /// Exit 75: another run holds this; try later.
    Busy,
    /// Exit 130: interrupted by the operator.
    Interrupted,
}

impl Kind {
    /// The exit code of the command-line contract.
    pub fn code(self) -> u8 {
        match self {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Partial => 3,
            Kind::Problem => 4,
            Kind::Refused => 5,
            Kind::Unknown => 6,
            Kind::Busy => 75,
            Kind::Interrupted => 130,
        }
    }
}

/// A command's failure: what kind, what happened, and what to do next.
#[derive(Debug)]
pub struct Failure {
    /// Decides the exit code.
    pub kind: Kind,
    /// What happened; each level of context names its object.
    pub source: anyhow::Error,
    /// What the operator can do, one sentence each.
    pub hints: Vec<String>,
}

impl Failure {
    /// A failure of `kind` from any error or message.
    pub fn new(kind: Kind, source: impl Into<anyhow::Error>) -> Self {
        Failure { kind, source: source.into(), hints: Vec::new() }
    }

    /// A failure from a message alone.
    pub fn msg(kind: Kind, message: impl fmt::Display) -> Self {
        Failure { kind, source: anyhow::anyhow!("{message}"), hints: Vec::new() }
    }

    /// Exit 1.
    pub fn failed(message: impl fmt::Display) -> Self {
        Self::msg(Kind::Failed, message)
    }

    /// Exit 2: nothing was touched.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::msg(Kind::Usage, message)
    }

    /// Exit 5: it would be unsafe.
    pub fn refused(message: impl fmt::Display) -> Self {
        Self::msg(Kind::Refused, message)
    }

    /// Adds what the operator can do next.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hints.push(hint.to_string());
        self
    }

    /// Puts `context` before the cause.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display + Send + Sync + 'static) -> Self {
        self.source = self.source.context(context);
        self
    }

    /// The same once more, for another object that it holds for as well.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Failure { kind: self.kind, source: anyhow::anyhow!("{self}"), hints: self.hints.clone() }
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind.code())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.source)
    }
}

/// An error of the standard library or of another crate that happened on this machine: it was tried and failed,
/// unless the caller knows better. Errors that have been to a host or to the cluster are not of this kind: they choose
/// theirs where they are defined, so that no unknown outcome is told as a failure.
pub trait Local: std::error::Error + Send + Sync + 'static {}

macro_rules! local {
    ($($error:ty),+ $(,)?) => {$(
        impl Local for $error {}

        impl From<$error> for Failure {
            fn from(source: $error) -> Self {
                Failure::new(Kind::Failed, source)
            }
        }
    )+};
}

local! {
    std::io::Error,
    std::num::TryFromIntError,
    std::path::StripPrefixError,
    std::string::FromUtf8Error,
    base64::DecodeError,
    globset::Error,
    minijinja::Error,
    nix::Error,
    rcgen::Error,
    roxmltree::Error,
    serde_json::Error,
    tokio::task::JoinError,
    tokio_rustls::rustls::Error,
}

/// Gives a local error its kind.
pub trait LocalExt<T> {
    /// Turns the error into a [`Failure`] of `kind`.
    fn or_kind(self, kind: Kind) -> Result<T, Failure>;
}

impl<T, E: Local> LocalExt<T> for Result<T, E> {
    fn or_kind(self, kind: Kind) -> Result<T, Failure> {
        self.map_err(|e| Failure::new(kind, e))
    }
}

/// Adds a hint or context to any result; its kind stays.
pub trait ResultExt<T> {
    /// Turns the error into a [`Failure`] with a hint.
    fn or_hint(self, hint: impl fmt::Display) -> Result<T, Failure>;
    /// Turns the error into a [`Failure`] with `context` before its cause.
    fn while_doing(self, context: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Into<Failure>> ResultExt<T> for Result<T, E> {
    fn or_hint(self, hint: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|e| e.into().hint(hint))
    }

    fn while_doing(self, context: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|e| e.into().context(context()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_contract() {
        let table = [
            (Kind::Failed, 1),
            (Kind::Usage, 2),
            (Kind::Partial, 3),
            (Kind::Problem, 4),
            (Kind::Refused, 5),
            (Kind::Unknown, 6),
            (Kind::Busy, 75),
            (Kind::Interrupted, 130),
        ];
        for (kind, code) in table {
            assert_eq!(kind.code(), code);
        }
    }

    #[test]
    fn a_local_error_is_a_failure_unless_the_caller_knows_better() {
        let missing = || std::fs::read("/nonexistent/file");
        assert_eq!(Failure::from(missing().unwrap_err()).kind, Kind::Failed);
        assert_eq!(missing().or_kind(Kind::Usage).unwrap_err().kind, Kind::Usage);
    }

    #[test]
    fn context_goes_before_the_cause_and_keeps_kind_and_hints() {
        let result: Result<(), Failure> = Err(Failure::refused("disk is mounted").hint("unmount it"));
        let failure = result.while_doing(|| "host h1".to_owned()).unwrap_err();
        assert_eq!(failure.to_string(), "host h1: disk is mounted");
        assert_eq!(failure.kind, Kind::Refused);
        assert_eq!(failure.hints, ["unmount it"]);
    }
}
