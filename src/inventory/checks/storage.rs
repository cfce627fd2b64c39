//! Ceph: copies and what may fail, monitors and managers; sizes that cannot be.

use super::listed::listed;
use crate::inventory::diagnostic::{Diagnostic, Span};
use crate::inventory::view::{HostView, View};
use crate::inventory::{FailureDomain, Role, Size};
use std::collections::BTreeSet;

/// More monitors than this only make every change of the cluster's maps slower.
const MOST_MONS: usize = 7;

/// Ceph's own lower bound of `osd_memory_target`.
const MIN_OSD_MEMORY: Size = Size::mib(896);

pub(super) fn check(view: &View, diagnostics: &mut Vec<Diagnostic>) {
    copies(view, diagnostics);
    domains(view, diagnostics);
    if view.roles_are_clear() {
        daemons(view, diagnostics);
    }
    if let Some(memory) = view.ceph.osd_memory.as_ref().filter(|m| m.value < MIN_OSD_MEMORY) {
        let message = format!("ceph.osd_memory: {} is less than an OSD can live on", memory.value);
        diagnostics.push(Diagnostic::new(memory.span, message, format!("write {MIN_OSD_MEMORY} or more; 4G is usual")));
    }
    for (key, size) in view.guest_sizes.iter().filter(|(_, size)| size.value.bytes() == 0) {
        diagnostics.push(Diagnostic::new(size.span, format!("guests.{key} is zero"), "write for example 1G"));
    }
    if let Some(factor) = view.cpu_overcommit.as_ref().filter(|f| !(f.value > 0.0 && f.value <= 100.0)) {
        let message = format!("guests.cpu_overcommit: {} is not a sensible factor", factor.value);
        diagnostics.push(Diagnostic::new(
            factor.span,
            message,
            "write 1.0 for none, 4.0 for four guests' CPUs a thread",
        ));
    }
}

fn copies(view: &View, diagnostics: &mut Vec<Diagnostic>) {
    let (size, min) = (&view.ceph.size, &view.ceph.min_size);
    let alone = view.hosts.len() == 1;
    if min.value > size.value {
        let message =
            format!("ceph.min_size {} is more than size {}: nothing could ever be written", min.value, size.value);
        diagnostics.push(Diagnostic::new(
            min.span,
            message,
            format!("write size: 3 and min_size: 2, or at most {}", size.value),
        ));
    } else if min.value == 1 && !alone {
        let message = format!("ceph.size {} with min_size 1 loses data: one copy takes writes alone", size.value);
        let span = if size.value == 1 { size.span } else { min.span };
        diagnostics.push(Diagnostic::new(span, message, "write size: 3 and min_size: 2"));
    }
}

/// The failure domain a host belongs to.
fn domain(host: &HostView, domain: FailureDomain) -> Option<&str> {
    let name = match domain {
        FailureDomain::Host => &host.name,
        FailureDomain::Rack => &host.rack,
        FailureDomain::Datacenter => &host.datacenter,
    };
    name.as_ref().map(|n| n.value.as_str())
}

fn domains(view: &View, diagnostics: &mut Vec<Diagnostic>) {
    let kind = &view.ceph.failure_domain;
    let word = match kind.value {
        FailureDomain::Host => "host",
        FailureDomain::Rack => "rack",
        FailureDomain::Datacenter => "datacenter",
    };
    let storing: Vec<&HostView> = view.hosts.iter().filter(|h| h.has(Role::Osd)).collect();
    if kind.value != FailureDomain::Host {
        for host in storing.iter().filter(|h| domain(h, kind.value).is_none()) {
            let message = format!("{} has OSDs but no {word}, and the failure domain is {word}", host.label);
            diagnostics.push(Diagnostic::new(host.span, message, format!("add `location: {{{word}: NAME}}`")));
        }
    }
    let names: BTreeSet<&str> = storing.iter().filter_map(|h| domain(h, kind.value)).collect();
    let nameless = kind.value == FailureDomain::Host && storing.iter().any(|h| h.name.is_none());
    let size = &view.ceph.size;
    // A rack without any OSD yet can be looked at; provisioning storage on it is refused there.
    if storing.is_empty() || nameless || !view.roles_are_clear() || names.len() >= usize::from(size.value) {
        return;
    }
    let (count, plural) = (names.len(), if names.len() == 1 { "" } else { "s" });
    let message = format!("{count} {word}{plural} with OSDs cannot hold {} copies, one a {word}", size.value);
    let smaller = if kind.value == FailureDomain::Host { "" } else { ", or use `failure_domain: host`" };
    let within = if kind.value == FailureDomain::Host { "" } else { "hosts in " };
    let fix = format!("give the osd role to {within}{} {word}s or more{smaller}", size.value);
    let span = if size.span == kind.span { storing.first().map_or(size.span, |h| h.span) } else { size.span };
    diagnostics.push(Diagnostic::new(span, message, fix));
}

fn daemons(view: &View, diagnostics: &mut Vec<Diagnostic>) {
    let first = view.hosts.first().map_or(Span::default(), |h| h.roles_span);
    let mons: Vec<&HostView> = view.hosts.iter().filter(|h| h.has(Role::Mon)).collect();
    match mons.as_slice() {
        [] => diagnostics.push(Diagnostic::new(first, "no host has the mon role", "give it to three hosts, or five")),
        [.., last] if mons.len() > MOST_MONS => {
            let message =
                format!("{} mons: more than {MOST_MONS} only make every change of the cluster slower", mons.len());
            diagnostics.push(Diagnostic::new(last.roles_span, message, fewer_mons(&view.hosts)));
        }
        [.., last] if mons.len().is_multiple_of(2) => {
            let labels: Vec<&str> = mons.iter().map(|h| h.label.trim_start_matches("host ")).collect();
            let message = format!(
                "{} mons, on {}: an even number survives no more losses than one mon less",
                mons.len(),
                listed(&labels)
            );
            let others: Vec<&str> =
                Role::ALL.iter().filter(|r| **r != Role::Mon && last.has(**r)).map(|r| r.word()).collect();
            let fix = format!("take the role from one, for example {}: `roles: [{}]`", last.label, others.join(", "));
            diagnostics.push(Diagnostic::new(last.roles_span, message, fix));
        }
        _ => {}
    }
    if !view.hosts.iter().any(|h| h.has(Role::Mgr)) {
        diagnostics.push(Diagnostic::new(first, "no host has the mgr role", "give it to the hosts that are mons"));
    }
}

/// How the role is taken from most hosts. The others need no manager either: one works, and the rest stand by.
fn fewer_mons(hosts: &[HostView]) -> String {
    let has = |role: &&Role| hosts.iter().any(|h| h.has(**role));
    let others: Vec<&str> = [Role::Osd, Role::Guests].iter().filter(has).map(|r| r.word()).collect();
    format!(
        "keep mon and mgr on three hosts, or five, in different racks, and write `roles: [{}]` on the other hosts",
        others.join(", ")
    )
}
