//! Ceph's part of a reboot: whether a host may stop, and whether all of it is back.

use crate::cluster::{CephStatus, ClusterError, ClusterPort, Target, status};
use crate::error::Failure;
use crate::inventory::{HostSpec, Role};
use crate::watch::witness::osds_by_host;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Deadline of one question.
const ANSWER: Duration = Duration::from_secs(15);

/// Whether the storage goes on without this host, as Ceph itself says.
///
/// # Errors
/// [`crate::error::Kind::Refused`] when it would stand still, or Ceph cannot say.
pub(super) async fn may_stop(port: &dyn ClusterPort, spec: &HostSpec) -> Result<(), Failure> {
    let host = &spec.name;
    let no = |what: &str, error: ClusterError| {
        Failure::refused(format!("{what} of {host} may not stop now: {error}"))
            .hint("`rackhand status` shows what is missing; the same command works once Ceph is whole")
    };
    if !spec.osds.is_empty() {
        let listed = json!({"prefix": "osd ls-tree", "name": host, "format": "json"});
        let ids = match port.command(&Target::Mon, listed, ANSWER).await {
            Ok(ids) => numbers(&ids),
            Err(error) => return Err(no("the OSDs", error)),
        };
        if !ids.is_empty() {
            let ask = json!({"prefix": "osd ok-to-stop", "ids": ids, "format": "json"});
            port.command(&Target::Mgr, ask, ANSWER).await.map_err(|error| no("the OSDs", error))?;
        }
    }
    if spec.has(Role::Mon) {
        let ask = json!({"prefix": "mon ok-to-stop", "ids": [host]});
        port.command(&Target::Mon, ask, ANSWER).await.map_err(|error| no("the mon", error))?;
    }
    Ok(())
}

/// OSD numbers as Ceph's commands take them.
fn numbers(answer: &Value) -> Vec<String> {
    answer.as_array().into_iter().flatten().filter_map(Value::as_u64).map(|id| id.to_string()).collect()
}

/// What of Ceph is still missing after a host was booted anew; nothing where all is well.
///
/// # Errors
/// When Ceph cannot be asked.
pub(super) async fn missing(port: &dyn ClusterPort, spec: &HostSpec) -> Result<Option<String>, ClusterError> {
    let tree = port.command(&Target::Mon, json!({"prefix": "osd tree", "format": "json"}), ANSWER).await?;
    let osds = osds_by_host(tree).unwrap_or_default();
    Ok(waits_for(spec, &osds, &status(port).await?))
}

fn waits_for(spec: &HostSpec, osds: &BTreeMap<String, (u32, u32)>, ceph: &CephStatus) -> Option<String> {
    let host = &spec.name;
    if spec.has(Role::Mon) && !ceph.quorum.contains(host) {
        return Some(format!("the mon of {host} to be in the quorum"));
    }
    let down = osds.get(host).map_or(0, |(_, down)| *down);
    if !spec.osds.is_empty() && (down > 0 || !osds.contains_key(host)) {
        return Some(format!("{down} OSDs of {host} to be up"));
    }
    let unclean = ceph.pgs.saturating_sub(ceph.pgs_clean);
    (unclean > 0).then(|| format!("{unclean} of {} placement groups to be clean", ceph.pgs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory;

    #[test]
    fn a_host_is_back_when_its_mon_its_osds_and_all_placement_groups_are() {
        let inventory = inventory::parse("inventory.yaml", crate::watch::reboot::tests::INVENTORY).unwrap();
        let spec = inventory.host("h1").unwrap();
        let ceph = |quorum: &[&str], clean| CephStatus {
            quorum: quorum.iter().map(|&name| name.to_owned()).collect(),
            pgs: 9,
            pgs_clean: clean,
            ..CephStatus::default()
        };
        let osds = |up, down| BTreeMap::from([("h1".to_owned(), (up, down))]);
        let waits = |osds, ceph| waits_for(spec, &osds, &ceph).unwrap_or_default();
        assert_eq!(waits(osds(1, 0), ceph(&["h2", "h3"], 9)), "the mon of h1 to be in the quorum");
        assert_eq!(waits(osds(0, 1), ceph(&["h1", "h2"], 9)), "1 OSDs of h1 to be up");
        assert_eq!(waits(osds(1, 0), ceph(&["h1", "h2"], 7)), "2 of 9 placement groups to be clean");
        assert_eq!(waits(osds(1, 0), ceph(&["h1", "h2"], 9)), "");
    }
}
