//! A new inventory, as commented text for its owners to go on with.

use super::{AddressRange, BmcKind, IpoibMode, LinkSpeed, Role, Size};
use ipnet::IpNet;
use std::fmt::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use uuid::Uuid;

/// Memory kept from guests beside what the OSDs get.
const SYSTEM_MEMORY: u64 = 4;
/// Memory an OSD aims to stay under, in GiB; the default of the inventory.
const OSD_MEMORY: u64 = 4;

/// What a new inventory is written from.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Name of the cluster.
    pub name: String,
    /// Its identity.
    pub fsid: Uuid,
    /// Login name.
    pub user: Option<String>,
    /// Private key file.
    pub identity: Option<PathBuf>,
    /// The cluster's own known_hosts file.
    pub known_hosts: Option<PathBuf>,
    /// Management network.
    pub management: DraftNetwork,
    /// Storage network; the management network again where there is only one.
    pub storage: DraftNetwork,
    /// Addresses that guests may get.
    pub guest_ranges: Vec<AddressRange>,
    /// Default route of the guests.
    pub gateway: Option<IpAddr>,
    /// Why no bridge of theirs can be made over the management network's ports, where that is so.
    pub no_bridge: Option<String>,
    /// The machines.
    pub hosts: Vec<DraftHost>,
    /// Machines that could not be looked at, each with the reason; written as comments.
    pub silent: Vec<(IpAddr, String)>,
}

/// A network of the hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DraftNetwork {
    /// Its addresses.
    pub cidr: IpNet,
    /// Its MTU, where it is not that of Ethernet.
    pub mtu: Option<u32>,
    /// How IP is carried, where it is InfiniBand.
    pub ipoib: Option<IpoibMode>,
    /// Speed of every host's port.
    pub speed: Option<LinkSpeed>,
}

impl DraftNetwork {
    /// A plain Ethernet network.
    pub fn ethernet(cidr: IpNet) -> Self {
        DraftNetwork { cidr, mtu: None, ipoib: None, speed: None }
    }
}

/// A machine.
#[derive(Clone, Debug)]
pub struct DraftHost {
    /// Its short name.
    pub name: String,
    /// Management address.
    pub address: IpAddr,
    /// Storage address.
    pub storage_address: IpAddr,
    /// Devices for OSDs, by stable path.
    pub osds: Vec<PathBuf>,
    /// Its management controller, where that is known.
    pub bmc: Option<DraftBmc>,
    /// What is known of it, for a comment.
    pub about: Option<String>,
    /// Its memory, where that is known.
    pub memory: Option<Size>,
}

/// A machine's management controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DraftBmc {
    /// How it is spoken to.
    pub kind: BmcKind,
    /// Its address.
    pub address: IpAddr,
}

/// The address with the same host part in another network.
pub fn counterpart(address: IpAddr, from: &IpNet, to: &IpNet) -> Option<IpAddr> {
    let found: IpAddr = match (address, from, to) {
        (IpAddr::V4(a), IpNet::V4(from), IpNet::V4(to)) => {
            let part = a.to_bits() & from.hostmask().to_bits();
            std::net::Ipv4Addr::from_bits(to.network().to_bits().checked_add(part)?).into()
        }
        (IpAddr::V6(a), IpNet::V6(from), IpNet::V6(to)) => {
            let part = a.to_bits() & from.hostmask().to_bits();
            std::net::Ipv6Addr::from_bits(to.network().to_bits().checked_add(part)?).into()
        }
        _ => return None,
    };
    (from.contains(&address) && to.contains(&found)).then_some(found)
}

impl Draft {
    /// The file's text.
    pub fn to_yaml(&self) -> String {
        let mut out = String::from(
            "# yaml-language-server: $schema=./inventory.schema.json\n\
             # Inventory of rackhand. Every key is explained in docs/inventory.md. Keep it in git; no secret stands in it.\n\
             #   rackhand inventory check                             what is wrong in this file\n\
             #   rackhand inventory schema > inventory.schema.json    lets your editor complete it\n\
             #   rackhand check                                       this file against the machines\n\n",
        );
        // Writing to a String cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "cluster:\n  name: {}", scalar(&self.name))?;
        writeln!(out, "  # The Ceph cluster's identity, from which other ids derive: never change it.")?;
        writeln!(out, "  fsid: {}\n", self.fsid)?;
        self.ssh(out)?;
        self.networks(out)?;
        self.storage(out)?;
        writeln!(out, "hosts:")?;
        for (index, host) in self.hosts.iter().enumerate() {
            self.host(out, index, host)?;
        }
        for (address, why) in &self.silent {
            writeln!(out, "  # {address} could not be looked at: {}", one_line(why))?;
            writeln!(out, "  # - name: ...\n  #   address: {address}\n  #   storage_address: ...")?;
        }
        Ok(())
    }

    fn ssh(&self, out: &mut String) -> std::fmt::Result {
        let path = |p: &Option<PathBuf>| p.as_ref().map(|p| p.display().to_string());
        let values =
            [("user", self.user.clone()), ("identity", path(&self.identity)), ("known_hosts", path(&self.known_hosts))];
        if values.iter().all(|(_, value)| value.is_none()) {
            return Ok(());
        }
        writeln!(out, "# How hosts are reached; what is not said here comes from ~/.ssh/config.\nssh:")?;
        for (key, value) in values {
            if let Some(value) = value {
                writeln!(out, "  {key}: {}", scalar(&value))?;
            }
        }
        writeln!(out)
    }

    fn networks(&self, out: &mut String) -> std::fmt::Result {
        let one = self.management.cidr == self.storage.cidr;
        writeln!(out, "networks:\n  # SSH, and what has no network of its own.\n  management:")?;
        network(out, &self.management)?;
        let shared = if one { "; here the same wire as management" } else { "" };
        writeln!(out, "  # Ceph and live migration{shared}.\n  storage:")?;
        network(out, &self.storage)?;
        let cidr = self.management.cidr;
        writeln!(out, "  # Networks of the guests; `ranges` are the addresses that rackhand may hand out.")?;
        let ranges = if self.guest_ranges.is_empty() {
            "FIRST-LAST".to_owned()
        } else {
            self.guest_ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        let sign = if self.guest_ranges.is_empty() || self.no_bridge.is_some() { "# " } else { "" };
        if let Some(why) = &self.no_bridge {
            let why: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            writeln!(out, "  # As it stands `provision` would refuse this one: {why}.")?;
        }
        writeln!(out, "  {sign}guests:\n  {sign}  lan:")?;
        writeln!(out, "  {sign}    bridge: br-lan    # over the management network's NIC, unless `uplink` names one")?;
        writeln!(out, "  {sign}    cidr: {cidr}")?;
        // The bridge takes over the port's addresses, so it must not carry less than they do.
        if let Some(mtu) = self.management.mtu.filter(|mtu| *mtu > 1500) {
            writeln!(out, "  {sign}    mtu: {mtu}")?;
        }
        if let Some(gateway) = self.gateway {
            writeln!(out, "  {sign}    gateway: {gateway}")?;
        }
        writeln!(out, "  {sign}    ranges: [{ranges}]\n")
    }

    /// Hosts whose disks are known; none where they are too few for the copies.
    fn storing(&self) -> usize {
        let storing = self.hosts.iter().filter(|h| !h.osds.is_empty()).count();
        if storing >= self.hosts.len().min(3) { storing } else { 0 }
    }

    fn storage(&self, out: &mut String) -> std::fmt::Result {
        let size = self.hosts.len().clamp(1, 3);
        writeln!(out, "ceph:\n  # Copies of everything, and how many must be there for writes to go on.")?;
        writeln!(out, "  size: {size}\n  min_size: {}", size.min(2))?;
        writeln!(out, "  failure_domain: host")?;
        writeln!(out, "  # How fast a dead host is noticed: stock, standard, fast.\n  failover: standard")?;
        writeln!(out, "  osd_memory: {OSD_MEMORY}G\n")?;
        let disks = self.hosts.iter().map(|h| h.osds.len() as u64).max().unwrap_or_default();
        let least = self.hosts.iter().filter_map(|h| h.memory).min();
        let half = least.map_or(u64::MAX, |m| (m.bytes() / 2) >> 30).max(1);
        let reserve = (SYSTEM_MEMORY + OSD_MEMORY * disks).min(half);
        writeln!(out, "guests:\n  # Memory each host keeps back for itself and its OSDs.")?;
        writeln!(out, "  host_reserve: {reserve}G\n")
    }

    fn host(&self, out: &mut String, index: usize, host: &DraftHost) -> std::fmt::Result {
        if let Some(about) = &host.about {
            writeln!(out, "  # {}", one_line(about))?;
        }
        writeln!(out, "  - name: {}", scalar(&host.name))?;
        writeln!(out, "    address: {}\n    storage_address: {}", host.address, host.storage_address)?;
        let mons = match self.hosts.len() {
            0..=2 => 1,
            3..=4 => 3,
            _ => 5,
        };
        let stores = self.storing() > 0 && !host.osds.is_empty();
        let has = |role: &Role| match role {
            Role::Mon => index < mons,
            Role::Osd => stores,
            // One works, the others stand by.
            Role::Mgr => index < 3,
            Role::Guests => true,
        };
        let roles: Vec<&str> = Role::ALL.into_iter().filter(has).map(Role::word).collect();
        writeln!(out, "    roles: [{}]", roles.join(", "))?;
        match host.osds.as_slice() {
            [] => writeln!(
                out,
                "    # Add osd to the roles, and its disks; `rackhand facts --disks` lists them:\n    # osds: [/dev/disk/by-id/...]"
            )?,
            disks => {
                let sign = if stores { "" } else { "# " };
                if !stores {
                    writeln!(out, "    # Add osd to the roles when enough hosts have disks:")?;
                }
                writeln!(out, "    {sign}osds:")?;
                for disk in disks {
                    writeln!(out, "    {sign}  - {}", scalar(&disk.display().to_string()))?;
                }
            }
        }
        let (sign, kind, address) = match host.bmc {
            Some(bmc) => ("", bmc.kind.word(), bmc.address.to_string()),
            None => ("# ", BmcKind::Redfish.word(), "...".to_owned()),
        };
        // Dell's own login; the password is looked for when the BMC is spoken to.
        let login = "user: root, password: {env: BMC_PASSWORD}";
        writeln!(out, "    {sign}bmc: {{kind: {kind}, address: {}, {login}}}", scalar_in_flow(&address))
    }
}

/// A text that ends no comment.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn network(out: &mut String, network: &DraftNetwork) -> std::fmt::Result {
    writeln!(out, "    cidr: {}", network.cidr)?;
    if let Some(mode) = network.ipoib {
        let word = if mode == IpoibMode::Connected { "connected" } else { "datagram" };
        writeln!(out, "    link: infiniband\n    ipoib: {word}")?;
    }
    if let Some(mtu) = network.mtu {
        writeln!(out, "    mtu: {mtu}")?;
    }
    if let Some(speed) = network.speed {
        writeln!(out, "    speed: {speed}")?;
    }
    Ok(())
}

/// The same between braces, where a colon may end a word.
fn scalar_in_flow(text: &str) -> String {
    if text.contains(':') { serde_json::Value::from(text).to_string() } else { text.to_owned() }
}

/// A text as YAML: quoted unless it is plainly a word.
fn scalar(text: &str) -> String {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ':' | '@' | '+');
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '.'));
    let special = matches!(text.to_lowercase().as_str(), "true" | "false" | "null" | "yes" | "no" | "on" | "off");
    let number = text.parse::<f64>().is_ok();
    if starts && text.chars().all(word) && !text.ends_with(':') && !special && !number {
        text.to_owned()
    } else {
        serde_json::Value::from(text).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::parse;
    use proptest::prelude::*;

    fn host(number: u8, disks: usize) -> DraftHost {
        DraftHost {
            name: format!("h{number}"),
            address: [10, 0, 0, number].into(),
            storage_address: [10, 1, 0, number].into(),
            osds: (0..disks).map(|d| format!("/dev/disk/by-id/wwn-{number}-{d}").into()).collect(),
            bmc: None,
            about: None,
            memory: None,
        }
    }

    fn draft(hosts: Vec<DraftHost>) -> Draft {
        Draft {
            name: "rack".to_owned(),
            fsid: Uuid::from_u128(7),
            user: None,
            identity: None,
            known_hosts: None,
            management: DraftNetwork::ethernet("10.0.0.0/24".parse().unwrap()),
            storage: DraftNetwork::ethernet("10.1.0.0/24".parse().unwrap()),
            guest_ranges: Vec::new(),
            gateway: None,
            no_bridge: None,
            hosts,
            silent: Vec::new(),
        }
    }

    #[test]
    fn a_draft_of_three_hosts() {
        let mut draft = draft((1..=3).map(|n| host(n, 2)).collect());
        draft.user = Some("root".to_owned());
        draft.storage.ipoib = Some(IpoibMode::Connected);
        draft.storage.mtu = Some(65520);
        draft.storage.speed = Some(LinkSpeed(56_000));
        draft.guest_ranges = vec!["10.0.0.100-10.0.0.199".parse().unwrap()];
        draft.gateway = Some([10, 0, 0, 254].into());
        draft.hosts[0].about = Some("Dell PowerEdge R720xd".to_owned());
        draft.hosts[0].bmc = Some(DraftBmc { kind: BmcKind::Redfish, address: [10, 2, 0, 1].into() });
        draft.hosts[1].bmc = Some(DraftBmc { kind: BmcKind::Ipmi, address: "fd00::2".parse().unwrap() });
        insta::assert_snapshot!(draft.to_yaml(), @r#"
        # yaml-language-server: $schema=./inventory.schema.json
        # Inventory of rackhand. Every key is explained in docs/inventory.md. Keep it in git; no secret stands in it.
        #   rackhand inventory check                             what is wrong in this file
        #   rackhand inventory schema > inventory.schema.json    lets your editor complete it
        #   rackhand check                                       this file against the machines

        cluster:
          name: rack
          # The Ceph cluster's identity, from which other ids derive: never change it.
          fsid: 00000000-0000-0000-0000-000000000007

        # How hosts are reached; what is not said here comes from ~/.ssh/config.
        ssh:
          user: root

        networks:
          # SSH, and what has no network of its own.
          management:
            cidr: 10.0.0.0/24
          # Ceph and live migration.
          storage:
            cidr: 10.1.0.0/24
            link: infiniband
            ipoib: connected
            mtu: 65520
            speed: 56G
          # Networks of the guests; `ranges` are the addresses that rackhand may hand out.
          guests:
            lan:
              bridge: br-lan    # over the management network's NIC, unless `uplink` names one
              cidr: 10.0.0.0/24
              gateway: 10.0.0.254
              ranges: [10.0.0.100-10.0.0.199]

        ceph:
          # Copies of everything, and how many must be there for writes to go on.
          size: 3
          min_size: 2
          failure_domain: host
          # How fast a dead host is noticed: stock, standard, fast.
          failover: standard
          osd_memory: 4G

        guests:
          # Memory each host keeps back for itself and its OSDs.
          host_reserve: 12G

        hosts:
          # Dell PowerEdge R720xd
          - name: h1
            address: 10.0.0.1
            storage_address: 10.1.0.1
            roles: [mon, mgr, osd, guests]
            osds:
              - /dev/disk/by-id/wwn-1-0
              - /dev/disk/by-id/wwn-1-1
            bmc: {kind: redfish, address: 10.2.0.1, user: root, password: {env: BMC_PASSWORD}}
          - name: h2
            address: 10.0.0.2
            storage_address: 10.1.0.2
            roles: [mon, mgr, osd, guests]
            osds:
              - /dev/disk/by-id/wwn-2-0
              - /dev/disk/by-id/wwn-2-1
            bmc: {kind: ipmi, address: "fd00::2", user: root, password: {env: BMC_PASSWORD}}
          - name: h3
            address: 10.0.0.3
            storage_address: 10.1.0.3
            roles: [mon, mgr, osd, guests]
            osds:
              - /dev/disk/by-id/wwn-3-0
              - /dev/disk/by-id/wwn-3-1
            # bmc: {kind: redfish, address: ..., user: root, password: {env: BMC_PASSWORD}}
        "#);
    }

    #[test]
    fn a_guests_network_over_jumbo_frames_has_their_mtu_and_a_refused_one_is_a_comment() {
        let mut draft = draft((1..=3).map(|n| host(n, 1)).collect());
        draft.management.mtu = Some(9000);
        draft.storage = draft.management;
        draft.hosts.iter_mut().for_each(|h| h.storage_address = h.address);
        draft.guest_ranges = vec!["10.0.0.100-10.0.0.199".parse().unwrap()];
        let inventory = parse("f.yaml", &draft.to_yaml()).unwrap();
        assert_eq!((inventory.networks.guests["lan"].mtu, inventory.networks.storage.mtu), (9000, 9000));
        draft.no_bridge = Some("host h1: uplink bond0 is a bond".to_owned());
        let text = draft.to_yaml();
        assert!(
            text.contains("  # As it stands `provision` would refuse this one: host h1: uplink bond0 is a bond.\n"),
            "{text}"
        );
        assert!(text.contains("  # guests:\n  #   lan:\n"), "{text}");
        assert!(parse("f.yaml", &text).unwrap().networks.guests.is_empty());
    }

    #[test]
    fn a_large_rack_has_five_monitors_and_three_managers() {
        let draft = draft((1..=40).map(|n| host(n, 1)).collect());
        let inventory = parse("f.yaml", &draft.to_yaml()).unwrap();
        let with = |role| inventory.hosts.iter().filter(|h| h.has(role)).count();
        assert_eq!((with(Role::Mon), with(Role::Mgr), with(Role::Osd), with(Role::Guests)), (5, 3, 40, 40));
    }

    #[test]
    fn addresses_keep_their_host_part() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let moved = |a: &str, from, to| counterpart(a.parse().unwrap(), &net(from), &net(to)).map(|a| a.to_string());
        assert_eq!(moved("10.0.0.11", "10.0.0.0/24", "10.1.0.0/24").as_deref(), Some("10.1.0.11"));
        assert_eq!(moved("10.0.3.11", "10.0.0.0/16", "10.1.0.0/24"), None);
        assert_eq!(moved("10.9.0.11", "10.0.0.0/24", "10.1.0.0/24"), None);
        assert_eq!(moved("10.0.0.11", "10.0.0.0/24", "fd00::/64"), None);
        assert_eq!(moved("fd00::b", "fd00::/64", "fd01::/64").as_deref(), Some("fd01::b"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_draft_is_accepted(
            disks in prop::collection::vec(0usize..3, 1..12),
            name in "[ -~]{1,12}",
            user in proptest::option::of("[ -~]{1,12}"),
            about in proptest::option::of(any::<String>()),
            one_network in any::<bool>(),
            range in any::<bool>(),
            bmc in proptest::option::of(any::<u8>()),
        ) {
            let hosts = disks.iter().enumerate().map(|(n, disks)| host(u8::try_from(n + 1).unwrap(), *disks));
            let mut draft = draft(hosts.collect());
            draft.name.clone_from(&name);
            draft.user.clone_from(&user);
            draft.hosts[0].about = about;
            draft.hosts[0].bmc = bmc.map(|last| DraftBmc { kind: BmcKind::Ipmi, address: [10, 2, 0, last].into() });
            draft.guest_ranges = if range { vec!["10.0.0.100-10.0.0.199".parse().unwrap()] } else { Vec::new() };
            if one_network {
                draft.storage = draft.management;
                draft.hosts.iter_mut().for_each(|h| h.storage_address = h.address);
            }
            let text = draft.to_yaml();
            let read = parse("f.yaml", &text);
            prop_assert!(read.is_ok(), "{}\n{}", read.unwrap_err(), text);
            let inventory = read.unwrap();
            prop_assert_eq!(inventory.cluster.name, name);
            prop_assert_eq!(inventory.ssh.user, user);
            prop_assert_eq!(inventory.hosts.len(), disks.len());
            prop_assert_eq!(inventory.hosts[0].bmc.is_some(), bmc.is_some());
        }
    }
}
