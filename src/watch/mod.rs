//! Watching over the rack: a host that is lost is shut out, and its guests start elsewhere.

pub mod brain;
pub mod care;
mod drain;
pub mod driver;
mod eyewitness;
pub mod history;
pub mod incident;
mod rack_hands;
mod readmit;
pub mod reboot;
mod recovery;
#[cfg(test)]
mod recovery_tests;
mod rehearsing;
#[cfg(test)]
mod strict_tests;
pub mod telling;
pub mod witness;

pub use rack_hands::RackHands;
pub use readmit::{Readmitted, readmit};
pub use recovery::{HostLoss, Restart, RestartPlan, storage_addresses};
pub use rehearsing::follow as follow_rehearsals;
