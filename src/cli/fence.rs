//! `rackhand fence`.

use super::{Context, fence_run, host_names};
use crate::error::{Failure, Kind};
use crate::fence::{self, FenceRecord, PathTested, Rehearsal, rehearse};
use crate::inventory::HostSpec;
use crate::ui::Table;
use crate::watch::storage_addresses;
use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

/// Shut a lost host out, so that its guests can start elsewhere; try beforehand whether that would work.
#[derive(Debug, Args)]
pub struct FenceArgs {
    #[command(subcommand)]
    command: FenceCommand,
}

#[derive(Debug, Subcommand)]
enum FenceCommand {
    Run(fence_run::RunArgs),
    Test(TestArgs),
    /// List the hosts that are fenced, with the proof of each.
    List,
}

/// Try every path that a fence would take; nothing is switched and no host is shut out.
///
/// Each host's BMC is asked from this machine and from other hosts: it has to have the host's service tag and to tell its
/// power. Ceph's blocklist has to be within reach. What comes of it is kept, and `rackhand doctor` tells of a path that has
/// not been found fit for over an hour.
#[derive(Debug, Args)]
struct TestArgs {
    /// Names or globs of hosts; all when none is given.
    #[arg(value_name = "HOST")]
    hosts: Vec<String>,
}

impl FenceArgs {
    /// Whether it changes nothing that would have to be finished.
    pub(super) fn only_looks(&self) -> bool {
        match self.command {
            FenceCommand::Test(_) | FenceCommand::List => true,
            FenceCommand::Run(_) => false,
        }
    }
}

#[derive(Serialize)]
struct Tested {
    hosts: Vec<Rehearsal>,
}

/// Runs `rackhand fence ...`.
///
/// # Errors
/// What the command itself reports.
pub async fn run(args: FenceArgs, context: &Context) -> Result<(), Failure> {
    match args.command {
        FenceCommand::Run(args) => fence_run::run(args, context).await,
        FenceCommand::Test(args) => test(&args, context).await,
        FenceCommand::List => list(context).await,
    }
}

#[derive(Serialize)]
struct Listed {
    /// What was written down of the fence.
    #[serde(flatten)]
    record: FenceRecord,
    /// Whether the storage still refuses all that the proof names.
    stands: bool,
}

#[derive(Serialize)]
struct Listing {
    fences: Vec<Listed>,
}

async fn list(context: &Context) -> Result<(), Failure> {
    let rack = context.cluster().await?;
    let (records, standing) = tokio::try_join!(fence::records(rack.port()), fence::standing(rack.port()))?;
    let hosts = rack.inventory.hosts.iter().filter(|host| !records.contains_key(&host.name));
    let addresses = hosts.map(|host| (host.name.clone(), storage_addresses(host))).collect();
    for host in fence::refused_hosts(rack.port(), &addresses).await? {
        context.ui.warn(format!(
            "the storage refuses {host}, and no fence of it is on record: `rackhand failover {host}` finishes one, \
             `rackhand readmit {host}` lets it in again"
        ));
    }
    let fences = records.into_values().map(|record| Listed { stands: standing.has(&record.host), record }).collect();
    context.ui.result("rackhand.fence-list/1", &Listing { fences }, |listing| list_table(&listing.fences))
}

fn list_table(fences: &[Listed]) -> String {
    if fences.is_empty() {
        return "no host is fenced".to_owned();
    }
    let mut table = Table::new(["host", "since", "storage", "power", "by", "why"]);
    for Listed { record, stands } in fences {
        let storage = match (stands, record.lifting) {
            (true, _) => format!("shut out, epoch {}", record.proof.epoch()),
            (false, true) => "being let in".to_owned(),
            (false, false) => "NOT SHUT OUT".to_owned(),
        };
        table.row([
            record.host.clone(),
            record.since.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
            storage,
            record.power.as_ref().map_or_else(|| "not proven".to_owned(), |power| format!("off: {}", power.by())),
            record.by.clone(),
            record.why.clone(),
        ]);
    }
    table.render()
}

async fn test(args: &TestArgs, context: &Context) -> Result<(), Failure> {
    let rack = context.cluster().await?;
    let names = host_names::select(&rack.inventory, &args.hosts)?;
    let hosts: Vec<&HostSpec> = names.iter().filter_map(|name| rack.inventory.host(name)).collect();
    let now = Timestamp::now();
    let tested = Tested { hosts: rehearse(rack.port(), &rack.inventory, &rack.fleet, &hosts, now).await? };
    context.ui.result("rackhand.fence-test/1", &tested, |tested| table(&tested.hosts, now))?;
    let unfit: Vec<&str> = tested.hosts.iter().filter(|h| !h.is_fit()).map(|h| h.host.as_str()).collect();
    match unfit.is_empty() {
        true => Ok(()),
        false => {
            Err(Failure::msg(Kind::Problem, format!("a fence of {} would not work as it should", unfit.join(", "))))
        }
    }
}

fn table(hosts: &[Rehearsal], now: Timestamp) -> String {
    let mut table = Table::new(["host", "service tag", "storage", "power"]);
    for host in hosts {
        let power = host.power.as_ref().map_or_else(|| "no BMC in the inventory".to_owned(), |power| path(power, now));
        table.row([host.host.clone(), host.serial.clone().unwrap_or_default(), path(&host.storage, now), power]);
    }
    table.render()
}

/// A path in words: fit, or what is wrong and when it was last fit.
fn path(path: &PathTested, now: Timestamp) -> String {
    match (&path.problem, path.age(now)) {
        (None, _) => "ok".to_owned(),
        (Some(problem), None) => format!("{problem} (never found fit)"),
        (Some(problem), Some(age)) => format!("{problem} (last found fit {} ago)", whole(age)),
    }
}

/// A duration in minutes, or in seconds below one.
fn whole(age: SignedDuration) -> String {
    match age.as_mins() {
        0 => format!("{} s", age.as_secs()),
        minutes => format!("{minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_what_is_wrong_and_since_when() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let tested = |succeeded, problem: Option<&str>| {
            path(&PathTested { succeeded, problem: problem.map(str::to_owned) }, at(10_000))
        };
        assert_eq!(tested(Some(at(10_000)), None), "ok");
        assert_eq!(tested(None, Some("no answer")), "no answer (never found fit)");
        assert_eq!(tested(Some(at(9_950)), Some("no answer")), "no answer (last found fit 50 s ago)");
        assert_eq!(tested(Some(at(2_000)), Some("no answer")), "no answer (last found fit 133 min ago)");
    }
}
