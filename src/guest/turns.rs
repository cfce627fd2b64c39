//! Guests of one run that go to the same host: who enters them, and what was read of those that are there.

use super::placement::Need;
use super::spec::Guest;
use super::together::Together;
use crate::cluster::{ClusterError, ClusterPort, fetch};
use crate::error::Failure;
use futures::future::try_join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex as AsyncMutex, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

/// How long the tags of guests are taken for what they were when they were read.
const FRESH: Duration = Duration::from_secs(10);

/// A guest that is to be entered among a host's reservations, and where the answer goes.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) guest: Uuid,
    pub(super) need: Need,
    pub(super) answer: oneshot::Sender<Result<Result<(), String>, Failure>>,
}

/// The guests of one run that go to one host.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Those that wait.
    wishes: Mutex<Vec<Wish>>,
    /// Held by the one that enters all that wait, with the tags of the guests that it has seen there.
    pub(super) enters: AsyncMutex<Tags>,
}

impl Turn {
    /// Those that wait.
    pub(super) fn wishes(&self) -> MutexGuard<'_, Vec<Wish>> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The turns at each host: guests of one run that go to the same host are entered together, by whichever of them is first.
#[derive(Debug, Default)]
pub struct Turns {
    hosts: Mutex<BTreeMap<String, Arc<Turn>>>,
    /// Clients that are shut out by themselves, by the fenced host they are of.
    pub(super) refusals: Together<BTreeSet<String>, Result<(), Failure>>,
}

impl Turns {
    /// The turn at a host.
    pub(super) fn at(&self, host: &str) -> Arc<Turn> {
        Arc::clone(self.hosts.lock().unwrap_or_else(PoisonError::into_inner).entry(host.to_owned()).or_default())
    }
}

/// Tags of guests on a host, kept for a moment: those of a batch are read once, and only theirs.
#[derive(Debug, Default)]
pub(super) struct Tags {
    guests: BTreeMap<Uuid, BTreeMap<String, String>>,
    read: Option<Instant>,
}

impl Tags {
    /// Reads those that are not known; those of a domain that is no guest are empty.
    pub(super) async fn read(
        &mut self,
        port: &dyn ClusterPort,
        guests: impl Iterator<Item = Uuid>,
    ) -> Result<(), ClusterError> {
        if self.read.is_none_or(|read| read.elapsed() > FRESH) {
            *self = Tags { guests: BTreeMap::new(), read: Some(Instant::now()) };
        }
        let missing = guests.filter(|uuid| !self.guests.contains_key(uuid)).map(|uuid| async move {
            let found = fetch::<Guest>(port, &Guest::object(uuid)).await?;
            Ok::<_, ClusterError>((uuid, found.map(|(guest, _)| guest.tags).unwrap_or_default()))
        });
        self.guests.extend(try_join_all(missing.collect::<Vec<_>>()).await?);
        Ok(())
    }

    /// What is known of a guest.
    pub(super) fn of(&self, guest: Uuid) -> BTreeMap<String, String> {
        self.guests.get(&guest).cloned().unwrap_or_default()
    }
}
