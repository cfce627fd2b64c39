//! The run: survey everything at once, then step by step apply and look again.

use super::facts::facts;
use super::plan::{Plan, PlannedStep};
use super::run_guard::RunGuard;
use super::step::{Ctx, Step};
use super::together::{one_of, together};
use crate::error::{Failure, Kind};
use crate::playbook::{self, Change, Findings, Library, Resource, Skipped, SkippedResource, State};
use crate::ssh::Fleet;
use crate::ui::Outcome;
use futures::future::{join_all, try_join_all};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// How long the proof of a network edit may take to connect, each try.
const RECONNECT: Duration = Duration::from_secs(4);

/// A stage of provisioning.
pub enum Stage {
    /// A playbook of resources.
    Playbook(String),
    /// A step in Rust.
    Typed(Box<dyn Step>),
}

impl Stage {
    fn name(&self) -> &str {
        match self {
            Stage::Playbook(name) => name,
            Stage::Typed(step) => step.name(),
        }
    }
}

/// Provisioning of an inventory's hosts, rendered and ready to look.
pub struct Provision {
    ctx: Ctx,
    stages: Vec<Stage>,
    books: BTreeMap<(String, String), (Vec<Resource>, Vec<SkippedResource>)>,
    hosts: Vec<String>,
}

/// What was found everywhere.
pub struct ProbedState {
    findings: Vec<Findings>,
    states: BTreeMap<String, State>,
}

impl Provision {
    /// Renders the playbooks among these stages for these hosts.
    ///
    /// # Errors
    /// When a playbook is wrong (exit 2) or a host is not supported (exit 5).
    pub fn new(ctx: Ctx, library: &Library, stages: Vec<Stage>, hosts: Vec<String>) -> Result<Self, Failure> {
        let mut books = BTreeMap::new();
        for host in ctx.inventory.hosts.iter().filter(|h| hosts.contains(&h.name)) {
            let platform = ctx.platform.get(&host.name).cloned().unwrap_or_default();
            let facts = facts(&ctx.inventory, host, &platform)?;
            for stage in &stages {
                if let Stage::Playbook(name) = stage {
                    let book = library.book(name, &facts)?;
                    books.insert((name.clone(), host.name.clone()), (book.resources, book.skipped));
                }
            }
        }
        Ok(Provision { ctx, stages, books, hosts })
    }

    fn resources(&self, step: &str, host: &str) -> &[Resource] {
        self.books.get(&(step.to_owned(), host.to_owned())).map_or(&[], |(resources, _)| resources)
    }

    /// Looks at everything at once. Changes nothing.
    ///
    /// # Errors
    /// When a host cannot be looked at, or a step refuses what it found.
    pub async fn probe(&self) -> Result<ProbedState, Failure> {
        let states = join_all(self.hosts.iter().map(|host| async move { (host.clone(), self.state(host).await) }));
        let typed = try_join_all(self.stages.iter().map(|stage| async move {
            match stage {
                Stage::Playbook(_) => Ok(None),
                Stage::Typed(step) => step.probe(&self.ctx).await.map(Some),
            }
        }));
        let (states, typed) = tokio::join!(states, typed);
        let (states, typed) = (together(states.into_iter().collect())?, typed?);
        let mut touched: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        let findings = self.stages.iter().zip(typed).map(|(stage, typed)| match typed {
            Some(findings) => findings,
            None => {
                let mut all = Findings::default();
                for host in &self.hosts {
                    let touched = touched.entry(host).or_default();
                    all.extend(self.compare(stage.name(), host, &states[host], touched));
                }
                all
            }
        });
        Ok(ProbedState { findings: findings.collect(), states })
    }

    /// What a host has, of all that the playbooks ask about.
    async fn state(&self, host: &str) -> Result<State, Failure> {
        let all: Vec<&Resource> = self.stages.iter().flat_map(|stage| self.resources(stage.name(), host)).collect();
        if all.is_empty() {
            Ok(State::default())
        } else {
            Ok(playbook::probe_resources(&*self.ctx.remote(host)?, &all).await?)
        }
    }

    fn compare(&self, step: &str, host: &str, state: &State, touched: &mut BTreeSet<String>) -> Findings {
        let mut found = playbook::diff(host, step, self.resources(step, host), state, touched);
        if let Some((_, without)) = self.books.get(&(step.to_owned(), host.to_owned())) {
            found.skipped.extend(without.iter().map(|w| Skipped {
                host: host.to_owned(),
                step: step.to_owned(),
                object: w.object.clone(),
                reason: w.reason.clone(),
            }));
        }
        found
    }

    /// The plan that a survey amounts to.
    pub fn plan(&self, probed: &ProbedState) -> Plan {
        let steps = self.stages.iter().zip(&probed.findings).filter(|(_, f)| **f != Findings::default());
        Plan {
            wanted: self.wanted(),
            steps: steps.map(|(stage, f)| PlannedStep { step: stage.name().to_owned(), findings: f.clone() }).collect(),
        }
    }

    /// Fingerprint of all that is wanted: this program, the inventory, and the playbooks as rendered. What a plan does
    /// not show (a command's script, a secret file) is in it, too.
    fn wanted(&self) -> String {
        let books: Vec<_> = self.books.iter().map(|(of, (resources, _))| (of, resources)).collect();
        let all = json!([env!("CARGO_PKG_VERSION"), *self.ctx.inventory, books]);
        Sha256::digest(all.to_string()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Makes the changes that the survey found, step by step; after each step its objects are looked at again.
    ///
    /// # Errors
    /// At the first step that fails on some host, after the other hosts have finished it; all that was done stays done,
    /// and the next run finds the rest.
    pub async fn apply(&self, probed: &ProbedState, run_guard: &RunGuard) -> Result<(), Failure> {
        let steps = self.stages.iter().zip(&probed.findings).filter(|(_, found)| !found.changes.is_empty());
        let mut steps: VecDeque<(&Stage, &Findings)> = steps.collect();
        let left = |steps: &VecDeque<(&Stage, &Findings)>, failure: Failure| {
            let names: Vec<&str> = steps.iter().map(|(stage, _)| stage.name()).collect();
            if names.is_empty() { failure } else { failure.hint(format!("not begun: {}", names.join(", "))) }
        };
        while !steps.is_empty() {
            run_guard.go_on().await.map_err(|failure| left(&steps, partly(failure)))?;
            let Some((stage, findings)) = steps.pop_front() else { break };
            match stage {
                Stage::Playbook(name) => self.apply_book(name, &findings.changes, &probed.states, run_guard).await,
                Stage::Typed(step) => self.apply_typed(&**step, &findings.changes).await,
            }
            .map_err(|failure| left(&steps, failure))?;
        }
        Ok(())
    }

    async fn apply_book(
        &self,
        step: &str,
        changes: &[Change],
        states: &BTreeMap<String, State>,
        run_guard: &RunGuard,
    ) -> Result<(), Failure> {
        let hosts: Vec<&String> = self.hosts.iter().filter(|h| changes.iter().any(|c| c.host == **h)).collect();
        // A bridge over the wrong port cuts its host off for half a minute: the first one alone, not the whole rack.
        let alone = usize::from(changes.iter().any(|c| c.object.starts_with("bridge ")));
        let (first, rest) = hosts.split_at(alone.min(hosts.len()));
        let mut outcomes = self.apply_hosts(step, first, changes, states, run_guard).await;
        if outcomes.iter().all(Result::is_ok) {
            outcomes.extend(self.apply_hosts(step, rest, changes, states, run_guard).await);
        }
        one_of(outcomes.into_iter().filter_map(Result::err).collect()).map_or(Ok(()), |failure| Err(partly(failure)))
    }

    async fn apply_hosts(
        &self,
        step: &str,
        hosts: &[&String],
        changes: &[Change],
        states: &BTreeMap<String, State>,
        run_guard: &RunGuard,
    ) -> Vec<Result<(), Failure>> {
        join_all(hosts.iter().map(|host| async move {
            let mine: Vec<Change> = changes.iter().filter(|c| c.host == **host).cloned().collect();
            let job = self.ctx.ui.job(format!("{host}: {step}"));
            match self.apply_host(step, host, mine, &states[*host], &job, run_guard).await {
                Ok(done) => {
                    job.done(format!("{done} changed"));
                    Ok(())
                }
                Err(failure) => {
                    let (outcome, word) = match failure.kind {
                        Kind::Unknown => (Outcome::Unknown, ""),
                        Kind::Interrupted => (Outcome::Failed, "interrupted"),
                        _ => (Outcome::Failed, ""),
                    };
                    job.end(outcome, word);
                    Err(failure.context(format!("step {step} on host {host}")))
                }
            }
        }))
        .await
    }

    async fn apply_host(
        &self,
        step: &str,
        host: &str,
        planned: Vec<Change>,
        state: &State,
        job: &crate::ui::Job,
        run_guard: &RunGuard,
    ) -> Result<usize, Failure> {
        let begin = |change: &Change| {
            run_guard.may_begin()?;
            job.step(change.object.clone());
            Ok(())
        };
        let remote = self.ctx.remote(host)?;
        let resources = self.resources(step, host);
        let fresh = || Ok(Fleet::over_ssh(&self.ctx.inventory, RECONNECT)?.get(host)?);
        playbook::apply(&*remote, resources, state, &planned, &fresh, begin).await?;
        let wanted: Vec<&Resource> = resources.iter().collect();
        let state = playbook::probe_resources(&*remote, &wanted).await?;
        let rest = playbook::diff(host, step, resources, &state, &mut BTreeSet::new()).changes;
        let more = follow_up(&planned, rest)?;
        if !more.is_empty() {
            playbook::apply(&*remote, resources, &state, &more, &fresh, begin).await?;
            let state = playbook::probe_resources(&*remote, &wanted).await?;
            let rest = playbook::diff(host, step, resources, &state, &mut BTreeSet::new()).changes;
            still(&rest)?;
        }
        Ok(planned.len() + more.len())
    }

    async fn apply_typed(&self, step: &dyn Step, planned: &[Change]) -> Result<(), Failure> {
        let job = self.ctx.ui.job(step.name());
        let work = async {
            step.apply(&self.ctx, planned).await?;
            let more = follow_up(planned, step.probe(&self.ctx).await?.changes)?;
            if !more.is_empty() {
                step.apply(&self.ctx, &more).await?;
                still(&step.probe(&self.ctx).await?.changes)?;
            }
            Ok::<_, Failure>(planned.len() + more.len())
        };
        match work.await {
            Ok(done) => {
                job.done(format!("{done} changed"));
                Ok(())
            }
            Err(failure) => {
                job.end(Outcome::Failed, "");
                Err(partly(failure.context(format!("step {}", step.name()))))
            }
        }
    }
}

/// What has come up only because of the step itself (an installed package brings a file that has to go) is done in a
/// second round. What was planned, is made and yet is not so has failed.
fn follow_up(planned: &[Change], rest: Vec<Change>) -> Result<Vec<Change>, Failure> {
    let failed: Vec<Change> =
        rest.iter().filter(|r| planned.iter().any(|p| p.host == r.host && p.object == r.object)).cloned().collect();
    // A file that was written after its reader started is not a failure of the reader.
    let failed: Vec<Change> = failed.into_iter().filter(|c| !c.detail.contains("restart for")).collect();
    still(&failed)?;
    Ok(rest)
}

fn still(rest: &[Change]) -> Result<(), Failure> {
    match rest.first() {
        None => Ok(()),
        Some(change) => Err(Failure::failed(format!(
            "host {}: {} was changed, yet still differs: {}{}",
            change.host,
            change.object,
            if change.detail.is_empty() { "see the plan" } else { &change.detail },
            change.diff.as_ref().map(|d| format!("\n{d}")).unwrap_or_default(),
        ))),
    }
}

fn partly(mut failure: Failure) -> Failure {
    if failure.kind == Kind::Failed {
        failure.kind = Kind::Partial;
    }
    failure.hint("what was done stays done; run the same command again once the cause is mended")
}
