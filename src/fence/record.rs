//! Which hosts are fenced: one state object, an entry a host, believed only as far as the storage agrees.

use super::blocklist::Blocklist;
use super::proof::{PowerProof, StorageProof};
use crate::cluster::{ClusterError, ClusterPort, Document, KeysChange, decode, encode};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

/// The state object that has an entry for each fenced host.
pub const OBJECT: &str = "fences";
/// How often an entry is written again when another process writes as well.
const TRIES: usize = 16;

/// A host that was fenced, until it is readmitted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct FenceRecord {
    /// Its name in the inventory.
    pub host: String,
    /// Since when.
    pub since: jiff::Timestamp,
    /// Who did it, for people.
    pub by: String,
    /// Why, for people.
    pub why: String,
    /// What the storage refuses.
    pub proof: StorageProof,
    /// Proof that it is off, where there is one.
    #[serde(default)]
    pub power: Option<PowerProof>,
    /// Whether it is about to be let in again: nothing is started on the strength of this fence any more.
    #[serde(default)]
    pub lifting: bool,
}

impl Document for FenceRecord {
    const SCHEMA: &'static str = "rackhand.fence/1";
}

/// The hosts that were fenced and not let in again, with what the storage says of them just now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fences {
    /// Those the storage refuses, and nobody is letting in: what they have does not count.
    proven: BTreeMap<String, FenceRecord>,
    /// Those that are being let in, or that the storage does not refuse though it was written down: nothing is known of what
    /// they can do, so they are neither used nor believed dead.
    doubtful: BTreeMap<String, FenceRecord>,
}

impl Fences {
    /// Whether a host is proven to be shut out.
    pub fn has(&self, host: &str) -> bool {
        self.proven.contains_key(host)
    }

    /// Whether nothing may be brought to a host or taken from it: it is fenced, or is being let in.
    pub fn close(&self, host: &str) -> bool {
        self.has(host) || self.doubtful.contains_key(host)
    }

    /// What is known of a host that is proven to be shut out.
    pub fn get(&self, host: &str) -> Option<&FenceRecord> {
        self.proven.get(host)
    }

    /// Those that are proven to be shut out, by host.
    pub fn iter(&self) -> impl Iterator<Item = &FenceRecord> {
        self.proven.values()
    }

    /// Every host that is closed, with the reason.
    pub fn reasons(&self) -> impl Iterator<Item = (&str, String)> {
        let proven = self.iter().map(|record| (record.host.as_str(), format!("it is fenced: {}", record.why)));
        let doubtful = self.doubtful.values().map(|record| {
            let (host, why) = (record.host.as_str(), if record.lifting { LIFTING } else { NOT_REFUSED });
            (host, why.replace("HOST", host))
        });
        proven.chain(doubtful)
    }

    /// Whether a storage client (`ADDRESS:PORT/NONCE`) is of a fenced host, or shut out by itself.
    pub fn cover(&self, client: &str) -> bool {
        self.iter().any(|record| record.proof.covers(client) || record.proof.clients().contains(client))
    }
}

/// Why a host is closed whose fence was begun to be lifted.
const LIFTING: &str = "it is being let in again; `rackhand readmit HOST` finishes that";
/// Why a host is closed that was fenced, and that the storage does not refuse.
const NOT_REFUSED: &str =
    "it was fenced, and the storage does not refuse it now; `rackhand failover HOST` fences it anew";

/// What was written down of fenced hosts, by host. An entry that cannot be read is left out: its host then counts as one
/// that may still write.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn records(port: &dyn ClusterPort) -> Result<BTreeMap<String, FenceRecord>, ClusterError> {
    let keys = port.keys(OBJECT).await?;
    let read = |(host, text): (String, String)| match decode::<FenceRecord>(&format!("{OBJECT}/{host}"), &text) {
        Ok(record) if record.host == host => Some((host, record)),
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(%error, host, "the record of a fence");
            None
        }
    };
    Ok(keys.into_iter().filter_map(read).collect())
}

/// The hosts that are fenced now. To be asked *after* the claims of guests were read: a host is let in again only when no
/// claim names it, so a claim that was read before and is still the same cannot outlive the fence that is seen here.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn standing(port: &dyn ClusterPort) -> Result<Fences, ClusterError> {
    let records = records(port).await?;
    if records.is_empty() {
        return Ok(Fences::default());
    }
    let blocklist = Blocklist::read(port).await?;
    let is_proven = |record: &FenceRecord| !record.lifting && blocklist.refuses(&record.proof);
    let (proven, doubtful) = records.into_iter().partition(|(_, record)| is_proven(record));
    Ok(Fences { proven, doubtful })
}

/// Whether a host was fenced, or a fence of it was begun: it is written down, or the storage refuses one of its addresses.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn was_begun(port: &dyn ClusterPort, host: &str, addresses: &BTreeSet<IpAddr>) -> Result<bool, ClusterError> {
    let of_host = BTreeMap::from([(host.to_owned(), addresses.clone())]);
    let (records, refused) = tokio::try_join!(records(port), refused_hosts(port, &of_host))?;
    Ok(records.contains_key(host) || !refused.is_empty())
}

/// Which of these hosts have an address that the storage refuses, whatever is on record.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn refused_hosts(
    port: &dyn ClusterPort,
    hosts: &BTreeMap<String, BTreeSet<IpAddr>>,
) -> Result<Vec<String>, ClusterError> {
    let map = Blocklist::read(port).await?;
    let refused = hosts.iter().filter(|(_, addresses)| addresses.iter().any(|address| map.has_address(*address)));
    Ok(refused.map(|(host, _)| host.clone()).collect())
}

/// Writes down that a host is fenced; what an earlier fence of it shut out stays named.
///
/// # Errors
/// When the cluster cannot be asked, or others write all the time.
pub async fn write(port: &dyn ClusterPort, record: &FenceRecord) -> Result<(), ClusterError> {
    change(port, &record.host, |found| {
        let mut record = record.clone();
        if let Some(found) = found {
            record.proof.clients.extend(found.proof.clients.iter().cloned());
            record.proof.addresses.extend(found.proof.addresses.iter().copied());
            record.power = record.power.or_else(|| found.power.clone());
        }
        Some(record)
    })
    .await
}

/// Adds the proof that a host is off to its fence, if that is still this one and is not about to be lifted; tells whether it is.
///
/// # Errors
/// As [`write()`].
pub async fn add_power(port: &dyn ClusterPort, fence: &FenceRecord, power: &PowerProof) -> Result<bool, ClusterError> {
    let kept = AtomicBool::new(false);
    let next = |found: Option<&FenceRecord>| {
        let same = found.is_some_and(|found| found.since == fence.since && !found.lifting);
        kept.store(same, Ordering::Relaxed);
        let found = found?.clone();
        Some(if same { FenceRecord { power: Some(power.clone()), ..found } } else { found })
    };
    change(port, &fence.host, next).await?;
    Ok(kept.into_inner())
}

/// Adds clients that were shut out by themselves.
///
/// # Errors
/// As [`write()`].
pub(super) async fn add_clients(
    port: &dyn ClusterPort,
    host: &str,
    clients: &BTreeSet<String>,
) -> Result<(), ClusterError> {
    change(port, host, |found| {
        let mut record = found?.clone();
        record.proof.clients.extend(clients.iter().cloned());
        Some(record)
    })
    .await
}

/// Says that a host's fence is about to be lifted, and tells the fence; nothing when there is none. One that was begun and
/// never written down (whoever did it was killed) is written down now: it proves nothing.
///
/// # Errors
/// As [`write()`].
pub async fn begin_to_lift(
    port: &dyn ClusterPort,
    host: &str,
    addresses: &BTreeSet<IpAddr>,
    by: &str,
) -> Result<Option<FenceRecord>, ClusterError> {
    let map = Blocklist::read(port).await?;
    let refused: BTreeSet<IpAddr> = addresses.iter().copied().filter(|address| map.has_address(*address)).collect();
    change(port, host, |found| match found {
        Some(found) => Some(FenceRecord { lifting: true, ..found.clone() }),
        None if refused.is_empty() => None,
        None => Some(FenceRecord {
            host: host.to_owned(),
            since: jiff::Timestamp::now(),
            by: by.to_owned(),
            why: "a fence was begun and not finished".to_owned(),
            proof: StorageProof {
                host: host.to_owned(),
                addresses: refused.clone(),
                clients: BTreeSet::new(),
                epoch: map.epoch,
            },
            power: None,
            lifting: true,
        }),
    })
    .await?;
    Ok(records(port).await?.remove(host))
}

/// Forgets a fence that was lifted, if it is still this one.
///
/// # Errors
/// As [`write()`].
pub(super) async fn forget(port: &dyn ClusterPort, lifted: &FenceRecord) -> Result<(), ClusterError> {
    change(port, &lifted.host, |found| found.filter(|found| *found != lifted).cloned()).await
}

async fn change(
    port: &dyn ClusterPort,
    host: &str,
    next: impl Fn(Option<&FenceRecord>) -> Option<FenceRecord>,
) -> Result<(), ClusterError> {
    for _ in 0..TRIES {
        let there = port.keys(OBJECT).await?.remove(host);
        // What cannot be read is written over: a fence that is lost from the record shuts out all the same.
        let found = there.as_ref().and_then(|text| decode::<FenceRecord>(OBJECT, text).ok());
        let change = match (there, next(found.as_ref())) {
            (None, None) => return Ok(()),
            (None, Some(record)) => KeysChange::default().add(host, encode(&record)?),
            (Some(old), Some(record)) => KeysChange::default().swap(host, old, encode(&record)?),
            (Some(old), None) => KeysChange::default().take(host, old),
        };
        match port.change_keys(OBJECT, &change).await {
            Err(ClusterError::Conflict(_)) => {}
            other => return other,
        }
    }
    Err(ClusterError::Conflict(OBJECT.to_owned()))
}
