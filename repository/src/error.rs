//! What can go wrong in a repository, by what a caller does about it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

/// What a caller branches on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request makes no sense.
    Request,
    /// Another run holds the guest's lock: try later.
    Locked,
    /// The point is there already.
    Exists,
    /// The repository, the guest, the point or the disk is not there.
    NotFound,
    /// What is stored is not what was stored.
    Damaged,
    /// Written by a newer version of the program.
    NewerFormat,
    /// A diff stream breaks its rules or ends early.
    Stream,
    /// The reader failed.
    Reader,
    /// The file system of the repository is full.
    Full,
    /// The chain that the point would stand on is as long as one may be: take a full, or merge it.
    ChainTooLong,
    /// The file system refuses.
    Io,
}

/// A failure.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What a caller branches on.
    pub kind: ErrorKind,
    /// For people.
    pub message: String,
    /// The point that it is about.
    pub point: Option<String>,
}

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A failure of a kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), point: None }
    }

    /// The same, about a point.
    #[must_use]
    pub fn at(mut self, point: &str) -> Self {
        self.point.get_or_insert_with(|| point.to_owned());
        self
    }

    /// A stream that breaks the rules.
    pub(crate) fn stream(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Stream, message)
    }

    /// Stored bytes that are not what was stored.
    pub(crate) fn damaged(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Damaged, message)
    }

    /// What the file system said about a path.
    pub(crate) fn io(path: &Path, error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Io,
        };
        Self::new(kind, format!("{}: {error}", path.display()))
    }
}

/// Names the path of a failed call.
pub(crate) trait Named<T> {
    /// The result, with the path in its message.
    fn named(self, path: &Path) -> Result<T>;
}

impl<T> Named<T> for io::Result<T> {
    fn named(self, path: &Path) -> Result<T> {
        self.map_err(|error| Error::io(path, &error))
    }
}
