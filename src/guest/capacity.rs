//! What a host has room for: its size less what is kept back, and what its guests take of it. Pure.

use super::host_state::HostState;
use super::placement::{Closed, HostCapacity};
use super::reservation::{Reservation, Reservations};
use crate::inventory::{HostSpec, Inventory};
use crate::libvirt::{Domain, Node};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Why a host of this state takes no guests, where it does not.
pub(super) fn closed(state: &HostState) -> Option<Closed> {
    state.maintenance.as_ref().map(|m| Closed::Maintenance(m.why.clone()))
}

/// A host without its guests.
pub(super) fn empty(
    inventory: &Inventory,
    spec: &HostSpec,
    node: Option<&Node>,
    closed: Option<Closed>,
) -> HostCapacity {
    let threads = node.map_or(0, |n| n.cpus);
    // Rounded down: half a processor is none.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive by the inventory")]
    let cpus = (f64::from(threads) * inventory.guests.cpu_overcommit) as u64;
    let (total, reserved) = (node.map_or(0, |n| n.memory), inventory.reserve(spec).bytes());
    HostCapacity {
        name: spec.name.clone(),
        rack: spec.location.rack.clone(),
        closed,
        total,
        reserved,
        memory: total.saturating_sub(reserved),
        cpus,
        ..HostCapacity::default()
    }
}

/// Counts in what a host runs, and what it is promised to and does not show there yet.
pub(super) fn fill<'a>(
    room: &mut HostCapacity,
    here: impl Iterator<Item = &'a Domain>,
    reservations: &Reservations,
    tags: impl Fn(Uuid) -> BTreeMap<String, String>,
) {
    let mut reservations = reservations.clone();
    let running = here.filter(|domain| domain.state.has_process());
    let running = running.map(|domain| {
        reservations.remove(&domain.uuid);
        Reservation { memory: domain.memory, cpus: domain.cpus, tags: tags(domain.uuid) }
    });
    let running: Vec<Reservation> = running.collect();
    for guest in running.into_iter().chain(reservations.into_values()) {
        room.used += guest.memory;
        room.cpus_used += u64::from(guest.cpus);
        room.tags.push(guest.tags);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libvirt::DomainState;
    use proptest::prelude::*;

    fn domain(n: u128, memory: u64, state: DomainState) -> Domain {
        Domain { name: format!("g{n}"), uuid: Uuid::from_u128(n), state, reason: String::new(), memory, cpus: 1 }
    }

    proptest! {
        #[test]
        fn a_guest_counts_once_whether_it_shows_or_is_promised_or_both(
            running in prop::collection::btree_map(0u128..20, (1u64..64, any::<bool>()), 0..12),
            reserved in prop::collection::btree_map(0u128..20, 1u64..64, 0..12),
        ) {
            let state = |on| if on { DomainState::Running } else { DomainState::Off };
            let here: Vec<Domain> = running.iter().map(|(n, (memory, on))| domain(*n, *memory, state(*on))).collect();
            let reservations: Reservations = reserved
                .iter()
                .map(|(n, memory)| (Uuid::from_u128(*n), Reservation { memory: *memory, cpus: 1, ..Reservation::default() }))
                .collect();
            let mut room = HostCapacity::default();
            fill(&mut room, here.iter(), &reservations, |_| BTreeMap::new());
            let shows: BTreeMap<u128, u64> = running.iter().filter(|(_, (_, on))| *on).map(|(n, (m, _))| (*n, *m)).collect();
            let all: BTreeMap<u128, u64> = reserved.into_iter().chain(shows).collect();
            prop_assert_eq!(room.used, all.values().sum::<u64>());
            prop_assert_eq!((room.cpus_used, room.tags.len()), (all.len() as u64, all.len()));
        }
    }
}
