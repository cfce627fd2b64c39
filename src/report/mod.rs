//! How everything is: `status` shows it, `doctor` says what is wrong with it.

mod collect;
mod doctor;
mod finding;
mod foreign;
mod metrics;
mod status;
mod table;
#[cfg(test)]
mod tests;
mod watching;

pub use collect::{CephSeen, LiveSeen, NoCeph, Osd, Seen, collect_status, look_closely};
pub use doctor::examine;
pub use finding::Finding;
pub use metrics::HostMetrics;
pub use status::{FenceLine, GuestLine, HostLine, Protection, Status, assemble};
pub use table::{findings_table, status_table};
pub use watching::{WatchLine, WatchSeen};
