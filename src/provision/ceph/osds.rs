//! OSDs: LVM where device-mapper works, else raw devices with a start of their own; never on a disk that holds data.

use super::disk::{Verdict, judge};
use super::facts::{DiskFacts, Facts, HostFacts};
use super::todo::{Op, Todo};
use super::{mons, names::label_host};
use crate::error::Failure;
use crate::inventory::{HostSpec, Inventory, Role};
use crate::playbook::{Action, Change, quote};
use crate::ssh::Upload;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use uuid::Uuid;

const CREATE: &str = include_str!("osd.sh");
const ZAP: &str = include_str!("zap.sh");
const RELOAD: &str = "systemctl daemon-reload\n";
const MAKE_DIR: &str = "install -d -m 0755 \"$1\"\n";
const ACTIVATE_LVM: &str = r#"set -eu
systemctl reset-failed "ceph-osd@$1" 2>/dev/null || true
ceph-volume lvm activate --bluestore "$1" "$2"
"#;
/// Making an OSD takes 3 s on an idle disk; discarding a large one first can take minutes.
const CREATE_DEADLINE: Duration = Duration::from_secs(900);

/// What has to be done so that every listed disk carries a running OSD of this cluster.
pub(super) fn plan(inventory: &Inventory, facts: &Facts) -> Result<Vec<Todo>, Failure> {
    let mut todos = Vec::new();
    let (mut refused, mut missing) = (Vec::new(), Vec::new());
    let mut on_disks = BTreeSet::new();
    for host in inventory.with_role(Role::Osd) {
        check_paths(host, facts)?;
        let known = facts.host(&host.name);
        for (disk, path) in known.disks.iter().zip(&host.osds) {
            if let Some(uuid) = disk.label.as_ref().and_then(|l| l.uuid) {
                on_disks.insert(uuid);
            }
            on_disks
                .extend(disk.volumes.iter().filter_map(|(n, _)| n.strip_prefix("osd-block-")?.parse::<Uuid>().ok()));
            let path = path.display().to_string();
            if disk.missing {
                missing.push(format!("{} {path}", host.name));
                continue;
            }
            match judge(disk, inventory.cluster.fsid, facts.cluster.as_ref()) {
                Verdict::Refused(reason) => refused.push(format!("{} {path}: {reason}", host.name)),
                verdict => todos.extend(disk_todo(host, facts, disk, &path, verdict)),
            }
        }
    }
    if !refused.is_empty() {
        let failure = Failure::refused(format!("these disks must not be touched: {}", refused.join("; ")))
            .hint("take them off the host's `osds` in the inventory, or, if what is on them may be lost, clear them yourself (`ceph-volume lvm zap --destroy DISK`, or docs/ceph.md, \"Clearing a disk\")");
        return Err(missing.iter().fold(failure, |failure, disk| failure.hint(format!("there is no disk {disk}"))));
    }
    if !missing.is_empty() {
        return Err(Failure::refused(format!("there are no such disks: {}", missing.join(", ")))
            .hint("correct the paths (`rackhand facts --disks` lists those of a host), or take dead disks off the hosts' `osds`"));
    }
    todos.extend(orphans(inventory, facts, &on_disks)?);
    Ok(todos)
}

fn disk_todo(host: &HostSpec, facts: &Facts, disk: &DiskFacts, path: &str, verdict: Verdict) -> Option<Todo> {
    let change = |action| Change::new(&host.name, "ceph-osds", action, format!("disk {path}"));
    let lvm = facts.host(&host.name).lvm;
    match verdict {
        Verdict::Refused(_) => None,
        Verdict::Empty => {
            let mode = if lvm { "lvm" } else { "raw" };
            let detail = format!("make an OSD ({mode}, {} GiB)", disk.size >> 30);
            let script = format!("set -- {mode} {}\n{CREATE}", quote(path));
            let name = format!("osd-{}", path.rsplit('/').next().unwrap_or("disk"));
            Some(Todo::new(change(Action::Create).detail(detail), vec![Op::Job(name, script, CREATE_DEADLINE)]))
        }
        Verdict::HalfMade { id } => {
            let detail = "holds an OSD that was never finished and never ran: make it anew";
            let mut ops = vec![Op::Script(ZAP, vec![path.to_owned(), disk.group.clone().unwrap_or_default()])];
            ops.extend(id.map(purge_new));
            Some(Todo::new(change(Action::Create).detail(detail), ops))
        }
        Verdict::Unsure => {
            let detail = "holds an unfinished OSD: look again when the monitors answer";
            Some(Todo::new(change(Action::Run).detail(detail), Vec::new()))
        }
        Verdict::Osd { id, uuid } => running(host, facts, disk, path, id, uuid, &change),
    }
}

/// An OSD of ours that is whole: it has to start with the host, and to run.
fn running(
    host: &HostSpec,
    facts: &Facts,
    disk: &DiskFacts,
    path: &str,
    id: u32,
    uuid: Uuid,
    change: &dyn Fn(Action) -> Change,
) -> Option<Todo> {
    let known = facts.host(&host.name);
    let unit = format!("ceph-osd@{id}");
    let state = known.unit(&unit);
    if disk.group.is_some() {
        let ops = vec![Op::Script(ACTIVATE_LVM, vec![id.to_string(), uuid.to_string()])];
        return (!state.active).then(|| Todo::new(change(Action::Run).detail(format!("start osd.{id}")), ops));
    }
    let file = format!("/etc/systemd/system/{unit}.service.d/rackhand-raw.conf");
    let wanted = raw_unit(path);
    let there = known.files.get(&file);
    let mut ops = Vec::new();
    let mut details = Vec::new();
    if there != Some(&wanted) {
        let dir = file.trim_end_matches("/rackhand-raw.conf").to_owned();
        ops.push(Op::Script(MAKE_DIR, vec![dir]));
        ops.push(Op::File(Upload::new(&file, wanted.as_bytes()).mode(0o644)));
        ops.push(Op::Script(RELOAD, Vec::new()));
        details.push(format!("{} how osd.{id} finds its disk", if there.is_some() { "change" } else { "say" }));
    }
    if !state.good() {
        ops.push(mons::start(&unit));
        details.push(format!("start osd.{id}"));
    }
    (!ops.is_empty()).then(|| Todo::new(change(Action::Run).detail(details.join(", ")), ops))
}

/// What starts a raw OSD: stock units find an OSD's disk through LVM alone.
///
/// The directory of the OSD is filled from the label on the disk, so nothing on the host's own disk is needed, and the
/// device, which root owns again after each boot, is handed to ceph. The disk may appear late.
fn raw_unit(path: &str) -> String {
    format!(
        r#"# Written by rackhand: this OSD is on a raw device.
[Service]
ExecStartPre=
ExecStartPre=+/bin/sh -c 'set -e; disk={path}; dir=/var/lib/ceph/osd/ceph-%i; n=0; until [ -b "$disk" ]; do n=$((n+1)); [ "$n" -lt 60 ]; sleep 1; done; mkdir -p "$dir"; chown ceph:ceph "$disk"; ceph-bluestore-tool prime-osd-dir --dev "$disk" --path "$dir" --no-mon-config; [ "$(cat "$dir/whoami")" = %i ]; ln -snf "$disk" "$dir/block"; chown -R ceph:ceph "$dir"'
ExecStartPre=/usr/lib/ceph/ceph-osd-prestart.sh --cluster ${{CLUSTER}} --id %i
"#
    )
    // systemd would expand the shell's variables itself.
    .replace("\"$", "\"$$")
    .replace("=$((", "=$$((")
}

/// Gives a number back. The monitors themselves refuse it for an OSD that ever ran.
fn purge_new(id: u32) -> Op {
    Op::Command(json!({ "prefix": "osd purge-new", "id": id, "yes_i_really_mean_it": true }))
}

/// Numbers that a killed run left in the map: never up, on no listed disk, and with no trace on any host. An OSD that is
/// being made by hand on a disk of no inventory looks the same until it starts, but leaves its directory, and while any
/// is being made none is judged.
fn orphans(inventory: &Inventory, facts: &Facts, on_disks: &BTreeSet<Uuid>) -> Result<Vec<Todo>, Failure> {
    let label = label_host(inventory)?;
    if facts.hosts.values().any(|host| host.making) {
        return Ok(Vec::new());
    }
    // A directory that a killed run left leads to a listed disk.
    let listed = |host: &HostFacts, devices: &[String]| host.disks.iter().any(|d| devices.contains(&d.real));
    let by_hand = |host: &HostFacts, id: u32| host.osd_dirs.iter().any(|(of, at)| *of == id && !listed(host, at));
    let traced = |id: u32| facts.hosts.values().any(|host| by_hand(host, id));
    let osds = facts.cluster.iter().flat_map(|c| c.osds.values());
    let lost = osds.filter(|o| o.never_up() && !on_disks.contains(&o.uuid) && !traced(o.id));
    let purge = |id: u32| {
        let change = Change::new(label, "ceph-osds", Action::Remove, format!("osd.{id}"));
        Todo::new(change.detail("was never made and never ran"), vec![purge_new(id)])
    };
    Ok(lost.map(|o| purge(o.id)).collect())
}

/// Paths go into a unit file and a script: plain ones only, and each device once.
fn check_paths(host: &HostSpec, facts: &Facts) -> Result<(), Failure> {
    for path in &host.osds {
        let text = path.display().to_string();
        let plain = |c: char| c.is_ascii_alphanumeric() || "/_.:+=@-".contains(c);
        if !text.starts_with("/dev/") || !text.chars().all(plain) {
            return Err(Failure::usage(format!("host {}: `{text}` is not a plain device path", host.name))
                .hint("use a path of /dev/disk/by-id"));
        }
    }
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for disk in facts.host(&host.name).disks.iter().filter(|d| !d.missing) {
        if let Some(other) = seen.insert(&disk.real, &disk.path) {
            return Err(Failure::usage(format!("host {}: {other} and {} are the same disk", host.name, disk.path)));
        }
    }
    Ok(())
}

/// OSDs that were started and are not up yet; one that was only made is started by the next round.
pub(super) fn missing(inventory: &Inventory, facts: &Facts) -> Option<String> {
    let Some(cluster) = &facts.cluster else {
        return Some(format!("the monitors ({})", facts.silence.0));
    };
    let mut down = Vec::new();
    for host in inventory.with_role(Role::Osd) {
        for disk in &facts.host(&host.name).disks {
            if let Verdict::Osd { id, .. } = judge(disk, inventory.cluster.fsid, Some(cluster))
                && facts.host(&host.name).unit(&format!("ceph-osd@{id}")).active
                && cluster.osds.get(&id).is_none_or(|o| o.up == 0)
            {
                down.push(format!("osd.{id} on {}", host.name));
            }
        }
    }
    (!down.is_empty()).then(|| format!("{} to be up", down.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{facts, inventory};
    use super::*;
    use crate::error::Kind;

    fn lines(facts: &Facts) -> Vec<String> {
        let todos = plan(&inventory(), facts).unwrap();
        todos
            .iter()
            .map(|t| format!("{} {} {}: {}", t.change.host, t.change.action.sign(), t.change.object, t.change.detail))
            .collect()
    }

    #[test]
    fn each_disk_gets_what_it_lacks() {
        insta::assert_snapshot!(lines(&facts()).join("\n"), @r"
        c1 ! disk /dev/disk/by-id/lab-c1-disk0: say how osd.0 finds its disk
        c2 + disk /dev/disk/by-id/lab-c2-disk0: make an OSD (raw, 12 GiB)
        c3 + disk /dev/disk/by-id/lab-c3-disk0: make an OSD (raw, 12 GiB)
        ");
    }

    #[test]
    fn a_running_osd_needs_nothing() {
        let mut facts = facts();
        let c1 = facts.hosts.get_mut("c1").unwrap();
        c1.files.insert(
            "/etc/systemd/system/ceph-osd@0.service.d/rackhand-raw.conf".to_owned(),
            raw_unit("/dev/disk/by-id/lab-c1-disk0"),
        );
        assert!(!lines(&facts).iter().any(|l| l.starts_with("c1")));
        facts.hosts.get_mut("c1").unwrap().units.clear();
        assert!(lines(&facts).contains(&"c1 ! disk /dev/disk/by-id/lab-c1-disk0: start osd.0".to_owned()));
    }

    #[test]
    fn every_refused_disk_is_named_at_once() {
        let mut facts = facts();
        facts.hosts.get_mut("c2").unwrap().disks[0].mounts.push("/srv".to_owned());
        facts.hosts.get_mut("c3").unwrap().disks[0].signatures.push("ext4".to_owned());
        let failure = plan(&inventory(), &facts).unwrap_err();
        assert_eq!(failure.kind, Kind::Refused);
        assert!(failure.to_string().contains("c2 /dev/disk/by-id/lab-c2-disk0: it is mounted at /srv"), "{failure}");
        assert!(failure.to_string().contains("c3 /dev/disk/by-id/lab-c3-disk0: it holds ext4"), "{failure}");
    }

    #[test]
    fn dead_disks_are_named_and_nobody_is_told_to_clear_them() {
        let mut facts = facts();
        for host in ["c2", "c3"] {
            facts.hosts.get_mut(host).unwrap().disks[0].missing = true;
        }
        let failure = plan(&inventory(), &facts).unwrap_err();
        assert_eq!(failure.kind, Kind::Refused);
        let said = failure.to_string();
        assert!(said.ends_with("c2 /dev/disk/by-id/lab-c2-disk0, c3 /dev/disk/by-id/lab-c3-disk0"), "{said}");
        assert!(failure.hints.iter().all(|hint| !hint.contains("wipefs")), "{:?}", failure.hints);
    }

    #[test]
    fn a_number_without_a_disk_is_purged_only_when_it_never_ran() {
        let mut facts = facts();
        let cluster = facts.cluster.as_mut().unwrap();
        for (id, up_from) in [(7, 0), (8, 12)] {
            let text = format!(
                r#"{{"osd":{id},"uuid":"{}","up":0,"in":1,"up_from":{up_from},"down_at":0,"state":["exists","new"]}}"#,
                Uuid::from_u128(id.into())
            );
            cluster.osds.insert(id, serde_json::from_str(&text).unwrap());
        }
        let lines = self::lines(&facts);
        assert!(lines.contains(&"c1 - osd.7: was never made and never ran".to_owned()));
        assert!(!lines.iter().any(|l| l.contains("osd.8")));
        assert!(plan(&inventory(), &facts).unwrap().iter().all(|t| !t.implied), "it is agreed on first");
        // Made by hand on a disk of no inventory: prepared already, or just now.
        facts.hosts.get_mut("c3").unwrap().osd_dirs.push((7, vec!["/dev/sdz".to_owned()]));
        assert!(!self::lines(&facts).iter().any(|l| l.contains("osd.7")));
        let ours = vec!["/dev/dm-0".to_owned(), "/dev/sda-c3".to_owned()];
        facts.hosts.get_mut("c3").unwrap().osd_dirs[0].1 = ours;
        assert!(self::lines(&facts).iter().any(|l| l.contains("osd.7")), "what a killed run left");
        facts.hosts.get_mut("c3").unwrap().making = true;
        assert!(!self::lines(&facts).iter().any(|l| l.contains("osd.7")));
    }

    #[test]
    fn the_start_of_a_raw_osd_keeps_the_shells_variables() {
        let text = raw_unit("/dev/disk/by-id/x");
        let shell = text.lines().find(|l| l.contains("/bin/sh")).unwrap();
        assert!(shell.contains(r#"[ -b "$$disk" ]"#) && shell.contains("n=$$((n+1))"), "{shell}");
        assert!(shell.contains(r#"[ "$$(cat "$$dir/whoami")" = %i ]"#), "{shell}");
        assert!(text.contains("--cluster ${CLUSTER} --id %i"), "{text}");
    }
}
