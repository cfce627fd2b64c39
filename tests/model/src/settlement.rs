//! Settling a claim that was found half-way, and what came of a move: `src/guest/settlement.rs` and `verdict.rs`.

use crate::launch::{own, send};
use crate::moves::Turn;
use crate::resolve;
use crate::start::UNASKED;
use crate::state::{At, Command, Does, H, Look, Phase, State};

/// The next step of a run that settles another run's claim.
pub fn steps(turn: &mut Turn) {
    match turn.run().at {
        At::FirstSource => first_look_at_source(turn),
        At::FirstTarget => first_look_at_target(turn),
        At::TakeOver => take_over(turn),
        At::RevokeHost => settle_start(turn),
        At::RevokeSource | At::RevokeTarget => revoke_sides(turn),
        _ => resolve::steps(turn),
    }
}

/// `Settlement::first_look`: the source first, for the target has the guest before the source loses it.
fn first_look_at_source(turn: &mut Turn) {
    let (me, Some(from)) = (turn.me, turn.run().claim.host) else { return };
    let look = turn.before.look(from);
    turn.go("looks at the source {}", from, |next| {
        let run = next.run_mut(me);
        (run.looks, run.at) = (UNASKED, At::FirstTarget);
        run.looks[from as usize] = look;
    });
}

/// What needs no waiting: a guest that has arrived, or is on its way.
fn first_look_at_target(turn: &mut Turn) {
    let (me, run) = (turn.me, *turn.run());
    let (Some(from), Some(to)) = (run.claim.host, run.claim.target) else { return };
    let (source, target) = (run.looks[from as usize], turn.before.look(to));
    if source.absent() && target.does().is_some_and(|does| does == Does::Runs || does.stands_by_itself()) {
        turn.go("it has moved to {}", to, |next| {
            let run = next.run_mut(me);
            (run.looks, run.found, run.at) = (UNASKED, Some(to), At::Write);
        });
    } else if matches!(source, Look::Seen { job: true, .. }) && target != Look::Silent {
        turn.rest("a job moves it to {}: leaves it", to);
    } else {
        turn.go("looks at the target {}", to, |next| {
            let run = next.run_mut(me);
            (run.looks, run.at) = (UNASKED, At::TakeOver);
        });
    }
}

/// `Settlement::outlast`: a claim that its writer cannot act on any more is taken over in place; `guest stop --force` does
/// not wait for that.
fn take_over(turn: &mut Turn) {
    let (me, run, first) = (turn.me, *turn.run(), turn.rules().take_over_first);
    let claim = run.claim;
    if turn.before.claim != claim {
        return changed(turn);
    }
    if run.command != Command::Stop && !turn.outlasted(claim) {
        return;
    }
    let at = match claim.phase {
        Phase::Moving => At::RevokeSource,
        _ if turn.rules().look_before_free || run.command == Command::Stop => At::RevokeHost,
        _ => At::Write,
    };
    let text = if first { "takes the claim over in place" } else { "has waited until the claim is too old" };
    turn.go(text, None, |next| {
        if first {
            own(next, me, claim.taken_over(me), at);
        }
        let run = next.run_mut(me);
        (run.host, run.target, run.at) = (claim.host, claim.target, at);
    });
}

/// `Settled::Changed`: a start or a stop looks again, a move ends.
fn changed(turn: &mut Turn) {
    let me = turn.me;
    match turn.run().command {
        Command::Start | Command::Stop if !turn.run().gives_back => {
            turn.go("the claim has changed: looks again", None, |next| next.run_mut(me).at = At::ReadClaim);
        }
        _ => turn.rest("the claim has changed", None),
    }
}

/// Revokes what was asked before with an older generation than the run's claim, and looks, in one step.
pub fn revoke(turn: &Turn, host: H) -> impl Fn(&mut State) + use<> {
    let (raise, generation) = (turn.rules().raise_floor, turn.run().claim.generation);
    move |next: &mut State| {
        if raise {
            next.host_mut(host).floor = next.host(host).floor.max(generation);
        }
    }
}

/// Whether a host would refuse to revoke: another run has raised its floor beyond the run's claim.
pub fn refuses(turn: &Turn, host: H) -> bool {
    turn.rules().raise_floor && turn.before.host(host).floor > turn.run().claim.generation
}

/// `Settlement::settle_start`.
fn settle_start(turn: &mut Turn) {
    let (me, run) = (turn.me, *turn.run());
    let Some(host) = run.claim.host else { return };
    let look = turn.before.look(host);
    if look == Look::Silent {
        return turn.rest("{} does not answer: refuses", host);
    }
    if refuses(turn, host) {
        return changed(turn);
    }
    let made = if run.gives_back { At::Idle } else { At::ReadAgain };
    let (text, found, at) = match look.does() {
        Some(Does::Nothing) => ("revokes on {} and sees that it has no copy", None, At::Write),
        Some(Does::Runs) => ("revokes on {} and sees it run", Some(host), At::Write),
        _ => ("revokes on {} and sees it made", None, made),
    };
    // A stop goes on with the claim that is its own now.
    let at = if run.command == Command::Stop { At::ReadClaim } else { at };
    let revoked = revoke(turn, host);
    turn.go(text, host, |next| {
        revoked(next);
        let run = next.run_mut(me);
        (run.looks, run.host, run.found, run.at) = (UNASKED, Some(host), found, at);
        run.looks[host as usize] = look;
    });
}

/// `Settlement::settle_move`: older requests are revoked on both sides before they are looked at.
fn revoke_sides(turn: &mut Turn) {
    let (me, run) = (turn.me, *turn.run());
    let (Some(from), Some(to)) = (run.claim.host, run.claim.target) else { return };
    let stop = run.command == Command::Stop;
    let (host, at) = match run.at {
        At::RevokeSource => (from, At::RevokeTarget),
        _ if stop => (to, At::ReadClaim),
        _ => (to, At::LookSource),
    };
    if !turn.before.answers(host) {
        return turn.rest("{} is silent, so that nothing can be revoked there: unknown", host);
    }
    if refuses(turn, host) {
        return changed(turn);
    }
    let revoked = revoke(turn, host);
    turn.go("revokes older requests on {}", host, |next| {
        revoked(next);
        let run = next.run_mut(me);
        (run.host, run.target, run.revoked, run.at) = (Some(from), Some(to), true, at);
    });
}

/// A request that clears up; the next look tells what came of it.
pub fn clear_up(turn: &mut Turn, text: &'static str, host: H, ask: crate::state::Ask) {
    let me = turn.me;
    turn.go_and(text, host, |next| next.run_mut(me).at = At::LookSource, |turn| send(turn, host, ask));
}
