//! Hosts: roles and devices; backup storage.

use crate::inventory::Role;
use crate::inventory::diagnostic::{Diagnostic, Span};
use crate::inventory::view::{HostView, View};
use std::collections::{BTreeSet, HashMap};

pub(super) fn check(view: &View, diagnostics: &mut Vec<Diagnostic>) {
    let mut serials: HashMap<&str, (&str, Span)> = HashMap::new();
    for host in &view.hosts {
        roles(host, diagnostics);
        let mut own: HashMap<&str, Span> = HashMap::new();
        for device in &host.osds {
            if let Some((what, fix)) = unstable(&device.value) {
                diagnostics.push(Diagnostic::new(device.span, format!("{}: {} {what}", host.label, device.value), fix));
            }
            if let Some(first) = own.insert(&device.value, device.span) {
                let message =
                    format!("{}: device {} is given twice, first on line {}", host.label, device.value, first.line);
                diagnostics.push(Diagnostic::new(device.span, message, "remove one of the two"));
            } else if device.value.starts_with("/dev/disk/by-id/") {
                // Other stable paths name a slot, which hosts of one model have alike; this one names the disk.
                if let Some((owner, first)) = serials.insert(&device.value, (&host.label, device.span)) {
                    let message =
                        format!("{}: device {} is that of {owner} on line {}", host.label, device.value, first.line);
                    diagnostics.push(Diagnostic::new(device.span, message, "a disk is in one host: give each its own"));
                }
            }
        }
    }
    for backup in &view.backups {
        if let Some(path) = backup.path.as_ref().filter(|p| !p.value.starts_with('/')) {
            let message = format!("backup.storage.{}: path {} is not absolute", backup.name.value, path.value);
            diagnostics.push(Diagnostic::new(path.span, message, "begin it with `/`"));
        }
    }
}

fn roles(host: &HostView, diagnostics: &mut Vec<Diagnostic>) {
    let Some(roles) = &host.roles else { return };
    let mut seen = BTreeSet::new();
    if let Some(role) = roles.iter().find(|r| !seen.insert(**r)) {
        let message = format!("{}: role {role} is given twice", host.label);
        diagnostics.push(Diagnostic::new(host.roles_span, message, "remove one of the two"));
    }
    if roles.is_empty() {
        let message = format!("{} has no role", host.label);
        diagnostics.push(Diagnostic::new(
            host.roles_span,
            message,
            "write some of mon, mgr, osd, guests, or remove the host",
        ));
    }
    if host.has(Role::Osd) && host.osds.is_empty() && !host.osds_unclear {
        let rest: Vec<&str> = roles.iter().filter(|r| **r != Role::Osd).map(|r| r.word()).collect();
        let message = format!("{} has the osd role, but no device", host.label);
        let fix = format!("list its disks under `osds:`, or write `roles: [{}]`", rest.join(", "));
        diagnostics.push(Diagnostic::new(host.roles_span, message, fix));
    }
    if !host.has(Role::Osd) && !host.osds.is_empty() {
        let message = format!("{} has devices for OSDs, but not the osd role", host.label);
        diagnostics.push(Diagnostic::new(host.roles_span, message, "add osd to its roles, or remove `osds`"));
    }
}

/// Why a path may be another disk after the next boot, and what to write.
fn unstable(path: &str) -> Option<(&'static str, &'static str)> {
    let fix = "use the name in /dev/disk/by-id or /dev/disk/by-path; `rackhand facts --disks` lists them";
    let Some(name) = path.strip_prefix("/dev/") else {
        return Some(("is not a device", fix));
    };
    let kernel_names = ["sd", "hd", "vd", "xvd", "nvme", "dm-", "md", "sr", "mmcblk"];
    let kernel = !name.contains('/') && kernel_names.iter().any(|prefix| name.starts_with(prefix));
    if kernel {
        return Some(("can be another disk after the next boot", fix));
    }
    let strange = name.is_empty()
        || path.split('/').any(|part| part == "..")
        || name.chars().any(|c| c.is_whitespace() || c.is_control());
    strange.then_some(("is not a device", fix))
}
