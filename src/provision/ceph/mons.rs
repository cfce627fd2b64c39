//! Monitors: made all at once from one map and one set of keys; later ones join the live cluster.

use super::facts::{DiskFacts, Facts};
use super::names::{JOIN, SEED, label_host, mon_address};
use super::todo::{Op, Todo};
use crate::error::Failure;
use crate::inventory::{Inventory, Role};
use crate::playbook::{Action, Change};
use std::collections::BTreeMap;

const MAKE_SEED: &str = include_str!("seed.sh");
const MAKE_MON: &str = include_str!("mon.sh");
const START: &str = r#"set -eu
systemctl reset-failed "$1" 2>/dev/null || true
systemctl enable -q "$1"
systemctl start "$1"
"#;

/// Starts a unit now and with the host.
pub(super) fn start(unit: &str) -> Op {
    Op::Script(START, vec![format!("{unit}.service")])
}

/// The monitors the inventory wants, with their addresses as `mon_host` writes them.
fn wanted(inventory: &Inventory) -> BTreeMap<String, String> {
    inventory.with_role(Role::Mon).map(|h| (h.name.clone(), mon_address(h.storage_address))).collect()
}

/// Whether any monitor was ever made.
pub(super) fn any_store(inventory: &Inventory, facts: &Facts) -> bool {
    inventory.with_role(Role::Mon).any(|h| !facts.host(&h.name).stores.is_empty())
}

/// The host whose seed counts: the first, in the inventory's order, that has one.
fn seed_host<'a>(inventory: &'a Inventory, facts: &Facts) -> Option<&'a str> {
    inventory.with_role(Role::Mon).map(|h| h.name.as_str()).find(|name| facts.host(name).seed.is_some())
}

/// Keys and first map are made once, before any monitor; never again once a store or a seed exists anywhere.
pub(super) fn plan_seed(inventory: &Inventory, facts: &Facts) -> Result<Vec<Todo>, Failure> {
    if facts.cluster.is_some() || any_store(inventory, facts) || seed_host(inventory, facts).is_some() {
        return Ok(Vec::new());
    }
    check_survivors(inventory, facts)?;
    let host = label_host(inventory)?;
    let mut arguments = vec![SEED.to_owned(), inventory.cluster.fsid.to_string()];
    for (name, address) in wanted(inventory) {
        arguments.extend([name, address]);
    }
    let names: Vec<String> = wanted(inventory).into_keys().collect();
    let change = Change::new(host, "ceph-seed", Action::Create, "cluster keys and first monitor map")
        .detail(format!("monitors {}", names.join(", ")));
    Ok(vec![Todo::new(change, vec![Op::Script(MAKE_SEED, arguments)])])
}

/// Disks of this very cluster without any monitor's store: the monitors were lost, and new keys would make another, empty
/// cluster of the same id, which knows none of these disks.
fn check_survivors(inventory: &Inventory, facts: &Facts) -> Result<(), Failure> {
    let ours = |disk: &&DiskFacts| disk.label.as_ref().is_some_and(|l| l.fsid == Some(inventory.cluster.fsid));
    let survivors: Vec<String> = inventory
        .with_role(Role::Osd)
        .flat_map(|h| facts.host(&h.name).disks.iter().filter(ours).map(|d| format!("{} {}", h.name, d.path)))
        .collect();
    if survivors.is_empty() {
        return Ok(());
    }
    Err(Failure::refused(format!(
        "no monitor of cluster {} is left, but there are OSDs of it: {}",
        inventory.cluster.fsid,
        survivors.join(", ")
    ))
    .hint("bring a host with a monitor's store (/var/lib/ceph/mon) back, or rebuild one from the OSDs: Ceph's manual, \"recovery using OSDs\"")
    .hint("if what is on the disks may be lost, clear them, or give the new cluster a `cluster.fsid` of its own"))
}

/// What is missing until every monitor of the inventory has a store, runs and is in quorum.
pub(super) fn plan(inventory: &Inventory, facts: &Facts) -> Result<Vec<Todo>, Failure> {
    match &facts.cluster {
        None => plan_first(inventory, facts),
        Some(cluster) => {
            let mut todos = Vec::new();
            for (name, address) in wanted(inventory) {
                let host = facts.host(&name);
                if cluster.mons.get(&name).is_some_and(|known| *known != address) {
                    let known = &cluster.mons[&name];
                    return Err(Failure::refused(format!(
                        "monitor {name} is at {known} in the cluster's map, but at {address} in the inventory"
                    ))
                    .hint(format!("remove that monitor first (`ceph mon remove {name}`), or correct the inventory")));
                }
                let unit = format!("ceph-mon@{name}");
                let change = |action| Change::new(&name, "ceph-mons", action, format!("mon {name}"));
                if !host.stores.contains_key(&name) {
                    let ops = vec![Op::SeedFromCluster, make(inventory, &name, JOIN), start(&unit)];
                    todos.push(Todo::new(change(Action::Create).detail("join the cluster"), ops));
                } else if !host.unit(&unit).good() {
                    todos.push(Todo::new(change(Action::Run).detail("start"), vec![start(&unit)]));
                } else if !cluster.quorum.contains(&name) {
                    // It runs: nothing to do but wait for it.
                    todos.push(Todo::new(change(Action::Run).detail("wait until it is in quorum"), Vec::new()));
                }
            }
            todos.extend(clean_up(inventory, facts));
            Ok(todos)
        }
    }
}

fn make(inventory: &Inventory, name: &str, seed: &str) -> Op {
    Op::Script(MAKE_MON, vec![name.to_owned(), inventory.cluster.fsid.to_string(), seed.to_owned()])
}

/// No monitor answers: nothing was made yet, or a run was killed in between, or they are all down.
fn plan_first(inventory: &Inventory, facts: &Facts) -> Result<Vec<Todo>, Failure> {
    let wanted = wanted(inventory);
    let source = seed_host(inventory, facts);
    if let Some(source) = source {
        check_seeds(inventory, facts, source, &wanted)?;
    }
    let any_store = wanted.keys().any(|name| facts.host(name).stores.contains_key(name));
    let mut todos = Vec::new();
    for name in wanted.keys() {
        let host = facts.host(name);
        let unit = format!("ceph-mon@{name}");
        if host.stores.contains_key(name) {
            if !host.unit(&unit).good() {
                let change = Change::new(name, "ceph-mons", Action::Run, format!("mon {name}")).detail("start");
                todos.push(Todo::new(change, vec![start(&unit)]));
            } else {
                let change = Change::new(name, "ceph-mons", Action::Run, format!("mon {name}"));
                todos.push(Todo::new(change.detail("wait until it is in quorum"), Vec::new()));
            }
            continue;
        }
        let change = Change::new(name, "ceph-mons", Action::Create, format!("mon {name}"));
        let mut ops = Vec::new();
        // Without a seed but with stores elsewhere it has to join what forms from those.
        if let Some(source) = source {
            if host.seed.is_none() {
                ops.push(Op::SeedFrom(source.to_owned()));
            }
            ops.extend([make(inventory, name, SEED), start(&unit)]);
        } else if any_store {
            todos.push(Todo::new(change.detail("join the cluster once it has a quorum"), ops));
            continue;
        }
        todos.push(Todo::new(change.detail("at once with the others"), ops));
    }
    Ok(todos)
}

/// Two sets of keys, or a map of other monitors, would make two clusters.
fn check_seeds(
    inventory: &Inventory,
    facts: &Facts,
    source: &str,
    wanted: &BTreeMap<String, String>,
) -> Result<(), Failure> {
    let first = &facts.host(source).seed;
    for host in inventory.with_role(Role::Mon) {
        let seed = &facts.host(&host.name).seed;
        let other = seed.as_ref().zip(first.as_ref()).is_some_and(|(a, b)| a.hash != b.hash || a.mons != b.mons);
        if other {
            return Err(Failure::refused(format!(
                "hosts {source} and {} hold different first keys of the cluster in {SEED}",
                host.name
            ))
            .hint("two clusters were begun; keep the one whose monitors run, and remove the directory on the other"));
        }
    }
    let Some(seed) = first else { return Ok(()) };
    if seed.mons != *wanted {
        let listed: Vec<&str> = seed.mons.keys().map(String::as_str).collect();
        return Err(Failure::refused(format!(
            "the cluster was begun with monitors {}, but the inventory lists others, and there is no quorum yet",
            listed.join(", ")
        ))
        .hint(format!("finish with the same monitors first; if none ever ran, remove {SEED} on {source}")));
    }
    Ok(())
}

/// Once there is a quorum of all, the keys stay in the cluster only.
fn clean_up(inventory: &Inventory, facts: &Facts) -> Vec<Todo> {
    let Some(cluster) = &facts.cluster else { return Vec::new() };
    let whole = inventory.with_role(Role::Mon).all(|h| cluster.quorum.contains(&h.name));
    let holders = inventory.hosts.iter().filter(|h| whole && facts.host(&h.name).seed.is_some());
    let removal = |host: &crate::inventory::HostSpec| {
        let change = Change::new(&host.name, "ceph-mons", Action::Remove, format!("file {SEED}"));
        let script = "set -eu\nrm -rf -- \"$1\"\n";
        Todo::new(
            change.detail("first keys; the cluster has them now"),
            vec![Op::Script(script, vec![SEED.to_owned()])],
        )
        .implied()
    };
    holders.map(removal).collect()
}

/// Which monitors of the inventory are not in quorum yet.
pub(super) fn missing(inventory: &Inventory, facts: &Facts) -> Option<String> {
    let stored = |name: &&String| facts.host(name).stores.contains_key(*name);
    let wanted = wanted(inventory);
    let Some(cluster) = &facts.cluster else {
        return Some(format!("a quorum ({})", facts.silence.0));
    };
    let out: Vec<&str> =
        wanted.keys().filter(stored).filter(|n| !cluster.quorum.contains(n)).map(String::as_str).collect();
    (!out.is_empty()).then(|| format!("monitor {} to be in quorum", out.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::super::facts::{Seed, UnitState};
    use super::super::testing::{bare, facts, inventory};
    use super::*;
    use crate::error::Kind;

    fn silent() -> Facts {
        let mut facts = Facts::default();
        for name in ["c1", "c2", "c3"] {
            facts.hosts.insert(name.to_owned(), bare(name));
        }
        facts
    }

    fn seed(hash: &str) -> Option<Seed> {
        Some(Seed { hash: hash.to_owned(), fsid: Some(inventory().cluster.fsid), mons: wanted(&inventory()) })
    }

    fn host<'a>(facts: &'a mut Facts, name: &str) -> &'a mut super::super::facts::HostFacts {
        facts.hosts.get_mut(name).unwrap()
    }

    fn built(facts: &mut Facts, name: &str) {
        let fsid = Some(inventory().cluster.fsid);
        let running = UnitState { active: true, enabled: true };
        host(facts, name).stores.insert(name.to_owned(), fsid);
        host(facts, name).units.insert(format!("ceph-mon@{name}"), running);
    }

    fn lines(facts: &Facts) -> Vec<String> {
        let todos = plan(&inventory(), facts).unwrap();
        let copies = |t: &Todo| t.ops.iter().any(|op| matches!(op, Op::SeedFrom(_)));
        let line = |t: &Todo| {
            let copy = if copies(t) { ", keys copied" } else { "" };
            format!("{} {}: {}{copy}", t.change.action.sign(), t.change.object, t.change.detail)
        };
        todos.iter().map(line).collect()
    }

    #[test]
    fn keys_are_made_once() {
        let mut facts = silent();
        assert_eq!(plan_seed(&inventory(), &facts).unwrap().len(), 1);
        host(&mut facts, "c2").seed = seed("a");
        assert!(plan_seed(&inventory(), &facts).unwrap().is_empty(), "another host has them");
        host(&mut facts, "c2").seed = None;
        built(&mut facts, "c3");
        assert!(plan_seed(&inventory(), &facts).unwrap().is_empty(), "a monitor was made of them");
        assert!(plan_seed(&inventory(), &super::super::testing::facts()).unwrap().is_empty(), "the cluster has them");
    }

    #[test]
    fn no_second_cluster_is_begun_beside_the_disks_of_the_first() {
        let mut facts = silent();
        let recorded = super::super::testing::facts();
        host(&mut facts, "c1").disks = recorded.host("c1").disks.clone();
        let failure = plan_seed(&inventory(), &facts).unwrap_err();
        assert_eq!(failure.kind, Kind::Refused);
        assert!(failure.to_string().contains("c1 /dev/disk/by-id/lab-c1-disk0"), "{failure}");
        built(&mut facts, "c3");
        assert!(plan_seed(&inventory(), &facts).unwrap().is_empty(), "with a store left, its monitor is started");
    }

    #[test]
    fn a_killed_start_is_finished_from_the_same_keys() {
        let mut facts = silent();
        host(&mut facts, "c2").seed = seed("a");
        insta::assert_snapshot!(lines(&facts).join("\n"), @r"
        + mon c1: at once with the others, keys copied
        + mon c2: at once with the others
        + mon c3: at once with the others, keys copied
        ");
        built(&mut facts, "c2");
        host(&mut facts, "c1").seed = seed("a");
        built(&mut facts, "c1");
        host(&mut facts, "c1").units.clear();
        insta::assert_snapshot!(lines(&facts).join("\n"), @r"
        ! mon c1: start
        ! mon c2: wait until it is in quorum
        + mon c3: at once with the others, keys copied
        ");
        // The first keys are gone: the cluster once had a quorum, and is only down.
        host(&mut facts, "c1").seed = None;
        host(&mut facts, "c2").seed = None;
        assert_eq!(lines(&facts)[2], "+ mon c3: join the cluster once it has a quorum");
    }

    #[test]
    fn two_clusters_are_never_begun() {
        let mut facts = silent();
        host(&mut facts, "c1").seed = seed("a");
        host(&mut facts, "c3").seed = seed("b");
        assert_eq!(plan(&inventory(), &facts).unwrap_err().kind, Kind::Refused);
        host(&mut facts, "c3").seed = None;
        host(&mut facts, "c1").seed.as_mut().unwrap().mons.remove("c2");
        let failure = plan(&inventory(), &facts).unwrap_err();
        assert!(failure.to_string().contains("begun with monitors c1, c3"), "{failure}");
    }

    #[test]
    fn a_monitor_joins_and_the_first_keys_go_when_all_are_in() {
        let mut facts = facts();
        insta::assert_snapshot!(lines(&facts).join("\n"), @r"
        + mon c2: join the cluster
        + mon c3: join the cluster
        - file /var/lib/ceph/rackhand-seed: first keys; the cluster has them now
        ");
        built(&mut facts, "c2");
        built(&mut facts, "c3");
        assert!(plan(&inventory(), &facts).unwrap().iter().all(|t| t.implied));
        facts.cluster.as_mut().unwrap().quorum.pop();
        assert_eq!(lines(&facts), ["! mon c3: wait until it is in quorum"]);
        facts.cluster.as_mut().unwrap().mons.insert("c3".to_owned(), "[v2:10.88.0.99:3300]".to_owned());
        assert_eq!(plan(&inventory(), &facts).unwrap_err().kind, Kind::Refused);
    }
}
