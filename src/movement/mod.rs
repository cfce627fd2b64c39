//! Moving running guests between hosts: planners (pure) and one executor.
//!
//! The source's libvirt sends the guest to the target's by itself, over mutual TLS, so that a lost operator's machine
//! does not stop a move. What a move is about is written into the guest's claim before it begins and after its end was
//! seen on both hosts: the same command, run again, picks up whatever was left in between.

mod budget;
mod evacuate;
mod gather;
mod plan;
mod preflight;
mod run;
mod settle;
mod stall;
#[cfg(test)]
mod tests;
mod transfer;
mod verdict;

pub use evacuate::{Evacuation, Homecoming};
pub use gather::{Wanted, answers, gather, link};
pub use plan::{Facts, LINK_SHARE, Loss, Move, Placed, Plan, Stay, plan, plan_evacuation};
pub use preflight::{data_uri, libvirt_uri};
pub use run::{GuestResult, Report, execute};
pub use transfer::{Ended, Figures};
pub use verdict::{Side, Verdict, judge};

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
