//! What the cluster is asked, as requests to the agent on a mon host.

use super::connect::Cluster;
use super::port::{
    ClusterPort, Entry, Image, ImageUser, ImageUsers, Keys, KeysChange, Object, Parent, Target, Version,
};
use super::request::Request;
use super::{ClusterError, STATE_POOL};
use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::Duration;

/// How long the newest OSD map may take: it is there once a monitor answers.
const LATEST_MAP: Duration = Duration::from_secs(12);
/// Piece of a small image that is left out when it is all zeros.
const PIECE: usize = 4096;

impl Cluster {
    async fn state<T: DeserializeOwned>(&self, op: &'static str, mut args: Value) -> Result<T, ClusterError> {
        args["pool"] = STATE_POOL.into();
        self.ask(&Request::state(op, args)).await
    }

    async fn disk<T: DeserializeOwned>(&self, op: &'static str, mut args: Value) -> Result<T, ClusterError> {
        args["pool"] = self.pool().into();
        self.ask(&Request::image(op, args)).await
    }
}

/// JSON where it is, else text.
fn json_or_text(out: &str) -> Value {
    serde_json::from_str(out).unwrap_or_else(|_| Value::String(out.to_owned()))
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
        let request = Request::mon("command", args, deadline);
        let answer: Value = match target {
            Target::MonAt(host) => self.ask_at(host, &request).await?,
            _ => self.ask(&request).await?,
        };
        Ok(json_or_text(answer["out"].as_str().unwrap_or_default()))
    }

    async fn asok(&self, host: &str, daemon: &str, command: Value, deadline: Duration) -> Result<Value, ClusterError> {
        let args = json!({"daemon": daemon, "command": command, "timeout": deadline.as_secs_f64()});
        let out: String = self.ask_at(host, &Request::local("asok", args, deadline)).await?;
        Ok(json_or_text(&out))
    }

    async fn latest_map(&self) -> Result<(), ClusterError> {
        self.ask(&Request::mon("latest_map", json!({}), LATEST_MAP)).await
    }

    async fn osds_behind(&self, ids: &[u32], epoch: u64, patience: Duration) -> Result<Vec<u32>, ClusterError> {
        let args = json!({"ids": ids, "epoch": epoch, "timeout": patience.as_secs_f64()});
        self.ask(&Request::mon("osds_behind", args, patience)).await
    }

    async fn warm(&self) {
        self.open_all().await;
    }

    async fn avoid(&self, host: &str) {
        self.leave(host).await;
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

    async fn list(&self, prefix: &str) -> Result<Vec<Entry>, ClusterError> {
        self.state("list", json!({"prefix": prefix})).await
    }

    async fn keys(&self, name: &str) -> Result<Keys, ClusterError> {
        self.state("omap_get", json!({"oid": name})).await
    }

    async fn change_keys(&self, name: &str, change: &KeysChange) -> Result<(), ClusterError> {
        let args = json!({"oid": name, "expect": change.expect, "set": change.set, "remove": change.remove});
        self.state("omap_update", args).await
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

    async fn image_grow(&self, name: &str, size: u64) -> Result<u64, ClusterError> {
        self.disk("rbd_grow", json!({"name": name, "size": size})).await
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

    async fn snapshots_create(&self, snapshots: &[Parent]) -> Result<(), ClusterError> {
        let pairs: Vec<_> = snapshots.iter().map(|s| (&s.image, &s.snapshot)).collect();
        self.disk("rbd_snap_create_all", json!({"snapshots": pairs})).await
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

    async fn image_break_lock(&self, name: &str, locker: &ImageUser) -> Result<bool, ClusterError> {
        let ImageUser { client, cookie, address } = locker;
        let args = json!({"name": name, "client": client, "cookie": cookie, "address": address});
        self.disk("rbd_break_lock", args).await
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
}
