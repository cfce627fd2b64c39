//! What the cluster can be asked: the seam between the rooms above and Ceph, or a fake of it.

use super::ClusterError;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The pool of the state objects.
pub const STATE_POOL: &str = ".rackhand";

/// The version of a state object; grows with each change.
pub type Version = u64;

/// The keys of a state object, with their values.
pub type Keys = BTreeMap<String, String>;

/// Whom a command is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Any monitor.
    Mon,
    /// The monitor on this host, and no other one, asked over a channel to that host.
    MonAt(String),
    /// The active manager.
    Mgr,
    /// An OSD.
    Osd(u32),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Mon => f.write_str("mon"),
            Target::MonAt(host) => write!(f, "mon.{host}"),
            Target::Mgr => f.write_str("mgr"),
            Target::Osd(id) => write!(f, "osd.{id}"),
        }
    }
}

/// A state object as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Object {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// What it holds, JSON by convention.
    pub data: String,
    /// The version that was read.
    pub version: Version,
}

/// A state object of a list, without its version: to change it, it is read again.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// What it holds, JSON by convention.
    pub data: String,
}

/// A change of several keys in one step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct KeysChange {
    /// What these keys must hold for the change to be made; `None` for absent.
    pub expect: BTreeMap<String, Option<String>>,
    /// Keys to set.
    pub set: Keys,
    /// Keys to remove.
    pub remove: Vec<String>,
}

impl KeysChange {
    /// Sets a key that must be absent.
    #[must_use]
    pub fn add(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let key = key.into();
        self.expect.insert(key.clone(), None);
        self.set.insert(key, value.into());
        self
    }

    /// Replaces a key's value that must be `old`.
    #[must_use]
    pub fn swap(mut self, key: impl Into<String>, old: impl Into<String>, new: impl Into<String>) -> Self {
        let key = key.into();
        self.expect.insert(key.clone(), Some(old.into()));
        self.set.insert(key, new.into());
        self
    }

    /// Removes a key that must hold `old`.
    #[must_use]
    pub fn take(mut self, key: impl Into<String>, old: impl Into<String>) -> Self {
        let key = key.into();
        self.expect.insert(key.clone(), Some(old.into()));
        self.remove.push(key);
        self
    }
}

/// A disk image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Image {
    /// Its name in the guests' pool.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// What it is a clone of.
    pub parent: Option<Parent>,
    /// Its snapshots.
    pub snapshots: Vec<Snapshot>,
    /// Notes kept with it.
    pub meta: Keys,
}

/// A snapshot of a disk image, for example the one a clone was made from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Parent {
    /// Image.
    pub image: String,
    /// Snapshot of it.
    pub snapshot: String,
}

/// A snapshot of a disk image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// Size of the image at that time, in bytes.
    pub size: u64,
    /// Whether it cannot be removed, because clones need it.
    pub protected: bool,
}

/// Who uses a disk image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct ImageUsers {
    /// Clients that have it open.
    pub watchers: Vec<ImageUser>,
    /// Clients that hold its lock.
    pub lockers: Vec<ImageUser>,
}

/// A client of a disk image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ImageUser {
    /// Its address, `ADDRESS:PORT/NONCE`.
    pub address: String,
    /// Its name in Ceph.
    #[serde(deserialize_with = "text_or_number")]
    pub client: String,
    /// What it calls its lock; empty for one that only has the image open. A lock is known by client and cookie.
    #[serde(default)]
    pub cookie: String,
}

fn text_or_number<'de, D: serde::Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(d)? {
        Value::String(text) => text,
        other => format!("client.{other}"),
    })
}

/// The cluster, or a fake of it. State objects live in the state pool, disk images in the guests' pool.
#[async_trait]
pub trait ClusterPort: Send + Sync + fmt::Debug {
    /// Runs a Ceph command; the answer is JSON where the command speaks it, else text.
    async fn command(&self, target: &Target, command: Value, deadline: Duration) -> Result<Value, ClusterError>;

    /// Runs a command of a daemon, for example `mon.h1`, over its admin socket on this mon host; it is answered
    /// without a quorum.
    async fn asok(&self, host: &str, daemon: &str, command: Value, deadline: Duration) -> Result<Value, ClusterError>;
    /// Waits until the newest OSD map is known here: what is asked next goes to no OSD that was marked down before.
    async fn latest_map(&self) -> Result<(), ClusterError>;

    /// Which of these OSDs have not said within `patience` that they have seen the OSD map of this epoch.
    async fn osds_behind(&self, ids: &[u32], epoch: u64, patience: Duration) -> Result<Vec<u32>, ClusterError>;

    /// Connects to every mon host, so that none has to be connected to once another one is lost.
    async fn warm(&self);

    /// Asks nothing through this mon host from now on as long as another one answers; what was asked through it and is not
    /// answered yet is told as lost at once.
    async fn avoid(&self, host: &str);

    /// Reads a state object.
    async fn get(&self, name: &str) -> Result<Option<Object>, ClusterError>;
    /// Makes a state object; [`ClusterError::Exists`] when there is one.
    async fn create(&self, name: &str, data: &str) -> Result<Version, ClusterError>;
    /// Replaces a state object that still has this version, else [`ClusterError::Conflict`].
    async fn replace(&self, name: &str, data: &str, version: Version) -> Result<Version, ClusterError>;
    /// Removes a state object that still has this version, else [`ClusterError::Conflict`].
    async fn remove(&self, name: &str, version: Version) -> Result<(), ClusterError>;
    /// All state objects whose name begins with `prefix`, sorted by name.
    async fn list(&self, prefix: &str) -> Result<Vec<Entry>, ClusterError>;
    /// All keys of a state object; none when it does not exist.
    async fn keys(&self, name: &str) -> Result<Keys, ClusterError>;
    /// Changes keys of a state object in one step if all expectations hold, else [`ClusterError::Conflict`].
    async fn change_keys(&self, name: &str, change: &KeysChange) -> Result<(), ClusterError>;

    /// Names of all disk images, sorted.
    async fn images(&self) -> Result<Vec<String>, ClusterError>;
    /// A disk image, if it exists.
    async fn image(&self, name: &str) -> Result<Option<Image>, ClusterError>;
    /// Makes an empty disk image.
    async fn image_create(&self, name: &str, size: u64) -> Result<(), ClusterError>;
    /// Makes `child` from a snapshot, at least `size` bytes large, with notes; tells its size.
    async fn image_clone(&self, from: &Parent, child: &str, size: u64, meta: &Keys) -> Result<u64, ClusterError>;
    /// Makes a disk image at least this large, never smaller; tells its size.
    async fn image_grow(&self, name: &str, size: u64) -> Result<u64, ClusterError>;
    /// Makes or overwrites a small disk image with this content.
    async fn image_write(&self, name: &str, content: &[u8]) -> Result<(), ClusterError>;
    /// Reads a piece of a disk image, or less at its end.
    async fn image_read(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, ClusterError>;
    /// Makes a snapshot unless it exists, and protects it where asked.
    async fn snapshot_create(&self, image: &str, snapshot: &str, protect: bool) -> Result<(), ClusterError>;
    /// Makes new snapshots of several disk images, as close together as can be: all of them or none;
    /// [`ClusterError::Exists`] when one is there.
    async fn snapshots_create(&self, snapshots: &[Parent]) -> Result<(), ClusterError>;
    /// Removes a snapshot, protected or not; [`ClusterError::Busy`] when it has clones.
    async fn snapshot_remove(&self, image: &str, snapshot: &str) -> Result<(), ClusterError>;
    /// Names of the clones of all snapshots of a disk image.
    async fn image_children(&self, name: &str) -> Result<Vec<String>, ClusterError>;
    /// Removes a disk image; tells whether it was there. [`ClusterError::Busy`] when it is open or has snapshots.
    async fn image_remove(&self, name: &str) -> Result<bool, ClusterError>;
    /// Who has a disk image open or locked.
    async fn image_users(&self, name: &str) -> Result<ImageUsers, ClusterError>;
    /// Breaks the lock of exactly this client, cookie and address; tells whether it still held it. Only a client that
    /// can write no more may lose its lock.
    async fn image_break_lock(&self, name: &str, locker: &ImageUser) -> Result<bool, ClusterError>;
    /// Keeps a note with a disk image.
    async fn image_note(&self, name: &str, key: &str, value: &str) -> Result<(), ClusterError>;
}
