//! All there is: hosts, guests, the cluster, the watchers.

use crate::ceph::Ceph;
use crate::driver::Watcher;
use crate::hosts::{CopyOf, Host};
use crate::mutation::Mutation;
use crate::queue::{Event, Ms, Queue};
use crate::rng::Rng;
use crate::run::{Stats, Violation};
use crate::task::Task;
use std::collections::BTreeMap;

/// Where a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On a machine beside the rack.
    Outside,
    /// On a host.
    On(usize),
}

/// What a guest's disk remembers of its writers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Guest {
    /// The lineage that wrote last. A copy that is booted anew begins one, a move hands it on.
    pub(crate) wrote: u64,
}

/// All there is.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: Ms,
    pub(crate) rng: Rng,
    pub(crate) queue: Queue,
    pub(crate) names: Vec<String>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) guests: Vec<Guest>,
    pub(crate) copies: Vec<CopyOf>,
    pub(crate) ceph: Ceph,
    pub(crate) watchers: Vec<Watcher>,
    pub(crate) tasks: BTreeMap<u64, Task>,
    /// Pairs of hosts that do not reach each other: on the management network, on the storage network.
    pub(crate) apart: Vec<(usize, usize, bool, bool)>,
    pub(crate) armed: bool,
    pub(crate) disarmed_at: Option<Ms>,
    /// Whether all faults are over.
    pub(crate) healed: bool,
    pub(crate) last_release: Option<Ms>,
    pub(crate) next_id: u64,
    pub(crate) mutation: Option<Mutation>,
    /// Written only when a seed is told as a story.
    pub(crate) story: Option<Vec<String>>,
    pub(crate) violation: Option<Violation>,
    pub(crate) stats: Stats,
    /// Whether anything changed that invariants look at.
    pub(crate) changed: bool,
}

impl World {
    pub(crate) fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(crate) fn has(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    pub(crate) fn tell(&mut self, what: impl FnOnce(&World) -> String) {
        if self.story.is_some() {
            let line = format!("{:>9.3} s  {}", self.now as f64 / 1000.0, what(self));
            if let Some(story) = &mut self.story {
                story.push(line);
            }
        }
    }

    pub(crate) fn violates(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.tell(|_| format!("VIOLATION: {what}"));
        if self.violation.is_none() {
            self.violation = Some(Violation { at_ms: self.now, what });
        }
    }

    /// In so many milliseconds.
    pub(crate) fn after(&mut self, time: Ms, event: Event) {
        self.queue.add(self.now + time, event);
    }

    /// How long a message takes: mostly some ten milliseconds, now and then much longer.
    pub(crate) fn latency(&mut self) -> Ms {
        match self.rng.range(0, 100) {
            0 => self.rng.range(300, 4000),
            1..=6 => self.rng.range(60, 400),
            _ => self.rng.range(1, 40),
        }
    }

    fn are_apart(&self, a: usize, b: usize, of: impl Fn(&(usize, usize, bool, bool)) -> bool) -> bool {
        self.apart.iter().any(|pair| ((pair.0, pair.1) == (a, b) || (pair.0, pair.1) == (b, a)) && of(pair))
    }

    /// Whether the kernels of two hosts reach each other on the management network.
    pub(crate) fn management(&self, a: usize, b: usize) -> bool {
        let up = |host: &Host| host.power && host.management;
        a == b && self.hosts[a].power
            || up(&self.hosts[a]) && up(&self.hosts[b]) && !self.are_apart(a, b, |pair| pair.2)
    }

    /// Whether the kernels of two hosts reach each other on the storage network.
    pub(crate) fn storage(&self, a: usize, b: usize) -> bool {
        let up = |host: &Host| host.power && host.storage;
        a == b && self.hosts[a].power
            || up(&self.hosts[a]) && up(&self.hosts[b]) && !self.are_apart(a, b, |pair| pair.3)
    }

    /// Whether a process reaches the kernel of a host. `cut`: what is wrong with its own link.
    pub(crate) fn reaches(&self, place: Place, cut: &Cut, host: usize) -> bool {
        if cut.all || cut.from.contains(&host) {
            return false;
        }
        match place {
            Place::Outside => self.hosts[host].power && self.hosts[host].management,
            Place::On(from) => self.management(from, host),
        }
    }

    /// Whether it also gets an answer of ssh there.
    pub(crate) fn reaches_ssh(&self, place: Place, cut: &Cut, host: usize) -> bool {
        self.reaches(place, cut, host) && !self.hosts[host].hung && !self.hosts[host].no_ssh
    }

    /// A host through which a process reaches the cluster, if there is one.
    pub(crate) fn door(&self, place: Place, cut: &Cut) -> bool {
        (0..self.hosts.len()).any(|host| {
            self.ceph.formed.contains(&host) && self.hosts[host].storage && self.reaches_ssh(place, cut, host)
        })
    }
}

/// What is wrong with the link of a process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cut {
    pub(crate) all: bool,
    pub(crate) from: Vec<usize>,
}
