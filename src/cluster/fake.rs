//! A cluster in memory with the same compare-and-swap rules, for the tests of the rooms above.

use super::ClusterError;
use super::port::{ClusterPort, Image, ImageUsers, Keys, KeysChange, Object, Parent, Snapshot, Target, Version};
use async_trait::async_trait;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
    locks: BTreeMap<String, (String, String)>,
    images: BTreeMap<String, FakeImage>,
    answers: BTreeMap<String, Value>,
    broken: Option<ClusterError>,
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

    /// Answers the Ceph command of this prefix.
    pub fn answer(&self, prefix: &str, value: Value) {
        self.lock_inner().answers.insert(prefix.to_owned(), value);
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

    fn inner(&self) -> Result<MutexGuard<'_, Inner>, ClusterError> {
        let inner = self.lock_inner();
        match &inner.broken {
            Some(error) => Err(error.clone()),
            None => Ok(inner),
        }
    }
}

impl Inner {
    fn tick(&mut self) -> Version {
        self.clock += 1;
        self.clock
    }

    fn expect_version(&self, name: &str, version: Version) -> Result<(), ClusterError> {
        match self.objects.get(name) {
            Some((_, now)) if *now == version => Ok(()),
            Some(_) => Err(ClusterError::Conflict(format!("object {name} was changed by somebody else"))),
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
        let prefix = command["prefix"].as_str().unwrap_or_default();
        self.inner()?.answers.get(prefix).cloned().ok_or_else(|| ClusterError::Refused {
            request: prefix.to_owned(),
            message: format!("no answer of {target} scripted"),
            errno: 22,
        })
    }

    async fn get(&self, name: &str) -> Result<Option<Object>, ClusterError> {
        let found = self.inner()?.objects.get(name).cloned();
        Ok(found.map(|(data, version)| Object { name: name.to_owned(), data, version }))
    }

    async fn create(&self, name: &str, data: &str) -> Result<Version, ClusterError> {
        let mut inner = self.inner()?;
        if inner.objects.contains_key(name) {
            return Err(ClusterError::Exists(format!("object {name} exists")));
        }
        let version = inner.tick();
        inner.objects.insert(name.to_owned(), (data.to_owned(), version));
        Ok(version)
    }

    async fn replace(&self, name: &str, data: &str, version: Version) -> Result<Version, ClusterError> {
        let mut inner = self.inner()?;
        inner.expect_version(name, version)?;
        let version = inner.tick();
        inner.objects.insert(name.to_owned(), (data.to_owned(), version));
        Ok(version)
    }

    async fn remove(&self, name: &str, version: Version) -> Result<(), ClusterError> {
        let mut inner = self.inner()?;
        inner.expect_version(name, version)?;
        inner.tick();
        inner.objects.remove(name);
        Ok(())
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Object>, ClusterError> {
        let inner = self.inner()?;
        let object = |(name, (data, version)): (&String, &(String, Version))| Object {
            name: name.clone(),
            data: data.clone(),
            version: *version,
        };
        Ok(inner.objects.iter().filter(|(name, _)| name.starts_with(prefix)).map(object).collect())
    }

    async fn keys(&self, name: &str) -> Result<Keys, ClusterError> {
        Ok(self.inner()?.keys.get(name).cloned().unwrap_or_default())
    }

    async fn change_keys(&self, name: &str, change: &KeysChange) -> Result<(), ClusterError> {
        let mut inner = self.inner()?;
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
    }

    async fn lock(&self, name: &str, cookie: &str, owner: &str, _: Duration) -> Result<(), ClusterError> {
        let mut inner = self.inner()?;
        match inner.locks.get(name) {
            Some((held, by)) if held != cookie => Err(ClusterError::Busy(by.clone())),
            _ => {
                inner.locks.insert(name.to_owned(), (cookie.to_owned(), owner.to_owned()));
                Ok(())
            }
        }
    }

    async fn unlock(&self, name: &str, cookie: &str) -> Result<(), ClusterError> {
        let mut inner = self.inner()?;
        if inner.locks.get(name).is_some_and(|(held, _)| held == cookie) {
            inner.locks.remove(name);
        }
        Ok(())
    }

    async fn images(&self) -> Result<Vec<String>, ClusterError> {
        Ok(self.inner()?.images.keys().cloned().collect())
    }

    async fn image(&self, name: &str) -> Result<Option<Image>, ClusterError> {
        Ok(self.inner()?.images.get(name).map(|fake| fake.image.clone()))
    }

    async fn image_create(&self, name: &str, size: u64) -> Result<(), ClusterError> {
        self.inner()?.add_image(name, size, None, Keys::new())
    }

    async fn image_clone(&self, from: &Parent, child: &str, size: u64, meta: &Keys) -> Result<u64, ClusterError> {
        let mut inner = self.inner()?;
        let parent = inner.image(&from.image)?.image.clone();
        let Some(snapshot) = parent.snapshots.iter().find(|s| s.name == from.snapshot) else {
            return Err(ClusterError::NotFound(format!("no snapshot {}@{}", from.image, from.snapshot)));
        };
        let size = size.max(snapshot.size);
        inner.add_image(child, size, Some(from.clone()), meta.clone())?;
        Ok(size)
    }

    async fn image_resize(&self, name: &str, size: u64) -> Result<(), ClusterError> {
        self.inner()?.image(name)?.image.size = size;
        Ok(())
    }

    async fn image_rename(&self, name: &str, to: &str) -> Result<(), ClusterError> {
        let mut inner = self.inner()?;
        if inner.images.contains_key(to) {
            return Err(ClusterError::Exists(format!("disk image {to} exists")));
        }
        let mut fake = inner.image(name)?.clone();
        fake.image.name = to.to_owned();
        inner.images.remove(name);
        inner.images.insert(to.to_owned(), fake);
        Ok(())
    }

    async fn image_write(&self, name: &str, content: &[u8]) -> Result<(), ClusterError> {
        let mut inner = self.inner()?;
        if !inner.images.contains_key(name) {
            inner.add_image(name, 0, None, Keys::new())?;
        }
        let fake = inner.image(name)?;
        fake.image.size = content.len() as u64;
        fake.content = content.to_vec();
        Ok(())
    }

    async fn image_read(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>, ClusterError> {
        let mut inner = self.inner()?;
        let bytes = inner.image(name)?.content.iter().copied();
        Ok(bytes.skip(offset as usize).take(length as usize).collect())
    }

    async fn snapshot_create(&self, image: &str, snapshot: &str, protect: bool) -> Result<(), ClusterError> {
        let mut inner = self.inner()?;
        let image = &mut inner.image(image)?.image;
        match image.snapshots.iter_mut().find(|s| s.name == snapshot) {
            Some(found) => found.protected |= protect,
            None => {
                let size = image.size;
                image.snapshots.push(Snapshot { name: snapshot.to_owned(), size, protected: protect });
            }
        }
        Ok(())
    }

    async fn snapshot_remove(&self, image: &str, snapshot: &str) -> Result<(), ClusterError> {
        let mut inner = self.inner()?;
        if !inner.children(image, Some(snapshot)).is_empty() {
            return Err(ClusterError::Busy(format!("snapshot {image}@{snapshot} has clones")));
        }
        inner.image(image)?.image.snapshots.retain(|s| s.name != snapshot);
        Ok(())
    }

    async fn image_children(&self, name: &str) -> Result<Vec<String>, ClusterError> {
        let mut inner = self.inner()?;
        inner.image(name)?;
        Ok(inner.children(name, None))
    }

    async fn image_remove(&self, name: &str) -> Result<bool, ClusterError> {
        let mut inner = self.inner()?;
        let Some(fake) = inner.images.get(name) else { return Ok(false) };
        if !fake.image.snapshots.is_empty() {
            return Err(ClusterError::Busy(format!("disk image {name} has snapshots")));
        }
        if !fake.users.watchers.is_empty() {
            return Err(ClusterError::Busy(format!("disk image {name} is open")));
        }
        inner.images.remove(name);
        Ok(true)
    }

    async fn image_users(&self, name: &str) -> Result<ImageUsers, ClusterError> {
        Ok(self.inner()?.image(name)?.users.clone())
    }

    async fn image_note(&self, name: &str, key: &str, value: &str) -> Result<(), ClusterError> {
        self.inner()?.image(name)?.image.meta.insert(key.to_owned(), value.to_owned());
        Ok(())
    }
}
