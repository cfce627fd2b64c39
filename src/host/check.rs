//! Inventory against reality: a pure function from what was seen to what is wrong.

use super::disks_check;
use super::facts::{Clock, Facts};
use super::finding::{Finding, Report, mib};
use super::network_check;
use super::paths::Paths;
use super::system::{Family, family};
use crate::inventory::{HostSpec, Inventory, Role};
use crate::ssh::{RemoteError, SshdLimits};
use std::collections::BTreeMap;

/// Clocks further apart than this, in seconds, make Ceph's monitors warn: their `mon_clock_drift_allowed`.
pub const SKEW: f64 = 0.05;
/// Clocks of hosts that agree, yet are further from this machine's, are wrong together: mirrors refuse them, certificates
/// do not hold yet or any more.
const ALL_WRONG: f64 = 60.0;
/// Sessions a connection that standing channels and commands were measured to get along with; sshd's own default.
const SESSIONS: u32 = 10;
/// A shell that starts more slowly costs every command of every run.
const SLOW_EXEC: f64 = 0.05;
/// Free space a monitor's store and the packages need: Ceph warns at 30 % and stops at 5 % of a small disk.
const LITTLE_SPACE: u64 = 5 << 30;
const NO_SPACE: u64 = 1 << 30;

/// What was seen of a host.
#[derive(Debug)]
pub struct Seen {
    /// What it is, or why nobody knows.
    pub facts: Result<Facts, RemoteError>,
    /// Its ways to the others, where it could be asked.
    pub paths: Option<Paths>,
    /// Its clock against this machine's.
    pub clock: Option<Clock>,
    /// What its sshd permits, where it could be asked.
    pub sshd: Option<SshdLimits>,
    /// Its BMC, where it has one.
    pub bmc: Option<BmcSeen>,
}

/// What was seen of a host's BMC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BmcSeen {
    /// It answered; these serial numbers are those of its machine.
    Answered {
        /// Whether it says the machine is on.
        on: bool,
        /// Serial numbers and service tags.
        serials: Vec<String>,
    },
    /// It did not answer as it should.
    Failed {
        /// Why.
        why: String,
        /// Whether it is about user, password or privileges.
        login: bool,
        /// What helps against it.
        fix: &'static str,
    },
    /// Nobody who could ask it has the program for it.
    Untried {
        /// Why.
        why: String,
    },
}

/// Everything that is wrong, worst first.
pub fn evaluate(inventory: &Inventory, seen: &BTreeMap<String, Seen>) -> Vec<Finding> {
    let mut found = Vec::new();
    let down: Vec<&str> = seen.iter().filter(|(_, s)| s.facts.is_err()).map(|(name, _)| name.as_str()).collect();
    for host in &inventory.hosts {
        let Some(seen) = seen.get(&host.name) else { continue };
        let mut report = Report { host: &host.name, found: &mut found };
        match &seen.facts {
            Err(error) => unreachable(error, &mut report),
            Ok(facts) => {
                system(host, facts, &mut report);
                memory(inventory, host, facts, &mut report);
                clock_source(facts, &mut report);
                ceph(inventory, host, facts, &mut report);
                disks_check::disks(inventory, host, facts, &mut report);
                network_check::interfaces(inventory, host, facts, &mut report);
            }
        }
        if let Some(limits) = &seen.sshd {
            sshd(limits, &mut report);
        }
        if let Some(bmc) = &seen.bmc {
            bmc_belongs(bmc, seen.facts.as_ref().ok(), &mut report);
        }
        if let Some(paths) = &seen.paths {
            network_check::paths(inventory, paths, &down, &mut report);
        }
    }
    skew(seen, &mut found);
    twins(seen, &mut found);
    found.sort();
    found
}

fn unreachable(error: &RemoteError, report: &mut Report<'_>) {
    let what = error.to_string();
    let what = what.strip_prefix(&format!("host {}: ", report.host)).unwrap_or(&what).to_owned();
    match error {
        RemoteError::HostKey { .. } => report.error("host-key", what, "follow what the message says"),
        RemoteError::Login { .. } => {
            report.error("login", what, "put the public key into authorized_keys, or correct ssh.user or ssh.identity");
        }
        RemoteError::Sudo { .. } => report.error("sudo", what, "add `USER ALL=(ALL) NOPASSWD: ALL` to its sudoers"),
        RemoteError::LoginShell { .. } => {
            report.error(
                "login-shell",
                what,
                "give the login a shell that runs commands: `chsh -s /bin/sh USER` on it",
            );
        }
        RemoteError::Unreachable { .. } => report.error("ssh", what, "check power, cable, address and sshd"),
        _ => report.error("ssh", what, "run the check again; look at the host's load and its journal"),
    }
}

fn sshd(limits: &SshdLimits, report: &mut Report<'_>) {
    if !limits.forwarding.is_empty() {
        let what = format!("no unix socket can be forwarded, which libvirt is reached through: {}", limits.forwarding);
        report.error("forwarding", what, "set `AllowStreamLocalForwarding yes` for the login, then reload sshd");
    }
    if let Some(sessions) = limits.max_sessions.filter(|sessions| *sessions < SESSIONS) {
        let what = format!("its sshd grants {sessions} sessions a connection");
        report.warning("max-sessions", what, format!("set `MaxSessions {SESSIONS}` there, sshd's own default"));
    }
}

fn system(host: &HostSpec, facts: &Facts, report: &mut Report<'_>) {
    let (id, version) = (facts.os.id.as_str(), facts.os.version.as_str());
    let what = format!("runs {}", if facts.os.name.is_empty() { "an unknown system" } else { &facts.os.name });
    match family(id, version) {
        Ok(Family::Debian) => {}
        Ok(Family::Redhat) => {
            let fix =
                "provisioning was written for this family, but never tried on it: try it on a spare machine first";
            report.warning("os", what, fix);
        }
        Err(_) => report.error("os", what, "install Debian 12 or 13, or Ubuntu 22.04 or 24.04"),
    }
    let short = facts.hostname.split('.').next().unwrap_or_default();
    if short != host.name {
        let what = format!("calls itself {}", facts.hostname);
        report.error("hostname", what, format!("run `hostnamectl set-hostname {}` on it", host.name));
    }
    if facts.exec_latency.is_some_and(|latency| latency > SLOW_EXEC) {
        let milliseconds = facts.exec_latency.unwrap_or_default() * 1000.0;
        let what = format!("takes {milliseconds:.0} ms to start a command");
        report.warning(
            "exec-latency",
            what,
            "look at the login shell's start-up files, DNS look-ups of sshd, and load",
        );
    }
    for space in &facts.space {
        let what = format!("only {} free in {}", mib(space.free), space.mount);
        if space.free < NO_SPACE {
            report.error("space", what, "make room");
        } else if space.free < LITTLE_SPACE {
            report.warning("space", what, "make room: 5 GiB at least");
        }
    }
    if host.has(Role::Guests) && !facts.virtualization.kvm {
        let fix = match &facts.virtualization.inside {
            Some(inside) => format!("it runs in {inside}: nothing to do in a test, else use a bare machine"),
            None => "switch on VT-x or AMD-V in its firmware".to_owned(),
        };
        report.warning("kvm", "has no hardware virtualisation: guests will be slow", fix);
    }
}

fn memory(inventory: &Inventory, host: &HostSpec, facts: &Facts, report: &mut Report<'_>) {
    let reserve = inventory.reserve(host).bytes();
    let osds = inventory.ceph.osd_memory.bytes() * host.osds.len() as u64;
    let total = facts.memory.total;
    if host.has(Role::Guests) && total < reserve + inventory.guests.memory.bytes() {
        let what = format!("{} of memory, of which {} are kept back: no guest fits", mib(total), mib(reserve));
        report.error("memory", what, "add memory, or lower guests.host_reserve or the host's reserve");
    }
    if osds > 0 && reserve < osds + (1 << 30) {
        let what = format!("{} OSDs may take {}, but {} are kept back", host.osds.len(), mib(osds), mib(reserve));
        let fix = format!("set the host's reserve to {} at least, or lower ceph.osd_memory", mib(osds + (1 << 30)));
        report.warning("memory", what, fix);
    }
}

/// Ceph that another tool has set up: two masters of one host undo each other's work.
fn ceph(inventory: &Inventory, host: &HostSpec, facts: &Facts, report: &mut Report<'_>) {
    let (traces, ours) = (&facts.ceph, inventory.cluster.fsid.to_string());
    for fsid in &traces.containers {
        let whose = if *fsid == ours { "this cluster's" } else { "another cluster's" };
        let what = format!("has {whose} Ceph daemons of cephadm or a similar tool: /var/lib/ceph/{fsid}");
        let fix = "rackhand does not take over what another tool manages: remove the host there first \
                   (`ceph orch host drain`), or take it from the inventory";
        report.error("ceph", what, fix);
    }
    for foreign in &traces.foreign {
        let what = format!("has Ceph of another tool: {foreign}");
        report.error("ceph", what, "take the host from the inventory, or remove it from that tool first");
    }
    let other = traces.conf.as_ref().filter(|conf| **conf != ours);
    if let Some(other) = other {
        let what = format!("its /etc/ceph/ceph.conf is that of another Ceph cluster, {other}");
        report.error("ceph", what, "take the host from the inventory, or clear it of that cluster");
    } else if traces.mon_listens && traces.containers.is_empty() && !traces.mons.contains(&host.name) {
        let what = "something listens on a port of Ceph's monitors (3300, 6789), and it is not a monitor of ours";
        report.error("ceph", what, "find out what (`ss -ltnp`), and stop or move it");
    }
}

fn clock_source(facts: &Facts, report: &mut Report<'_>) {
    match (&facts.clock.source, facts.clock.offset) {
        (None, _) if facts.virtualization.inside.as_deref() == Some("systemd-nspawn") => {}
        (None, _) => report.warning("time-source", "nothing sets its clock", "`rackhand provision` installs chrony"),
        (Some(source), Some(offset)) if offset.abs() > SKEW => {
            let what = format!("{source} says the clock is {offset:.3} s off its source");
            report.error("time-source", what, "look at `chronyc tracking` and `chronyc sources` there");
        }
        (Some(source), None) if source == "chrony" => {
            let what = "chrony runs, but its clock is not set by any server yet";
            report.warning("time-source", what, "look at `chronyc sources` there: a source has to be reachable");
        }
        _ => {}
    }
}

/// Hosts whose clock is further from the middle one than the look at it can be wrong.
fn skew(seen: &BTreeMap<String, Seen>, found: &mut Vec<Finding>) {
    let clocks: Vec<(&String, &Clock)> = seen.iter().filter_map(|(name, s)| Some((name, s.clock.as_ref()?))).collect();
    let mut differences: Vec<f64> = clocks.iter().map(|(_, c)| c.difference).collect();
    differences.sort_by(f64::total_cmp);
    let Some(middle) = differences.get(differences.len() / 2) else { return };
    let side = |off: f64| if off > 0.0 { "ahead of" } else { "behind" };
    for (host, clock) in clocks {
        let off = clock.difference - middle;
        let chrony = seen[host].facts.as_ref().is_ok_and(|f| f.clock.source.as_deref() == Some("chrony"));
        let fix = if chrony { "let chrony set it: `chronyc makestep`" } else { "set it there with `date -s`" };
        if off.abs() > SKEW + clock.precision {
            let what = format!("its clock is {:.2} s {} the others", off.abs(), side(off));
            Report { host, found }.error("time-skew", what, fix);
        } else if clock.difference.abs() > ALL_WRONG + clock.precision {
            let what =
                format!("its clock is {:.0} s {} this machine's", clock.difference.abs(), side(clock.difference));
            Report { host, found }.warning("time-skew", what, format!("find out which is right; {fix}"));
        }
    }
}

/// Machines that claim to be the same one: clones, or one host listed twice.
fn twins(seen: &BTreeMap<String, Seen>, found: &mut Vec<Finding>) {
    let mut boots: BTreeMap<&str, &String> = BTreeMap::new();
    let mut uuids: BTreeMap<&str, &String> = BTreeMap::new();
    for (name, facts) in seen.iter().filter_map(|(name, s)| Some((name, s.facts.as_ref().ok()?))) {
        let boot = boots.insert(&facts.boot_id, name).filter(|_| !facts.boot_id.is_empty());
        let uuid = uuids.insert(&facts.machine.uuid, name).filter(|_| !facts.machine.uuid.is_empty());
        if let Some(other) = boot {
            let what = format!("is the same running system as {other}");
            Report { host: name, found }.error("twin", what, "correct the addresses in the inventory");
        } else if let Some(other) = uuid {
            let what = format!("has the same machine UUID as {other}");
            Report { host: name, found }.error("twin", what, "give each machine its own UUID in its firmware");
        }
    }
}

fn bmc_belongs(bmc: &BmcSeen, facts: Option<&Facts>, report: &mut Report<'_>) {
    match bmc {
        BmcSeen::Failed { why, login: true, fix } => report.error("bmc-login", why.clone(), *fix),
        BmcSeen::Failed { why, fix, .. } => report.error("bmc", why.clone(), *fix),
        BmcSeen::Untried { why } => report.warning("bmc", why.clone(), "`rackhand provision` installs what is missing"),
        BmcSeen::Answered { on, serials } => {
            let Some(facts) = facts else { return };
            let serial = &facts.machine.serial;
            let same = |theirs: &String| {
                theirs.eq_ignore_ascii_case(serial) || theirs.eq_ignore_ascii_case(&facts.machine.uuid)
            };
            if serial.is_empty() || serials.is_empty() {
                let what = "whether this BMC belongs to this host cannot be checked: one of them has no serial number";
                report.warning("bmc-owner", what, "compare by hand: switch on the locator light");
            } else if !serials.iter().any(same) {
                let mut theirs = serials.clone();
                theirs.dedup();
                let what = format!("the BMC belongs to {}, this host is {serial}", theirs.join("/"));
                report.error("bmc-owner", what, "correct bmc.address: fencing would switch off another machine");
            } else if !on {
                report.error(
                    "bmc-power",
                    "the BMC says the host is off, but it answers",
                    "do not fence with this BMC; reset it",
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;
