//! `rackhand provision`.

use super::Context;
use crate::error::{Failure, Kind};
use crate::inventory::Inventory;
use crate::playbook::{Library, wait_for_units};
use crate::provision::{Ctx, Ground, Plan, Provision, Stage, lock, look, owner, stages};
use crate::ui::Table;
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a job that a killed run left behind may still take.
const LEFT_BEHIND: Duration = Duration::from_secs(1800);

/// Build the cluster on the inventory's hosts, or mend what has drifted.
///
/// Shows what would change, asks, applies exactly that, and looks again. A run that was killed is finished by the
/// next one.
#[derive(Debug, Args)]
pub struct ProvisionArgs {
    /// Directory whose playbooks and templates take the place of the built-in ones of the same name.
    #[arg(long, value_name = "DIR")]
    playbooks: Option<PathBuf>,
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
    carry_out(context, Work { inventory, stages: stages(), library, hosts }).await
}

/// What is to be done where.
pub(super) struct Work {
    pub(super) inventory: Inventory,
    pub(super) stages: Vec<Stage>,
    pub(super) library: Library,
    pub(super) hosts: Vec<String>,
}

/// Plans these stages for these hosts, shows the plan, asks, applies it.
pub(super) async fn carry_out(context: &Context, work: Work) -> Result<(), Failure> {
    let Work { inventory, stages, library, hosts } = work;
    let began = Instant::now();
    let fleet = context.fleet(&inventory)?;
    let names: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let held = async { if context.global.dry_run { Ok(None) } else { lock(&fleet, &names, &owner()).await.map(Some) } };
    let grounds = async {
        let looked = fleet.each(names.iter().copied(), |remote| async move { look(&*remote).await }).await;
        looked
            .into_iter()
            .map(|(name, ground)| Ok((name, ground?)))
            .collect::<Result<BTreeMap<String, Ground>, Failure>>()
    };
    let (_lock, ground) = tokio::try_join!(held, grounds)?;
    wait_for_jobs(context, &fleet, &ground).await?;
    let ctx = Ctx::new(Arc::new(inventory), fleet.clone(), ground, context.ui.clone());
    let provision = Provision::new(ctx, &library, stages, hosts.clone())?;
    let survey = provision.survey().await?;
    let plan = provision.plan(&survey);
    if context.global.dry_run {
        return context.ui.result("rackhand.plan/1", &plan, Plan::render);
    }
    if let Some(refused) = plan.refused().next() {
        let others =
            plan.refused().skip(1).map(|r| format!("also refused on host {}: {}: {}", r.host, r.object, r.reason));
        let first = Failure::refused(format!("host {}: {}: {}", refused.host, refused.object, refused.reason));
        return Err(others.fold(first, Failure::hint));
    }
    if !plan.is_empty() {
        context.ui.note(plan.render());
        context
            .confirm(&format!("make {} on {}?", counted(plan.len(), "change"), counted(hosts.len(), "host")))
            .await?;
        provision.apply(&survey).await?;
        settle(context, &provision).await?;
    }
    let report = Report { changed: !plan.is_empty(), seconds: began.elapsed().as_secs_f64(), plan };
    context.ui.result("rackhand.provision/1", &report, |report| render(report, &hosts))
}

/// Looks at everything again: what one step did may ask something of another (a new certificate, a restart).
async fn settle(context: &Context, provision: &Provision) -> Result<(), Failure> {
    let survey = provision.survey().await?;
    let plan = provision.plan(&survey);
    if plan.is_empty() {
        return Ok(());
    }
    context.ui.note(format!("this followed from it:\n{}", plan.render()));
    provision.apply(&survey).await?;
    let left = provision.plan(&provision.survey().await?);
    match left.changes().next() {
        None => Ok(()),
        Some(change) => Err(Failure::msg(
            Kind::Partial,
            format!("host {}: {}: {} is still to do after two rounds", change.host, change.step, change.object),
        )
        .hint("run the same command again; if it stays, `--dry-run` shows what differs")),
    }
}

async fn wait_for_jobs(
    context: &Context,
    fleet: &crate::ssh::Fleet,
    ground: &BTreeMap<String, Ground>,
) -> Result<(), Failure> {
    for (host, found) in ground.iter().filter(|(_, g)| !g.jobs.is_empty()) {
        if context.global.dry_run {
            context
                .ui
                .warn(format!("host {host}: {} still runs, what it does is not in this plan", found.jobs.join(", ")));
            continue;
        }
        let job = context.ui.job(format!("{host}: wait for {} of an earlier run", found.jobs.join(", ")));
        wait_for_units(&*fleet.get(host)?, &found.jobs, LEFT_BEHIND).await.map_err(|e| Failure::new(Kind::Busy, e))?;
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
        let changed = report.plan.changes().filter(|c| c.host == *host).count();
        let skipped = report.plan.skipped().filter(|s| s.host == *host).count();
        table.row([host.clone(), changed.to_string(), skipped.to_string()]);
    }
    let (changes, hosts) = (counted(report.plan.len(), "change"), counted(hosts.len(), "host"));
    format!("{}\n{changes} on {hosts} in {:.0} s", table.render(), report.seconds)
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
