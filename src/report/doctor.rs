//! What is wrong or risky, each with what to do about it. Pure.

use super::look::Seen;
use super::status::{Protection, Status};
use crate::guest::claim::Phase;
use crate::guest::{Desired, Stage, State};
use serde::Serialize;
use std::collections::BTreeSet;

/// Clocks further apart than this make monitors complain: Ceph's `mon_clock_drift_allowed`, in seconds.
const CLOCK: f64 = 0.05;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Data or service is in danger.
    Critical,
    /// Something does not work.
    Error,
    /// The next fault would hurt.
    Risk,
}

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Severity::Critical => "CRITICAL",
            Severity::Error => "error",
            Severity::Risk => "risk",
        })
    }
}

/// Something that is wrong or risky.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// `host h1`, `guest web-1`, `ceph`.
    pub object: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub fix: String,
}

fn finding(severity: Severity, object: impl Into<String>, what: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { severity, object: object.into(), what: what.into(), fix: fix.into() }
}

/// Everything that is wrong, the worst first.
pub fn examine(status: &Status, seen: &Seen) -> Vec<Finding> {
    let mut found = ceph(seen);
    found.extend(hosts(status));
    found.extend(guests(status, seen));
    found.extend(strangers(seen));
    found.sort_by(|a, b| (a.severity, &a.object).cmp(&(b.severity, &b.object)));
    found
}

fn ceph(seen: &Seen) -> Vec<Finding> {
    let ceph = match &seen.ceph {
        Ok(ceph) => &ceph.status,
        Err(silent) => return vec![finding(Severity::Critical, "ceph", &silent.why, &silent.fix)],
    };
    let severity = |s: &str| if s == "HEALTH_ERR" { Severity::Critical } else { Severity::Error };
    let fix = |code: &str| format!("`ceph health detail` on a mon host explains {code}");
    let unread = seen.ceph.iter().filter_map(|ceph| ceph.unread.as_ref()).map(|why| {
        let what = format!("guests' definitions cannot be read: {why}");
        finding(
            Severity::Critical,
            "ceph",
            what,
            "guests' disks stand still as well until its placement groups are active",
        )
    });
    let checks = ceph.checks.iter().map(|c| finding(severity(&c.severity), "ceph", &c.summary, fix(&c.code)));
    unread.chain(checks).collect()
}

fn hosts(status: &Status) -> Vec<Finding> {
    let mut found = Vec::new();
    for host in &status.hosts {
        let object = format!("host {}", host.name);
        let mut add = |severity, what: String, fix: String| found.push(finding(severity, &object, what, fix));
        let Some(pulse) = &host.pulse else {
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
            let what = format!("{} of {} OSDs are down", host.osds - host.osds_up, host.osds);
            add(Severity::Error, what, "`rackhand provision` starts what is stopped; else look at the disk".to_owned());
        }
        if host.libvirt == Some(false) {
            add(Severity::Error, "libvirt does not answer".to_owned(), "`rackhand provision` mends it".to_owned());
        }
        if pulse.clock_offset.is_some_and(|o| o.abs() > CLOCK) {
            let what = format!("its clock is off by {:.0} ms", pulse.clock_offset.unwrap_or_default() * 1000.0);
            add(Severity::Risk, what, "look at `chronyc sources` there".to_owned());
        }
        if let Some(why) = &host.maintenance {
            let fix = format!("`rackhand host maintenance {} off` when the work is done", host.name);
            add(Severity::Risk, format!("it is in maintenance and takes no guests: {why}"), fix);
        }
    }
    found
}

fn guests(status: &Status, seen: &Seen) -> Vec<Finding> {
    let mut found = Vec::new();
    for line in &status.guests {
        let object = format!("guest {}", line.name);
        let mut add = |severity, what: String, fix: String| found.push(finding(severity, &object, what, fix));
        let places: Vec<&str> = seen
            .survey
            .seen
            .get(&line.uuid)
            .into_iter()
            .flatten()
            .filter(|(_, d)| d.state.has_process())
            .map(|(host, _)| host.as_str())
            .collect();
        let phase = seen.ceph.as_ref().ok().and_then(|c| c.claims.get(&line.uuid)).map(|c| c.phase);
        if places.len() > 1 && phase != Some(Phase::Moving) {
            let what = format!("it has a QEMU process on {} at once", places.join(" and "));
            add(Severity::Critical, what, "stop one of them now; compare the two disks' writers first".to_owned());
        }
        let definition = seen.ceph.as_ref().ok().and_then(|c| c.guests.iter().find(|g| g.uuid == line.uuid));
        let Some(guest) = definition else { continue };
        match (guest.stage, line.state, guest.desired) {
            (Stage::Creating, _, _) => {
                let fix =
                    format!("`rackhand guest create {}` again finishes it, `guest delete` takes it away", line.name);
                add(Severity::Risk, "its making was not finished".to_owned(), fix);
            }
            (Stage::Deleting, _, _) => {
                let fix = format!("`rackhand guest delete {}` again finishes it", line.name);
                add(Severity::Risk, "its deletion was not finished".to_owned(), fix);
            }
            (Stage::Ready, State::Stopped, Desired::Running) => {
                let fix = format!("`rackhand guest start {}`", line.name);
                add(Severity::Error, "it should run and does not".to_owned(), fix);
            }
            (Stage::Ready, State::Starting, _) => {
                let fix = format!("`rackhand guest start {}` finishes a start that was cut off", line.name);
                add(Severity::Risk, "it is about to start".to_owned(), fix);
            }
            (Stage::Ready, State::Paused, _) => {
                let fix = "`virsh domblkerror` on its host tells whether its disk failed".to_owned();
                add(Severity::Error, "it stands still".to_owned(), fix);
            }
            (Stage::Ready, State::Unknown, _) => {
                add(Severity::Error, "its host does not answer".to_owned(), "look at the host first".to_owned());
            }
            _ => {}
        }
        if phase == Some(Phase::Moving) {
            let fix = format!("`rackhand migrate {}` again finishes a move that was interrupted", line.name);
            add(Severity::Risk, "it is on its way between two hosts".to_owned(), fix);
        }
        if line.protection == Protection::Unprotected {
            let why = line.protection_why.clone().unwrap_or_default();
            let what = format!("it has no place to go when its host is lost: {why}");
            add(Severity::Risk, what, "free memory on another host, or add one".to_owned());
        }
    }
    found
}

/// Domains that run on our hosts and are nobody's guests.
fn strangers(seen: &Seen) -> Vec<Finding> {
    // Guests that cannot be read are no strangers.
    let Some(ceph) = seen.ceph.as_ref().ok().filter(|ceph| ceph.unread.is_none()) else { return Vec::new() };
    let known: BTreeSet<_> = ceph.guests.iter().map(|g| g.uuid).collect();
    let unknown = seen.survey.seen.iter().filter(|(uuid, _)| !known.contains(uuid));
    let fix = "if it is not wanted, `virsh destroy` it there; its memory is counted as used";
    let one = |(host, domain): &(String, crate::libvirt::Domain)| {
        finding(
            Severity::Risk,
            format!("host {host}"),
            format!("runs the domain `{}`, which is no guest of this cluster", domain.name),
            fix,
        )
    };
    unknown.flat_map(|(_, places)| places.iter().map(one)).collect()
}
