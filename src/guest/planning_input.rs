//! What a placement and a start look at first: taken once, and handed on as a value.

use super::capacity::{closed, empty, fill};
use super::claim::{self, Claim};
use super::domain_inventory::DomainInventory;
use super::guest_context::GuestContext;
use super::host_state::{self, HostState};
use super::placement::{Closed, HostCapacity};
use super::reservation::{self, Reservations};
use super::spec::Guest;
use crate::error::Failure;
use crate::inventory::{HostSpec, Inventory, Role};
use std::collections::BTreeMap;
use uuid::Uuid;

/// The rack at one look. The claims were read before the hosts were asked; see [`DomainInventory::start_state`].
#[derive(Debug)]
pub struct PlanningInput {
    /// Claims by guest.
    claims: BTreeMap<Uuid, Claim>,
    /// All guests, by name.
    pub guests: Vec<Guest>,
    /// What runs where.
    pub domain_inventory: DomainInventory,
    /// The hosts as the planner sees them.
    pub rooms: Vec<HostCapacity>,
}

impl PlanningInput {
    /// Looks.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn take(rack: &GuestContext) -> Result<Self, Failure> {
        let (claims, reservations, states, guests) = tokio::join!(
            claim::all(rack.port()),
            reservation::read_all(rack.port(), rack.hypervisors.names()),
            host_state::read(rack.port()),
            rack.guests(),
        );
        let (claims, reservations) = (claims?, reservations?);
        let (states, guests) = (states?, guests?);
        let domain_inventory = DomainInventory::take(rack, true).await?;
        let rooms = rooms(&rack.inventory, &domain_inventory, &states, &guests, &reservations);
        Ok(PlanningInput { claims, guests, domain_inventory, rooms })
    }

    /// The claim on a guest. One that had none had never been started by then.
    pub fn claim(&self, guest: Uuid) -> Claim {
        self.claims.get(&guest).cloned().unwrap_or_default()
    }
}

/// The hosts as the planner sees them: their size less what is kept back, what they run, and what they are promised to.
pub fn rooms(
    inventory: &Inventory,
    domain_inventory: &DomainInventory,
    states: &BTreeMap<String, HostState>,
    guests: &[Guest],
    reservations: &BTreeMap<String, Reservations>,
) -> Vec<HostCapacity> {
    let known: BTreeMap<Uuid, &Guest> = guests.iter().map(|g| (g.uuid, g)).collect();
    let tags = |uuid: Uuid| known.get(&uuid).map(|g| g.tags.clone()).unwrap_or_default();
    let nothing = Reservations::new();
    let on = domain_inventory.by_host();
    let room = |spec: &HostSpec| {
        let name = spec.name.as_str();
        let node = domain_inventory.hosts.get(name).cloned().flatten();
        let silent = domain_inventory.silent.get(name).map(|why| Closed::Silent(why.clone()));
        let mut room = empty(inventory, spec, node.as_ref(), silent.or_else(|| closed(states.get(name)?)));
        let here = || on.get(name).into_iter().flatten().copied();
        fill(&mut room, here(), reservations.get(name).unwrap_or(&nothing), tags);
        let unmanaged = here().filter(|domain| !known.contains_key(&domain.uuid));
        room.taken = unmanaged.map(|domain| domain.name.clone()).collect();
        room
    };
    inventory.with_role(Role::Guests).map(room).collect()
}
