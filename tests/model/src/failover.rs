//! `failover` of one guest: its host is fenced, and it is started elsewhere. A watcher does the same.

use crate::launch::own;
use crate::moves::Turn;
use crate::settlement::{refuses, revoke};
use crate::start::{self, UNASKED};
use crate::state::{Ask, At, Claim, Command, Does, H, Look, OSDS, Phase, State};

/// What a fenced host counts as: it has no copy.
const ABSENT: Look = Look::Seen { does: Does::Nothing, job: false, completed: false };

/// The next step of a run that fails a host over.
pub fn steps(turn: &mut Turn) {
    match turn.run().at {
        At::Idle => begin(turn),
        At::Fence => fence(turn),
        At::Barrier => barrier(turn),
        At::CloseIncoming => close_incoming(turn),
        At::LookFence => look_at_fences(turn),
        At::BreakLock => break_lock(turn),
        At::TakeMove => take_move(turn),
        At::RevokeLiving => revoke_living(turn),
        At::AwaitEnded => await_ended(turn),
        _ => {}
    }
}

/// A host that is silent is taken for dead, rightly or not; one that is fenced already can be failed over again.
fn begin(turn: &mut Turn) {
    let me = turn.me;
    if turn.setup.commands[me as usize].get(usize::from(turn.run().begun)) != Some(&Command::Failover) {
        return;
    }
    let first = if turn.rules().look_after_fence { At::Fence } else { At::ReadClaim };
    for host in turn.setup.hosts() {
        if turn.before.look(host) == Look::Silent || turn.before.host(host).range {
            turn.go("failover of {}: takes it for dead", host, |next| {
                let run = next.run_mut(me);
                run.begun += 1;
                (run.command, run.fenced, run.at) = (Command::Failover, Some(host), first);
            });
        }
    }
}

/// One proposal: the host's addresses, and every client that is known there.
fn fence(turn: &mut Turn) {
    let (me, rules, Some(host)) = (turn.me, *turn.rules(), turn.run().fenced) else { return };
    let text = if rules.fence_first { "the mons fence {}" } else { "does not fence {}" };
    turn.go(text, host, |next| {
        if rules.fence_first {
            let host = next.host_mut(host);
            (host.range, host.fences) = (true, (host.fences + 1) % 4);
            host.copy.listed |= rules.list_clients && host.copy.does.exists() && !host.copy.blocklisted;
        }
        next.run_mut(me).at = At::Barrier;
    });
}

fn barrier(turn: &mut Turn) {
    let (me, rules, Some(host)) = (turn.me, *turn.rules(), turn.run().fenced) else { return };
    let go_on = |next: &mut State| next.run_mut(me).at = At::CloseIncoming;
    if !rules.fence_first || !rules.barrier {
        turn.go("does not ask the OSDs", None, go_on);
    } else if !turn.before.host(host).range {
        turn.rest("the fence of {} was lifted", host);
    } else if turn.before.refused(host) {
        turn.go("all OSDs refuse {}", host, go_on);
    }
}

/// The other hosts take no migration from the fenced one any more, and cut one that is under way.
fn close_incoming(turn: &mut Turn) {
    let (me, Some(from)) = (turn.me, turn.run().fenced) else { return };
    let at = if turn.rules().look_after_fence { At::ReadClaim } else { At::LookFence };
    let go_on = |next: &mut State| next.run_mut(me).at = at;
    if !turn.rules().close_incoming {
        return turn.go("does not close the way out of {}", from, |next| {
            next.host_mut(from).proven = next.host(from).range;
            go_on(next);
        });
    }
    let before = turn.before;
    let unfenced = |host: &H| *host != from && !before.refused(*host);
    let silent = turn.setup.hosts().filter(unfenced).find(|host| !before.answers(*host));
    if silent.is_some() && turn.rules().close_everywhere {
        return turn.rest("{} cannot be asked to refuse a migration, and is not fenced", silent);
    }
    let close = |next: &mut State| {
        for host in H::ALL {
            next.host_mut(from).closed[host as usize] |= next.answers(host);
        }
        next.host_mut(from).proven = next.host(from).range;
        if let Some(to) = next.copy(from).job.filter(|to| next.answers(*to)) {
            next.copy_mut(from).job = None;
            if next.copy(to).does == Does::Incoming {
                next.end_copy(to);
            }
        }
        go_on(next);
    };
    turn.go("the other hosts refuse a migration from {}, and cut one under way", from, close);
    // The last word of the move was on its way to the target.
    let arrived = before.copy(from).job.filter(|to| before.answers(*to) && before.copy(*to).does == Does::Arrived);
    if let Some(to) = arrived {
        turn.go("the other hosts refuse migrations; the guest goes on on {} all the same", to, |next| {
            close(next);
            next.copy_mut(to).does = Does::Runs;
        });
    }
}

/// The fences are read after the claim was: a copy on a fenced host never counts, also when the host answers.
fn look_at_fences(turn: &mut Turn) {
    let (me, run, rules, before) = (turn.me, *turn.run(), *turn.rules(), turn.before);
    let fails_over = run.command == Command::Failover;
    let lifted = run.fenced.filter(|host| !before.fenced(*host) && rules.fence_first && rules.fence_again);
    if lifted.is_some() {
        return turn.rest("the fence of {} was lifted", lifted);
    }
    let counts = |host: &H| !before.fenced(*host) && run.fenced != Some(*host);
    let fenced: Vec<H> = turn.setup.hosts().filter(|host| !counts(host)).collect();
    let count = |next: &mut State| {
        if rules.fenced_never_counts || fails_over {
            fenced.iter().for_each(|host| next.run_mut(me).looks[*host as usize] = ABSENT);
        }
    };
    turn.go_and("reads which hosts are fenced", None, count, if fails_over { decide } else { start::decide });
}

/// The other side of a move that has lost one.
fn living(claim: Claim, fenced: Option<H>) -> Option<H> {
    if claim.host == fenced { claim.target } else { claim.host }
}

fn decide(turn: &mut Turn) {
    let (me, run) = (turn.me, *turn.run());
    let (claim, looks) = (run.claim, run.looks);
    let Some(dead) = run.fenced else { return };
    if !claim.names(dead) {
        return turn.rest("the claim does not name {}", dead);
    }
    let living = living(claim, run.fenced);
    let elsewhere = turn.setup.hosts().find(|host| Some(*host) != living && looks[*host as usize].exists());
    let at = |at: At| move |next: &mut State| next.run_mut(me).at = at;
    match living {
        _ if elsewhere.is_some() => turn.rest("it is on {}: leaves it", elsewhere),
        None => turn.go("nothing speaks against a start", None, at(At::DiskUsers)),
        Some(host) if claim.phase != Phase::Moving => turn.rest("it is on {}", host),
        Some(host) => match looks[host as usize] {
            Look::Seen { job: true, .. } => turn.rest("a job moves it from {}: leaves it", host),
            _ if turn.before.fenced(host) => turn.go("both sides are fenced", None, at(At::DiskUsers)),
            Look::Seen { .. } => turn.go("the move has lost a side", None, at(At::TakeMove)),
            _ => turn.rest("the other side {} is silent", host),
        },
    }
}

/// The claim is taken over in place, without waiting: what its writer has asked for is revoked, or fenced.
fn take_move(turn: &mut Turn) {
    let (me, claim) = (turn.me, turn.run().claim);
    if turn.before.claim != claim {
        return turn.go("the claim has changed: looks again", None, |next| next.run_mut(me).at = At::ReadClaim);
    }
    if turn.rules().revoke_living {
        turn.go("takes the claim over in place", None, |next| own(next, me, claim.taken_over(me), At::RevokeLiving));
    } else {
        let at = |next: &mut State| next.run_mut(me).at = At::RevokeLiving;
        turn.go_and("does not take the claim over", None, at, revoke_living);
    }
}

/// R10: older requests are revoked on the side that lives; what its copy does decides.
fn revoke_living(turn: &mut Turn) {
    let (me, run, rules) = (turn.me, *turn.run(), *turn.rules());
    let Some(host) = living(run.claim, run.fenced) else { return };
    let look = if rules.revoke_living { turn.before.look(host) } else { run.looks[host as usize] };
    let Look::Seen { does, job, completed } = look else {
        return turn.rest("the other side {} is silent", host);
    };
    if rules.revoke_living && refuses(turn, host) {
        return turn.go("the claim has changed: looks again", None, |next| next.run_mut(me).at = At::ReadClaim);
    }
    let revoked = revoke(turn, host);
    let seen = |next: &mut State| {
        if rules.revoke_living {
            revoked(next);
        }
        if let Some(dead) = run.fenced.filter(|_| rules.close_at_look) {
            next.host_mut(dead).closed[host as usize] = true;
        }
        next.run_mut(me).looks[host as usize] = look;
    };
    let source = run.claim.host == Some(host);
    turn.go_and("looks at the living side {}", host, seen, |turn| match does {
        _ if job => turn.rest("a job moves it from {}: leaves it", host),
        Does::Nothing => turn.go("it has no copy", None, |next| next.run_mut(me).at = At::DiskUsers),
        Does::Runs if !(source && completed && rules.end_revived) => turn.go("it runs there", None, |next| {
            let run = next.run_mut(me);
            (run.looks, run.found, run.at) = (UNASKED, Some(host), At::Write);
        }),
        Does::HandedOver if !rules.end_handed_over => ask(turn, host, Ask::Resume),
        Does::Incoming | Does::Arrived if !rules.end_incoming => ask(turn, host, Ask::Resume),
        _ => ask(turn, host, Ask::Clear),
    });
}

fn ask(turn: &mut Turn, host: H, ask: Ask) {
    let me = turn.me;
    let sent = |next: &mut State| match ask {
        Ask::Resume => next.rest(me),
        _ => next.run_mut(me).at = At::AwaitEnded,
    };
    let request = crate::state::Request { to: host, generation: turn.run().claim.generation, ask, from: me };
    if turn.before.clone().send(request) {
        turn.go("asks {} about its copy", host, |next| {
            next.send(request);
            sent(next);
        });
    }
}

fn await_ended(turn: &mut Turn) {
    let (me, run) = (turn.me, *turn.run());
    let Some(host) = living(run.claim, run.fenced) else { return };
    let look = turn.before.look(host);
    if look.absent() {
        turn.go("sees it gone from {}", host, |next| {
            let run = next.run_mut(me);
            (run.looks[host as usize], run.at) = (look, At::DiskUsers);
        });
    } else {
        turn.rest("it does not go from {}: gives up", host);
    }
}

/// R9: the lock is broken by its client and cookie, and that client is blocklisted; its host is fenced.
fn break_lock(turn: &mut Turn) {
    let (me, run, rules) = (turn.me, *turn.run(), *turn.rules());
    let foreign = run.locker.filter(|host| !turn.before.host(*host).range && rules.exact_locker);
    if foreign.is_some() {
        return turn.rest("the lock is held on {}, which is not fenced: refuses", foreign);
    }
    let now = turn.setup.hosts().find(|host| turn.before.copy(*host).lock);
    let broken = if rules.exact_locker { now.filter(|host| run.locker == Some(*host)) } else { now };
    turn.go("breaks the lock of {}", broken, |next| {
        if let Some(host) = broken {
            next.shut_out = next.is_wanted(host);
            // Its entry is in the map that fences the host, or in a later one.
            let known = next.host(host).osds == if next.host(host).range { OSDS } else { 0 };
            let copy = next.copy_mut(host);
            copy.lock = false;
            (copy.blocklisted, copy.listed) = (copy.blocklisted || known, copy.listed || !known);
        }
        let run = next.run_mut(me);
        (run.locker, run.at) = (None, At::TakeClaim);
    });
}
