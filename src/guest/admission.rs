//! Room of a host for guests on their way to it.
//!
//! What runs on a host shows there. What is about to start, or to arrive, does not yet, and two operators who look at
//! the same moment would both give away the same memory. So whoever has written a claim that brings a guest to a host
//! has it entered among the host's reservations, one state object a host, changed by compare-and-swap: of two who would
//! together overfill the host, the later one finds the entry of the earlier one, and gives way.
//!
//! The host is looked at afresh for it, after the claim was written: one that was put into maintenance meanwhile takes
//! no guest, and whoever empties it finds the claims of those that were quicker.
//!
//! Guests of one run that go to the same host are entered together: a batch costs a host as much as one guest does.

use super::capacity::{closed, empty, fill};
use super::guest_context::GuestContext;
use super::host_state::HostState;
use super::placement::{APART, HostCapacity, Need, refusal};
use super::reservation::{Reservation, ReservationsOfHost, object, read};
use super::turns::{Tags, Wish};
use crate::cluster::{ClusterError, encode, fetch};
use crate::error::{Failure, Kind};
use std::collections::BTreeMap;
use tokio::sync::oneshot::{self, error::TryRecvError};
use uuid::Uuid;

/// Tries of entering a reservation while others do the same; each lost race means that another one got on.
const TRIES: usize = 50;

/// Has a guest entered among a host's reservations, after the claim that brings it there was written; tells why not when
/// the host has no room left for it.
///
/// # Errors
/// When the host or the cluster cannot be asked.
pub async fn enter(rack: &GuestContext, guest: Uuid, need: &Need, host: &str) -> Result<Result<(), String>, Failure> {
    let turn = rack.turns.at(host);
    loop {
        let (answer, mut heard) = oneshot::channel();
        turn.wishes().push(Wish { guest, need: need.clone(), answer });
        let mut tags = turn.enters.lock().await;
        match heard.try_recv() {
            Ok(answer) => return answer,
            // Whoever was to enter it was given up half-way.
            Err(TryRecvError::Closed) => continue,
            Err(TryRecvError::Empty) => {}
        }
        // All that wait by now have written their claims, and the host is looked at after that.
        let mut wishes = std::mem::take(&mut *turn.wishes());
        wishes.retain(|wish| !wish.answer.is_closed());
        let answers = enter_all(rack, &wishes, host, &mut tags).await;
        for (wish, answer) in wishes.into_iter().zip(answers) {
            // One that does not wait any more has been given up.
            let _ = wish.answer.send(answer);
        }
        if let Ok(answer) = heard.try_recv() {
            return answer;
        }
    }
}

/// Enters guests that go to one host, all in one step; one that finds no room any more leaves the rest alone.
async fn enter_all(
    rack: &GuestContext,
    wishes: &[Wish],
    host: &str,
    tags: &mut Tags,
) -> Vec<Result<Result<(), String>, Failure>> {
    match admit(rack, wishes, host, tags).await {
        Ok(admitted) => admitted.into_iter().map(Ok).collect(),
        Err(failure) => wishes.iter().map(|_| Err(failure.duplicate())).collect(),
    }
}

async fn admit(
    rack: &GuestContext,
    wishes: &[Wish],
    host: &str,
    tags: &mut Tags,
) -> Result<Vec<Result<(), String>>, Failure> {
    let port = rack.port();
    let hypervisor = rack.hypervisors.get(host)?;
    let bare = bare(rack, host).await?;
    for _ in 0..TRIES {
        let (mut reservations, version) = read(port, host).await?;
        let here = hypervisor.domains().await?;
        if wishes.iter().any(|wish| wish.need.tags.contains_key(APART)) {
            tags.read(port, here.iter().map(|domain| domain.uuid)).await?;
        }
        for wish in wishes {
            reservations.remove(&wish.guest);
        }
        let mut room = bare.clone();
        let running = here.iter().filter(|domain| wishes.iter().all(|wish| wish.guest != domain.uuid));
        fill(&mut room, running, &reservations, |uuid| tags.of(uuid));
        let mut admitted = Vec::new();
        for Wish { guest, need, .. } in wishes {
            let why = refusal(&room, need);
            if why.is_none() {
                let own = Reservation { memory: need.memory, cpus: need.cpus, tags: need.tags.clone() };
                fill(&mut room, [].into_iter(), &[(*guest, own.clone())].into(), |_| BTreeMap::new());
                reservations.insert(*guest, own);
            }
            admitted.push(why.map_or(Ok(()), Err));
        }
        if admitted.iter().all(Result::is_err) {
            return Ok(admitted);
        }
        let text = encode(&ReservationsOfHost { guests: reservations })?;
        let written = match version {
            Some(version) => port.replace(&object(host), &text, version).await,
            None => port.create(&object(host), &text).await,
        };
        match written {
            Ok(_) => return Ok(admitted),
            Err(ClusterError::Conflict(_) | ClusterError::Exists(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failure::msg(Kind::Busy, format!("guests are brought to {host} by others all the time")))
}

/// A host without its guests.
async fn bare(rack: &GuestContext, host: &str) -> Result<HostCapacity, Failure> {
    let Some(spec) = rack.inventory.host(host) else {
        return Err(Failure::usage(format!("the inventory has no host `{host}`")));
    };
    let hypervisor = rack.hypervisors.get(host)?;
    let node = async { Ok(hypervisor.node().await?) };
    let object = HostState::object(host);
    let state = async { fetch::<HostState>(rack.port(), &object).await.map_err(Failure::from) };
    let (node, state) = tokio::try_join!(node, state)?;
    Ok(empty(&rack.inventory, spec, Some(&node), state.and_then(|(state, _)| closed(&state))))
}
