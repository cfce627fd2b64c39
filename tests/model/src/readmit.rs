//! `readmit`: a fenced host is let in again once no old copy can come to life on it.

use crate::launch::send;
use crate::moves::Turn;
use crate::settlement::refuses;
use crate::state::{Ask, At, Command, H, State};

/// The next step of a run that lets a host in.
pub fn steps(turn: &mut Turn) {
    match turn.run().at {
        At::Idle => begin(turn),
        At::ReadmitClaim => read_claim(turn),
        At::ReadmitLook => look(turn),
        At::AwaitCleared => await_cleared(turn),
        At::Lift => lift(turn),
        _ => {}
    }
}

/// Which fence it is comes first: it is the one that will be lifted.
fn begin(turn: &mut Turn) {
    let me = turn.me;
    if turn.setup.commands[me as usize].get(usize::from(turn.run().begun)) != Some(&Command::Readmit) {
        return;
    }
    for host in turn.setup.hosts() {
        let here = *turn.before.host(host);
        if here.range && turn.before.answers(host) {
            turn.go("readmit of {}: reads its fence", host, |next| {
                let run = next.run_mut(me);
                run.begun += 1;
                (run.command, run.fenced, run.fence, run.at) =
                    (Command::Readmit, Some(host), here.fences, At::ReadmitClaim);
            });
        }
    }
}

fn read_claim(turn: &mut Turn) {
    let (me, claim, Some(host)) = (turn.me, turn.before.claim, turn.run().fenced) else { return };
    if turn.rules().readmit_reads_claim && claim.names(host) {
        return turn.rest("the claim names {}: refuses", host);
    }
    turn.go("reads the claim", None, |next| {
        let run = next.run_mut(me);
        (run.claim, run.at) = (claim, At::ReadmitLook);
    });
}

/// The floor is raised and the host is looked at in one step; an old copy ends.
fn look(turn: &mut Turn) {
    let (me, run, rules, Some(host)) = (turn.me, *turn.run(), *turn.rules(), turn.run().fenced) else { return };
    if !turn.before.answers(host) {
        return turn.rest("{} is silent", host);
    }
    if rules.readmit_raises_floor && refuses(turn, host) {
        return turn.go("the claim has changed: reads it again", None, |next| next.run_mut(me).at = At::ReadmitClaim);
    }
    let raise = |next: &mut State| {
        if rules.readmit_raises_floor {
            let here = next.host_mut(host);
            here.floor = here.floor.max(run.claim.generation);
        }
    };
    let there = rules.readmit_ends_copies && turn.before.copy(host).does.exists();
    let at = if there { At::AwaitCleared } else { At::Lift };
    let go_on = |next: &mut State| {
        raise(next);
        next.run_mut(me).at = at;
    };
    if there {
        turn.go_and("sees an old copy on {}", host, go_on, |turn| send(turn, host, Ask::Clear));
    } else {
        turn.go("looks at {}", host, go_on);
    }
}

fn await_cleared(turn: &mut Turn) {
    let (me, Some(host)) = (turn.me, turn.run().fenced) else { return };
    if turn.before.look(host).absent() {
        turn.go("sees the old copy gone from {}", host, |next| next.run_mut(me).at = At::Lift);
    } else {
        turn.rest("it does not go from {}: gives up", host);
    }
}

/// A lift that is late would hit a second fence: it is sent only while the fence is the one that was looked at, and the
/// mon's host ends it after a bounded time.
fn lift(turn: &mut Turn) {
    let (me, run, rules, Some(host)) = (turn.me, *turn.run(), *turn.rules(), turn.run().fenced) else { return };
    let entries = move |next: &mut State, host: H| {
        if !rules.entries_stay {
            let copy = next.copy_mut(host);
            (copy.blocklisted, copy.listed) = (false, false);
        }
    };
    if !rules.lift_bounded {
        let rests = |next: &mut State| {
            entries(next, host);
            next.rest(me);
        };
        return turn.go_and("is done", None, rests, |turn| send(turn, host, Ask::Lift));
    }
    if turn.before.host(host).fences != run.fence {
        return turn.rest("{} was fenced again", host);
    }
    turn.go("lifts the fence of {}", host, |next| {
        entries(next, host);
        next.host_mut(host).range = false;
        next.host_mut(host).proven = false;
        next.host_mut(host).closed = [false; crate::state::HOSTS];
        next.rest(me);
    });
}
