//! What a seed stands for: a rack, its watchers, and what will go wrong.

use crate::brain::Settings;
use crate::ceph::{Ceph, Claim, Named, Osd};
use crate::driver::Watcher;
use crate::faults::Fault;
use crate::hosts::{CopyOf, Doing, Host};
use crate::mutation::Mutation;
use crate::queue::{Event, Ms, Queue};
use crate::rng::Rng;
use crate::run::Stats;
use crate::world::{Guest, Place, World};
use std::collections::BTreeMap;

/// When all faults end.
pub(crate) const HEAL: Ms = 50_000;
/// When the first one may happen.
const FIRST: Ms = 9_000;

fn settings(rng: &mut Rng, mutation: Option<Mutation>) -> Settings {
    let mut settings = if rng.percent(15) { Settings::fastest() } else { Settings::standard() };
    match mutation {
        Some(Mutation::NoPeers) => settings.peers_needed = 0,
        Some(Mutation::NoHold) => settings.hold_share = 1000,
        _ => {}
    }
    settings
}

/// A rack that is well.
pub(crate) fn world(seed: u64, mutation: Option<Mutation>) -> World {
    let mut rng = Rng::new(seed);
    let hosts = [3, 3, 3, 4, 5, 6][rng.index(6)];
    let names: Vec<String> = (0..hosts).map(|host| format!("h{host}")).collect();
    let mons = if hosts >= 5 && rng.percent(50) { 5 } else { 3 };
    let settings = settings(&mut rng, mutation);
    let host = Host { power: true, management: true, storage: true, boot: 1, ..Host::default() };
    let ceph = Ceph {
        mons: (0..mons).collect(),
        formed: (0..mons).collect(),
        entered: vec![false; hosts],
        osds: vec![Osd { up: true, seen: 0 }; hosts],
        ..Ceph::default()
    };
    let mut world = World {
        now: 0,
        queue: Queue::default(),
        names: names.clone(),
        hosts: vec![host; hosts],
        guests: Vec::new(),
        copies: Vec::new(),
        ceph,
        watchers: Vec::new(),
        tasks: BTreeMap::new(),
        apart: Vec::new(),
        armed: true,
        disarmed_at: None,
        healed: false,
        last_release: None,
        next_id: 0,
        mutation,
        story: None,
        violation: None,
        stats: Stats::default(),
        changed: true,
        rng,
    };
    for guest in 0..world.rng.index(4) + 1 {
        let host = world.rng.index(hosts);
        let id = world.id();
        world.copies.push(CopyOf { id, guest, host, doing: Doing::Running, lineage: id, since: 0, job: 0 });
        world.guests.push(Guest { wrote: id });
        world.ceph.claims.push(Claim { named: Named::Running(host), generation: 1, by: 0 });
        world.hosts[host].floor.insert(guest, 1);
    }
    for _ in 0..[1, 2, 2, 3][world.rng.index(4)] {
        let place = if world.rng.percent(40) { Place::Outside } else { Place::On(world.rng.index(hosts)) };
        world.watchers.push(Watcher::new(place, settings.clone(), &names));
    }
    world
}

/// All that begins by itself, and all that will go wrong.
pub(crate) fn schedule(world: &mut World) {
    for host in 0..world.hosts.len() {
        let at = world.rng.range(0, 500);
        world.queue.add(at, Event::Beat(host));
    }
    for watcher in 0..world.watchers.len() {
        let at = world.rng.range(0, 3000);
        world.queue.add(at, Event::Fault(Fault::WatcherBegins(watcher)));
    }
    for _ in 0..world.rng.range(0, 6) {
        let at = world.rng.range(FIRST, HEAL - 5000);
        let time = match world.rng.range(0, 3) {
            0 => world.rng.range(200, 3000),
            1 => world.rng.range(3000, 15_000),
            _ => world.rng.range(10_000, 50_000),
        };
        goes_wrong(world, at, at + time);
    }
    world.queue.add(FIRST, Event::Operator);
    world.queue.add(HEAL, Event::Heal);
}

/// One thing that goes wrong at a time, and until another one.
fn goes_wrong(world: &mut World, at: Ms, until: Ms) {
    let host = world.rng.index(world.hosts.len());
    let other = (host + 1 + world.rng.index(world.hosts.len() - 1)) % world.hosts.len();
    let watcher = world.rng.index(world.watchers.len());
    let mut both = |first: Fault, last: Fault| {
        world.queue.add(at, Event::Fault(first));
        world.queue.add(until, Event::Fault(last));
    };
    match world.rng.range(0, 28) {
        0..=5 => both(Fault::PowerOff(host), Fault::PowerOn(host)),
        6 => both(Fault::Hang(host, true), Fault::Hang(host, false)),
        7 => both(Fault::Management(host, false), Fault::Management(host, true)),
        8 => both(Fault::Storage(host, false), Fault::Storage(host, true)),
        9..=11 => {
            both(Fault::Management(host, false), Fault::Management(host, true));
            world.queue.add(at, Event::Fault(Fault::Storage(host, false)));
            let back = world.rng.range(at, until + 5000);
            world.queue.add(back, Event::Fault(Fault::Storage(host, true)));
        }
        12 => {
            let (management, storage) = (world.rng.percent(60), world.rng.percent(60));
            world.queue.add(at, Event::Fault(Fault::Apart(host, other, management, storage)));
            world.queue.add(until, Event::Fault(Fault::Together));
        }
        13 => both(Fault::Ssh(host, true), Fault::Ssh(host, false)),
        14 => both(Fault::SlowDisk(host, true), Fault::SlowDisk(host, false)),
        15 => both(Fault::Libvirt(host, true), Fault::Libvirt(host, false)),
        16 => both(Fault::BmcLies(host), Fault::BmcLies(other)),
        17 => {
            let delay = world.rng.range(500, 9000);
            both(Fault::SlowMaps(host, delay), Fault::SlowMaps(host, 0));
        }
        18 | 19 => both(Fault::WatcherDies(watcher), Fault::WatcherBegins(watcher)),
        20 => {
            // A watcher dies in the midst of what it does about a host.
            let steps = u32::try_from(world.rng.range(0, 40)).unwrap_or(0);
            both(Fault::PowerOff(host), Fault::PowerOn(host));
            world.queue.add(at, Event::Fault(Fault::WatcherDiesIn(watcher, steps)));
        }
        21 => world.queue.add(at, Event::Fault(Fault::WatcherSleeps(watcher, until - at))),
        22 => both(Fault::WatcherCut(watcher, true), Fault::WatcherCut(watcher, false)),
        23 => both(Fault::WatcherCutFrom(watcher, host), Fault::WatcherReaches(watcher)),
        24 => many(world, at, until),
        26 | 27 => caught_moving(world, at, host, other),
        _ => {
            // It flaps.
            for blink in 0..6 {
                let (down, up) = (at + blink * 5000, at + blink * 5000 + 500 + world.rng.range(0, 4000));
                world.queue.add(down, Event::Fault(Fault::Management(host, false)));
                world.queue.add(down, Event::Fault(Fault::Storage(host, false)));
                world.queue.add(up, Event::Fault(Fault::Management(host, true)));
                world.queue.add(up, Event::Fault(Fault::Storage(host, true)));
            }
        }
    }
}

/// A host is cut off in the midst of a move, and its storage network is back first.
fn caught_moving(world: &mut World, at: Ms, host: usize, other: usize) {
    let (from, to) = if world.rng.percent(70) { (host, other) } else { (other, host) };
    let cut = at + world.rng.range(1, 400);
    let storage = cut + world.rng.range(3000, 20_000);
    let management = storage + world.rng.range(0, 15_000);
    for (at, fault) in [
        (at, Fault::Moves(from, to)),
        (cut, Fault::Management(host, false)),
        (cut, Fault::Storage(host, false)),
        (storage, Fault::Storage(host, true)),
        (management, Fault::Management(host, true)),
    ] {
        world.queue.add(at, Event::Fault(fault));
    }
}

/// Many hosts at once: their power, or a switch.
fn many(world: &mut World, at: Ms, until: Ms) {
    let kind = world.rng.range(0, 3);
    let share = world.rng.range(40, 101);
    for host in 0..world.hosts.len() {
        if !world.rng.percent(share) {
            continue;
        }
        let at = at + world.rng.range(0, 300);
        let until = until + world.rng.range(0, 3000);
        let (first, last) = match kind {
            0 => (Fault::PowerOff(host), Fault::PowerOn(host)),
            1 => (Fault::Management(host, false), Fault::Management(host, true)),
            _ => (Fault::Storage(host, false), Fault::Storage(host, true)),
        };
        world.queue.add(at, Event::Fault(first));
        world.queue.add(until, Event::Fault(last));
    }
}
