//! ssh in the operator's own terminal, to the same hosts in the same way.
#![allow(clippy::disallowed_methods, reason = "runs ssh and its tools on this machine")]

use super::arguments;
use crate::inventory::{HostSpec, Inventory};
use std::process::Command;

/// An `ssh` for the operator's terminal: strict host keys, the inventory's login, key and jump host.
pub fn interactive(inventory: &Inventory, host: &HostSpec) -> Command {
    let mut command = Command::new("ssh");
    command.args(["-o", "StrictHostKeyChecking=yes"]).args(arguments::all(inventory, host));
    if let Some(identity) = &inventory.ssh.identity {
        command.arg("-i").arg(inventory.path(identity));
    }
    if let Some(jump) = &inventory.ssh.jump {
        command.arg("-J").arg(jump);
    }
    command.arg("-t").arg(host.address.to_string());
    command
}
