//! Finding a mon host that answers, and asking through it.

use super::channel::{IMAGE, Link, STATE};
use super::first::first_of;
use super::port::{ClusterPort, Image, ImageUsers, Keys, KeysChange, Object, Parent, Target, Version};
use super::{ClusterError, STATE_POOL};
use crate::inventory::{Inventory, Role};
use crate::ssh::{Fleet, Remote};
use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::timeout;
use uuid::Uuid;

/// How long one mon host may take from the first packet to its cluster's answer.
const OPEN: Duration = Duration::from_secs(10);
/// How long the next mon host waits for the one before it.
const STAGGER: Duration = Duration::from_millis(600);
/// Piece of a small image that is left out when it is all zeros.
const PIECE: usize = 4096;

/// The Ceph cluster of an inventory, asked through one of its mon hosts.
#[derive(Debug)]
pub struct Cluster {
    mons: Vec<Arc<dyn Remote>>,
    fsid: Uuid,
    pool: String,
    link: Mutex<Arc<Link>>,
    /// Whether the mon host that is asked may be the one that is cut off: another one may still see a quorum.
    doubted: AtomicBool,
}

impl Cluster {
    /// Connects through the first mon host that answers and sees a quorum.
    ///
    /// # Errors
    /// Within about 12 s: no mon host can be reached, Ceph is not set up, there is no quorum, or it is another cluster
    /// than the inventory's.
    pub async fn connect(fleet: &Fleet, inventory: &Inventory) -> Result<Cluster, ClusterError> {
        let mons: Vec<Arc<dyn Remote>> =
            inventory.with_role(Role::Mon).filter_map(|host| fleet.get(&host.name).ok()).collect();
        let fsid = inventory.cluster.fsid;
        let link = open_first(&mons, fsid).await?;
        Ok(Cluster {
            mons,
            fsid,
            pool: inventory.ceph.pool.clone(),
            link: Mutex::new(Arc::new(link)),
            doubted: AtomicBool::new(false),
        })
    }

    /// The mon host that is asked at the moment.
    pub async fn via(&self) -> String {
        self.link.lock().await.host().to_owned()
    }

    /// The channel; a new one when the last is known to be broken, or its host has lost sight of the cluster.
    async fn link(&self) -> Result<Arc<Link>, ClusterError> {
        let mut link = self.link.lock().await;
        if !link.alive() || self.doubted.load(Ordering::Relaxed) {
            *link = Arc::new(open_first(&self.mons, self.fsid).await?);
            self.doubted.store(false, Ordering::Relaxed);
        }
        Ok(Arc::clone(&link))
    }

    async fn ask<T: DeserializeOwned>(&self, op: &str, args: Value, deadline: Duration) -> Result<T, ClusterError> {
        let answer = self.link().await?.ask(op, args, deadline).await;
        if let Err(ClusterError::NoQuorum(_) | ClusterError::TimedOut { .. } | ClusterError::Blocklisted(_)) = &answer {
            self.doubted.store(true, Ordering::Relaxed);
        }
        let answer = answer?;
        serde_json::from_value(answer).map_err(|e| ClusterError::Malformed(format!("answer to {op}: {e}")))
    }

    async fn state<T: DeserializeOwned>(&self, op: &str, mut args: Value) -> Result<T, ClusterError> {
        args["pool"] = STATE_POOL.into();
        self.ask(op, args, STATE).await
    }

    async fn disk<T: DeserializeOwned>(&self, op: &str, mut args: Value) -> Result<T, ClusterError> {
        args["pool"] = self.pool.as_str().into();
        self.ask(op, args, IMAGE).await
    }
}

async fn open_first(mons: &[Arc<dyn Remote>], fsid: Uuid) -> Result<Link, ClusterError> {
    first_of(mons, STAGGER, |mon| open_one(Arc::clone(mon), fsid)).await.map_err(worst)
}

async fn open_one(mon: Arc<dyn Remote>, fsid: Uuid) -> Result<Link, ClusterError> {
    let name = mon.name().to_owned();
    let late = ClusterError::Unreachable(format!("host {name} did not answer within {} s", OPEN.as_secs()));
    let link = timeout(OPEN, Link::open(mon)).await.unwrap_or(Err(late))?;
    // Whatever is written through it would end up among somebody else's guests.
    match link.fsid().parse::<Uuid>() {
        Ok(found) if fsid == found => Ok(link),
        _ => {
            let (host, found) = (link.host().to_owned(), link.fsid().to_owned());
            Err(ClusterError::OtherCluster { host, found, wanted: fsid.to_string() })
        }
    }
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

/// The pieces of a small image that are not zeros, as the agent takes them.
fn pieces(content: &[u8]) -> Vec<Value> {
    let full = content.chunks(PIECE).enumerate().filter(|(_, piece)| piece.iter().any(|b| *b != 0));
    full.map(|(n, piece)| json!([n * PIECE, base64(piece)])).collect()
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[async_trait]
impl ClusterPort for Cluster {
    async fn command(&self, target: &Target, command: Value, deadline: Duration) -> Result<Value, ClusterError> {
        let args = json!({"target": target.to_string(), "command": command, "timeout": deadline.as_secs().max(1)});
        let answer: Value = self.ask("command", args, deadline + Duration::from_secs(2)).await?;
        let out = answer["out"].as_str().unwrap_or_default();
        Ok(serde_json::from_str(out).unwrap_or_else(|_| Value::String(out.to_owned())))
    }

    async fn get(&self, name: &str) -> Result<Option<Object>, ClusterError> {
        let found: Option<Object> = self.state("get", json!({"oid": name})).await?;
        Ok(found.map(|object| Object { name: name.to_owned(), ..object }))
    }

    async fn create(&self, name: &str, data: &str) -> Result<Version, ClusterError> {
        self.state("create", json!({"oid": name, "data": data})).await
    }

    async fn replace(&self, name: &str, data: &str, version: Version) -> Result<Version, ClusterError> {
        self.state("replace", json!({"oid": name, "data": data, "version": version})).await
    }

    async fn remove(&self, name: &str, version: Version) -> Result<(), ClusterError> {
        self.state::<Value>("remove", json!({"oid": name, "version": version})).await.map(drop)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Object>, ClusterError> {
        self.state("list", json!({"prefix": prefix})).await
    }

    async fn keys(&self, name: &str) -> Result<Keys, ClusterError> {
        self.state("omap_get", json!({"oid": name})).await
    }

    async fn change_keys(&self, name: &str, change: &KeysChange) -> Result<(), ClusterError> {
        let args = json!({"oid": name, "expect": change.expect, "set": change.set, "remove": change.remove});
        self.state("omap_update", args).await
    }

    async fn lock(&self, name: &str, cookie: &str, owner: &str, lease: Duration) -> Result<(), ClusterError> {
        let args = json!({"oid": name, "cookie": cookie, "owner": owner, "seconds": lease.as_secs()});
        self.state("lock", args).await
    }

    async fn unlock(&self, name: &str, cookie: &str) -> Result<(), ClusterError> {
        self.state("unlock", json!({"oid": name, "cookie": cookie})).await
    }

    async fn images(&self) -> Result<Vec<String>, ClusterError> {
        self.disk("rbd_list", json!({})).await
    }

    async fn image(&self, name: &str) -> Result<Option<Image>, ClusterError> {
        self.disk("rbd_info", json!({"name": name})).await
    }

    async fn image_create(&self, name: &str, size: u64) -> Result<(), ClusterError> {
        self.disk("rbd_create", json!({"name": name, "size": size})).await
    }

    async fn image_clone(&self, from: &Parent, child: &str, size: u64, meta: &Keys) -> Result<u64, ClusterError> {
        let args = json!({"parent": from.image, "snapshot": from.snapshot, "child": child, "size": size, "meta": meta});
        self.disk("rbd_clone", args).await
    }

    async fn image_resize(&self, name: &str, size: u64) -> Result<(), ClusterError> {
        self.disk("rbd_resize", json!({"name": name, "size": size})).await
    }

    async fn image_rename(&self, name: &str, to: &str) -> Result<(), ClusterError> {
        self.disk("rbd_rename", json!({"name": name, "to": to})).await
    }

    async fn image_write(&self, name: &str, content: &[u8]) -> Result<(), ClusterError> {
        let args = json!({"name": name, "size": content.len(), "chunks": pieces(content)});
        self.disk("rbd_write", args).await
    }

    async fn image_read(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, ClusterError> {
        use base64::Engine;
        let text: String = self.disk("rbd_read", json!({"name": name, "offset": offset, "length": length})).await?;
        base64::engine::general_purpose::STANDARD
            .decode(text)
            .map_err(|e| ClusterError::Malformed(format!("content of disk image {name}: {e}")))
    }

    async fn snapshot_create(&self, image: &str, snapshot: &str, protect: bool) -> Result<(), ClusterError> {
        self.disk("rbd_snap_create", json!({"name": image, "snapshot": snapshot, "protect": protect})).await
    }

    async fn snapshot_remove(&self, image: &str, snapshot: &str) -> Result<(), ClusterError> {
        self.disk("rbd_snap_remove", json!({"name": image, "snapshot": snapshot})).await
    }

    async fn image_children(&self, name: &str) -> Result<Vec<String>, ClusterError> {
        self.disk("rbd_children", json!({"name": name})).await
    }

    async fn image_remove(&self, name: &str) -> Result<bool, ClusterError> {
        self.disk("rbd_remove", json!({"name": name})).await
    }

    async fn image_users(&self, name: &str) -> Result<ImageUsers, ClusterError> {
        self.disk("rbd_users", json!({"name": name})).await
    }

    async fn image_note(&self, name: &str, key: &str, value: &str) -> Result<(), ClusterError> {
        self.disk("rbd_meta_set", json!({"name": name, "key": key, "value": value})).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_of_a_small_image_are_not_sent() {
        let mut content = vec![0; 3 * PIECE];
        content[PIECE] = 7;
        let sent = pieces(&content);
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0][0], PIECE);
    }

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
