//! The engine under `provision` and `run`: probe, diff, apply, verify; a plan is a value.
//!
//! A list of [`Resource`]s says what a host shall have. [`probe_resources`] finds in one round trip what it has ([`State`]),
//! `diff` compares the two without touching anything, `apply` makes exactly the changes found.

mod apply;
mod bridge;
mod change;
mod diff;
mod guard;
mod job;
mod library;
mod probe;
mod resource;
mod shell;
mod state;
#[cfg(test)]
mod tests;
mod text;
mod writers;

pub use apply::{apply, write_files};
pub use bridge::{Refusal, refusal};
pub use change::{Action, Change, Findings, Skipped};
pub use diff::diff;
pub use guard::Fresh;
pub use job::{check_job, wait_for_units};
pub use library::{Library, Playbook, SkippedResource};
pub use probe::probe_resources;
pub use resource::{Block, Bridge, Command, Directory, File, Modules, Resource, Service, Sysctl, User};
pub use shell::{join, quote};
pub use state::{BridgeState, FileState, State, UnitState};
