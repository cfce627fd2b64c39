//! What is known of each host, and who says so: its own heartbeat, the other hosts' view of it, its mon and its OSDs.
//!
//! Nothing here judges. Every witness tells what it saw as a [`Report`]; that nothing was seen is for the brain to notice.

mod beat;
mod mons;
mod osds;
mod report;
mod stream;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use beat::{Beat, Work};
pub use mons::MonWitness;
pub use osds::{OsdWitness, by_host as osds_by_host};
pub use report::{MonView, Report};
pub use stream::{HostStream, Pace, Probe};
