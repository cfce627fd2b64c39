//! What the cluster says of itself, as far as the steps depend on it.

use crate::cluster::BuildPort;
use crate::inventory::{Inventory, Role};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use uuid::Uuid;

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
    /// Placement groups it has, or is on its way to.
    #[serde(default, rename = "pg_num_target")]
    pub groups: u64,
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
    /// Asks the cluster through the port.
    pub async fn gather(port: &dyn BuildPort, inventory: &Inventory) -> Result<Self, Silence> {
        let (via, answer) = port.survey(&entities(inventory)).await.map_err(Silence)?;
        match serde_json::from_value(answer) {
            Ok(raw) => Ok(ClusterFacts::from_raw(&via, raw)),
            Err(error) => Err(Silence(format!("{via}: it answered something else: {error}"))),
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
        let answer: Value = serde_json::from_str(text).unwrap();
        ClusterFacts::from_raw("c1", serde_json::from_value(answer["facts"].clone()).unwrap())
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
    let mut entities =
        vec!["client.admin".to_owned(), "client.bootstrap-osd".to_owned(), super::names::GUESTS.to_owned()];
    entities.extend(inventory.with_role(Role::Mgr).map(|h| format!("mgr.{}", h.name)));
    entities
}

#[cfg(test)]
mod tests {
    use super::*;

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
