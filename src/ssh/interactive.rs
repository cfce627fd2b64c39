//! ssh in the operator's own terminal, to the same hosts in the same way.

use crate::inventory::{HostSpec, Inventory};
use std::ffi::OsString;
use std::process::Command;

/// An `ssh` for the operator's terminal: strict host keys, the inventory's login, key and jump host.
pub fn interactive(inventory: &Inventory, host: &HostSpec) -> Command {
    let mut command = Command::new("ssh");
    command.args(arguments(inventory, host));
    command
}

fn arguments(inventory: &Inventory, host: &HostSpec) -> Vec<OsString> {
    let ssh = &inventory.ssh;
    let mut words: Vec<OsString> = vec!["-o".into(), "StrictHostKeyChecking=yes".into()];
    let mut push = |flag: &str, value: OsString| words.extend([flag.into(), value]);
    if let Some(user) = host.user.as_ref().or(ssh.user.as_ref()) {
        push("-l", user.into());
    }
    if let Some(port) = host.port.or(ssh.port) {
        push("-p", port.to_string().into());
    }
    if let Some(identity) = &ssh.identity {
        push("-o", "IdentitiesOnly=yes".into());
        push("-i", inventory.path(identity).into());
    }
    if let Some(file) = &ssh.known_hosts {
        push("-o", format!("UserKnownHostsFile=\"{}\"", inventory.path(file).display()).into());
    }
    if let Some(jump) = &ssh.jump {
        push("-J", jump.into());
    }
    words.extend(["-t".into(), host.address.to_string().into()]);
    words
}
