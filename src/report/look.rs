//! Looks at hosts, hypervisors and the cluster at once; each has its own deadline and delays nobody else.

use super::pulse::{Pulse, pulse};
use crate::cluster::{CephStatus, Cluster, ClusterError, ClusterPort, Target, all, status};
use crate::error::Failure;
use crate::fence;
use crate::guest::claim::{self, Claim};
use crate::guest::{Guest, HostState, Promises, Survey, read_host_states, read_promises};
use crate::host::BmcSeen;
use crate::inventory::{Inventory, Role};
use crate::libvirt::Hypervisors;
use crate::ssh::Fleet;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::timeout;
use uuid::Uuid;

/// How long a host may take to connect and answer.
const HOST: Duration = Duration::from_secs(8);
/// How long the cluster may take to say everything.
const CEPH: Duration = Duration::from_secs(15);
/// How long the BMC of a host that does not answer may take.
const BMC: Duration = Duration::from_secs(5);
/// How long reading what is kept in the cluster may take: it stands still until a dead host's OSDs are noticed.
const KEPT: Duration = Duration::from_secs(6);
/// Deadline of one question to the monitors.
const QUESTION: Duration = Duration::from_secs(8);

/// An OSD as Ceph sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Osd {
    /// Its number.
    pub id: i64,
    /// The host bucket it is under.
    pub host: String,
    /// Whether it runs.
    pub up: bool,
}

/// What the cluster says.
#[derive(Clone, Debug, Default)]
pub struct CephSeen {
    /// Its health.
    pub status: CephStatus,
    /// Its OSDs.
    pub osds: Vec<Osd>,
    /// Why what is kept in the cluster (all that follows) cannot be read, though the monitors answer.
    pub unread: Option<String>,
    /// The guests it knows.
    pub guests: Vec<Guest>,
    /// Who may run them.
    pub claims: BTreeMap<Uuid, Claim>,
    /// Hosts in maintenance.
    pub states: BTreeMap<String, HostState>,
    /// What hosts are promised to by guests on their way.
    pub promises: BTreeMap<String, Promises>,
}

/// A host that does not answer.
#[derive(Clone, Debug)]
pub struct Silent {
    /// Why not.
    pub error: String,
    /// What its BMC says: whether it has power; nothing where there is none to ask.
    pub power: Option<bool>,
}

/// Why nothing is known of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoCeph {
    /// Why it does not answer.
    pub why: String,
    /// What to do about it.
    pub fix: String,
}

impl From<Failure> for NoCeph {
    fn from(failure: Failure) -> Self {
        let fix = failure.hints.first().cloned();
        let fix =
            fix.unwrap_or_else(|| "bring mon hosts back until a majority is up; then `rackhand status`".to_owned());
        NoCeph { why: failure.to_string(), fix }
    }
}

/// Everything that was seen at about one time.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Each host, or why it does not answer.
    pub pulses: BTreeMap<String, Result<Pulse, Silent>>,
    /// What runs where.
    pub survey: Survey,
    /// The cluster, or why it does not answer.
    pub ceph: Result<CephSeen, NoCeph>,
}

/// Looks at everything.
pub async fn look(inventory: &Inventory, fleet: &Fleet) -> Seen {
    let names: Vec<&str> = inventory.with_role(Role::Guests).map(|h| h.name.as_str()).collect();
    let hypervisors = Hypervisors::over(fleet, names);
    let hosts = fleet.each(fleet.names(), |remote| async move {
        let error = match timeout(HOST, pulse(remote.as_ref())).await {
            Ok(Ok(pulse)) => return Ok(pulse),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("host {}: no answer within {} s", remote.name(), HOST.as_secs()),
        };
        Err(Silent { error, power: power(inventory, fleet, remote.name()).await })
    });
    let ceph = async {
        match timeout(CEPH, ask_ceph(inventory, fleet)).await {
            Ok(answer) => answer.map_err(|error| Failure::from(error).into()),
            Err(_) => Err(Failure::failed(format!("Ceph did not answer within {} s", CEPH.as_secs())).into()),
        }
    };
    let (pulses, survey, ceph) = tokio::join!(hosts, Survey::take(&hypervisors, true), ceph);
    Seen { pulses, survey, ceph }
}

/// Whether a host has power, where its BMC says so in time.
async fn power(inventory: &Inventory, fleet: &Fleet, host: &str) -> Option<bool> {
    match timeout(BMC, fence::ask(inventory.host(host)?, inventory, fleet)).await {
        Ok(Some(BmcSeen::Answered { on, .. })) => Some(on),
        _ => None,
    }
}

async fn ask_ceph(inventory: &Inventory, fleet: &Fleet) -> Result<CephSeen, ClusterError> {
    let cluster = Cluster::connect(fleet, inventory).await?;
    let port: &dyn ClusterPort = &cluster;
    let tree = async { port.command(&Target::Mon, json!({"prefix": "osd tree", "format": "json"}), QUESTION).await };
    let hosts = inventory.with_role(Role::Guests).map(|host| host.name.as_str());
    let kept = async {
        tokio::try_join!(
            all::<Guest>(port, "guest."),
            claim::all(port),
            read_host_states(port),
            read_promises(port, hosts)
        )
    };
    let (mons, kept) = tokio::join!(async { tokio::try_join!(status(port), tree) }, timeout(KEPT, kept));
    let (status, tree) = mons?;
    let mut seen = CephSeen { status, osds: read_tree(&tree), ..CephSeen::default() };
    match kept {
        Ok(Ok((guests, claims, states, promises))) => {
            seen = CephSeen { guests, claims, states, promises, ..seen };
            seen.guests.sort_by(|a, b| a.name.cmp(&b.name));
        }
        Ok(Err(error)) => seen.unread = Some(error.to_string()),
        Err(_) => seen.unread = Some(format!("its storage gave no answer within {} s", KEPT.as_secs())),
    }
    Ok(seen)
}

/// OSDs by host out of `osd tree`.
fn read_tree(tree: &Value) -> Vec<Osd> {
    let nodes = tree["nodes"].as_array().cloned().unwrap_or_default();
    let mut osds = Vec::new();
    for host in nodes.iter().filter(|n| n["type"] == "host") {
        let children: Vec<i64> = host["children"].as_array().into_iter().flatten().filter_map(Value::as_i64).collect();
        for node in nodes.iter().filter(|n| n["type"] == "osd") {
            let Some(id) = node["id"].as_i64().filter(|id| children.contains(id)) else { continue };
            osds.push(Osd {
                id,
                host: host["name"].as_str().unwrap_or_default().to_owned(),
                up: node["status"] == "up",
            });
        }
    }
    osds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_of_16_2_is_read() {
        let tree = json!({"nodes": [
            {"id": -1, "name": "default", "type": "root", "children": [-3, -5]},
            {"id": -3, "name": "h1", "type": "host", "children": [0]},
            {"id": 0, "name": "osd.0", "type": "osd", "status": "up"},
            {"id": -5, "name": "h2", "type": "host", "children": [1]},
            {"id": 1, "name": "osd.1", "type": "osd", "status": "down"}], "stray": []});
        let osds = read_tree(&tree);
        assert_eq!(osds[0], Osd { id: 0, host: "h1".into(), up: true });
        assert_eq!(osds[1], Osd { id: 1, host: "h2".into(), up: false });
    }
}
