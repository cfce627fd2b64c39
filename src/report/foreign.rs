//! What other tools have put on the hosts: domains that are no guests, and what guests have beside their definitions. Pure.

use super::collect::{CephSeen, Seen};
use super::finding::Finding;
use crate::guest::Guest;
use crate::host::Severity;
use crate::libvirt::Domain;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// The cluster, where its guests are known: guests that cannot be read are no unmanaged domains.
fn known(seen: &Seen) -> Option<&CephSeen> {
    seen.ceph.as_ref().ok().filter(|ceph| ceph.unread.is_none())
}

/// Domains of the hosts that are no guests.
pub(super) fn unmanaged(seen: &Seen) -> Vec<Finding> {
    let Some(ceph) = known(seen) else { return Vec::new() };
    let guests: BTreeSet<Uuid> = ceph.guests.iter().map(|guest| guest.uuid).collect();
    let names: BTreeMap<&str, Uuid> = ceph.guests.iter().map(|guest| (guest.name.as_str(), guest.uuid)).collect();
    let one = |(host, domain): &(String, Domain)| {
        let Domain { name, uuid, .. } = domain;
        let (has, cure) = match domain.state.has_process() {
            true => {
                ("runs", format!("if it is not wanted, on {host}: `virsh destroy {uuid}`; its memory counts as used"))
            }
            false => ("has, shut off,", format!("if it is not wanted, on {host}: `virsh undefine {uuid}`")),
        };
        let what = format!("{has} the domain {name}, which is not a guest of this cluster");
        match names.contains_key(name.as_str()) {
            true => Finding::new(
                Severity::Error,
                format!("host {host}"),
                format!("{what}; the guest {name} cannot run there beside it"),
                cure,
            ),
            false => Finding::new(Severity::Warning, format!("host {host}"), what, cure),
        }
    };
    let unread = |uuid: &Uuid| ceph.unreadable.iter().any(|unread| unread.object == Guest::object(*uuid));
    let unknown = seen.domain_inventory.seen.iter().filter(|(uuid, _)| !guests.contains(uuid) && !unread(uuid));
    unknown.flat_map(|(_, places)| places.iter().map(one)).collect()
}

/// What guests have beside their definitions.
pub(super) fn on_guests(seen: &Seen) -> Vec<Finding> {
    let Some(ceph) = known(seen) else { return Vec::new() };
    let guests: BTreeMap<Uuid, &Guest> = ceph.guests.iter().map(|guest| (guest.uuid, guest)).collect();
    let mut found = Vec::new();
    for at in &seen.live {
        let Some(guest) = guests.get(&at.uuid) else { continue };
        for foreign in at.live.foreign(guest, &seen.pool) {
            let severity = if foreign.is_lost_with_a_stop() { Severity::Critical } else { Severity::Warning };
            let cure = foreign.cure(guest.uuid, &at.host);
            found.push(Finding::new(
                severity,
                format!("guest {}", guest.name),
                format!("{foreign} ({})", at.host),
                cure,
            ));
        }
    }
    found
}

/// Running domains that have the disk of a guest open and are not that guest.
pub(super) fn second_writers(seen: &Seen) -> Vec<Finding> {
    let Some(ceph) = known(seen) else { return Vec::new() };
    let images = |guest: &Guest| guest.disks.iter().map(|disk| disk.image.clone()).collect::<Vec<_>>();
    let owners: BTreeMap<String, &Guest> = ceph
        .guests
        .iter()
        .flat_map(|guest| images(guest).into_iter().map(move |image| (format!("{}/{image}", seen.pool), guest)))
        .collect();
    let mut found = Vec::new();
    for at in &seen.live {
        for image in at.live.images() {
            let Some(owner) = owners.get(image).filter(|owner| owner.uuid != at.uuid) else { continue };
            let what = format!(
                "the domain {} ({}) on {} has its disk {image} open: two writers would destroy it",
                at.name, at.uuid, at.host
            );
            let fix = format!("on {}: `virsh destroy {}`, after a look at what it is", at.host, at.uuid);
            found.push(Finding::new(Severity::Critical, format!("guest {}", owner.name), what, fix));
        }
    }
    found
}
