//! What came of a move whose claim is the run's own: `Settlement::resolve`, `act`, `gone` and `write`.

use crate::launch::{own, send};
use crate::moves::Turn;
use crate::settlement::{clear_up, refuses, revoke};
use crate::start::UNASKED;
use crate::state::{Ask, At, Claim, Command, Does, H, Leftover, Look, Phase, State};

/// The next step of a run that finds out what came of a move.
pub fn steps(turn: &mut Turn) {
    match turn.run().at {
        At::LookSource => look_at_source(turn),
        At::LookTarget => look_at_target(turn),
        At::TakeOwn => take_own(turn),
        At::RevokeDoubt => revoke_doubt(turn),
        At::Act => act(turn),
        At::Elsewhere => elsewhere(turn),
        At::Write => write(turn),
        _ => {}
    }
}

/// Both sides of the move.
pub fn sides(turn: &Turn) -> Option<(H, H)> {
    turn.run().host.zip(turn.run().target)
}

/// `Sides::look`: the source first.
fn look_at_source(turn: &mut Turn) {
    let (me, Some((from, _))) = (turn.me, sides(turn)) else { return };
    let look = turn.before.look(from);
    turn.go("looks at the source {}", from, |next| {
        let run = next.run_mut(me);
        (run.looks, run.at) = (UNASKED, At::LookTarget);
        run.looks[from as usize] = look;
    });
}

fn look_at_target(turn: &mut Turn) {
    let (me, Some((_, to))) = (turn.me, sides(turn)) else { return };
    let look = turn.before.look(to);
    let ask = |next: &mut State| next.run_mut(me).looks[to as usize] = look;
    turn.go_and("looks at the target {}", to, ask, settle);
}

/// `verdict::judge`, and what `resolve` does about it.
fn settle(turn: &mut Turn) {
    let (me, run, Some((from, to))) = (turn.me, *turn.run(), sides(turn)) else { return };
    let (Look::Seen { does: here, job, completed }, Look::Seen { does: there, .. }) =
        (run.looks[from as usize], run.looks[to as usize])
    else {
        return turn.rest("a side is silent: unknown", None);
    };
    if job {
        look_again(turn, "a job moves it: looks again", None);
        return turn.rest("a job moves it: leaves it", None);
    }
    let own = |does: Does| does == Does::Runs || does.stands_by_itself();
    match (here, there) {
        (Does::Nothing, Does::Nothing) => believe(turn, None, "neither side has it"),
        (Does::Nothing, there) if own(there) => found(turn, Some(to), "it has moved to {}"),
        (Does::Nothing, Does::Arrived) if turn.rules().move_paused => {
            clear_up(turn, "the source is gone: lets the target go on", to, Ask::Resume);
        }
        (Does::Nothing, _) => turn.rest("a copy arrives and has no source: unknown", None),
        (here, Does::Nothing) if own(here) => believe(turn, Some(from), "it has stayed on {}"),
        (_, Does::Nothing) if completed => turn.rest("the source has handed over: unknown", None),
        (_, Does::Nothing) => left_over(turn, Leftover::ResumeSource, from),
        (Does::Runs, Does::Runs) => {
            turn.go_and(
                "it runs twice",
                None,
                |next| next.run_mut(me).at = At::Idle,
                |turn| {
                    send(turn, from, Ask::Suspend);
                },
            );
        }
        (Does::Runs, there) if there.stands_by_itself() => turn.rest("both have it: unknown", None),
        (Does::Runs, _) => left_over(turn, Leftover::EndTarget, to),
        (here, Does::Runs) if here.stands_by_itself() => turn.rest("both have it: unknown", None),
        (_, Does::Runs) => left_over(turn, Leftover::EndSource, from),
        _ => turn.rest("both stand still: unknown", None),
    }
}

fn look_again(turn: &mut Turn, text: &'static str, leftover: Option<Leftover>) {
    let me = turn.me;
    turn.go(text, None, |next| {
        let run = next.run_mut(me);
        (run.leftover, run.looks, run.at) = (leftover, UNASKED, At::LookSource);
    });
}

/// What libvirt left behind is cleared up when it lasts: the same is seen twice, one look after the other.
fn left_over(turn: &mut Turn, leftover: Leftover, host: H) {
    let me = turn.me;
    if turn.run().leftover == Some(leftover) {
        turn.go("the left-over on {} lasts", host, |next| next.run_mut(me).at = At::Act);
    } else {
        look_again(turn, "sees a left-over: waits whether libvirt clears it up", Some(leftover));
    }
}

/// `Settlement::act`: the claim is read, which must be the run's own, then the left-over is dealt with.
fn act(turn: &mut Turn) {
    let (run, Some((from, to))) = (*turn.run(), sides(turn)) else { return };
    if turn.before.claim != run.claim && turn.rules().exact_write_down {
        return turn.rest("the claim is of another run by now", None);
    }
    match run.leftover {
        Some(Leftover::EndTarget) => clear_up(turn, "the claim is its own: ends the target's copy", to, Ask::Clear),
        Some(Leftover::EndSource) => clear_up(turn, "the claim is its own: ends the source's copy", from, Ask::Clear),
        Some(Leftover::ResumeSource) => {
            clear_up(turn, "the claim is its own: the only copy goes on", from, Ask::Resume)
        }
        None => {}
    }
}

/// R3: *stayed* and *gone* are believed once nothing can come after them.
fn believe(turn: &mut Turn, host: Option<H>, text: &'static str) {
    let (me, run) = (turn.me, *turn.run());
    if turn.rules().revoke_first && !run.revoked {
        return turn.go("the request may still be on its way", None, |next| next.run_mut(me).at = At::TakeOwn);
    }
    if host.is_none() && turn.setup.hosts > 2 {
        return turn.go(text, host, |next| next.run_mut(me).at = At::Elsewhere);
    }
    found(turn, host, text);
}

/// The run's own claim is swapped for itself, one generation on, so that no floor is ever above a claim.
fn take_own(turn: &mut Turn) {
    let (me, claim) = (turn.me, turn.run().claim);
    if turn.before.claim != claim {
        return turn.rest("the claim is of another run by now", None);
    }
    turn.go("takes its own claim over", None, |next| own(next, me, claim.taken_over(me), At::RevokeDoubt));
}

fn revoke_doubt(turn: &mut Turn) {
    let (me, Some((from, _))) = (turn.me, sides(turn)) else { return };
    if !turn.before.answers(from) {
        return turn.rest("{} is silent, so that nothing can be revoked there: unknown", from);
    }
    if refuses(turn, from) {
        return turn.rest("the claim is of another run by now", None);
    }
    let revoked = revoke(turn, from);
    turn.go("revokes its request on {}", from, |next| {
        revoked(next);
        let run = next.run_mut(me);
        (run.revoked, run.looks, run.at) = (true, UNASKED, At::LookSource);
    });
}

fn found(turn: &mut Turn, host: Option<H>, text: &'static str) {
    let me = turn.me;
    turn.go(text, host, |next| {
        let run = next.run_mut(me);
        (run.looks, run.found, run.at) = (UNASKED, host, At::Write);
    });
}

/// `Sides::elsewhere`: it ended only if no third host has it.
fn elsewhere(turn: &mut Turn) {
    let Some((from, to)) = sides(turn) else { return };
    let before = turn.before;
    let mut others = turn.setup.hosts().filter(|host| *host != from && *host != to);
    match others.clone().find(|host| before.look(*host).exists()) {
        Some(host) => found(turn, Some(host), "another run has brought it to {}"),
        None if others.all(|host| before.look(host).absent()) => found(turn, None, "no host has it"),
        None => turn.rest("a third host is silent: unknown", None),
    }
}

/// `Settlement::write`: over exactly the claim that was followed.
fn write(turn: &mut Turn) {
    let (me, run) = (turn.me, *turn.run());
    let seen = turn.before.claim;
    let theirs = if turn.rules().exact_write_down { seen != run.claim } else { is_anothers(turn, seen) };
    let again = matches!(run.command, Command::Start | Command::Stop) && !run.gives_back;
    let done = |next: &mut State| if again { next.run_mut(me).at = At::ReadClaim } else { next.rest(me) };
    if theirs {
        return turn.go("the claim is of another run by now", None, done);
    }
    let mine = run.found.map_or(seen.freed(), |host| turn.running(seen, host));
    let text = if run.found.is_some() { "writes down that it runs on {}" } else { "writes down that it runs nowhere" };
    turn.go(text, run.found, |next| {
        next.claim = mine;
        done(next);
    });
}

/// What was compared before R4: whether the claim names a third host, or a start or another move is under way.
fn is_anothers(turn: &Turn, seen: Claim) -> bool {
    let (run, same) = (turn.run(), seen == turn.run().claim);
    let beyond = |place: Option<H>| place.is_some() && place != run.host && place != run.target;
    let anew = matches!(seen.phase, Phase::Starting | Phase::Moving) && !same;
    let right = run.found.is_some() && seen.phase == Phase::Running && seen.host == run.found;
    anew || beyond(seen.host) || beyond(seen.target) || run.found.is_none() && !same || right
}
