//! All hosts of an inventory at once.

use super::connect_limit::{self, ConnectLimit};
use super::control::{ControlDir, quoted};
use super::error::RemoteError;
use super::exec::Remote;
use super::session::{Shared, SshHost};
use crate::inventory::Inventory;
use futures::stream::{FuturesUnordered, StreamExt};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Hosts worked on at once.
const PARALLEL: usize = 128;

/// The hosts of an inventory, each connected when first used.
#[derive(Clone, Debug)]
pub struct Fleet {
    hosts: BTreeMap<String, Arc<dyn Remote>>,
}

impl Fleet {
    /// The hosts of an inventory over SSH.
    ///
    /// # Errors
    /// When no private directory for sockets can be made.
    pub fn over_ssh(inventory: &Inventory, connect: Duration) -> std::io::Result<Self> {
        let mut extra = Vec::new();
        // In the file rather than on the command line: jump hosts read it too.
        if let Some(identity) = &inventory.ssh.identity {
            extra.push(format!("IdentityFile {}", quoted(&inventory.path(identity))));
        }
        if let Some(file) = &inventory.ssh.known_hosts {
            extra.push(format!("UserKnownHostsFile {} ~/.ssh/known_hosts", quoted(&inventory.path(file))));
        }
        let connects = if inventory.ssh.jump.is_some() { connect_limit::THROUGH_A_JUMP } else { connect_limit::DIRECT };
        let dir = Arc::new(ControlDir::new(connect, &extra)?);
        let shared = Arc::new(Shared { dir, gate: ConnectLimit::new(connects), connect });
        let mut hosts: BTreeMap<String, Arc<dyn Remote>> = BTreeMap::new();
        for spec in &inventory.hosts {
            hosts.insert(spec.name.clone(), Arc::new(SshHost::new(inventory, spec, Arc::clone(&shared))));
        }
        Ok(Fleet { hosts })
    }

    /// These hosts, for tests.
    pub fn of(remotes: impl IntoIterator<Item = Arc<dyn Remote>>) -> Self {
        Fleet { hosts: remotes.into_iter().map(|r| (r.name().to_owned(), r)).collect() }
    }

    /// The host of this name.
    ///
    /// # Errors
    /// When the inventory has none.
    pub fn get(&self, name: &str) -> Result<Arc<dyn Remote>, RemoteError> {
        self.hosts.get(name).cloned().ok_or_else(|| RemoteError::Unreachable {
            host: name.to_owned(),
            reason: "the inventory has no such host".to_owned(),
        })
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.hosts.keys().map(String::as_str)
    }

    /// All hosts, sorted by name.
    pub fn all(&self) -> impl Iterator<Item = &Arc<dyn Remote>> {
        self.hosts.values()
    }

    /// Does something on each of these hosts at once; one slow host delays nobody else.
    pub async fn each<T, F, Fut>(&self, names: impl IntoIterator<Item = &str>, work: F) -> BTreeMap<String, T>
    where
        F: Fn(Arc<dyn Remote>) -> Fut,
        Fut: Future<Output = T>,
    {
        let slots = Semaphore::new(PARALLEL);
        let mut running = FuturesUnordered::new();
        for name in names {
            if let Some(remote) = self.hosts.get(name) {
                let (name, job, slots) = (name.to_owned(), work(Arc::clone(remote)), &slots);
                running.push(async move {
                    let _slot = slots.acquire().await;
                    (name, job.await)
                });
            }
        }
        let mut results = BTreeMap::new();
        while let Some((name, result)) = running.next().await {
            results.insert(name, result);
        }
        results
    }
}
