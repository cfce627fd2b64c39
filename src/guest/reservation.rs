//! What each host is promised to: the guests on their way to it, one state object a host.
//!
//! An entry counts while the guest's claim says that it is on its way there. Nothing has to take it back: it is worth
//! nothing once the claim says otherwise, and the next change leaves it out.

use super::claim::{self, Claim, Phase};
use crate::cluster::{ClusterError, ClusterPort, Document, Version, fetch};
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

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

/// The reservations of one host, as they are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct ReservationsOfHost {
    pub(super) guests: Reservations,
}

impl Document for ReservationsOfHost {
    const SCHEMA: &'static str = "rackhand.reservations/1";
}

/// The state object of a host's reservations.
pub(super) fn object(host: &str) -> String {
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
pub(super) async fn read(port: &dyn ClusterPort, host: &str) -> Result<(Reservations, Option<Version>), ClusterError> {
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
