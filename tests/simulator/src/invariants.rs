//! What has to be so at every moment, and in the end.

use crate::ceph::Named;
use crate::hosts::Doing;
use crate::queue::Ms;
use crate::world::World;

/// How long ago a fault may be over for a fence to stand on it: verdict, and the time a mon may take.
const RECENT: Ms = 10_000;

impl World {
    /// After every event that changed something.
    pub(crate) fn looks_at_writers(&mut self) {
        for guest in 0..self.guests.len() {
            let mut writing = self.copies.iter().filter(|copy| copy.guest == guest && self.writes(copy));
            let Some(copy) = writing.next() else { continue };
            let (lineage, host) = (copy.lineage, copy.host);
            if let Some(other) = writing.next() {
                let (one, two) = (self.names[host].clone(), self.names[other.host].clone());
                self.violates(format!("guest {guest} has two writers, on {one} and on {two}"));
                return;
            }
            if lineage < self.guests[guest].wrote {
                let name = self.names[host].clone();
                self.violates(format!("guest {guest} on {name} writes with memory that is older than its disk"));
                return;
            }
            self.guests[guest].wrote = lineage;
            if !self.ceph.claims[guest].named.hosts().contains(&host) {
                let name = self.names[host].clone();
                self.violates(format!("guest {guest} runs on {name}, which its claim does not name"));
                return;
            }
        }
    }

    /// When a fence is committed: the host has to be one that is really lost.
    pub(crate) fn looks_at_fence(&mut self, host: usize) {
        let known = &self.hosts[host];
        let was_bad = known.good_at > 0 && self.now - known.good_at < RECENT;
        // Links between two hosts at a time can be cut until it is alone.
        let alone = (0..self.hosts.len()).all(|other| other == host || !self.storage(host, other));
        if !known.is_bad() && !was_bad && !alone {
            let name = self.names[host].clone();
            self.violates(format!("{name} is fenced, and nothing is wrong with it"));
        }
    }

    /// When a watcher asks for a fence: it has to have the right to.
    pub(crate) fn looks_at_right(&mut self, watcher: usize, host: usize) {
        let now = self.now;
        let recent = |at: Option<Ms>| at.is_some_and(|at| now - at < RECENT);
        let life = self.watchers[watcher].life;
        let leads = self.ceph.lease.as_ref().is_some_and(|lease| lease.holder == format!("w{watcher}.{life}"));
        if !leads && !recent(self.ceph.stalled_at) {
            self.violates(format!("watcher {watcher} fences without the lease"));
        }
        if !self.armed && !recent(self.disarmed_at) && !recent(self.ceph.stalled_at) {
            self.violates(format!("watcher {watcher} fences although the watch is disarmed"));
        }
        let lost = (0..self.hosts.len())
            .filter(|other| *other != host && !self.hosts[*other].maintenance)
            // What a watcher reads is some seconds old, or older while storage stands still.
            .filter(|other| {
                self.hosts[*other].maintained_at == 0 || self.now > self.hosts[*other].maintained_at + 20_000
            })
            .filter(|other| {
                let at = self.hosts[*other].readmitted_at;
                at == 0 || self.now > at + 20_000
            })
            // One that was handled a while ago is another event.
            .filter(|other| !self.is_fenced(*other) || self.now < self.hosts[*other].fenced_at + 15_000)
            .filter(|other| {
                self.hosts[*other].bad_at.is_some_and(|at| (4500..25_000).contains(&(self.now - at)))
                    && !self.hosts[*other].power
            })
            .count();
        let settings = crate::brain::Settings::standard();
        let knows = self.watchers[watcher].settled(self.now);
        let fenced = self.is_fenced(host);
        if lost + 1 > settings.may_be_lost(self.hosts.len()) && self.last_release.is_none() && knows && !fenced {
            self.violates(format!("watcher {watcher} fences the {}th host that is lost at once", lost + 1));
        }
    }

    /// Whether everything is as it should be once nothing is wrong any more; else what is not.
    pub(crate) fn is_well(&self) -> Result<(), String> {
        for guest in 0..self.guests.len() {
            let running = self.copies.iter().filter(|copy| copy.guest == guest && copy.doing == Doing::Running);
            let hosts: Vec<usize> = running.map(|copy| copy.host).collect();
            let named = self.ceph.claims[guest].named;
            match hosts.as_slice() {
                [host] if named == Named::Running(*host) && self.writers(guest) == 1 => {}
                _ => return Err(format!("guest {guest} does not run as it should: {named:?}, copies on {hosts:?}")),
            }
        }
        for host in 0..self.hosts.len() {
            if self.is_fenced(host) {
                return Err(format!(
                    "{} is still shut out: journal {:?}",
                    self.names[host],
                    self.ceph.journal.get(&host)
                ));
            }
            if self.hosts[host].fenced_at > 0 && !self.ceph.entered[host] {
                return Err(format!("the fence of {} is not in the journal", self.names[host]));
            }
            if !self.ceph.osds[host].up {
                return Err(format!("the OSD of {} is down", self.names[host]));
            }
        }
        Ok(())
    }
}
