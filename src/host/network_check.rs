//! Are the host's interfaces as the inventory says, and do all hosts reach each other?

use super::facts::{Facts, Nic};
use super::finding::Report;
use super::paths::{Net, Paths, Way};
use crate::inventory::{HostSpec, Inventory, LinkKind, LinkSpeed};

pub(super) fn interfaces(inventory: &Inventory, host: &HostSpec, facts: &Facts, report: &mut Report<'_>) {
    for net in Net::ALL {
        let (address, spec) = (net.address(host), net.spec(inventory));
        let Some(nic) = facts.nic_with(address) else {
            let what = format!("has no interface with its {net} address {address}");
            report.error("address", what, "configure the address on the host, or correct it in the inventory");
            continue;
        };
        if !nic.link {
            report.error("link", format!("{} ({net}) has no link", nic.name), "check cable and switch port");
        }
        if nic.mtu < spec.mtu {
            let what = format!("{} ({net}) has an MTU of {}, the network has {}", nic.name, nic.mtu, spec.mtu);
            report.error("mtu", what, format!("set the MTU of {} to {}", nic.name, spec.mtu));
        }
        let ports = ports(facts, nic);
        if let Some(wanted) = spec.speed {
            for port in &ports {
                if let Some(speed) = port.speed.filter(|speed| *speed < wanted.0) {
                    let what = format!("{} ({net}) runs at {}, not {wanted}", port.name, LinkSpeed(speed));
                    report.error("link-speed", what, "check cable, transceiver and switch port");
                }
            }
        }
        let infiniband = ports.iter().any(|port| port.kind == "infiniband");
        if infiniband != (spec.link == LinkKind::Infiniband) {
            let (is, should) = if infiniband { ("InfiniBand", "ethernet") } else { ("Ethernet", "infiniband") };
            let what = format!("{} ({net}) is {is}, the inventory says {should}", nic.name);
            report.error("link-kind", what, format!("correct networks.{net}.link or the address"));
        }
    }
}

/// The interfaces under one: a bridge's or bond's ports, or itself.
fn ports<'a>(facts: &'a Facts, nic: &'a Nic) -> Vec<&'a Nic> {
    let virtual_one = |n: &&Nic| matches!(n.kind.as_str(), "tun" | "tap");
    let below: Vec<&Nic> =
        facts.nics.iter().filter(|n| n.master.as_deref() == Some(&nic.name) && !virtual_one(n)).collect();
    if below.is_empty() { vec![nic] } else { below }
}

pub(super) fn paths(inventory: &Inventory, paths: &Paths, down: &[&str], report: &mut Report<'_>) {
    let this = report.host;
    let others = inventory.hosts.iter().filter(|host| host.name != this);
    for (host, net) in others.flat_map(|host| Net::ALL.map(|net| (host, net))) {
        let (address, mtu) = (net.address(host), net.spec(inventory).mtu);
        let other = &host.name;
        let Some(way) = paths.ways.get(&(net, other.clone())) else {
            let what = format!("does not tell whether it reaches {other} ({address}, {net})");
            report.error("path", what, "run the check again; look at the host's load and its journal");
            continue;
        };
        match way {
            Way::Whole => {}
            // That it does not answer is said once, with the host itself.
            _ if down.contains(&other.as_str()) => {}
            Way::Small => {
                let what = format!("packets of {mtu} bytes do not reach {other} ({address}, {net}), small ones do");
                report.error(
                    "path-mtu",
                    what,
                    format!("set MTU {mtu} on both hosts and on every switch port between them"),
                );
            }
            Way::None => {
                let what = format!("does not reach {other} ({address}, {net})");
                report.error("path", what, "check addresses, VLANs, cables and firewalls between the two");
            }
            Way::Untried => {
                let what = format!("cannot try the way to {other} ({net}): it has no ping");
                report.warning("path", what, "install iputils-ping");
            }
        }
    }
    for (other, addresses) in &paths.names {
        let Some(host) = inventory.host(other) else { continue };
        if addresses.is_empty() {
            let fix = "`rackhand provision` writes it into /etc/hosts";
            report.warning("name", format!("does not know the name {other}"), fix);
        } else if !addresses.contains(&host.address) && !addresses.contains(&host.storage_address) {
            let list = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let what = format!("takes {other} for {list}, the inventory says {}", host.address);
            report.error("name", what, "correct /etc/hosts or DNS");
        }
    }
}
