//! The steps over Ceph, each a plan and what is waited for, and the one executor of them.

use super::facts::Facts;
use super::names::label_host;
use super::todo::{self, Todo};
use super::{conf, crush, health, mgrs, mons, osds, pools, settings};
use crate::error::{Failure, Kind};
use crate::inventory::Inventory;
use crate::playbook::{Action, Change, Findings};
use crate::provision::{Ctx, Step};
use crate::ui::Job;
use async_trait::async_trait;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

/// How long one look serves the steps that are probed one after the other.
const FRESH: Duration = Duration::from_secs(3);
/// Pause between two looks while something is waited for.
const PAUSE: Duration = Duration::from_millis(500);
/// Rounds of look, plan, do: the longest way, clearing and making anew a half-made OSD, takes four.
const ROUNDS: usize = 6;

type Plan = fn(&Inventory, &Facts) -> Result<Vec<Todo>, Failure>;
type Missing = fn(&Inventory, &Facts) -> Option<String>;

/// What is waited for after a round.
struct Wait {
    missing: Missing,
    /// What counts as a failure when the time is up; the rest is a warning.
    essential: Missing,
    deadline: Duration,
}

/// One step: its plan, and what is waited for.
struct CephStep {
    name: &'static str,
    plan: Plan,
    /// Whether its plan is a comparison with what the cluster says of itself.
    compares: bool,
    wait: Option<Wait>,
    shared: Arc<Shared>,
}

/// The last look at hosts and cluster, shared by all steps.
#[derive(Default)]
struct Shared(Mutex<Option<(Instant, Arc<Facts>)>>);

impl Shared {
    async fn recent(&self, ctx: &Ctx) -> Result<Arc<Facts>, Failure> {
        let mut last = self.0.lock().await;
        if let Some((at, facts)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            tracing::debug!(age = ?at.elapsed(), "the last look still holds");
            return Ok(Arc::clone(facts));
        }
        let facts = Arc::new(Facts::gather(&ctx.fleet, &*ctx.build, &ctx.inventory).await?);
        *last = Some((Instant::now(), Arc::clone(&facts)));
        Ok(facts)
    }

    async fn fresh(&self, ctx: &Ctx) -> Result<Arc<Facts>, Failure> {
        self.forget().await;
        self.recent(ctx).await
    }

    async fn forget(&self) {
        *self.0.lock().await = None;
    }
}

/// The steps that build the cluster, in order.
pub fn steps() -> Vec<Box<dyn Step>> {
    let shared = Arc::new(Shared::default());
    let step = |name, plan: Plan, wait: Option<(Missing, Missing, u64)>| -> Box<dyn Step> {
        let wait = wait.map(|(missing, essential, seconds)| Wait {
            missing,
            essential,
            deadline: Duration::from_secs(seconds),
        });
        let compares = ["ceph-settings", "ceph-crush", "ceph-pools", "ceph-guest-key"].contains(&name);
        Box::new(CephStep { name, plan, compares, wait, shared: Arc::clone(&shared) })
    };
    vec![
        step("ceph-conf", conf::plan, None),
        step("ceph-seed", mons::plan_seed, None),
        step("ceph-mons", mons::plan, Some((mons::missing, mons::missing, 120))),
        step("ceph-keyrings", mgrs::plan_keyrings, None),
        step("ceph-settings", settings::plan, None),
        step("ceph-mgrs", mgrs::plan, Some((mgrs::missing, mgrs::missing, 120))),
        step("ceph-crush", crush::plan, None),
        step("ceph-osds", osds::plan, Some((osds::missing, osds::missing, 180))),
        step("ceph-pools", pools::plan, None),
        step("ceph-guest-key", pools::plan_key, None),
        step("ceph-health", health::plan, Some((health::missing, health::essential, 300))),
    ]
}

#[async_trait]
impl Step for CephStep {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn probe(&self, ctx: &Ctx) -> Result<Findings, Failure> {
        let facts = self.shared.recent(ctx).await?;
        let todos = (self.plan)(&ctx.inventory, &facts)?;
        if self.compares && facts.cluster.is_none() && mons::any_store(&ctx.inventory, &facts) {
            // There is a cluster, which does not answer: nobody knows what it lacks.
            let later = Change::new(label_host(&ctx.inventory)?, self.name, Action::Run, "what is missing");
            return Ok(vec![later.detail("look when the monitors answer")].into());
        }
        Ok(todos.into_iter().map(|t| t.change).collect::<Vec<Change>>().into())
    }

    async fn apply(&self, ctx: &Ctx, changes: &[Change]) -> Result<(), Failure> {
        let agreed: BTreeSet<(&str, &str)> = changes.iter().map(|c| (c.host.as_str(), c.object.as_str())).collect();
        for round in 0..ROUNDS {
            let facts = self.shared.fresh(ctx).await?;
            let mut todos = (self.plan)(&ctx.inventory, &facts)?;
            todos.retain(|t| t.implied || agreed.contains(&(t.change.host.as_str(), t.change.object.as_str())));
            if todos.is_empty() {
                // Earlier steps may have done it all, and yet it may not have come to rest.
                return match &self.wait {
                    Some(wait) if round == 0 => self.wait_for(ctx, wait).await,
                    _ => Ok(()),
                };
            }
            if shortens_leases(&todos) {
                health::check_mon_disks(ctx).await?;
            }
            let via = match &facts.cluster {
                Some(cluster) => cluster.via.clone(),
                None => label_host(&ctx.inventory)?.to_owned(),
            };
            let done = todo::execute(ctx, &via, todos).await;
            self.shared.forget().await;
            done?;
            if let Some(wait) = &self.wait {
                self.wait_for(ctx, wait).await?;
            }
        }
        Ok(())
    }
}

fn shortens_leases(todos: &[Todo]) -> bool {
    let sets = |t: &&Todo| t.change.action != Action::Remove;
    let name = |t: &Todo| t.change.object.rsplit(' ').next().is_some_and(settings::of_failover);
    todos.iter().filter(sets).any(|t| t.change.object.starts_with("setting ") && name(t))
}

/// What the end of the time means: a failure where something essential is missing, else a warning.
fn give_up(ctx: &Ctx, wait: &Wait, facts: &Facts, job: Job, missing: &str) -> Result<(), Failure> {
    let seconds = wait.deadline.as_secs();
    if let Some(essential) = (wait.essential)(&ctx.inventory, facts) {
        job.fail(format!("waited {seconds} s for {essential}"));
        return Err(Failure::failed(format!("waited {seconds} s for {essential}"))
            .hint("`ceph health detail` on a monitor host says more; run again when it is mended"));
    }
    job.done(format!("still waiting for {missing}"));
    ctx.ui.warn(format!("after {seconds} s the cluster still waits for {missing}"));
    Ok(())
}

impl CephStep {
    /// Looks until nothing is missing; says all the time what is.
    async fn wait_for(&self, ctx: &Ctx, wait: &Wait) -> Result<(), Failure> {
        let end = Instant::now() + wait.deadline;
        let job = ctx.ui.job(format!("{}: wait", self.name));
        loop {
            let facts = match self.shared.fresh(ctx).await {
                Ok(facts) => facts,
                // A host that is busy may answer late; while there is time it is asked again.
                Err(failure) if failure.kind != Kind::Refused && Instant::now() < end => {
                    job.step(format!("for an answer: {failure}"));
                    sleep(PAUSE).await;
                    continue;
                }
                Err(failure) => return Err(failure),
            };
            let Some(missing) = (wait.missing)(&ctx.inventory, &facts) else {
                job.done("");
                return Ok(());
            };
            if Instant::now() >= end {
                return give_up(ctx, wait, &facts, job, &missing);
            }
            job.step(format!("for {missing}"));
            sleep(PAUSE).await;
        }
    }
}
