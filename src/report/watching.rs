//! The watch, as `status` and `doctor` show it: who leads, and whether it may act.

use super::finding::Finding;
use crate::cluster::{ClusterError, ClusterPort, Lease, fetch};
use crate::host::Severity;
use crate::watch::driver::{Disarmed, LEASE, WatchStatus};
use jiff::Timestamp;
use serde::Serialize;
use std::time::Duration;

/// Seconds after which a leading watcher that has said nothing counts as gone; it speaks every 10 s.
const SILENT: i64 = 35;

/// What the watchers have left in the cluster.
#[derive(Clone, Debug, Default)]
pub struct WatchSeen {
    /// Who holds the lease.
    pub leader: Option<String>,
    /// What the last leader said last; nothing where there never was one.
    pub status: Option<WatchStatus>,
    /// What holds the watch back.
    pub disarmed: Option<Disarmed>,
}

impl WatchSeen {
    /// Reads it.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn read(port: &dyn ClusterPort) -> Result<Self, ClusterError> {
        let (lease, status, disarmed) =
            tokio::try_join!(fetch::<Lease>(port, LEASE), WatchStatus::read(port), Disarmed::read(port))?;
        let leader = lease.map(|(lease, _)| lease).filter(Lease::is_held).map(|lease| lease.holder);
        Ok(WatchSeen { leader, status, disarmed })
    }
}

/// The watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WatchLine {
    /// Who leads, or led last.
    pub leader: Option<String>,
    /// Since when, by its own clock.
    pub since: Option<Timestamp>,
    /// Whether it was heard of within the last half minute.
    pub alive: bool,
    /// Whether it may act.
    pub armed: bool,
    /// Why it may not, by whom, and for how many seconds more.
    pub disarmed: Option<String>,
}

/// The watch, where the rack was ever watched.
pub(super) fn line(seen: &WatchSeen, now: Timestamp) -> Option<WatchLine> {
    if seen.leader.is_none() && seen.status.is_none() && seen.disarmed.is_none() {
        return None;
    }
    let said = seen.status.as_ref().filter(|status| seen.leader.as_ref() == Some(&status.holder));
    let age = said.and_then(|said| said.at).map(|at| now.as_second().saturating_sub(at.as_second()));
    let disarmed = seen.disarmed.as_ref().map(|disarmed| {
        let left = humantime::format_duration(Duration::from_secs(disarmed.left().as_secs()));
        format!("by {} for {left} more: {}", disarmed.by, disarmed.reason)
    });
    Some(WatchLine {
        leader: seen.leader.as_ref().map(|holder| holder.split(',').next().unwrap_or_default().to_owned()),
        since: said.map(|said| said.since),
        alive: age.is_some_and(|age| age <= SILENT),
        armed: disarmed.is_none(),
        disarmed,
    })
}

/// The watch in a line.
pub(super) fn words(watch: Option<&WatchLine>) -> String {
    let Some(watch) = watch else { return "watch: none; `rackhand watch` begins one".to_owned() };
    let since = watch.since.map(|since| format!(" since {since:.0}")).unwrap_or_default();
    let leads = match (&watch.leader, watch.alive) {
        (Some(leader), true) => format!("{leader} leads{since}"),
        (Some(leader), false) => format!("NO watcher leads; {leader} did last"),
        (None, _) => "NO watcher leads".to_owned(),
    };
    match &watch.disarmed {
        Some(why) => format!("watch: {leads}; DISARMED {why}"),
        None => format!("watch: {leads}; armed"),
    }
}

/// What is wrong with the watch of a rack that was ever watched.
pub(super) fn findings(watch: Option<&WatchLine>) -> Vec<Finding> {
    let Some(watch) = watch else { return Vec::new() };
    let mut found = Vec::new();
    if !watch.alive {
        let fix = "run `rackhand watch` on a machine that stays up";
        found.push(Finding::new(Severity::Error, "watch", "no watcher leads: a host that dies is not recovered", fix));
    }
    if let Some(why) = &watch.disarmed {
        let fix = "`rackhand watch arm` when the work is done";
        found.push(Finding::new(Severity::Warning, "watch", format!("it is disarmed {why}"), fix));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn seen(said: i64) -> WatchSeen {
        let holder = "anna@desk, 7f3a".to_owned();
        let status = WatchStatus {
            holder: holder.clone(),
            since: at(100),
            patience_ms: 900,
            healthy: 3,
            hosts: 3,
            incidents: [].into(),
            maintenance: [].into(),
            at: Some(at(said)),
        };
        WatchSeen { leader: Some(holder), status: Some(status), disarmed: None }
    }

    #[test]
    fn a_leader_that_says_nothing_any_more_does_not_lead() {
        let told = |seen: &WatchSeen| words(line(seen, at(1_000)).as_ref());
        assert_eq!(told(&seen(990)), "watch: anna@desk leads since 1970-01-01T00:01:40Z; armed");
        assert_eq!(told(&seen(900)), "watch: NO watcher leads; anna@desk did last; armed");
        // Another one has the lease, and has not said anything yet.
        let other = WatchSeen { leader: Some("ben@lap, 1".into()), ..seen(990) };
        assert_eq!(told(&other), "watch: NO watcher leads; ben@lap did last; armed");
        assert_eq!(told(&WatchSeen { leader: None, ..seen(990) }), "watch: NO watcher leads; armed");
        assert_eq!(told(&WatchSeen::default()), "watch: none; `rackhand watch` begins one");
        assert_eq!(findings(line(&seen(900), at(1_000)).as_ref()).len(), 1);
        assert!(findings(line(&seen(990), at(1_000)).as_ref()).is_empty());
    }

    #[test]
    fn a_watch_that_is_held_back_says_by_whom() {
        let disarmed = Disarmed::new(Duration::from_secs(7_200), "new-switch".into(), "ben@lap".into());
        let watch = line(&WatchSeen { disarmed: Some(disarmed), ..seen(990) }, at(1_000)).unwrap();
        assert!(words(Some(&watch)).ends_with("armed") == watch.armed && !watch.armed);
        assert!(words(Some(&watch)).ends_with("; DISARMED by ben@lap for 2h more: new-switch"));
        assert_eq!(findings(Some(&watch))[0].severity, Severity::Warning);
    }
}
