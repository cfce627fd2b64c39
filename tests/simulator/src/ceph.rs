//! The cluster: mons, OSDs, who is shut out, and the documents.

use crate::brain::Phase;
use crate::hosts::{CopyOf, Doing};
use crate::lease_rule::Lease;
use crate::queue::{Event, Ms};
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};

/// How long peers wait before they have a silent OSD marked down.
const GRACE: Ms = 20_000;

/// Where a guest may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Starting(usize),
    Running(usize),
    Moving(usize, usize),
}

impl Named {
    pub(crate) fn hosts(self) -> Vec<usize> {
        match self {
            Named::Starting(host) | Named::Running(host) => vec![host],
            Named::Moving(from, to) => vec![from, to],
        }
    }
}

/// The claim of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) named: Named,
    pub(crate) generation: u64,
    /// The task that wrote it.
    pub(crate) by: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Osd {
    pub(crate) up: bool,
    pub(crate) seen: u64,
}

/// A range that is blocklisted, in the maps from one to another.
#[derive(Clone, Debug)]
pub(crate) struct Range {
    pub(crate) host: usize,
    pub(crate) from: u64,
    pub(crate) to: Option<u64>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Ceph {
    pub(crate) mons: Vec<usize>,
    /// The mons in quorum.
    pub(crate) formed: BTreeSet<usize>,
    pub(crate) epoch: u64,
    pub(crate) osds: Vec<Osd>,
    pub(crate) ranges: Vec<Range>,
    /// Clients that are blocklisted one by one, and since which map.
    pub(crate) clients: BTreeMap<u64, u64>,
    pub(crate) claims: Vec<Claim>,
    pub(crate) lease: Option<Lease>,
    pub(crate) journal: BTreeMap<usize, Phase>,
    /// Whether the journal ever had the fence of a host.
    pub(crate) entered: Vec<bool>,
    /// Hosts that have a record of their fence.
    pub(crate) records: BTreeSet<usize>,
    pub(crate) stalled_at: Option<Ms>,
    pub(crate) election_at: Option<Ms>,
}

impl World {
    pub(crate) fn mon_lives(&self, host: usize) -> bool {
        let host = &self.hosts[host];
        host.power && host.storage && !host.hung
    }

    pub(crate) fn osd_lives(&self, host: usize) -> bool {
        self.mon_lives(host)
    }

    /// Whether anything can be committed at this moment.
    pub(crate) fn has_quorum(&self) -> bool {
        let formed = &self.ceph.formed;
        formed.len() * 2 > self.ceph.mons.len() && formed.iter().all(|mon| self.mon_lives(*mon))
    }

    /// Whether reads and writes of objects end at this moment.
    pub(crate) fn io_works(&mut self) -> bool {
        let mut up = 0;
        let mut works = true;
        for host in 0..self.hosts.len() {
            if self.ceph.osds[host].up {
                up += 1;
                works &= self.osd_lives(host);
            }
        }
        works &= up >= 2;
        if !works {
            self.ceph.stalled_at = Some(self.now);
        }
        works
    }

    /// Something happened to a host: mons and OSDs notice, each in its time.
    pub(crate) fn cluster_notices(&mut self) {
        let lives = |host: &usize| self.mon_lives(*host);
        let wanted: BTreeSet<usize> = self.ceph.mons.iter().filter(|host| lives(host)).copied().collect();
        if wanted != self.ceph.formed {
            let dead = self.ceph.formed.iter().any(|mon| !wanted.contains(mon));
            let time = if dead { self.rng.range(3000, 9000) } else { self.rng.range(300, 2000) };
            self.elect_in(time);
        }
        for host in 0..self.hosts.len() {
            if self.ceph.osds[host].up != self.osd_lives(host) {
                let time = if self.ceph.osds[host].up { GRACE } else { self.rng.range(1000, 4000) };
                self.after(time, Event::Osd(host));
            } else if self.ceph.osds[host].seen < self.ceph.epoch {
                let time = self.latency();
                self.after(time, Event::Learn(host));
            }
        }
    }

    pub(crate) fn elect_in(&mut self, time: Ms) {
        let at = self.now + time;
        if self.ceph.election_at.is_none_or(|before| at < before || before < self.now) {
            self.ceph.election_at = Some(at);
            self.queue.add(at, Event::Election);
        }
    }

    pub(crate) fn elect(&mut self) {
        self.ceph.election_at = None;
        let living: BTreeSet<usize> = self.ceph.mons.iter().filter(|host| self.mon_lives(**host)).copied().collect();
        let formed = if living.len() * 2 > self.ceph.mons.len() { living } else { BTreeSet::new() };
        if formed != self.ceph.formed {
            self.tell(|w| {
                format!("Ceph: mons in quorum {:?}", formed.iter().map(|h| &w.names[*h]).collect::<Vec<_>>())
            });
            self.ceph.formed = formed;
        }
    }

    /// The peers of an OSD have it marked down, or it comes up.
    pub(crate) fn osd_changes(&mut self, host: usize) {
        let (up, lives) = (self.ceph.osds[host].up, self.osd_lives(host));
        if up == lives {
            return;
        }
        let dead_for = self.hosts[host].bad_at.map_or(0, |at| self.now.saturating_sub(at));
        if !self.has_quorum() || (up && dead_for < GRACE) {
            self.after(2000, Event::Osd(host));
            return;
        }
        self.changed = true;
        self.ceph.osds[host].up = lives;
        if lives {
            // It takes the newest map before it is up.
            self.ceph.osds[host].seen = self.ceph.epoch + 1;
        }
        self.new_epoch();
    }

    /// A new map is committed, and spreads.
    pub(crate) fn new_epoch(&mut self) -> u64 {
        self.ceph.epoch += 1;
        for host in 0..self.hosts.len() {
            let mut time = self.latency() + self.hosts[host].map_delay;
            if self.rng.percent(5) {
                time += self.rng.range(0, 4000);
            }
            self.after(time, Event::Learn(host));
        }
        self.ceph.epoch
    }

    pub(crate) fn learn(&mut self, host: usize) {
        if self.osd_lives(host) {
            self.ceph.osds[host].seen = self.ceph.epoch;
            self.changed = true;
        }
    }

    /// Whether the newest map shuts a host out.
    pub(crate) fn is_fenced(&self, host: usize) -> bool {
        self.ceph.ranges.iter().any(|range| range.host == host && range.to.is_none())
    }

    /// Shuts a host out, with its clients that are known, and marks its OSD down: one proposal.
    pub(crate) fn commit_fence(&mut self, host: usize, clients: bool) -> u64 {
        self.ceph.osds[host].up = false;
        let epoch = self.new_epoch();
        if !self.is_fenced(host) {
            self.hosts[host].fenced_at = self.now;
            self.ceph.ranges.push(Range { host, from: epoch, to: None });
        }
        if clients {
            // Clients are known from their watchers, which are read now and then: one that just began is not.
            let is_known = |copy: &&CopyOf| copy.host == host && self.now - copy.since > 1000;
            let known: Vec<u64> = self.copies.iter().filter(is_known).map(|copy| copy.id).collect();
            for copy in known {
                self.ceph.clients.entry(copy).or_insert(epoch);
            }
        }
        self.changed = true;
        self.after(1500, Event::Osd(host));
        epoch
    }

    pub(crate) fn lift_fence(&mut self, host: usize) {
        let epoch = self.new_epoch();
        self.hosts[host].readmitted_at = self.now;
        for range in self.ceph.ranges.iter_mut().filter(|range| range.host == host && range.to.is_none()) {
            range.to = Some(epoch);
        }
        self.changed = true;
    }

    fn refuses(&self, osd: usize, copy: &CopyOf) -> bool {
        let seen = self.ceph.osds[osd].seen;
        let is_in = |range: &Range| range.from <= seen && range.to.is_none_or(|to| seen < to);
        self.ceph.ranges.iter().any(|range| range.host == copy.host && is_in(range))
            || self.ceph.clients.get(&copy.id).is_some_and(|epoch| *epoch <= seen)
    }

    /// Whether a copy runs, and there is an OSD that would take a write of it.
    pub(crate) fn writes(&self, copy: &CopyOf) -> bool {
        let host = &self.hosts[copy.host];
        if copy.doing != Doing::Running || !host.power || !host.storage || host.hung {
            return false;
        }
        let is_up = |osd: usize| self.ceph.osds[osd].up && self.osd_lives(osd);
        (0..self.hosts.len()).any(|osd| {
            is_up(osd)
                && self.storage(copy.host, osd)
                && !self.refuses(osd, copy)
                && (0..self.hosts.len()).any(|peer| peer != osd && is_up(peer) && self.storage(osd, peer))
        })
    }

    /// Writes a claim, if it still is the one that was read.
    pub(crate) fn swap_claim(&mut self, guest: usize, read: Claim, named: Named, by: u64) -> Option<Claim> {
        if self.ceph.claims[guest] != read {
            return None;
        }
        let claim = Claim { named, generation: read.generation + 1, by };
        self.ceph.claims[guest] = claim;
        self.changed = true;
        self.tell(|_| format!("claim of guest {guest}: {named:?}, generation {}", claim.generation));
        Some(claim)
    }
}
