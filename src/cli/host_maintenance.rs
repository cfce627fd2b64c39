//! `rackhand host maintenance`.

use super::Context;
use super::guest_run::OnOff;
use crate::error::Failure;
use crate::guest::{Maintenance, set_maintenance};
use clap::Args;

/// Put a host into maintenance or take it out.
///
/// A host in maintenance takes no more guests. Guests that run there stay; `rackhand evacuate` moves them away.
#[derive(Debug, Args)]
pub struct MaintenanceArgs {
    /// The host.
    host: String,
    /// `on` or `off`.
    what: OnOff,
    /// Reason, shown by `rackhand status`.
    #[arg(long)]
    why: Option<String>,
}

/// Runs `rackhand host maintenance`.
///
/// # Errors
/// When there is no such host or the cluster cannot be asked.
pub async fn run(args: MaintenanceArgs, context: &Context) -> Result<(), Failure> {
    let rack = context.cluster().await?;
    if rack.inventory.host(&args.host).is_none() {
        return Err(Failure::usage(format!("the inventory has no host `{}`", args.host)));
    }
    let (action, maintenance) = match args.what {
        OnOff::On => {
            let maintenance = Maintenance { since: jiff::Timestamp::now(), by: rack.run.by.clone(), why: args.why };
            ("put into maintenance", Some(maintenance))
        }
        OnOff::Off => ("put into service", None),
    };
    if context.would(action, &[&args.host])? {
        return Ok(());
    }
    let word = if maintenance.is_some() { "in maintenance: it takes no guests" } else { "in service" };
    let changed = set_maintenance(rack.port(), &args.host, maintenance).await?;
    let already = if changed { "" } else { " already" };
    context.ui.note(format!("{} is{already} {word}", args.host));
    context.did(action, &args.host, changed)
}
