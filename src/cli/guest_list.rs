//! `rackhand guest list` and `rackhand guest show`.

use super::{Context, GuestSelection};
use crate::error::Failure;
use crate::guest::{GuestView, overview};
use crate::ui::Table;
use clap::Args;
use serde::Serialize;
use std::collections::BTreeSet;
use uuid::Uuid;

/// List guests.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    selection: GuestSelection,
}

/// Show one guest.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Name or UUID of the guest.
    guest: String,
}

#[derive(Serialize)]
struct Listing {
    guests: Vec<GuestView>,
}

/// Runs `rackhand guest list`.
///
/// # Errors
/// When the cluster cannot be asked or a name fits no guest.
pub async fn list(args: ListArgs, context: &Context) -> Result<(), Failure> {
    let rack = context.rack().await?;
    let (picked, overview) = tokio::join!(args.selection.resolve_or_all(&rack), overview(&rack));
    let (picked, overview) = (picked?, overview?);
    let picked: BTreeSet<Uuid> = picked.iter().map(|g| g.uuid).collect();
    for (host, why) in &overview.domain_inventory.silent {
        context.ui.warn(format!("host {host} does not answer: {why}"));
    }
    for name in overview.reserved.keys() {
        context.ui.warn(format!("guest {name} was begun and never defined: create it again, or delete it"));
    }
    let guests = overview.guests.into_iter().filter(|g| picked.contains(&g.uuid)).collect();
    context.ui.result("rackhand.guest-list/1", &Listing { guests }, |listing| {
        let mut table = Table::new(["guest", "state", "host", "address", "cpus", "memory", "disk", "image", "tags"]);
        for g in &listing.guests {
            table.row([
                g.name.clone(),
                g.state.to_string(),
                g.host.clone().unwrap_or_default(),
                addresses(g),
                g.cpus.to_string(),
                g.memory.to_string(),
                g.disks.first().map(|d| d.size.to_string()).unwrap_or_default(),
                format!("{}@{}", g.image.name, g.image.version),
                tags(g),
            ]);
        }
        table.render()
    })
}

/// Runs `rackhand guest show`.
///
/// # Errors
/// When there is no such guest or the cluster cannot be asked.
pub async fn show(args: ShowArgs, context: &Context) -> Result<(), Failure> {
    let rack = context.rack().await?;
    let guest = rack.guest(&args.guest).await?;
    let overview = overview(&rack).await?;
    let Some(view) = overview.guests.into_iter().find(|g| g.uuid == guest.uuid) else {
        return Err(Failure::failed(format!("guest {} was deleted meanwhile", guest.name)));
    };
    context.ui.result("rackhand.guest/1", &view, |g| {
        let disks: Vec<String> = g.disks.iter().map(|d| format!("{} {} ({})", d.name, d.size, d.image)).collect();
        let nics: Vec<String> = g.nics.iter().map(|n| format!("{} {} {}", n.network, n.address, n.mac)).collect();
        let state = g.reason.as_ref().map_or_else(|| g.state.to_string(), |why| format!("{} ({why})", g.state));
        let rows = [
            ("name", g.name.clone()),
            ("id", g.uuid.to_string()),
            ("state", state),
            ("host", g.host.clone().unwrap_or_default()),
            ("started", g.started.map(whole).unwrap_or_default()),
            ("nics", nics.join("; ")),
            ("memory", g.memory.to_string()),
            ("cpus", g.cpus.to_string()),
            ("disks", disks.join("; ")),
            ("image", format!("{}@{}", g.image.name, g.image.version)),
            ("machine", g.machine.clone()),
            ("tags", tags(g)),
            ("priority", g.priority.to_string()),
            ("failover", g.failover.to_string()),
            ("protected", if g.protected { "yes" } else { "no" }.to_owned()),
            ("bound to", g.pinned.clone().unwrap_or_default()),
            ("made", whole(g.created)),
        ];
        let lines: Vec<String> = rows
            .iter()
            .map(|(key, value)| format!("{key:<10} {}", if value.is_empty() { "-" } else { value }))
            .collect();
        lines.join("\n")
    })
}

/// A time to the second.
fn whole(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn addresses(guest: &GuestView) -> String {
    guest.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn tags(guest: &GuestView) -> String {
    guest.tags.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}
