//! `rackhand host`.

use super::Context;
use crate::error::{Failure, Kind};
use crate::host::{self, Facts, Nic};
use crate::inventory::{HostSpec, Inventory};
use crate::ssh::{Fleet, HostKey, RemoteError};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::net::IpAddr;
use std::time::Duration;

/// How long a TCP and SSH handshake may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Record the SSH keys of hosts, put hosts into maintenance, and reboot them.
#[derive(Debug, Args)]
pub struct HostArgs {
    #[command(subcommand)]
    command: HostCommand,
}

#[derive(Debug, Subcommand)]
enum HostCommand {
    Add(AddArgs),
    Maintenance(super::host_maintenance::MaintenanceArgs),
    Reboot(super::host_reboot::RebootArgs),
}

/// Record the SSH key of a host, and print what to add to the inventory.
///
/// Shows the fingerprint and asks: compare it with the fingerprint on the console of the host. A key that differs from
/// the recorded key is refused.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// Name of the host.
    name: String,
    /// Its address on the management network.
    address: IpAddr,
    /// SSH port [default: the inventory's].
    #[arg(long)]
    port: Option<u16>,
    /// Login name [default: the inventory's].
    #[arg(long)]
    user: Option<String>,
}

#[derive(Serialize)]
struct Added {
    host: String,
    address: IpAddr,
    fingerprints: Vec<String>,
    known_hosts: std::path::PathBuf,
    /// Whether the key was recorded before.
    known: bool,
    /// What to add to the inventory; empty where the host is in it.
    snippet: String,
}

/// Runs `rackhand host ...`.
///
/// # Errors
/// When the host does not answer, or presents another key than the recorded one (exit 5).
pub async fn run(args: HostArgs, context: &Context) -> Result<(), Failure> {
    match args.command {
        HostCommand::Add(args) => add(args, context).await,
        HostCommand::Maintenance(args) => super::host_maintenance::run(args, context).await,
        HostCommand::Reboot(args) => super::host_reboot::run(args, context).await,
    }
}

async fn add(args: AddArgs, context: &Context) -> Result<(), Failure> {
    let inventory = context.inventory()?;
    let listed = inventory.host(&args.name).cloned();
    if let Some(host) = listed.as_ref().filter(|host| host.address != args.address) {
        return Err(Failure::usage(format!("the inventory has host {} at {}", host.name, host.address))
            .hint("change the address there first, or use another name"));
    }
    let mut host = match listed.clone() {
        Some(host) => host,
        None => bare(&args)?,
    };
    host.port = args.port.or(host.port);
    host.user = args.user.clone().or(host.user);
    let key = HostKey::ask(&inventory, &host, CONNECT).await.map_err(|error| match error {
        RemoteError::HostKey { .. } => Failure::new(Kind::Refused, error),
        other => Failure::from(other),
    })?;
    let known = key.new_lines.is_empty();
    if !known {
        for print in &key.fingerprints {
            context.ui.note(format!("host {} at {} presents {print}", host.name, host.address));
        }
        if !context.global.dry_run {
            context.confirm(&format!("record this key of {} in {}?", host.name, key.file.display())).await?;
            key.record()?;
        }
    }
    let snippet = if listed.is_some() { String::new() } else { snippet(&inventory, host.clone(), context).await };
    let (name, address) = (host.name, host.address);
    let added = Added { host: name, address, fingerprints: key.fingerprints, known_hosts: key.file, known, snippet };
    let dry = context.global.dry_run;
    context.ui.result("rackhand.host-added/1", &added, |added| text(added, dry))
}

fn text(added: &Added, dry: bool) -> String {
    let done = match (added.known, dry) {
        (true, _) => "is recorded already",
        (false, true) => "would be recorded",
        (false, false) => "is recorded",
    };
    let mut text = format!("the key of {} {done} in {}", added.host, added.known_hosts.display());
    if !added.snippet.is_empty() {
        text.push_str("\n\nadd to `hosts:` in the inventory:\n\n");
        text.push_str(&added.snippet);
    }
    text
}

/// A host the inventory does not have yet.
fn bare(args: &AddArgs) -> Result<HostSpec, Failure> {
    let spec = serde_json::json!({ "name": args.name, "address": args.address, "storage_address": args.address });
    Ok(serde_json::from_value(spec)?)
}

/// The lines for the inventory, filled in by a look at the host where its login works.
async fn snippet(inventory: &Inventory, host: HostSpec, context: &Context) -> String {
    let mut with_it = inventory.clone();
    with_it.hosts = vec![host.clone()];
    let look = async {
        let remote = Fleet::over_ssh(&with_it, CONNECT).ok()?.get(&host.name).ok()?;
        host::gather(remote.as_ref()).await.map_err(|error| context.ui.warn(error.to_string())).ok()
    };
    let facts = if context.global.dry_run { None } else { look.await };
    lines(inventory, &host, facts.as_ref())
}

fn lines(inventory: &Inventory, host: &HostSpec, facts: Option<&Facts>) -> String {
    let storage = facts.and_then(|facts| {
        let all = facts.nics.iter().flat_map(Nic::lasting).filter_map(|a| a.split('/').next()?.parse().ok());
        all.into_iter().find(|address: &IpAddr| inventory.networks.storage.cidr.contains(address))
    });
    let storage =
        storage.map_or_else(|| format!("# its address in {}", inventory.networks.storage.cidr), |a| a.to_string());
    let mut text = format!("  - name: {}\n    address: {}\n    storage_address: {storage}\n", host.name, host.address);
    if let Some(user) = &host.user {
        text.push_str(&format!("    user: {user}\n"));
    }
    if let Some(port) = host.port {
        text.push_str(&format!("    port: {port}\n"));
    }
    let empty = facts.map(|f| f.disks.iter().filter(|d| d.is_empty() && !d.read_only)).into_iter().flatten();
    let disks: Vec<&str> = empty.filter_map(|disk| disk.stable_name()).collect();
    if !disks.is_empty() {
        text.push_str("    osds: # its empty disks\n");
        for disk in disks {
            text.push_str(&format!("      - {disk}\n"));
        }
    }
    text
}
