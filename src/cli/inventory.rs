//! `rackhand inventory`.

use super::Context;
use crate::error::Failure;
use crate::inventory::{self, Diagnostic, Diagnostics, Inventory};
use crate::ui::Table;
use clap::{Args, Subcommand};
use serde::Serialize;

/// Check or show the inventory file.
#[derive(Debug, Args)]
pub struct InventoryArgs {
    #[command(subcommand)]
    command: InventoryCommand,
}

#[derive(Debug, Subcommand)]
enum InventoryCommand {
    /// Check the file; every mistake is listed with its line and a fix.
    Check,
    /// Show the hosts of the file; `-o json` has all of it, with defaults filled in.
    Show,
    /// Print the JSON Schema of the file, for editors.
    Schema,
}

/// Runs `rackhand inventory ...`.
///
/// # Errors
/// When the inventory is missing or wrong (exit 2).
pub fn run(args: &InventoryArgs, context: &Context) -> Result<(), Failure> {
    match args.command {
        InventoryCommand::Check => check(context),
        InventoryCommand::Show => context.ui.result("rackhand.inventory/1", &context.inventory()?, table),
        InventoryCommand::Schema => context.ui.print(&serde_json::to_string_pretty(&inventory::schema())?),
    }
}

#[derive(Serialize)]
struct Checked<'a> {
    file: String,
    hosts: usize,
    diagnostics: &'a [Diagnostic],
}

fn check(context: &Context) -> Result<(), Failure> {
    let file = context.global.inventory.display().to_string();
    let (hosts, outcome) = match context.inventory() {
        Ok(inventory) => (inventory.hosts.len(), Ok(())),
        Err(failure) => (0, Err(failure)),
    };
    let found = outcome.as_ref().err().map(|f| f.source.downcast_ref::<Diagnostics>());
    let diagnostics = match &found {
        None => &[],
        Some(Some(diagnostics)) => diagnostics.list(),
        Some(None) => return outcome,
    };
    if outcome.is_ok() || context.ui.wants_json() {
        let document = Checked { file, hosts, diagnostics };
        context.ui.result("rackhand.inventory-check/1", &document, |d| {
            format!("{} is correct: {} host{}", d.file, d.hosts, if d.hosts == 1 { "" } else { "s" })
        })?;
    }
    outcome
}

fn table(inventory: &Inventory) -> String {
    let mut table = Table::new(["host", "management", "storage", "rack", "roles", "osds", "bmc"]).right(5);
    for host in &inventory.hosts {
        let roles: Vec<&str> = host.roles.iter().map(|r| r.word()).collect();
        table.row([
            host.name.clone(),
            host.address.to_string(),
            host.storage_address.to_string(),
            host.location.rack.clone().unwrap_or_default(),
            roles.join(","),
            host.osds.len().to_string(),
            host.bmc.as_ref().map(|b| b.address.to_string()).unwrap_or_default(),
        ]);
    }
    table.render()
}
