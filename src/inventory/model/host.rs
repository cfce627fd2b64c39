//! A machine: where it is, what it does, how its power is switched.

use super::units::{KeyPin, Size};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// What a host does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
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

impl Role {
    /// All of them.
    pub const ALL: [Role; 4] = [Role::Mon, Role::Mgr, Role::Osd, Role::Guests];

    /// The word in the inventory.
    pub const fn word(self) -> &'static str {
        match self {
            Role::Mon => "mon",
            Role::Mgr => "mgr",
            Role::Osd => "osd",
            Role::Guests => "guests",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostSpec {
    /// Its short host name.
    pub name: String,
    /// Address on the management network.
    pub address: IpAddr,
    /// Address on the storage network.
    pub storage_address: IpAddr,
    /// Login name, where it is not the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// SSH port, where it is not the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// Where it stands.
    #[serde(default)]
    pub location: Location,
    /// What it does; everything where nothing is said.
    #[serde(default = "all_roles")]
    pub roles: Vec<Role>,
    /// Devices for OSDs, by stable path.
    #[serde(default)]
    pub osds: Vec<PathBuf>,
    /// Its baseboard management controller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bmc: Option<BmcSpec>,
    /// NIC under each guest bridge, by network name, where it differs from the network's uplink.
    #[serde(default)]
    pub uplinks: BTreeMap<String, String>,
    /// Memory kept back, where it is not the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve: Option<Size>,
}

fn all_roles() -> Vec<Role> {
    Role::ALL.to_vec()
}

impl HostSpec {
    /// Whether the host has a role.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

/// Where a host stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Location {
    /// Data centre.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datacenter: Option<String>,
    /// Rack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rack: Option<String>,
}

/// A baseboard management controller.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BmcSpec {
    /// How it is spoken to.
    pub kind: BmcKind,
    /// Its address, reachable from the hosts.
    pub address: IpAddr,
    /// Port, where it is not the protocol's own (443, 623).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// Login name.
    pub user: String,
    /// Where the password comes from.
    pub password: SecretRef,
    /// The key its certificate must have; not checked where none is given. For `kind: redfish`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<KeyPin>,
}

/// How a BMC is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BmcKind {
    /// Redfish over HTTPS.
    Redfish,
    /// IPMI over LAN.
    Ipmi,
}

impl BmcKind {
    /// The word in the inventory.
    pub const fn word(self) -> &'static str {
        match self {
            BmcKind::Redfish => "redfish",
            BmcKind::Ipmi => "ipmi",
        }
    }

    /// The protocol's own port.
    pub const fn port(self) -> u16 {
        match self {
            BmcKind::Redfish => 443,
            BmcKind::Ipmi => 623,
        }
    }
}

/// Where a secret comes from; the secret itself stays out of the inventory unless asked for by name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum SecretRef {
    /// An environment variable of the operator.
    Env(String),
    /// A file only its owner can read.
    File(PathBuf),
    /// A command that prints it (pass, op, vault), as a list of its words.
    Command(Vec<String>),
    /// The secret itself, for racks whose passwords are no secret.
    Inline(InlineSecret),
}

/// A secret written into the inventory; shown and written nowhere else.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct InlineSecret(String);

impl InlineSecret {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        InlineSecret(secret.into())
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for InlineSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl Serialize for InlineSecret {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str("(hidden)")
    }
}
