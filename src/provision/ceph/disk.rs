//! What may be done with a disk: a pure verdict over what is on it. Data is never touched.

use super::cluster::ClusterFacts;
use super::facts::{DiskFacts, Label};
use uuid::Uuid;

/// Ceph itself refuses smaller ones.
const SMALLEST: u64 = 5 << 30;

/// What may be done with a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is empty: an OSD may be made on it.
    Empty,
    /// It holds an OSD of this cluster.
    Osd {
        /// Its number.
        id: u32,
        /// Its unique id.
        uuid: Uuid,
    },
    /// It holds an OSD whose making was interrupted and that never ran: it may be made anew.
    HalfMade {
        /// Its number in the map, where it has one.
        id: Option<u32>,
    },
    /// It holds an unfinished OSD, and no monitor answers that could tell whose it is: look again later.
    Unsure,
    /// It holds, or may hold, something else.
    Refused(String),
}

/// Judges a disk of a cluster; `cluster` is `None` while no monitor answers.
pub(super) fn judge(disk: &DiskFacts, fsid: Uuid, cluster: Option<&ClusterFacts>) -> Verdict {
    if disk.missing {
        return Verdict::Refused("there is no such block device".to_owned());
    }
    if !disk.mounts.is_empty() {
        return Verdict::Refused(format!("it is mounted at {}", disk.mounts.join(", ")));
    }
    if let Some(group) = &disk.group {
        return volume_group(disk, group, fsid, cluster);
    }
    if let Some(whole) = disk.children.iter().find_map(|child| child.strip_suffix(" mpath")) {
        return Verdict::Refused(format!(
            "it is one path to the multipath device {whole}: list /dev/mapper/{whole} instead"
        ));
    }
    if !disk.children.is_empty() {
        return Verdict::Refused(format!("it is divided or in use: {}", disk.children.join(", ")));
    }
    if !disk.holders.is_empty() {
        return Verdict::Refused(format!("{} is built on it", disk.holders.join(", ")));
    }
    if let Some(label) = &disk.label {
        return labelled(label, fsid, cluster);
    }
    if !disk.signatures.is_empty() {
        return Verdict::Refused(format!("it holds {}", disk.signatures.join(", ")));
    }
    if disk.unreadable {
        return Verdict::Refused("it cannot be read: see `dmesg` there, it may be dying".to_owned());
    }
    if !disk.clean {
        return Verdict::Refused("its first MiB is not empty, although no known signature is on it".to_owned());
    }
    if disk.size < SMALLEST {
        return Verdict::Refused(format!("it has {} MiB, an OSD needs 5 GiB", disk.size >> 20));
    }
    Verdict::Empty
}

/// The OSD of a BlueStore label.
///
/// The label's unique id is written first, cluster and number near the end, `ready` last; what was killed in between
/// can be recognised by the unique id alone.
fn labelled(label: &Label, fsid: Uuid, cluster: Option<&ClusterFacts>) -> Verdict {
    if let Some(other) = label.fsid.filter(|f| *f != fsid) {
        let id = label.id.map_or_else(|| "an OSD".to_owned(), |id| format!("osd.{id}"));
        return Verdict::Refused(format!("it holds {id} of another cluster, {other}"));
    }
    let Some(uuid) = label.uuid else {
        return Verdict::Refused("it holds a BlueStore OSD whose label cannot be read".to_owned());
    };
    let complete = label.ready && label.fsid.is_some();
    match (cluster.map(|c| c.osd_of(uuid)), label.id) {
        // Nobody can be asked: what says it is ours is left as it is, and started.
        (None, Some(id)) if complete => Verdict::Osd { id, uuid },
        (Some(Some(osd)), Some(id)) if complete && osd.id == id => Verdict::Osd { id, uuid },
        (Some(Some(osd)), _) if !complete && osd.never_up() => Verdict::HalfMade { id: Some(osd.id) },
        (Some(Some(osd)), id) => Verdict::Refused(format!(
            "its label ({}) does not fit osd.{}, whose unique id {uuid} it carries",
            id.map_or_else(|| "unfinished".to_owned(), |id| format!("osd.{id}")),
            osd.id
        )),
        (Some(None), Some(id)) => {
            Verdict::Refused(format!("it holds osd.{id} ({uuid}), which this cluster does not know (any more)"))
        }
        (Some(None), None) => {
            Verdict::Refused(format!("it holds an unfinished OSD ({uuid}) this cluster does not know"))
        }
        (None, _) => Verdict::Unsure,
    }
}

/// The OSD on a logical volume, as `ceph-volume lvm` makes them: group `ceph-UUID`, volume `osd-block-UUID`.
fn volume_group(disk: &DiskFacts, group: &str, fsid: Uuid, cluster: Option<&ClusterFacts>) -> Verdict {
    let ours = group.strip_prefix("ceph-").is_some_and(|rest| rest.parse::<Uuid>().is_ok());
    if !ours {
        return Verdict::Refused(format!("it belongs to the LVM volume group {group}"));
    }
    let (name, tags) = match disk.volumes.as_slice() {
        // A group of that kind without a volume holds nothing: the making was interrupted.
        [] if disk.unused => return Verdict::HalfMade { id: None },
        [] => return Verdict::Refused(format!("LVM does not tell what is in its volume group {group}")),
        [one] => one,
        _ => return Verdict::Refused(format!("the volume group {group} has several logical volumes")),
    };
    let tag = |key: &str| tags.split(',').find_map(|t| t.strip_prefix(key)?.strip_prefix('='));
    if let Some(other) = tag("ceph.cluster_fsid").and_then(|t| t.parse::<Uuid>().ok()).filter(|f| *f != fsid) {
        return Verdict::Refused(format!("it holds an OSD of another cluster, {other}, in {group}/{name}"));
    }
    if let Some(label) = &disk.label {
        return labelled(label, fsid, cluster);
    }
    let uuid = name.strip_prefix("osd-block-").and_then(|rest| rest.parse::<Uuid>().ok());
    let known = uuid.zip(cluster).and_then(|(uuid, c)| c.osd_of(uuid));
    match known {
        None if uuid.is_some() && cluster.is_none() => Verdict::Unsure,
        Some(osd) if osd.never_up() => Verdict::HalfMade { id: Some(osd.id) },
        // It ran, and its label cannot be seen: the volume is not active. Ceph's start of it sees to that.
        Some(osd) if tag("ceph.osd_id") == Some(&osd.id.to_string()) => Verdict::Osd { id: osd.id, uuid: osd.uuid },
        _ => Verdict::Refused(format!("the logical volume {group}/{name} on it holds no finished OSD")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: &str = "5a2f6f7e-2c1b-4f5e-9c39-0d4f0a3c7b11";
    const OTHER: &str = "11111111-2c1b-4f5e-9c39-0d4f0a3c7b11";
    /// osd.0 of the recorded cluster, which is up.
    const OSD0: &str = "d1dcca70-ef17-400c-847b-24eb30cae3df";
    /// osd.7, added below: in the map, never up.
    const OSD7: &str = "13d8ecf3-4d80-49f5-bae7-a277a9ebedc5";
    const NOBODY: &str = "99999999-4d80-49f5-bae7-a277a9ebedc5";

    fn cluster() -> ClusterFacts {
        let mut cluster = ClusterFacts::recorded(include_str!("testdata/cluster.json"));
        let osd = serde_json::from_str(&format!(
            r#"{{"osd":7,"uuid":"{OSD7}","up":0,"in":1,"up_from":0,"down_at":0,"state":["exists","new"]}}"#
        ));
        cluster.osds.insert(7, osd.unwrap());
        cluster
    }

    fn empty() -> DiskFacts {
        DiskFacts {
            path: "/dev/disk/by-id/a".into(),
            real: "/dev/sda".into(),
            size: 12 << 30,
            clean: true,
            ..DiskFacts::default()
        }
    }

    fn labelled_disk(uuid: &str, fsid: Option<&str>, id: Option<u32>, ready: bool) -> DiskFacts {
        let label = Label { uuid: Some(uuid.parse().unwrap()), fsid: fsid.map(|f| f.parse().unwrap()), id, ready };
        DiskFacts { clean: false, signatures: vec!["ceph_bluestore".into()], label: Some(label), ..empty() }
    }

    fn lvm(group: &str, volumes: &[(&str, &str)], label: Option<Label>) -> DiskFacts {
        DiskFacts {
            clean: false,
            signatures: vec!["LVM2_member".into()],
            group: Some(group.into()),
            children: volumes.iter().map(|_| "ceph--x lvm".into()).collect(),
            holders: volumes.iter().map(|_| "dm-0".into()).collect(),
            volumes: volumes.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect(),
            unused: volumes.is_empty(),
            label,
            ..empty()
        }
    }

    fn refused(disk: DiskFacts, word: &str) {
        match judge(&disk, US.parse().unwrap(), Some(&cluster())) {
            Verdict::Refused(reason) => assert!(reason.contains(word), "{reason}"),
            other => panic!("{disk:?} was judged {other:?}"),
        }
    }

    fn is(disk: &DiskFacts, verdict: &Verdict) {
        assert_eq!(judge(disk, US.parse().unwrap(), Some(&cluster())), *verdict, "{disk:?}");
    }

    #[test]
    fn what_may_hold_data_is_refused() {
        refused(DiskFacts { missing: true, ..empty() }, "no such");
        refused(DiskFacts { mounts: vec!["/".into()], ..empty() }, "mounted at /");
        refused(DiskFacts { mounts: vec!["[SWAP]".into()], ..empty() }, "[SWAP]");
        refused(DiskFacts { children: vec!["sda1 part".into()], ..empty() }, "sda1");
        refused(DiskFacts { children: vec!["mpatha mpath".into()], ..empty() }, "list /dev/mapper/mpatha instead");
        refused(DiskFacts { holders: vec!["md0".into()], ..empty() }, "md0");
        refused(DiskFacts { signatures: vec!["ext4".into()], ..empty() }, "ext4");
        refused(DiskFacts { signatures: vec!["gpt".into(), "PMBR".into()], ..empty() }, "gpt, PMBR");
        refused(DiskFacts { clean: false, ..empty() }, "first MiB");
        refused(DiskFacts { unreadable: true, ..empty() }, "cannot be read");
        refused(DiskFacts { size: 1 << 30, ..empty() }, "5 GiB");
        refused(DiskFacts { label: Some(Label::default()), ..empty() }, "cannot be read");
        refused(lvm("vg0", &[("root", "")], None), "volume group vg0");
        refused(lvm(&format!("ceph-{OSD0}"), &[("a", ""), ("b", "")], None), "several");
        // `lvs` failed: that no volume is told does not mean that there is none.
        refused(DiskFacts { unused: false, ..lvm(&format!("ceph-{OSD0}"), &[], None) }, "does not tell");
        refused(lvm(&format!("ceph-{OSD0}"), &[("data", "")], None), "no finished OSD");
        refused(
            lvm(&format!("ceph-{OSD0}"), &[("osd-block-x", &format!("ceph.cluster_fsid={OTHER},ceph.osd_id=1"))], None),
            "another cluster",
        );
    }

    #[test]
    fn osds_are_told_apart() {
        let osd0 = Verdict::Osd { id: 0, uuid: OSD0.parse().unwrap() };
        is(&empty(), &Verdict::Empty);
        is(&labelled_disk(OSD0, Some(US), Some(0), true), &osd0);
        refused(labelled_disk(OSD0, Some(OTHER), Some(0), true), "osd.0 of another cluster");
        refused(labelled_disk(OSD0, Some(US), Some(3), true), "does not fit");
        refused(labelled_disk(OSD0, None, None, false), "does not fit");
        refused(labelled_disk(NOBODY, Some(US), Some(5), true), "does not know");
        refused(labelled_disk(NOBODY, None, None, false), "unfinished");
        is(&labelled_disk(OSD7, None, None, false), &Verdict::HalfMade { id: Some(7) });
        is(&labelled_disk(OSD7, Some(US), Some(7), false), &Verdict::HalfMade { id: Some(7) });
        is(&labelled_disk(OSD7, Some(US), Some(7), true), &Verdict::Osd { id: 7, uuid: OSD7.parse().unwrap() });
    }

    #[test]
    fn logical_volumes_are_judged_by_their_label() {
        let tags = format!("ceph.cluster_fsid={US},ceph.osd_id=0");
        let label = labelled_disk(OSD0, Some(US), Some(0), true).label;
        let group = format!("ceph-{NOBODY}");
        is(
            &lvm(&group, &[(&format!("osd-block-{OSD0}"), &tags)], label),
            &Verdict::Osd { id: 0, uuid: OSD0.parse().unwrap() },
        );
        is(&lvm(&group, &[], None), &Verdict::HalfMade { id: None });
        // Not active since the last start of its host: no label to be seen.
        is(
            &lvm(&group, &[(&format!("osd-block-{OSD0}"), &tags)], None),
            &Verdict::Osd { id: 0, uuid: OSD0.parse().unwrap() },
        );
        refused(lvm(&group, &[(&format!("osd-block-{OSD0}"), "ceph.osd_id=3")], None), "no finished OSD");
        is(&lvm(&group, &[(&format!("osd-block-{OSD7}"), "")], None), &Verdict::HalfMade { id: Some(7) });
        refused(lvm(&group, &[(&format!("osd-block-{NOBODY}"), "")], None), "no finished OSD");
    }

    #[test]
    fn without_a_monitor_only_finished_osds_are_ours() {
        let us = US.parse().unwrap();
        let whole = labelled_disk(OSD0, Some(US), Some(0), true);
        assert_eq!(judge(&whole, us, None), Verdict::Osd { id: 0, uuid: OSD0.parse().unwrap() });
        assert_eq!(judge(&labelled_disk(OSD7, None, None, false), us, None), Verdict::Unsure);
        assert_eq!(judge(&empty(), us, None), Verdict::Empty);
    }
}
