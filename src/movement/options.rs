//! How guests are moved.

use std::time::Duration;

/// How guests are moved.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// MiB/s each move may take at most.
    pub bandwidth: Option<u64>,
    /// The longest a guest may stand still.
    pub max_downtime: Duration,
    /// Speed of the migration network in bytes a second, where it is known.
    pub link: Option<u64>,
    /// After this long no more moves are begun.
    pub deadline: Option<Duration>,
}
