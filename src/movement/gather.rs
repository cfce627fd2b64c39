//! What planning starts from, after moves that were left half-done have been finished.

use super::options::Options;
use super::plan::{Facts, Move, Placed, Stay};
use super::preflight::Pairs;
use super::run::PATIENCE;
use super::settle::Found;
use super::transfer::{Transfer, finish};
use crate::error::Failure;
use crate::guest::claim::{self, Claim, Phase};
use crate::guest::placement::{Closed, Need};
use crate::guest::{Guest, Outlook, Rack};
use crate::ui::Urgency;
use futures::future::join_all;
use std::collections::BTreeMap;
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
pub fn link(rack: &Rack) -> Option<u64> {
    rack.inventory.migration_network().speed.map(|speed| speed.0 * MBIT)
}

/// Finishes what other runs left half-done with these guests, then looks at the whole rack.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn gather(
    rack: &Rack,
    wanted: &Wanted,
    options: &Options,
    urgency: &watch::Receiver<Urgency>,
    change: bool,
) -> Result<Facts, Failure> {
    let mut facts = Facts { link: link(rack), ..Facts::default() };
    if change {
        finish_moves(rack, wanted, options, urgency, &mut facts).await?;
    }
    let outlook = Outlook::take(rack).await?;
    (facts.guests, facts.hidden) = placed(&outlook);
    facts.beside = beside(&outlook);
    facts.rooms = outlook.rooms;
    Ok(facts)
}

/// Guests that are seen somewhere, and why others are not.
fn placed(outlook: &Outlook) -> (Vec<Placed>, BTreeMap<Uuid, String>) {
    let (mut all, mut hidden) = (Vec::new(), BTreeMap::new());
    for guest in &outlook.guests {
        let Some((host, domain)) = outlook.survey.place(guest.uuid) else {
            if let Some((host, why)) = outlook.survey.hidden(&outlook.claim(guest.uuid)) {
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
fn beside(outlook: &Outlook) -> Vec<Stay> {
    let mut all = Vec::new();
    for uuid in outlook.survey.seen.keys() {
        let known = outlook.guests.iter().any(|guest| guest.uuid == *uuid);
        let moves = outlook.claim(*uuid).phase == Phase::Moving;
        let place = outlook.survey.place(*uuid).map(|(host, _)| host.as_str()).filter(|_| known);
        for (host, domain) in outlook.survey.places(*uuid).filter(|(host, _)| place != Some(host) && !moves) {
            let reason = match place {
                Some(place) => format!("is another copy of the guest on {place}; end it there with `virsh destroy`"),
                None => "is no guest of this rack; move it or end it there with virsh".to_owned(),
            };
            all.push(Stay { guest: domain.name.clone(), host: host.clone(), reason });
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

async fn finish_moves(
    rack: &Rack,
    wanted: &Wanted,
    options: &Options,
    urgency: &watch::Receiver<Urgency>,
    facts: &mut Facts,
) -> Result<(), Failure> {
    let mut moves = Vec::new();
    let (guests, claims) = tokio::join!(rack.guests(), claim::all(rack.port()));
    let (guests, claims) = (guests?, claims?);
    for guest in &guests {
        let Some(claim) = claims.get(&guest.uuid) else { continue };
        if claim.phase != Phase::Moving || !wanted.covers(guest.uuid, claim) {
            continue;
        }
        let (Some(from), Some(to)) = (claim.host.clone(), claim.target.clone()) else { continue };
        moves.push(Move {
            guest: guest.name.clone(),
            uuid: guest.uuid,
            from,
            to,
            bytes: guest.memory.bytes(),
            seconds: 0.0,
            priority: guest.priority,
            emulated: guest.machine.is_emulated(),
            need: Need::default(),
        });
    }
    let _unhurried = (!moves.is_empty()).then(|| rack.ui.unhurried(PATIENCE));
    let pairs = Pairs::default();
    let finishes = moves.iter().map(|a_move| {
        let mut transfer = Transfer { rack, a_move, options, pairs: &pairs, urgency: urgency.clone() };
        async move { (a_move, finish(&mut transfer).await) }
    });
    for (a_move, found) in join_all(finishes).await {
        let stay = |host: &str, reason| Stay { guest: a_move.guest.clone(), host: host.to_owned(), reason };
        match found {
            Ok(Found::OnTarget) => {
                let reason = "has just arrived there, by a move that was begun before".to_owned();
                facts.arrived.insert(a_move.uuid, stay(&a_move.to, reason));
            }
            Ok(_) => {}
            Err(failure) => {
                let reason = format!("a move that was begun before cannot be settled: {failure}");
                facts.unsettled.insert(a_move.uuid, stay(&a_move.from, reason));
            }
        }
    }
    Ok(())
}
