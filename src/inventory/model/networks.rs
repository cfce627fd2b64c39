//! Networks of the hosts and of the guests.

use super::units::{AddressRange, Cidr, LinkSpeed};
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Networks of the rack.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Networks {
    /// SSH, BMCs and, unless it has its own, everything else.
    pub management: HostNetwork,
    /// Ceph and, unless said otherwise, migration.
    pub storage: HostNetwork,
    /// Which of the two networks carries migrations.
    #[serde(default)]
    pub migration: MigrationNetwork,
    /// Networks of the guests, by name.
    #[serde(default)]
    pub guests: BTreeMap<String, GuestNetwork>,
}

/// A network that hosts have addresses in.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostNetwork {
    /// Its addresses.
    #[schemars(with = "Cidr")]
    pub cidr: IpNet,
    /// Maximum transmission unit in bytes.
    #[serde(default = "default_mtu")]
    #[schemars(range(min = 1280, max = 65520))]
    pub mtu: u32,
    /// What the wire is.
    #[serde(default)]
    pub link: LinkKind,
    /// How IP is carried over InfiniBand; for `link: infiniband` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipoib: Option<IpoibMode>,
    /// Speed each host's port must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<LinkSpeed>,
}

pub(super) fn default_mtu() -> u32 {
    1500
}

/// What a network's wire is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LinkKind {
    /// Ethernet.
    #[default]
    Ethernet,
    /// IP over InfiniBand.
    Infiniband,
}

/// How IP is carried over InfiniBand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum IpoibMode {
    /// One packet a frame: MTU up to 4092, offloads work.
    Datagram,
    /// A connection a peer: MTU up to 65520.
    Connected,
}

impl IpoibMode {
    /// The largest MTU of the mode (Linux: IPOIB_CM_MTU is 64 KiB less 16 bytes; a 4 KiB link frame less 4).
    pub const fn max_mtu(self) -> u32 {
        match self {
            IpoibMode::Datagram => 4092,
            IpoibMode::Connected => 65520,
        }
    }
}

/// Which network carries migrations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MigrationNetwork {
    /// The storage network, usually the faster one.
    #[default]
    Storage,
    /// The management network.
    Management,
}

/// A network that guests have addresses in.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GuestNetwork {
    /// Name of the bridge on every host.
    pub bridge: String,
    /// NIC under the bridge; a host may name its own. Without it, the NIC of the management network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<String>,
    /// VLAN tag on the uplink, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4094))]
    pub vlan: Option<u16>,
    /// Addresses of the network.
    #[schemars(with = "Cidr")]
    pub cidr: IpNet,
    /// Default route of the guests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Name servers of the guests.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// Addresses that guests may get, first and last of each range.
    #[serde(default)]
    pub ranges: Vec<AddressRange>,
    /// Maximum transmission unit in bytes.
    #[serde(default = "default_mtu")]
    #[schemars(range(min = 1280, max = 9216))]
    pub mtu: u32,
}
