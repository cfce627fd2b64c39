//! Are the disks the inventory gives to Ceph there, and free or already ours?

use super::facts::{Disk, Facts};
use super::finding::{Report, mib};
use crate::inventory::{HostSpec, Inventory};
use std::collections::BTreeMap;
use std::path::Path;

/// Smaller ones hold no useful OSD: BlueStore's own minimum with its database is near this.
const SMALLEST: u64 = 5 << 30;

pub(super) fn disks(inventory: &Inventory, host: &HostSpec, facts: &Facts, report: &mut Report<'_>) {
    let fsid = inventory.cluster.fsid.to_string();
    let mut named: BTreeMap<&str, &Path> = BTreeMap::new();
    for path in &host.osds {
        let name = path.display().to_string();
        let Some(disk) = facts.disk(&name) else {
            if let Some(whole) = facts.disks.iter().find(|disk| disk.paths.contains(&name)) {
                let what = format!("{name} is one of {} ways to the disk {}", ways(whole), whole.path);
                let fix = format!("name the disk itself: {}", whole.stable_name().unwrap_or(&whole.path));
                report.error("disk-path", what, fix);
                continue;
            }
            let free: Vec<&str> = facts
                .disks
                .iter()
                .filter(|d| d.is_empty())
                .map(|d| d.ids.first().unwrap_or(&d.path).as_str())
                .collect();
            let fix = match free[..] {
                [] => "correct the path: see `rackhand facts -o json` for its disks".to_owned(),
                _ => format!("correct the path; empty disks there: {}", free.join(", ")),
            };
            report.error("disk-missing", format!("has no disk {name}"), fix);
            continue;
        };
        if let Some(other) = named.insert(&disk.path, path) {
            let what = format!("{name} and {} are the same disk, {}", other.display(), disk.path);
            report.error("disk-twice", what, "take one of the two from the host's osds");
            continue;
        }
        if ways(disk) > 1 && !disk.multipath {
            let nodes: Vec<&str> = disk.paths.iter().map(String::as_str).collect();
            let what = format!("{name}: {} look like {} ways to one disk", nodes.join(" and "), nodes.len());
            let fix = "install multipath-tools on it, so that the loss of one way does not take the OSD; if they are \
                       different disks after all, their maker gave them the same serial number";
            report.warning("disk-paths", what, fix);
        }
        match &disk.osd {
            Some(osd) if osd.fsid == fsid => continue,
            Some(osd) => {
                let what = format!("{name} ({}) holds storage of another Ceph cluster, {}", disk.path, osd.fsid);
                let fix = "take it from the host's osds; if that cluster is gone for good, clear the disk by hand \
                           (docs/ceph.md, \"Clearing a disk\")";
                report.error("disk-used", what, fix);
                continue;
            }
            None => {}
        }
        if !disk.mounted.is_empty() {
            let what = format!("{name} ({}) is mounted at {}", disk.path, disk.mounted.join(", "));
            report.error("disk-used", what, "take it from the host's osds: it is in use");
        } else if !disk.content.is_empty() {
            let what = format!("{name} ({}) holds {}", disk.path, disk.content.join(", "));
            report.error("disk-used", what, clearing(&disk.path));
        } else if disk.read_only {
            report.error("disk-read-only", format!("{name} ({}) cannot be written", disk.path), "replace the disk");
        } else if disk.size < SMALLEST {
            let what = format!("{name} ({}) has only {}", disk.path, mib(disk.size));
            report.error("disk-small", what, "use a disk of 5 GiB at least");
        }
    }
}

/// How many nodes lead to a disk.
fn ways(disk: &Disk) -> usize {
    disk.paths.iter().filter(|path| !path.starts_with("/dev/disk/")).count().max(1)
}

/// How a disk is cleared: signatures alone are not all that provisioning takes for data, and Ceph keeps copies of its label
/// at 1, 10, 100 and 1000 GiB.
fn clearing(path: &str) -> String {
    format!(
        "if what is on it may be lost, clear it on the host: `wipefs -af {path}; for g in 0 1 10 100 1000; do dd \
         if=/dev/zero of={path} bs=1M count=10 seek=$((g * 1024)) conv=notrunc; done`"
    )
}
