//! The engine under `provision` and `run`: probe, diff, apply, verify; a plan is a value.

mod change;
mod job;

pub use change::{Action, Change, Findings, Skipped};
pub use job::{check_job, run_job, wait_for_units};
