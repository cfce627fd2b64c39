//! The file as far as it can be read: each value may be missing, each has its place.
//!
//! Checks of meaning work on this, so that one mistake of form does not hide the others. What cannot be read has been
//! reported already and is simply not there.

use super::diagnostic::Span;
use super::format::nearest;
use super::spanned_yaml::Node;
use super::{AddressRange, BmcKind, FailureDomain, IpoibMode, LinkKind, Role, Size};
use ipnet::IpNet;
use serde::de::DeserializeOwned;
use std::net::IpAddr;
use std::str::FromStr;

/// A value and its place.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub value: T,
    pub span: Span,
}

pub(super) struct View {
    pub management: NetworkView,
    pub storage: NetworkView,
    pub guest_networks: Vec<GuestNetworkView>,
    pub ceph: CephView,
    pub default_network: Option<At<String>>,
    pub guest_sizes: Vec<(&'static str, At<Size>)>,
    pub cpu_overcommit: Option<At<f64>>,
    pub hosts: Vec<HostView>,
    pub backups: Vec<BackupView>,
}

pub(super) struct NetworkView {
    pub name: &'static str,
    pub cidr: Option<At<IpNet>>,
    pub mtu: Option<At<u32>>,
    pub link: LinkKind,
    pub ipoib: Option<At<IpoibMode>>,
}

pub(super) struct GuestNetworkView {
    pub name: At<String>,
    pub bridge: Option<At<String>>,
    pub uplink: Option<At<String>>,
    pub vlan: Option<At<u16>>,
    pub cidr: Option<At<IpNet>>,
    pub gateway: Option<At<IpAddr>>,
    pub dns: Vec<At<IpAddr>>,
    pub ranges: Vec<At<AddressRange>>,
    pub mtu: Option<At<u32>>,
}

pub(super) struct CephView {
    pub pool: Option<At<String>>,
    pub size: At<u8>,
    pub min_size: At<u8>,
    pub failure_domain: At<FailureDomain>,
    pub osd_memory: Option<At<Size>>,
}

pub(super) struct HostView {
    /// `host h3`, for messages.
    pub label: String,
    pub span: Span,
    pub name: Option<At<String>>,
    pub address: Option<At<IpAddr>>,
    pub storage_address: Option<At<IpAddr>>,
    pub datacenter: Option<At<String>>,
    pub rack: Option<At<String>>,
    /// Nothing when one of them cannot be read.
    pub roles: Option<Vec<Role>>,
    pub roles_span: Span,
    pub osds: Vec<At<String>>,
    /// Whether `osds` holds something that cannot be read, or is misspelt.
    pub osds_unclear: bool,
    pub bmc: Option<BmcView>,
    pub uplinks: Vec<(At<String>, At<String>)>,
}

pub(super) struct BmcView {
    pub address: At<IpAddr>,
    pub port: u16,
    pub port_said: bool,
    pub kind: Option<BmcKind>,
    /// Where a fingerprint stands.
    pub fingerprint: Option<Span>,
}

pub(super) struct BackupView {
    pub name: At<String>,
    pub address: Option<At<IpAddr>>,
    pub path: Option<At<String>>,
}

impl HostView {
    pub fn has(&self, role: Role) -> bool {
        self.roles.as_ref().is_some_and(|roles| roles.contains(&role))
    }
}

/// A value that `FromStr` reads.
fn read<T: FromStr>(node: &Node, key: &str) -> Option<At<T>> {
    let node = node.get(key)?;
    Some(At { value: node.text()?.parse().ok()?, span: node.span })
}

/// A word of an enumeration.
fn word<T: DeserializeOwned>(node: &Node, key: &str) -> Option<At<T>> {
    let node = node.get(key)?;
    Some(At { value: enumerated(node)?, span: node.span })
}

fn enumerated<T: DeserializeOwned>(node: &Node) -> Option<T> {
    serde_json::from_value(node.text()?.into()).ok()
}

/// The items of a list that `FromStr` reads.
fn items<T: FromStr>(node: &Node, key: &str) -> Vec<At<T>> {
    let items = node.get(key).map(Node::items).unwrap_or_default();
    items.iter().filter_map(|n| Some(At { value: n.text()?.parse().ok()?, span: n.span })).collect()
}

/// Named entries of a mapping.
fn named<'n>(node: Option<&'n Node>, key: &str) -> impl Iterator<Item = (At<String>, &'n Node)> {
    let entries = node.and_then(|n| n.get(key)).map(Node::entries).unwrap_or_default();
    entries.iter().map(|e| (At { value: e.key.clone(), span: e.span }, &e.value))
}

impl View {
    pub fn new(root: &Node) -> Self {
        let networks = root.get("networks");
        let guests = root.get("guests");
        let sizes = ["memory", "disk"].into_iter().filter_map(|key| Some((key, read(guests?, key)?))).collect();
        View {
            management: NetworkView::new("management", networks),
            storage: NetworkView::new("storage", networks),
            guest_networks: named(networks, "guests").map(|(name, n)| GuestNetworkView::new(name, n)).collect(),
            ceph: CephView::new(root),
            default_network: guests.and_then(|g| read(g, "network")),
            guest_sizes: sizes,
            cpu_overcommit: guests.and_then(|g| read(g, "cpu_overcommit")),
            hosts: root
                .get("hosts")
                .map(Node::items)
                .unwrap_or_default()
                .iter()
                .enumerate()
                .map(|(index, node)| HostView::new(index, node))
                .collect(),
            backups: named(root.get("backup"), "storage")
                .map(|(name, n)| BackupView { name, address: read(n, "address"), path: read(n, "path") })
                .collect(),
        }
    }

    /// Whether the roles of every host could be read.
    pub fn roles_are_clear(&self) -> bool {
        !self.hosts.is_empty() && self.hosts.iter().all(|h| h.roles.is_some())
    }
}

impl NetworkView {
    fn new(name: &'static str, networks: Option<&Node>) -> Self {
        let node = networks.and_then(|n| n.get(name));
        NetworkView {
            name,
            cidr: node.and_then(|n| read(n, "cidr")).filter(|c: &At<IpNet>| c.value == c.value.trunc()),
            mtu: node.and_then(|n| read(n, "mtu")),
            link: node.and_then(|n| word(n, "link")).map_or(LinkKind::Ethernet, |l| l.value),
            ipoib: node.and_then(|n| word(n, "ipoib")),
        }
    }
}

impl GuestNetworkView {
    fn new(name: At<String>, node: &Node) -> Self {
        GuestNetworkView {
            name,
            bridge: read(node, "bridge"),
            uplink: read(node, "uplink"),
            vlan: read(node, "vlan"),
            cidr: read(node, "cidr").filter(|c: &At<IpNet>| c.value == c.value.trunc()),
            gateway: read(node, "gateway"),
            dns: items(node, "dns"),
            ranges: items(node, "ranges"),
            mtu: read(node, "mtu"),
        }
    }
}

impl CephView {
    fn new(root: &Node) -> Self {
        let node = root.get("ceph");
        let fallback = super::CephSpec::default();
        let span = node.map_or(root.span, |n| n.span);
        let number = |key, default| node.and_then(|n| read(n, key)).unwrap_or(At { value: default, span });
        CephView {
            pool: node.and_then(|n| read(n, "pool")),
            size: number("size", fallback.size),
            min_size: number("min_size", fallback.min_size),
            failure_domain: node
                .and_then(|n| word(n, "failure_domain"))
                .unwrap_or(At { value: fallback.failure_domain, span }),
            osd_memory: node.and_then(|n| read(n, "osd_memory")),
        }
    }
}

impl HostView {
    fn new(index: usize, node: &Node) -> Self {
        let name: Option<At<String>> = read(node, "name");
        let location = node.get("location");
        let osds: Vec<At<String>> = items(node, "osds");
        let roles_node = node.get("roles");
        HostView {
            label: name.as_ref().map_or_else(|| format!("hosts[{index}]"), |n| format!("host {}", n.value)),
            span: name.as_ref().map_or(node.span, |n| n.span),
            address: read(node, "address"),
            storage_address: read(node, "storage_address"),
            datacenter: location.and_then(|l| read(l, "datacenter")),
            rack: location.and_then(|l| read(l, "rack")),
            roles: match roles_node {
                None => Some(Role::ALL.to_vec()),
                Some(list) if list.text().is_some() => None,
                Some(list) => list.items().iter().map(enumerated).collect(),
            },
            roles_span: roles_node.map_or(name.as_ref().map_or(node.span, |n| n.span), |n| n.span),
            osds_unclear: node.get("osds").is_some_and(|n| n.text().is_some() || n.items().len() != osds.len())
                || node.entries().iter().any(|e| e.key != "osds" && nearest(&e.key, ["osds"].into_iter()).is_some()),
            osds,
            bmc: node.get("bmc").and_then(BmcView::new),
            uplinks: named(Some(node), "uplinks")
                .filter_map(|(name, n)| Some((name, At { value: n.text()?.to_owned(), span: n.span })))
                .collect(),
            name,
        }
    }
}

impl BmcView {
    fn new(node: &Node) -> Option<Self> {
        let port: Option<At<u16>> = read(node, "port");
        let kind: Option<At<BmcKind>> = word(node, "kind");
        let kind = kind.map(|kind| kind.value);
        let own = kind.map_or(0, BmcKind::port);
        Some(BmcView {
            address: read(node, "address")?,
            port_said: port.is_some(),
            port: port.map_or(own, |p| p.value),
            kind,
            fingerprint: node.get("fingerprint").map(|n| n.span),
        })
    }
}
