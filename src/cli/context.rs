//! What every command starts from.

use super::global::Global;
use super::trace::Trace;
use crate::cluster::{Cluster, ClusterPort};
use crate::error::{Failure, Kind};
use crate::guest::GuestContext;
use crate::guest::claim::Run;
use crate::inventory::{self, Inventory};
use crate::quote::plain;
use crate::ssh::Fleet;
use crate::ui::Ui;
use crate::watch::history::{self, Entry};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How long a TCP and SSH handshake may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a connection for the history may take, where a command had none.
const REMEMBER: Duration = Duration::from_millis(700);
/// Characters of an outcome that the history keeps.
const OUTCOME: usize = 300;

/// Flags, terminal, and on demand the inventory and its hosts.
#[derive(Debug)]
pub struct Context {
    /// The global flags.
    pub global: Global,
    /// The terminal.
    pub ui: Ui,
    /// The cluster, once a command has connected to it.
    port: OnceLock<Arc<dyn ClusterPort>>,
}

impl Context {
    pub(super) fn new(global: Global, ui: Ui) -> Self {
        Context { global, ui, port: OnceLock::new() }
    }

    /// Reads the inventory the flags name.
    ///
    /// # Errors
    /// When it is missing or wrong (exit 2).
    pub fn inventory(&self) -> Result<Inventory, Failure> {
        inventory::load(&self.global.inventory)
    }

    /// The hosts of an inventory; nothing is connected yet.
    ///
    /// # Errors
    /// When no private directory for sockets can be made.
    pub fn fleet(&self, inventory: &Inventory) -> Result<Fleet, Failure> {
        Ok(Fleet::over_ssh(inventory, CONNECT)?)
    }

    /// The rack, for a command that asks the hypervisors: they are connected beside the cluster.
    ///
    /// # Errors
    /// When the inventory is wrong or the cluster cannot be asked.
    pub async fn rack(&self) -> Result<GuestContext, Failure> {
        let inventory = self.inventory()?;
        Ok(self.known(GuestContext::connect_with_hosts(self.fleet(&inventory)?, inventory, self.ui.clone()).await?))
    }

    /// The rack, for a command that asks the cluster alone: no connection to a hypervisor is opened.
    ///
    /// # Errors
    /// When the inventory is wrong or the cluster cannot be asked.
    pub async fn cluster(&self) -> Result<GuestContext, Failure> {
        let inventory = self.inventory()?;
        Ok(self.known(GuestContext::connect(self.fleet(&inventory)?, inventory, self.ui.clone()).await?))
    }

    /// Keeps the connection to the cluster in mind.
    fn known(&self, rack: GuestContext) -> GuestContext {
        let port: Arc<dyn ClusterPort> = Arc::clone(&rack.port) as Arc<dyn ClusterPort>;
        // A command that connects twice has the first one kept.
        let _ = self.port.set(port);
        rack
    }

    /// Writes down what a command did, over the connection that it had; else over a new one, if that takes no time. A
    /// command that touched nothing leaves nothing.
    pub(super) async fn remember(&self, trace: Trace, took: Duration, outcome: &Result<(), Failure>) {
        let outcome = match outcome {
            Ok(()) => "done".to_owned(),
            Err(failure) if failure.kind == Kind::Usage => return,
            Err(failure) => plain(&failure.to_string(), OUTCOME),
        };
        let port = match self.port.get() {
            Some(port) => Arc::clone(port),
            None => match tokio::time::timeout(REMEMBER, self.connect_anew()).await {
                Ok(Some(port)) => port,
                _ => return,
            },
        };
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let entry = Entry {
            at: jiff::Timestamp::now(),
            by: Run::new().by,
            // ADDRESS PORT ADDRESS PORT, as sshd sets it.
            from: variable("SSH_CONNECTION").and_then(|text| text.split(' ').next().map(str::to_owned)),
            command: trace.command,
            objects: trace.objects,
            flags: trace.flags,
            outcome,
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        };
        history::write(port.as_ref(), entry).await;
    }

    async fn connect_anew(&self) -> Option<Arc<dyn ClusterPort>> {
        let inventory = self.inventory().ok()?;
        let fleet = self.fleet(&inventory).ok()?;
        let cluster = Cluster::connect(&fleet, &inventory).await.ok()?;
        Some(Arc::new(cluster))
    }

    /// The rack, for a command that has to work while parts of it are dead: nothing is connected to yet.
    ///
    /// # Errors
    /// When the inventory is wrong.
    pub fn rack_as_it_is(&self) -> Result<GuestContext, Failure> {
        let inventory = self.inventory()?;
        Ok(self.known(GuestContext::over(self.fleet(&inventory)?, inventory, self.ui.clone())))
    }

    /// Asks before a change, unless `--yes` was given.
    ///
    /// # Errors
    /// When the answer is no or nobody can be asked.
    pub async fn confirm(&self, question: &str) -> Result<(), Failure> {
        self.agree("", question).await
    }

    /// Shows a plan and asks whether to go ahead, unless `--yes` was given.
    ///
    /// # Errors
    /// When the answer is no or nobody can be asked.
    pub async fn agree(&self, plan: &str, question: &str) -> Result<(), Failure> {
        if self.global.yes {
            self.ui.note(plan);
            return Ok(());
        }
        self.ui.confirm(plan, question).await
    }
}
