//! What the brain is told.

use super::phase::Phase;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// How a piece of work went that a host does with each beat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// It was done, and took so long.
    Done(Duration),
    /// It was not done within its deadline, and may still be.
    Late,
    /// It failed, for this reason.
    Failed(String),
}

/// What a BMC says of the power of its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Power {
    /// On, or on its way to either state: a host that is powering off can still write.
    On,
    /// Off.
    Off,
    /// The BMC does not answer. That is never the same as off.
    Unreachable,
}

/// How it stands with the lease of the watchers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaseState {
    /// This watcher holds it.
    Held {
        /// Until when that is certain without a renewal.
        until: Duration,
        /// Its generation.
        generation: u64,
    },
    /// Another watcher holds it, or may.
    Taken {
        /// Who.
        holder: String,
        /// When it may be taken over, if it is not renewed before.
        free_at: Duration,
    },
    /// It could not be read or written in time: storage stands still. What was known of it before still counts.
    Stalled,
}

/// One report to the brain. Times are since the watcher began, on a clock that goes on while the machine sleeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Input {
    /// Time has passed. Comes at least four times in `suspect_after`.
    Tick,
    /// A beat of a host came in over its stream.
    Beat {
        /// The host.
        host: String,
        /// How writing and syncing a small file went.
        disk: Work,
        /// How a call to libvirt went.
        libvirt: Work,
    },
    /// The stream of beats of a host ended. That alone proves nothing: silence counts from the last beat.
    BeatLost {
        /// The host.
        host: String,
        /// What ssh said.
        why: String,
    },
    /// The stream of beats of a host was opened, and this is its boot id.
    Booted {
        /// The host.
        host: String,
        /// Its boot id.
        boot_id: String,
    },
    /// What one host sees of another one. `None`: the question itself was not answered.
    View {
        /// Who looked.
        from: String,
        /// At whom.
        of: String,
        /// When it was asked to look.
        asked: Duration,
        /// Whether it was reached on the management network.
        management: Option<bool>,
        /// Whether it was reached on the storage network.
        storage: Option<bool>,
    },
    /// What the mons say that the watcher reaches. All of them are named by their hosts.
    Mons {
        /// When they were asked.
        asked: Duration,
        /// All mons of the cluster.
        members: BTreeSet<String>,
        /// The mons that answered.
        answering: BTreeSet<String>,
        /// The mons in quorum, as the newest answer has it; empty during an election.
        quorum: BTreeSet<String>,
    },
    /// What Ceph says of the OSDs of a host.
    Osds {
        /// The host.
        host: String,
        /// How many are up.
        up: usize,
        /// How many are down.
        down: usize,
    },
    /// What the BMC of a host says.
    Power {
        /// The host.
        host: String,
        /// Its power.
        power: Power,
    },
    /// How it stands with the lease.
    Lease(LeaseState),
    /// Whether the watch may act. To be told again and again: after a pause the brain does nothing until it is.
    Armed(bool),
    /// Whether a host is under maintenance.
    Maintenance {
        /// The host.
        host: String,
        /// Whether it is.
        on: bool,
    },
    /// An incident that is open in the journal, perhaps from another watcher, of a host that storage does refuse. One that
    /// storage does not refuse is judged anew instead.
    Incident {
        /// The host it is about.
        host: String,
        /// How far it came.
        phase: Phase,
    },
    /// The guests of a host were stopped over SSH, and none of them runs there any more.
    GuestsStopped {
        /// The host.
        host: String,
    },
    /// The guests of a host could not be stopped over SSH.
    GuestsNotStopped {
        /// The host.
        host: String,
        /// Why.
        why: String,
    },
    /// The fence of a host is proven.
    FenceDone {
        /// The host.
        host: String,
        /// The proof, in words.
        proof: String,
    },
    /// The fence of a host is not proven.
    FenceFailed {
        /// The host.
        host: String,
        /// Why.
        why: String,
        /// Whether it is certain that nothing was changed.
        nothing_done: bool,
    },
    /// The guests of a host run elsewhere, or wait for something that the watch cannot give.
    RecoveryDone {
        /// The host.
        host: String,
        /// Guests that run again.
        started: usize,
        /// Guests that do not, each with the reason.
        waiting: Vec<String>,
    },
    /// The recovery of a host ended before it was through.
    RecoveryFailed {
        /// The host.
        host: String,
        /// Why.
        why: String,
    },
    /// It was looked after the guests that should run on a host, as `RestartGuests` asked.
    Restarted {
        /// The host.
        host: String,
        /// Guests that should run and do not, each with the reason.
        waiting: Vec<String>,
    },
    /// Not all guests of a slow host were moved away, as `Drain` asked.
    DrainFailed {
        /// The host.
        host: String,
    },
    /// A host was let in again.
    Readmitted {
        /// The host.
        host: String,
    },
    /// A person has looked, and says that what is held may go on.
    Release,
}

impl Input {
    /// The host it is about, if it is about one.
    pub fn host(&self) -> Option<&str> {
        match self {
            Input::Beat { host, .. }
            | Input::BeatLost { host, .. }
            | Input::Booted { host, .. }
            | Input::Osds { host, .. }
            | Input::Power { host, .. }
            | Input::Maintenance { host, .. }
            | Input::Incident { host, .. }
            | Input::GuestsStopped { host }
            | Input::GuestsNotStopped { host, .. }
            | Input::FenceDone { host, .. }
            | Input::FenceFailed { host, .. }
            | Input::RecoveryDone { host, .. }
            | Input::RecoveryFailed { host, .. }
            | Input::Restarted { host, .. }
            | Input::DrainFailed { host }
            | Input::Readmitted { host } => Some(host),
            Input::View { of, .. } => Some(of),
            Input::Tick | Input::Mons { .. } | Input::Lease(_) | Input::Armed(_) | Input::Release => None,
        }
    }
}
