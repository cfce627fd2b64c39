//! `rackhand host maintenance`.

use super::Context;
use super::guest_run::OnOff;
use super::moving::{self, MoveArgs};
use crate::error::Failure;
use crate::guest::{GuestContext, Maintenance, begin_maintenance, end_maintenance, read_host_states};
use crate::inventory::Role;
use crate::movement::{Evacuation, execute};
use crate::ui::counted;
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// Put a host into maintenance or take it out.
///
/// A host in maintenance takes no more guests, the watch does not fence it, and Ceph does not move the data of its OSDs
/// elsewhere while they are down (`noout` for this host alone). Guests that run there stay, unless `--drain` moves them away;
/// `rackhand return` brings these back and ends the maintenance. When the time of `--for` is over nothing ends by itself:
/// `status`, `doctor` and the watch say so until the maintenance is ended. Said again, it changes the time and the reason.
#[derive(Debug, Args)]
pub struct MaintenanceArgs {
    /// The host.
    host: String,
    /// `on` or `off`.
    what: OnOff,
    /// How long it is meant to last.
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    length: Option<Duration>,
    /// Reason, shown by `rackhand status`.
    #[arg(long, alias = "why")]
    reason: Option<String>,
    /// Move its guests away, and remember them for `rackhand return`.
    #[arg(long)]
    drain: bool,
    #[command(flatten)]
    how: MoveArgs,
}

/// Runs `rackhand host maintenance`.
///
/// # Errors
/// When there is no such host or the cluster cannot be asked; with `--drain` as `rackhand evacuate`.
pub async fn run(args: MaintenanceArgs, context: &Context) -> Result<(), Failure> {
    match args.what {
        OnOff::On if args.drain => drain(args, context).await,
        OnOff::On => {
            let rack = context.cluster().await?;
            let wanted = wanted(&args, &rack)?;
            let action = "put into maintenance";
            if context.would(action, &[&args.host])? {
                return Ok(());
            }
            let changed = begin_maintenance(rack.port(), &args.host, wanted).await?;
            let already = if changed { "" } else { " already" };
            context.ui.note(format!("{} is{already} in maintenance: it takes no guests, and is not fenced", args.host));
            context.did(action, &args.host, changed)
        }
        OnOff::Off => off(&args, context).await,
    }
}

/// What is to be written down.
fn wanted(args: &MaintenanceArgs, rack: &GuestContext) -> Result<Maintenance, Failure> {
    let Some(spec) = rack.inventory.host(&args.host) else { return Err(unknown(&args.host)) };
    let now = Timestamp::now();
    let until = match args.length {
        None => None,
        Some(length) => {
            let end = SignedDuration::try_from(length).ok().and_then(|length| now.checked_add(length).ok());
            Some(end.ok_or_else(|| Failure::usage("--for is longer than time goes on"))?)
        }
    };
    let noout = !spec.osds.is_empty();
    Ok(Maintenance { since: now, by: rack.run.by.clone(), why: args.reason.clone(), until, noout })
}

fn unknown(host: &str) -> Failure {
    Failure::usage(format!("the inventory has no host `{host}`"))
}

async fn drain(args: MaintenanceArgs, context: &Context) -> Result<(), Failure> {
    let (rack, options, cancel_level) = args.how.begin(context).await?;
    let wanted = wanted(&args, &rack)?;
    if rack.inventory.host(&args.host).is_some_and(|spec| !spec.has(Role::Guests)) {
        return Err(Failure::usage(format!("host {} runs no guests", args.host)).hint("leave --drain away"));
    }
    let change = !context.global.dry_run;
    let evacuation = Evacuation::plan(&rack, &args.host, &options, &cancel_level, change).await?;
    if !change {
        return moving::show(context, &rack, evacuation.plan).await;
    }
    let moves = counted(evacuation.plan.moves.len(), "guest");
    let question = format!("put {} into maintenance and move {moves}?", args.host);
    moving::confirm(context, &evacuation.plan, &question).await?;
    begin_maintenance(rack.port(), &args.host, wanted).await?;
    let evacuation = evacuation.begin(&rack, true, &options, &cancel_level).await?;
    let report = execute(&rack, &evacuation.plan, &options, cancel_level).await;
    moving::conclude(context, &evacuation.plan, &report)
}

async fn off(args: &MaintenanceArgs, context: &Context) -> Result<(), Failure> {
    if args.length.is_some() || args.drain || args.reason.is_some() {
        return Err(Failure::usage("--for, --reason and --drain go with `on`"));
    }
    let rack = context.cluster().await?;
    if rack.inventory.host(&args.host).is_none() {
        return Err(unknown(&args.host));
    }
    let action = "put into service";
    if context.would(action, &[&args.host])? {
        return Ok(());
    }
    let changed = end_maintenance(rack.port(), &args.host).await?;
    let already = if changed { "" } else { " already" };
    context.ui.note(format!("{} is{already} in service", args.host));
    let left = read_host_states(rack.port()).await?.remove(&args.host).map_or(0, |state| state.left.len());
    if left > 0 {
        let guests = counted(left, "guest");
        context.ui.note(format!("{guests} left it: `rackhand return {}` moves them back", args.host));
    }
    context.did(action, &args.host, changed)
}
