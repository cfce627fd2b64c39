//! What a step of provisioning is, and what it works with.

use super::platform::HostPlatform;
use crate::cluster::{BuildPort, Builder, Cluster, ClusterError, ClusterPort};
use crate::error::Failure;
use crate::inventory::{HostSpec, Inventory, Role};
use crate::playbook::{Change, Findings};
use crate::ssh::{Fleet, Remote};
use crate::ui::Ui;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

type Connected = Result<Arc<Cluster>, ClusterError>;

/// How long "it does not answer" holds for the next who asks: steps that look at the same time need not all wait for it.
const SILENT: Duration = Duration::from_secs(2);

/// What every step works with.
#[derive(Clone, Debug)]
pub struct Ctx {
    /// What is wanted.
    pub inventory: Arc<Inventory>,
    /// The hosts.
    pub fleet: Fleet,
    /// What each host is; read once, before the first probe.
    pub platform: BTreeMap<String, HostPlatform>,
    /// Where events go.
    pub ui: Ui,
    /// The cluster while it is built.
    pub build: Arc<dyn BuildPort>,
    cluster: Arc<Mutex<Option<(Instant, Connected)>>>,
}

impl Ctx {
    /// What steps work with; nothing is connected yet.
    pub fn new(inventory: Arc<Inventory>, fleet: Fleet, platform: BTreeMap<String, HostPlatform>, ui: Ui) -> Self {
        let build = Arc::new(Builder::new(fleet.clone(), &inventory));
        Ctx { inventory, fleet, platform, ui, build, cluster: Arc::default() }
    }

    /// The Ceph cluster; connected once it can be.
    ///
    /// # Errors
    /// While it is not set up or has no quorum.
    pub async fn cluster(&self) -> Result<Arc<dyn ClusterPort>, ClusterError> {
        let mut last = self.cluster.lock().await;
        let known = last.as_ref().filter(|(at, found)| found.is_ok() || at.elapsed() < SILENT);
        let found = match known {
            Some((_, found)) => found.clone(),
            None => {
                let found = Cluster::connect(&self.fleet, &self.inventory).await.map(Arc::new);
                *last = Some((Instant::now(), found.clone()));
                found
            }
        };
        found.map(|cluster| cluster as Arc<dyn ClusterPort>)
    }

    /// The host of this name.
    ///
    /// # Errors
    /// When the inventory has none.
    pub fn remote(&self, host: &str) -> Result<Arc<dyn Remote>, Failure> {
        Ok(self.fleet.get(host)?)
    }

    /// Hosts with a role, in the inventory's order.
    pub fn with_role(&self, role: Role) -> Vec<&HostSpec> {
        self.inventory.with_role(role).collect()
    }

    /// Whether the host is a container, where kernel settings and device-mapper are not ours.
    pub fn container(&self, host: &str) -> bool {
        self.platform.get(host).is_some_and(HostPlatform::is_container)
    }
}

/// A step of provisioning written in Rust.
///
/// Steps run one after the other; inside a step its own code works on all hosts at once. `probe` must work on hosts
/// where no earlier step has run yet (no packages, no files): it then answers everything that will be made. `apply`
/// does exactly the changes it is given, each idempotent, so that a run that was killed is finished by the next one.
/// Afterwards the caller probes again; what is then still to do counts as a failure.
#[async_trait]
pub trait Step: Send + Sync {
    /// Short name, shown in the plan: `mons`.
    fn name(&self) -> &'static str;

    /// What has to change. Changes nothing. A `Refused` failure here stops the run before anything is touched.
    ///
    /// # Errors
    /// When a host cannot be looked at, or what is there must not be touched.
    async fn probe(&self, ctx: &Ctx) -> Result<Findings, Failure>;

    /// Makes these changes, which the step's own probe found.
    ///
    /// # Errors
    /// When a change cannot be made.
    async fn apply(&self, ctx: &Ctx, changes: &[Change]) -> Result<(), Failure>;
}
