//! A whole rack, and how it is reached.

use super::{
    BackupSpec, CephSpec, FailoverProfile, GuestDefaults, HostNetwork, HostSpec, MigrationNetwork, Networks, Role,
    Size, WatchSpec,
};
use crate::error::Failure;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;

/// A whole rack: its hosts, networks, storage and policies.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Inventory {
    /// Identity of the cluster.
    pub cluster: ClusterIdentity,
    /// How hosts are reached, where a host does not say otherwise.
    #[serde(default)]
    pub ssh: SshDefaults,
    /// Networks of the hosts and of the guests.
    pub networks: Networks,
    /// Storage.
    #[serde(default)]
    pub ceph: CephSpec,
    /// What guests get, where nothing else is said.
    #[serde(default)]
    pub guests: GuestDefaults,
    /// The machines.
    #[schemars(length(min = 1))]
    pub hosts: Vec<HostSpec>,
    /// Backup storage outside the cluster.
    #[serde(default)]
    pub backup: BackupSpec,
    /// How it is watched over.
    #[serde(default)]
    pub watch: WatchSpec,
    /// The directory of the file, against which relative paths in it are resolved.
    #[serde(skip)]
    pub base: PathBuf,
}

impl Inventory {
    /// The host of this name.
    pub fn host(&self, name: &str) -> Option<&HostSpec> {
        self.hosts.iter().find(|h| h.name == name)
    }

    /// Hosts with a role, in the file's order.
    pub fn with_role(&self, role: Role) -> impl Iterator<Item = &HostSpec> {
        self.hosts.iter().filter(move |h| h.roles.contains(&role))
    }

    /// Memory a host keeps back for itself and its OSDs.
    pub fn reserve(&self, host: &HostSpec) -> Size {
        host.reserve.unwrap_or(self.guests.host_reserve)
    }

    /// Checks that there is anything to store on. A rack without OSDs may be looked at, and its inventory edited; it can
    /// neither be checked for what it is to become nor provisioned.
    ///
    /// # Errors
    /// When no host has an OSD (exit 2).
    pub fn require_osds(&self) -> Result<(), Failure> {
        if self.with_role(Role::Osd).any(|host| !host.osds.is_empty()) {
            return Ok(());
        }
        let failure = Failure::usage("the inventory has no OSD: Ceph would have nowhere to store anything");
        Err(failure.hint(format!(
            "list disks of {} hosts or more under `osds:`; `rackhand facts --disks` shows what each host has",
            self.ceph.size
        )))
    }

    /// How long a host may be silent before it can be held to be dead. A bond or a spanning tree may take 1 to 3 s to
    /// recover; only `fastest` asks for a network that never does.
    pub fn patience(&self) -> Duration {
        match (self.watch.patience, self.ceph.failover) {
            (Some(patience), _) => patience.0,
            (None, FailoverProfile::Fastest) => Duration::from_millis(900),
            (None, FailoverProfile::Stock | FailoverProfile::Standard | FailoverProfile::Fast) => {
                Duration::from_secs(3)
            }
        }
    }

    /// The network that carries migrations.
    pub fn migration_network(&self) -> &HostNetwork {
        match self.networks.migration {
            MigrationNetwork::Storage => &self.networks.storage,
            MigrationNetwork::Management => &self.networks.management,
        }
    }

    /// A host's address on the network that carries migrations.
    pub fn migration_address(&self, host: &HostSpec) -> IpAddr {
        match self.networks.migration {
            MigrationNetwork::Storage => host.storage_address,
            MigrationNetwork::Management => host.address,
        }
    }

    /// A path of the file, as seen from the working directory.
    pub fn path(&self, path: &Path) -> PathBuf {
        resolve(&self.base, path)
    }
}

/// A path of a file in `base`; one that begins with `~/` is the operator's, as in a shell.
pub(in crate::inventory) fn resolve(base: &Path, path: &Path) -> PathBuf {
    if let (Ok(below), Some(home)) = (path.strip_prefix("~"), std::env::var_os("HOME")) {
        return Path::new(&home).join(below);
    }
    let plain = path.strip_prefix(".").unwrap_or(path);
    if base == Path::new(".") { plain.to_path_buf() } else { base.join(plain) }
}

/// Identity of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClusterIdentity {
    /// Name shown to people.
    pub name: String,
    /// The Ceph cluster id; other stable ids derive from it.
    pub fsid: Uuid,
}

/// How hosts are reached over SSH. What is not said here comes from the operator's own ssh configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SshDefaults {
    /// Login name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Port.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// Private key file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<PathBuf>,
    /// The cluster's own known_hosts file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known_hosts: Option<PathBuf>,
    /// Jump host, as `ssh -J` takes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jump: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_file_or_of_the_operator() {
        let resolved = |base: &str, path: &str| resolve(Path::new(base), Path::new(path)).display().to_string();
        assert_eq!(resolved("/racks", "keys/id"), "/racks/keys/id");
        assert_eq!(resolved("/racks", "/etc/id"), "/etc/id");
        assert_eq!(resolved(".", "./known_hosts"), "known_hosts");
        let home = std::env::var("HOME").unwrap();
        assert_eq!(resolved("/racks", "~/.ssh/id"), format!("{home}/.ssh/id"));
        assert_eq!(resolved("/racks", "~other/id"), "/racks/~other/id");
    }
}
