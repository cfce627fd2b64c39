//! Which OSDs of each host the cluster counts as up.

use super::report::Report;
use crate::cluster::{ClusterError, ClusterPort, Target};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// How long a mon may take to answer.
const ANSWER: Duration = Duration::from_secs(2);
/// How often the mons are asked.
const PAUSE: Duration = Duration::from_secs(2);

#[derive(Deserialize)]
struct RawTree {
    nodes: Vec<RawNode>,
}

#[derive(Deserialize)]
struct RawNode {
    id: i64,
    name: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    children: Vec<i64>,
}

/// Up and down by host, out of `osd tree`; nothing where it cannot be read.
pub fn by_host(answer: Value) -> Option<BTreeMap<String, (u32, u32)>> {
    let tree: RawTree = serde_json::from_value(answer).ok()?;
    let up: BTreeMap<i64, bool> =
        tree.nodes.iter().filter(|n| n.kind == "osd").map(|n| (n.id, n.status == "up")).collect();
    let count = |host: &RawNode, wanted: bool| {
        let osds = host.children.iter().filter(|id| up.get(*id) == Some(&wanted)).count();
        u32::try_from(osds).unwrap_or(u32::MAX)
    };
    let hosts = tree.nodes.iter().filter(|n| n.kind == "host");
    Some(hosts.map(|host| (host.name.clone(), (count(host, true), count(host, false)))).collect())
}

/// Asks the mons in turn; dropped, it stops.
#[derive(Debug)]
pub struct OsdWitness {
    task: JoinHandle<()>,
}

impl Drop for OsdWitness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl OsdWitness {
    /// Begins to ask the mons of these hosts, each over its own channel, in turn.
    pub fn open(port: Arc<dyn ClusterPort>, mons: Vec<String>, reports: mpsc::Sender<Report>) -> Self {
        OsdWitness { task: tokio::spawn(follow(port, mons, reports)) }
    }
}

async fn follow(port: Arc<dyn ClusterPort>, mons: Vec<String>, reports: mpsc::Sender<Report>) {
    for mon in mons.iter().cycle() {
        // One that does not answer is told of by its own witness; the next one is asked at once.
        if let Ok(Ok(answer)) = timeout(ANSWER, ask(port.as_ref(), mon)).await
            && let Some(hosts) = by_host(answer)
            && reports.send(Report::Osds { hosts }).await.is_err()
        {
            return;
        }
        sleep(PAUSE).await;
    }
}

async fn ask(port: &dyn ClusterPort, mon: &str) -> Result<Value, ClusterError> {
    port.command(&Target::MonAt(mon.to_owned()), json!({"prefix": "osd tree", "format": "json"}), ANSWER).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn osds_are_counted_by_their_host() {
        let answer = json!({"nodes": [
            {"id": -1, "name": "default", "type": "root", "children": [-3, -5]},
            {"id": -3, "name": "h1", "type": "host", "children": [1, 0]},
            {"id": 0, "name": "osd.0", "type": "osd", "status": "up"},
            {"id": 1, "name": "osd.1", "type": "osd", "status": "down"},
            {"id": -5, "name": "h2", "type": "host", "children": [2]},
            {"id": 2, "name": "osd.2", "type": "osd", "status": "up"}], "stray": []});
        assert_eq!(by_host(answer), Some([("h1".to_owned(), (1, 1)), ("h2".to_owned(), (1, 0))].into()));
        assert_eq!(by_host(json!({})), None);
    }
}
