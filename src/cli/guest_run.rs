//! `rackhand guest start`, `stop`, `reboot`, `delete`, `protect`.

use super::Context;
use super::guest_selection::{GuestNames, GuestSelection};
use crate::error::Failure;
use crate::guest::{self, Guest, How, Rack, conclude};
use clap::{Args, ValueEnum};
use std::time::Duration;

/// Start guests.
///
/// A guest starts at most once: where it may still run on a host that does not answer, the start is refused.
#[derive(Debug, Args)]
pub struct StartArgs {
    #[command(flatten)]
    selection: GuestNames,
    /// Start it on this host.
    #[arg(long)]
    host: Option<String>,
}

/// Stop guests: by their power button, or at once with --force.
#[derive(Debug, Args)]
pub struct StopArgs {
    #[command(flatten)]
    selection: GuestSelection,
    /// Pull the plug.
    #[arg(long)]
    force: bool,
    /// How long a guest may take to shut itself down.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "90s", value_name = "DURATION")]
    timeout: Duration,
}

/// Reboot guests: ask them to, or press the reset button with --force.
#[derive(Debug, Args)]
pub struct RebootArgs {
    #[command(flatten)]
    selection: GuestSelection,
    /// Press the reset button.
    #[arg(long)]
    force: bool,
}

/// Delete guests with their disks; running ones are stopped at once.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    #[command(flatten)]
    selection: GuestSelection,
}

/// Refuse to delete guests, or no longer.
#[derive(Debug, Args)]
pub struct ProtectArgs {
    /// Protect them, or not.
    what: OnOff,
    #[command(flatten)]
    selection: GuestSelection,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnOff {
    /// Yes.
    On,
    /// No.
    Off,
}

/// Tells what would be done, for `--dry-run`.
fn dry(context: &Context, verb: &str, guests: &[Guest]) -> bool {
    if context.global.dry_run {
        for guest in guests {
            context.ui.note(format!("would {verb} {}", guest.name));
        }
    }
    context.global.dry_run
}

/// Runs `rackhand guest start`.
///
/// # Errors
/// When a guest cannot be started.
pub async fn start(args: StartArgs, context: &Context) -> Result<(), Failure> {
    let rack = context.rack().await?;
    let guests = args.selection.resolve(&rack).await?;
    if dry(context, "start", &guests) {
        return Ok(());
    }
    conclude("start", guest::start(&rack, &guests, args.host.as_deref()).await).map(drop)
}

/// Runs `rackhand guest stop`.
///
/// # Errors
/// When a guest cannot be stopped.
pub async fn stop(args: StopArgs, context: &Context) -> Result<(), Failure> {
    let rack = context.rack().await?;
    let guests = args.selection.resolve(&rack).await?;
    if dry(context, "stop", &guests) {
        return Ok(());
    }
    let how = if args.force { How::Force } else { How::Shutdown(args.timeout) };
    conclude("stop", guest::stop(&rack, &guests, how).await?).map(drop)
}

/// Runs `rackhand guest reboot`.
///
/// # Errors
/// When a guest does not run or cannot be rebooted.
pub async fn reboot(args: RebootArgs, context: &Context) -> Result<(), Failure> {
    let rack = context.rack().await?;
    let guests = args.selection.resolve(&rack).await?;
    if dry(context, "reboot", &guests) {
        return Ok(());
    }
    conclude("reboot", guest::reboot(&rack, &guests, args.force).await).map(drop)
}

/// Runs `rackhand guest delete`.
///
/// # Errors
/// When the answer is no, a guest is protected, or it cannot be deleted.
pub async fn delete(args: DeleteArgs, context: &Context) -> Result<(), Failure> {
    let rack = context.rack().await?;
    if delete_begun(&args, &rack, context).await? {
        return Ok(());
    }
    let guests = args.selection.resolve(&rack).await?;
    if guests.is_empty() || dry(context, "delete", &guests) {
        return Ok(());
    }
    let names: Vec<&str> = guests.iter().map(|g| g.name.as_str()).collect();
    context.confirm(&format!("delete {} with all data", names.join(", "))).await?;
    conclude("delete", guest::delete(&rack, &guests).await?).map(drop)
}

/// Clears away a single name that a killed `create` reserved; tells whether that was it.
async fn delete_begun(args: &DeleteArgs, rack: &Rack, context: &Context) -> Result<bool, Failure> {
    let [name] = args.selection.names.guests.as_slice() else { return Ok(false) };
    let Some(uuid) = rack.index().await?.get(name).copied() else { return Ok(false) };
    if rack.guests().await?.iter().any(|g| g.uuid == uuid) {
        return Ok(false);
    }
    if !context.global.dry_run {
        guest::delete_reserved(rack, name, uuid).await?;
    }
    context.ui.note(format!("guest {name} was begun and never defined; its name is free again"));
    Ok(true)
}

/// Runs `rackhand guest protect`.
///
/// # Errors
/// When a guest cannot be changed.
pub async fn protect(args: ProtectArgs, context: &Context) -> Result<(), Failure> {
    let rack = context.rack().await?;
    let guests = args.selection.resolve(&rack).await?;
    if dry(context, "change the protection of", &guests) {
        return Ok(());
    }
    conclude("protect", guest::protect(&rack, &guests, args.what == OnOff::On).await).map(drop)
}
