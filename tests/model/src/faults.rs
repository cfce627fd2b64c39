//! Networks, power and storage: what breaks, what comes back, and what Ceph makes of it.

use crate::moves::{Turn, World};
use crate::state::{At, Does, H, OSDS, State};

/// All that can break or come back, and what the storage does meanwhile.
pub fn steps(world: &mut World) {
    for host in world.setup.hosts() {
        writes(world, host);
        maps(world, host);
        storage(world, host);
        cuts(world, host);
        power(world, host);
        returns(world, host);
    }
}

/// The copy writes: librbd takes the lock of the image over from a client that lets go of it; one that Ceph lists no
/// more has its lock broken and is blocklisted. Every other copy's memory is older than the disk from then on.
fn writes(world: &mut World, host: H) {
    let before = world.before;
    let copy = before.copy(host);
    if copy.does != Does::Runs || !before.can_write(host) {
        return;
    }
    let others = || world.setup.hosts().filter(move |other| *other != host);
    let remembers = |other: &H| !matches!(before.copy(*other).does, Does::Nothing | Does::Fresh);
    let news = others().any(|other| remembers(&other) && !before.copy(other).stale);
    let held = others().any(|other| {
        let (copy, cut) = (before.copy(other), !before.has_storage(other));
        copy.lock && copy.watch && cut && !before.host(other).range
    });
    if held || !news && copy.lock {
        return;
    }
    let all: Vec<H> = others().collect();
    world.go("the copy on {} writes to the disk", host, |next| {
        for other in all {
            let (remembers, range) = (remembers(&other), next.host(other).range);
            let copy = next.copy_mut(other);
            copy.blocklisted |= copy.lock && (!copy.watch || range);
            copy.lock = false;
            copy.stale |= remembers;
        }
        next.copy_mut(host).lock = true;
    });
}

/// A watch runs out after 30 s without storage; a copy that is refused by the OSDs stops.
fn storage(world: &mut World, host: H) {
    let copy = *world.before.copy(host);
    let refused = world.before.refused(host);
    if copy.watch && (!world.before.has_storage(host) || refused) {
        world.go("the watch of {} on the image runs out", host, |next| next.copy_mut(host).watch = false);
    }
    if copy.does == Does::Runs && (copy.blocklisted || refused) && world.before.has_storage(host) {
        world.go("the copy on {} stops: the storage refuses it", host, |next| {
            (next.copy_mut(host).does, next.copy_mut(host).watch) = (Does::IoError, false);
        });
    }
}

/// The OSDs take the map of the mons one after the other.
fn maps(world: &mut World, host: H) {
    let here = *world.before.host(host);
    let wanted = if here.range { OSDS } else { 0 };
    if here.osds != wanted {
        world.go("an OSD takes the map about {}", host, |next| {
            let host = next.host_mut(host);
            if host.range {
                host.osds += 1
            } else {
                host.osds -= 1
            }
            if host.osds == wanted {
                host.copy.blocklisted |= host.copy.listed;
                host.copy.listed = false;
            }
        });
    }
}

fn cuts(world: &mut World, host: H) {
    let (may, here) = (world.setup.faults, *world.before.host(host));
    let (management, storage) = (here.up && here.management, here.up && here.storage);
    world.fault(may.management && management, "{} is cut off the management network", host, |next| {
        next.host_mut(host).management = false;
    });
    world.fault(may.storage && storage, "{} is cut off the storage network", host, |next| {
        next.host_mut(host).storage = false;
    });
    world.fault(may.both && management && storage, "{} is cut off both networks", host, |next| {
        (next.host_mut(host).management, next.host_mut(host).storage) = (false, false);
    });
}

/// A host loses power, with its copy and the requests that wait on it; its floor stays, being in `/var/lib` and synced.
/// The other side of a move may be cleared, left behind, or let go on.
fn power(world: &mut World, host: H) {
    let may = world.setup.faults.power;
    if !may || !world.before.host(host).up {
        return;
    }
    let before = world.before;
    let forgets = !world.setup.rules.close_lastingly;
    let dies = |next: &mut State| {
        for other in &mut next.hosts {
            other.closed[host as usize] &= !forgets;
        }
        next.end_copy(host);
        next.host_mut(host).up = false;
        next.drop_requests(host);
    };
    world.fault(may, "{} loses power", host, dies);
    for source in world.setup.hosts().filter(|other| before.copy(*other).job == Some(host)) {
        let (here, there) = (before.copy(source).does, before.copy(host).does);
        let stands = here == Does::HandedOver;
        world.fault(
            stands && there == Does::Arrived,
            "{} loses power before it ran: the source goes on",
            host,
            |next| {
                dies(next);
                next.copy_mut(source).does = Does::Runs;
            },
        );
        let revival = world.setup.faults.revival && stands && there == Does::Runs;
        world.fault(revival, "{} loses power before its last word: the source is revived", host, |next| {
            dies(next);
            next.copy_mut(source).does = Does::Runs;
        });
    }
    if let Some(target) = before.copy(host).job {
        let arrives = matches!(before.copy(target).does, Does::Incoming | Does::Arrived);
        world.fault(arrives, "{} loses power: the copy that arrives is cleared", host, |next| {
            dies(next);
            next.end_copy(target);
        });
        let goes_on = before.copy(target).does == Does::Arrived && !world.setup.rules.move_paused;
        world.fault(goes_on, "{} loses power just after the switch", host, |next| {
            dies(next);
            next.copy_mut(target).does = Does::Runs;
        });
    }
}

/// What comes back by itself.
fn returns(world: &mut World, host: H) {
    let here = *world.before.host(host);
    if !here.up {
        return world.go("{} is back after a reboot", host, |next| {
            let host = next.host_mut(host);
            (host.up, host.management, host.storage) = (true, true, true);
        });
    }
    if !here.management {
        world.go("the management network of {} is back", host, |next| next.host_mut(host).management = true);
    }
    if !here.storage {
        let refused = world.before.refused(host);
        world.go("the storage network of {} is back", host, |next| {
            next.host_mut(host).storage = true;
            let copy = next.copy_mut(host);
            copy.watch = copy.does.exists() && !copy.blocklisted && !refused;
        });
    }
}

/// The process of a run dies: what it has sent is on its way all the same.
pub fn crash(turn: &mut Turn) {
    let (me, run) = (turn.me, turn.run());
    if turn.setup.faults.crash && turn.before.faults > 0 && run.at != At::Idle && !run.dead {
        turn.go("its process dies", None, |next| {
            next.faults -= 1;
            next.rest(me);
            next.run_mut(me).dead = true;
        });
    }
}
