//! `rackhand inventory`.

use super::Context;
use crate::error::Failure;
use crate::ui::Table;
use clap::{Args, Subcommand};

/// Look at the inventory file.
#[derive(Debug, Args)]
pub struct InventoryArgs {
    #[command(subcommand)]
    command: InventoryCommand,
}

#[derive(Debug, Subcommand)]
enum InventoryCommand {
    /// Read and check the file, and show its hosts.
    Show,
}

/// Runs `rackhand inventory ...`.
///
/// # Errors
/// When the inventory is missing or wrong (exit 2).
pub fn run(args: InventoryArgs, context: &Context) -> Result<(), Failure> {
    match args.command {
        InventoryCommand::Show => {
            let inventory = context.inventory()?;
            context.ui.result("rackhand.inventory/1", &inventory, |inventory| {
                let mut table = Table::new(["host", "management", "storage", "roles", "osds"]).right(4);
                for host in &inventory.hosts {
                    let roles: Vec<String> = host.roles.iter().map(|r| format!("{r:?}").to_lowercase()).collect();
                    table.row([
                        host.name.clone(),
                        host.address.to_string(),
                        host.storage_address.to_string(),
                        roles.join(","),
                        host.osds.len().to_string(),
                    ]);
                }
                table.render()
            })
        }
    }
}
