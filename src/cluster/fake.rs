//! A cluster in memory with the same compare-and-swap rules, for the tests of the rooms above.
//!
//! Every request lets others run before and after it, in an order that its seed decides: what only holds where nothing
//! comes between two requests does not hold here either.

use super::ClusterError;
use super::port::{
    ClusterPort, Entry, Image, ImageUser, ImageUsers, Keys, KeysChange, Object, Parent, Snapshot, Target, Version,
};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// After what time a write times out that is not made.
const STALL: Duration = Duration::from_secs(30);

/// A cluster in memory. Ceph commands answer from what [`FakeCluster::answer`] was told.
#[derive(Debug, Default)]
pub struct FakeCluster {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Versions go on over all objects, as they do over those of a placement group.
    clock: Version,
    objects: BTreeMap<String, (String, Version)>,
    keys: BTreeMap<String, Keys>,
    images: BTreeMap<String, FakeImage>,
    answers: BTreeMap<String, Value>,
    /// What each request takes.
    round_trip: Duration,
    broken: Option<ClusterError>,
    /// Nothing that takes space is written.
    full: bool,
    /// State objects are not written: the request times out.
    stalled: bool,
    /// What is written right after an object whose name begins so: prefix, name, content.
    next: Option<(String, String, String)>,
    /// Decides who runs next.
    random: u64,
    /// Writes whatever the version is, to see that a test notices.
    #[cfg(test)]
    careless: bool,
}

#[derive(Clone, Debug)]
struct FakeImage {
    image: Image,
    content: Vec<u8>,
    users: ImageUsers,
}

impl FakeCluster {
    /// An empty cluster.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty cluster whose requests interleave in another order for each seed.
    pub fn seeded(seed: u64) -> Self {
        let cluster = Self::default();
        cluster.lock_inner().random = seed;
        cluster
    }

    /// Makes every write pass, whatever the version of its object.
    #[cfg(test)]
    pub(super) fn careless(self) -> Self {
        self.lock_inner().careless = true;
        self
    }

    /// Makes the cluster full: what takes space is refused, what frees it is done, and so are state objects.
    pub fn fills(&self, full: bool) {
        self.lock_inner().full = full;
    }

    /// Makes the writes of state objects time out, or work again.
    pub fn stalls(&self, stalled: bool) {
        self.lock_inner().stalled = stalled;
    }

    /// Lets another process write an object right after the next change of one whose name begins with `prefix`.
    pub fn follow(&self, prefix: &str, name: &str, data: &str) {
        self.lock_inner().next = Some((prefix.to_owned(), name.to_owned(), data.to_owned()));
    }

    /// Answers the Ceph command of this prefix.
    pub fn answer(&self, prefix: &str, value: Value) {
        self.lock_inner().answers.insert(prefix.to_owned(), value);
    }

    /// Makes each request take a round trip from now on.
    pub fn slow(&self, round_trip: Duration) {
        self.lock_inner().round_trip = round_trip;
    }

    /// Makes every request fail with this error, or work again.
    pub fn breaks(&self, error: Option<ClusterError>) {
        self.lock_inner().broken = error;
    }

    /// Makes somebody use a disk image.
    pub fn use_image(&self, name: &str, users: ImageUsers) {
        if let Some(image) = self.lock_inner().images.get_mut(name) {
            image.users = users;
        }
    }

    fn lock_inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets others run for a while.
    async fn pause(&self) {
        let turns = self.lock_inner().dice() % 3;
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    }

    /// Carries out a request in one step, with room for others before and after it.
    async fn step<T>(
        &self,
        work: impl FnOnce(&mut Inner) -> Result<T, ClusterError> + Send,
    ) -> Result<T, ClusterError> {
        let round_trip = self.lock_inner().round_trip;
        if !round_trip.is_zero() {
            tokio::time::sleep(round_trip).await;
        }
        self.pause().await;
        let done = {
            let mut inner = self.lock_inner();
            match &inner.broken {
                Some(error) => Err(error.clone()),
                None => work(&mut inner),
            }
        };
        self.pause().await;
        done
    }

    /// Changes a state object in one step.
    async fn change<T>(
        &self,
        name: &str,
        work: impl FnOnce(&mut Inner) -> Result<T, ClusterError> + Send,
    ) -> Result<T, ClusterError> {
        if self.lock_inner().stalled {
            tokio::time::sleep(STALL).await;
            return Err(ClusterError::TimedOut { request: format!("write {name}"), after: STALL });
        }
        self.step(|inner| {
            let done = work(inner)?;
            if let Some((_, next, data)) = inner.next.take_if(|(prefix, ..)| name.starts_with(prefix.as_str())) {
                let version = inner.tick();
                inner.objects.insert(next, (data, version));
            }
            Ok(done)
        })
        .await
    }
}

impl Inner {
    /// The next of a sequence that looks random (SplitMix64).
    fn dice(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Refuses what takes space while there is none.
    fn takes_space(&self, request: &str, name: &str) -> Result<(), ClusterError> {
        match self.full {
            true => Err(ClusterError::Full { request: format!("{request} {name}") }),
            false => Ok(()),
        }
    }

    fn tick(&mut self) -> Version {
        self.clock += 1;
        self.clock
    }

    fn expect_version(&self, name: &str, version: Version) -> Result<(), ClusterError> {
        #[cfg(test)]
        if self.careless {
            return Ok(());
        }
        match self.objects.get(name) {
            Some((_, now)) if *now == version => Ok(()),
            Some(_) => Err(ClusterError::Conflict(format!("object {name} was changed by another run"))),
            None => Err(ClusterError::Conflict(format!("object {name} is gone"))),
        }
    }

    fn image(&mut self, name: &str) -> Result<&mut FakeImage, ClusterError> {
        self.images.get_mut(name).ok_or_else(|| ClusterError::NotFound(format!("disk image {name} does not exist")))
    }

    fn add_image(&mut self, name: &str, size: u64, parent: Option<Parent>, meta: Keys) -> Result<(), ClusterError> {
        if self.images.contains_key(name) {
            return Err(ClusterError::Exists(format!("disk image {name} exists")));
        }
        self.takes_space("rbd create", name)?;
        let image = Image { name: name.to_owned(), size, parent, snapshots: Vec::new(), meta };
        let fake = FakeImage { image, content: Vec::new(), users: ImageUsers::default() };
        self.images.insert(name.to_owned(), fake);
        Ok(())
    }

    fn children(&self, name: &str, snapshot: Option<&str>) -> Vec<String> {
        let is_child = |i: &&FakeImage| {
            i.image.parent.as_ref().is_some_and(|p| p.image == name && snapshot.is_none_or(|s| s == p.snapshot))
        };
        self.images.values().filter(is_child).map(|i| i.image.name.clone()).collect()
    }
}

#[async_trait]
impl ClusterPort for FakeCluster {
    async fn command(&self, target: &Target, command: Value, _: Duration) -> Result<Value, ClusterError> {
        self.step(|inner| {
            let prefix = command["prefix"].as_str().unwrap_or_default();
            inner.answers.get(prefix).cloned().ok_or_else(|| ClusterError::Refused {
                request: prefix.to_owned(),
                message: format!("no answer of {target} scripted"),
                errno: 22,
            })
        })
        .await
    }

    async fn asok(&self, _: &str, daemon: &str, command: Value, _: Duration) -> Result<Value, ClusterError> {
        let prefix = format!("{daemon} {}", command["prefix"].as_str().unwrap_or_default());
        let answer = self.lock_inner().answers.get(&prefix).cloned();
        self.pause().await;
        answer.ok_or_else(|| ClusterError::NotFound(format!("no answer of {prefix} scripted")))
    }

    async fn latest_map(&self) -> Result<(), ClusterError> {
        self.step(|_| Ok(())).await
    }

    async fn osds_behind(&self, ids: &[u32], epoch: u64, patience: Duration) -> Result<Vec<u32>, ClusterError> {
        let seen = self.command(&Target::Mgr, json!({"prefix": "status"}), patience).await?["newest_map"].as_u64();
        if seen.is_some_and(|seen| seen >= epoch) {
            return Ok(Vec::new());
        }
        tokio::time::sleep(patience).await;
        Ok(ids.to_vec())
    }

    async fn warm(&self) {}

    async fn avoid(&self, _host: &str) {}

    async fn get(&self, name: &str) -> Result<Option<Object>, ClusterError> {
        self.step(|inner| {
            let found = inner.objects.get(name).cloned();
            Ok(found.map(|(data, version)| Object { name: name.to_owned(), data, version }))
        })
        .await
    }

    async fn create(&self, name: &str, data: &str) -> Result<Version, ClusterError> {
        self.change(name, |inner| {
            if inner.objects.contains_key(name) {
                return Err(ClusterError::Exists(format!("object {name} exists")));
            }
            let version = inner.tick();
            inner.objects.insert(name.to_owned(), (data.to_owned(), version));
            Ok(version)
        })
        .await
    }

    async fn replace(&self, name: &str, data: &str, version: Version) -> Result<Version, ClusterError> {
        self.change(name, |inner| {
            inner.expect_version(name, version)?;
            let version = inner.tick();
            inner.objects.insert(name.to_owned(), (data.to_owned(), version));
            Ok(version)
        })
        .await
    }

    async fn remove(&self, name: &str, version: Version) -> Result<(), ClusterError> {
        self.change(name, |inner| {
            inner.expect_version(name, version)?;
            inner.tick();
            inner.objects.remove(name);
            Ok(())
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Entry>, ClusterError> {
        self.step(|inner| {
            let object =
                |(name, (data, _)): (&String, &(String, Version))| Entry { name: name.clone(), data: data.clone() };
            Ok(inner.objects.iter().filter(|(name, _)| name.starts_with(prefix)).map(object).collect())
        })
        .await
    }

    async fn keys(&self, name: &str) -> Result<Keys, ClusterError> {
        self.step(|inner| Ok(inner.keys.get(name).cloned().unwrap_or_default())).await
    }

    async fn change_keys(&self, name: &str, change: &KeysChange) -> Result<(), ClusterError> {
        self.change(name, |inner| {
            let keys = inner.keys.entry(name.to_owned()).or_default();
            let wrong: Vec<&str> =
                change.expect.iter().filter(|(k, v)| keys.get(*k) != v.as_ref()).map(|(k, _)| k.as_str()).collect();
            if !wrong.is_empty() {
                return Err(ClusterError::Conflict(format!("{name} holds something else at {}", wrong.join(", "))));
            }
            keys.extend(change.set.clone());
            for key in &change.remove {
                keys.remove(key);
            }
            Ok(())
        })
        .await
    }

    async fn images(&self) -> Result<Vec<String>, ClusterError> {
        self.step(|inner| Ok(inner.images.keys().cloned().collect())).await
    }

    async fn image(&self, name: &str) -> Result<Option<Image>, ClusterError> {
        self.step(|inner| Ok(inner.images.get(name).map(|fake| fake.image.clone()))).await
    }

    async fn image_create(&self, name: &str, size: u64) -> Result<(), ClusterError> {
        self.step(|inner| inner.add_image(name, size, None, Keys::new())).await
    }

    async fn image_clone(&self, from: &Parent, child: &str, size: u64, meta: &Keys) -> Result<u64, ClusterError> {
        self.step(|inner| {
            let parent = inner.image(&from.image)?.image.clone();
            let Some(snapshot) = parent.snapshots.iter().find(|s| s.name == from.snapshot) else {
                return Err(ClusterError::NotFound(format!("no snapshot {}@{}", from.image, from.snapshot)));
            };
            let size = size.max(snapshot.size);
            inner.add_image(child, size, Some(from.clone()), meta.clone())?;
            Ok(size)
        })
        .await
    }

    async fn image_grow(&self, name: &str, size: u64) -> Result<u64, ClusterError> {
        self.step(|inner| {
            let image = &mut inner.image(name)?.image;
            image.size = image.size.max(size);
            Ok(image.size)
        })
        .await
    }

    async fn image_write(&self, name: &str, content: &[u8]) -> Result<(), ClusterError> {
        self.step(|inner| {
            if !inner.images.contains_key(name) {
                inner.add_image(name, 0, None, Keys::new())?;
            }
            let fake = inner.image(name)?;
            fake.image.size = content.len() as u64;
            fake.content = content.to_vec();
            Ok(())
        })
        .await
    }

    async fn image_read(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, ClusterError> {
        self.step(|inner| {
            let bytes = inner.image(name)?.content.iter().copied();
            Ok(bytes.skip(offset as usize).take(length as usize).collect())
        })
        .await
    }

    async fn snapshot_create(&self, image: &str, snapshot: &str, protect: bool) -> Result<(), ClusterError> {
        self.step(|inner| {
            let image = &mut inner.image(image)?.image;
            match image.snapshots.iter_mut().find(|s| s.name == snapshot) {
                Some(found) => found.protected |= protect,
                None => {
                    let size = image.size;
                    image.snapshots.push(Snapshot { name: snapshot.to_owned(), size, protected: protect });
                }
            }
            Ok(())
        })
        .await
    }

    async fn snapshots_create(&self, snapshots: &[Parent]) -> Result<(), ClusterError> {
        self.step(|inner| {
            for Parent { image, snapshot } in snapshots {
                if inner.image(image)?.image.snapshots.iter().any(|s| s.name == *snapshot) {
                    return Err(ClusterError::Exists(format!("snapshot {image}@{snapshot} exists")));
                }
            }
            for Parent { image, snapshot } in snapshots {
                let image = &mut inner.image(image)?.image;
                let size = image.size;
                image.snapshots.push(Snapshot { name: snapshot.clone(), size, protected: false });
            }
            Ok(())
        })
        .await
    }

    async fn snapshot_remove(&self, image: &str, snapshot: &str) -> Result<(), ClusterError> {
        self.step(|inner| {
            if !inner.children(image, Some(snapshot)).is_empty() {
                return Err(ClusterError::Busy(format!("snapshot {image}@{snapshot} has clones")));
            }
            inner.image(image)?.image.snapshots.retain(|s| s.name != snapshot);
            Ok(())
        })
        .await
    }

    async fn image_children(&self, name: &str) -> Result<Vec<String>, ClusterError> {
        self.step(|inner| {
            inner.image(name)?;
            Ok(inner.children(name, None))
        })
        .await
    }

    async fn image_remove(&self, name: &str) -> Result<bool, ClusterError> {
        self.step(|inner| {
            let Some(fake) = inner.images.get(name) else { return Ok(false) };
            if !fake.image.snapshots.is_empty() {
                return Err(ClusterError::Busy(format!("disk image {name} has snapshots")));
            }
            if !fake.users.watchers.is_empty() {
                return Err(ClusterError::Busy(format!("disk image {name} is open")));
            }
            inner.images.remove(name);
            Ok(true)
        })
        .await
    }

    async fn image_users(&self, name: &str) -> Result<ImageUsers, ClusterError> {
        self.step(|inner| Ok(inner.image(name)?.users.clone())).await
    }

    async fn image_break_lock(&self, name: &str, locker: &ImageUser) -> Result<bool, ClusterError> {
        self.step(|inner| {
            let lockers = &mut inner.image(name)?.users.lockers;
            let before = lockers.len();
            lockers.retain(|held| held != locker);
            Ok(lockers.len() < before)
        })
        .await
    }

    async fn image_note(&self, name: &str, key: &str, value: &str) -> Result<(), ClusterError> {
        self.step(|inner| {
            inner.image(name)?.image.meta.insert(key.to_owned(), value.to_owned());
            Ok(())
        })
        .await
    }
}
