//! Planned reboots: a host is emptied, rebooted and given its guests back, one host at a time, and no watch takes it for a
//! loss.

mod ceph;
mod documents;
mod host;
mod rolling;
#[cfg(test)]
mod tests;
mod turn;
mod watcher;

pub use host::{Preview, Reboot, Rebooted};
pub use rolling::{HostOutcome, RollingReport, reboot_all};
pub use turn::Turn;
