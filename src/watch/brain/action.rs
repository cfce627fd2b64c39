//! What the brain asks for.

use super::event::Event;
use super::phase::Phase;
use super::verdict::Verdict;
use serde::{Deserialize, Serialize};

/// An entry of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The host.
    pub host: String,
    /// What its incident comes to with this entry.
    pub phase: Phase,
    /// The verdict it stands on, with its evidence.
    pub verdict: Option<Verdict>,
}

/// Something to do. What is asked for in one step is done in its order; questions need not be waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Start an election on the mons of these hosts (`quorum enter`). Harmless when the suspicion is wrong.
    Nudge {
        /// The hosts of the mons.
        mons: Vec<String>,
    },
    /// Ask the mons; answered by `Mons`.
    AskMons,
    /// Let each of `from` look at each of `of` but itself; answered by a `View` each, also where nothing was reached.
    AskPeers {
        /// Who looks.
        from: Vec<String>,
        /// At whom.
        of: Vec<String>,
    },
    /// Ask a BMC; answered by `Power`.
    AskBmc {
        /// The host.
        host: String,
    },
    /// Write this down before what follows is done: in the cluster, or here until that answers.
    Record(Entry),
    /// Stop all guests of a host over SSH and prove that none runs; answered by `GuestsStopped` or `GuestsNotStopped`.
    StopGuests {
        /// The host.
        host: String,
    },
    /// Fence the host of the verdict; answered by `FenceDone` or `FenceFailed`. Where the verdict is neither dead, stuck nor
    /// cut off storage, a fence that another watcher began is to be completed: only if storage refuses the host already,
    /// else nothing is done.
    Fence {
        /// The host.
        host: String,
        /// Why.
        verdict: Verdict,
    },
    /// Start the guests of a fenced host elsewhere; answered by `RecoveryDone` or `RecoveryFailed`.
    Recover {
        /// The host.
        host: String,
    },
    /// A host that is not fenced was booted anew, or this watcher begins to lead and does not know whether it was: look
    /// which guests its claims name, and start again those that run nowhere. Answered by `Restarted`.
    RestartGuests {
        /// The host.
        host: String,
    },
    /// Move the guests of a slow host away by live migration.
    Drain {
        /// The host.
        host: String,
    },
    /// Start the libvirt of a host anew, which has not answered for long: guests run on without it.
    MendLibvirt {
        /// The host.
        host: String,
    },
    /// Tell people.
    Tell(Event),
}
