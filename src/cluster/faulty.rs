//! A cluster behind a trap: for crash tests.

use super::ClusterError;
use super::port::{
    ClusterPort, Entry, Image, ImageUser, ImageUsers, Keys, KeysChange, Object, Parent, Target, Version,
};
use crate::ssh::Trap;
use async_trait::async_trait;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// A cluster whose caller is killed, or loses an answer, at one call.
#[derive(Debug)]
pub(crate) struct FaultyCluster {
    pub(crate) inner: Arc<dyn ClusterPort>,
    pub(crate) trap: Arc<Trap>,
}

fn lost(request: &'static str) -> impl FnOnce() -> ClusterError {
    move || ClusterError::TimedOut { request: request.to_owned(), after: Duration::from_secs(1) }
}

#[async_trait]
impl ClusterPort for FaultyCluster {
    async fn command(&self, target: &Target, command: Value, deadline: Duration) -> Result<Value, ClusterError> {
        self.trap.pass(self.inner.command(target, command, deadline), lost("command")).await
    }

    async fn asok(&self, host: &str, daemon: &str, command: Value, deadline: Duration) -> Result<Value, ClusterError> {
        self.trap.pass(self.inner.asok(host, daemon, command, deadline), lost("asok")).await
    }

    async fn latest_map(&self) -> Result<(), ClusterError> {
        self.trap.pass(self.inner.latest_map(), lost("latest_map")).await
    }

    async fn osds_behind(&self, ids: &[u32], epoch: u64, patience: Duration) -> Result<Vec<u32>, ClusterError> {
        self.trap.pass(self.inner.osds_behind(ids, epoch, patience), lost("osds_behind")).await
    }

    async fn warm(&self) {
        self.inner.warm().await;
    }

    async fn avoid(&self, host: &str) {
        self.inner.avoid(host).await;
    }

    async fn get(&self, name: &str) -> Result<Option<Object>, ClusterError> {
        self.trap.pass(self.inner.get(name), lost("get")).await
    }

    async fn create(&self, name: &str, data: &str) -> Result<Version, ClusterError> {
        self.trap.pass(self.inner.create(name, data), lost("create")).await
    }

    async fn replace(&self, name: &str, data: &str, version: Version) -> Result<Version, ClusterError> {
        self.trap.pass(self.inner.replace(name, data, version), lost("replace")).await
    }

    async fn remove(&self, name: &str, version: Version) -> Result<(), ClusterError> {
        self.trap.pass(self.inner.remove(name, version), lost("remove")).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Entry>, ClusterError> {
        self.trap.pass(self.inner.list(prefix), lost("list")).await
    }

    async fn keys(&self, name: &str) -> Result<Keys, ClusterError> {
        self.trap.pass(self.inner.keys(name), lost("keys")).await
    }

    async fn change_keys(&self, name: &str, change: &KeysChange) -> Result<(), ClusterError> {
        self.trap.pass(self.inner.change_keys(name, change), lost("change_keys")).await
    }

    async fn images(&self) -> Result<Vec<String>, ClusterError> {
        self.trap.pass(self.inner.images(), lost("images")).await
    }

    async fn image(&self, name: &str) -> Result<Option<Image>, ClusterError> {
        self.trap.pass(self.inner.image(name), lost("image")).await
    }

    async fn image_create(&self, name: &str, size: u64) -> Result<(), ClusterError> {
        self.trap.pass(self.inner.image_create(name, size), lost("image_create")).await
    }

    async fn image_clone(&self, from: &Parent, child: &str, size: u64, meta: &Keys) -> Result<u64, ClusterError> {
        self.trap.pass(self.inner.image_clone(from, child, size, meta), lost("image_clone")).await
    }

    async fn image_grow(&self, name: &str, size: u64) -> Result<u64, ClusterError> {
        self.trap.pass(self.inner.image_grow(name, size), lost("image_grow")).await
    }

    async fn image_write(&self, name: &str, content: &[u8]) -> Result<(), ClusterError> {
        self.trap.pass(self.inner.image_write(name, content), lost("image_write")).await
    }

    async fn image_read(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, ClusterError> {
        self.trap.pass(self.inner.image_read(name, offset, length), lost("image_read")).await
    }

    async fn snapshot_create(&self, image: &str, snapshot: &str, protect: bool) -> Result<(), ClusterError> {
        self.trap.pass(self.inner.snapshot_create(image, snapshot, protect), lost("snapshot_create")).await
    }

    async fn snapshots_create(&self, snapshots: &[Parent]) -> Result<(), ClusterError> {
        self.trap.pass(self.inner.snapshots_create(snapshots), lost("snapshots_create")).await
    }

    async fn snapshot_remove(&self, image: &str, snapshot: &str) -> Result<(), ClusterError> {
        self.trap.pass(self.inner.snapshot_remove(image, snapshot), lost("snapshot_remove")).await
    }

    async fn image_children(&self, name: &str) -> Result<Vec<String>, ClusterError> {
        self.trap.pass(self.inner.image_children(name), lost("image_children")).await
    }

    async fn image_remove(&self, name: &str) -> Result<bool, ClusterError> {
        self.trap.pass(self.inner.image_remove(name), lost("image_remove")).await
    }

    async fn image_users(&self, name: &str) -> Result<ImageUsers, ClusterError> {
        self.trap.pass(self.inner.image_users(name), lost("image_users")).await
    }

    async fn image_break_lock(&self, name: &str, locker: &ImageUser) -> Result<bool, ClusterError> {
        self.trap.pass(self.inner.image_break_lock(name, locker), lost("image_break_lock")).await
    }

    async fn image_note(&self, name: &str, key: &str, value: &str) -> Result<(), ClusterError> {
        self.trap.pass(self.inner.image_note(name, key, value), lost("image_note")).await
    }
}
