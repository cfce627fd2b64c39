//! A guest as the cluster remembers it.

use crate::cluster::Document;
use crate::error::Failure;
use crate::inventory::Size;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use uuid::Uuid;

/// Longest guest name: it is a host name's label (RFC 1123).
const NAME_MAX: usize = 63;
/// The state object that maps names to ids.
pub const INDEX: &str = "guest-index";

/// How far the making of a guest got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Its disks are not all there yet; running `guest create` again finishes it.
    Creating,
    /// It can be started.
    Ready,
    /// It is being taken away; running `guest delete` again finishes it.
    Deleting,
}

/// What its owner wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Desired {
    /// It shall run.
    #[default]
    Running,
    /// It shall stay down.
    Stopped,
}

/// What has to be proven of a lost host before a guest of it starts elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum FailoverPolicy {
    /// That the storage refuses the host: its disks are safe then.
    #[default]
    DataSafe,
    /// That as well, and that the host is off: nothing of the guest is left in the network then.
    Strict,
}

impl std::fmt::Display for FailoverPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            FailoverPolicy::DataSafe => "data-safe",
            FailoverPolicy::Strict => "strict",
        })
    }
}

/// A guest's definition.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Guest {
    /// Its name; also its domain's.
    pub name: String,
    /// Its id; also its domain's.
    pub uuid: Uuid,
    /// How far its making got.
    pub stage: Stage,
    /// What its owner wants.
    pub desired: Desired,
    /// The template its first disk came from.
    pub image: ImageRef,
    /// Memory.
    pub memory: Size,
    /// Virtual processors.
    pub cpus: u32,
    /// Its disks, the first one boots.
    pub disks: Vec<Disk>,
    /// Its NICs.
    pub nics: Vec<Nic>,
    /// The machine it believes to be; the same on every host and for ever.
    pub machine: Machine,
    /// Tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Who goes first when not all can; higher is sooner.
    #[serde(default)]
    pub priority: i32,
    /// Whether deleting it is refused.
    #[serde(default)]
    pub protected: bool,
    /// What has to be proven of a lost host before it starts elsewhere.
    #[serde(default)]
    pub failover: FailoverPolicy,
    /// The only host it may run on, where there is one.
    #[serde(default)]
    pub pinned: Option<String>,
    /// When it was made.
    pub created: jiff::Timestamp,
    /// What it is being restored from, while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Restoring>,
}

/// Where a guest that is not complete yet is restored from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Restoring {
    /// The repository.
    pub repository: String,
    /// The point.
    pub point: String,
    /// The run that does it; only that one writes to the disks.
    pub run: String,
}

impl Document for Guest {
    const SCHEMA: &'static str = "rackhand.guest/1";
}

impl Guest {
    /// The state object of a guest's definition.
    pub fn object(uuid: Uuid) -> String {
        format!("guest.{uuid}")
    }

    /// The disk image of its seed.
    pub fn seed_image(&self) -> String {
        format!("vm.{}.seed", self.uuid)
    }
}

/// A version of a template.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ImageRef {
    /// Name of the template.
    pub name: String,
    /// Version of it.
    pub version: u32,
}

/// A disk of a guest.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Disk {
    /// Its name in the guest's definition, `disk0` for the first.
    pub name: String,
    /// Its image in the guests' pool.
    pub image: String,
    /// Its size.
    pub size: Size,
}

/// A NIC of a guest.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Nic {
    /// Network of the inventory.
    pub network: String,
    /// Its hardware address.
    pub mac: String,
    /// Its address.
    pub address: IpAddr,
}

/// The machine a guest sees.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Machine {
    /// Machine type with its version, for example `pc-q35-7.2`.
    pub machine: String,
    /// `kvm`, or `qemu` for emulation.
    pub virt: String,
    /// The processor, as a `<cpu>` element.
    pub cpu: String,
}

impl Machine {
    /// Whether the processor is emulated, which only a lab wants.
    pub fn is_emulated(&self) -> bool {
        self.virt != "kvm"
    }
}

impl Document for Machine {
    const SCHEMA: &'static str = "rackhand.machine/1";
}

/// Checks a guest's name: it becomes a host name, a domain name and part of file names.
///
/// # Errors
/// When it is no host name's label.
pub fn check_name(name: &str) -> Result<(), Failure> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let fine = name.len() <= NAME_MAX
        && name.chars().all(inner)
        && ends(name.chars().next())
        && ends(name.chars().last())
        && Uuid::parse_str(name).is_err();
    if fine {
        return Ok(());
    }
    Err(Failure::usage(format!("`{name}` is not a guest name"))
        .hint("a name has lower-case letters, digits and `-` inside, at most 63 characters"))
}

/// The names of `count` guests: NAME alone, or NAME-1 to NAME-count.
///
/// # Errors
/// When a name is no guest name or the count is 0.
pub fn names(name: &str, count: Option<u32>) -> Result<Vec<String>, Failure> {
    let names: Vec<String> = match count {
        None => vec![name.to_owned()],
        Some(0) => return Err(Failure::usage("--count has to be at least 1")),
        Some(count) => (1..=count).map(|n| format!("{name}-{n}")).collect(),
    };
    for name in &names {
        check_name(name)?;
    }
    Ok(names)
}

/// A guest that can stand in tests.
#[cfg(test)]
pub(crate) fn sample(name: &str) -> Guest {
    let uuid = Uuid::new_v5(&Uuid::NAMESPACE_DNS, name.as_bytes());
    Guest {
        name: name.to_owned(),
        uuid,
        stage: Stage::Ready,
        desired: Desired::Running,
        image: ImageRef { name: "tiny".into(), version: 1 },
        memory: Size::gib(1),
        cpus: 2,
        disks: vec![Disk { name: "disk0".into(), image: format!("vm.{uuid}.disk0"), size: Size::gib(20) }],
        nics: vec![Nic {
            network: "lan".into(),
            mac: "52:54:12:34:56:78".into(),
            address: IpAddr::from([10, 77, 1, 20]),
        }],
        machine: Machine {
            machine: "pc-q35-7.2".into(),
            virt: "qemu".into(),
            cpu: "<cpu mode='custom' match='exact' check='none'><model fallback='forbid'>qemu64</model></cpu>".into(),
        },
        tags: BTreeMap::new(),
        priority: 0,
        protected: false,
        failover: FailoverPolicy::DataSafe,
        pinned: None,
        created: jiff::Timestamp::UNIX_EPOCH,
        restore: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_host_names_label() {
        for good in ["a", "web1", "web-1", "0"] {
            check_name(good).unwrap();
        }
        for bad in ["", "-a", "a-", "Web", "a.b", "a b", "a/b", "6f2c0b8e-3f9d-4a43-9f5e-0f9f1c7b2a11", &"a".repeat(64)]
        {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn counted_guests_are_numbered_from_one() {
        assert_eq!(names("web", Some(2)).unwrap(), ["web-1", "web-2"]);
        assert_eq!(names("web", None).unwrap(), ["web"]);
        assert!(names("web", Some(0)).is_err());
    }
}
