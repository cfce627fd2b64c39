//! `guest stop --force`: `src/guest/stop.rs`.

use crate::launch::{own, send};
use crate::moves::Turn;
use crate::state::{Ask, At, Command, Look, Phase, State};

/// The next step of a run that stops the guest.
pub fn steps(turn: &mut Turn) {
    match turn.run().at {
        At::AwaitGone => await_gone(turn),
        At::Free => free(turn),
        _ => {}
    }
}

/// `stop_one`: a pending claim is taken over first, then the copy is ended, of a guest on its way the source's first.
pub fn decide(turn: &mut Turn) {
    let (me, run) = (turn.me, *turn.run());
    let (claim, looks) = (run.claim, run.looks);
    let seen = |host: &_| looks[*host as usize].exists();
    let source = turn.setup.hosts().find(|host| claim.host == Some(*host) && seen(host));
    let place = source.or_else(|| turn.setup.hosts().find(seen));
    let silent = turn.setup.hosts().find(|host| claim.names(*host) && looks[*host as usize] == Look::Silent);
    if claim.pending() && claim.run != Some(me) && turn.rules().take_over_first {
        turn.go("it is starting or moving", None, |next| next.run_mut(me).at = At::TakeOver);
    } else if place.is_some() {
        let work = |next: &mut State| {
            let run = next.run_mut(me);
            (run.host, run.at) = (place, At::AwaitGone);
        };
        turn.go_and("it is on {}", place, work, |turn| {
            if let Some(host) = place {
                send(turn, host, Ask::Destroy);
            }
        });
    } else if silent.is_some() {
        turn.rest("it may run on {}, which is silent: refuses", silent);
    } else if claim.phase == Phase::Free {
        turn.rest("it is down", None);
    } else {
        turn.go("it is nowhere", None, |next| next.run_mut(me).at = At::Free);
    }
}

/// `end`: waits until the copy is gone, and frees the claim where it was nowhere else.
fn await_gone(turn: &mut Turn) {
    let (me, run) = (turn.me, *turn.run());
    let Some(host) = run.host else { return };
    if !turn.before.look(host).absent() {
        return turn.rest("it does not go from {}: gives up", host);
    }
    let claim = run.claim;
    let places = run.looks.iter().filter(|look| look.exists()).count();
    let answered = turn.setup.hosts().all(|host| !claim.names(host) || run.looks[host as usize] != Look::Silent);
    let here = claim.phase == Phase::Running && claim.host == Some(host) && places == 1 && answered;
    turn.go("sees it gone from {}", host, |next| {
        next.run_mut(me).at = if here { At::Free } else { At::ReadClaim };
    });
}

/// The claim that was read before the hosts were asked is freed.
fn free(turn: &mut Turn) {
    let (me, run) = (turn.me, *turn.run());
    debug_assert_eq!(run.command, Command::Stop, "only a stop frees what it has seen nowhere");
    if turn.before.claim != run.claim {
        return turn.go("the claim has changed: looks again", None, |next| next.run_mut(me).at = At::ReadClaim);
    }
    turn.go("frees the claim", None, |next| {
        own(next, me, run.claim.freed(), At::Idle);
        next.rest(me);
    });
}
