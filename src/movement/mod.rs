//! Moving running guests between hosts: planners (pure) and one executor.
//!
//! The source's libvirt sends the guest to the target's by itself, over mutual TLS, so that a lost operator's machine
//! does not stop a move. What a move is about is written into the guest's claim before it begins and after its end was
//! seen on both hosts: the same command, run again, picks up whatever was left in between.

mod budget;
#[cfg(test)]
mod crash_tests;
mod evacuate;
mod explain;
mod follow;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod late_tests;
mod leave;
mod link;
mod options;
mod plan;
mod planning_input;
mod preflight;
mod run;
mod stall;
#[cfg(test)]
mod tests;
mod transfer;

pub use evacuate::{Evacuation, ReturnPlan};
pub use options::Options;
pub use plan::{Facts, Loss, Move, Placed, Plan, Unmoved, plan, plan_evacuation};
pub use planning_input::{Wanted, answers, gather, link};
pub use preflight::{data_uri, libvirt_uri, rehearse};
pub use run::{GuestResult, Report, execute};
pub use transfer::{Ended, Figures};
