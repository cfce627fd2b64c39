//! `rackhand guest start`, `stop`, `reboot`, `resume`, `delete`, `protect`.

use super::Context;
use super::guest_selection::{GuestNames, GuestSelection};
use crate::error::{Failure, Kind};
use crate::guest::{self, Guest, GuestContext, How, conclude};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::time::Duration;

/// Start guests.
///
/// A guest never runs twice: when it may still run on a host that does not answer, the start is refused.
#[derive(Debug, Args)]
pub struct StartArgs {
    #[command(flatten)]
    selection: GuestNames,
    /// Host to start them on.
    #[arg(long)]
    host: Option<String>,
}

/// Shut guests down, or stop them at once with --force.
#[derive(Debug, Args)]
pub struct StopArgs {
    #[command(flatten)]
    selection: GuestSelection,
    /// Stop at once, as if the power were cut.
    #[arg(long)]
    force: bool,
    /// How long a guest may take to shut down.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "90s", value_name = "DURATION")]
    timeout: Duration,
}

/// Reboot guests, or reset them at once with --force.
#[derive(Debug, Args)]
pub struct RebootArgs {
    #[command(flatten)]
    selection: GuestSelection,
    /// Reset at once, without shutting down.
    #[arg(long)]
    force: bool,
}

/// Let guests go on that stand still: after a disk that failed, or paused by another tool.
///
/// A guest that was handed over by a broken move is not resumed: its memory may be older than its disk.
#[derive(Debug, Args)]
pub struct ResumeArgs {
    #[command(flatten)]
    selection: GuestSelection,
}

/// Delete guests with their disks; running guests are stopped at once.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    #[command(flatten)]
    selection: GuestSelection,
}

/// Turn delete protection on or off.
#[derive(Debug, Args)]
pub struct ProtectArgs {
    /// `on` or `off`.
    what: OnOff,
    #[command(flatten)]
    selection: GuestSelection,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnOff {
    /// Turn it on.
    On,
    /// Turn it off.
    Off,
}

#[derive(Serialize)]
struct Outcomes {
    guests: Vec<Outcome>,
}

/// What came of a guest.
#[derive(Serialize)]
struct Outcome {
    guest: String,
    outcome: &'static str,
    host: Option<String>,
    reason: Option<String>,
}

/// Writes what came of each guest, for scripts; people have been told by events already.
fn tell(context: &Context, guests: Vec<Outcome>) -> Result<(), Failure> {
    if context.ui.wants_json() {
        context.ui.result("rackhand.guest-outcomes/1", &Outcomes { guests }, |_| String::new())?;
    }
    Ok(())
}

/// Ends a command on several guests: `said` tells what came of one that did not fail, and its host.
pub(super) fn end<T>(
    context: &Context,
    verb: &str,
    results: Vec<(String, Result<T, Failure>)>,
    said: impl Fn(&T) -> (&'static str, Option<String>),
) -> Result<(), Failure> {
    let one = |(guest, result): &(String, Result<T, Failure>)| {
        let (outcome, host) = match result {
            Ok(value) => said(value),
            Err(failure) => (word(failure.kind), None),
        };
        let reason = result.as_ref().err().map(ToString::to_string);
        Outcome { guest: guest.clone(), outcome, host, reason }
    };
    let told = tell(context, results.iter().map(one).collect());
    conclude(verb, results)?;
    told
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Refused => "refused",
        Kind::Unknown => "unknown",
        Kind::Busy => "busy",
        Kind::Interrupted => "interrupted",
        Kind::Failed | Kind::Usage | Kind::Partial | Kind::Problem => "failed",
    }
}

/// Under `--dry-run`, shows what would be done; tells whether that was it.
pub(super) fn dry(context: &Context, verb: &str, guests: &[Guest]) -> Result<bool, Failure> {
    if guests.is_empty() {
        context.ui.warn(format!("no guest fits: nothing to {verb}"));
    }
    context.would(verb, &guests.iter().map(|guest| guest.name.as_str()).collect::<Vec<_>>())
}

/// Runs `rackhand guest start`.
///
/// # Errors
/// When a guest cannot be started.
pub async fn start(args: StartArgs, context: &Context) -> Result<(), Failure> {
    let rack = context.rack().await?;
    let guests = args.selection.resolve(&rack).await?;
    if dry(context, "start", &guests)? {
        return Ok(());
    }
    let started = guest::start(&rack, &guests, args.host.as_deref()).await;
    end(context, "start", started, |s| (if s.already { "unchanged" } else { "started" }, Some(s.host.clone())))
}

/// Runs `rackhand guest stop`.
///
/// # Errors
/// When a guest cannot be stopped.
pub async fn stop(args: StopArgs, context: &Context) -> Result<(), Failure> {
    let rack = context.rack().await?;
    let guests = args.selection.resolve(&rack).await?;
    if dry(context, "stop", &guests)? {
        return Ok(());
    }
    let how = if args.force { How::Force } else { How::Shutdown(args.timeout) };
    end(context, "stop", guest::stop(&rack, &guests, how).await?, |ran| {
        (if *ran { "stopped" } else { "unchanged" }, None)
    })
}

/// Runs `rackhand guest reboot`.
///
/// # Errors
/// When a guest does not run or cannot be rebooted.
pub async fn reboot(args: RebootArgs, context: &Context) -> Result<(), Failure> {
    let rack = context.rack().await?;
    let guests = args.selection.resolve(&rack).await?;
    if dry(context, "reboot", &guests)? {
        return Ok(());
    }
    end(context, "reboot", guest::reboot(&rack, &guests, args.force).await?, |()| ("rebooted", None))
}

/// Runs `rackhand guest resume`.
///
/// # Errors
/// When a guest cannot be resumed.
pub async fn resume(args: ResumeArgs, context: &Context) -> Result<(), Failure> {
    let rack = context.rack().await?;
    let guests = args.selection.resolve(&rack).await?;
    if dry(context, "resume", &guests)? {
        return Ok(());
    }
    end(context, "resume", guest::resume(&rack, &guests).await, |(host, already)| {
        (if *already { "unchanged" } else { "resumed" }, Some(host.clone()))
    })
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
    if dry(context, "delete", &guests)? {
        return Ok(());
    }
    if guests.is_empty() {
        return tell(context, Vec::new());
    }
    let names: Vec<&str> = guests.iter().map(|g| g.name.as_str()).collect();
    context.confirm(&format!("delete {} with all data?", names.join(", "))).await?;
    end(context, "delete", guest::delete(&rack, &guests).await?, |()| ("deleted", None))
}

/// Clears away a single name that a killed `create` reserved; tells whether that was it.
async fn delete_begun(args: &DeleteArgs, rack: &GuestContext, context: &Context) -> Result<bool, Failure> {
    let [name] = args.selection.names.guests.as_slice() else { return Ok(false) };
    let Some(uuid) = rack.index().await?.get(name).copied() else { return Ok(false) };
    if rack.guests().await?.iter().any(|g| g.uuid == uuid) {
        return Ok(false);
    }
    if context.would("delete", &[name])? {
        return Ok(true);
    }
    guest::delete_reserved(rack, name, uuid).await?;
    context.ui.note(format!("guest {name} was begun and never defined; its name is free again"));
    tell(context, vec![Outcome { guest: name.clone(), outcome: "deleted", host: None, reason: None }])?;
    Ok(true)
}

/// Runs `rackhand guest protect`.
///
/// # Errors
/// When a guest cannot be changed.
pub async fn protect(args: ProtectArgs, context: &Context) -> Result<(), Failure> {
    let rack = context.cluster().await?;
    let guests = args.selection.resolve(&rack).await?;
    if dry(context, if args.what == OnOff::On { "protect" } else { "unprotect" }, &guests)? {
        return Ok(());
    }
    let protected = guest::protect(&rack, &guests, args.what == OnOff::On).await;
    end(context, "protect", protected, |guest| (if guest.protected { "protected" } else { "unprotected" }, None))
}
