//! Which networks a bridge must not be made in: those where the host would be lost at its next boot.
//!
//! The guard of an edit proves that the running links work. What the files make of them at the next boot it cannot
//! prove: an edit that puts an option into the wrong stanza passes, and the host is gone a month later. So every option
//! that would have to move with an address is known to move, or the edit is refused before anything is touched.

use super::files::{Place, Stanza, drop_ins, netdev, place, settings, stanzas};
use super::names::{addresses, link, port};
use crate::playbook::resource::Bridge;
use crate::playbook::state::State;
use std::fmt;

/// Why a bridge must not be made, and what to do instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The cause, with the file and the line it stands in.
    pub what: String,
    /// One next step.
    pub fix: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.fix)
    }
}

/// Options of ifupdown that mean the same for a bridge as for its port.
const MOVES: [&str; 22] = [
    "address",
    "netmask",
    "gateway",
    "broadcast",
    "network",
    "pointopoint",
    "metric",
    "scope",
    "label",
    "dns-nameservers",
    "dns-nameserver",
    "dns-search",
    "dns-domain",
    "dns-options",
    "accept_ra",
    "autoconf",
    "dad-attempts",
    "dad-interval",
    "privext",
    "preferred-lifetime",
    "request_prefix",
    "description",
];
/// Options of ifupdown that name the ports of a bond or a bridge.
const PORTS: [&str; 7] =
    ["bond-slaves", "bond_slaves", "slaves", "bond-ports", "bridge_ports", "bridge-ports", "bond-primary"];
/// Sections of systemd-networkd that may stand in a bridge's file as they do in its port's.
const SECTIONS: [&str; 12] = [
    "Match",
    "Address",
    "Route",
    "RoutingPolicyRule",
    "NextHop",
    "Neighbor",
    "DHCP",
    "DHCPv4",
    "DHCPv6",
    "IPv6AcceptRA",
    "IPv6AddressLabel",
    "Network",
];
/// Keys of `[Network]` that do.
const NETWORK: [&str; 29] = [
    "Description",
    "Address",
    "Gateway",
    "DNS",
    "Domains",
    "DNSDefaultRoute",
    "DNSOverTLS",
    "DNSSEC",
    "DNSSECNegativeTrustAnchors",
    "LLMNR",
    "MulticastDNS",
    "NTP",
    "DHCP",
    "IPv6AcceptRA",
    "IPv6DuplicateAddressDetection",
    "IPv6PrivacyExtensions",
    "IPv6LinkLocalAddressGenerationMode",
    "LinkLocalAddressing",
    "DefaultRouteOnDevice",
    "IPForward",
    "IPv4Forwarding",
    "IPv6Forwarding",
    "IPMasquerade",
    "ConfigureWithoutCarrier",
    "IgnoreCarrierLoss",
    "KeepConfiguration",
    "LLDP",
    "EmitLLDP",
    "IPv6MTUBytes",
];
/// Keys of `[Link]` that move, or are set for port and bridge alike.
pub(super) const LINK: [&str; 3] = ["MTUBytes", "RequiredForOnline", "RequiredFamilyForOnline"];

/// Why this bridge must not be made on a host like this.
pub(super) fn refusal(bridge: &Bridge, state: &State) -> Option<Refusal> {
    let judge = Judge { bridge, state, stanzas: stanzas(&state.network_files) };
    judge.uplink().or_else(|| judge.existing()).or_else(|| {
        if bridge.vlan.is_some() {
            return judge.tagged_port();
        }
        // What has moved is its owners' again: they may add to the bridge's stanza what they like.
        if judge.ours() { None } else { judge.mtu().or_else(|| judge.ifupdown()).or_else(|| judge.networkd()) }
    })
}

struct Judge<'a> {
    bridge: &'a Bridge,
    state: &'a State,
    stanzas: Vec<Stanza>,
}

fn refuse(what: impl Into<String>, fix: impl Into<String>) -> Option<Refusal> {
    Some(Refusal { what: what.into(), fix: fix.into() })
}

/// The same, for options: what stands where.
fn misplaced(place: &Place, what: &str, fix: impl Into<String>) -> Option<Refusal> {
    refuse(format!("{place}: {what}, which would not work for a bridge after the next boot"), fix)
}

impl Judge<'_> {
    fn of(&self, link: &str) -> String {
        place(&self.state.network_files, link).map_or_else(String::new, |place| format!(" ({place})"))
    }

    fn kind(&self, name: &str) -> &str {
        link(self.state, name).and_then(|l| l["linkinfo"]["info_kind"].as_str()).unwrap_or_default()
    }

    /// The way out that is always there.
    fn other(&self) -> String {
        format!("name another port as `uplink` of its network, or give that network a `vlan` on {}", self.bridge.uplink)
    }

    /// Whether the uplink is a port that a bridge can be made over.
    fn uplink(&self) -> Option<Refusal> {
        let uplink = &self.bridge.uplink;
        let found = link(self.state, uplink)?;
        if found["link_type"].as_str().is_some_and(|kind| kind != "ether") {
            let kind = found["link_type"].as_str().unwrap_or_default();
            let what = format!("uplink {uplink}{} carries {kind}, not Ethernet", self.of(uplink));
            return refuse(what, "name an Ethernet port as `uplink` of its network");
        }
        let kind = self.kind(uplink);
        if self.bridge.vlan.is_none() && !["", "veth", "dummy"].contains(&kind) {
            let article = if kind.starts_with(['a', 'e', 'i', 'o']) { "an" } else { "a" };
            let name = if kind == "vlan" { "VLAN" } else { kind };
            return refuse(
                format!(
                    "uplink {uplink}{} is {article} {name}: a bridge that takes its addresses is not supported yet, and the host \
                     would be lost at its next boot",
                    self.of(uplink)
                ),
                if kind == "vlan" {
                    "name a port as `uplink` of its network, with the tag as `vlan`".to_owned()
                } else {
                    self.other()
                },
            );
        }
        if let Some(master) = found["master"].as_str().filter(|m| *m != self.bridge.name) {
            let kind = self.kind(master);
            if self.bridge.vlan.is_none() || kind != "bridge" {
                let what = format!("uplink {uplink} is a port of {kind} {master}{}", self.of(master));
                return refuse(what, self.out_of(master, kind == "bridge"));
            }
        }
        self.claimed()
    }

    /// Whether ifupdown makes the uplink a port of another link at the next boot. A tag passes beside a bridge.
    fn claimed(&self) -> Option<Refusal> {
        let uplink = &self.bridge.uplink;
        let by = |s: &Stanza| {
            let ports = s.options.iter().filter(|(_, key, _)| PORTS.contains(&key.as_str()));
            let mut mine = ports.filter(|(_, _, value)| value.split_whitespace().any(|word| word == uplink));
            mine.find(|(_, key, _)| self.bridge.vlan.is_none() || !key.starts_with("bridge"))
                .map(|(_, key, _)| key.clone())
        };
        let others = self.stanzas.iter().filter(|s| s.link != self.bridge.name);
        let (owner, key) = others.filter_map(|s| Some((s, by(s)?))).next()?;
        let what = format!("{}: {} makes uplink {uplink} a port of its own at the next boot", owner.place, owner.link);
        refuse(what, self.out_of(&owner.link, key.starts_with("bridge")))
    }

    /// The way out where the uplink belongs to another link: a tag passes beside a bridge, and over a bond.
    fn out_of(&self, owner: &str, is_bridge: bool) -> String {
        if is_bridge {
            return format!("take it out of {owner}, or {}", self.other());
        }
        format!("name {owner} as `uplink` of its network, with a `vlan`, or another port")
    }

    /// Whether the bridge is one of ours, or was about to become one since the host booted.
    fn ours(&self) -> bool {
        let name = &self.bridge.name;
        let netdev = format!("/etc/systemd/network/05-rackhand-{name}.netdev");
        let maker = format!("ip link add name {name} address ");
        let made = |s: &Stanza| s.options.iter().any(|(_, key, v)| key == "pre-up" && v.starts_with(&maker));
        self.state.network_files.contains_key(&netdev) || self.stanzas.iter().any(made)
    }

    /// A bridge of that name that others have made.
    fn existing(&self) -> Option<Refusal> {
        let name = &self.bridge.name;
        if self.ours() {
            return None;
        }
        let defined = netdev(&self.state.network_files, name)
            .or_else(|| self.stanzas.iter().find(|s| s.link == *name).map(|s| s.place.clone()));
        let there = link(self.state, name).is_some() && !self.state.begun.contains(name);
        if defined.is_none() && !there {
            return None;
        }
        let what = format!(
            "{name}{} exists already and was not made by rackhand, which cannot take it over yet",
            self.of(name)
        );
        let uplink = &self.bridge.uplink;
        refuse(
            what,
            format!(
                "give the network another `bridge`, or move the addresses of {name} back to {uplink} and remove it"
            ),
        )
    }

    /// The tagged port has to be ours: what others have configured on it would end.
    fn tagged_port(&self) -> Option<Refusal> {
        let port = port(self.bridge);
        let uplink = &self.bridge.uplink;
        let fix = || format!("remove it, or give the network another `vlan` than that of {port}");
        let block =
            |s: &&Stanza| s.link == port && s.option("pre-up").is_none_or(|(_, v)| !v.starts_with("ip link add link "));
        if let Some(stanza) = self.stanzas.iter().find(block) {
            return refuse(format!("{}: {port} on {uplink} is configured there already", stanza.place), fix());
        }
        if let Some(place) = netdev(&self.state.network_files, &port) {
            return refuse(format!("{place}: {port} on {uplink} is made there already"), fix());
        }
        let addresses = addresses(self.state, &port);
        if addresses.is_empty() {
            return None;
        }
        refuse(format!("{port} on {uplink} has addresses of its own ({})", addresses.join(", ")), fix())
    }

    /// A port that carries addresses keeps its MTU under a bridge, and so does what is stacked on it.
    fn mtu(&self) -> Option<Refusal> {
        let Bridge { uplink, mtu, .. } = self.bridge;
        let fix = |mtu: u64| {
            format!("write `mtu: {mtu}` for its network under networks.guests, or name another port as its `uplink`")
        };
        let carries = !addresses(self.state, uplink).is_empty();
        let found = link(self.state, uplink)?["mtu"].as_u64().unwrap_or_default();
        if carries && found > u64::from(*mtu) {
            let what = format!("uplink {uplink}{} has an MTU of {found}, and would sink to {mtu}", self.of(uplink));
            return refuse(what, fix(found));
        }
        let stacked = self.state.links.iter().filter(|l| l["link"] == uplink.as_str());
        let tall = stacked.filter_map(|l| Some((l["ifname"].as_str()?, l["mtu"].as_u64()?)));
        let (name, found) = tall.max_by_key(|(_, found)| *found).filter(|(_, found)| *found > u64::from(*mtu))?;
        let what = format!("{name}{} on uplink {uplink} has an MTU of {found}, and would sink to {mtu}", self.of(name));
        refuse(what, fix(found))
    }

    /// Whether every option of the port's stanzas has its place in the bridge's.
    fn ifupdown(&self) -> Option<Refusal> {
        let Bridge { name, uplink, mtu, .. } = self.bridge;
        let mine: Vec<&Stanza> = self.stanzas.iter().filter(|s| s.link == *uplink).collect();
        if let [first, .., last] = mine.as_slice()
            && first.place.file != last.place.file
        {
            let what = format!("{uplink} is configured in two files, {} and {}", first.place, last.place);
            return refuse(what, "put both stanzas into one file");
        }
        for stanza in mine {
            let moves = stanza.method != "manual";
            if moves && ["dhcp", "auto", "bootp", "ppp", "wvdial"].contains(&stanza.method.as_str()) {
                let Stanza { family, method, place, .. } = stanza;
                let what = format!("{place}: {uplink} has its {family} addresses from the network (`{method}`)");
                return refuse(what, format!("give {uplink} static addresses there, or {}", self.other()));
            }
            if moves && !["static", "manual"].contains(&stanza.method.as_str()) {
                let what = format!("{}: the method `{}` of {uplink}", stanza.place, stanza.method);
                return refuse(format!("{what} is not supported under a bridge"), self.other());
            }
            for (place, key, value) in &stanza.options {
                let same_mtu = key == "mtu" && value.parse() == Ok(*mtu);
                let bond = key.starts_with("bond-") || key.starts_with("bond_");
                if bond || (moves && !same_mtu && (!MOVES.contains(&key.as_str()) || value.ends_with('\\'))) {
                    let what = format!("`{key}` of {uplink} would end in the stanza of {name}");
                    let fix = format!("take `{key}` out of that stanza, or {}", self.other());
                    return misplaced(place, &what, fix);
                }
            }
        }
        None
    }

    /// Whether every setting of the port's network file has its place in the bridge's.
    fn networkd(&self) -> Option<Refusal> {
        let Bridge { name, uplink, .. } = self.bridge;
        let (path, text) = &self.state.bridges.get(name)?.origin;
        if !self.state.networkd || path.is_empty() {
            return None;
        }
        let stanza = self.stanzas.iter().find(|s| s.link == *uplink && s.method != "manual");
        if let Some(stanza) = stanza {
            let what = format!(
                "{uplink} is configured twice, by ifupdown ({}) and by systemd-networkd ({path})",
                stanza.place
            );
            return refuse(what, format!("remove the one that is not in use; {}", self.other()));
        }
        if let Some(file) = drop_ins(&self.state.network_files, path).next() {
            return refuse(
                format!("{file} adds to {path}, whose settings would move to {name} without it"),
                format!("write its settings into {path} itself, or {}", self.other()),
            );
        }
        let netplan = if path.contains("/10-netplan-") { ", written by netplan from /etc/netplan" } else { "" };
        let bad = settings(path, text).into_iter().find(|(_, section, key, _)| match section.as_str() {
            "Link" => !LINK.contains(&key.as_str()),
            "Network" => !NETWORK.contains(&key.as_str()),
            other => !SECTIONS.contains(&other),
        });
        let (place, section, key, value) = bad?;
        let what = format!("`{key}={value}` of {uplink} in [{section}]{netplan}");
        misplaced(&place, &what, format!("take it out, or {}", self.other()))
    }
}

#[cfg(test)]
mod tests;
