//! What planning starts from, after moves that were left half-done have been finished.

use super::Options;
use super::plan::{Facts, Move, Placed};
use super::preflight::Pairs;
use super::run::PATIENCE;
use super::transfer::{Transfer, finish};
use crate::cluster::ClusterError;
use crate::error::{Failure, Kind};
use crate::guest::claim::{self, Claim, Phase};
use crate::guest::{Guest, Rack, Survey, read_host_states, read_promises, rooms};
use crate::libvirt::DomainState;
use crate::ui::Urgency;
use futures::future::join_all;
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
/// When the cluster cannot be asked, or nobody can tell where one of the guests is.
pub async fn gather(
    rack: &Rack,
    wanted: &Wanted,
    options: &Options,
    urgency: &watch::Receiver<Urgency>,
    change: bool,
) -> Result<Facts, Failure> {
    let guests = rack.guests().await?;
    if change {
        finish_moves(rack, &guests, wanted, options, urgency).await?;
    }
    let (states, promises) =
        tokio::try_join!(read_host_states(rack.port()), read_promises(rack.port(), rack.hypervisors.names()))
            .map_err(ClusterError::failure)?;
    let survey = Survey::take(&rack.hypervisors, true).await;
    let rooms = rooms(&rack.inventory, &survey, &states, &guests, &promises);
    Ok(Facts { rooms, guests: placed(&guests, &survey), link: link(rack) })
}

fn placed(guests: &[Guest], survey: &Survey) -> Vec<Placed> {
    let mut all = Vec::new();
    for guest in guests {
        let Some(places) = survey.seen.get(&guest.uuid) else { continue };
        let there = |state: fn(DomainState) -> bool| places.iter().find(|(_, d)| state(d.state));
        let running = there(|s| s == DomainState::Running);
        let Some((host, domain)) = running.or_else(|| there(DomainState::has_process)) else { continue };
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
    all
}

async fn finish_moves(
    rack: &Rack,
    guests: &[Guest],
    wanted: &Wanted,
    options: &Options,
    urgency: &watch::Receiver<Urgency>,
) -> Result<(), Failure> {
    let mut moves = Vec::new();
    let reads = guests.iter().map(|guest| async move { (guest, claim::read(rack.port(), guest.uuid).await) });
    for (guest, claim) in join_all(reads).await {
        let claim = claim.map_err(ClusterError::failure)?;
        if claim.phase != Phase::Moving || !wanted.covers(guest.uuid, &claim) {
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
        });
    }
    let _unhurried = (!moves.is_empty()).then(|| rack.ui.unhurried(PATIENCE));
    let pairs = Pairs::default();
    let finishes = moves.iter().map(|a_move| {
        let mut transfer = Transfer { rack, a_move, options, pairs: &pairs, urgency: urgency.clone() };
        async move { finish(&mut transfer).await }
    });
    let failed: Vec<Failure> = join_all(finishes).await.into_iter().filter_map(Result::err).collect();
    if failed.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = failed.iter().map(ToString::to_string).collect();
    Err(Failure::msg(Kind::Unknown, format!("a move that was begun before cannot be settled: {}", lines.join("; ")))
        .hint("bring the hosts named above back, or look at the guest there with `virsh list`; then run this again"))
}
