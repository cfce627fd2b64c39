//! The wait for a healthy cluster, and the check of the monitors' disks before their leases are shortened.

use super::facts::Facts;
use super::names::label_host;
use super::settings::fsync_limit;
use super::todo::Todo;
use super::{mons, osds};
use crate::error::Failure;
use crate::inventory::{FailoverProfile, Inventory, Role};
use crate::playbook::{Action, Change};
use crate::provision::Ctx;
use crate::ssh::{Exec, Remote, RemoteExt};
use std::sync::Arc;
use std::time::Duration;

/// Checks that do not go away by waiting; they are for the operator, not for this run.
///
/// OSDs and monitors that are down are counted by the inventory instead: one whose disk or host was taken away stays down
/// until somebody removes it from the map.
const STANDING: [&str; 13] = [
    "MGR_MODULE_DEPENDENCY",
    "MON_DOWN",
    "OSD_DOWN",
    "OSD_HOST_DOWN",
    "OSD_RACK_DOWN",
    "OSDMAP_FLAGS",
    "OSD_FLAGS",
    "MON_DISK_LOW",
    "RECENT_CRASH",
    "OSD_NEARFULL",
    "POOL_NEARFULL",
    "POOL_NO_REDUNDANCY",
    "LARGE_OMAP_OBJECTS",
];

/// Whether a check means that the cluster does not do what it was built for.
fn essential_check(name: &str) -> bool {
    matches!(name, "MGR_DOWN" | "PG_AVAILABILITY" | "TOO_FEW_OSDS" | "MON_CLOCK_SKEW" | "OSD_FULL")
}

/// A cluster that is silent or lacks something essential has to be waited for.
pub(super) fn plan(inventory: &Inventory, facts: &Facts) -> Result<Vec<Todo>, Failure> {
    let Some(what) = essential(inventory, facts) else { return Ok(Vec::new()) };
    let detail = if facts.cluster.is_none() { "wait for HEALTH_OK".to_owned() } else { format!("wait for {what}") };
    let change = Change::new(label_host(inventory)?, "ceph-health", Action::Run, "cluster health").detail(detail);
    Ok(vec![Todo::new(change, Vec::new())])
}

/// What of the essential is missing.
pub(super) fn essential(inventory: &Inventory, facts: &Facts) -> Option<String> {
    daemons(inventory, facts).or_else(|| describe(facts, essential_check))
}

/// Monitors and OSDs of the inventory that are down.
fn daemons(inventory: &Inventory, facts: &Facts) -> Option<String> {
    mons::missing(inventory, facts).or_else(|| osds::missing(inventory, facts))
}

/// What keeps the cluster from HEALTH_OK, as far as waiting helps.
pub(super) fn missing(inventory: &Inventory, facts: &Facts) -> Option<String> {
    let passing =
        |name: &str| !STANDING.contains(&name) && !name.starts_with("BLUESTORE_") && !name.starts_with("DEVICE_");
    daemons(inventory, facts).or_else(|| describe(facts, passing))
}

fn describe(facts: &Facts, counts: impl Fn(&str) -> bool) -> Option<String> {
    let Some(cluster) = &facts.cluster else {
        return Some(format!("the monitors ({})", facts.silence.0));
    };
    let checks: Vec<String> =
        cluster.checks.iter().filter(|(name, _)| counts(name)).map(|(name, text)| format!("{name} ({text})")).collect();
    (!checks.is_empty()).then(|| format!("{} to pass", checks.join(", ")))
}

/// 100 writes of 4 KiB, each on disk before the next; prints the slowest in microseconds.
const FSYNC: &str = r#"
import os, sys, tempfile, time
with tempfile.NamedTemporaryFile(dir="/var/lib/ceph/mon", prefix=".rackhand-fsync-") as file:
    block, slowest = b"\0" * 4096, 0
    for _ in range(100):
        began = time.monotonic()
        os.write(file.fileno(), block)
        os.fdatasync(file.fileno())
        slowest = max(slowest, time.monotonic() - began)
print(int(slowest * 1000000))
"#;

/// Measures every monitor's disk before shorter leases are set.
///
/// A monitor renews its lease through its disk: one that stalls longer than that costs an election each time.
pub(super) async fn check_mon_disks(ctx: &Ctx) -> Result<(), Failure> {
    let profile = ctx.inventory.ceph.failover;
    let Some(limit) = fsync_limit(profile) else { return Ok(()) };
    let names: Vec<String> = ctx.inventory.with_role(Role::Mon).map(|h| h.name.clone()).collect();
    let measure = |remote: Arc<dyn Remote>| async move {
        let exec = Exec::argv(["python3", "-c", FSYNC]).deadline(Duration::from_secs(60));
        remote.check(exec).await.map(|output| output.text().trim().parse::<u64>().ok())
    };
    let mut slow = Vec::new();
    for (host, micros) in ctx.fleet.each(names.iter().map(String::as_str), measure).await {
        let Some(micros) = micros? else {
            return Err(Failure::failed(format!("host {host}: cannot measure the monitor's disk")));
        };
        if Duration::from_micros(micros) > limit {
            slow.push(format!("{host} {} ms", micros / 1000));
        }
    }
    if slow.is_empty() {
        return Ok(());
    }
    let message = format!(
        "the slowest of 100 synced writes to the monitors' disks took {}; ceph.failover asks for at most {} ms",
        slow.join(", "),
        limit.as_millis()
    );
    if matches!(profile, FailoverProfile::Fast | FailoverProfile::Fastest) {
        return Err(
            Failure::refused(message).hint("set ceph.failover to standard, or put the monitors on faster disks")
        );
    }
    ctx.ui.warn(format!("{message}: expect needless elections"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{facts, inventory};
    use super::*;

    #[test]
    fn standing_warnings_are_not_waited_for() {
        let mut facts = facts();
        let checks = &mut facts.cluster.as_mut().unwrap().checks;
        checks.clear();
        checks.insert("OSDMAP_FLAGS".to_owned(), "noout flag(s) set".to_owned());
        assert_eq!(missing(&inventory(), &facts), None);
        let checks = &mut facts.cluster.as_mut().unwrap().checks;
        checks.insert("PG_DEGRADED".to_owned(), "1 pg degraded".to_owned());
        assert_eq!(missing(&inventory(), &facts).as_deref(), Some("PG_DEGRADED (1 pg degraded) to pass"));
        assert!(plan(&inventory(), &facts).unwrap().is_empty());
        let checks = &mut facts.cluster.as_mut().unwrap().checks;
        checks.insert("OSD_DOWN".to_owned(), "1 osds down".to_owned());
        assert!(plan(&inventory(), &facts).unwrap().is_empty(), "it is none of ours");
        facts.cluster.as_mut().unwrap().osds.get_mut(&0).unwrap().up = 0;
        assert_eq!(plan(&inventory(), &facts).unwrap()[0].change.detail, "wait for osd.0 on c1 to be up");
    }

    #[test]
    fn a_silent_cluster_is_waited_for() {
        let todos = plan(&inventory(), &Facts::default()).unwrap();
        assert_eq!(todos[0].change.detail, "wait for HEALTH_OK");
    }
}
