//! `/etc/ceph/ceph.conf`: only what is needed to find and enter the cluster; everything else is set in the cluster.

use super::facts::Facts;
use super::names::{CONF as PATH, SEED, mon_address};
use super::todo::{Op, Todo};
use crate::error::Failure;
use crate::inventory::{Inventory, Role};
use crate::playbook::{Action, Change};
use crate::ssh::Upload;
use uuid::Uuid;

/// The file's text, the same on every host.
pub(super) fn text(inventory: &Inventory) -> String {
    let mons: Vec<String> = inventory.with_role(Role::Mon).map(|h| mon_address(h.storage_address)).collect();
    let network = inventory.networks.storage.cidr.trunc();
    let v6 = if network.addr().is_ipv6() { "ms_bind_ipv4 = false\nms_bind_ipv6 = true\n" } else { "" };
    format!(
        "# Written by rackhand. Settings live in the cluster: see `ceph config dump`.\n\
         [global]\n\
         fsid = {}\n\
         mon_host = {}\n\
         public_network = {network}\n\
         {v6}\
         auth_cluster_required = cephx\n\
         auth_service_required = cephx\n\
         auth_client_required = cephx\n",
        inventory.cluster.fsid,
        mons.join(",")
    )
}

/// Where the file differs, after making sure that no host belongs to another cluster.
pub(super) fn plan(inventory: &Inventory, facts: &Facts) -> Result<Vec<Todo>, Failure> {
    strangers(inventory, facts)?;
    let wanted = text(inventory);
    let mut todos = Vec::new();
    for host in &inventory.hosts {
        let there = facts.host(&host.name).files.get(PATH);
        if there == Some(&wanted) {
            continue;
        }
        let action = if there.is_some() { Action::Change } else { Action::Create };
        let diff = difference(there.map_or("", String::as_str), &wanted);
        let change = Change::new(&host.name, "ceph-conf", action, format!("file {PATH}")).diff(diff);
        let dir = "install -d -m 0755 /etc/ceph\n";
        let ops = vec![Op::Script(dir, Vec::new()), Op::File(Upload::new(PATH, wanted.as_bytes()).mode(0o644))];
        todos.push(Todo::new(change, ops));
    }
    Ok(todos)
}

/// Line by line what will be different.
pub(super) fn difference(old: &str, new: &str) -> String {
    similar::TextDiff::from_lines(old, new).unified_diff().context_radius(1).to_string()
}

/// Refuses hosts with another cluster's data, and names that do not fit.
fn strangers(inventory: &Inventory, facts: &Facts) -> Result<(), Failure> {
    let ours = inventory.cluster.fsid;
    let refuse = |host: &str, what: &str, other: Uuid| {
        Failure::refused(format!("host {host}: {what} belongs to another Ceph cluster, {other}, not to {ours}"))
            .hint("set cluster.fsid in the inventory if that cluster is meant, or clear the host of it by hand")
    };
    if let Some(cluster) = facts.cluster.as_ref().filter(|c| c.fsid != ours) {
        return Err(refuse(&cluster.via, "the running monitor", cluster.fsid));
    }
    for (name, host) in &facts.hosts {
        if let Some(other) = host.files.get(PATH).and_then(|t| fsid_of(t)).filter(|f| *f != ours) {
            return Err(refuse(name, PATH, other));
        }
        if let Some(other) = host.cephadm.first() {
            return Err(Failure::refused(format!(
                "host {name}: another tool (cephadm) runs Ceph daemons there, /var/lib/ceph/{other}"
            ))
            .hint("remove the host from that tool first (`ceph orch host drain`), or take it from the inventory"));
        }
        if let Some(foreign) = host.foreign.first() {
            return Err(Failure::refused(format!("host {name}: another tool has Ceph there: {foreign}"))
                .hint("remove the host from that tool first, or take it from the inventory"));
        }
        if host.mon_port && host.stores.is_empty() {
            return Err(Failure::refused(format!(
                "host {name}: something listens on a port of Ceph's monitors (3300 or 6789), and it is not ours"
            ))
            .hint("find out what it is (`ss -ltnp` on the host), and stop or move it"));
        }
        for (store, fsid) in &host.stores {
            if let Some(other) = fsid.filter(|f| *f != ours) {
                return Err(refuse(name, &format!("the store of monitor {store}"), other));
            }
            let conf = host.files.get(PATH).and_then(|text| fsid_of(text));
            if fsid.is_none() && conf != Some(ours) {
                return Err(Failure::refused(format!(
                    "host {name}: it is not known which cluster the store of monitor {store} belongs to"
                ))
                .hint(format!(
                    "give the host the {PATH} of its cluster back, or remove /var/lib/ceph/mon/ceph-{store}"
                )));
            }
            if store != name {
                return Err(Failure::refused(format!(
                    "host {name}: it holds the store of a monitor with another name, {store}"
                ))
                .hint("a monitor is named like its host; move or remove /var/lib/ceph/mon by hand"));
            }
        }
        if let Some(other) = host.seed.as_ref().and_then(|s| s.fsid).filter(|f| *f != ours) {
            return Err(refuse(name, SEED, other));
        }
        if !host.hostname.is_empty() && host.hostname != *name {
            return Err(Failure::usage(format!(
                "host {name} calls itself {}; Ceph files its disks under that name",
                host.hostname
            ))
            .hint("name it in the inventory as it calls itself, or set its host name"));
        }
    }
    Ok(())
}

fn fsid_of(conf: &str) -> Option<Uuid> {
    conf.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == "fsid").then(|| value.trim().parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{facts, inventory};
    use super::*;
    use crate::error::Kind;

    #[test]
    fn the_file_is_short_and_lists_both_messengers() {
        insta::assert_snapshot!(text(&inventory()), @r"
        # Written by rackhand. Settings live in the cluster: see `ceph config dump`.
        [global]
        fsid = 5a2f6f7e-2c1b-4f5e-9c39-0d4f0a3c7b11
        mon_host = [v2:10.88.0.11:3300,v1:10.88.0.11:6789],[v2:10.88.0.12:3300,v1:10.88.0.12:6789],[v2:10.88.0.13:3300,v1:10.88.0.13:6789]
        public_network = 10.88.0.0/24
        auth_cluster_required = cephx
        auth_service_required = cephx
        auth_client_required = cephx
        ");
        assert_eq!(mon_address("fd00::1".parse().unwrap()), "[v2:[fd00::1]:3300,v1:[fd00::1]:6789]");
    }

    #[test]
    fn only_hosts_that_differ_are_written() {
        let mut facts = facts();
        let todos = plan(&inventory(), &facts).unwrap();
        assert_eq!(todos.iter().filter(|t| t.change.action == Action::Create).count(), 2);
        for host in ["c1", "c2", "c3"] {
            facts.hosts.get_mut(host).unwrap().files.insert(PATH.to_owned(), text(&inventory()));
        }
        assert!(plan(&inventory(), &facts).unwrap().is_empty());
    }

    #[test]
    fn hosts_of_another_cluster_are_refused() {
        let other = "11111111-1111-4111-8111-111111111111";
        let refused = |change: &dyn Fn(&mut Facts)| {
            let mut facts = facts();
            change(&mut facts);
            let failure = plan(&inventory(), &facts).unwrap_err();
            assert_eq!(failure.kind, Kind::Refused);
            let said = failure.to_string();
            assert!(
                [other, "another name", "not known which cluster", "another tool", "not ours"]
                    .iter()
                    .any(|words| said.contains(words)),
                "{said}"
            );
        };
        refused(&|f| f.hosts.get_mut("c2").unwrap().cephadm.push("5a2f6f7e-2c1b-4f5e-9c39-0d4f0a3c7b11".to_owned()));
        refused(&|f| f.hosts.get_mut("c2").unwrap().foreign.push("Rook /var/lib/rook/mon-a".to_owned()));
        refused(&|f| {
            let host = f.hosts.get_mut("c2").unwrap();
            host.stores.clear();
            host.mon_port = true;
        });
        refused(&|f| {
            let conf = format!("[global]\n fsid={other}\n");
            f.hosts.get_mut("c2").unwrap().files.insert(PATH.to_owned(), conf);
        });
        refused(&|f| {
            f.hosts.get_mut("c2").unwrap().stores.insert("c2".to_owned(), other.parse().ok());
        });
        refused(&|f| {
            f.hosts.get_mut("c2").unwrap().stores.insert("zz".to_owned(), Some(inventory().cluster.fsid));
        });
        refused(&|f| {
            f.hosts.get_mut("c2").unwrap().stores.insert("c2".to_owned(), None);
        });
        refused(&|f| f.cluster.as_mut().unwrap().fsid = other.parse().unwrap());
    }
}
