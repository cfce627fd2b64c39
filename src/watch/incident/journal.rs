//! The journal of one incident: a step is kept here at once, and in the cluster as soon as that answers.

use super::document::{Incident, Outcome, Stage, Step};
use super::store;
use crate::cluster::{ClusterError, ClusterPort};
use crate::guest::StartStep;
use jiff::Timestamp;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// Pause before the cluster is asked again to take what it did not take.
const AGAIN: Duration = Duration::from_millis(500);

/// The journal of one incident; clones write into the same one.
#[derive(Clone, Debug)]
pub struct Journal {
    inner: Arc<Inner>,
    /// Wakes the writer, which ends once this is gone with the last clone, and all is written.
    wanted: Arc<watch::Sender<u64>>,
}

#[derive(Debug)]
struct Inner {
    began: Instant,
    kept: Mutex<Kept>,
    /// Steps that are in the cluster, the end counted as one.
    stored: watch::Sender<u64>,
}

#[derive(Debug)]
struct Kept {
    head: Incident,
    file: Option<File>,
}

/// A line of the local file.
#[derive(Serialize)]
struct Line<'a> {
    incident: Uuid,
    host: &'a str,
    at: Timestamp,
    step: &'a Step,
}

impl Journal {
    /// Begins an incident about a host; nothing is asked of the cluster before there is something to write. `file` gets a
    /// line for each step, before anything else.
    pub fn open(port: Arc<dyn ClusterPort>, file: Option<&Path>, host: &str, why: &str, by: &str) -> Self {
        Self::open_since(Instant::now(), port, file, host, why, by)
    }

    /// The same for an incident whose first sign was seen earlier.
    pub(super) fn open_since(
        began: Instant,
        port: Arc<dyn ClusterPort>,
        file: Option<&Path>,
        host: &str,
        why: &str,
        by: &str,
    ) -> Self {
        let head = Incident {
            number: 0,
            id: Uuid::new_v4(),
            host: host.to_owned(),
            why: why.to_owned(),
            by: by.to_owned(),
            began: wall_clock(began),
            steps: Vec::new(),
            outcome: None,
        };
        let file = file.and_then(|path| {
            let opened = path.parent().map_or(Ok(()), std::fs::create_dir_all);
            let opened = opened.and_then(|()| OpenOptions::new().create(true).append(true).open(path));
            opened.inspect_err(|error| tracing::warn!(%error, "cannot write the local journal")).ok()
        });
        let (stored, _) = watch::channel(0);
        let (wanted, wake) = watch::channel(0);
        let inner = Arc::new(Inner { began, kept: Mutex::new(Kept { head, file }), stored });
        tokio::spawn(write(port, Arc::clone(&inner), wake));
        Journal { inner, wanted: Arc::new(wanted) }
    }

    /// A step that is about the host.
    pub fn step(&self, stage: Stage, text: impl Into<String>, evidence: Vec<String>) {
        self.add(Instant::now(), stage, None, text.into(), evidence);
    }

    /// A step that was taken earlier.
    pub(super) fn step_at(&self, at: Instant, stage: Stage, text: String, evidence: Vec<String>) {
        self.add(at, stage, None, text, evidence);
    }

    /// A step that is about one guest.
    pub fn guest(&self, stage: Stage, guest: &str, text: impl Into<String>) {
        self.add(Instant::now(), stage, Some(guest.to_owned()), text.into(), Vec::new());
    }

    /// How far the start of a guest has come.
    pub fn start(&self, guest: &str, step: &StartStep) {
        self.guest(Stage::of_start(step), guest, step.text());
    }

    /// The end. What is written after it is part of it all the same.
    pub fn end(&self, outcome: Outcome, text: impl Into<String>) {
        self.inner.kept().head.outcome = Some(outcome);
        self.add(Instant::now(), Stage::Ended, None, text.into(), Vec::new());
    }

    /// Waits until the cluster has all that was written so far; not longer than this. Tells whether it has, and its number.
    pub async fn flushed(&self, limit: Duration) -> Option<u64> {
        let all = self.inner.kept().head.steps.len() as u64;
        let mut stored = self.inner.stored.subscribe();
        let wait = stored.wait_for(|stored| *stored >= all);
        tokio::time::timeout(limit, wait).await.ok()?.ok()?;
        Some(self.inner.kept().head.number)
    }

    /// The incident as it is known here.
    pub fn incident(&self) -> Incident {
        self.inner.kept().head.clone()
    }

    fn add(&self, at: Instant, stage: Stage, guest: Option<String>, text: String, evidence: Vec<String>) {
        let after = at.saturating_duration_since(self.inner.began);
        let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        let mut kept = self.inner.kept();
        let number = kept.head.steps.len() as u64;
        let step = Step { number, after_ms, stage, guest, text, evidence };
        kept.put_down(&step);
        kept.head.steps.push(step);
        drop(kept);
        self.wanted.send_replace(number + 1);
    }
}

/// The time of day at an earlier moment, for people.
fn wall_clock(at: Instant) -> Timestamp {
    let now = Timestamp::now();
    now.checked_sub(at.elapsed()).unwrap_or(now)
}

impl Inner {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn put_down(&mut self, step: &Step) {
        let Some(file) = &mut self.file else { return };
        let line = Line { incident: self.head.id, host: &self.head.host, at: Timestamp::now(), step };
        let written = serde_json::to_string(&line).map_err(std::io::Error::other);
        let written = written.and_then(|line| file.write_all(format!("{line}\n").as_bytes()));
        // Guests are started by the hundred, and none waits for this disk.
        let synced = written.and_then(|()| if step.guest.is_some() { Ok(()) } else { file.sync_data() });
        // A full disk here must not keep guests down.
        if let Err(error) = synced {
            tracing::warn!(%error, "cannot write the local journal");
        }
    }
}

/// Writes what is wanted into the cluster, as often as that takes.
async fn write(port: Arc<dyn ClusterPort>, inner: Arc<Inner>, mut wake: watch::Receiver<u64>) {
    let mut stored = 0;
    loop {
        let closed = wake.changed().await.is_err();
        loop {
            let head = inner.kept().head.clone();
            let all = head.steps.len() as u64;
            if all == stored {
                break;
            }
            match put(port.as_ref(), head, stored, &inner).await {
                Ok(()) => {
                    stored = all;
                    inner.stored.send_replace(all);
                }
                Err(error) => {
                    tracing::debug!(%error, "the cluster does not take the incident yet");
                    sleep(AGAIN).await;
                }
            }
        }
        if closed {
            return;
        }
    }
}

async fn put(port: &dyn ClusterPort, mut head: Incident, stored: u64, inner: &Inner) -> Result<(), ClusterError> {
    if head.number == 0 {
        head.number = store::number(port).await?;
        inner.kept().head.number = head.number;
    }
    let new: Vec<Step> = head.steps.iter().filter(|step| step.number >= stored).cloned().collect();
    let outcome = head.outcome;
    let bare = Incident { steps: Vec::new(), outcome: None, ..head };
    store::write(port, &bare, &new, outcome).await
}

#[cfg(test)]
mod tests {
    use super::super::{one, unfinished};
    use super::*;
    use crate::cluster::{FakeCluster, FaultyCluster};
    use crate::ssh::{Blow, Trap};

    const LONG: Duration = Duration::from_secs(60);

    fn stages(incident: &Incident) -> Vec<Stage> {
        incident.steps.iter().map(|step| step.stage).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn steps_are_on_disk_before_the_cluster_answers_and_in_it_once_it_does() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state/incidents");
        let fake = Arc::new(FakeCluster::new());
        fake.breaks(Some(ClusterError::NoQuorum("an election".into())));
        let port = Arc::clone(&fake) as Arc<dyn ClusterPort>;
        let journal = Journal::open(port, Some(&path), "h1", "it is silent", "watch@a");
        journal.step(Stage::Suspected, "silent", Vec::new());
        sleep(Duration::from_millis(700)).await;
        journal.step(Stage::Verdict, "dead", vec!["h2: does not reach it".to_owned()]);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
        assert_eq!(journal.flushed(Duration::from_secs(5)).await, None);
        fake.breaks(None);
        assert_eq!(journal.flushed(LONG).await, Some(1));
        let kept = one(fake.as_ref(), 1).await.unwrap().unwrap();
        assert_eq!((stages(&kept), kept.steps[1].after_ms), (vec![Stage::Suspected, Stage::Verdict], 700));
        assert_eq!(unfinished(fake.as_ref()).await.unwrap(), [kept]);
        journal.guest(Stage::Running, "web", "on h2");
        journal.end(Outcome::Recovered, "1 guest runs elsewhere");
        assert_eq!(journal.flushed(LONG).await, Some(1));
        assert!(unfinished(fake.as_ref()).await.unwrap().is_empty());
        assert_eq!(one(fake.as_ref(), 1).await.unwrap().unwrap().steps.len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_lost_doubles_no_step_and_loses_none() {
        for blow in [Blow::AnswerLost, Blow::NeverArrived] {
            for call in 1..9 {
                let fake = Arc::new(FakeCluster::new());
                let trap = Trap::new(call, blow);
                let inner = Arc::clone(&fake) as Arc<dyn ClusterPort>;
                let port = Arc::new(FaultyCluster { inner, trap }) as Arc<dyn ClusterPort>;
                let journal = Journal::open(port, None, "h1", "it is silent", "watch@a");
                journal.step(Stage::Suspected, "silent", Vec::new());
                let first = journal.flushed(LONG).await.expect("in the cluster");
                journal.step(Stage::Fenced, "shut out", Vec::new());
                journal.end(Outcome::Recovered, "done");
                assert_eq!(journal.flushed(LONG).await, Some(first), "call {call}");
                let kept = one(fake.as_ref(), first).await.unwrap().unwrap();
                assert_eq!(stages(&kept), [Stage::Suspected, Stage::Fenced, Stage::Ended], "call {call}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn two_incidents_never_share_a_number() {
        let fake = Arc::new(FakeCluster::seeded(7));
        let journals: Vec<Journal> = (0..10)
            .map(|n| {
                let port = Arc::clone(&fake) as Arc<dyn ClusterPort>;
                let journal = Journal::open(port, None, &format!("h{n}"), "it is silent", "watch@a");
                journal.step(Stage::Suspected, "silent", Vec::new());
                journal
            })
            .collect();
        let mut numbers = Vec::new();
        for journal in &journals {
            numbers.push(journal.flushed(LONG).await.unwrap());
        }
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=10).collect::<Vec<u64>>());
    }
}
