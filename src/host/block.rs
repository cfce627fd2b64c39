//! Disks and what is on them, from lsblk, wipefs and the labels of Ceph's storage.

use super::facts::{Disk, Osd};
use super::sections::{Sections, lines};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

#[derive(Deserialize)]
struct Tree {
    blockdevices: Vec<Device>,
}

#[derive(Deserialize)]
struct Device {
    name: String,
    #[serde(default)]
    path: Option<String>,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    size: serde_json::Value,
    #[serde(default)]
    rota: serde_json::Value,
    #[serde(default)]
    ro: serde_json::Value,
    model: Option<String>,
    serial: Option<String>,
    wwn: Option<String>,
    tran: Option<String>,
    fstype: Option<String>,
    label: Option<String>,
    mountpoint: Option<String>,
    #[serde(default)]
    children: Vec<Device>,
}

/// What `wipefs` and the labels say about a device node.
#[derive(Default)]
struct Content<'a> {
    kinds: Vec<&'a str>,
    fsid: Option<&'a str>,
    id: Option<u32>,
}

pub(super) fn disks(sections: &Sections<'_>) -> Vec<Disk> {
    let nodes = contents(lines(sections, "content"), lines(sections, "labels"));
    let ids = stable_names(lines(sections, "links"));
    let json = lines(sections, "block").concat();
    let Ok(tree) = serde_json::from_str::<Tree>(&json) else { return Vec::new() };
    let mut disks: Vec<Disk> = Vec::new();
    for device in &tree.blockdevices {
        let path = node(device);
        // A loop device without a node is another container's, one without a size has no file behind it; zram is
        // memory.
        let wanted = match device.kind.as_str() {
            "disk" => !device.name.starts_with("zram"),
            "loop" => number(&device.size) > 0,
            _ => false,
        };
        // lsblk shows a multipath or RAID member's holder below each member, a disk at the top only once.
        if !wanted || !nodes.contains_key(path.as_str()) || disks.iter().any(|d| d.path == path) {
            continue;
        }
        let text = |field: &Option<String>| field.as_deref().unwrap_or_default().trim().to_owned();
        let mut disk = Disk {
            ids: ids.get(path.as_str()).cloned().unwrap_or_default(),
            path,
            size: number(&device.size),
            rotational: truth(&device.rota),
            model: text(&device.model),
            serial: text(&device.serial),
            wwn: text(&device.wwn),
            transport: text(&device.tran),
            read_only: truth(&device.ro),
            ..Disk::default()
        };
        describe(device, &nodes, &mut disk);
        if let Some(joined) = device.children.iter().find(|child| child.kind == "mpath") {
            join(&mut disk, node(joined), &ids);
        }
        disks.push(disk);
    }
    one_each(disks)
}

/// A disk that multipath has joined is known by the joined device.
fn join(disk: &mut Disk, joined: String, ids: &BTreeMap<String, Vec<String>>) {
    disk.paths = std::iter::once(disk.path.clone()).chain(std::mem::take(&mut disk.ids)).collect();
    disk.multipath = true;
    // Links lead to its kernel name, dm-N.
    let names = ids.get(&joined).or_else(|| ids.values().find(|names| names.contains(&joined)));
    disk.ids = names.into_iter().flatten().filter(|name| **name != joined).cloned().collect();
    disk.path = joined;
}

/// Disks that are seen over several paths become one each.
fn one_each(disks: Vec<Disk>) -> Vec<Disk> {
    let mut distinct: Vec<Disk> = Vec::new();
    for disk in disks {
        let Some(known) = distinct.iter_mut().find(|known| same_disk(known, &disk)) else {
            distinct.push(disk);
            continue;
        };
        if known.paths.is_empty() {
            known.paths.push(known.path.clone());
        }
        let ways = if disk.multipath { disk.paths } else { vec![disk.path] };
        known.paths.extend(ways);
        for (list, more) in
            [(&mut known.ids, disk.ids), (&mut known.content, disk.content), (&mut known.mounted, disk.mounted)]
        {
            for text in more {
                if !list.contains(&text) {
                    list.push(text);
                }
            }
        }
        known.osd = known.osd.take().or(disk.osd);
    }
    distinct
}

/// Whether two nodes are ways to one disk: the same world wide name, or, where there is none, maker's data that no two
/// disks share. NVMe namespaces share the serial number of their controller.
fn same_disk(one: &Disk, other: &Disk) -> bool {
    if one.multipath && other.multipath {
        return one.path == other.path;
    }
    if !one.wwn.is_empty() || !other.wwn.is_empty() {
        return one.wwn == other.wwn && one.size == other.size;
    }
    let told = one.serial.len() >= 6 && !one.path.contains("/nvme") && one.transport != "usb";
    told && (&one.serial, &one.model, one.size) == (&other.serial, &other.model, other.size)
}

/// Adds what a device and everything below it holds.
fn describe(device: &Device, nodes: &BTreeMap<&str, Content<'_>>, disk: &mut Disk) {
    let content = nodes.get(node(device).as_str());
    // That a node is a way to a joined device is no content.
    let way = |kind: &str| kind == "mpath_member";
    let mut kinds: Vec<&str> = content.map(|c| c.kinds.clone()).unwrap_or_default();
    kinds.retain(|kind| !way(kind));
    if let Some(kind) = device.fstype.as_deref().filter(|kind| !kinds.contains(kind) && !way(kind)) {
        kinds.push(kind);
    }
    let label = device.label.as_deref().map_or_else(String::new, |label| format!(" `{label}`"));
    for kind in &kinds {
        disk.content.push(format!("{}: {kind}{label}", device.name));
    }
    if kinds.is_empty() && matches!(device.kind.as_str(), "part" | "lvm" | "crypt") || is_raid(device) {
        disk.content.push(format!("{}: {}", device.name, device.kind));
    }
    disk.mounted.extend(device.mountpoint.clone());
    if let Some(Content { fsid: Some(fsid), id, .. }) = content {
        disk.osd = Some(Osd { fsid: (*fsid).to_owned(), id: *id });
    }
    for child in &device.children {
        describe(child, nodes, disk);
    }
}

fn is_raid(device: &Device) -> bool {
    device.kind.starts_with("raid")
}

fn contents<'a>(lines: &[&'a str], labels: &[&'a str]) -> BTreeMap<&'a str, Content<'a>> {
    let mut nodes: BTreeMap<&str, Content<'_>> = BTreeMap::new();
    for path in lines.iter().filter_map(|l| l.strip_prefix("node ")) {
        nodes.insert(path, Content::default());
    }
    // wipefs names a device by the end of its path.
    let paths: BTreeMap<&str, &str> = nodes.keys().filter_map(|path| Some((path.rsplit('/').next()?, *path))).collect();
    for line in lines.iter().filter(|l| !l.starts_with("node ")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [device, kind] = words[..]
            && let Some(content) = paths.get(device).and_then(|path| nodes.get_mut(path))
            // Backup copies of a partition table count once.
            && !content.kinds.contains(&kind)
        {
            content.kinds.push(kind);
        }
    }
    let mut device = "";
    for line in labels {
        if let Some(path) = line.strip_prefix("==> ").and_then(|l| l.strip_suffix(" <==")) {
            device = path;
            continue;
        }
        let Some(content) = nodes.get_mut(device) else { continue };
        // A value stands behind one byte that is its length.
        if let Some(fsid) = line.strip_prefix("ceph_fsid").and_then(|value| value.get(1..)) {
            content.fsid = content.fsid.or(Some(fsid));
        } else if let Some(id) = line.strip_prefix("whoami").and_then(|value| value.get(1..)) {
            content.id = content.id.or(id.parse().ok());
        }
    }
    nodes
}

/// Device node -> its names under /dev/disk.
fn stable_names(lines: &[&str]) -> BTreeMap<String, Vec<String>> {
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (link, target) in lines.iter().filter(|l| l.starts_with("/dev/")).filter_map(|l| l.split_once(' ')) {
        let Some(directory) = Path::new(link).parent() else { continue };
        names.entry(resolve(&directory.join(target))).or_default().push(link.to_owned());
    }
    for list in names.values_mut() {
        list.sort();
    }
    names
}

/// A path without its `..`.
fn resolve(path: &Path) -> String {
    let mut plain = PathBuf::new();
    for part in path.components() {
        if part == Component::ParentDir {
            plain.pop();
        } else {
            plain.push(part);
        }
    }
    plain.display().to_string()
}

fn node(device: &Device) -> String {
    device.path.clone().unwrap_or_else(|| format!("/dev/{}", device.name))
}

/// lsblk before 2.33 writes numbers and truths as text.
fn number(value: &serde_json::Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_default()
}

fn truth(value: &serde_json::Value) -> bool {
    value.as_bool().unwrap_or_else(|| value.as_str() == Some("1"))
}
