//! The guests' pool, the state pool, and the key guests reach their disks with.

use super::cluster::Pool;
use super::crush;
use super::facts::Facts;
use super::names::{GUESTS, label_host};
use super::todo::{Op, Todo};
use crate::cluster::STATE_POOL;
use crate::error::Failure;
use crate::inventory::{Inventory, Role};
use crate::playbook::{Action, Change};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A pool as it should be.
struct Wanted<'a> {
    name: &'a str,
    application: &'static str,
    /// Placement groups at first, and the fewest the autoscaler may leave.
    groups: u64,
    autoscale: &'static str,
}

/// Pools that are missing or differ.
pub(super) fn plan(inventory: &Inventory, facts: &Facts) -> Result<Vec<Todo>, Failure> {
    let disks: usize = inventory.with_role(Role::Osd).map(|h| h.osds.len()).sum();
    let pools = [
        Wanted {
            name: &inventory.ceph.pool,
            application: "rbd",
            groups: groups(disks, inventory.ceph.size),
            autoscale: "on",
        },
        // A few small objects: more groups would only cost peering time when a host is lost.
        Wanted { name: STATE_POOL, application: "rackhand", groups: 8, autoscale: "off" },
    ];
    let host = label_host(inventory)?;
    let mut todos = Vec::new();
    for wanted in &pools {
        let object = format!("pool {}", wanted.name);
        match facts.cluster.as_ref().and_then(|c| c.pools.get(wanted.name)) {
            None => {
                let change = Change::new(host, "ceph-pools", Action::Create, object);
                let detail = format!(
                    "{} copies, {} needed for writes, {} placement groups",
                    inventory.ceph.size, inventory.ceph.min_size, wanted.groups
                );
                todos.push(Todo::new(change.detail(detail), create(inventory, wanted)));
            }
            Some(pool) => {
                let rules = facts.cluster.as_ref().map(|c| &c.rules);
                let rule = rules.and_then(|r| r.get(&crush::rule(inventory)).copied());
                let (details, commands) = differences(inventory, wanted, pool, rule);
                if !commands.is_empty() {
                    let change = Change::new(host, "ceph-pools", Action::Change, object);
                    let ops = commands.into_iter().map(Op::Command).collect();
                    todos.push(Todo::new(change.detail(details.join(", ")), ops));
                }
            }
        }
    }
    Ok(todos)
}

/// A third of the usual hundred placement groups an OSD, as a power of two: the autoscaler adds as data comes, and never
/// goes below it.
fn groups(disks: usize, size: u8) -> u64 {
    let groups = disks as u64 * 33 / u64::from(size.max(1));
    let power = 1 << (63 - groups.max(1).leading_zeros());
    power.clamp(32, 4096)
}

/// Each command costs the monitors a second, so the pool is made with all it needs at once; the least copies for writes
/// come from `osd_pool_default_min_size`, which was set before.
fn create(inventory: &Inventory, wanted: &Wanted<'_>) -> Vec<Op> {
    let mut make = json!({
        "prefix": "osd pool create",
        "pool": wanted.name,
        "pool_type": "replicated",
        "rule": crush::rule(inventory),
        "pg_num": wanted.groups,
        "pg_num_min": wanted.groups,
        "autoscale_mode": wanted.autoscale,
        "size": inventory.ceph.size,
    });
    // One copy has to be meant, and since Ceph 17 so has a name with a dot in front: without this word the command does
    // nothing and calls it success.
    if inventory.ceph.size == 1 || wanted.name.starts_with('.') {
        make["yes_i_really_mean_it"] = true.into();
    }
    vec![Op::Command(make), Op::Command(application(wanted))]
}

fn set(pool: &str, name: &str, value: &str) -> Value {
    let mut command = json!({ "prefix": "osd pool set", "pool": pool, "var": name, "val": value });
    if name == "size" && value == "1" {
        command["yes_i_really_mean_it"] = true.into();
    }
    command
}

fn application(wanted: &Wanted<'_>) -> Value {
    if wanted.application == "rbd" {
        return json!({ "init_pool": wanted.name });
    }
    json!({ "prefix": "osd pool application enable", "pool": wanted.name, "app": wanted.application })
}

fn differences(
    inventory: &Inventory,
    wanted: &Wanted<'_>,
    pool: &Pool,
    rule: Option<i64>,
) -> (Vec<String>, Vec<Value>) {
    let (mut details, mut commands) = (Vec::new(), Vec::new());
    let mut differ = |name: &str, old: String, new: String| {
        if old != new {
            details.push(format!("{name} {old} -> {new}"));
            commands.push(set(&pool.name, name, &new));
        }
    };
    differ("size", pool.size.to_string(), inventory.ceph.size.to_string());
    differ("min_size", pool.min_size.to_string(), inventory.ceph.min_size.to_string());
    differ("pg_autoscale_mode", pool.pg_autoscale_mode.clone(), wanted.autoscale.to_owned());
    // The monitors take no lower limit that the pool does not keep already.
    if pool.groups < wanted.groups {
        differ("pg_num", pool.groups.to_string(), wanted.groups.to_string());
    }
    let fewest = pool.options.get("pg_num_min").and_then(Value::as_u64).unwrap_or(0);
    differ("pg_num_min", fewest.to_string(), wanted.groups.to_string());
    if rule.is_some_and(|rule| rule != pool.crush_rule) {
        details.push(format!("rule {}; data moves", crush::rule(inventory)));
        commands.push(set(&pool.name, "crush_rule", &crush::rule(inventory)));
    }
    if !pool.applications.contains_key(wanted.application) {
        details.push(format!("application {}", wanted.application));
        commands.push(application(wanted));
    }
    (details, commands)
}

/// The guests' key may use the guests' pool and nothing else; `profile rbd` on the monitors lets it fence a dead owner.
pub(super) fn plan_key(inventory: &Inventory, facts: &Facts) -> Result<Vec<Todo>, Failure> {
    let pool = format!("profile rbd pool={}", inventory.ceph.pool);
    let wanted: BTreeMap<String, String> =
        [("mon", "profile rbd"), ("mgr", &pool), ("osd", &pool)].map(|(a, b)| (a.to_owned(), b.to_owned())).into();
    if let Some(cluster) = &facts.cluster
        && let Some(entity) = cluster.auth.get(GUESTS)
        && let Some(old) = entity.caps.values().find_map(|caps| pool_of(caps))
        && old != inventory.ceph.pool
        && cluster.pools.contains_key(old)
    {
        let (new, old) = (&inventory.ceph.pool, old.to_owned());
        return Err(Failure::refused(format!(
            "ceph.pool is {new} in the inventory, but the guests' disks are in pool {old}: their key {GUESTS} would lose \
             its rights there, and running guests their disks"
        ))
        .hint(format!("write `pool: {old}` under `ceph` in the inventory")));
    }
    let caps: Vec<&String> = wanted.iter().flat_map(|(who, what)| [who, what]).collect();
    let (action, prefix) = match facts.cluster.as_ref().and_then(|c| c.auth.get(GUESTS)) {
        None => (Action::Create, "auth get-or-create"),
        Some(entity) if entity.caps != wanted => (Action::Change, "auth caps"),
        Some(_) => return Ok(Vec::new()),
    };
    let change = Change::new(label_host(inventory)?, "ceph-guest-key", action, format!("key {GUESTS}"));
    let command = json!({ "prefix": prefix, "entity": GUESTS, "caps": caps });
    Ok(vec![Todo::new(change.detail(pool), vec![Op::Command(command)])])
}

/// The pool that capabilities are limited to.
fn pool_of(caps: &str) -> Option<&str> {
    caps.split_whitespace().find_map(|word| word.strip_prefix("pool="))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{facts, inventory};
    use super::*;

    #[test]
    fn placement_groups_follow_the_disks() {
        for (disks, size, expected) in
            [(0, 3, 32), (3, 3, 32), (12, 3, 128), (60, 3, 512), (60, 2, 512), (4000, 1, 4096)]
        {
            assert_eq!(groups(disks, size), expected, "{disks} disks, {size} copies");
        }
    }

    /// Does to a pool what the monitors do, with their refusals.
    fn monitors(pool: &mut Pool, command: &Value) -> Result<(), String> {
        let value = command["val"].as_str().unwrap();
        match command["var"].as_str().unwrap() {
            "pg_num" => pool.groups = value.parse().unwrap(),
            "pg_num_min" if value.parse::<u64>().unwrap() > pool.groups => {
                return Err(format!("EINVAL: specified pg_num_min {value} > pg_num {}", pool.groups));
            }
            "pg_num_min" => drop(pool.options.insert("pg_num_min".to_owned(), json!(value.parse::<u64>().unwrap()))),
            other => return Err(format!("{other} has not changed")),
        }
        Ok(())
    }

    #[test]
    fn a_rack_that_grows_from_three_disks_to_six_gets_its_placement_groups() {
        let mut inventory = inventory();
        let mut facts = facts();
        let cluster = facts.cluster.as_mut().unwrap();
        cluster.rules.insert("rackhand-host".to_owned(), 1);
        let pool = |name: &str, app: &str, mode: &str, groups: u64| Pool {
            name: name.to_owned(),
            size: 3,
            min_size: 2,
            crush_rule: 1,
            groups,
            pg_autoscale_mode: mode.to_owned(),
            applications: [(app.to_owned(), json!({}))].into(),
            options: [("pg_num_min".to_owned(), json!(groups))].into(),
        };
        cluster.pools.insert("guests".to_owned(), pool("guests", "rbd", "on", 32));
        cluster.pools.insert(STATE_POOL.to_owned(), pool(STATE_POOL, "rackhand", "off", 8));
        assert!(plan(&inventory, &facts).unwrap().is_empty());
        for host in &mut inventory.hosts {
            host.osds.push("/dev/disk/by-id/another".into());
        }
        let todos = plan(&inventory, &facts).unwrap();
        assert_eq!(todos[0].change.detail, "pg_num 32 -> 64, pg_num_min 32 -> 64");
        for op in &todos[0].ops {
            let Op::Command(command) = op else { panic!("{op:?}") };
            monitors(facts.cluster.as_mut().unwrap().pools.get_mut("guests").unwrap(), command).unwrap();
        }
        assert!(plan(&inventory, &facts).unwrap().is_empty());
        // And back: what the autoscaler has added stays its business.
        inventory.hosts.iter_mut().for_each(|host| host.osds.truncate(1));
        assert_eq!(plan(&inventory, &facts).unwrap()[0].change.detail, "pg_num_min 64 -> 32");
    }

    #[test]
    fn pools_are_made_once_and_then_only_mended() {
        let mut facts = facts();
        assert_eq!(plan(&inventory(), &facts).unwrap().len(), 2);
        let cluster = facts.cluster.as_mut().unwrap();
        cluster.rules.insert("rackhand-host".to_owned(), 1);
        for (name, app, mode, min) in [("guests", "rbd", "on", 32), (STATE_POOL, "rackhand", "off", 8)] {
            let pool = Pool {
                name: name.to_owned(),
                size: 3,
                min_size: 2,
                crush_rule: 1,
                groups: min,
                pg_autoscale_mode: mode.to_owned(),
                applications: [(app.to_owned(), json!({}))].into(),
                options: [("pg_num_min".to_owned(), json!(min))].into(),
            };
            cluster.pools.insert(name.to_owned(), pool);
        }
        assert!(plan(&inventory(), &facts).unwrap().is_empty());
        let guests = facts.cluster.as_mut().unwrap().pools.get_mut("guests").unwrap();
        guests.min_size = 1;
        guests.applications.clear();
        let todos = plan(&inventory(), &facts).unwrap();
        assert_eq!(todos[0].change.detail, "min_size 1 -> 2, application rbd");
    }

    #[test]
    fn only_a_name_with_a_dot_in_front_has_to_be_meant() {
        let wanted = plan(&inventory(), &facts()).unwrap();
        let meant = wanted.iter().map(|todo| match &todo.ops[0] {
            Op::Command(command) => (command["pool"].clone(), command.get("yes_i_really_mean_it").cloned()),
            _ => panic!("a pool is made by a command"),
        });
        assert_eq!(meant.collect::<Vec<_>>(), [(json!("guests"), None), (json!(STATE_POOL), Some(json!(true)))]);
    }

    #[test]
    fn another_pool_is_refused_while_the_guests_disks_are_in_the_old_one() {
        let (mut inventory, mut facts) = (inventory(), facts());
        let key = super::super::cluster::Entity {
            hash: "x".to_owned(),
            caps: [("mon", "profile rbd"), ("mgr", "profile rbd pool=guests"), ("osd", "profile rbd pool=guests")]
                .map(|(a, b)| (a.to_owned(), b.to_owned()))
                .into(),
        };
        let cluster = facts.cluster.as_mut().unwrap();
        cluster.auth.insert(GUESTS.to_owned(), key);
        cluster.pools.insert("guests".to_owned(), Pool::default());
        assert!(plan_key(&inventory, &facts).unwrap().is_empty());
        inventory.ceph.pool = "fast".to_owned();
        let failure = plan_key(&inventory, &facts).unwrap_err();
        assert_eq!(failure.kind, crate::error::Kind::Refused);
        assert!(
            failure.to_string().contains("ceph.pool is fast") && failure.to_string().contains("pool guests"),
            "{failure}"
        );
        assert!(failure.hints[0].contains("`pool: guests`"), "{:?}", failure.hints);
        // Once the old pool is gone there is nothing to lose.
        facts.cluster.as_mut().unwrap().pools.remove("guests");
        assert_eq!(plan_key(&inventory, &facts).unwrap()[0].change.action, Action::Change);
    }

    #[test]
    fn the_guests_key_gets_its_own_pool_only() {
        let mut facts = facts();
        let todos = plan_key(&inventory(), &facts).unwrap();
        let Op::Command(command) = &todos[0].ops[0] else { panic!() };
        assert_eq!(
            command["caps"],
            json!(["mgr", "profile rbd pool=guests", "mon", "profile rbd", "osd", "profile rbd pool=guests"])
        );
        let wide = super::super::cluster::Entity {
            hash: "x".to_owned(),
            caps: [("osd".to_owned(), "allow *".to_owned())].into(),
        };
        facts.cluster.as_mut().unwrap().auth.insert(GUESTS.to_owned(), wide);
        assert_eq!(plan_key(&inventory(), &facts).unwrap()[0].change.action, Action::Change);
    }
}
