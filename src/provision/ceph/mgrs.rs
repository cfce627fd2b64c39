//! Keyrings where daemons and operators look for them, and the managers.

use super::facts::Facts;
use super::mons;
use super::todo::{Op, Todo};
use crate::error::Failure;
use crate::inventory::{Inventory, Role};
use crate::playbook::{Action, Change};

const ADMIN: &str = "/etc/ceph/ceph.client.admin.keyring";
const BOOTSTRAP: &str = "/var/lib/ceph/bootstrap-osd/ceph.keyring";
const BOOTSTRAP_CAPS: [&str; 4] = ["mon", "profile bootstrap-osd", "mgr", "allow r"];
const CAPS: [&str; 6] = ["mon", "allow profile mgr", "osd", "allow *", "mds", "allow *"];
const RESTART: &str = r#"set -eu
systemctl reset-failed "$1" 2>/dev/null || true
systemctl enable -q "$1"
systemctl restart "$1"
"#;

/// The administrator's keyring on monitor hosts, the one that makes OSDs on OSD hosts.
pub(super) fn plan_keyrings(inventory: &Inventory, facts: &Facts) -> Result<Vec<Todo>, Failure> {
    let mut todos = Vec::new();
    let places = [
        (Role::Mon, "client.admin", ADMIN, "root:root", [].as_slice()),
        (Role::Osd, "client.bootstrap-osd", BOOTSTRAP, "ceph:ceph", BOOTSTRAP_CAPS.as_slice()),
    ];
    for (role, entity, path, owner, caps) in places {
        // An entity that exists keeps the capabilities it has: a cluster made by others may word them differently.
        let exists = facts.cluster.as_ref().is_some_and(|c| c.auth.contains_key(entity));
        let caps = if exists { Vec::new() } else { caps.to_vec() };
        for host in inventory.with_role(role) {
            if let Some(action) = keyring_action(facts, &host.name, entity) {
                let change = Change::new(&host.name, "ceph-keyrings", action, format!("file {path}"));
                let op = Op::Keyring { entity: entity.to_owned(), caps: caps.clone(), path: path.to_owned(), owner };
                todos.push(Todo::new(change.detail(format!("key of {entity}")), vec![op]));
            }
        }
    }
    Ok(todos)
}

/// What has to happen to an entity's keyring on a host; while no monitor answers, one that is there is believed.
fn keyring_action(facts: &Facts, host: &str, entity: &str) -> Option<Action> {
    let known = facts.cluster.as_ref().map(|c| c.auth.get(entity).map(|e| &e.hash));
    match (facts.host(host).keys.get(entity), known) {
        (None, _) => Some(Action::Create),
        (Some(_), None) => None,
        (Some(there), Some(hash)) => (hash != Some(there)).then_some(Action::Change),
    }
}

/// Managers: a key, a keyring, a running unit.
pub(super) fn plan(inventory: &Inventory, facts: &Facts) -> Result<Vec<Todo>, Failure> {
    let mut todos = Vec::new();
    for host in inventory.with_role(Role::Mgr) {
        let entity = format!("mgr.{}", host.name);
        let unit = format!("ceph-mgr@{}", host.name);
        let change = |action| Change::new(&host.name, "ceph-mgrs", action, format!("mgr {}", host.name));
        if let Some(action) = keyring_action(facts, &host.name, &entity) {
            let path = format!("/var/lib/ceph/mgr/ceph-{}/keyring", host.name);
            let keyring = Op::Keyring { entity, caps: CAPS.to_vec(), path, owner: "ceph:ceph" };
            let ops = vec![keyring, Op::Script(RESTART, vec![format!("{unit}.service")])];
            todos.push(Todo::new(change(action).detail("key and daemon"), ops));
        } else if !facts.host(&host.name).unit(&unit).good() {
            todos.push(Todo::new(change(Action::Run).detail("start"), vec![mons::start(&unit)]));
        }
    }
    Ok(todos)
}

/// Managers that have not reported to the monitors yet.
pub(super) fn missing(inventory: &Inventory, facts: &Facts) -> Option<String> {
    let cluster = facts.cluster.as_ref()?;
    let mgrs = inventory.with_role(Role::Mgr).map(|h| h.name.as_str());
    let out: Vec<&str> = mgrs.filter(|name| !cluster.mgrs.iter().any(|m| m == name)).collect();
    (!out.is_empty()).then(|| format!("manager {} to report", out.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{facts, inventory};
    use super::*;

    #[test]
    fn keyrings_and_managers_that_fit_are_left_alone() {
        let mut facts = facts();
        let todos = plan_keyrings(&inventory(), &facts).unwrap();
        assert!(todos.iter().all(|t| t.change.host != "c1"), "{todos:?}");
        assert_eq!(todos.len(), 4);
        let mgrs = plan(&inventory(), &facts).unwrap();
        assert_eq!(mgrs.len(), 2);
        let auth = &mut facts.cluster.as_mut().unwrap().auth;
        auth.get_mut("client.admin").unwrap().hash = "other".to_owned();
        let todos = plan_keyrings(&inventory(), &facts).unwrap();
        assert!(todos.iter().any(|t| t.change.host == "c1" && t.change.action == Action::Change));
    }

    #[test]
    fn a_stopped_manager_is_started() {
        let mut facts = facts();
        facts.hosts.get_mut("c1").unwrap().units.clear();
        let todos = plan(&inventory(), &facts).unwrap();
        assert_eq!((todos[0].change.action, todos[0].change.detail.as_str()), (Action::Run, "start"));
    }
}
