//! Where the hosts stand in CRUSH, and the rule that spreads copies over them.

use super::facts::Facts;
use super::names::label_host;
use super::todo::{Op, Todo};
use crate::error::Failure;
use crate::inventory::{FailureDomain, HostSpec, Inventory, Role};
use crate::playbook::{Action, Change};
use serde_json::json;
use std::collections::BTreeMap;

/// The root every bucket is under.
const ROOT: &str = "default";

/// CRUSH's word for a failure domain.
fn word(domain: FailureDomain) -> &'static str {
    match domain {
        FailureDomain::Host => "host",
        FailureDomain::Rack => "rack",
        FailureDomain::Datacenter => "datacenter",
    }
}

/// The rule of our pools.
pub(super) fn rule(inventory: &Inventory) -> String {
    format!("rackhand-{}", word(inventory.ceph.failure_domain))
}

/// From the top down: kind, name and the bucket above it.
fn chain(host: &HostSpec) -> Vec<(&'static str, String, String)> {
    let levels = [
        ("datacenter", host.location.datacenter.as_ref()),
        ("rack", host.location.rack.as_ref()),
        ("host", Some(&host.name)),
    ];
    let mut above = ROOT.to_owned();
    let mut chain = Vec::new();
    for (kind, name) in levels {
        if let Some(name) = name {
            chain.push((kind, name.clone(), std::mem::replace(&mut above, name.clone())));
        }
    }
    chain
}

/// Buckets that are missing or stand elsewhere, and the rule.
pub(super) fn plan(inventory: &Inventory, facts: &Facts) -> Result<Vec<Todo>, Failure> {
    let label = label_host(inventory)?;
    let cluster = facts.cluster.as_ref();
    let mut wanted: Vec<(&str, String, String)> = Vec::new();
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for host in inventory.with_role(Role::Osd) {
        let chain = chain(host);
        if !chain.iter().any(|(kind, _, _)| *kind == word(inventory.ceph.failure_domain)) {
            let domain = word(inventory.ceph.failure_domain);
            return Err(Failure::usage(format!(
                "host {}: it has no location.{domain}, but the failure domain is {domain}",
                host.name
            )));
        }
        for (kind, name, above) in chain {
            match seen.insert(name.clone(), above.clone()) {
                None => wanted.push((kind, name, above)),
                Some(other) if other == above => {}
                Some(other) => {
                    return Err(Failure::usage(format!(
                        "{kind} {name} stands under {other} for one host and under {above} for another"
                    )));
                }
            }
        }
    }
    let mut todos = Vec::new();
    for (kind, name, above) in wanted {
        let object = format!("crush {kind} {name}");
        let place = [parent_argument(&above, inventory)];
        match cluster.and_then(|c| c.buckets.get(&name)) {
            Some(bucket) if bucket.kind != kind => {
                return Err(Failure::refused(format!(
                    "the cluster's CRUSH map has a {} named {name}, the inventory a {kind}",
                    bucket.kind
                )));
            }
            Some(bucket) if bucket.parent.as_deref() == Some(above.as_str()) => {}
            Some(bucket) => {
                let old = bucket.parent.as_deref().unwrap_or("nowhere");
                let change = Change::new(label, "ceph-crush", Action::Change, object);
                let place = json!({ "prefix": "osd crush move", "name": name, "args": place });
                todos.push(Todo::new(
                    change.detail(format!("from {old} to {above}; data moves")),
                    vec![Op::Command(place)],
                ));
            }
            None => {
                let make = json!({ "prefix": "osd crush add-bucket", "name": name, "type": kind, "args": place });
                let change = Change::new(label, "ceph-crush", Action::Create, object).detail(format!("in {above}"));
                todos.push(Todo::new(change, vec![Op::Command(make)]));
            }
        }
    }
    let rule = rule(inventory);
    if !cluster.is_some_and(|c| c.rules.contains_key(&rule)) {
        let domain = word(inventory.ceph.failure_domain);
        let command =
            json!({ "prefix": "osd crush rule create-replicated", "name": rule, "root": ROOT, "type": domain });
        let change = Change::new(label, "ceph-crush", Action::Create, format!("crush rule {rule}"));
        todos.push(Todo::new(change.detail(format!("copies on different {domain}s")), vec![Op::Command(command)]));
    }
    Ok(todos)
}

/// `rack=r1`: the kind of the bucket above, and its name.
fn parent_argument(above: &str, inventory: &Inventory) -> String {
    let rack = |h: &HostSpec| h.location.rack.as_deref() == Some(above);
    let kind = if above == ROOT {
        "root"
    } else if inventory.hosts.iter().any(rack) {
        "rack"
    } else {
        "datacenter"
    };
    format!("{kind}={above}")
}

#[cfg(test)]
mod tests {
    use super::super::testing::{facts, inventory};
    use super::*;

    fn lines(inventory: &Inventory, facts: &Facts) -> Vec<String> {
        let todos = plan(inventory, facts).unwrap();
        let commands = |t: &Todo| {
            let of = |op: &Op| {
                if let Op::Command(c) = op { c["args"][0].as_str().unwrap_or("").to_owned() } else { String::new() }
            };
            t.ops.iter().map(of).collect::<Vec<_>>().join(" ")
        };
        todos.iter().map(|t| format!("{} {} | {}", t.change.action.sign(), t.change.object, commands(t))).collect()
    }

    #[test]
    fn buckets_come_from_the_top_down() {
        let mut inventory = inventory();
        for (host, rack) in inventory.hosts.iter_mut().zip(["r1", "r1", "r2"]) {
            host.location.rack = Some(rack.to_owned());
            host.location.datacenter = Some("d1".to_owned());
        }
        insta::assert_snapshot!(lines(&inventory, &Facts::default()).join("\n"), @r"
        + crush datacenter d1 | root=default
        + crush rack r1 | datacenter=d1
        + crush host c1 | rack=r1
        + crush host c2 | rack=r1
        + crush rack r2 | datacenter=d1
        + crush host c3 | rack=r2
        + crush rule rackhand-host |
        ");
    }

    #[test]
    fn a_host_that_stands_elsewhere_is_moved() {
        insta::assert_snapshot!(lines(&inventory(), &facts()).join("\n"), @r"
        ~ crush host c1 | root=default
        + crush host c2 | root=default
        + crush host c3 | root=default
        + crush rule rackhand-host |
        ");
    }

    #[test]
    fn a_failure_domain_needs_locations() {
        let mut inventory = inventory();
        inventory.ceph.failure_domain = FailureDomain::Rack;
        assert!(plan(&inventory, &facts()).unwrap_err().to_string().contains("location.rack"));
    }
}
