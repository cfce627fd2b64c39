//! What is wrong or risky, each with what to do about it. Pure.

use super::collect::Seen;
use super::finding::Finding;
use super::foreign;
use super::status::{GuestLine, HostLine, Protection, Status};
use super::watching;
use crate::guest::claim::Phase;
use crate::guest::{Desired, Guest, Stage, State};
use crate::host::{SKEW, Severity};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Everything that is wrong, the worst first.
pub fn examine(status: &Status, seen: &Seen) -> Vec<Finding> {
    let mut found = ceph(seen);
    found.extend(watching::findings(status.watch.as_ref()));
    found.extend(hosts(status));
    found.extend(guests(status, seen));
    found.extend(foreign::unmanaged(seen));
    found.extend(foreign::on_guests(seen));
    found.extend(foreign::second_writers(seen));
    found.sort_by(|a, b| (a.severity, &a.object).cmp(&(b.severity, &b.object)));
    found
}

fn ceph(seen: &Seen) -> Vec<Finding> {
    let ceph = match &seen.ceph {
        Ok(ceph) => &ceph.status,
        Err(silent) => return vec![Finding::new(Severity::Critical, "ceph", &silent.why, &silent.fix)],
    };
    let severity = |s: &str| if s == "HEALTH_ERR" { Severity::Critical } else { Severity::Error };
    let fix = |code: &str| format!("`ceph health detail` on a mon host explains {code}");
    let unread = seen.ceph.iter().filter_map(|ceph| ceph.unread.as_ref()).map(|why| {
        let what = format!("guests' definitions cannot be read: {why}");
        Finding::new(
            Severity::Critical,
            "ceph",
            what,
            "guests' disks stand still as well until its placement groups are active",
        )
    });
    let checks = ceph.checks.iter().map(|c| Finding::new(severity(&c.severity), "ceph", &c.summary, fix(&c.code)));
    unread.chain(checks).chain(unreadable(seen)).collect()
}

/// State objects that cannot be read: everything else goes on without them.
fn unreadable(seen: &Seen) -> Vec<Finding> {
    let objects = seen.ceph.iter().flat_map(|ceph| &ceph.unreadable);
    let fix = |object: &str| match object.strip_prefix(crate::guest::image::PREFIX) {
        Some(name) => format!("`rackhand image remove {name}` clears it away, if no disks stand on it"),
        None => "a newer rackhand may have written it: use that one".to_owned(),
    };
    objects
        .map(|unread| {
            let object = format!("state object {}", unread.object);
            Finding::new(Severity::Error, object, format!("it cannot be read: {}", unread.why), fix(&unread.object))
        })
        .collect()
}

fn hosts(status: &Status) -> Vec<Finding> {
    let mut found = Vec::new();
    for host in &status.hosts {
        let object = format!("host {}", host.name);
        let mut add = |severity, what: String, fix: String| found.push(Finding::new(severity, &object, what, fix));
        let Some(metrics) = &host.metrics else {
            let what = host.error.clone().unwrap_or_else(|| "does not answer".to_owned());
            let fix = match host.power {
                "off" => "its BMC says that it has no power: find out why, then switch it on",
                "on" => "its BMC says that it has power: look at its console and its links",
                _ => "look at its power and its links; nor did a BMC say anything of it",
            };
            add(Severity::Error, what, fix.to_owned());
            continue;
        };
        if host.mon == "out of quorum" {
            let fix =
                format!("on {}: `systemctl restart ceph-mon@{}`, then `rackhand provision`", host.name, host.name);
            add(Severity::Error, "its monitor is not in the quorum".to_owned(), fix);
        }
        if host.osds_up < host.osds {
            let down: Vec<String> = host.disks.iter().filter(|osd| !osd.up).map(ToString::to_string).collect();
            let what = format!("{} of {} OSDs are down: {}", host.osds - host.osds_up, host.osds, down.join(", "));
            add(Severity::Error, what, "`rackhand provision` starts what is stopped; else look at the disk".to_owned());
        }
        if host.libvirt == Some(false) {
            add(
                Severity::Error,
                "libvirt does not answer".to_owned(),
                "`rackhand check` says what its sshd forbids; `rackhand provision` starts what is stopped".to_owned(),
            );
        }
        if metrics.clock_offset.is_some_and(|o| o.abs() > SKEW) {
            let what = format!("its clock is off by {:.0} ms", metrics.clock_offset.unwrap_or_default() * 1000.0);
            add(Severity::Warning, what, "look at `chronyc sources` there".to_owned());
        }
        if let Some((what, fix)) = fence(host) {
            add(Severity::Warning, what, fix);
        }
        if let Some(why) = &host.maintenance {
            let fix = format!("`rackhand host maintenance {} off` when the work is done", host.name);
            let (severity, what) = match host.maintenance_overdue {
                Some(_) => {
                    (Severity::Error, "its maintenance is overdue; until it is ended, the watch does not fence it")
                }
                None => (Severity::Warning, "it is in maintenance and takes no guests"),
            };
            add(severity, format!("{what}: {why}"), fix);
        }
    }
    found
}

/// What is wrong with a host's fence, where it was ever rehearsed.
fn fence(host: &HostLine) -> Option<(String, String)> {
    let fence = host.fence.as_ref().filter(|fence| fence.stale || fence.problem.is_some())?;
    let age = match fence.fit {
        Some(age) => format!("was last found fit {} min ago", age / 60),
        None => "was never found fit".to_owned(),
    };
    let why = fence.problem.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    Some((format!("its fence {age}{why}"), format!("`rackhand fence test {}`", host.name)))
}

fn guests(status: &Status, seen: &Seen) -> Vec<Finding> {
    let mut found = Vec::new();
    let ceph = seen.ceph.as_ref().ok();
    let definitions: BTreeMap<Uuid, &Guest> =
        ceph.into_iter().flat_map(|ceph| &ceph.guests).map(|guest| (guest.uuid, guest)).collect();
    for line in &status.guests {
        let object = format!("guest {}", line.name);
        let mut add = |severity, what: String, fix: String| found.push(Finding::new(severity, &object, what, fix));
        let places: Vec<&str> = seen
            .domain_inventory
            .seen
            .get(&line.uuid)
            .into_iter()
            .flatten()
            .filter(|(_, d)| d.state.has_process())
            .map(|(host, _)| host.as_str())
            .collect();
        let phase = ceph.and_then(|c| c.claims.get(&line.uuid)).map(|c| c.phase);
        if places.len() > 1 && phase != Some(Phase::Moving) {
            let what = format!("it has a QEMU process on {} at once", places.join(" and "));
            add(Severity::Critical, what, "stop one of them now; compare the two disks' writers first".to_owned());
        }
        let Some(guest) = definitions.get(&line.uuid) else { continue };
        match (guest.stage, line.state, guest.desired) {
            (Stage::Creating, _, _) => {
                let fix =
                    format!("`rackhand guest create {}` again finishes it, `guest delete` takes it away", line.name);
                add(Severity::Warning, "its making was not finished".to_owned(), fix);
            }
            (Stage::Deleting, _, _) => {
                let fix = format!("`rackhand guest delete {}` again finishes it", line.name);
                add(Severity::Warning, "its deletion was not finished".to_owned(), fix);
            }
            (Stage::Ready, State::Stopped, Desired::Running) => {
                let fix = format!("`rackhand guest start {}`", line.name);
                add(Severity::Error, "it should run and does not".to_owned(), fix);
            }
            (Stage::Ready, State::Paused, _) => {
                let (what, fix) = stands_still(seen, line);
                add(Severity::Error, what, fix);
            }
            (Stage::Ready, State::Starting, _) => {
                let fix = format!("`rackhand guest start {}` finishes a start that was cut off", line.name);
                add(Severity::Warning, "it is about to start".to_owned(), fix);
            }
            (Stage::Ready, State::Unknown, _) => {
                add(Severity::Error, "its host does not answer".to_owned(), "look at the host first".to_owned());
            }
            _ => {}
        }
        if phase == Some(Phase::Moving) {
            let fix = format!("`rackhand migrate {}` again finishes a move that was interrupted", line.name);
            add(Severity::Warning, "it is on its way between two hosts".to_owned(), fix);
        }
        if line.protection == Protection::Unprotected {
            let why = line.protection_why.clone().unwrap_or_default();
            let what = format!("it has no place to go when its host is lost: {why}");
            add(Severity::Warning, what, "free memory on another host, or add one".to_owned());
        }
    }
    found
}

/// A guest whose processors stand still: why, and what helps.
fn stands_still(seen: &Seen, line: &GuestLine) -> (String, String) {
    let (host, reason) = match seen.domain_inventory.place(line.uuid) {
        Some((host, domain)) => (host.as_str(), domain.reason.as_str()),
        None => ("its host", "unknown"),
    };
    let resume = format!("`virsh resume {}` on {host}", line.uuid);
    let fix = match reason {
        "ioerror" => format!(
            "its storage refused it (`virsh domblkerror {}` there): look at Ceph first; then {resume}",
            line.uuid
        ),
        "user" => format!("it was paused by hand: {resume}"),
        "crashed" | "watchdog" => format!("`rackhand guest reboot {} --force`", line.name),
        _ => format!("look at it on {host}; {resume} lets it go on"),
    };
    (format!("it stands still on {host} ({reason})"), fix)
}
