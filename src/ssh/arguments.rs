//! The arguments that every `ssh` to a host of the inventory gets.

use super::control::quoted;
use crate::inventory::{HostSpec, Inventory};
use std::ffi::OsString;

/// Login and port, where the inventory says them; the rest is the operator's own configuration.
pub(super) fn login(inventory: &Inventory, host: &HostSpec) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    if let Some(user) = host.user.as_ref().or(inventory.ssh.user.as_ref()) {
        words.extend(["-l".into(), user.into()]);
    }
    if let Some(port) = host.port.or(inventory.ssh.port) {
        words.extend(["-p".into(), port.to_string().into()]);
    }
    words
}

/// [`login`], the inventory's key alone where it names one, and its known_hosts file.
pub(super) fn all(inventory: &Inventory, host: &HostSpec) -> Vec<OsString> {
    let mut words = login(inventory, host);
    if inventory.ssh.identity.is_some() {
        words.extend(["-o".into(), "IdentitiesOnly=yes".into()]);
    }
    if let Some(file) = &inventory.ssh.known_hosts {
        words.extend(["-o".into(), format!("UserKnownHostsFile={}", quoted(&inventory.path(file))).into()]);
    }
    words
}
