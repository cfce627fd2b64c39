//! What planning starts from, after moves that were left half-done have been finished.

use super::options::Options;
use super::plan::{Facts, Move, Placed, Unmoved};
use super::preflight::Pairs;
use super::run::PATIENCE;
use super::transfer::{Transfer, finish};
use crate::error::Failure;
use crate::fence::{self, Fences};
use crate::guest::claim::{self, Claim, Phase};
use crate::guest::placement::{Closed, Need};
use crate::guest::{Courtesy, Guest, GuestContext, PlanningInput, Settled, Settlement, unless_power_is_open};
use crate::ui::{CancelLevel, Outcome};
use futures::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::watch;
use uuid::Uuid;

/// Bytes a second of one Mbit/s.
const MBIT: u64 = 125_000;

/// Which guests a command is about.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// These.
    Guests(Vec<Guest>),
    /// All that are on a host, or on their way to or from it.
    On(String),
}

impl Wanted {
    fn covers(&self, uuid: Uuid, claim: &Claim) -> bool {
        match self {
            Wanted::Guests(guests) => guests.iter().any(|g| g.uuid == uuid),
            Wanted::On(host) => claim.places().any(|place| place == host),
        }
    }
}

/// Speed of the migration network in bytes a second.
pub fn link(rack: &GuestContext) -> Option<u64> {
    rack.inventory.migration_network().speed.map(|speed| speed.0 * MBIT)
}

/// Finishes what other runs left half-done with these guests, then looks at the whole rack.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn gather(
    rack: &GuestContext,
    wanted: &Wanted,
    options: &Options,
    cancel_level: &watch::Receiver<CancelLevel>,
    change: bool,
) -> Result<Facts, Failure> {
    let mut facts = Facts { link: link(rack), ..Facts::default() };
    if change {
        finish_begun(rack, wanted, options, cancel_level, &mut facts).await?;
    }
    let planning_input = PlanningInput::take(rack).await?;
    (facts.guests, facts.hidden) = placed(&planning_input);
    facts.unmanaged = unmanaged(&planning_input);
    facts.rooms = planning_input.rooms;
    Ok(facts)
}

/// Guests that are seen somewhere, and why others are not.
fn placed(planning_input: &PlanningInput) -> (Vec<Placed>, BTreeMap<Uuid, String>) {
    let (mut all, mut hidden) = (Vec::new(), BTreeMap::new());
    for guest in &planning_input.guests {
        let Some((host, domain)) = planning_input.domain_inventory.place(guest.uuid) else {
            if let Some((host, why)) = planning_input.domain_inventory.hidden(&planning_input.claim(guest.uuid)) {
                hidden.insert(guest.uuid, format!("it may run on {host}, which does not answer ({why})"));
            }
            continue;
        };
        all.push(Placed {
            name: guest.name.clone(),
            uuid: guest.uuid,
            memory: domain.memory,
            cpus: domain.cpus,
            tags: guest.tags.clone(),
            priority: guest.priority,
            pinned: guest.pinned.clone(),
            host: host.clone(),
            state: domain.state,
            emulated: guest.machine.is_emulated(),
        });
    }
    (all, hidden)
}

/// Domains that are no guest of the rack, or a second copy of one that is not on its way.
fn unmanaged(planning_input: &PlanningInput) -> Vec<Unmoved> {
    let mut all = Vec::new();
    let guests: BTreeSet<Uuid> = planning_input.guests.iter().map(|guest| guest.uuid).collect();
    for uuid in planning_input.domain_inventory.seen.keys() {
        let known = guests.contains(uuid);
        let moves = planning_input.claim(*uuid).phase == Phase::Moving;
        let place = planning_input.domain_inventory.place(*uuid).map(|(host, _)| host.as_str()).filter(|_| known);
        for (host, domain) in
            planning_input.domain_inventory.places(*uuid).filter(|(host, _)| place != Some(host) && !moves)
        {
            let reason = match place {
                Some(place) => {
                    format!("is another copy of the guest on {place}; end it there with `virsh destroy {uuid}`")
                }
                None => format!("does not belong to this rack; move it, or end it there with `virsh destroy {uuid}`"),
            };
            all.push(Unmoved { guest: domain.name.clone(), host: host.clone(), reason });
        }
    }
    all
}

/// Whether a host has told what runs on it.
///
/// # Errors
/// When it does not answer.
pub fn answers(facts: &Facts, host: &str) -> Result<(), Failure> {
    match facts.rooms.iter().find(|room| room.name == host).and_then(|room| room.closed.as_ref()) {
        Some(silent @ Closed::Silent(_)) => Err(Failure::failed(format!("host {host} {silent}"))
            .hint("guests of a host that is gone are started elsewhere after it was fenced, not moved")),
        _ => Ok(()),
    }
}

/// Settles what other runs left half-done with the wanted guests: moves are brought to their end, starts whose guest
/// runs are written down.
async fn finish_begun(
    rack: &GuestContext,
    wanted: &Wanted,
    options: &Options,
    cancel_level: &watch::Receiver<CancelLevel>,
    facts: &mut Facts,
) -> Result<(), Failure> {
    let (guests, claims) = tokio::join!(rack.guests(), claim::all(rack.port()));
    let (guests, claims) = (guests?, claims?);
    let begun: Vec<(&Guest, &Claim)> = guests
        .iter()
        .filter_map(|guest| Some((guest, claims.get(&guest.uuid)?)))
        .filter(|(guest, claim)| {
            matches!(claim.phase, Phase::Moving | Phase::Starting) && wanted.covers(guest.uuid, claim)
        })
        .collect();
    let _unhurried = (!begun.is_empty()).then(|| rack.ui.completion_guard(PATIENCE));
    // What is settled frees the claim, and with it the name of the host that a strict guest waits for.
    let fences = &match begun.is_empty() {
        true => Fences::default(),
        false => fence::standing(rack.port()).await?,
    };
    let pairs = Pairs::default();
    let finishes = begun.iter().map(|(guest, claim)| {
        let (pairs, cancel_level) = (&pairs, cancel_level.clone());
        async move {
            unless_power_is_open(guest, claim, fences)?;
            match moved_by(guest, claim) {
                Some(a_move) => finish(&Transfer { rack, a_move: &a_move, options, pairs, cancel_level }).await,
                None => finish_start(rack, guest, claim, cancel_level).await,
            }
        }
    });
    for ((guest, claim), found) in begun.iter().zip(join_all(finishes).await) {
        let unmoved_guest = |host: &str, reason| Unmoved { guest: guest.name.clone(), host: host.to_owned(), reason };
        let from = claim.host.as_deref().unwrap_or_default();
        match found {
            Ok(Settled::Runs(host)) if claim.target.as_deref() == Some(host.as_str()) => {
                let reason = "has just arrived there, by a move that was begun before".to_owned();
                facts.arrived.insert(guest.uuid, unmoved_guest(&host, reason));
            }
            Ok(Settled::Made(_)) => {
                let reason =
                    "was made there and never let go on: finish its start with `rackhand guest start`".to_owned();
                facts.unsettled.insert(guest.uuid, unmoved_guest(from, reason));
            }
            Ok(_) => {}
            Err(failure) => {
                let what = if claim.phase == Phase::Moving { "a move" } else { "a start" };
                let hints: String = failure.hints.iter().map(|hint| format!("; {hint}")).collect();
                let reason = format!("{what} that was begun before cannot be settled: {failure}{hints}");
                facts.unsettled.insert(guest.uuid, unmoved_guest(from, reason));
            }
        }
    }
    Ok(())
}

/// The move that a claim is about.
fn moved_by(guest: &Guest, claim: &Claim) -> Option<Move> {
    let (from, to) = (claim.host.clone()?, claim.target.clone()?);
    Some(Move {
        guest: guest.name.clone(),
        uuid: guest.uuid,
        from,
        to,
        bytes: guest.memory.bytes(),
        seconds: 0.0,
        priority: guest.priority,
        emulated: guest.machine.is_emulated(),
        need: Need::default(),
    })
}

async fn finish_start(
    rack: &GuestContext,
    guest: &Guest,
    claim: &Claim,
    cancel_level: watch::Receiver<CancelLevel>,
) -> Result<Settled, Failure> {
    let job = rack.ui.job(format!("settle the start of {}", guest.name));
    let run = rack.run.operation();
    let settlement = Settlement { rack, guest: guest.uuid, name: &guest.name, run: &run, job: &job, cancel_level };
    let settled = settlement.settle(claim, Courtesy::Wait).await;
    match &settled {
        Ok(Settled::Runs(host)) => job.done(format!("it runs on {host}")),
        Ok(Settled::Free) => job.done("it was never made"),
        Ok(Settled::Made(_)) => job.fail("it was made and never let go on"),
        Ok(_) => job.done("another run has settled it"),
        Err(failure) => job.end(Outcome::Unknown, failure.to_string()),
    }
    settled
}
