//! How everything is: `status` shows it, `doctor` says what is wrong with it.

mod doctor;
mod finding;
mod foreign;
mod look;
mod pulse;
mod status;
mod table;
#[cfg(test)]
mod tests;

pub use doctor::examine;
pub use finding::Finding;
pub use look::{CephSeen, LiveSeen, NoCeph, Osd, Seen, look, look_closely};
pub use pulse::Pulse;
pub use status::{GuestLine, HostLine, Protection, Status, assemble};
pub use table::{findings_table, status_table};
