//! `rackhand network`.

use super::Context;
use crate::error::Failure;
use crate::guest::address;
use crate::ui::Table;
use clap::{Args, Subcommand};
use serde::Serialize;
use std::net::IpAddr;

/// List the networks of guests and their addresses.
#[derive(Debug, Args)]
pub struct NetworkArgs {
    #[command(subcommand)]
    command: NetworkCommand,
}

#[derive(Debug, Subcommand)]
enum NetworkCommand {
    /// List the networks of guests.
    List,
    /// Show which guest has which address of a network.
    Pool {
        /// The network.
        network: String,
        /// Forget which addresses were found in use by other machines, so that guests may get them again.
        #[arg(long)]
        forget_conflicts: bool,
    },
}

impl NetworkArgs {
    /// Whether it changes nothing.
    pub(super) fn only_looks(&self) -> bool {
        !matches!(self.command, NetworkCommand::Pool { forget_conflicts: true, .. })
    }
}

#[derive(Serialize)]
struct Networks {
    networks: Vec<Network>,
}

#[derive(Serialize)]
struct Pool {
    network: String,
    addresses: Vec<Entry>,
}

#[derive(Serialize)]
struct Network {
    name: String,
    bridge: String,
    cidr: String,
    taken: usize,
}

#[derive(Serialize)]
struct Entry {
    address: IpAddr,
    owner: String,
    guest: Option<String>,
}

/// Runs `rackhand network ...`.
///
/// # Errors
/// When there is no such network or the cluster cannot be asked.
pub async fn run(args: NetworkArgs, context: &Context) -> Result<(), Failure> {
    let rack = context.cluster().await?;
    match args.command {
        NetworkCommand::List => {
            let mut networks = Vec::new();
            for (name, network) in &rack.inventory.networks.guests {
                let keys = rack.port().keys(&address::object(name)).await?;
                let taken = keys.keys().filter(|k| k.parse::<IpAddr>().is_ok()).count();
                networks.push(Network {
                    name: name.clone(),
                    bridge: network.bridge.clone(),
                    cidr: network.cidr.to_string(),
                    taken,
                });
            }
            context.ui.result("rackhand.network-list/1", &Networks { networks }, |list| {
                let mut table = Table::new(["network", "bridge", "addresses", "taken"]).right(3);
                for n in &list.networks {
                    table.row([n.name.clone(), n.bridge.clone(), n.cidr.clone(), n.taken.to_string()]);
                }
                table.render()
            })
        }
        NetworkCommand::Pool { network, forget_conflicts } => {
            if !rack.inventory.networks.guests.contains_key(&network) {
                return Err(Failure::usage(format!("the inventory has no guest network `{network}`")));
            }
            if forget_conflicts && !context.global.dry_run {
                let n = address::forget_conflicts(rack.port(), &network).await?;
                context.ui.note(format!("{n} conflicts forgotten"));
            }
            let guests = rack.guests().await?;
            let keys = rack.port().keys(&address::object(&network)).await?;
            let entry = |(key, owner): (&String, &String)| {
                let uuid = owner.split('/').next().unwrap_or_default();
                let guest = guests.iter().find(|g| g.uuid.to_string() == uuid).map(|g| g.name.clone());
                Some(Entry { address: key.parse().ok()?, owner: owner.clone(), guest })
            };
            let mut entries: Vec<Entry> = keys.iter().filter_map(entry).collect();
            entries.sort_by_key(|e| e.address);
            context.ui.result("rackhand.network-pool/1", &Pool { network, addresses: entries }, |pool| {
                let mut table = Table::new(["address", "guest", "owner"]);
                for e in &pool.addresses {
                    table.row([e.address.to_string(), e.guest.clone().unwrap_or_default(), e.owner.clone()]);
                }
                table.render()
            })
        }
    }
}
