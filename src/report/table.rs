//! The picture for people: one screen.

use super::finding::Finding;
use super::status::{HostLine, Status};
use super::watching;
use crate::ui::Table;
use std::fmt::Write;

/// The rack on one screen.
pub fn status_table(status: &Status) -> String {
    let mut text = ceph_line(status);
    if status.ceph.is_some() && status.guests_error.is_none() {
        let _ = write!(text, "\n{}", watching::words(status.watch.as_ref()));
    }
    let mut hosts =
        Table::new(["host", "state", "power", "load", "mem free", "reserved", "guests", "osds", "mon", "clock", "up"])
            .right(3)
            .right(4)
            .right(5)
            .right(6);
    for host in &status.hosts {
        let metrics = host.metrics.as_ref();
        hosts.row([
            host.name.clone(),
            host_state(host),
            host.power.to_owned(),
            metrics.map(|p| format!("{:.2}", p.load)).unwrap_or_default(),
            size(host.memory_free),
            size(host.memory_reserved),
            host.guests.to_string(),
            format!("{}/{}", host.osds_up, host.osds),
            host.mon.to_owned(),
            metrics.and_then(|p| p.clock_offset).map(|o| format!("{:+.1} ms", o * 1000.0)).unwrap_or_default(),
            metrics.map(|p| duration(whole(p.uptime))).unwrap_or_default(),
        ]);
    }
    let _ = write!(text, "\n\n{}", hosts.render());
    for host in status.hosts.iter().filter(|h| !h.reachable) {
        let _ = write!(text, "\n  {}", host.error.as_deref().unwrap_or("does not answer"));
    }
    for host in &status.hosts {
        if let Some(why) = &host.maintenance {
            let _ = write!(text, "\n  host {}: in maintenance: {why}", host.name);
        }
    }
    text.push_str(&fences(&status.hosts));
    let mut guests = Table::new(["guest", "state", "host", "address", "up", "protection"]).right(4);
    for guest in &status.guests {
        let addresses: Vec<String> = guest.addresses.iter().map(ToString::to_string).collect();
        let why = guest.protection_why.as_ref().map(|w| format!(": {w}")).unwrap_or_default();
        guests.row([
            guest.name.clone(),
            guest.state.to_string(),
            guest.host.clone().unwrap_or_default(),
            addresses.join(","),
            guest.uptime.map(duration).unwrap_or_default(),
            format!("{}{why}", guest.protection),
        ]);
    }
    let unknown = match (&status.ceph, &status.guests_error) {
        (None, _) => Some("guests: not known, since Ceph does not answer".to_owned()),
        (_, Some(why)) => Some(format!("guests: not known: {why}")),
        _ => None,
    };
    let _ = match (unknown, status.guests.is_empty()) {
        (Some(unknown), true) => write!(text, "\n\n{unknown}"),
        (Some(unknown), false) => write!(text, "\n\n{unknown}; the hosts that answer run:\n\n{}", guests.render()),
        (None, true) => write!(text, "\n\nno guests"),
        (None, false) => write!(text, "\n\n{}", guests.render()),
    };
    text
}

/// How long ago the hosts' fences were last found fit, those apart that cannot be counted on.
fn fences(hosts: &[HostLine]) -> String {
    let mut text = String::new();
    let tested = || hosts.iter().filter_map(|host| Some((host, host.fence.as_ref()?)));
    for (host, fence) in tested().filter(|(_, fence)| fence.stale || fence.problem.is_some()) {
        let age = fence.fit.map_or_else(|| "never".to_owned(), |age| format!("{} ago", duration(age)));
        let why = fence.problem.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let _ = write!(text, "\n  host {}: its fence was last found fit {age}{why}", host.name);
    }
    let fit = tested().filter(|(_, fence)| !fence.stale && fence.problem.is_none());
    if let Some(oldest) = fit.filter_map(|(_, fence)| fence.fit).max() {
        let _ = write!(text, "\n  fences found fit {} ago", duration(oldest));
    }
    text
}

fn ceph_line(status: &Status) -> String {
    let Some(ceph) = &status.ceph else {
        return format!("{}: {}", status.cluster, status.ceph_error.as_deref().unwrap_or("Ceph does not answer"));
    };
    let mut text = format!(
        "{}: {}, {} of {} mons, {} of {} OSDs up, {} of {} PGs clean, {} of {} used",
        status.cluster,
        ceph.health,
        ceph.quorum.len(),
        ceph.mons,
        ceph.osds_up,
        ceph.osds,
        ceph.pgs_clean,
        ceph.pgs,
        size(ceph.bytes_used),
        size(ceph.bytes_total),
    );
    for check in &ceph.checks {
        let _ = write!(text, "\n  {}: {}", check.code, check.summary);
    }
    text
}

fn host_state(host: &HostLine) -> String {
    match (host.reachable, &host.maintenance, host.libvirt) {
        (false, _, _) => "UNREACHABLE".to_owned(),
        (true, Some(_), _) => "maintenance".to_owned(),
        (true, None, Some(false)) => "NO LIBVIRT".to_owned(),
        (true, None, _) => "up".to_owned(),
    }
}

/// What is wrong, the worst first.
pub fn findings_table(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "nothing is wrong".to_owned();
    }
    let mut table = Table::new(["severity", "object", "what", "fix"]);
    for finding in findings {
        table.row([finding.severity.to_string(), finding.object.clone(), finding.what.clone(), finding.fix.clone()]);
    }
    table.render()
}

/// Bytes for people.
#[expect(clippy::cast_precision_loss, reason = "one digit is shown")]
fn size(bytes: u64) -> String {
    let gib = bytes as f64 / f64::from(1 << 30);
    if gib >= 1024.0 {
        format!("{:.1}T", gib / 1024.0)
    } else if gib >= 1.0 {
        format!("{gib:.1}G")
    } else {
        format!("{}M", bytes >> 20)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "seconds of uptime")]
fn whole(seconds: f64) -> i64 {
    seconds as i64
}

/// Seconds for people: the two largest units.
fn duration(seconds: i64) -> String {
    match seconds {
        ..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_short() {
        for (seconds, text) in [(5, "5s"), (65, "1m05s"), (3720, "1h02m"), (90_000, "1d01h")] {
            assert_eq!(duration(seconds), text);
        }
        for (bytes, text) in [(128 << 20, "128M"), (3 << 29, "1.5G"), (5 << 40, "5.0T")] {
            assert_eq!(size(bytes), text);
        }
    }
}
