//! Switching a host off by its BMC, and the proof that it is off.
//!
//! The BMC counts only when it has the host's service tag. The power is read before anything is ordered, what the BMC says
//! to an order is never believed, and a machine is off when two reads in a row say so: a BMC that does not answer, a state
//! that is none of the two and a single Off are all the same as on.

use super::bmc::{press, query};
use super::proof::PowerProof;
use super::state::{Access, BmcError, FENCE, Power, Pressed, identify};
use crate::inventory::secret::{self, Secret};
use crate::inventory::{BmcSpec, HostSpec, Inventory};
use crate::ssh::{Fleet, LocalHost, Remote};
use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// Peers a BMC is asked from beside this machine.
const PEERS: usize = 2;
/// Between two reads: a BMC that is asked without a pause takes longer for each answer.
const PAUSE: Duration = Duration::from_millis(400);
/// After which a machine that is still on is ordered off once more: some are on for seconds after the order.
const AGAIN: Duration = Duration::from_secs(6);

/// Why there is no proof that a host is off. It says nothing of the host: it may run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPower {
    /// The inventory has no BMC for it.
    #[error("host {0} has no BMC in the inventory")]
    NoBmc(String),
    /// Its service tag is not known, so no BMC can be proven to be its own.
    #[error("host {0}: its service tag is not known, so whether the BMC is its own cannot be checked")]
    NoTag(String),
    /// The password cannot be read.
    #[error("host {host}: {why}")]
    Password {
        /// The host.
        host: String,
        /// Why not.
        why: String,
    },
    /// No place proved it.
    #[error("host {host} is not proven to be off: {}", .why.join("; "))]
    Unproven {
        /// The host.
        host: String,
        /// What each place it was asked from has seen last.
        why: Vec<String>,
    },
}

/// This machine and peers of a host: the places that its BMC is asked from.
pub(super) fn places(host: &HostSpec, fleet: &Fleet) -> Vec<Arc<dyn Remote>> {
    let peers = fleet.all().filter(|peer| peer.name() != host.name).take(PEERS).map(Arc::clone);
    std::iter::once(Arc::new(LocalHost) as Arc<dyn Remote>).chain(peers).collect()
}

/// Switches a host off by its BMC, from this machine and from peers at once, and proves that it is off. `serial` is the
/// service tag that the host itself told while it ran.
///
/// # Errors
/// When no place has proven it within `limit`: the host may be on or off.
pub async fn power_off(
    host: &HostSpec,
    serial: &str,
    inventory: &Inventory,
    fleet: &Fleet,
    limit: Duration,
) -> Result<PowerProof, NoPower> {
    let Some(bmc) = &host.bmc else { return Err(NoPower::NoBmc(host.name.clone())) };
    if !super::state::is_service_tag(serial) {
        return Err(NoPower::NoTag(host.name.clone()));
    }
    let password = secret::resolve(&bmc.password, &inventory.base).await;
    let password = password.map_err(|why| NoPower::Password { host: host.name.clone(), why: why.to_string() })?;
    prove(&host.name, bmc, &password, serial, &places(host, fleet), limit).await
}

/// The first proof that any of these places has.
async fn prove(
    host: &str,
    bmc: &BmcSpec,
    password: &Secret,
    serial: &str,
    places: &[Arc<dyn Remote>],
    limit: Duration,
) -> Result<PowerProof, NoPower> {
    let until = Instant::now() + limit;
    let mut attempts: FuturesUnordered<_> = places
        .iter()
        .map(|place| async move {
            let access = Access { place: place.as_ref(), bmc, password, patience: FENCE };
            (place.name(), off(&access, serial, until).await)
        })
        .collect();
    let mut why = Vec::new();
    while let Some((place, outcome)) = attempts.next().await {
        match outcome {
            Ok(()) => {
                let by = format!("{} at {}, asked from {place}", bmc.kind.word(), bmc.address);
                return Ok(PowerProof { host: host.to_owned(), serial: serial.to_owned(), by });
            }
            Err(reason) => why.push(reason),
        }
    }
    why.sort_unstable();
    why.dedup();
    Err(NoPower::Unproven { host: host.to_owned(), why })
}

/// What one place has seen so far.
#[derive(Debug)]
struct Watched {
    /// Reads in a row that said Off.
    offs: u8,
    /// When the machine was last ordered off, and what was said to it.
    pressed: Option<(Instant, Pressed)>,
    /// Why it is not proven yet.
    why: String,
}

impl Watched {
    /// Takes a read in; tells whether the machine is to be ordered off.
    fn read(&mut self, power: &Power, now: Instant, place: &str) -> bool {
        self.offs = if *power == Power::Off { self.offs + 1 } else { 0 };
        let refused = match &self.pressed {
            Some((_, Pressed::Refused(words))) => format!("; it answered to the order: {words}"),
            _ => String::new(),
        };
        let state = match power {
            Power::On => "on",
            Power::Off => "off, but only once",
            Power::Other(words) => words,
        };
        self.why = format!("the BMC says that it is {state}, asked from {place}{refused}");
        *power == Power::On && self.pressed.as_ref().is_none_or(|(at, _)| now.duration_since(*at) >= AGAIN)
    }
}

/// Orders a machine off from one place until it is off.
async fn off(access: &Access<'_>, serial: &str, until: Instant) -> Result<(), String> {
    let mut watched = Watched { offs: 0, pressed: None, why: "no answer in time".to_owned() };
    let place = access.place.name();
    loop {
        let work = async {
            let state = query(access).await?;
            identify(access.bmc, &state, serial)?;
            if watched.read(&state.power, Instant::now(), place) {
                let answer = press(access, serial).await?;
                watched.pressed = Some((Instant::now(), answer));
            }
            Ok::<(), BmcError>(())
        };
        match timeout_at(until, work).await {
            Err(_) => return Err(watched.why),
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                watched.offs = 0;
                watched.why = error.to_string();
                if error.is_final() || matches!(error, BmcError::NoTool { .. }) {
                    return Err(watched.why);
                }
            }
        }
        if watched.offs >= 2 {
            return Ok(());
        }
        if Instant::now() + PAUSE >= until {
            return Err(watched.why);
        }
        sleep(PAUSE).await;
    }
}

/// What a BMC says from each place: read-only, from all of them at once.
pub(super) async fn look_from_all(
    bmc: &BmcSpec,
    password: &Secret,
    serial: &str,
    places: &[Arc<dyn Remote>],
) -> Vec<(String, Result<Power, BmcError>)> {
    join_all(places.iter().map(|place| async move {
        let access = Access { place: place.as_ref(), bmc, password, patience: FENCE };
        let seen = match query(&access).await {
            Ok(state) => identify(bmc, &state, serial).map(|()| state.power),
            Err(error) => Err(error),
        };
        (place.name().to_owned(), seen)
    }))
    .await
}

#[cfg(test)]
mod tests;
