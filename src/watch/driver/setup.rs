//! What a watcher begins with.

use super::hands::Hands;
use crate::cluster::ClusterPort;
use crate::inventory::{Inventory, Role};
use crate::ssh::Fleet;
use crate::watch::brain::Settings;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// sshd's own port.
const SSH: u16 = 22;
/// Ports of a storage network on which something of Ceph may answer, beside sshd: mons and the first OSD.
const STORAGE: [u16; 3] = [3300, 6789, 6800];

/// A host that is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedHost {
    /// Its name.
    pub name: String,
    /// Where others look for it on the management network.
    pub management: (IpAddr, Vec<u16>),
    /// Where others look for it on the storage network.
    pub storage: (IpAddr, Vec<u16>),
    /// Whether it runs guests.
    pub guests: bool,
    /// Whether it has a mon.
    pub mon: bool,
}

/// The hosts of an inventory, as they are watched.
pub fn watched_hosts(inventory: &Inventory) -> Vec<WatchedHost> {
    let hosts = inventory.hosts.iter().map(|host| {
        let ssh = host.port.or(inventory.ssh.port).unwrap_or(SSH);
        let storage = std::iter::once(ssh).chain(STORAGE).collect();
        WatchedHost {
            name: host.name.clone(),
            management: (host.address, vec![ssh]),
            storage: (host.storage_address, storage),
            guests: host.roles.contains(&Role::Guests),
            mon: host.roles.contains(&Role::Mon),
        }
    });
    hosts.collect()
}

/// What a watcher begins with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How the lease names this watcher. No two ever have the same name.
    pub me: String,
    /// How patient it is.
    pub settings: Settings,
    /// The hosts.
    pub hosts: Vec<WatchedHost>,
    /// A file for the journal, in case the cluster does not answer.
    pub journal: Option<PathBuf>,
    /// Whether it wants to lead, and to act. Else it looks and tells.
    pub acts: bool,
}

/// What a watcher sees and acts through.
#[derive(Clone)]
pub struct Ports {
    /// The hosts, over connections that nothing but heartbeats uses.
    pub hearts: Fleet,
    /// The cluster.
    pub port: Arc<dyn ClusterPort>,
    /// What it acts with.
    pub hands: Arc<dyn Hands>,
}
