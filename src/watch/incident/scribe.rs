//! Writes down what a watcher tells, an incident a host.

use super::document::{Outcome, Stage};
use super::journal::Journal;
use crate::cluster::ClusterPort;
use crate::watch::driver::Told;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::time::Instant;

/// Writes down what a watcher tells.
#[derive(Debug)]
pub struct Scribe {
    port: Arc<dyn ClusterPort>,
    /// A file of this machine that gets every step first.
    file: Option<PathBuf>,
    /// The watcher.
    by: String,
    open: BTreeMap<String, Open>,
}

/// An incident under way.
#[derive(Debug)]
enum Open {
    /// A host is silent, and may only have blinked.
    Silent(Vec<(Instant, Stage, Told)>),
    /// Something follows from it.
    Journal(Journal),
    /// It is over; what its BMC says afterwards is part of it all the same.
    Over(Journal),
}

/// What a kind of event means for the incident of its host.
fn stage(kind: &str) -> Option<(Stage, Option<Outcome>)> {
    Some(match kind {
        "suspected" => (Stage::Suspected, None),
        "judged" | "verdict" => (Stage::Verdict, None),
        "held" => (Stage::Held, None),
        "fencing" => (Stage::Fencing, None),
        "committed" => (Stage::Committed, None),
        "osds-down" => (Stage::OsdsDown, None),
        "everywhere" => (Stage::MapEverywhere, None),
        "fenced" => (Stage::Fenced, None),
        "fence-failed" => (Stage::Held, None),
        "power" => (Stage::PoweredOff, None),
        "power-unconfirmed" => (Stage::Note, None),
        "planned" => (Stage::Planned, None),
        "claimed" => (Stage::Claimed, None),
        "lock-freed" => (Stage::LockFreed, None),
        "made" => (Stage::Made, None),
        "running" => (Stage::Running, None),
        "waiting" => (Stage::Waiting, None),
        "recovered" => (Stage::Ended, Some(Outcome::Recovered)),
        "recovery-failed" => (Stage::Waiting, None),
        "cleared" | "readmitted" => (Stage::Ended, Some(Outcome::Cleared)),
        "returned" | "rebooted" | "restarted" | "drained" | "flapping" => (Stage::Note, None),
        _ => return None,
    })
}

impl Scribe {
    /// Writes for this watcher.
    pub fn new(port: Arc<dyn ClusterPort>, file: Option<PathBuf>, by: impl Into<String>) -> Self {
        Scribe { port, file, by: by.into(), open: BTreeMap::new() }
    }

    /// Takes in what was told. A host that only blinked leaves nothing behind.
    pub fn hear(&mut self, told: &Told) {
        if told.kind == "nudged" {
            for open in self.open.values_mut() {
                open.note(Stage::Nudged, told);
            }
            return;
        }
        let (Some(host), Some((stage, end))) = (told.host.as_deref(), stage(&told.kind)) else { return };
        if let Some(Open::Over(journal)) = self.open.get(host) {
            if told.kind.starts_with("power") {
                journal.step(stage, &told.text, told.evidence.clone());
                return;
            }
            if end.is_some() || stage == Stage::Note {
                return;
            }
            self.open.remove(host);
        }
        let is_news = !self.open.contains_key(host);
        if is_news && (end.is_some() || stage == Stage::Note || stage == Stage::PoweredOff) {
            return;
        }
        let open = self.open.entry(host.to_owned()).or_insert_with(|| Open::Silent(Vec::new()));
        if let Open::Silent(steps) = open
            && stage > Stage::Verdict
            && end.is_none()
        {
            let (began, why) =
                steps.first().map_or_else(|| (Instant::now(), told.text.as_str()), |(at, _, first)| (*at, &first.text));
            let port = Arc::clone(&self.port);
            let journal = Journal::open_since(began, port, self.file.as_deref(), host, why, &self.by);
            for (at, stage, told) in steps.drain(..) {
                journal.step_at(at, stage, told.text, told.evidence);
            }
            *open = Open::Journal(journal);
        }
        match end {
            Some(outcome) => {
                if let Some(Open::Journal(journal)) = self.open.remove(host) {
                    journal.end(outcome, &told.text);
                    self.open.insert(host.to_owned(), Open::Over(journal));
                }
            }
            None => open.note(stage, told),
        }
    }
}

impl Open {
    fn note(&mut self, stage: Stage, told: &Told) {
        match self {
            Open::Silent(steps) => steps.push((Instant::now(), stage, told.clone())),
            Open::Journal(journal) | Open::Over(journal) => match &told.guest {
                Some(guest) => journal.guest(stage, guest, &told.text),
                None => journal.step(stage, &told.text, told.evidence.clone()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Incident, all, availability};
    use super::*;
    use crate::cluster::FakeCluster;
    use std::time::Duration;

    async fn written(told: &[(&str, &str)]) -> Vec<Incident> {
        let fake = Arc::new(FakeCluster::new());
        let mut scribe = Scribe::new(Arc::clone(&fake) as Arc<dyn ClusterPort>, None, "watch@a");
        for (kind, host) in told {
            let host = (!host.is_empty()).then(|| (*host).to_owned());
            let (kind, text) = ((*kind).to_owned(), format!("{kind} of it"));
            let guest = ["planned", "running"].contains(&kind.as_str()).then(|| "web".to_owned());
            let evidence = vec!["h2: silence".to_owned()];
            scribe.hear(&Told { at: Duration::ZERO, kind, host, guest, text, evidence });
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        all(fake.as_ref()).await.unwrap().0
    }

    #[tokio::test(start_paused = true)]
    async fn a_recovery_is_one_incident_with_all_that_led_to_it() {
        let told = ["suspected", "judged", "fencing", "fenced", "recovered", "returned", "readmitted"];
        let mut told: Vec<(&str, &str)> = told.into_iter().map(|kind| (kind, "h1")).collect();
        told.insert(1, ("nudged", ""));
        let incidents = written(&told).await;
        assert_eq!(incidents.len(), 1, "{incidents:?}");
        let stages: Vec<Stage> = incidents[0].steps.iter().map(|step| step.stage).collect();
        let expected = [Stage::Suspected, Stage::Nudged, Stage::Verdict, Stage::Fencing, Stage::Fenced, Stage::Ended];
        assert_eq!(stages, expected);
        assert_eq!((incidents[0].outcome, incidents[0].host.as_str()), (Some(Outcome::Recovered), "h1"));
        assert_eq!(
            (incidents[0].why.as_str(), &incidents[0].steps[2].evidence[0][..]),
            ("suspected of it", "h2: silence")
        );
        assert_eq!(incidents[0].lasted_ms(), 500, "told from the first sign on");
    }

    #[tokio::test(start_paused = true)]
    async fn guests_are_named_with_their_times_and_the_power_is_written_after_the_end() {
        let told = [
            "suspected",
            "verdict",
            "committed",
            "osds-down",
            "everywhere",
            "fenced",
            "planned",
            "running",
            "recovered",
            "power",
            "returned",
        ];
        let told: Vec<(&str, &str)> = told.into_iter().map(|kind| (kind, "h1")).collect();
        let incident = written(&told).await.remove(0);
        let stages: Vec<(Stage, u64)> = incident.steps.iter().map(|step| (step.stage, step.after_ms)).collect();
        assert_eq!(stages[2..5], [(Stage::Committed, 200), (Stage::OsdsDown, 300), (Stage::MapEverywhere, 400)]);
        assert_eq!(
            stages[6..],
            [(Stage::Planned, 600), (Stage::Running, 700), (Stage::Ended, 800), (Stage::PoweredOff, 900)]
        );
        assert_eq!(incident.steps[7].guest.as_deref(), Some("web"));
        let now = incident.began + jiff::SignedDuration::from_hours(1);
        let year = availability(
            std::slice::from_ref(&incident),
            incident.began.strftime("%Y").to_string().parse().unwrap(),
            now,
        );
        assert_eq!((year.guests.len(), year.guests[0].guest.as_str()), (1, "web"));
        assert!((year.guests[0].down_seconds - 0.7).abs() < 0.01, "{year:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_blinks_leaves_nothing_behind_and_two_hosts_are_two_incidents() {
        assert!(written(&[("suspected", "h1"), ("judged", "h1"), ("cleared", "h1"), ("lease", "")]).await.is_empty());
        let both = written(&[("suspected", "h1"), ("suspected", "h2"), ("held", "h1"), ("held", "h2")]).await;
        assert_eq!(both.len(), 2);
        assert!(both.iter().all(|incident| incident.outcome.is_none()));
    }
}
