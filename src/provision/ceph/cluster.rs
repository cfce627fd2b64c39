//! The cluster through a monitor host: one request, one answer.

use crate::cluster::first_of;
use crate::error::Failure;
use crate::inventory::{Inventory, Role};
use crate::ssh::{Exec, Fleet, Remote};
use base64::Engine;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

const SCRIPT: &str = include_str!("cluster.py");
/// Seconds until a cluster without quorum counts as silent.
const CONNECT: u32 = 5;
/// How long the next monitor host waits for the one before it.
const STAGGER: Duration = Duration::from_secs(2);
/// Seconds for one command of a cluster that answers; an election takes up to 5 with Ceph's own timers.
const COMMAND: u32 = 20;

/// Why the cluster said nothing; empty where it did or was not asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Silence(pub String);

/// What the cluster says of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct ClusterFacts {
    /// The monitor host that was asked.
    pub via: String,
    /// Its id.
    pub fsid: Uuid,
    /// Monitors of the map with their addresses as `mon_host` writes them.
    pub mons: BTreeMap<String, String>,
    /// Monitors that are in quorum.
    pub quorum: Vec<String>,
    /// Managers, the active one first.
    pub mgrs: Vec<String>,
    /// OSDs by number.
    pub osds: BTreeMap<u32, Osd>,
    /// Buckets by name: their type, and the name of the bucket they are in.
    pub buckets: BTreeMap<String, Bucket>,
    /// Rules: name, number.
    pub rules: BTreeMap<String, i64>,
    /// Pools by name.
    pub pools: BTreeMap<String, Pool>,
    /// Settings: (section, name) -> value.
    pub settings: BTreeMap<(String, String), String>,
    /// Entities that were asked for and exist.
    pub auth: BTreeMap<String, Entity>,
    /// Health checks that are not muted, with their text.
    pub checks: BTreeMap<String, String>,
}

/// An OSD of the map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Osd {
    #[serde(rename = "osd")]
    pub id: u32,
    /// Its unique id, as on its disk.
    pub uuid: Uuid,
    pub up: u8,
    #[serde(rename = "in")]
    pub inside: u8,
    up_from: u64,
    down_at: u64,
    state: Vec<String>,
}

impl Osd {
    /// Whether it never ran, so that it cannot hold data.
    pub fn never_up(&self) -> bool {
        self.up == 0 && self.up_from == 0 && self.down_at == 0 && self.state.iter().any(|s| s == "new")
    }
}

/// A CRUSH bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bucket {
    /// `host`, `rack`, `datacenter`, `root`.
    pub kind: String,
    /// Name of the bucket above it.
    pub parent: Option<String>,
}

/// A pool of the map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Pool {
    #[serde(rename = "pool_name")]
    pub name: String,
    pub size: u8,
    pub min_size: u8,
    pub crush_rule: i64,
    pub pg_autoscale_mode: String,
    #[serde(rename = "application_metadata")]
    pub applications: BTreeMap<String, Value>,
    #[serde(default)]
    pub options: BTreeMap<String, Value>,
}

/// A cephx entity without its key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Entity {
    /// SHA-256 of its key.
    pub hash: String,
    /// What it may do.
    pub caps: BTreeMap<String, String>,
}

/// A key with its entity's capabilities.
#[derive(Clone, Deserialize)]
pub(super) struct Key {
    entity: String,
    key: String,
    caps: BTreeMap<String, String>,
}

impl Key {
    /// The keyring file's text.
    pub fn keyring(&self) -> String {
        let mut text = format!("[{}]\n\tkey = {}\n", self.entity, self.key);
        for (who, what) in &self.caps {
            text.push_str(&format!("\tcaps {who} = \"{what}\"\n"));
        }
        text
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Facts(Box<RawFacts>),
    Key(Key),
    Monmap(String),
    Done(()),
    Failed(String),
    Silent(String),
}

#[derive(Deserialize)]
struct RawFacts {
    status: RawStatus,
    mon_dump: RawMonDump,
    osd_dump: RawOsdDump,
    osd_tree: RawTree,
    rules: Vec<RawRule>,
    config: Vec<RawSetting>,
    mgr_dump: RawMgrDump,
    auth: BTreeMap<String, Entity>,
}

#[derive(Deserialize)]
struct RawStatus {
    health: RawHealth,
    quorum_names: Vec<String>,
}

#[derive(Deserialize)]
struct RawHealth {
    checks: BTreeMap<String, RawCheck>,
}

#[derive(Deserialize)]
struct RawCheck {
    summary: RawSummary,
    #[serde(default)]
    muted: bool,
}

#[derive(Deserialize)]
struct RawSummary {
    message: String,
}

#[derive(Deserialize)]
struct RawMonDump {
    fsid: Uuid,
    mons: Vec<RawMon>,
}

#[derive(Deserialize)]
struct RawMon {
    name: String,
    public_addrs: RawAddresses,
}

#[derive(Deserialize)]
struct RawAddresses {
    addrvec: Vec<RawAddress>,
}

#[derive(Deserialize)]
struct RawAddress {
    #[serde(rename = "type")]
    kind: String,
    addr: String,
}

#[derive(Deserialize)]
struct RawOsdDump {
    osds: Vec<Osd>,
    pools: Vec<Pool>,
}

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
    children: Vec<i64>,
}

#[derive(Deserialize)]
struct RawRule {
    rule_id: i64,
    rule_name: String,
}

#[derive(Deserialize)]
struct RawSetting {
    section: String,
    name: String,
    value: String,
    #[serde(default)]
    mask: String,
}

#[derive(Deserialize)]
struct RawMgrDump {
    active_name: String,
    available: bool,
    standbys: Vec<RawStandby>,
}

#[derive(Deserialize)]
struct RawStandby {
    name: String,
}

impl ClusterFacts {
    /// Asks the monitor hosts, one a moment after the other, until one answers.
    pub async fn gather(fleet: &Fleet, inventory: &Inventory) -> Result<Self, Silence> {
        let request = json!({ "do": "probe", "entities": entities(inventory) });
        let mons: Vec<String> = inventory.with_role(Role::Mon).map(|host| host.name.clone()).collect();
        let silent = first_of(mons, STAGGER, |host| ClusterFacts::seen_from(fleet, host, request.clone())).await;
        silent.map_err(|reasons| Silence(reasons.join("; ")))
    }

    async fn seen_from(fleet: &Fleet, host: String, request: Value) -> Result<Self, String> {
        match ask(fleet, &host, request).await {
            Ok(Answer::Facts(raw)) => Ok(ClusterFacts::from_raw(&host, *raw)),
            Ok(Answer::Silent(reason)) => Err(format!("{host}: {reason}")),
            Ok(_) => Err(format!("{host}: it answered something else")),
            Err(failure) => Err(failure.to_string()),
        }
    }

    fn from_raw(via: &str, raw: RawFacts) -> Self {
        let quorum = raw.status.quorum_names;
        let mons = raw.mon_dump.mons.into_iter().map(|m| (m.name, m.public_addrs.text())).collect();
        let mut mgrs = Vec::new();
        if raw.mgr_dump.available {
            mgrs.push(raw.mgr_dump.active_name);
        }
        mgrs.extend(raw.mgr_dump.standbys.into_iter().map(|s| s.name));
        let settings = raw.config.into_iter().filter(|s| s.mask.is_empty());
        let checks = raw.status.health.checks.into_iter().filter(|(_, check)| !check.muted);
        ClusterFacts {
            via: via.to_owned(),
            fsid: raw.mon_dump.fsid,
            mons,
            quorum,
            mgrs,
            osds: raw.osd_dump.osds.into_iter().map(|o| (o.id, o)).collect(),
            buckets: buckets(raw.osd_tree.nodes),
            rules: raw.rules.into_iter().map(|r| (r.rule_name, r.rule_id)).collect(),
            pools: raw.osd_dump.pools.into_iter().map(|p| (p.name.clone(), p)).collect(),
            settings: settings.map(|s| ((s.section, s.name), s.value)).collect(),
            auth: raw.auth,
            checks: checks.map(|(name, check)| (name, check.summary.message)).collect(),
        }
    }

    /// The facts of a recorded answer.
    #[cfg(test)]
    pub fn recorded(text: &str) -> Self {
        match serde_json::from_str(text) {
            Ok(Answer::Facts(raw)) => ClusterFacts::from_raw("c1", *raw),
            Ok(_) => panic!("no facts"),
            Err(e) => panic!("{e}"),
        }
    }

    /// The OSD with this unique id.
    pub fn osd_of(&self, uuid: Uuid) -> Option<&Osd> {
        self.osds.values().find(|o| o.uuid == uuid)
    }
}

impl RawAddresses {
    fn text(&self) -> String {
        let parts: Vec<String> = self.addrvec.iter().map(|a| format!("{}:{}", a.kind, a.addr)).collect();
        format!("[{}]", parts.join(","))
    }
}

fn buckets(nodes: Vec<RawNode>) -> BTreeMap<String, Bucket> {
    let mut parents: BTreeMap<i64, String> = BTreeMap::new();
    for node in &nodes {
        for child in &node.children {
            parents.insert(*child, node.name.clone());
        }
    }
    let of = |node: RawNode| {
        let parent = parents.get(&node.id).cloned();
        (node.name, Bucket { kind: node.kind, parent })
    };
    nodes.into_iter().filter(|n| n.id < 0).map(of).collect()
}

/// The entities the steps ask after.
fn entities(inventory: &Inventory) -> Vec<String> {
    let mut entities = vec!["client.admin".to_owned(), "client.bootstrap-osd".to_owned(), super::GUESTS.to_owned()];
    entities.extend(inventory.with_role(Role::Mgr).map(|h| format!("mgr.{}", h.name)));
    entities
}

async fn ask(fleet: &Fleet, host: &str, mut request: Value) -> Result<Answer, Failure> {
    request["connect"] = CONNECT.into();
    request["timeout"] = COMMAND.into();
    let remote: Arc<dyn Remote> = fleet.get(host)?;
    let exec = Exec::argv(["python3", "-c", SCRIPT]).stdin(request.to_string());
    let output = remote.run(exec.deadline(Duration::from_secs(120))).await?;
    // A bare host has no python3.
    if output.status == 127 {
        return Ok(Answer::Silent("python3 is not installed".to_owned()));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| Failure::failed(format!("host {host}: the cluster script broke: {error}: {}", output.tail())))
}

fn unexpected(host: &str, answer: Answer) -> Failure {
    match answer {
        Answer::Failed(reason) => Failure::failed(format!("the cluster refused, asked from {host}: {reason}")),
        Answer::Silent(reason) => Failure::failed(format!("the cluster does not answer, asked from {host}: {reason}")),
        _ => Failure::failed(format!("the cluster answered something else, asked from {host}")),
    }
}

/// Runs monitor commands in order; stops at the first that fails.
pub(super) async fn commands(fleet: &Fleet, via: &str, commands: &[Value]) -> Result<(), Failure> {
    match ask(fleet, via, json!({ "do": "run", "commands": commands })).await? {
        Answer::Done(_) => Ok(()),
        other => Err(unexpected(via, other)),
    }
}

/// The key of an entity, made with these capabilities where it does not exist; without capabilities it must exist.
pub(super) async fn key(fleet: &Fleet, via: &str, entity: &str, caps: &[&str]) -> Result<Key, Failure> {
    match ask(fleet, via, json!({ "do": "key", "entity": entity, "caps": caps })).await? {
        Answer::Key(key) => Ok(key),
        other => Err(unexpected(via, other)),
    }
}

/// The current monitor map.
pub(super) async fn monmap(fleet: &Fleet, via: &str) -> Result<Vec<u8>, Failure> {
    match ask(fleet, via, json!({ "do": "monmap" })).await? {
        Answer::Monmap(text) => Ok(base64::engine::general_purpose::STANDARD.decode(text)?),
        other => Err(unexpected(via, other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The script on a cluster that answers `auth get` with this status, and all else with nothing in particular.
    fn asked(status: i32) -> Answer {
        use std::io::Write;
        use std::process::{Command, Stdio};
        let directory = tempfile::tempdir().unwrap();
        let rados = format!(
            "class Error(Exception): pass\nclass TimedOut(Error): pass\n\
             class Rados:\n    def __init__(self, name, conffile, conf):\n        assert conf['rados_mon_op_timeout'] == '20'\n\
             \x20   def connect(self, timeout): pass\n\
             \x20   def mon_command(self, cmd, data): return ({status}, '', '') if 'auth get' in cmd else (0, '{{}}', '')\n"
        );
        std::fs::write(directory.path().join("rados.py"), rados).unwrap();
        let script = SCRIPT.replace("/etc/ceph/ceph.client.admin.keyring", "/dev/null");
        let mut python = Command::new("python3");
        python.args(["-B", "-c", &script]).env("PYTHONPATH", directory.path());
        let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let request = json!({ "do": "probe", "entities": ["client.admin"], "connect": 5, "timeout": 20 });
        child.stdin.take().unwrap().write_all(request.to_string().as_bytes()).unwrap();
        let text = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        if text.starts_with("{\"facts\"") {
            return Answer::Done(());
        }
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_question_that_ran_out_of_time_is_not_told_as_an_entity_that_is_missing() {
        assert!(matches!(asked(-2), Answer::Done(())), "there is no such entity");
        assert!(matches!(asked(-110), Answer::Silent(reason) if reason == "auth get client.admin: -110"));
    }

    #[test]
    fn a_recorded_answer_is_read() {
        let facts = ClusterFacts::recorded(include_str!("testdata/cluster.json"));
        assert_eq!(facts.mons["c3"], "[v2:10.88.0.13:3300,v1:10.88.0.13:6789]");
        assert_eq!(facts.quorum, ["c1", "c2", "c3"]);
        assert_eq!(facts.mgrs, ["c1", "c2", "c3"]);
        assert_eq!(facts.buckets["c1"], Bucket { kind: "host".into(), parent: Some("r1".into()) });
        assert_eq!(facts.buckets["default"].parent, None);
        assert_eq!(facts.rules["replicated_rule"], 0);
        assert_eq!(facts.settings[&("mon".to_owned(), "mon_lease".to_owned())], "2.000000");
        assert_eq!(facts.auth["client.admin"].caps["mon"], "allow *");
        assert!(!facts.auth["client.admin"].hash.starts_with("AQ"));
        assert!(!facts.osds[&0].never_up());
        assert!(facts.checks.contains_key("TOO_FEW_OSDS"));
    }
}
