//! What every command starts from.

use super::global::Global;
use crate::error::Failure;
use crate::guest::GuestContext;
use crate::inventory::{self, Inventory};
use crate::ssh::Fleet;
use crate::ui::Ui;
use std::time::Duration;

/// How long a TCP and SSH handshake may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Flags, terminal, and on demand the inventory and its hosts.
#[derive(Debug)]
pub struct Context {
    /// The global flags.
    pub global: Global,
    /// The terminal.
    pub ui: Ui,
}

impl Context {
    pub(super) fn new(global: Global, ui: Ui) -> Self {
        Context { global, ui }
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
        GuestContext::connect_with_hosts(self.fleet(&inventory)?, inventory, self.ui.clone()).await
    }

    /// The rack, for a command that asks the cluster alone: no connection to a hypervisor is opened.
    ///
    /// # Errors
    /// When the inventory is wrong or the cluster cannot be asked.
    pub async fn cluster(&self) -> Result<GuestContext, Failure> {
        let inventory = self.inventory()?;
        GuestContext::connect(self.fleet(&inventory)?, inventory, self.ui.clone()).await
    }

    /// The rack, for a command that has to work while parts of it are dead: nothing is connected to yet.
    ///
    /// # Errors
    /// When the inventory is wrong.
    pub fn rack_as_it_is(&self) -> Result<GuestContext, Failure> {
        let inventory = self.inventory()?;
        Ok(GuestContext::over(self.fleet(&inventory)?, inventory, self.ui.clone()))
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
