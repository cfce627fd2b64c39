//! `rackhand host reboot`.

use super::Context;
use super::host_names;
use super::moving::MoveArgs;
use crate::error::{Failure, Kind};
use crate::ui::Table;
use crate::watch::reboot::{Preview, Reboot, RollingReport, Turn, reboot_all};
use clap::Args;
use serde::Serialize;
use std::time::Duration;

/// Reboot hosts without losing a guest.
///
/// Moves the guests of the host away and puts it into maintenance, so that the watch does not take it for lost and Ceph
/// leaves its data where it is. Stops its OSDs, then its mon, and reboots it; waits until it has booted anew, libvirt
/// answers and all placement groups are clean; then ends the maintenance and moves its guests back. It is refused while
/// Ceph could not go on without the host. Run again, it goes on where an earlier run ended, and reboots nothing twice.
#[derive(Debug, Args)]
pub struct RebootArgs {
    /// The hosts.
    #[arg(value_name = "HOST", required_unless_present = "all")]
    hosts: Vec<String>,
    /// Reboot several hosts, one at a time, and stop at the first that does not come back.
    #[arg(long)]
    rolling: bool,
    /// All hosts of the inventory.
    #[arg(long, conflicts_with = "hosts", requires = "rolling")]
    all: bool,
    /// Begin a rolling reboot anew instead of going on with the one that is not over.
    #[arg(long, requires = "rolling")]
    anew: bool,
    /// How long a host may take to come back, and again until all of it is well.
    #[arg(long, value_name = "DURATION", default_value = "20m", value_parser = humantime::parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    how: MoveArgs,
}

#[derive(Serialize)]
struct Previews {
    hosts: Vec<Preview>,
}

/// Runs `rackhand host reboot`.
///
/// # Errors
/// Exit 5 when a host may not stop now; 3 when a rolling reboot has stopped half-way; 1 when a host does not come back.
pub async fn run(args: RebootArgs, context: &Context) -> Result<(), Failure> {
    let names = host_names::select(&context.inventory()?, &args.hosts)?;
    if names.len() > 1 && !args.rolling {
        let text = format!("{} are several hosts", names.join(" "));
        return Err(Failure::usage(text).hint("`--rolling` reboots them one at a time"));
    }
    let (rack, options, cancel_level) = args.how.begin(context).await?;
    if context.global.dry_run {
        let mut hosts = Vec::new();
        for name in &names {
            hosts.push(Reboot::preview(&rack, name, &options, &cancel_level).await?);
        }
        let refused: Vec<String> =
            hosts.iter().filter_map(|h| Some(format!("{}: {}", h.host, h.refused.as_ref()?))).collect();
        let previews = Previews { hosts };
        let lines = |p: &Previews| p.hosts.iter().map(Preview::render).collect::<Vec<_>>().join("\n");
        context.ui.result("rackhand.reboot-plan/1", &previews, lines)?;
        return if refused.is_empty() { Ok(()) } else { Err(Failure::msg(Kind::Refused, refused.join("; "))) };
    }
    let question = match names.as_slice() {
        [one] => format!("move the guests of {one} away and reboot it?"),
        all => format!("reboot {}, one after another, with their guests moved away?", all.join(", ")),
    };
    context.confirm(&question).await?;
    let turn = Turn::take(&rack).await?;
    let reboot = Reboot { rack: &rack, options: &options, patience: args.timeout, cancel_level, turn: &turn };
    let report = match args.rolling {
        true => reboot_all(&reboot, &names, args.anew).await,
        false => Ok(RollingReport::of_one(&names[0], reboot.run(&names[0]).await)),
    };
    turn.end().await;
    let report = report?;
    context.ui.result("rackhand.reboot/1", &report, table)?;
    match report.failure {
        Some(failure) => Err(failure),
        None => report.strays(),
    }
}

fn table(report: &RollingReport) -> String {
    let mut table = Table::new(["host", "outcome", "guests moved", "moved back", "time"]).right(2).right(3).right(4);
    for host in &report.hosts {
        let figure = |figure: u64| if host.reboot.is_some() { figure.to_string() } else { String::new() };
        let reboot = host.reboot.clone().unwrap_or_default();
        let [moved, returned] = [reboot.moved, reboot.returned].map(|n| figure(u64::try_from(n).unwrap_or(u64::MAX)));
        let time = host.reboot.as_ref().map(|reboot| format!("{} s", reboot.seconds)).unwrap_or_default();
        table.row([host.host.clone(), host.outcome.to_owned(), moved, returned, time]);
    }
    table.render()
}
