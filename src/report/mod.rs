//! How everything is: `status` shows it, `doctor` says what is wrong with it.

mod doctor;
mod look;
mod pulse;
mod status;
mod table;
#[cfg(test)]
mod tests;

pub use doctor::{Finding, Severity, examine};
pub use look::{CephSeen, NoCeph, Osd, Seen, look};
pub use pulse::Pulse;
pub use status::{GuestLine, HostLine, Protection, Status, assemble};
pub use table::{findings_table, status_table};
