//! The executor: carries out a plan as fast as the links allow, and tells what came of each guest.

use super::budget::{Flow, may_start};
use super::options::Options;
use super::plan::{Move, Plan};
use super::preflight::Pairs;
use super::transfer::{Ended, Figures, Transfer, elsewhere};
use crate::error::{Failure, Kind};
use crate::guest::GuestContext;
use crate::ui::Table;
use crate::ui::{CancelLevel, ShutdownPolicy};
use futures::stream::{FuturesUnordered, StreamExt};
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

/// How often it is looked at whether the next move may start.
const LOOK: Duration = Duration::from_millis(100);

/// Moves under way are never dropped: they end by themselves, at the first interruption as at the second.
pub(super) const PATIENCE: ShutdownPolicy = ShutdownPolicy {
    once: "begins no more moves, waits for those under way; once more to abort them",
    twice: "aborts the moves under way; their guests stay where they are",
    aborts_itself: true,
};

/// What came of a guest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GuestResult {
    /// The guest.
    pub guest: String,
    /// Its id.
    pub uuid: Uuid,
    /// Where it ran.
    pub from: String,
    /// Where it was to go.
    pub to: String,
    /// `moved`, `stayed`, `elsewhere` (other hands have moved it to a third host), `gone`, `unknown` or `waiting` (its move never began).
    pub outcome: &'static str,
    /// Why it did not move.
    pub reason: Option<String>,
    /// What the move took.
    pub figures: Option<Figures>,
}

/// What came of all.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Each guest of the plan, in its order.
    pub guests: Vec<GuestResult>,
    /// Wall time in milliseconds.
    pub total_ms: u64,
    /// The worst that happened.
    #[serde(skip)]
    worst: Option<Kind>,
    #[serde(skip)]
    hints: Vec<String>,
}

/// Carries out a plan. The first interruption lets what runs finish and starts nothing more; the second aborts.
pub async fn execute(
    rack: &GuestContext,
    plan: &Plan,
    options: &Options,
    cancel_level: watch::Receiver<CancelLevel>,
) -> Report {
    let began = Instant::now();
    let _unhurried = rack.ui.completion_guard(PATIENCE);
    let pairs = Pairs::default();
    let flows: Arc<Mutex<BTreeMap<Uuid, (Flow, Instant)>>> = Arc::default();
    let mut waiting: VecDeque<&Move> = plan.moves.iter().collect();
    let mut running = FuturesUnordered::new();
    let mut ended: BTreeMap<Uuid, Ended> = BTreeMap::new();
    let late = |now: Instant| options.deadline.is_some_and(|d| now - began >= d);
    while !running.is_empty() || !waiting.is_empty() {
        let held = *cancel_level.borrow() != CancelLevel::None || late(Instant::now());
        if held && running.is_empty() {
            break;
        }
        if !held && let Some(next) = next_of(&mut waiting, &snapshot(&flows), options.link) {
            lock(&flows).insert(next.uuid, (Flow::fresh(next), Instant::now()));
            let transfer = Transfer { rack, a_move: next, options, pairs: &pairs, cancel_level: cancel_level.clone() };
            let (flows, uuid) = (Arc::clone(&flows), next.uuid);
            running.push(async move {
                let tell = |rate| {
                    if let Some((flow, _)) = lock(&flows).get_mut(&uuid) {
                        flow.rate = rate;
                    }
                };
                let end = transfer.run(tell).await;
                lock(&flows).remove(&uuid);
                (uuid, end)
            });
            continue;
        }
        tokio::select! {
            Some((uuid, end)) = running.next() => { ended.insert(uuid, end); }
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    drop(running);
    let mut report = Report::default();
    for a_move in &plan.moves {
        report.add(a_move, ended.remove(&a_move.uuid));
    }
    report.total_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    if *cancel_level.borrow() != CancelLevel::None && report.worst != Some(Kind::Unknown) {
        report.worst = Some(Kind::Interrupted);
    }
    report
}

type Flows = Mutex<BTreeMap<Uuid, (Flow, Instant)>>;

fn lock(flows: &Flows) -> std::sync::MutexGuard<'_, BTreeMap<Uuid, (Flow, Instant)>> {
    flows.lock().unwrap_or_else(PoisonError::into_inner)
}

fn snapshot(flows: &Flows) -> BTreeMap<Uuid, Flow> {
    lock(flows).iter().map(|(uuid, (flow, since))| (*uuid, Flow { age: since.elapsed(), ..flow.clone() })).collect()
}

/// The first of those waiting whose links have room.
fn next_of<'a>(waiting: &mut VecDeque<&'a Move>, flows: &BTreeMap<Uuid, Flow>, link: Option<u64>) -> Option<&'a Move> {
    let at = waiting.iter().position(|m| may_start(m, flows, link))?;
    waiting.remove(at)
}

impl Report {
    fn add(&mut self, a_move: &Move, ended: Option<Ended>) {
        let (outcome, kind, reason, figures) = match ended {
            Some(Ended::Moved(figures)) => ("moved", None, None, Some(figures)),
            Some(Ended::Stayed(failure)) => {
                for hint in &failure.hints {
                    if !self.hints.contains(hint) {
                        self.hints.push(hint.clone());
                    }
                }
                ("stayed", Some(failure.kind), Some(failure.to_string()), None)
            }
            Some(Ended::Elsewhere(host)) => ("elsewhere", Some(Kind::Partial), Some(elsewhere(&host)), None),
            Some(Ended::Gone) => ("gone", Some(Kind::Partial), Some("it ended meanwhile".to_owned()), None),
            Some(Ended::Unknown(why)) => ("unknown", Some(Kind::Unknown), Some(why), None),
            None => ("waiting", Some(Kind::Partial), Some("its move was not begun".to_owned()), None),
        };
        // Different reasons, or some moved and some not: partly done; an unknown outcome outweighs all.
        self.worst = match (self.worst, kind) {
            (worst, None) => worst,
            (None, some) => some,
            (Some(Kind::Unknown), _) | (_, Some(Kind::Unknown)) => Some(Kind::Unknown),
            (Some(a), Some(b)) if a == b => Some(a),
            _ => Some(Kind::Partial),
        };
        self.guests.push(GuestResult {
            guest: a_move.guest.clone(),
            uuid: a_move.uuid,
            from: a_move.from.clone(),
            to: a_move.to.clone(),
            outcome,
            reason,
            figures,
        });
    }

    /// Guests that arrived.
    pub fn moved(&self) -> impl Iterator<Item = &GuestResult> {
        self.guests.iter().filter(|g| g.outcome == "moved")
    }

    /// The report for people.
    pub fn render(&self) -> String {
        if self.guests.is_empty() {
            return "nothing was moved".to_owned();
        }
        let mut table = Table::new(["guest", "from", "to", "outcome", "time", "stood still", "sent", "reason"])
            .right(4)
            .right(5)
            .right(6);
        for g in &self.guests {
            let figure = |f: &dyn Fn(&Figures) -> String| g.figures.as_ref().map(f).unwrap_or_default();
            table.row([
                g.guest.clone(),
                g.from.clone(),
                g.to.clone(),
                g.outcome.to_owned(),
                figure(&|f| format!("{:.2} s", Duration::from_millis(f.total_ms).as_secs_f64())),
                figure(&|f| format!("{} ms", f.downtime_ms)),
                figure(&|f| format!("{} MiB", f.bytes >> 20)),
                g.reason.clone().unwrap_or_default(),
            ]);
        }
        table.render()
    }

    /// The failure this report ends in, if any.
    pub fn failure(&self) -> Option<Failure> {
        let worst = self.worst?;
        let moved = self.moved().count();
        let all = self.guests.len();
        // Something was done and something was not.
        let kind = match worst {
            Kind::Unknown | Kind::Interrupted => worst,
            _ if moved > 0 => Kind::Partial,
            other => other,
        };
        let lines: Vec<String> = self
            .guests
            .iter()
            .filter_map(|g| g.reason.as_ref().map(|why| format!("\n  {} ({}): {why}", g.guest, g.outcome)))
            .collect();
        let mut failure = match all - moved {
            0 => return Some(Failure::msg(kind, "interrupted; all guests of the plan have moved all the same")),
            missing => Failure::msg(kind, format!("{missing} of {all} guests did not move:{}", lines.concat())),
        };
        for hint in &self.hints {
            failure = failure.hint(hint);
        }
        // Others say themselves what has to be done first.
        let waiting = self.guests.iter().any(|g| g.outcome == "waiting");
        Some(match kind {
            Kind::Unknown => failure.hint("look at both hosts; the same command, run again, settles it"),
            _ if waiting => failure.hint("the same command, run again, moves those whose move was not begun"),
            _ => failure,
        })
    }
}
