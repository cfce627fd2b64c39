//! What goes wrong.

use crate::ceph::Named;
use crate::hosts::Host;
use crate::moves::Move;
use crate::queue::Ms;
use crate::task::{Kind, Owner};
use crate::world::{Place, World};

/// Something that goes wrong, or is right again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A person moves whatever runs on a host to another one: to be caught by another fault.
    Moves(usize, usize),
    PowerOff(usize),
    PowerOn(usize),
    Hang(usize, bool),
    Management(usize, bool),
    Storage(usize, bool),
    /// Two hosts do not reach each other: on the management network, on the storage network.
    Apart(usize, usize, bool, bool),
    Together,
    Ssh(usize, bool),
    SlowDisk(usize, bool),
    Libvirt(usize, bool),
    BmcLies(usize),
    /// An OSD takes new maps late.
    SlowMaps(usize, Ms),
    WatcherDies(usize),
    WatcherBegins(usize),
    /// A watcher dies some steps from now.
    WatcherDiesIn(usize, u32),
    WatcherSleeps(usize, Ms),
    WatcherCut(usize, bool),
    WatcherCutFrom(usize, usize),
    WatcherReaches(usize),
}

impl World {
    pub(crate) fn fault(&mut self, fault: Fault) {
        if self.healed && !matches!(fault, Fault::PowerOn(_) | Fault::WatcherBegins(_)) {
            return;
        }
        self.tell(|_| format!("FAULT {fault:?}"));
        self.changed = true;
        match fault {
            Fault::Moves(host, to) => {
                for guest in 0..self.guests.len() {
                    if self.ceph.claims[guest].named == Named::Running(host) {
                        self.begin(Owner::Operator, Kind::Move(Move::of(guest, to)));
                    }
                }
            }
            Fault::PowerOff(host) => self.power_off(host),
            Fault::PowerOn(host) => self.power_on(host),
            Fault::Hang(host, on) => self.hosts[host].hung = on,
            Fault::Management(host, up) => self.hosts[host].management = up,
            Fault::Storage(host, up) => self.hosts[host].storage = up,
            Fault::Apart(a, b, management, storage) => self.apart.push((a, b, management, storage)),
            Fault::Together => self.apart.clear(),
            Fault::Ssh(host, stopped) => self.hosts[host].no_ssh = stopped,
            Fault::SlowDisk(host, slow) => self.hosts[host].slow_disk = slow,
            Fault::Libvirt(host, gone) => self.hosts[host].no_libvirt = gone,
            Fault::BmcLies(host) => self.hosts[host].bmc_lies = true,
            Fault::SlowMaps(host, delay) => self.hosts[host].map_delay = delay,
            Fault::WatcherDies(watcher) => self.watcher_dies(watcher),
            Fault::WatcherBegins(watcher) => {
                let runs = match self.watchers[watcher].place {
                    Place::Outside => true,
                    Place::On(host) => self.hosts[host].power,
                };
                if runs {
                    self.watcher_begins(watcher);
                }
            }
            Fault::WatcherDiesIn(watcher, steps) => self.watchers[watcher].crash_in = Some(steps),
            Fault::WatcherSleeps(watcher, time) => self.watchers[watcher].asleep_until = self.now + time,
            Fault::WatcherCut(watcher, cut) => self.watchers[watcher].cut.all = cut,
            Fault::WatcherCutFrom(watcher, host) => self.watchers[watcher].cut.from.push(host),
            Fault::WatcherReaches(watcher) => self.watchers[watcher].cut.from.clear(),
        }
        self.hosts_change();
    }

    /// Notes since when hosts are bad, and lets the cluster notice.
    pub(crate) fn hosts_change(&mut self) {
        let now = self.now;
        for host in &mut self.hosts {
            match host.is_bad() {
                true => host.bad_at = host.bad_at.or(Some(now)),
                false if host.bad_at.is_some() => {
                    host.bad_at = None;
                    host.good_at = now;
                }
                false => {}
            }
        }
        self.cluster_notices();
    }

    fn power_off(&mut self, host: usize) {
        self.hosts[host].power = false;
        self.copies.retain(|copy| copy.host != host);
        for watcher in 0..self.watchers.len() {
            if self.watchers[watcher].place == Place::On(host) {
                self.watcher_dies(watcher);
            }
        }
    }

    /// What is in memory alone is gone: guests, and which migrations it refuses. Floors are on its disk.
    fn power_on(&mut self, host: usize) {
        if self.hosts[host].power {
            return;
        }
        let before = self.hosts[host].clone();
        self.hosts[host] = Host {
            power: true,
            hung: false,
            no_ssh: false,
            no_libvirt: false,
            boot: before.boot + 1,
            gate: std::collections::BTreeSet::new(),
            ..before
        };
        for watcher in 0..self.watchers.len() {
            if self.watchers[watcher].place == Place::On(host) {
                self.watcher_begins(watcher);
            }
        }
    }

    /// All is well from now on.
    pub(crate) fn heal(&mut self) {
        self.tell(|_| "all faults end".to_owned());
        for host in 0..self.hosts.len() {
            self.power_on(host);
            let known = &mut self.hosts[host];
            (known.hung, known.management, known.storage, known.no_ssh) = (false, true, true, false);
            (known.slow_disk, known.no_libvirt, known.bmc_lies, known.map_delay) = (false, false, false, 0);
        }
        self.apart.clear();
        for watcher in 0..self.watchers.len() {
            let known = &mut self.watchers[watcher];
            known.cut = crate::world::Cut::default();
            known.asleep_until = 0;
            known.crash_in = None;
            self.watcher_begins(watcher);
        }
        self.healed = true;
        self.changed = true;
        self.hosts_change();
    }
}
