//! Settings in the cluster: a diff of `ceph config dump` against what the inventory asks for.

use super::facts::Facts;
use super::names::label_host;
use super::todo::{Op, Todo};
use crate::error::Failure;
use crate::inventory::{FailoverProfile, Inventory, Role};
use crate::playbook::{Action, Change};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// Settings of the failover profile: section, name, values at `standard`, `fast` and `fastest`; at `stock` none is set.
///
/// Shorter leases and elections shorten the time in which no map can be changed after a monitor's host is lost; a shorter
/// read lease, the time a placement group waits for a dead OSD's; shorter pings of the monitors, the time an OSD or guest
/// clings to a dead one. `osd_heartbeat_grace` is left alone on purpose: a short one makes mere overload mark OSDs down.
const FAILOVER: [(&str, &str, [Option<&str>; 3]); 7] = [
    ("global", "mon_client_hunt_interval", [Some("1"), Some("1"), Some("0.3")]),
    ("global", "mon_client_ping_interval", [Some("2"), Some("2"), Some("0.5")]),
    ("global", "mon_client_ping_timeout", [Some("4"), Some("4"), Some("1.5")]),
    ("global", "osd_pool_default_read_lease_ratio", [Some("0.25"), Some("0.25"), Some("0.1")]),
    ("mon", "mon_election_timeout", [Some("2"), Some("1"), Some("0.5")]),
    ("mon", "mon_lease", [Some("2"), Some("1"), Some("0.6")]),
    ("mon", "paxos_propose_interval", [None, Some("0.2"), Some("0.1")]),
];

/// Free space a monitor needs before it warns: its store, a copy of it while it compacts, and its logs.
const MON_FREE_KIB: u64 = 15 << 20;
/// Ceph's own share of the file system below which a monitor warns, in percent; its error limit is 5.
const MON_WARN_STOCK: u64 = 30;

type Settings = BTreeMap<(String, String), String>;

/// Whether a setting belongs to the failover profile.
pub(super) fn of_failover(name: &str) -> bool {
    FAILOVER.iter().any(|(_, n, _)| *n == name)
}

/// The longest a monitor's disk may take to write 4 KiB safely under this profile: a quarter of the lease it renews.
pub(super) fn fsync_limit(profile: FailoverProfile) -> Option<Duration> {
    match profile {
        FailoverProfile::Stock => None,
        FailoverProfile::Standard => Some(Duration::from_millis(500)),
        FailoverProfile::Fast => Some(Duration::from_millis(250)),
        FailoverProfile::Fastest => Some(Duration::from_millis(150)),
    }
}

/// What the inventory asks for.
fn wanted(inventory: &Inventory, facts: &Facts) -> Settings {
    let ceph = &inventory.ceph;
    let mut settings = Settings::new();
    let mut set = |section: &str, name: &str, value: String| {
        settings.insert((section.to_owned(), name.to_owned()), value);
    };
    // Every client here is new enough to reclaim its id safely (CVE-2021-20288).
    set("mon", "auth_allow_insecure_global_id_reclaim", "false".to_owned());
    set("global", "osd_pool_default_size", ceph.size.to_string());
    set("global", "osd_pool_default_min_size", ceph.min_size.to_string());
    set("osd", "osd_memory_target", ceph.osd_memory.bytes().to_string());
    if ceph.size == 1 {
        set("global", "mon_allow_pool_size_one", "true".to_owned());
        set("global", "mon_warn_on_pool_no_redundancy", "false".to_owned());
    }
    for host in inventory.with_role(Role::Mon) {
        if let Some(percent) = mon_warn(facts.host(&host.name).var_kib) {
            set(&format!("mon.{}", host.name), "mon_data_avail_warn", percent.to_string());
        }
    }
    for (section, name, [standard, fast, fastest]) in FAILOVER {
        let value = match ceph.failover {
            FailoverProfile::Stock => None,
            FailoverProfile::Standard => standard,
            FailoverProfile::Fast => fast,
            FailoverProfile::Fastest => fastest,
        };
        if let Some(value) = value {
            set(section, name, value.to_owned());
        }
    }
    settings
}

/// On a large file system 30 % is far more than a monitor needs; `None` where Ceph's own limit is right.
fn mon_warn(total_kib: u64) -> Option<u64> {
    let percent = (MON_FREE_KIB * 100).div_ceil(total_kib.max(1)).max(6);
    (total_kib > 0 && percent < MON_WARN_STOCK).then_some(percent)
}

/// What has to be set, and what of a profile that is no longer asked for has to go.
pub(super) fn plan(inventory: &Inventory, facts: &Facts) -> Result<Vec<Todo>, Failure> {
    let host = label_host(inventory)?;
    let none = Settings::new();
    let there = facts.cluster.as_ref().map_or(&none, |c| &c.settings);
    let wanted = wanted(inventory, facts);
    let mut todos = Vec::new();
    for ((section, name), value) in &wanted {
        let old = there.get(&(section.clone(), name.clone()));
        if old.is_some_and(|old| same(old, value)) {
            continue;
        }
        let (action, detail) = match old {
            Some(old) => (Action::Change, format!("{old} -> {value}")),
            None => (Action::Create, value.clone()),
        };
        let change = Change::new(host, "ceph-settings", action, format!("setting {section} {name}")).detail(detail);
        let command = json!({ "prefix": "config set", "who": section, "name": name, "value": value });
        todos.push(Todo::new(change, vec![Op::Command(command)]));
    }
    for ((section, name), old) in there {
        if of_failover(name) && !wanted.contains_key(&(section.clone(), name.clone())) {
            let change = Change::new(host, "ceph-settings", Action::Remove, format!("setting {section} {name}"));
            let command = json!({ "prefix": "config rm", "who": section, "name": name });
            todos.push(Todo::new(change.detail(format!("was {old}")), vec![Op::Command(command)]));
        }
    }
    Ok(todos)
}

/// The cluster writes numbers its own way: 2 as 2.000000.
fn same(a: &str, b: &str) -> bool {
    a == b || a.parse::<f64>().ok().zip(b.parse::<f64>().ok()).is_some_and(|(a, b)| (a - b).abs() < 1e-9)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{facts, inventory};
    use super::*;

    fn lines(inventory: &Inventory, facts: &Facts) -> Vec<String> {
        let todos = plan(inventory, facts).unwrap();
        todos.iter().map(|t| format!("{} {} {}", t.change.action.sign(), t.change.object, t.change.detail)).collect()
    }

    #[test]
    fn a_bare_cluster_gets_all_of_it() {
        let facts = Facts::default();
        insta::assert_snapshot!(lines(&inventory(), &facts).join("\n"), @r"
        + setting global mon_client_hunt_interval 1
        + setting global mon_client_ping_interval 2
        + setting global mon_client_ping_timeout 4
        + setting global osd_pool_default_min_size 2
        + setting global osd_pool_default_read_lease_ratio 0.25
        + setting global osd_pool_default_size 3
        + setting mon auth_allow_insecure_global_id_reclaim false
        + setting mon mon_election_timeout 2
        + setting mon mon_lease 2
        + setting osd osd_memory_target 4294967296
        ");
    }

    #[test]
    fn only_what_differs_is_set_and_an_old_profile_goes() {
        let mut inventory = inventory();
        inventory.ceph.osd_memory = crate::inventory::Size(939_524_096);
        insta::assert_snapshot!(lines(&inventory, &facts()).join("\n"), @r"
        + setting global osd_pool_default_min_size 2
        - setting mon paxos_propose_interval was 0.200000
        ");
        inventory.ceph.failover = FailoverProfile::Stock;
        assert_eq!(lines(&inventory, &facts()).iter().filter(|l| l.starts_with('-')).count(), 7);
        inventory.ceph.failover = FailoverProfile::Fast;
        assert!(lines(&inventory, &facts()).contains(&"~ setting mon mon_lease 2.000000 -> 1".to_owned()));
        inventory.ceph.failover = FailoverProfile::Fastest;
        assert!(lines(&inventory, &facts()).contains(&"~ setting mon mon_lease 2.000000 -> 0.6".to_owned()));
    }

    #[test]
    fn a_large_file_system_warns_at_15_gib_and_never_below_the_error_limit() {
        let gib = 1 << 20;
        assert_eq!(mon_warn(0), None);
        assert_eq!(mon_warn(40 * gib), None);
        assert_eq!(mon_warn(100 * gib), Some(15));
        assert_eq!(mon_warn(4000 * gib), Some(6));
    }
}
