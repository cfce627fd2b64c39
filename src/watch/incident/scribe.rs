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
}

/// What a kind of event means for the incident of its host.
fn stage(kind: &str) -> Option<(Stage, Option<Outcome>)> {
    Some(match kind {
        "suspected" => (Stage::Suspected, None),
        "judged" | "verdict" => (Stage::Verdict, None),
        "held" => (Stage::Held, None),
        "fencing" => (Stage::Fencing, None),
        "committed" => (Stage::Note, None),
        "osds-down" => (Stage::OsdsDown, None),
        "everywhere" => (Stage::MapEverywhere, None),
        "fenced" => (Stage::Fenced, None),
        "fence-failed" => (Stage::Held, None),
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
        let is_news = !self.open.contains_key(host);
        if is_news && (end.is_some() || stage == Stage::Note) {
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
            Open::Journal(journal) => journal.step(stage, &told.text, told.evidence.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Incident, all};
    use super::*;
    use crate::cluster::FakeCluster;
    use std::time::Duration;

    async fn written(told: &[(&str, &str)]) -> Vec<Incident> {
        let fake = Arc::new(FakeCluster::new());
        let mut scribe = Scribe::new(Arc::clone(&fake) as Arc<dyn ClusterPort>, None, "watch@a");
        for (kind, host) in told {
            let host = (!host.is_empty()).then(|| (*host).to_owned());
            let (kind, text) = ((*kind).to_owned(), format!("{kind} of it"));
            scribe.hear(&Told { at: Duration::ZERO, kind, host, text, evidence: vec!["h2: silence".to_owned()] });
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
    async fn a_host_that_blinks_leaves_nothing_behind_and_two_hosts_are_two_incidents() {
        assert!(written(&[("suspected", "h1"), ("judged", "h1"), ("cleared", "h1"), ("lease", "")]).await.is_empty());
        let both = written(&[("suspected", "h1"), ("suspected", "h2"), ("held", "h1"), ("held", "h2")]).await;
        assert_eq!(both.len(), 2);
        assert!(both.iter().all(|incident| incident.outcome.is_none()));
    }
}
