//! Names: of hosts, racks, bridges, pools.

use crate::inventory::diagnostic::{Diagnostic, Span};
use crate::inventory::view::{At, View};
use std::collections::HashMap;

/// Longest name of a network interface (Linux IFNAMSIZ less the closing NUL).
const INTERFACE_LENGTH: usize = 15;
/// Longest label of a host name (RFC 1123).
const LABEL_LENGTH: usize = 63;

pub(super) fn check(view: &View, diagnostics: &mut Vec<Diagnostic>) {
    let mut seen: HashMap<&str, Span> = HashMap::new();
    for host in &view.hosts {
        let Some(name) = &host.name else { continue };
        if let Some(fix) = host_name_fix(&name.value) {
            let message = format!("`{}` is not a host name", name.value);
            diagnostics.push(Diagnostic::new(name.span, message, fix));
        }
        if let Some(first) = seen.insert(&name.value, name.span) {
            let message = format!("host name {} is given twice, first on line {}", name.value, first.line);
            diagnostics.push(Diagnostic::new(name.span, message, "give each host a name of its own"));
        }
    }
    crush(view, diagnostics);
    interfaces(view, diagnostics);
    if let Some(pool) = &view.ceph.pool
        && (pool.value.starts_with('.') || !plain(&pool.value))
    {
        let message = format!("ceph.pool: `{}` is not a name for a pool", pool.value);
        diagnostics.push(Diagnostic::new(pool.span, message, "use letters, digits, `-`, `_` and `.`, not first"));
    }
    let networks = view.guest_networks.iter().map(|n| ("networks.guests", &n.name));
    let backups = view.backups.iter().map(|b| ("backup.storage", &b.name));
    for (place, name) in networks.chain(backups).filter(|(_, name)| !plain(&name.value)) {
        let message = format!("{place}: `{}` is not a name", name.value);
        diagnostics.push(Diagnostic::new(name.span, message, "use letters, digits, `-`, `_` and `.`"));
    }
}

/// What to write instead of a host name that is none (RFC 1123, lower case as Ceph and libvirt compare bytes).
fn host_name_fix(name: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let ends = !name.starts_with('-') && !name.ends_with('-');
    if !name.is_empty() && name.len() <= LABEL_LENGTH && name.chars().all(allowed) && ends {
        return None;
    }
    if let Some((short, _)) = name.split_once('.')
        && host_name_fix(short).is_none()
    {
        return Some(format!("write the short name {short}, without its domain"));
    }
    let lower = name.to_lowercase().replace(['_', ' '], "-");
    let better = lower != name && host_name_fix(&lower).is_none();
    let rule = "use at most 63 lower-case letters, digits and inner `-`";
    Some(if better { format!("{rule}: {lower}") } else { rule.to_owned() })
}

/// Letters, digits and few signs: safe in paths, object names and command lines.
fn plain(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= LABEL_LENGTH && name.chars().all(allowed) && !name.starts_with(['-', '.'])
}

/// The top of the CRUSH map, which Ceph makes itself.
const ROOT: &str = "default";

/// CRUSH knows hosts, racks and data centres by name alone, in one namespace.
fn crush(view: &View, diagnostics: &mut Vec<Diagnostic>) {
    let hosts: HashMap<&str, Span> =
        view.hosts.iter().filter_map(|h| h.name.as_ref()).map(|n| (n.value.as_str(), n.span)).collect();
    let mut kinds: HashMap<&str, (&str, Span)> = hosts.iter().map(|(name, span)| (*name, ("host", *span))).collect();
    let mut racks: HashMap<&str, (Option<&str>, Span)> = HashMap::new();
    let names = view.hosts.iter().flat_map(|h| [&h.name, &h.rack, &h.datacenter]).flatten();
    for name in names.filter(|name| name.value == ROOT) {
        let message = format!("`{ROOT}` is the name of the CRUSH map's own root");
        diagnostics.push(Diagnostic::new(name.span, message, "Ceph tells places apart by name only: choose another"));
    }
    for host in &view.hosts {
        for (kind, name) in [("rack", &host.rack), ("datacenter", &host.datacenter)] {
            let Some(name) = name else { continue };
            if !plain(&name.value) {
                let message = format!("{}: location.{kind}: `{}` is not a name", host.label, name.value);
                diagnostics.push(Diagnostic::new(name.span, message, "use letters, digits, `-`, `_` and `.`"));
            }
            let (known, at) = *kinds.entry(&name.value).or_insert((kind, name.span));
            if known != kind {
                let message = format!("{} is a {kind} here and a {known} on line {}", name.value, at.line);
                let fix =
                    format!("Ceph tells them apart by name only: call the {kind} for example {kind}-{}", name.value);
                diagnostics.push(Diagnostic::new(name.span, message, fix));
            }
        }
        if let Some(rack) = &host.rack {
            let within = host.datacenter.as_ref().map(|d| d.value.as_str());
            let (first, at) = *racks.entry(&rack.value).or_insert((within, rack.span));
            if first != within {
                let place =
                    |d: Option<&str>| d.map_or_else(|| "no datacenter".to_owned(), |d| format!("datacenter {d}"));
                let message = format!(
                    "rack {} is in {} here and in {} on line {}",
                    rack.value,
                    place(within),
                    place(first),
                    at.line
                );
                diagnostics.push(Diagnostic::new(
                    rack.span,
                    message,
                    "a rack stands in one place: give two racks two names",
                ));
            }
        }
    }
}

fn interfaces(view: &View, diagnostics: &mut Vec<Diagnostic>) {
    let mut named: Vec<(String, &At<String>)> = Vec::new();
    for network in &view.guest_networks {
        let place = format!("networks.guests.{}", network.name.value);
        named.extend(network.bridge.iter().map(|b| (format!("{place}.bridge"), b)));
        named.extend(network.uplink.iter().map(|u| (format!("{place}.uplink"), u)));
    }
    for host in &view.hosts {
        named.extend(host.uplinks.iter().map(|(net, u)| (format!("{}: uplinks.{}", host.label, net.value), u)));
    }
    for (place, name) in named {
        if name.value.len() > INTERFACE_LENGTH || !plain(&name.value) {
            let message = format!("{place}: `{}` is not a name of a network interface", name.value);
            let fix = "use at most 15 letters, digits, `-`, `_` and `.`, for example br-lan or eno1";
            diagnostics.push(Diagnostic::new(name.span, message, fix));
        } else if !place.ends_with(".bridge") && name.value.starts_with("ib") {
            let message = format!("{place}: {} is an InfiniBand port, which no bridge can take", name.value);
            diagnostics.push(Diagnostic::new(name.span, message, "name an Ethernet port"));
        }
    }
}
