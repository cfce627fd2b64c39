//! Networks: MTU and link, overlaps, bridges, ranges.

use crate::inventory::diagnostic::{Diagnostic, Span};
use crate::inventory::taken::{Owner, Taken, is_edge};
use crate::inventory::view::{At, GuestNetworkView, NetworkView, View};
use crate::inventory::{IpoibMode, LinkKind};
use std::collections::HashMap;

/// Smallest MTU that IPv6 allows (RFC 8200); the schema has it too.
const MIN_MTU: u32 = 1280;
/// Largest jumbo frame that common switches carry.
const MAX_ETHERNET_MTU: u32 = 9216;
/// MTU where nothing is said.
const DEFAULT_MTU: u32 = 1500;

pub(super) fn check(view: &View, diagnostics: &mut Vec<Diagnostic>) {
    for network in [&view.management, &view.storage] {
        wire(network, diagnostics);
    }
    overlaps(view, diagnostics);
    let taken = Taken::of_view(view);
    for network in &view.guest_networks {
        guest_mtu(network, view, diagnostics);
        gateway(network, diagnostics);
        ranges(network, &taken, diagnostics);
    }
    shared(view, diagnostics);
    ranges_overlap(view, diagnostics);
    references(view, diagnostics);
}

fn wire(network: &NetworkView, diagnostics: &mut Vec<Diagnostic>) {
    let place = format!("networks.{}", network.name);
    if let (LinkKind::Ethernet, Some(mode)) = (network.link, &network.ipoib) {
        let message = format!("{place}: `ipoib` is for InfiniBand, the link is ethernet");
        diagnostics.push(Diagnostic::new(mode.span, message, "remove it, or write `link: infiniband`"));
    }
    let Some(mtu) = &network.mtu else { return };
    let (max, what) = match (network.link, &network.ipoib) {
        (LinkKind::Ethernet, _) => (MAX_ETHERNET_MTU, "Ethernet"),
        (LinkKind::Infiniband, Some(At { value: IpoibMode::Datagram, .. })) => {
            (IpoibMode::Datagram.max_mtu(), "IPoIB in datagram mode")
        }
        (LinkKind::Infiniband, _) => (IpoibMode::Connected.max_mtu(), "IPoIB"),
    };
    let datagram = IpoibMode::Datagram.max_mtu();
    if mtu.value > max {
        let message = format!("{place}: MTU {} is out of range for {what}", mtu.value);
        let connected = max == datagram && mtu.value <= IpoibMode::Connected.max_mtu();
        let more = if connected { ", or `ipoib: connected`" } else { "" };
        diagnostics.push(Diagnostic::new(mtu.span, message, format!("write {MIN_MTU} to {max}{more}")));
    } else if network.link == LinkKind::Infiniband && network.ipoib.is_none() && mtu.value > datagram {
        let message = format!("{place}: MTU {} needs IPoIB in connected mode", mtu.value);
        diagnostics.push(Diagnostic::new(
            mtu.span,
            message,
            format!("add `ipoib: connected`, or write at most {datagram}"),
        ));
    }
}

fn overlaps(view: &View, diagnostics: &mut Vec<Diagnostic>) {
    let mut named: Vec<(String, &At<ipnet::IpNet>)> = Vec::new();
    for network in [&view.management, &view.storage] {
        named.extend(network.cidr.iter().map(|c| (format!("networks.{}", network.name), c)));
    }
    for network in &view.guest_networks {
        named.extend(network.cidr.iter().map(|c| (format!("networks.guests.{}", network.name.value), c)));
    }
    for (index, (name, cidr)) in named.iter().enumerate() {
        for (other, first) in &named[..index] {
            let (a, b) = (cidr.value, first.value);
            if a != b && (a.contains(&b) || b.contains(&a)) {
                let message = format!("{name}: {a} overlaps {other} {b} on line {}", first.span.line);
                diagnostics.push(Diagnostic::new(
                    cidr.span,
                    message,
                    "write the same network twice, or two that do not overlap",
                ));
            }
        }
    }
}

fn guest_mtu(network: &GuestNetworkView, view: &View, diagnostics: &mut Vec<Diagnostic>) {
    let Some(mtu) = &network.mtu else { return };
    let place = format!("networks.guests.{}", network.name.value);
    let below = view.management.mtu.as_ref().map_or(DEFAULT_MTU, |m| m.value);
    if network.uplink.is_none() && mtu.value > below {
        let message =
            format!("{place}: MTU {} does not fit the management network's NIC below it ({below})", mtu.value);
        let fix = format!("write at most {below}, raise networks.management.mtu, or name an `uplink`");
        diagnostics.push(Diagnostic::new(mtu.span, message, fix));
    }
}

fn gateway(network: &GuestNetworkView, diagnostics: &mut Vec<Diagnostic>) {
    if let (Some(cidr), Some(gateway)) = (&network.cidr, &network.gateway)
        && !cidr.value.contains(&gateway.value)
    {
        let name = &network.name.value;
        let message = format!("networks.guests.{name}: gateway {} is outside {}", gateway.value, cidr.value);
        diagnostics.push(Diagnostic::new(gateway.span, message, format!("give an address in {}", cidr.value)));
    }
}

/// Each range in its network, and free of addresses that are in use.
fn ranges(network: &GuestNetworkView, taken: &Taken, diagnostics: &mut Vec<Diagnostic>) {
    let place = format!("networks.guests.{}", network.name.value);
    for range in &network.ranges {
        let (first, last) = (range.value.first, range.value.last);
        if let Some(cidr) = &network.cidr {
            let net = cidr.value;
            if !net.contains(&first) || !net.contains(&last) {
                let message = format!("{place}: range {} is outside {net}", range.value);
                diagnostics.push(Diagnostic::new(range.span, message, format!("give addresses in {net}")));
                continue;
            }
            if is_edge(&net, first) || is_edge(&net, last) {
                let message = format!("{place}: range {} holds the network's own or broadcast address", range.value);
                diagnostics.push(Diagnostic::new(
                    range.span,
                    message,
                    "leave out the first and the last address of the network",
                ));
            }
        }
        // The edges were told above.
        let used = taken.within(&range.value).filter(|(_, owner)| !matches!(owner, Owner::Edge(_)));
        let inside: Vec<String> = used.map(|(address, owner)| format!("{address} ({owner})")).collect();
        if !inside.is_empty() {
            let message = format!("{place}: range {} holds addresses in use: {}", range.value, inside.join(", "));
            let fix = "write ranges around them: guests would take addresses that others answer to";
            diagnostics.push(Diagnostic::new(range.span, message, fix));
        }
    }
}

fn ranges_overlap(view: &View, diagnostics: &mut Vec<Diagnostic>) {
    let all: Vec<(&str, &At<crate::inventory::AddressRange>)> =
        view.guest_networks.iter().flat_map(|n| n.ranges.iter().map(|r| (n.name.value.as_str(), r))).collect();
    for (index, (name, range)) in all.iter().enumerate() {
        for (other, first) in &all[..index] {
            if range.value.overlaps(&first.value) {
                let message = format!(
                    "networks.guests.{name}: range {} overlaps {} of {other} on line {}",
                    range.value, first.value, first.span.line
                );
                diagnostics.push(Diagnostic::new(
                    range.span,
                    message,
                    "two guests would get one address: keep ranges apart",
                ));
            }
        }
    }
}

/// An uplink and a VLAN on it.
type Wire<'v> = (Option<&'v str>, Option<u16>);

/// Bridges and uplinks that two guest networks want for themselves.
fn shared(view: &View, diagnostics: &mut Vec<Diagnostic>) {
    let mut bridges: HashMap<&str, (&str, Span)> = HashMap::new();
    let mut wires: HashMap<Wire, (&str, Span)> = HashMap::new();
    for network in &view.guest_networks {
        let name = network.name.value.as_str();
        if let Some(bridge) = &network.bridge {
            if let Some((other, first)) = bridges.insert(&bridge.value, (name, bridge.span)) {
                let message = format!(
                    "networks.guests.{name}: bridge {} is that of {other} on line {}",
                    bridge.value, first.line
                );
                diagnostics.push(Diagnostic::new(bridge.span, message, "give each network a bridge of its own"));
            }
            if network.uplink.as_ref().is_some_and(|u| u.value == bridge.value) {
                let message = format!("networks.guests.{name}: {} is both bridge and uplink", bridge.value);
                diagnostics.push(Diagnostic::new(bridge.span, message, "name the bridge for example br-lan"));
            }
        }
        let uplink = network.uplink.as_ref().map(|u| u.value.as_str());
        let vlan = network.vlan.as_ref();
        if let Some((other, first)) = wires.insert((uplink, vlan.map(|v| v.value)), (name, network.name.span)) {
            let wire = uplink.map_or_else(|| "the management network's NIC".to_owned(), |u| format!("uplink {u}"));
            let tag = vlan.map_or_else(|| "without a VLAN".to_owned(), |v| format!("VLAN {}", v.value));
            let message = format!("networks.guests.{name}: {wire}, {tag}, is taken by {other} on line {}", first.line);
            let span = vlan.map_or(network.name.span, |v| v.span);
            diagnostics.push(Diagnostic::new(span, message, "give one of them another `vlan` or `uplink`"));
        }
    }
}

/// Names of networks that are used, and must exist.
fn references(view: &View, diagnostics: &mut Vec<Diagnostic>) {
    let known: Vec<&str> = view.guest_networks.iter().map(|n| n.name.value.as_str()).collect();
    let default = view.default_network.iter().map(|n| ("guests.network".to_owned(), n));
    let uplinks = view.hosts.iter().flat_map(|h| h.uplinks.iter().map(|(n, _)| (format!("{}: uplinks", h.label), n)));
    for (place, name) in default.chain(uplinks).filter(|(_, name)| !known.contains(&name.value.as_str())) {
        let fix = match crate::inventory::format::nearest(&name.value, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => "describe it under networks.guests".to_owned(),
            None => format!("write one of {}", known.join(", ")),
        };
        let message = format!("{place}: there is no guest network `{}`", name.value);
        diagnostics.push(Diagnostic::new(name.span, message, fix));
    }
}
