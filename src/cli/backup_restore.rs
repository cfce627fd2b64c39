//! `rackhand backup restore`.

use super::Context;
use crate::backup::{Repository, Restore, find, restore};
use crate::error::Failure;
use crate::guest::{self, conclude};
use clap::Args;
use serde::Serialize;

/// Restore a guest: its disks are made new, its definition comes back.
///
/// It also works in a cluster that does not know the guest any more. A guest that is there is never overwritten: it is deleted
/// first, or restored beside itself under another name, with another UUID, MAC and address.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// Name or UUID of the guest, with the point as GUEST@POINT; else its newest that can be restored.
    guest: String,
    /// Restore it as another guest of this name.
    #[arg(long = "as", value_name = "NAME")]
    name: Option<String>,
    /// Start it.
    #[arg(long)]
    start: bool,
    /// Repository of the inventory; the only one where none is named.
    #[arg(long, value_name = "REPOSITORY")]
    from: Option<String>,
}

#[derive(Serialize)]
struct Restored {
    guest: String,
    uuid: String,
    point: String,
    host: Option<String>,
}

/// Runs `rackhand backup restore`.
///
/// # Errors
/// When the guest is there already, or cannot be restored or started.
pub async fn run(args: RestoreArgs, context: &Context) -> Result<(), Failure> {
    let rack = context.rack().await?;
    let repository = Repository::of(&rack.inventory, args.from.as_deref())?;
    let (guest, point) = match args.guest.split_once('@') {
        Some((guest, point)) => (guest.to_owned(), Some(point.to_owned())),
        None => (args.guest, None),
    };
    let found = find(&rack, &repository, &Restore { guest: guest.clone(), point, name: None }).await?;
    let name = args.name.clone().unwrap_or_else(|| found.name.clone());
    if context.would("restore", &[format!("{name} from {} of {}", found.point, repository.name)])? {
        return Ok(());
    }
    // The point that was found, whatever is stored meanwhile.
    let wanted = Restore { guest: found.guest.clone(), point: Some(found.point.clone()), name: args.name };
    let restored = restore(&rack, &repository, &wanted).await?;
    let mut host = None;
    if args.start {
        let started = guest::start(&rack, std::slice::from_ref(&restored), None).await;
        host = conclude("start", started)?.pop().map(|started| started.host);
    }
    let document = Restored { guest: name, uuid: restored.uuid.to_string(), point: found.point, host };
    if context.ui.wants_json() {
        context.ui.result("rackhand.backup-restore/1", &document, |_| String::new())?;
    }
    Ok(())
}
