//! An incident as it is kept.

use crate::cluster::Document;
use crate::guest::StartStep;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use uuid::Uuid;

/// What the names of the documents begin with.
pub(super) const PREFIX: &str = "incident.";
/// Steps of one incident that are kept; a host with a thousand guests needs a few thousand.
const STEPS: usize = 5_000;

/// How far an incident has come with a step. The order is that of a recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The host fell silent.
    Suspected,
    /// The monitors were told to elect anew.
    Nudged,
    /// It was judged.
    Verdict,
    /// Nothing is done, and why.
    Held,
    /// A fence was asked for.
    Fencing,
    /// The monitors refuse its clients.
    Committed,
    /// The storage refuses the host: the proof.
    Fenced,
    /// The host is off: the proof.
    PoweredOff,
    /// Its OSDs are marked down.
    OsdsDown,
    /// Every OSD knows of it.
    MapEverywhere,
    /// A guest has got a new host.
    Planned,
    /// A guest's claim names its new host.
    Claimed,
    /// The lock of a guest's disk is free.
    LockFreed,
    /// A guest's QEMU is there, and stands still.
    Made,
    /// A guest runs.
    Running,
    /// A guest answers, or has written to its disk.
    Answering,
    /// A guest has no place, or did not start.
    Waiting,
    /// Something else that people should know.
    Note,
    /// It is over.
    Ended,
}

impl Stage {
    /// What a step of the start of a guest is here.
    pub fn of_start(step: &StartStep) -> Self {
        match step {
            StartStep::Planned(_) => Stage::Planned,
            StartStep::Claimed => Stage::Claimed,
            StartStep::LockFreed => Stage::LockFreed,
            StartStep::Made => Stage::Made,
            StartStep::Running(_) => Stage::Running,
            StartStep::Waiting(_) => Stage::Waiting,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Suspected => "suspected",
            Stage::Nudged => "mons nudged",
            Stage::Verdict => "verdict",
            Stage::Held => "held",
            Stage::Fencing => "fencing",
            Stage::Committed => "committed",
            Stage::Fenced => "fenced",
            Stage::PoweredOff => "powered off",
            Stage::OsdsDown => "OSDs down",
            Stage::MapEverywhere => "map everywhere",
            Stage::Planned => "planned",
            Stage::Claimed => "claimed",
            Stage::LockFreed => "lock freed",
            Stage::Made => "QEMU there",
            Stage::Running => "running",
            Stage::Answering => "answering",
            Stage::Waiting => "waiting",
            Stage::Note => "note",
            Stage::Ended => "ended",
        })
    }
}

/// One step of an incident.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Step {
    /// Its number, from 0 on: a step that is written twice is one step.
    pub number: u64,
    /// Milliseconds since the first sign, by a clock that only goes forward.
    pub after_ms: u64,
    /// How far it has come.
    pub stage: Stage,
    /// The guest it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<String>,
    /// What happened, in a sentence.
    pub text: String,
    /// What it stands on: what witnesses said, or a proof.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
}

/// How an incident ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The host was heard again before anything was done.
    Cleared,
    /// Its guests run elsewhere.
    Recovered,
    /// Some of its guests do not run.
    Partly,
    /// Nothing came of it.
    Failed,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Cleared => "cleared",
            Outcome::Recovered => "recovered",
            Outcome::Partly => "partly recovered",
            Outcome::Failed => "failed",
        })
    }
}

/// An incident, from its first sign to its end.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Incident {
    /// Its number.
    pub number: u64,
    /// Tells it from any other, whatever its number.
    pub id: Uuid,
    /// The host it is about.
    pub host: String,
    /// Why it was begun.
    pub why: String,
    /// Who handled it: a watcher, or an operator.
    pub by: String,
    /// The first sign, by the clock of whoever handled it; for people.
    pub began: Timestamp,
    /// The steps, by number.
    pub steps: Vec<Step>,
    /// How it ended; nothing while it has not.
    pub outcome: Option<Outcome>,
}

impl Document for Incident {
    const SCHEMA: &'static str = "rackhand.incident/1";
}

impl Incident {
    /// The state object of a number.
    pub fn object(number: u64) -> String {
        format!("{PREFIX}{number:08}")
    }

    /// Takes steps in that are not there yet; beyond a bound the first and the last ones are kept.
    pub(super) fn merge(&mut self, steps: &[Step], outcome: Option<Outcome>) {
        for step in steps {
            if let Err(at) = self.steps.binary_search_by_key(&step.number, |found| found.number) {
                self.steps.insert(at, step.clone());
            }
        }
        if self.steps.len() > STEPS {
            let surplus = self.steps.len() - STEPS;
            self.steps.drain(STEPS / 2..STEPS / 2 + surplus);
        }
        self.outcome = outcome.or(self.outcome);
    }

    /// Milliseconds from the first sign to the last step.
    pub fn lasted_ms(&self) -> u64 {
        self.steps.iter().map(|step| step.after_ms).max().unwrap_or_default()
    }
}
