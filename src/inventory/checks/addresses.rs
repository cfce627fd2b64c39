//! Addresses: each in its network, none given twice.

use crate::inventory::diagnostic::{Diagnostic, Span};
use crate::inventory::taken::is_edge;
use crate::inventory::view::{At, NetworkView, View};
use std::collections::HashMap;
use std::net::IpAddr;

/// An address in use: whose it is and where that is said.
struct Use {
    owner: String,
    span: Span,
    storage: bool,
}

pub(super) fn check(view: &View, diagnostics: &mut Vec<Diagnostic>) {
    let one_network = match (&view.management.cidr, &view.storage.cidr) {
        (Some(a), Some(b)) => a.value == b.value,
        _ => false,
    };
    let mut uses: HashMap<IpAddr, Use> = HashMap::new();
    for host in &view.hosts {
        let both =
            [("address", &host.address, &view.management), ("storage_address", &host.storage_address, &view.storage)];
        for (key, address, network) in both {
            let Some(address) = address else { continue };
            within(&format!("{}: {key}", host.label), address, network, diagnostics);
            let storage = key == "storage_address";
            if let Some(first) = uses.get(&address.value) {
                let shares = one_network && first.owner == host.label && storage && !first.storage;
                if !shares {
                    twice(&format!("{}: {key}", host.label), address, first, diagnostics);
                }
            } else {
                uses.insert(address.value, Use { owner: host.label.clone(), span: address.span, storage });
            }
        }
    }
    for backup in &view.backups {
        let Some(address) = &backup.address else { continue };
        if let Some(host) = uses.get(&address.value) {
            let message = format!("backup.storage.{}: {} is {}", backup.name.value, address.value, host.owner);
            let fix = "keep backups on a machine outside the cluster: they are for the day the cluster is gone";
            diagnostics.push(Diagnostic::new(address.span, message, fix));
        }
    }
    bmcs(view, &uses, diagnostics);
}

fn within(what: &str, address: &At<IpAddr>, network: &NetworkView, diagnostics: &mut Vec<Diagnostic>) {
    let Some(cidr) = &network.cidr else { return };
    let (name, net) = (network.name, cidr.value);
    if !net.contains(&address.value) {
        let message = format!("{what} {} is outside the {name} network {net}", address.value);
        let fix = format!("give an address in {net}, or correct networks.{name}.cidr on line {}", cidr.span.line);
        diagnostics.push(Diagnostic::new(address.span, message, fix));
    } else if is_edge(&net, address.value) {
        let message = format!("{what} {} is the {name} network's own or broadcast address", address.value);
        diagnostics.push(Diagnostic::new(address.span, message, format!("give another address in {net}")));
    }
}

fn twice(what: &str, address: &At<IpAddr>, first: &Use, diagnostics: &mut Vec<Diagnostic>) {
    let message = format!("{what} {} is taken by {} on line {}", address.value, first.owner, first.span.line);
    diagnostics.push(Diagnostic::new(address.span, message, "give each host an address of its own"));
}

fn bmcs(view: &View, uses: &HashMap<IpAddr, Use>, diagnostics: &mut Vec<Diagnostic>) {
    let mut seen: HashMap<IpAddr, (&str, u16, bool, Span)> = HashMap::new();
    for host in &view.hosts {
        let Some(bmc) = &host.bmc else { continue };
        if let (Some(crate::inventory::BmcKind::Ipmi), Some(span)) = (bmc.kind, bmc.fingerprint) {
            let message = format!("{}: `fingerprint` is for `kind: redfish`, IPMI has no certificate", host.label);
            diagnostics.push(Diagnostic::new(span, message, "remove it, or write `kind: redfish`"));
        }
        let address = &bmc.address;
        if let Some(owner) = uses.get(&address.value) {
            let message =
                format!("{}: its BMC has the address of {} on line {}", host.label, owner.owner, owner.span.line);
            diagnostics.push(Diagnostic::new(
                address.span,
                message,
                "give the address of the BMC itself (iDRAC), not of the system",
            ));
        }
        match seen.get(&address.value) {
            // Two BMCs behind one address need two ports, both said.
            Some((_, port, said, _)) if *said && bmc.port_said && *port != bmc.port => {}
            Some((owner, .., first)) => {
                let message =
                    format!("{}: its BMC {} is that of {owner} on line {}", host.label, address.value, first.line);
                let fix = "a BMC switches one machine: fencing one host would kill the other; give each its own";
                diagnostics.push(Diagnostic::new(address.span, message, fix));
            }
            None => {
                seen.insert(address.value, (&host.label, bmc.port, bmc.port_said, address.span));
            }
        }
    }
}
