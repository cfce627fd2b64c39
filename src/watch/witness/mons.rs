//! What each mon says of the quorum, over the standing channel to its own host: none waits for a dead one.

use super::report::{MonView, Report};
use crate::cluster::{ClusterError, ClusterPort};
use futures::future::join_all;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// How long a mon may take to answer; it does so out of its memory, in milliseconds.
const ANSWER: Duration = Duration::from_millis(1500);
#[derive(Deserialize)]
struct RawStatus {
    state: String,
    #[serde(default)]
    quorum: Vec<u64>,
    monmap: RawMap,
}

#[derive(Deserialize)]
struct RawMap {
    mons: Vec<RawMon>,
}

#[derive(Deserialize)]
struct RawMon {
    rank: u64,
    name: String,
}

/// Reads the answer to `mon_status`; an admin socket answers in text.
fn view(answer: &Value) -> Option<MonView> {
    let raw: RawStatus = match answer {
        Value::String(text) => serde_json::from_str(text).ok()?,
        other => serde_json::from_value(other.clone()).ok()?,
    };
    let names: BTreeMap<u64, String> = raw.monmap.mons.into_iter().map(|mon| (mon.rank, mon.name)).collect();
    let quorum = raw.quorum.iter().map(|rank| names.get(rank).cloned().unwrap_or_else(|| rank.to_string())).collect();
    Some(MonView { state: raw.state, quorum, mons: names.into_values().collect() })
}

/// Asks every mon when it is told to; dropped, it stops.
#[derive(Debug)]
pub struct MonWitness {
    port: Arc<dyn ClusterPort>,
    round: watch::Sender<u64>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for MonWitness {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl MonWitness {
    /// Gets ready to ask the mons of these hosts, each over its own channel.
    pub fn open(port: Arc<dyn ClusterPort>, hosts: &[String], reports: &mpsc::Sender<Report>) -> Self {
        let round = watch::Sender::new(0);
        let each =
            |host: &String| tokio::spawn(follow(Arc::clone(&port), host.clone(), reports.clone(), round.subscribe()));
        let tasks = hosts.iter().map(each).collect();
        MonWitness { port, round, tasks }
    }

    /// Asks all mons at once. One that has not answered an earlier question yet is asked again as soon as it has.
    pub fn ask(&self, round: u64) {
        self.round.send_replace(round);
    }

    /// Has the mons of these hosts call an election at once: the old quorum may count on one that is dead, and then commits
    /// nothing until its lease runs out. Harmless where all are well: an election takes a moment.
    pub async fn nudge(&self, hosts: &[String]) -> BTreeMap<String, Result<(), ClusterError>> {
        let each = hosts.iter().map(|host| async move {
            let (daemon, command) = (format!("mon.{host}"), json!({"prefix": "quorum enter"}));
            let late = || ClusterError::NoAnswer { request: "quorum enter".to_owned(), after: ANSWER };
            let asked = self.port.asok(host, &daemon, command, ANSWER);
            (host.clone(), timeout(ANSWER, asked).await.unwrap_or_else(|_| Err(late())).map(drop))
        });
        join_all(each).await.into_iter().collect()
    }
}

async fn follow(
    port: Arc<dyn ClusterPort>,
    host: String,
    reports: mpsc::Sender<Report>,
    mut rounds: watch::Receiver<u64>,
) {
    let daemon = format!("mon.{host}");
    while rounds.changed().await.is_ok() {
        let round = *rounds.borrow_and_update();
        let command = json!({"prefix": "mon_status", "format": "json"});
        let silent = |why: String| Report::MonSilent { host: host.clone(), round, why };
        let mut asked = std::pin::pin!(port.asok(&host, &daemon, command, ANSWER));
        // Told of in time, and not broken off: it may be connecting, which would never end then.
        let answer = loop {
            match timeout(ANSWER, &mut asked).await {
                Ok(answer) => break answer,
                Err(_) if reports.send(silent("no answer yet".to_owned())).await.is_err() => return,
                Err(_) => {}
            }
        };
        let report = match answer.map(|answer| view(&answer)) {
            Ok(Some(view)) => Report::Mon { host: host.clone(), round, view },
            Ok(None) => silent("its answer cannot be read".to_owned()),
            Err(error) => silent(error.to_string()),
        };
        if reports.send(report).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_of_16_2_is_read_from_json_and_from_text() {
        let answer = json!({"name": "h1", "rank": 0, "state": "leader", "quorum": [0, 2],
            "monmap": {"epoch": 3, "mons": [{"rank": 0, "name": "h1"}, {"rank": 1, "name": "h2"}, {"rank": 2, "name": "h3"}]}});
        let expected = MonView {
            state: "leader".into(),
            quorum: vec!["h1".into(), "h3".into()],
            mons: vec!["h1".into(), "h2".into(), "h3".into()],
        };
        assert_eq!(view(&answer), Some(expected.clone()));
        assert_eq!(view(&Value::String(answer.to_string())), Some(expected.clone()));
        assert!(expected.in_quorum());
        assert!(!MonView { state: "probing".into(), quorum: Vec::new(), ..expected }.in_quorum());
        assert_eq!(view(&json!({"state": 7})), None);
    }
}
