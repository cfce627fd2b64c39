//! Runs the brain over the real rack: witnesses in, actions out, one leader at a time.

mod audience;
mod clock;
mod cluster_state;
mod countdown;
mod documents;
mod hands;
mod journal;
mod overdue;
mod perform;
mod run;
mod seat;
mod setup;
#[cfg(test)]
mod tests;
mod translate;

pub use audience::{Audience, HostPicture, Picture, Told};
pub use documents::{Disarmed, OpenIncidents, WatchStatus};
pub use hands::{FenceFailure, Hands, Progress, Recovered, Standing, TellProgress};
pub use run::watch;
pub use seat::LEASE;
pub use setup::{Ports, Setup, WatchedHost, watched_hosts};
