//! What the watchers keep in the cluster: what is open, whether they may act, and who leads.

use crate::cluster::{ClusterError, ClusterPort, Document, fetch, update};
use crate::watch::brain::{Entry, Phase};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use uuid::Uuid;

/// The object of what is open.
const OPEN: &str = "watch.open";
/// The object that holds the watch back.
const DISARM: &str = "watch.disarm";
/// The object in which the leading watcher says how it is.
const STATUS: &str = "watch.status";

/// The incidents that are open, by host: written before what they stand for is done, so that the next watcher goes on
/// where this one ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenIncidents {
    /// The latest entry of each host.
    pub hosts: BTreeMap<String, Entry>,
}

impl Document for OpenIncidents {
    const SCHEMA: &'static str = "rackhand.watch-open/1";
}

impl OpenIncidents {
    /// What is open.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn read(port: &dyn ClusterPort) -> Result<Self, ClusterError> {
        Ok(fetch::<Self>(port, OPEN).await?.map(|(open, _)| open).unwrap_or_default())
    }

    /// Writes an entry down; one whose incident is over goes.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn record(port: &dyn ClusterPort, entry: &Entry) -> Result<(), ClusterError> {
        update::<Self, (), ClusterError>(port, OPEN, |found| {
            let mut open = found.unwrap_or_default();
            if entry.phase <= Phase::Suspected {
                open.hosts.remove(&entry.host);
            } else {
                open.hosts.insert(entry.host.clone(), entry.clone());
            }
            Ok((Some(open), ()))
        })
        .await
    }
}

/// The watch looks and tells, and does not act, for a time.
///
/// No clock of one machine is compared with that of another. Whoever leads counts how long the document has been there while
/// watchers looked, and writes that down every now and then; so the time in which no watcher runs does not count, and a clock
/// that is wrong neither arms nor disarms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disarmed {
    /// Tells this time from any other.
    pub id: Uuid,
    /// For how long, in milliseconds.
    pub for_ms: u64,
    /// How much of it has passed, in milliseconds.
    pub passed_ms: u64,
    /// Why.
    pub reason: String,
    /// Who said so.
    pub by: String,
    /// When, by the clock of whoever said so; for people.
    pub since: Timestamp,
}

impl Document for Disarmed {
    const SCHEMA: &'static str = "rackhand.watch-disarmed/1";
}

impl Disarmed {
    /// For so long, from now on.
    pub fn new(length: Duration, reason: String, by: String) -> Self {
        let for_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        Disarmed { id: Uuid::new_v4(), for_ms, passed_ms: 0, reason, by, since: Timestamp::now() }
    }

    /// What is left of it, in the words of the document.
    pub fn left(&self) -> Duration {
        Duration::from_millis(self.for_ms.saturating_sub(self.passed_ms))
    }

    /// What holds the watch back, if anything does.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn read(port: &dyn ClusterPort) -> Result<Option<Self>, ClusterError> {
        Ok(fetch::<Self>(port, DISARM).await?.map(|(disarmed, _)| disarmed))
    }

    /// Holds the watch back from now on, whatever did before.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn write(&self, port: &dyn ClusterPort) -> Result<(), ClusterError> {
        update::<Self, (), ClusterError>(port, DISARM, |_| Ok((Some(self.clone()), ()))).await
    }

    /// Writes down how much has passed; nothing where another one was written meanwhile.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn passed(port: &dyn ClusterPort, id: Uuid, passed: Duration) -> Result<(), ClusterError> {
        let passed_ms = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        update::<Self, (), ClusterError>(port, DISARM, |found| {
            Ok((
                found.map(|d| if d.id == id { Disarmed { passed_ms: passed_ms.max(d.passed_ms), ..d } } else { d }),
                (),
            ))
        })
        .await
    }

    /// Lets the watch act again; only over this one where `id` names one. Tells whether it was held back.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn arm(port: &dyn ClusterPort, id: Option<Uuid>) -> Result<bool, ClusterError> {
        update::<Self, bool, ClusterError>(port, DISARM, |found| {
            let kept = found.clone().filter(|disarmed| id.is_some_and(|id| disarmed.id != id));
            Ok((kept.clone(), found.is_some() && kept.is_none()))
        })
        .await
    }
}

/// What the leading watcher says of itself and the rack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchStatus {
    /// The watcher, as the lease names it.
    pub holder: String,
    /// Since when it leads, by its own clock.
    pub since: Timestamp,
    /// How long a host may be silent, in milliseconds.
    pub patience_ms: u64,
    /// Hosts whose hearts beat.
    pub healthy: usize,
    /// Hosts in all.
    pub hosts: usize,
    /// Incidents that are open, by host.
    pub incidents: BTreeMap<String, Phase>,
    /// Hosts in maintenance, which it does not fence.
    #[serde(default)]
    pub maintenance: BTreeSet<String>,
    /// When it said so, by its own clock.
    #[serde(default)]
    pub at: Option<Timestamp>,
}

impl Document for WatchStatus {
    const SCHEMA: &'static str = "rackhand.watch-status/1";
}

impl WatchStatus {
    /// What the last leader said last.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn read(port: &dyn ClusterPort) -> Result<Option<Self>, ClusterError> {
        Ok(fetch::<Self>(port, STATUS).await?.map(|(status, _)| status))
    }

    /// Says it.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn write(&self, port: &dyn ClusterPort) -> Result<(), ClusterError> {
        update::<Self, (), ClusterError>(port, STATUS, |_| Ok((Some(self.clone()), ()))).await
    }
}
