//! `rackhand provision`.

use super::Context;
use crate::cluster::Cluster;
use crate::error::{Failure, Kind, LocalExt, ResultExt};
use crate::fence::rehearse;
use crate::inventory::{HostSpec, Inventory};
use crate::playbook::{Library, wait_for_units};
use crate::provision::{
    Ctx, HostLock, HostPlatform, Plan, Provision, RunGuard, Stage, lock, owner, probe_platform, stages, together,
};
use crate::ssh::{Fleet, RemoteError};
use crate::ui::{ShutdownPolicy, Table, counted};
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a job that a killed run left behind may still take.
const LEFT_BEHIND: Duration = Duration::from_secs(1800);

/// A step that runs is finished: half of one is what the next run would have to look through.
const PATIENCE: ShutdownPolicy = ShutdownPolicy {
    once: "begins nothing more, waits for what runs; once more to end at once",
    twice: "ends; what was begun on the hosts goes on there until it is done",
    aborts_itself: false,
};

/// Build the cluster on the hosts of the inventory, or correct what has drifted.
///
/// Shows what would change, asks, applies exactly that, and verifies it. The same command, run again, finishes one that
/// was killed.
#[derive(Debug, Args)]
pub struct ProvisionArgs {
    /// Directory of playbooks and templates that replace built-in ones of the same name.
    #[arg(long, value_name = "DIR")]
    playbooks: Option<PathBuf>,
    /// Apply this plan, saved by `--dry-run -o json`, without asking; nothing is changed if anything else would have to
    /// change by now.
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
}

/// What a run did.
#[derive(Debug, Serialize)]
struct Report {
    /// Whether anything was changed.
    changed: bool,
    /// Wall time.
    seconds: f64,
    /// What was done.
    plan: Plan,
    /// What followed from it, and was done, too.
    followed: Plan,
}

/// Runs `rackhand provision`.
///
/// # Errors
/// As the command-line contract says.
pub async fn run(args: ProvisionArgs, context: &Context) -> Result<(), Failure> {
    let inventory = context.inventory()?;
    inventory.require_osds()?;
    let hosts = inventory.hosts.iter().map(|h| h.name.clone()).collect();
    let library = Library::new(args.playbooks);
    carry_out(context, Work { inventory, stages: stages(), library, hosts, agreed: args.plan }).await?;
    if !context.global.dry_run {
        rehearse_fences(context).await?;
    }
    Ok(())
}

/// Rehearses the fence of every host, read-only: from now on the BMC of a host that dies is known to be its own.
async fn rehearse_fences(context: &Context) -> Result<(), Failure> {
    let inventory = context.inventory()?;
    let fleet = context.fleet(&inventory)?;
    let all: Vec<&HostSpec> = inventory.hosts.iter().collect();
    let rehearsed = async {
        let cluster = Cluster::connect(&fleet, &inventory).await?;
        rehearse(&cluster, &inventory, &fleet, &all, jiff::Timestamp::now()).await
    };
    match rehearsed.await {
        Ok(hosts) => {
            let unfit: Vec<&str> = hosts.iter().filter(|host| !host.is_fit()).map(|host| host.host.as_str()).collect();
            if !unfit.is_empty() {
                let names = unfit.join(" ");
                context
                    .ui
                    .warn(format!("a fence of {names} would not work as it should; `rackhand fence test` says why"));
            }
        }
        // What was asked for is done; the watch rehearses as well.
        Err(error) => context.ui.warn(format!("the hosts' fences were not rehearsed: {error}")),
    }
    Ok(())
}

/// What is to be done where.
pub(super) struct Work {
    pub(super) inventory: Inventory,
    pub(super) stages: Vec<Stage>,
    pub(super) library: Library,
    pub(super) hosts: Vec<String>,
    /// File of a plan that was agreed on before.
    pub(super) agreed: Option<PathBuf>,
}

/// Plans these stages for these hosts, shows the plan, asks, applies it.
pub(super) async fn carry_out(context: &Context, work: Work) -> Result<(), Failure> {
    let Work { inventory, stages, library, hosts, agreed } = work;
    let began = Instant::now();
    let agreed = agreed.as_deref().map(saved).transpose()?;
    let fleet = context.fleet(&inventory)?;
    let (lock, platform) = platforms(context, &fleet, &hosts).await?;
    let ctx = Ctx::new(Arc::new(inventory), fleet, platform, context.ui.clone());
    let provision = Provision::new(ctx, &library, stages, hosts.clone())?;
    let probed = provision.probe().await?;
    let plan = provision.plan(&probed);
    if let Some(agreed) = &agreed {
        plan.within(agreed)?;
    }
    let Some(lock) = lock else {
        context.ui.result(Plan::SCHEMA, &plan, Plan::render)?;
        return refused(&plan);
    };
    refused(&plan)?;
    let mut followed = Plan::default();
    if !plan.is_empty() {
        let probed = if agreed.is_some() || context.global.yes {
            context.ui.note(plan.render());
            probed
        } else {
            let question = format!("make {} on {}?", counted(plan.len(), "change"), counted(hosts.len(), "host"));
            context.agree(&plan.render(), &question).await?;
            // The question may have been open for hours.
            let now = provision.probe().await?;
            provision.plan(&now).within(&plan)?;
            now
        };
        let run_guard = RunGuard::new(lock, context.ui.cancel_level());
        let _unhurried = context.ui.completion_guard(PATIENCE);
        provision.apply(&probed, &run_guard).await?;
        followed = settle(context, &provision, &run_guard).await?;
    }
    let report = Report { changed: !plan.is_empty(), seconds: began.elapsed().as_secs_f64(), plan, followed };
    context.ui.result("rackhand.provision/1", &report, |report| render(report, &hosts))
}

/// Reads a saved plan.
fn saved(path: &Path) -> Result<Plan, Failure> {
    let what = || format!("plan {}", path.display());
    let text = std::fs::read_to_string(path).or_kind(Kind::Usage).while_doing(what)?;
    Plan::read(&text).while_doing(what)
}

/// The hosts' locks, none on a dry run, and what each host is.
async fn platforms(
    context: &Context,
    fleet: &Fleet,
    hosts: &[String],
) -> Result<(Option<HostLock>, BTreeMap<String, HostPlatform>), Failure> {
    let names: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let held = async { if context.global.dry_run { Ok(None) } else { lock(fleet, &names, &owner()).await.map(Some) } };
    let looked = async {
        together(fleet.each(names.iter().copied(), |remote| async move { probe_platform(&*remote).await }).await)
    };
    let (lock, platform) = tokio::try_join!(held, looked)?;
    wait_for_jobs(context, fleet, &platform).await?;
    Ok((lock, platform))
}

/// What must not be done stops everything.
fn refused(plan: &Plan) -> Result<(), Failure> {
    let mut all = plan.refused();
    let Some(first) = all.next() else { return Ok(()) };
    let failure = Failure::refused(format!("host {}: {}: {}", first.host, first.object, first.reason));
    Err(all.fold(failure, |failure, r| {
        failure.hint(format!("also refused on host {}: {}: {}", r.host, r.object, r.reason))
    }))
}

/// Looks at everything again: what one step did may ask something of another (a new certificate, a restart).
async fn settle(context: &Context, provision: &Provision, run_guard: &RunGuard) -> Result<Plan, Failure> {
    let probed = provision.probe().await?;
    let plan = provision.plan(&probed);
    if plan.is_empty() {
        return Ok(plan);
    }
    context.ui.note(format!("this followed from it:\n{}", plan.render()));
    provision.apply(&probed, run_guard).await?;
    let left = provision.plan(&provision.probe().await?);
    match left.changes().next() {
        None => Ok(plan),
        Some(change) => Err(Failure::msg(
            Kind::Partial,
            format!("host {}: {}: {} is still to do after two rounds", change.host, change.step, change.object),
        )
        .hint("run the same command again; if it stays, `--dry-run` shows what differs")),
    }
}

async fn wait_for_jobs(
    context: &Context,
    fleet: &Fleet,
    platform: &BTreeMap<String, HostPlatform>,
) -> Result<(), Failure> {
    for (host, found) in platform.iter().filter(|(_, g)| !g.jobs.is_empty()) {
        let jobs = found.jobs.join(", ");
        if context.global.dry_run {
            context.ui.warn(format!("host {host}: {jobs} still runs, what it does is not in this plan"));
            continue;
        }
        let job = context.ui.job(format!("{host}: wait for {jobs} of an earlier run"));
        wait_for_units(&*fleet.get(host)?, &found.jobs, LEFT_BEHIND).await.map_err(|error| match error {
            RemoteError::TimedOut { .. } => Failure::new(Kind::Busy, error),
            other => other.into(),
        })?;
        job.done("");
    }
    Ok(())
}

fn render(report: &Report, hosts: &[String]) -> String {
    if !report.changed {
        return format!("nothing to do on {} ({:.1} s)", counted(hosts.len(), "host"), report.seconds);
    }
    let mut table = Table::new(["host", "changed", "skipped"]).right(1).right(2);
    for host in hosts {
        let changed = report.plan.changes().chain(report.followed.changes()).filter(|c| c.host == *host).count();
        let skipped = report.plan.skipped().filter(|s| s.host == *host).count();
        table.row([host.clone(), changed.to_string(), skipped.to_string()]);
    }
    let (changes, hosts) = (counted(report.plan.len() + report.followed.len(), "change"), counted(hosts.len(), "host"));
    format!("{}\n{changes} on {hosts} in {:.0} s", table.render(), report.seconds)
}
