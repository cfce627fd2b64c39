//! Room of a host that is promised to guests on their way to it.
//!
//! What runs on a host shows there. What is about to start, or to arrive, does not yet, and two operators who look at
//! the same moment would both give away the same memory. So whoever has written a claim that brings a guest to a host
//! has it entered among the host's reservations, one state object a host, changed by compare-and-swap: of two who would
//! together overfill the host, the later one finds the entry of the earlier one, and gives way.
//!
//! The host is looked at afresh for it, after the claim was written: one that was put into maintenance meanwhile takes
//! nobody, and whoever empties it finds the claims of those that were quicker.
//!
//! An entry counts while the guest's claim says that it is on its way there. Nobody has to take it back: it is worth
//! nothing once the claim says otherwise, and the next change leaves it out.

use super::claim::{self, Claim, Phase};
use super::guest_context::GuestContext;
use super::host_state::HostState;
use super::placement::{APART, HostCapacity, Need, refusal};
use super::planning_input::{closed, empty, fill};
use crate::cluster::{ClusterError, ClusterPort, Document, Version, encode, fetch};
use crate::error::{Failure, Kind};
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use uuid::Uuid;

/// Tries of entering a reservation while others do the same; each lost race means that somebody else got on.
const TRIES: usize = 50;

/// What a guest on its way will take of its host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Reservation {
    /// Memory in bytes.
    pub memory: u64,
    /// Virtual processors.
    pub cpus: u32,
    /// Tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// What a host is promised to, by guest.
pub type Reservations = BTreeMap<Uuid, Reservation>;

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
struct ReservationsOfHost {
    guests: Reservations,
}

impl Document for ReservationsOfHost {
    const SCHEMA: &'static str = "rackhand.reservations/1";
}

fn object(host: &str) -> String {
    format!("reservations.{host}")
}

/// Whether a claim says that its guest is about to show on a host.
fn on_its_way(claim: &Claim, host: &str) -> bool {
    match claim.phase {
        Phase::Starting => claim.host.as_deref() == Some(host),
        Phase::Moving => claim.target.as_deref() == Some(host),
        // One that was seen running shows on its host.
        Phase::Running | Phase::Free => false,
    }
}

/// What a host is promised to, and the version of that. To be read *before* the host is asked what it runs: a guest
/// that comes up in between is then seen twice rather than not at all.
async fn read(port: &dyn ClusterPort, host: &str) -> Result<(Reservations, Option<Version>), ClusterError> {
    let Some((ledger, version)) = fetch::<ReservationsOfHost>(port, &object(host)).await? else {
        return Ok((Reservations::new(), None));
    };
    let entries = ledger.guests.into_iter().map(|(guest, reservation)| async move {
        let claim = claim::read(port, guest).await?;
        Ok::<_, ClusterError>(on_its_way(&claim, host).then_some((guest, reservation)))
    });
    Ok((try_join_all(entries).await?.into_iter().flatten().collect(), Some(version)))
}

/// What these hosts are promised to. To be read before they are asked what they run.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn read_all<'a>(
    port: &dyn ClusterPort,
    hosts: impl IntoIterator<Item = &'a str>,
) -> Result<BTreeMap<String, Reservations>, ClusterError> {
    let each = hosts.into_iter().map(|host| async move { Ok((host.to_owned(), read(port, host).await?.0)) });
    Ok(try_join_all(each).await?.into_iter().collect())
}

/// One lock a host: those of one run who enter reservations wait for each other, for they would only get into each
/// other's way.
#[derive(Debug, Default)]
pub struct Turns(Mutex<BTreeMap<String, Arc<AsyncMutex<()>>>>);

impl Turns {
    async fn wait(&self, host: &str) -> OwnedMutexGuard<()> {
        let turn =
            Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(host.to_owned()).or_default());
        turn.lock_owned().await
    }
}

/// Has a guest entered among a host's reservations, after the claim that brings it there was written; tells why not when
/// the host has no room left for it.
///
/// # Errors
/// When the host or the cluster cannot be asked.
pub async fn enter(rack: &GuestContext, guest: Uuid, need: &Need, host: &str) -> Result<Result<(), String>, Failure> {
    let port = rack.port();
    let hypervisor = rack.hypervisors.get(host)?;
    let (bare, tags) = bare(rack, need, host).await?;
    let _turn = rack.turns.wait(host).await;
    for _ in 0..TRIES {
        let (mut reservations, version) = read(port, host).await?;
        let here = hypervisor.domains().await?;
        let mut others = reservations.clone();
        others.remove(&guest);
        let mut room = bare.clone();
        let running = here.iter().filter(|domain| domain.uuid != guest);
        fill(&mut room, running, &others, |uuid| tags.get(&uuid).cloned().unwrap_or_default());
        if let Some(why) = refusal(&room, need) {
            return Ok(Err(why));
        }
        reservations.insert(guest, Reservation { memory: need.memory, cpus: need.cpus, tags: need.tags.clone() });
        let text = encode(&ReservationsOfHost { guests: reservations })?;
        let written = match version {
            Some(version) => port.replace(&object(host), &text, version).await,
            None => port.create(&object(host), &text).await,
        };
        match written {
            Ok(_) => return Ok(Ok(())),
            Err(ClusterError::Conflict(_) | ClusterError::Exists(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failure::msg(Kind::Busy, format!("guests are brought to {host} by others all the time")))
}

type Tags = BTreeMap<Uuid, BTreeMap<String, String>>;

/// A host without its guests, and the tags of guests where they matter.
async fn bare(rack: &GuestContext, need: &Need, host: &str) -> Result<(HostCapacity, Tags), Failure> {
    let Some(spec) = rack.inventory.host(host) else {
        return Err(Failure::usage(format!("the inventory has no host `{host}`")));
    };
    let hypervisor = rack.hypervisors.get(host)?;
    let node = async { Ok(hypervisor.node().await?) };
    let object = HostState::object(host);
    let state = async { fetch::<HostState>(rack.port(), &object).await.map_err(Failure::from) };
    let guests = async { if need.tags.contains_key(APART) { rack.guests().await } else { Ok(Vec::new()) } };
    let (node, state, guests) = tokio::try_join!(node, state, guests)?;
    let room = empty(&rack.inventory, spec, Some(&node), state.and_then(|(state, _)| closed(&state)));
    Ok((room, guests.into_iter().map(|guest| (guest.uuid, guest.tags)).collect()))
}
