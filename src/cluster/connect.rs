//! Finding a mon host that answers, and asking through it.

use super::ClusterError;
use super::channel::Link;
use super::request::Request;
use super::staggered::first_of;
use crate::inventory::{Inventory, Role};
use crate::ssh::{Fleet, Remote};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::timeout;
use uuid::Uuid;

/// How long one mon host may take from the first packet to its cluster's answer.
const OPEN: Duration = Duration::from_secs(10);
/// How long the next mon host waits for the one before it.
const STAGGER: Duration = Duration::from_millis(600);

/// A mon host, and the standing channel to it while there is one.
#[derive(Debug)]
struct Mon {
    remote: Arc<dyn Remote>,
    link: Mutex<Option<Arc<Link>>>,
}

/// The Ceph cluster of an inventory, asked through its mon hosts: through whichever answers, or through a certain one.
#[derive(Debug)]
pub struct Cluster {
    mons: BTreeMap<String, Mon>,
    fsid: Uuid,
    pool: String,
    /// The channel that is used where any will do.
    via: Mutex<Option<Arc<Link>>>,
    /// Mon hosts in the order of the inventory.
    names: Vec<String>,
    /// Mon hosts whose last answer was doubtful, the latest at the end. They are tried when no other one answers, which
    /// may still see a quorum, or not be fenced.
    doubted: StdMutex<Vec<String>>,
}

impl Cluster {
    /// Connects through the first mon host that answers and sees a quorum.
    ///
    /// # Errors
    /// Within about 12 s: no mon host can be reached, Ceph is not set up, there is no quorum, or it is another cluster
    /// than the inventory's.
    pub async fn connect(fleet: &Fleet, inventory: &Inventory) -> Result<Cluster, ClusterError> {
        let cluster = Cluster::over(fleet, inventory);
        cluster.link().await?;
        Ok(cluster)
    }

    /// The cluster without a connection; each mon host is connected to when it is first asked.
    pub fn over(fleet: &Fleet, inventory: &Inventory) -> Cluster {
        let hosts = inventory.with_role(Role::Mon).filter_map(|host| fleet.get(&host.name).ok());
        Self::of(hosts, inventory.cluster.fsid, inventory.ceph.pool.clone())
    }

    pub(super) fn of(hosts: impl Iterator<Item = Arc<dyn Remote>>, fsid: Uuid, pool: String) -> Cluster {
        let hosts: Vec<Arc<dyn Remote>> = hosts.collect();
        Cluster {
            names: hosts.iter().map(|host| host.name().to_owned()).collect(),
            doubted: StdMutex::default(),
            mons: hosts
                .into_iter()
                .map(|remote| (remote.name().to_owned(), Mon { remote, link: Mutex::default() }))
                .collect(),
            fsid,
            pool,
            via: Mutex::default(),
        }
    }

    /// The mon host that is asked at the moment, if there is one.
    pub async fn via(&self) -> Option<String> {
        self.via.lock().await.as_ref().map(|link| link.host().to_owned())
    }

    /// The pool of the guests' disks.
    pub(super) fn pool(&self) -> &str {
        &self.pool
    }

    /// The channel to this mon host, whether it sees a quorum or not.
    async fn link_to(&self, host: &str) -> Result<Arc<Link>, ClusterError> {
        let Some(mon) = self.mons.get(host) else {
            return Err(ClusterError::Unreachable(format!("the inventory has no mon host {host}")));
        };
        let mut slot = mon.link.lock().await;
        match slot.as_ref() {
            Some(link) if link.alive() => Ok(Arc::clone(link)),
            _ => {
                let link = Arc::new(Link::open(Arc::clone(&mon.remote), self.fsid).await?);
                *slot = Some(Arc::clone(&link));
                Ok(link)
            }
        }
    }

    /// The channel to this mon host, once it has found its cluster there. One that has before, and that nobody `doubts`, is
    /// not asked again: the answer would wait for an OSD that may just have died.
    async fn ready(&self, host: String, doubts: bool) -> Result<Arc<Link>, ClusterError> {
        let late = ClusterError::Unreachable(format!("host {host} did not answer within {} s", OPEN.as_secs()));
        let opened = async {
            let link = self.link_to(&host).await?;
            if doubts || !link.was_ready() {
                let ready = Request::mon("ready", json!({"pool": super::STATE_POOL}), OPEN);
                link.ask(&ready).await?;
                link.is_ready();
            }
            Ok(link)
        };
        match timeout(OPEN, opened).await.unwrap_or(Err(late)) {
            Err(ClusterError::OtherCluster { host, found, .. }) => {
                Err(ClusterError::OtherCluster { host, found, wanted: self.fsid.to_string() })
            }
            other => other,
        }
    }

    /// The channel that is used where any will do.
    async fn link(&self) -> Result<Arc<Link>, ClusterError> {
        let mut via = self.via.lock().await;
        let doubted = self.doubted().clone();
        if let Some(link) = via.as_ref().filter(|link| link.alive() && !doubted.iter().any(|host| host == link.host()))
        {
            return Ok(Arc::clone(link));
        }
        let trusted: Vec<String> = self.names.iter().filter(|host| !doubted.contains(host)).cloned().collect();
        let link = match first_of(trusted, STAGGER, |host| self.ready(host, false)).await {
            Ok(link) => link,
            Err(mut errors) => {
                let link = first_of(doubted, STAGGER, |host| self.ready(host, true)).await;
                link.map_err(|more| {
                    errors.extend(more);
                    worst(errors)
                })?
            }
        };
        self.doubted().retain(|host| host != link.host());
        Ok(Arc::clone(via.insert(link)))
    }

    fn doubted(&self) -> MutexGuard<'_, Vec<String>> {
        self.doubted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries this mon host last from now on.
    fn doubt(&self, host: &str) {
        let mut doubted = self.doubted();
        doubted.retain(|other| other != host);
        doubted.push(host.to_owned());
    }

    /// Opens the channel to every mon host, and has each monitor asked over a connection of its own, so that none of it has to
    /// be done once a host is dead.
    pub(super) async fn open_all(&self) {
        let opened = self.names.iter().map(|host| async move {
            self.ready(host.clone(), false).await?;
            let asked =
                json!({"target": format!("mon.{host}"), "command": {"prefix": "mon stat"}, "timeout": OPEN.as_secs()});
            self.ask_at::<Value>(host, &Request::mon("command", asked, OPEN)).await
        });
        for (host, opened) in self.names.iter().zip(futures::future::join_all(opened).await) {
            if let Err(error) = opened {
                tracing::info!(%error, host, "connecting to a mon host beforehand");
            }
        }
    }

    /// Gives up the channel to this mon host, and tries it last from now on.
    pub(super) async fn leave(&self, host: &str) {
        self.doubt(host);
        // A channel that is being opened has nobody waiting for an answer yet.
        let Some(mut slot) = self.mons.get(host).and_then(|mon| mon.link.try_lock().ok()) else { return };
        if let Some(link) = slot.take() {
            link.cut();
        }
    }

    /// Asks through any mon host. What has changed nothing for certain is asked once more, through another one.
    pub(super) async fn ask<T: DeserializeOwned>(&self, request: &Request) -> Result<T, ClusterError> {
        let link = self.link().await?;
        let answer = match link.ask(request).await {
            Err(error) if error.doubts_the_link() => {
                self.doubt(link.host());
                if error.unknown() || (self.mons.len() == 1 && link.alive()) {
                    return Err(error);
                }
                let link = self.link().await?;
                let answer = link.ask(request).await;
                if answer.as_ref().is_err_and(ClusterError::doubts_the_link) {
                    self.doubt(link.host());
                }
                answer
            }
            answer => answer,
        };
        read(request, answer?)
    }

    /// Asks through this mon host alone.
    pub(super) async fn ask_at<T: DeserializeOwned>(&self, host: &str, request: &Request) -> Result<T, ClusterError> {
        let late = || ClusterError::Unreachable(format!("host {host} did not answer within {} s", OPEN.as_secs()));
        let link = timeout(OPEN, self.link_to(host)).await.map_err(|_| late())??;
        read(request, link.ask(request).await?)
    }
}

fn read<T: DeserializeOwned>(request: &Request, answer: Value) -> Result<T, ClusterError> {
    serde_json::from_value(answer).map_err(|e| ClusterError::Malformed(format!("answer to {}: {e}", request.words())))
}

/// The error that tells most: a mon host that sees no quorum knows more than one that cannot be reached.
fn worst(errors: Vec<ClusterError>) -> ClusterError {
    let rank = |e: &ClusterError| match e {
        ClusterError::OtherCluster { .. } => 0,
        ClusterError::NoQuorum(_) => 1,
        ClusterError::Blocklisted(_) => 2,
        ClusterError::Unreachable(_) => 3,
        _ => 4,
    };
    let all: Vec<String> = errors
        .iter()
        .map(|e| match e {
            ClusterError::NoQuorum(text) | ClusterError::Unreachable(text) => text.clone(),
            other => other.to_string(),
        })
        .collect();
    match errors.into_iter().min_by_key(rank) {
        Some(ClusterError::NoQuorum(_)) => ClusterError::NoQuorum(all.join("; ")),
        Some(ClusterError::Unreachable(_)) => ClusterError::Unreachable(all.join("; ")),
        Some(other) => other,
        None => ClusterError::Unreachable("the inventory has no mon host".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_quorum_is_told_before_an_unreachable_host() {
        let error = worst(vec![
            ClusterError::Unreachable("host h1: no route".into()),
            ClusterError::NoQuorum("mon h2 on h2 is probing".into()),
        ]);
        assert_eq!(error.to_string(), "Ceph has no quorum: host h1: no route; mon h2 on h2 is probing");
        let other = ClusterError::OtherCluster { host: "h3".into(), found: "1".into(), wanted: "2".into() };
        let error = worst(vec![ClusterError::Unreachable("host h1: no route".into()), other]);
        assert_eq!(error.to_string(), "host h3 belongs to the Ceph cluster 1, the inventory says 2");
        assert_eq!(error.kind(), crate::error::Kind::Refused);
    }
}
