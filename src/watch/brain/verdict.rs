//! What the watch makes of a host.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What the watch makes of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It beats, and its work is done in time.
    Healthy,
    /// It is silent, and too little is known yet.
    Suspect,
    /// It is silent, and its peers reach it on neither network.
    Dead,
    /// It is silent here, and its peers reach it.
    UnreachableFromHere,
    /// Its storage network is cut, its management network is not.
    StorageCut,
    /// Its management network is cut, its storage network is not: its guests run on.
    ManagementCut,
    /// It beats, and its disk is late.
    Slow,
    /// It is there, and cannot do its work: libvirt does not answer, or it only answers pings.
    Stuck,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Healthy => "healthy",
            State::Suspect => "suspect",
            State::Dead => "dead",
            State::UnreachableFromHere => "unreachable from here",
            State::StorageCut => "cut off the storage network",
            State::ManagementCut => "cut off the management network",
            State::Slow => "slow",
            State::Stuck => "stuck",
        })
    }
}

/// What one witness said.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Witnessed {
    /// When it was heard, in milliseconds since the watcher began.
    pub at_ms: u64,
    /// The witness.
    pub who: String,
    /// What it said.
    pub says: String,
}

/// What the watch makes of a host, on which evidence, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The host.
    pub host: String,
    /// What it is held to be.
    pub state: State,
    /// How long it has been silent, in milliseconds.
    pub silent_ms: u64,
    /// All that was known.
    pub evidence: Vec<Witnessed>,
    /// Why, in a sentence.
    pub reason: String,
}
