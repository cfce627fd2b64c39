//! The checked inventory: what every other room reads.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use uuid::Uuid;

/// A whole rack: its hosts, networks, storage and policies.
#[derive(Clone, Debug, Deserialize, Serialize)]
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
    pub hosts: Vec<HostSpec>,
    /// Backup storage outside the cluster.
    #[serde(default)]
    pub backup: BackupSpec,
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

    /// A path of the file, made absolute.
    pub fn path(&self, path: &std::path::Path) -> PathBuf {
        self.base.join(path)
    }
}

/// Identity of the cluster.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterIdentity {
    /// Name shown to people.
    pub name: String,
    /// The Ceph cluster id; other stable ids derive from it.
    pub fsid: Uuid,
}

/// How hosts are reached over SSH. What is not said here comes from the operator's own ssh configuration.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SshDefaults {
    /// Login name.
    pub user: Option<String>,
    /// Port.
    pub port: Option<u16>,
    /// Private key file.
    pub identity: Option<PathBuf>,
    /// The cluster's own known_hosts file.
    pub known_hosts: Option<PathBuf>,
    /// Jump host, as `ssh -J` takes it.
    pub jump: Option<String>,
}

/// Networks of the rack.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Networks {
    /// SSH, BMCs and, unless it has its own, everything else.
    pub management: HostNetwork,
    /// Ceph and migration.
    pub storage: HostNetwork,
    /// Which of the two networks carries migrations.
    #[serde(default)]
    pub migration: MigrationNetwork,
    /// Networks of the guests, by name.
    #[serde(default)]
    pub guests: BTreeMap<String, GuestNetwork>,
}

/// A network that hosts have addresses in.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HostNetwork {
    /// Its addresses.
    pub cidr: IpNet,
    /// Maximum transmission unit in bytes.
    #[serde(default = "default_mtu")]
    pub mtu: u32,
    /// What the wire is.
    #[serde(default)]
    pub link: LinkKind,
    /// Speed each host's port must have, in Mbit/s.
    #[serde(default)]
    pub speed: Option<LinkSpeed>,
}

fn default_mtu() -> u32 {
    1500
}

/// What a network's wire is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkKind {
    /// Ethernet.
    #[default]
    Ethernet,
    /// IP over InfiniBand.
    Infiniband,
}

/// A link speed in Mbit/s, written `1G`, `10G`, `25G`, `40G`, `56G`, `100G`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkSpeed(pub u64);

impl std::str::FromStr for LinkSpeed {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let (digits, factor) = match s.strip_suffix('G') {
            Some(d) => (d, 1000),
            None => (s.strip_suffix('M').unwrap_or(""), 1),
        };
        match digits.parse::<u64>() {
            Ok(n) if n > 0 => Ok(LinkSpeed(n * factor)),
            _ => Err(format!("`{s}` is no link speed; write for example 10G")),
        }
    }
}

impl std::fmt::Display for LinkSpeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_multiple_of(1000) { write!(f, "{}G", self.0 / 1000) } else { write!(f, "{}M", self.0) }
    }
}

/// A number of bytes, written `512M`, `4G`, `1T` (powers of 1024).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    /// So many MiB.
    pub const fn mib(n: u64) -> Self {
        Size(n << 20)
    }

    /// So many GiB.
    pub const fn gib(n: u64) -> Self {
        Size(n << 30)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{s}` is no size; write for example 512M or 4G");
        let body = s.strip_suffix("iB").unwrap_or(s);
        let (digits, shift) = match body.char_indices().last() {
            Some((at, 'K')) => (&body[..at], 10),
            Some((at, 'M')) => (&body[..at], 20),
            Some((at, 'G')) => (&body[..at], 30),
            Some((at, 'T')) => (&body[..at], 40),
            _ => return Err(wrong()),
        };
        let n: u64 = digits.parse().map_err(|_| wrong())?;
        n.checked_mul(1 << shift).map(Size).ok_or_else(wrong)
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (shift, unit) in [(40, "T"), (30, "G"), (20, "M"), (10, "K")] {
            if self.0 > 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}", self.0)
    }
}

macro_rules! serde_as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
serde_as_text!(LinkSpeed, Size);

/// Which network carries migrations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MigrationNetwork {
    /// The storage network, usually the faster one.
    #[default]
    Storage,
    /// The management network.
    Management,
}

/// A network that guests have addresses in.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GuestNetwork {
    /// Name of the bridge on every host.
    pub bridge: String,
    /// NIC under the bridge; a host may name its own.
    #[serde(default)]
    pub uplink: Option<String>,
    /// VLAN tag on the uplink, where there is one.
    #[serde(default)]
    pub vlan: Option<u16>,
    /// Addresses of the network.
    pub cidr: IpNet,
    /// Default route of the guests.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    /// Name servers of the guests.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// Addresses that guests may get, first and last of each range.
    #[serde(default)]
    pub ranges: Vec<AddressRange>,
    /// Maximum transmission unit in bytes.
    #[serde(default = "default_mtu")]
    pub mtu: u32,
}

/// A range of addresses, both ends included, written `10.0.0.10-10.0.0.99`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    /// First address.
    pub first: IpAddr,
    /// Last address.
    pub last: IpAddr,
}

impl std::str::FromStr for AddressRange {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{s}` is no address range; write for example 10.0.0.10-10.0.0.99");
        let (first, last) = s.split_once('-').ok_or_else(wrong)?;
        let range = AddressRange {
            first: first.trim().parse().map_err(|_| wrong())?,
            last: last.trim().parse().map_err(|_| wrong())?,
        };
        if range.first.is_ipv4() != range.last.is_ipv4() || range.first > range.last { Err(wrong()) } else { Ok(range) }
    }
}

impl std::fmt::Display for AddressRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}
serde_as_text!(AddressRange);

/// Storage: pools and behaviour.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct CephSpec {
    /// Pool of the guests' disks.
    pub pool: String,
    /// Copies of each object.
    pub size: u8,
    /// Copies that must be there for writes to go on.
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
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

/// Levels of fast failover; each costs more elections when mon disks stall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FailoverProfile {
    /// Ceph's own timers.
    Stock,
    /// Shorter leases and elections.
    #[default]
    Standard,
    /// The shortest that was measured to hold.
    Fast,
}

/// What guests get, where nothing else is said.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct GuestDefaults {
    /// Memory of a guest.
    pub memory: Size,
    /// Virtual processors of a guest.
    pub cpus: u32,
    /// Size of the first disk; the image's own when smaller than it.
    pub disk: Size,
    /// Network of the first NIC; the only one where there is one.
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

/// What a host does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Ceph monitor.
    Mon,
    /// Ceph manager.
    Mgr,
    /// Ceph storage.
    Osd,
    /// Runs guests.
    Guests,
}

/// A machine.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HostSpec {
    /// Its short host name.
    pub name: String,
    /// Address on the management network.
    pub address: IpAddr,
    /// Address on the storage network.
    pub storage_address: IpAddr,
    /// Login name, where it is not the default.
    #[serde(default)]
    pub user: Option<String>,
    /// SSH port, where it is not the default.
    #[serde(default)]
    pub port: Option<u16>,
    /// Where it stands.
    #[serde(default)]
    pub location: Location,
    /// What it does.
    #[serde(default = "all_roles")]
    pub roles: Vec<Role>,
    /// Devices for OSDs, by stable path.
    #[serde(default)]
    pub osds: Vec<PathBuf>,
    /// Its baseboard management controller.
    #[serde(default)]
    pub bmc: Option<BmcSpec>,
    /// NIC under each guest bridge, by network name, where it differs from the network's uplink.
    #[serde(default)]
    pub uplinks: BTreeMap<String, String>,
    /// Memory kept back, where it is not the default.
    #[serde(default)]
    pub reserve: Option<Size>,
}

fn all_roles() -> Vec<Role> {
    vec![Role::Mon, Role::Mgr, Role::Osd, Role::Guests]
}

impl HostSpec {
    /// Whether the host has a role.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

/// Where a host stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Location {
    /// Data centre.
    pub datacenter: Option<String>,
    /// Rack.
    pub rack: Option<String>,
}

/// A baseboard management controller.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BmcSpec {
    /// How it is spoken to.
    pub kind: BmcKind,
    /// Its address on the management network.
    pub address: IpAddr,
    /// Port, where it is not the protocol's own.
    #[serde(default)]
    pub port: Option<u16>,
    /// Login name.
    pub user: String,
    /// Where the password comes from.
    pub password: SecretRef,
}

/// How a BMC is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BmcKind {
    /// Redfish over HTTPS.
    Redfish,
    /// IPMI over LAN.
    Ipmi,
}

/// Where a secret comes from; the secret itself stays out of the inventory.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum SecretRef {
    /// An environment variable of the operator.
    Env(String),
    /// A file only its owner can read.
    File(PathBuf),
    /// A command that prints it (pass, op, vault).
    Command(Vec<String>),
}

/// Backup storage outside the cluster.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackupSpec {
    /// Storage hosts, by name.
    pub storage: BTreeMap<String, BackupStorage>,
}

/// A storage host for backups.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BackupStorage {
    /// Its address.
    pub address: IpAddr,
    /// Login name.
    #[serde(default)]
    pub user: Option<String>,
    /// Directory of the repository.
    pub path: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_speeds_and_ranges_read_back_as_written() {
        for text in ["512M", "4G", "1T", "64K"] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
        for text in ["", "4", "4X", "-1G", "99999999999T"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
        assert_eq!("100G".parse::<LinkSpeed>().unwrap(), LinkSpeed(100_000));
        assert!("fast".parse::<LinkSpeed>().is_err());
        assert!("10.0.0.9-10.0.0.3".parse::<AddressRange>().is_err());
        assert_eq!("10.0.0.3-10.0.0.9".parse::<AddressRange>().unwrap().to_string(), "10.0.0.3-10.0.0.9");
    }
}
