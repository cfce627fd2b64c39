//! Ceph, guest defaults and backup storage.

use super::units::Size;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// Storage: pools and behaviour.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CephSpec {
    /// Pool of the guests' disks.
    pub pool: String,
    /// Copies of each object.
    #[schemars(range(min = 1, max = 10))]
    pub size: u8,
    /// Copies that must be there for writes to go on.
    #[schemars(range(min = 1, max = 10))]
    pub min_size: u8,
    /// What may fail at once without losing more than one copy.
    pub failure_domain: FailureDomain,
    /// How fast the loss of a host is noticed.
    pub failover: FailoverProfile,
    /// Memory each OSD aims to stay under.
    pub osd_memory: Size,
}

impl Default for CephSpec {
    fn default() -> Self {
        CephSpec {
            pool: "guests".to_owned(),
            size: 3,
            min_size: 2,
            failure_domain: FailureDomain::Host,
            failover: FailoverProfile::Standard,
            osd_memory: Size::gib(4),
        }
    }
}

/// What may fail at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FailureDomain {
    /// A host.
    #[default]
    Host,
    /// A rack.
    Rack,
    /// A data centre.
    Datacenter,
}

/// Levels of fast failover; each costs more elections when mon disks stall. The seconds are from cutting a host to
/// its guest answering elsewhere, measured on a lab of three hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FailoverProfile {
    /// Ceph's own timers: 20 to 40 s.
    Stock,
    /// Leases and elections of 2 s: about 13 s.
    #[default]
    Standard,
    /// Leases and elections of 1 s: about 8 s; needs mons on disks whose fsync takes milliseconds.
    Fast,
    /// Leases of 0.6 s and elections of 0.5 s: about 5 s; needs mons on disks whose fsync takes a millisecond or two, and
    /// a network that never stands still for a second.
    Fastest,
}

/// What guests get, where nothing else is said.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GuestDefaults {
    /// Memory of a guest.
    pub memory: Size,
    /// Virtual processors of a guest.
    #[schemars(range(min = 1, max = 4096))]
    pub cpus: u32,
    /// Size of the first disk; the image's own when smaller than it.
    pub disk: Size,
    /// Network of the first NIC; the only one where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Memory each host keeps back for itself and its OSDs.
    pub host_reserve: Size,
    /// Virtual processors for each hardware thread.
    pub cpu_overcommit: f64,
}

impl Default for GuestDefaults {
    fn default() -> Self {
        GuestDefaults {
            memory: Size::gib(1),
            cpus: 1,
            disk: Size::gib(10),
            network: None,
            host_reserve: Size::gib(4),
            cpu_overcommit: 4.0,
        }
    }
}

/// Where backups go.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BackupSpec {
    /// Repositories of backups, by name.
    pub storage: BTreeMap<String, BackupStorage>,
}

/// A repository of backups.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackupStorage {
    /// The machine that it is on, outside the cluster; the one that runs rackhand where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Login name, where it is not the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// SSH port, where it is not the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// Directory of the repository, absolute.
    pub path: PathBuf,
}
