//! Agentless Ceph and KVM for ops teams: an inventory in, a running cluster out.
//!
//! Rooms import downwards only: `cli` at the top, [`error`] and [`ui`] at the bottom.

// What a test runs, it runs on this machine; what is banned is banned in the program.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod backup;
pub mod cli;
pub mod cluster;
pub mod error;
pub mod fence;
#[cfg(test)]
mod fuzz;
pub mod guest;
pub mod host;
pub mod inventory;
pub mod lab;
pub mod libvirt;
pub mod movement;
pub mod playbook;
pub mod provision;
pub mod quote;
pub mod report;
pub mod ssh;
pub mod ui;
pub mod watch;
