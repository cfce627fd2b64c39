//! Several hosts rebooted, one after another; what was done is kept, so that the same command goes on where it ended.

use super::documents::RollingRecord;
use super::host::{Reboot, Rebooted};
use crate::error::{Failure, Kind};
use crate::ui::CancelLevel;
use jiff::Timestamp;
use serde::Serialize;

/// What came of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostOutcome {
    /// The host.
    pub host: String,
    /// `rebooted`, `rebooted before` (by the run that this one goes on with), `failed` or `not begun`.
    pub outcome: &'static str,
    /// What the reboot came to.
    pub reboot: Option<Rebooted>,
    /// Why it failed.
    pub reason: Option<String>,
}

/// What came of all hosts.
#[derive(Debug, Default, Serialize)]
pub struct RollingReport {
    /// The hosts, in their order.
    pub hosts: Vec<HostOutcome>,
    /// Why it did not come to its end.
    #[serde(skip)]
    pub failure: Option<Failure>,
}

impl RollingReport {
    /// What came of a host that was rebooted alone.
    pub fn of_one(host: &str, result: Result<Rebooted, Failure>) -> Self {
        let (outcome, reboot, failure) = match result {
            Ok(done) => ("rebooted", Some(done), None),
            Err(failure) => ("failed", None, Some(failure)),
        };
        let reason = failure.as_ref().map(ToString::to_string);
        RollingReport { hosts: vec![HostOutcome { host: host.to_owned(), outcome, reboot, reason }], failure }
    }

    /// Whether all guests are back where they were.
    ///
    /// # Errors
    /// [`Kind::Partial`] when some run elsewhere.
    pub fn strays(&self) -> Result<(), Failure> {
        let with = |host: &HostOutcome| {
            let left = host.reboot.as_ref().filter(|reboot| !reboot.left.is_empty())?.left.join(", ");
            Some(format!("{left} did not come back to {}", host.host))
        };
        let lines: Vec<String> = self.hosts.iter().filter_map(with).collect();
        if lines.is_empty() {
            return Ok(());
        }
        Err(Failure::msg(Kind::Partial, lines.join("; "))
            .hint("they run elsewhere; `rackhand return HOST` tries again"))
    }
}

/// Reboots these hosts, one after another, and stops at the first that fails. One that was begun with the same hosts and is
/// not over is gone on with, unless it shall begin `anew`.
///
/// # Errors
/// [`Kind::Refused`] when one with other hosts is not over; when the cluster cannot be asked.
pub async fn reboot_all(reboot: &Reboot<'_>, hosts: &[String], anew: bool) -> Result<RollingReport, Failure> {
    let port = reboot.rack.port();
    let mut record = open(reboot, hosts, anew).await?;
    let mut report = RollingReport::default();
    for host in hosts {
        let outcome = |outcome| HostOutcome { host: host.clone(), outcome, reboot: None, reason: None };
        if record.done.contains(host) {
            report.hosts.push(outcome("rebooted before"));
            continue;
        }
        if report.failure.is_none() && *reboot.cancel_level.borrow() != CancelLevel::None {
            report.failure = Some(Failure::msg(Kind::Interrupted, "interrupted"));
        }
        if report.failure.is_some() {
            report.hosts.push(outcome("not begun"));
            continue;
        }
        match reboot.run(host).await {
            Ok(done) => {
                report.hosts.push(HostOutcome { reboot: Some(done), ..outcome("rebooted") });
                record.done.push(host.clone());
                record.write(port).await?;
            }
            Err(failure) => {
                report.hosts.push(HostOutcome { reason: Some(failure.to_string()), ..outcome("failed") });
                report.failure = Some(failure);
            }
        }
    }
    match report.failure.take() {
        None => RollingRecord::forget(port).await?,
        Some(failure) => report.failure = Some(stopped(failure, &report.hosts)),
    }
    Ok(report)
}

/// The rolling reboot of these hosts: the one that was begun, or a new one.
async fn open(reboot: &Reboot<'_>, hosts: &[String], anew: bool) -> Result<RollingRecord, Failure> {
    let rack = reboot.rack;
    let found = RollingRecord::read(rack.port()).await?.filter(|_| !anew);
    if let Some(found) = found {
        let same = found.hosts.len() == hosts.len() && found.hosts.iter().all(|host| hosts.contains(host));
        if same {
            let (since, left) = (found.since, hosts.len().saturating_sub(found.done.len()));
            rack.ui.note(format!("goes on with the rolling reboot that {} began at {since:.0}: {left} left", found.by));
            return Ok(found);
        }
        let (begun, done) = (found.hosts.join(" "), found.done.len());
        let text =
            format!("a rolling reboot of {begun} by {} is not over: {done} of {} done", found.by, found.hosts.len());
        return Err(
            Failure::refused(text).hint("name the same hosts to go on with it, or add --anew to leave it as it is")
        );
    }
    let (by, since) = (rack.run.by.clone(), Timestamp::now());
    let record = RollingRecord { by, since, hosts: hosts.to_vec(), done: Vec::new() };
    record.write(rack.port()).await?;
    Ok(record)
}

/// The failure of the host at which it stopped, with what is left.
fn stopped(failure: Failure, hosts: &[HostOutcome]) -> Failure {
    let names = |outcome: &str| {
        let names: Vec<&str> = hosts.iter().filter(|h| h.outcome == outcome).map(|h| h.host.as_str()).collect();
        names.join(" ")
    };
    let (failed, left) = (names("failed"), names("not begun"));
    let rest = if left.is_empty() { String::new() } else { format!("; not begun: {left}") };
    let any_done = hosts.iter().any(|host| host.outcome == "rebooted");
    let kind = match failure.kind {
        Kind::Unknown | Kind::Interrupted => failure.kind,
        _ if any_done => Kind::Partial,
        other => other,
    };
    let stopped = match failed.is_empty() {
        true => format!("{failure}{rest}"),
        false => format!("stopped at {failed}: {failure}{rest}"),
    };
    let told = failure.hints.iter().fold(Failure::msg(kind, stopped), Failure::hint);
    told.hint("the same command goes on where this one ended")
}
