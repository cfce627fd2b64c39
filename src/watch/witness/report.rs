//! What a witness says.

use super::beat::Beat;
use std::collections::BTreeMap;

/// What a mon says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MonView {
    /// `leader`, `peon`, `electing`, `probing` and the like.
    pub state: String,
    /// The mons that it shares a quorum with, itself included; none where it has no quorum.
    pub quorum: Vec<String>,
    /// All mons that it knows of.
    pub mons: Vec<String>,
}

impl MonView {
    /// Whether it is in a quorum.
    pub fn in_quorum(&self) -> bool {
        matches!(self.state.as_str(), "leader" | "peon") && !self.quorum.is_empty()
    }
}

/// One thing that a witness saw, at the time when it is received.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// A host's heartbeat stream begins.
    Connected {
        /// The host.
        host: String,
        /// Changes with each boot of it.
        boot: String,
    },
    /// A host's heart beats.
    Beat {
        /// The host.
        host: String,
        /// What its work took.
        beat: Beat,
    },
    /// A line of a host that is no heartbeat; it counts as a lost one.
    Garbled {
        /// The host.
        host: String,
    },
    /// A host's heartbeat stream ended, or could not be opened.
    Ended {
        /// The host.
        host: String,
        /// Why, in words.
        why: String,
    },
    /// What a mon says of itself.
    Mon {
        /// The host it runs on.
        host: String,
        /// Which question it answers.
        round: u64,
        /// Its view.
        view: MonView,
    },
    /// A mon that does not answer.
    MonSilent {
        /// The host it runs on.
        host: String,
        /// Which question it does not answer.
        round: u64,
        /// Why, in words.
        why: String,
    },
    /// How many OSDs of each host the cluster counts as up and as down.
    Osds {
        /// Up and down, by host.
        hosts: BTreeMap<String, (u32, u32)>,
    },
}
