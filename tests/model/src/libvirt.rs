//! What libvirt and QEMU do on the hosts: requests arrive, and moves go on or break.

use crate::moves::World;
use crate::state::{Ask, Does, H, REQUESTS, Request, State};

/// All that can happen next on the hosts.
pub fn steps(world: &mut World) {
    for slot in 0..REQUESTS {
        if let Some(request) = world.before.requests[slot] {
            arrives(world, slot, request);
        }
    }
    for source in world.setup.hosts() {
        if let Some(target) = world.before.copy(source).job {
            migration(world, source, target);
            breaks(world, source, target);
        }
    }
}

/// A request is carried out, or refused: the host compares its generation with the floor, and raises the floor, in the
/// same step as it acts (`guest::guard`).
fn arrives(world: &mut World, slot: usize, request: Request) {
    let Request { to, generation, ask, .. } = request;
    if ask == Ask::Lift {
        return world.go("the late request to lift the fence of {} reaches the mons", to, |next| {
            next.receive(slot);
            (next.host_mut(to).range, next.host_mut(to).proven) = (false, false);
        });
    }
    if !world.before.host(to).up {
        return;
    }
    let rules = &world.setup.rules;
    let guarded = match ask {
        Ask::Create => rules.guard_create,
        Ask::Resume => rules.guard_resume,
        Ask::Migrate(_) => rules.guard_migrate,
        Ask::Destroy | Ask::Clear | Ask::Suspend | Ask::Lift => rules.guard_end,
    };
    if guarded && generation < world.before.host(to).floor {
        return world.go("{} refuses a request of an older generation", to, |next| next.receive(slot));
    }
    let paused = rules.create_paused;
    let text = match ask {
        Ask::Create => "the request to create is carried out on {}",
        Ask::Resume => "the request to resume is carried out on {}",
        Ask::Migrate(_) => "the request to migrate is taken up by {}",
        Ask::Destroy | Ask::Clear => "the request to end the copy is carried out on {}",
        Ask::Suspend | Ask::Lift => "the request to suspend is carried out on {}",
    };
    world.go(text, to, |next| {
        next.receive(slot);
        if guarded {
            next.host_mut(to).floor = generation;
        }
        match ask {
            Ask::Create => create(next, to, paused),
            Ask::Resume => resume(next, to),
            Ask::Migrate(target) => migrate(next, to, target),
            Ask::Destroy => destroy(next, to),
            Ask::Clear => {
                next.cleared = next.is_wanted(to);
                destroy(next, to);
            }
            Ask::Suspend if next.copy(to).does == Does::Runs => next.copy_mut(to).does = Does::Suspended,
            Ask::Suspend | Ask::Lift => {}
        }
    });
}

fn create(next: &mut State, host: H, paused: bool) {
    if !next.copy(host).does.exists() && next.can_open(host) {
        let does = if paused { Does::Fresh } else { Does::Runs };
        next.new_copy(host, does);
    }
}

/// QEMU lets any copy go on that stands still and has no job, also one whose memory is incomplete.
fn resume(next: &mut State, host: H) {
    let arriving = next.hosts.iter().any(|other| other.copy.job == Some(host));
    let copy = next.copy_mut(host);
    if copy.job.is_some() || arriving || !copy.does.exists() {
        return;
    }
    copy.stale |= copy.does == Does::Incoming;
    copy.does = Does::Runs;
}

fn migrate(next: &mut State, source: H, target: H) {
    let (here, there) = (*next.copy(source), *next.copy(target));
    let takes = !there.does.exists() && next.can_open(target) && !next.host(source).closed[target as usize];
    if here.does == Does::Runs && here.job.is_none() && takes {
        (next.copy_mut(source).job, next.copy_mut(source).completed) = (Some(target), false);
        next.new_copy(target, Does::Incoming);
    }
}

fn destroy(next: &mut State, host: H) {
    // The daemon that loses its source clears the copy that was arriving.
    if let Some(target) = next.copy(host).job
        && next.copy(target).does == Does::Incoming
    {
        next.end_copy(target);
    }
    next.end_copy(host);
}

/// A move that goes well: all memory is sent, the source stands still, the target goes on, the source's copy is ended.
fn migration(world: &mut World, source: H, target: H) {
    match (world.before.copy(source).does, world.before.copy(target).does) {
        (Does::Runs, Does::Incoming) => world.go("{} has sent all memory and stands still", source, |next| {
            let stale = next.copy(source).stale;
            let here = next.copy_mut(source);
            (here.does, here.completed) = (Does::HandedOver, true);
            let there = next.copy_mut(target);
            (there.does, there.stale) = (Does::Arrived, stale);
        }),
        (Does::HandedOver, Does::Arrived) if world.setup.rules.move_paused => {
            world.go("libvirt ends the source's copy on {}, the target stands still", source, |next| {
                next.end_copy(source)
            });
        }
        (Does::HandedOver, Does::Arrived) => {
            world.go("the guest goes on on {}", target, |next| next.copy_mut(target).does = Does::Runs);
        }
        (Does::HandedOver, Does::Runs) => {
            world.go("libvirt ends the source's copy on {}", source, |next| next.end_copy(source));
        }
        (_, Does::Nothing) => {
            world.go("the move's job ends with an error on {}", source, |next| next.copy_mut(source).job = None);
        }
        _ => {}
    }
}

/// The link between the daemons breaks: what libvirt makes of it depends on how far the move was.
fn breaks(world: &mut World, source: H, target: H) {
    let may = world.setup.faults.link;
    let revival = may && world.setup.faults.revival;
    let alone = |next: &mut State| next.copy_mut(source).job = None;
    match (world.before.copy(source).does, world.before.copy(target).does) {
        (Does::Runs, Does::Incoming) => {
            world.fault(may, "the link breaks: the copy on {} is cleared", target, |next| next.end_copy(target));
            world.fault(may, "the link breaks: the copy on {} is left behind", target, alone);
        }
        (Does::HandedOver, Does::Arrived) => {
            world.fault(may, "the link breaks after the switch from {}: both copies stand still", source, alone);
            world.fault(may, "the link breaks after the switch: the copy on {} is cleared", target, |next| {
                next.end_copy(target);
            });
            world.fault(may, "the link breaks: the target never ran, {} goes on", source, |next| {
                next.end_copy(target);
                next.copy_mut(source).does = Does::Runs;
            });
            let paused = world.setup.rules.move_paused;
            world.fault(may && !paused, "the link breaks after the switch: the guest goes on on {}", target, |next| {
                alone(next);
                next.copy_mut(target).does = Does::Runs;
            });
            world.fault(revival, "the last handshake is lost: the target has it and {} is revived", source, |next| {
                alone(next);
                next.copy_mut(source).does = Does::Runs;
                if !paused {
                    next.copy_mut(target).does = Does::Runs;
                }
            });
        }
        (Does::HandedOver, Does::Runs) => {
            world.fault(may, "the link breaks: the target runs, {} is left standing", source, alone);
            world.fault(revival, "the last handshake is lost: the target runs and {} is revived", source, |next| {
                alone(next);
                next.copy_mut(source).does = Does::Runs;
            });
        }
        _ => world.fault(may, "the link breaks: the move's job ends with an error on {}", source, alone),
    }
}
