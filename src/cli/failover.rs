//! `rackhand failover`.

use super::Context;
use crate::cluster::ClusterPort;
use crate::error::{Failure, Kind};
use crate::fence::{self, PowerProof, Stage};
use crate::guest::{self, GuestContext, conclude};
use crate::ssh::Remote;
use crate::ui::Table;
use crate::watch::incident::{self, Journal};
use crate::watch::{HostLoss, RestartPlan, storage_addresses};
use clap::Args;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How long the host may take to show that it lives after all.
const LIVES: Duration = Duration::from_secs(3);
/// How long its BMC may take to switch it off.
const POWER: Duration = Duration::from_secs(15);
/// How long the end waits for the incident to be written down.
const KEPT: Duration = Duration::from_secs(3);
/// How long the plan may take that is shown before the question.
const PLAN: Duration = Duration::from_secs(5);

/// Shut a lost host out of the storage, and start its guests elsewhere.
///
/// The storage refuses everything the host writes from then on, whether it is dead or only cut off; only when that is proven
/// its guests are started. The host stays shut out until `rackhand readmit`. A host that answers is refused: `rackhand
/// evacuate` moves its guests without stopping them.
#[derive(Debug, Args)]
pub struct FailoverArgs {
    /// The host.
    #[arg(value_name = "HOST")]
    host: String,
    /// Why, for the record.
    #[arg(long, value_name = "TEXT", default_value = "declared lost by an operator")]
    reason: String,
    /// Do it although the host answers: its guests lose their disks at once, and start anew elsewhere.
    #[arg(long, conflicts_with = "i_saw_it_powered_off")]
    even_if_it_answers: bool,
    /// Take your word that the host is off, where its BMC cannot say so: guests whose policy is strict start as well. Asks to
    /// type the host's name, or takes it as `=HOST`. The storage refuses the host all the same.
    #[arg(long, value_name = "HOST", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    i_saw_it_powered_off: Option<String>,
}

#[derive(Serialize)]
struct Started {
    guest: String,
    host: String,
}

#[derive(Serialize)]
struct Outcome {
    host: String,
    addresses: Vec<String>,
    epoch: u64,
    fenced_after_ms: u64,
    started: Vec<Started>,
    /// When all of them were started.
    started_after_ms: u64,
}

/// Runs `rackhand failover`.
///
/// # Errors
/// Exit 3 when some guests could not be started, 5 when the host answers, 6 when it cannot be told whether it is shut out.
pub async fn run(args: FailoverArgs, context: &Context) -> Result<(), Failure> {
    let rack = context.rack_as_it_is()?;
    let loss = HostLoss { rack: &rack, host: &args.host, why: &args.reason };
    rack.port().avoid(&args.host).await;
    if !args.even_if_it_answers {
        unless_it_lives(&rack, &args.host).await?;
    }
    if args.i_saw_it_powered_off.is_some() {
        unless_it_answers(rack.fleet.get(&args.host)?.as_ref(), &args.host).await?;
    }
    if context.global.dry_run {
        return context.ui.result("rackhand.failover-plan/1", &loss.plan().await?, render);
    }
    if !context.global.yes {
        // What is kept on the dead host's disks cannot be read before it is fenced.
        let plan = timeout(PLAN, loss.plan()).await;
        let shown = match plan {
            Ok(Ok(plan)) => render(&plan),
            Ok(Err(failure)) => format!("where its guests go cannot be told yet: {failure}"),
            Err(_) => "where its guests go cannot be told before it is fenced: the storage waits for it".to_owned(),
        };
        context.agree(&shown, &format!("shut {} out and start its guests elsewhere?", args.host)).await?;
    }
    let seen = seen_off(args.i_saw_it_powered_off, &args.host, context).await?;
    let outcome = carry_out(&loss, context, seen.as_deref()).await?;
    context.ui.result("rackhand.failover/1", &outcome, |outcome| {
        let mut table = Table::new(["GUEST", "HOST"]);
        for started in &outcome.started {
            table.row([started.guest.clone(), started.host.clone()]);
        }
        let seconds = |ms: u64| format!("{}.{:03} s", ms / 1000, ms % 1000);
        let (fenced, all) = (seconds(outcome.fenced_after_ms), seconds(outcome.started_after_ms));
        format!("{}\nshut out after {fenced}, all started after {all}\n", table.render().trim_end())
    })
}

async fn carry_out(loss: &HostLoss<'_>, context: &Context, seen: Option<&str>) -> Result<Outcome, Failure> {
    let began = Instant::now();
    let port = Arc::clone(&loss.rack.port) as Arc<dyn ClusterPort>;
    let journal = Journal::open(port, None, loss.host, loss.why, &loss.rack.run.by);
    let outcome = follow(loss, context, (&journal, began), seen).await;
    match &outcome {
        Ok(outcome) => {
            let count = outcome.started.len();
            journal.end(incident::Outcome::Recovered, format!("{count} of its guests run elsewhere"));
        }
        Err(failure) if failure.kind == Kind::Partial => journal.end(incident::Outcome::Partly, failure.to_string()),
        Err(failure) => journal.end(incident::Outcome::Failed, failure.to_string()),
    }
    if let Some(number) = journal.flushed(KEPT).await {
        context.ui.note(format!("`rackhand incident explain {number}` tells how it went"));
    }
    outcome
}

/// Fences the host and starts its guests, each step written down.
async fn follow(
    loss: &HostLoss<'_>,
    context: &Context,
    (journal, began): (&Journal, Instant),
    seen: Option<&str>,
) -> Result<Outcome, Failure> {
    let job = context.ui.job(format!("fence {}", loss.host));
    journal.step(incident::Stage::Fencing, loss.why, Vec::new());
    loss.nudge().await?;
    let fenced = loss
        .fence(None, |stage| {
            let (written, text) = match stage {
                Stage::Committed => (incident::Stage::Committed, "the monitors refuse it"),
                Stage::OsdsDown => (incident::Stage::OsdsDown, "its OSDs are down, waits until every OSD refuses it"),
                Stage::Everywhere => (incident::Stage::MapEverywhere, "every OSD refuses it"),
            };
            journal.step(written, text, Vec::new());
            job.step(text);
        })
        .await;
    job.conclude(&fenced, |record| {
        (crate::ui::Outcome::Done, format!("the storage refuses it since map {}", record.proof.epoch()))
    });
    let record = fenced?;
    let shut_out = record.proof.addresses().iter().map(|address| format!("refused: {address}"));
    let shut_out = shut_out.chain(record.proof.clients().iter().map(|client| format!("refused: client {client}")));
    let proof = format!("the storage refuses it since map {}", record.proof.epoch());
    journal.step(incident::Stage::Fenced, proof, shut_out.collect());
    let fenced_after_ms = millis(began.elapsed());
    if let Some(typed) = seen {
        tell_power(loss, context, journal, &loss.seen_off(&record, typed).await);
    }
    let elsewhere = async { (restart(loss, journal).await, millis(began.elapsed())) };
    // Its BMC is asked beside a person's word as well: it may prove it, or switch off what only looked so.
    let power = loss.power_off(&record, POWER);
    let ((), power, (mut started, mut started_after_ms)) = tokio::join!(loss.close_gates(&record), power, elsewhere);
    tell_power(loss, context, journal, &power);
    // Strict guests have waited for this.
    if power.is_ok()
        && let Ok(first) = &mut started
        && first.iter().any(|(_, outcome)| outcome.is_err())
    {
        match restart(loss, journal).await {
            Ok(again) => {
                first.retain(|(guest, _)| !again.iter().any(|(other, _)| other == guest));
                first.extend(again);
                started_after_ms = millis(began.elapsed());
            }
            Err(failure) => context.ui.warn(format!("the guests that wait were not tried again: {failure}")),
        }
    }
    let started = conclude("start", started?)?;
    Ok(Outcome {
        host: loss.host.to_owned(),
        addresses: record.proof.addresses().iter().map(ToString::to_string).collect(),
        epoch: record.proof.epoch(),
        fenced_after_ms,
        started: started.into_iter().map(|s| Started { guest: s.name, host: s.host }).collect(),
        started_after_ms,
    })
}

/// Writes down, and tells, what is known of the host's power.
fn tell_power(loss: &HostLoss<'_>, context: &Context, journal: &Journal, power: &Result<PowerProof, Failure>) {
    match power {
        Ok(proof) => {
            journal.step(incident::Stage::PoweredOff, format!("off: {}", proof.by()), Vec::new());
            context.ui.note(format!("{} is off: {}", loss.host, proof.by()));
        }
        Err(failure) => {
            journal.step(incident::Stage::Note, format!("its power is unconfirmed: {failure}"), Vec::new());
            context.ui.note(format!("the power of {} is unconfirmed: {failure}", loss.host));
        }
    }
}

/// Starts its guests elsewhere, and writes down what became of each.
async fn restart(
    loss: &HostLoss<'_>,
    journal: &Journal,
) -> Result<Vec<(String, Result<guest::Started, Failure>)>, Failure> {
    let writer = journal.clone();
    loss.restart(&move |guest, step| writer.start(guest, step)).await
}

/// The host's name as it was typed by whoever says to have seen it off.
async fn seen_off(typed: Option<String>, host: &str, context: &Context) -> Result<Option<String>, Failure> {
    let typed = match typed {
        None => return Ok(None),
        Some(typed) if !typed.is_empty() => typed,
        Some(_) if !context.ui.can_ask() => {
            let failure = Failure::refused("nobody to ask whether the host was seen off");
            return Err(failure.hint(format!("write --i-saw-it-powered-off={host}")));
        }
        Some(_) => {
            let ui = context.ui.clone();
            let question =
                format!("type the name of the host that you have seen powered off, with your own eyes [{host}]:");
            tokio::task::spawn_blocking(move || ui.ask(&question)).await??
        }
    };
    match typed == host {
        true => Ok(Some(typed)),
        false => Err(Failure::usage(format!("`{typed}` was typed, and the host is {host}; nothing was changed"))),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Refuses a host that answers: fencing it would end guests that run well.
pub(super) async fn unless_it_lives(rack: &GuestContext, host: &str) -> Result<(), Failure> {
    let remote = rack.fleet.get(host)?;
    // One that is fenced already ran its guests until then; what was begun is finished.
    let addresses = rack.inventory.host(host).map(storage_addresses).unwrap_or_default();
    if matches!(timeout(LIVES, fence::was_begun(rack.port(), host, &addresses)).await, Ok(Ok(true))) {
        return Ok(());
    }
    match timeout(LIVES, remote.connect()).await {
        Ok(Ok(_)) => Err(Failure::msg(Kind::Refused, format!("{host} answers: it is not lost"))
            .hint(format!("move its guests away without stopping them: `rackhand evacuate {host}`"))
            .hint("--even-if-it-answers fences it all the same; its guests start anew elsewhere")),
        _ => Ok(()),
    }
}

/// Refuses a host that answers, which cannot have been seen off; a fence that was begun does not make it so.
async fn unless_it_answers(remote: &dyn Remote, host: &str) -> Result<(), Failure> {
    match timeout(LIVES, remote.connect()).await {
        Ok(Ok(_)) => Err(Failure::refused(format!("{host} answers: it is not off"))
            .hint("look whether it was another machine that you saw powered off")),
        _ => Ok(()),
    }
}

fn render(plan: &RestartPlan) -> String {
    let mut table = Table::new(["GUEST", "STARTS ON", "WHY NOT"]);
    for restart in &plan.guests {
        let why = restart.why.clone().unwrap_or_default();
        table.row([restart.guest.clone(), restart.to.clone().unwrap_or_default(), why]);
    }
    format!("{} is fenced, and its guests start elsewhere:\n{}", plan.host, table.render())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::FakeRemote;

    #[tokio::test]
    async fn a_host_that_answers_cannot_have_been_seen_off() {
        let parse = |args: &[&str]| {
            let command = FailoverArgs::augment_args(clap::Command::new("failover"));
            command.try_get_matches_from([&["failover", "h1"], args].concat()).is_ok()
        };
        assert!(parse(&["--even-if-it-answers"]) && parse(&["--i-saw-it-powered-off=h1"]));
        let failure = unless_it_answers(&FakeRemote::new("h1"), "h1").await.unwrap_err();
        assert_eq!(failure.kind, Kind::Refused);
        assert!(!parse(&["--even-if-it-answers", "--i-saw-it-powered-off=h1"]));
    }
}
