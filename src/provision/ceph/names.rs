//! Names, paths and addresses that several steps have in common.

use crate::error::Failure;
use crate::inventory::{Inventory, Role};
pub(super) use crate::provision::GUEST_USER as GUESTS;
use std::net::{IpAddr, SocketAddr};

/// Ceph's own configuration file.
pub(super) const CONF: &str = "/etc/ceph/ceph.conf";
/// Keys and first map wait here, on monitor hosts only, until there is a quorum.
pub(super) const SEED: &str = "/var/lib/ceph/rackhand-seed";
/// The live cluster's monitor key and map wait here while a monitor's store is made.
pub(super) const JOIN: &str = "/var/lib/ceph/rackhand-join";

/// Where monitors listen, for each version of the messenger.
const MON_PORTS: [u16; 2] = [3300, 6789];

/// A monitor's address, both messenger versions, as `mon_host` and the monitor map write it.
pub(super) fn mon_address(address: IpAddr) -> String {
    let [v2, v1] = MON_PORTS.map(|port| SocketAddr::new(address, port));
    format!("[v2:{v2},v1:{v1}]")
}

/// The host under whose name changes to the cluster as a whole are listed.
pub(super) fn label_host(inventory: &Inventory) -> Result<&str, Failure> {
    let first = inventory.with_role(Role::Mon).next();
    first.map(|h| h.name.as_str()).ok_or_else(|| Failure::usage("no host of the inventory has the role mon"))
}
