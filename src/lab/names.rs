//! Names and addresses of everything a lab makes, all computed from its number, so that nothing has to be remembered
//! to be found again.

use crate::error::Failure;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Hosts a lab can have; the management network has room for as many BMCs and for guests beside them.
pub const MAX_HOSTS: u8 = 40;
/// Disks a host can have.
pub const MAX_DISKS: u8 = 8;
/// The management NIC of every host.
pub const MANAGEMENT_NIC: &str = "eno1";
/// The storage NIC of every host.
pub const STORAGE_NIC: &str = "eno2";

/// A lab's name: a DNS label of at most 24 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LabName(String);

impl LabName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LabName {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let inner = s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        let edges = s.bytes().next().is_some_and(|b| b.is_ascii_lowercase()) && !s.ends_with('-');
        if inner && edges && s.len() <= 24 {
            Ok(LabName(s.to_owned()))
        } else {
            Err(format!("`{s}` is not a lab name: lower-case letters, digits and `-`, first a letter, at most 24"))
        }
    }
}

impl fmt::Display for LabName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which of a host's cables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    Management,
    Storage,
    Bmc,
}

/// A lab's number; every address and link name follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// 0 to 254, unique among the labs of a machine.
    pub(super) number: u8,
}

impl Plan {
    pub(super) fn new(number: u8) -> Self {
        Plan { number }
    }

    /// The lab machine's address on the management network.
    pub(super) fn machine(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.number, 1)
    }

    pub(super) fn management_cidr(self) -> String {
        format!("10.77.{}.0/24", self.number)
    }

    pub(super) fn storage_cidr(self) -> String {
        format!("10.78.{}.0/24", self.number)
    }

    /// Addresses for guests: in the management network, above those of hosts and BMCs.
    pub(super) fn guest_range(self) -> String {
        format!("10.77.{n}.160-10.77.{n}.249", n = self.number)
    }

    /// The prefix of all its links.
    pub(super) fn link_prefix(self) -> String {
        format!("rh{}-", self.number)
    }

    pub(super) fn management_bridge(self) -> String {
        format!("rh{}-m", self.number)
    }

    pub(super) fn storage_bridge(self) -> String {
        format!("rh{}-s", self.number)
    }

    /// The MAC a bridge is pinned to: an unpinned bridge changes it with its ports.
    pub(super) fn bridge_mac(self, wire: Wire) -> String {
        mac(self.number, wire, 0)
    }

    /// The `i`-th host, counted from 1.
    pub(super) fn host(self, i: u8) -> HostPlan {
        HostPlan { plan: self, i }
    }

    pub(super) fn hosts(self, count: u8) -> impl Iterator<Item = HostPlan> {
        (1..=count).map(move |i| self.host(i))
    }
}

fn mac(number: u8, wire: Wire, i: u8) -> String {
    let wire = match wire {
        Wire::Management => 1,
        Wire::Storage => 2,
        Wire::Bmc => 3,
    };
    // 02: locally administered.
    format!("02:72:68:{number:02x}:{wire:02x}:{i:02x}")
}

/// Names and addresses of one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HostPlan {
    pub(super) plan: Plan,
    /// Counted from 1.
    pub(super) i: u8,
}

impl HostPlan {
    pub(super) fn name(self) -> String {
        format!("h{}", self.i)
    }

    pub(super) fn management(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.plan.number, 10 + self.i)
    }

    pub(super) fn storage(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 78, self.plan.number, 10 + self.i)
    }

    pub(super) fn bmc(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.plan.number, 110 + self.i)
    }

    /// Its service tag: seven characters, like Dell's.
    pub(super) fn serial(self) -> String {
        format!("RH{:03}{:02}", self.plan.number, self.i)
    }

    /// The stable path of a disk inside the host.
    pub(super) fn disk_path(self, disk: u8) -> String {
        format!("/dev/disk/by-id/{}", self.disk_id(disk))
    }

    pub(super) fn disk_id(self, disk: u8) -> String {
        format!("rackhand-{}", self.disk_serial(disk))
    }

    /// A disk's serial number, where the disk has one; virtio's have at most 20 characters.
    pub(super) fn disk_serial(self, disk: u8) -> String {
        format!("{}-disk{disk}", self.serial())
    }

    /// The machine's end of a cable.
    pub(super) fn link(self, wire: Wire) -> String {
        let letter = match wire {
            Wire::Management => 'm',
            Wire::Storage => 's',
            Wire::Bmc => 'b',
        };
        format!("rh{}-{letter}{}", self.plan.number, self.i)
    }

    /// The MAC at the host's end of a cable.
    pub(super) fn mac(self, wire: Wire) -> String {
        mac(self.plan.number, wire, self.i)
    }

    /// Names and MACs of its NICs.
    pub(super) fn nics(self) -> [(&'static str, String); 2] {
        [(MANAGEMENT_NIC, self.mac(Wire::Management)), (STORAGE_NIC, self.mac(Wire::Storage))]
    }
}

/// The host of this name among the first `count`.
pub(super) fn find_host(plan: Plan, count: u8, name: &str) -> Result<HostPlan, Failure> {
    plan.hosts(count).find(|h| h.name() == name).ok_or_else(|| {
        let names: Vec<String> = plan.hosts(count).map(HostPlan::name).collect();
        Failure::usage(format!("the lab has no host `{name}`")).hint(format!("its hosts are {}", names.join(", ")))
    })
}

/// The lab number in a link's name, where it is one of ours.
pub(super) fn number_of_link(link: &str) -> Option<u8> {
    let (number, rest) = link.strip_prefix("rh")?.split_once('-')?;
    let ours = rest.starts_with(['m', 's', 'b']) && rest[1..].bytes().all(|b| b.is_ascii_digit());
    if ours { number.parse().ok() } else { None }
}

/// The login of every BMC of a lab.
pub(super) const BMC_USER: &str = "root";

/// A stable identity of a host's hardware.
pub(super) fn machine_uuid(host: HostPlan) -> uuid::Uuid {
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, host.serial().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_dns_labels() {
        for good in ["rack", "a", "ci-2"] {
            assert!(good.parse::<LabName>().is_ok(), "{good}");
        }
        for bad in ["", "Rack", "2a", "a-", "a/b", "..", "a b", "abcdefghijklmnopqrstuvwxy"] {
            assert!(bad.parse::<LabName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn no_address_or_name_is_used_twice() {
        let plan = Plan::new(254);
        let mut seen = BTreeSet::from([plan.machine().to_string()]);
        for host in plan.hosts(MAX_HOSTS) {
            let mut names = vec![host.management().to_string(), host.storage().to_string(), host.bmc().to_string()];
            names.push(host.serial());
            for wire in [Wire::Management, Wire::Storage, Wire::Bmc] {
                names.extend([host.link(wire), host.mac(wire)]);
            }
            for name in names {
                assert!(seen.insert(name.clone()), "{name} twice");
            }
            assert!(u32::from(host.bmc().octets()[3]) < 160);
        }
    }

    #[test]
    fn link_names_fit_the_kernel_and_are_recognised() {
        let host = Plan::new(254).host(MAX_HOSTS);
        for wire in [Wire::Management, Wire::Storage, Wire::Bmc] {
            // IFNAMSIZ is 16 with the final NUL.
            assert!(host.link(wire).len() < 16);
            assert_eq!(number_of_link(&host.link(wire)), Some(254));
        }
        assert_eq!(number_of_link(&host.plan.management_bridge()), Some(254));
        for foreign in ["eth0", "rhc2", "rhm0", "rh1-x", "rh999-m1", "rh1-mgmt"] {
            assert_eq!(number_of_link(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn an_unknown_host_names_the_known_ones() {
        let failure = find_host(Plan::new(0), 2, "h9").unwrap_err();
        assert_eq!(failure.hints, ["its hosts are h1, h2"]);
    }
}
