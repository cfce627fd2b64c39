//! How it all is, for programs and for the page.

use super::news::News;
use crate::watch::brain::Phase;
use crate::watch::driver::{HostPicture, Picture};
use crate::watch::witness::Work;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// How one host is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HostSnapshot {
    /// The host.
    pub name: String,
    /// Whether its heart beats.
    pub beats: bool,
    /// How long ago it beat last, in milliseconds.
    pub silent_ms: Option<u64>,
    /// How long a synced write took with the last beat, in milliseconds; nothing where it did not end.
    pub disk_ms: Option<f64>,
    /// How long libvirt took with the last beat, in milliseconds.
    pub libvirt_ms: Option<f64>,
    /// Domains that run there.
    pub domains: Option<u32>,
    /// What the watch makes of it.
    pub state: String,
    /// Why.
    pub reason: String,
    /// How far its incident is.
    pub phase: Phase,
}

/// How it all is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Snapshot {
    /// The rack.
    pub rack: String,
    /// When, by the watcher's clock.
    pub at: Timestamp,
    /// Whether this watcher leads.
    pub leads: bool,
    /// Who leads, where it is another one.
    pub leader: Option<String>,
    /// Why the watch does not act; nothing where it does.
    pub disarmed: Option<String>,
    /// Mons that answer, are in quorum, and are there.
    pub mons: Option<(usize, usize, usize)>,
    /// The hosts, by name.
    pub hosts: Vec<HostSnapshot>,
    /// The latest events, the newest first.
    pub events: VecDeque<News>,
    /// Events so far, by kind.
    pub counts: BTreeMap<String, u64>,
}

fn took(work: Option<&Work>) -> Option<f64> {
    match work {
        Some(Work::Took(took)) => Some(took.as_secs_f64() * 1000.0),
        _ => None,
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl HostSnapshot {
    fn of(host: &HostPicture) -> Self {
        HostSnapshot {
            name: host.name.clone(),
            beats: host.beats,
            silent_ms: host.silent.map(ms),
            disk_ms: took(host.disk.as_ref()),
            libvirt_ms: took(host.libvirt.as_ref()),
            domains: host.domains,
            state: host.state.to_string(),
            reason: host.reason.clone(),
            phase: host.phase,
        }
    }
}

impl Snapshot {
    /// Takes in how it is now; events stay.
    pub fn see(&mut self, picture: &Picture, at: Timestamp) {
        self.at = at;
        self.leads = picture.leads;
        self.leader.clone_from(&picture.leader);
        self.disarmed.clone_from(&picture.disarmed);
        self.mons = picture.mons;
        self.hosts = picture.hosts.iter().map(HostSnapshot::of).collect();
    }
}
