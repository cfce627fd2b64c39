//! Whether this watcher may fence at all: it has to be sure that it is not the broken one.

use super::reports::Mons;
use super::settings::Settings;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// The rack as a whole, as far as the right to fence depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rack<'a> {
    /// How many hosts the inventory has.
    pub hosts: usize,
    /// How many of them beat.
    pub healthy: usize,
    /// Hosts that fell silent at about the same time, or are dead and not fenced.
    pub lost: Vec<String>,
    /// What the mons said last.
    pub mons: Option<&'a Mons>,
    /// Whether the watch may act.
    pub armed: bool,
    /// Whether the lease lets this watcher fence.
    pub leads: bool,
}

/// Why the watch does not fence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hold {
    /// It is disarmed.
    Disarmed,
    /// Another watcher leads.
    NotLeading,
    /// No host beats: the watcher is the broken one.
    CutOff,
    /// Too few hosts beat.
    FewHealthy {
        /// How many do.
        healthy: usize,
        /// How many hosts there are.
        hosts: usize,
    },
    /// Too few mons answer to this watcher.
    NoMons {
        /// How many do.
        answering: usize,
        /// How many mons there are.
        members: usize,
    },
    /// More hosts were lost at once than one fault explains.
    ManyLost {
        /// The hosts.
        lost: Vec<String>,
        /// How many may be lost at once.
        may_be: usize,
    },
    /// More hosts are slow or stuck at once than one fault explains.
    ManySlow {
        /// How many are.
        slow: usize,
    },
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hold::Disarmed => write!(f, "the watch is disarmed, or was when it was last asked"),
            Hold::NotLeading => write!(f, "another watcher leads"),
            Hold::CutOff => write!(f, "no host is heard any more, so it is this watcher that is cut off"),
            Hold::FewHealthy { healthy, hosts } => {
                write!(f, "only {healthy} of {hosts} hosts are heard, which is no majority")
            }
            Hold::NoMons { answering, members } => {
                write!(f, "{answering} of {members} mons answer, which is no quorum")
            }
            Hold::ManyLost { lost, may_be } => write!(
                f,
                "hosts {} are lost at once, and the watch acts by itself on {may_be} at most: look, then release it",
                lost.join(", ")
            ),
            Hold::ManySlow { slow } => {
                write!(
                    f,
                    "{slow} hosts are slow or stuck at once, so it is none of them alone: look at what they share"
                )
            }
        }
    }
}

/// Whether this watcher may fence a host that is held to be dead.
///
/// # Errors
/// The reason why not.
pub fn right_to_fence(now: Duration, rack: &Rack<'_>, settings: &Settings) -> Result<(), Hold> {
    if !rack.armed {
        return Err(Hold::Disarmed);
    }
    if !rack.leads {
        return Err(Hold::NotLeading);
    }
    if rack.healthy == 0 {
        return Err(Hold::CutOff);
    }
    if rack.healthy * 2 <= rack.hosts {
        return Err(Hold::FewHealthy { healthy: rack.healthy, hosts: rack.hosts });
    }
    let mons = rack.mons.filter(|mons| now.saturating_sub(mons.asked) <= settings.view_age);
    if !mons.is_some_and(Mons::are_enough) {
        let (answering, members) = mons.map_or((0, 0), |mons| (mons.answering.len(), mons.members.len()));
        return Err(Hold::NoMons { answering, members });
    }
    let may_be = settings.may_be_lost(rack.hosts);
    if rack.lost.len() > may_be {
        return Err(Hold::ManyLost { lost: rack.lost.clone(), may_be });
    }
    Ok(())
}
