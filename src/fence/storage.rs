//! Shutting a host out at the storage: what survives of the cluster refuses it, whether the host is dead or not.
//!
//! The order of steps is what makes it a proof (rules R6 and R7 of docs/protocol.md): the addresses are refused in a map
//! of the monitors; the host's own OSDs are marked down in the same one, so that nothing waits for them; every OSD that is
//! up has seen that map, so that none still takes a write of the host. An OSD that does not say so in time is marked down
//! as well, for it may be one that the host can still reach.

use super::blocklist::{Blocklist, MON, Osd};
use super::proof::{PowerProof, StorageProof};
use crate::cluster::{ClusterError, ClusterPort, ImageUser, Target};
use futures::future::{join_all, try_join_all};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long an entry lasts: ten years, for Ceph has no "for ever". It ends when the host is readmitted.
const EXPIRY: f64 = 315_360_000.0;
/// How long the next monitor waits for the one before it to answer.
const STAGGER: Duration = Duration::from_millis(700);
/// How long an OSD may take to tell which map it has seen.
const OSD: Duration = Duration::from_secs(2);
/// Time before the OSDs are asked again where that failed.
const LOOK: Duration = Duration::from_millis(100);
/// How long all OSDs together may take, silent ones marked down meanwhile.
const BARRIER: Duration = Duration::from_secs(20);
/// How long a monitor may lag behind the one that took a command.
const LAG: Duration = Duration::from_secs(2);
/// How long a monitor's admin socket may take.
const ASOK: Duration = Duration::from_secs(2);

/// Why a host could not be shut out.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// The cluster could not be asked, or refused.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// There is nothing to ask: no monitor is left outside the host.
    #[error("no monitor outside {0} is in the inventory")]
    NoMonitor(String),
    /// The monitors took it, and their map does not show it.
    #[error("the monitors' map does not refuse {0}")]
    NotRefused(String),
    /// OSDs that are up have not shown that they refuse the host.
    #[error("these OSDs have not seen the map that refuses it: {}", .0.iter().map(|id| format!("osd.{id}")).collect::<Vec<_>>().join(", "))]
    Behind(Vec<u32>),
}

/// A stage of a fence, for whoever follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The monitors' map refuses the host.
    Committed,
    /// The host's OSDs are down in it.
    OsdsDown,
    /// Every OSD that is up has seen it.
    Everywhere,
}

/// A host that is to be shut out.
#[derive(Clone, Debug)]
pub struct Fencing<'a> {
    /// The cluster.
    pub port: &'a dyn ClusterPort,
    /// The host.
    pub host: String,
    /// Its addresses, of every network that storage clients could use.
    pub addresses: BTreeSet<IpAddr>,
    /// The hosts of the other monitors.
    pub mons: Vec<String>,
}

impl Fencing<'_> {
    /// Has the monitors elect anew, all at once: until they do, one that is dead keeps every change waiting. Harmless
    /// where it was wrong; tells how many did.
    pub async fn nudge(&self) -> usize {
        let command = || json!({"prefix": "quorum enter"});
        let asked = self.mons.iter().map(|mon| async move {
            let answer = self.port.asok(mon, &format!("mon.{mon}"), command(), ASOK).await;
            answer.inspect_err(|error| tracing::info!(%error, mon, "asked for an election")).is_ok()
        });
        join_all(asked).await.into_iter().filter(|done| *done).count()
    }

    /// The OSDs of the host, by the addresses they listen at.
    async fn osds(&self) -> Result<Vec<u32>, FenceError> {
        let map = self.first(|mon| Blocklist::read_at(self.port, mon)).await?;
        Ok(self.own(&map).map(|osd| osd.id).collect())
    }

    fn own<'m>(&'m self, map: &'m Blocklist) -> impl Iterator<Item = &'m Osd> {
        map.osds.iter().filter(|osd| osd.address.is_some_and(|address| self.addresses.contains(&address)))
    }

    /// Says of the OSDs of a host that is off that they are dead for certain: nobody waits any longer for what they might
    /// still answer.
    ///
    /// # Errors
    /// When the cluster cannot be asked. Nothing depends on it.
    pub async fn definitely_dead(&self, proof: &PowerProof) -> Result<(), FenceError> {
        if proof.host() != self.host || !proof.is_by_bmc() {
            return Ok(());
        }
        let ids: Vec<String> = self.osds().await?.iter().map(u32::to_string).collect();
        if ids.is_empty() {
            return Ok(());
        }
        self.command(json!({"prefix": "osd down", "ids": ids, "definitely_dead": true})).await.map(drop)
    }

    /// Shuts the host out, and returns only once nothing it writes can be taken any more. `osds`: its OSDs where they are
    /// known; they are asked for otherwise. `reached` is told of each stage. Safe to repeat.
    ///
    /// # Errors
    /// When it cannot be proven; the host may be shut out all the same.
    pub async fn run(
        &self,
        osds: Option<Vec<u32>>,
        reached: impl Fn(Stage) + Send + Sync,
    ) -> Result<StorageProof, FenceError> {
        if self.mons.is_empty() {
            return Err(FenceError::NoMonitor(self.host.clone()));
        }
        // As close together as can be, for the monitors to take all in one proposal.
        let refuse = try_join_all(self.addresses.iter().map(|address| self.refuse(*address)));
        let down = async {
            match osds {
                Some(osds) => self.down(&osds).await,
                None => self.down(&self.osds().await?).await,
            }
        };
        tokio::try_join!(refuse, down)?;
        reached(Stage::Committed);
        let mut proof = StorageProof {
            host: self.host.clone(),
            addresses: self.addresses.clone(),
            clients: BTreeSet::new(),
            epoch: 0,
        };
        let map = self.refusing_map(&proof).await?;
        // One that was not known, or came back: the host may live.
        let still: Vec<u32> = self.own(&map).filter(|osd| osd.up).map(|osd| osd.id).collect();
        let map = if still.is_empty() {
            map
        } else {
            self.down(&still).await?;
            // What counts is the map without them.
            self.first(|mon| Blocklist::read_at(self.port, mon)).await?
        };
        reached(Stage::OsdsDown);
        // What knows of the dead OSDs only from an older map would wait for them.
        let newest = async { self.port.latest_map().await.map_err(FenceError::from) };
        tokio::try_join!(self.barrier(&map), newest)?;
        proof.epoch = map.epoch;
        reached(Stage::Everywhere);
        Ok(proof)
    }

    /// The map that shows the fence. Another monitor than the one that took it may lag behind for a moment.
    async fn refusing_map(&self, proof: &StorageProof) -> Result<Blocklist, FenceError> {
        let began = Instant::now();
        loop {
            let map = self.first(|mon| Blocklist::read_at(self.port, mon)).await?;
            if map.refuses(proof) {
                return Ok(map);
            }
            if began.elapsed() > LAG {
                return Err(FenceError::NotRefused(self.host.clone()));
            }
            sleep(LOOK).await;
        }
    }

    async fn refuse(&self, address: IpAddr) -> Result<(), FenceError> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let command = json!({
            "prefix": "osd blocklist", "range": "range", "blocklistop": "add",
            "addr": format!("{address}/{bits}"), "expire": EXPIRY,
        });
        self.command(command).await.map(drop)
    }

    async fn down(&self, osds: &[u32]) -> Result<(), FenceError> {
        if osds.is_empty() {
            return Ok(());
        }
        let ids: Vec<String> = osds.iter().map(u32::to_string).collect();
        self.command(json!({"prefix": "osd down", "ids": ids})).await.map(drop)
    }

    /// A command for whichever monitor takes it first. All of them here can be carried out twice.
    async fn command(&self, command: Value) -> Result<Value, FenceError> {
        let ask = |mon: &str| {
            let target = Target::MonAt(mon.to_owned());
            let command = command.clone();
            async move { self.port.command(&target, command, MON).await }
        };
        self.first(ask).await
    }

    /// The first answer of the monitors, each asked a little after the one before it.
    async fn first<'s, T, F>(&'s self, ask: impl Fn(&'s str) -> F) -> Result<T, FenceError>
    where
        F: Future<Output = Result<T, ClusterError>>,
    {
        let asked = self.mons.iter().zip(0u32..).map(|(mon, n)| {
            let answer = ask(mon);
            Box::pin(async move {
                sleep(STAGGER * n).await;
                answer.await
            })
        });
        match futures::future::select_ok(asked).await {
            Ok((answer, _)) => Ok(answer),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until every OSD that is up has seen a map; marks down those that do not say so. Where none of several says
    /// anything, it is rather what they were asked through that is slow: none is marked down for that.
    async fn barrier(&self, map: &Blocklist) -> Result<(), FenceError> {
        let began = Instant::now();
        let own: BTreeSet<u32> = self.own(map).map(|osd| osd.id).collect();
        let mut waiting: Vec<u32> =
            map.osds.iter().filter(|osd| osd.up && !own.contains(&osd.id)).map(|osd| osd.id).collect();
        while !waiting.is_empty() && began.elapsed() < BARRIER {
            let late = match self.port.osds_behind(&waiting, map.epoch, OSD).await {
                Ok(late) => late,
                Err(error) => {
                    tracing::info!(%error, "asked the OSDs for their maps");
                    sleep(LOOK).await;
                    continue;
                }
            };
            if late.len() == waiting.len() && late.len() > 1 {
                continue;
            }
            waiting = late;
            if !waiting.is_empty() {
                self.down(&waiting).await?;
                let now = self.first(|mon| Blocklist::read_at(self.port, mon)).await?;
                // One that is down takes nothing; one that came up again had to take the newest map first.
                waiting.retain(|id| now.osds.iter().any(|osd| osd.id == *id && osd.up));
            }
        }
        if waiting.is_empty() { Ok(()) } else { Err(FenceError::Behind(waiting)) }
    }
}

/// Shuts out single clients (`ADDRESS:PORT/NONCE`) of a host that is shut out already, so that they stay so when it is let
/// in again.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn refuse_clients(
    port: &dyn ClusterPort,
    host: &str,
    clients: &BTreeSet<String>,
) -> Result<(), ClusterError> {
    let refuse = clients.iter().map(|client| {
        let command = json!({"prefix": "osd blocklist", "blocklistop": "add", "addr": client, "expire": EXPIRY});
        port.command(&Target::Mon, command, MON)
    });
    // As close together as can be, for the monitors to take all in one proposal.
    tokio::try_join!(try_join_all(refuse), super::record::add_clients(port, host, clients))?;
    Ok(())
}

/// Frees an image of the locks that clients of a host hold on it which is shut out. Tells how many locks were broken.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn free_image(
    port: &dyn ClusterPort,
    proof: &StorageProof,
    image: &str,
    lockers: &[ImageUser],
) -> Result<usize, ClusterError> {
    // By exact locker: another one may have come to hold it meanwhile.
    let theirs: Vec<&ImageUser> = lockers.iter().filter(|locker| proof.covers(&locker.address)).collect();
    let broken = try_join_all(theirs.iter().map(|locker| port.image_break_lock(image, locker))).await?;
    Ok(broken.into_iter().filter(|broken| *broken).count())
}

/// Lets a host in again, and forgets its fence. What is asked of the monitors is refused there once its deadline is over,
/// so that it cannot meet a later fence.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn lift(port: &dyn ClusterPort, record: &super::FenceRecord) -> Result<(), ClusterError> {
    let (now, there) = (Blocklist::read(port).await?, super::records(port).await?);
    if there.get(&record.host) != Some(record) {
        return Err(ClusterError::Conflict(format!("the fence of {}", record.host)));
    }
    for address in record.proof.addresses().iter().filter(|address| now.has_address(**address)) {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let command = json!({
            "prefix": "osd blocklist", "range": "range", "blocklistop": "rm", "addr": format!("{address}/{bits}"),
        });
        port.command(&Target::Mon, command, MON).await?;
    }
    super::record::forget(port, record).await
}
