//! What the watch makes of what its witnesses say, without a clock and without any input or output.
//!
//! [`Brain::step`] takes one report and the time, and says what is to be done. The driver gives it reports and performs what
//! it asks for; the simulator does the same with hosts, a cluster and clocks that are not there.

mod action;
mod answer;

mod event;
mod guard;
mod incident;
mod input;
mod judge;
mod phase;
mod reports;
mod settings;
mod step;
mod verdict;

#[cfg(test)]
mod tests;

pub use action::{Action, Entry};
pub use event::{Event, EventKind};
pub use guard::{Hold, Rack, right_to_fence};
pub use input::{Input, LeaseState, Power, Work};
pub use judge::judge;
pub use phase::Phase;
pub use reports::{HostReports, Mons, Reports, View};
pub use settings::Settings;
pub use step::Brain;
pub use verdict::{State, Verdict, Witnessed};
