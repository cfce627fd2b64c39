//! `migrate`: `src/movement/transfer.rs`, and `gather.rs` for a move that was left half-done.

use crate::launch::{own, send};
use crate::moves::Turn;
use crate::resolve::sides;
use crate::settlement::{refuses, revoke};
use crate::state::{Ask, At, Command, Does, Phase, State};

/// The next step of a run that moves the guest.
pub fn steps(turn: &mut Turn) {
    match turn.run().at {
        At::Idle => begin(turn),
        At::MayBegin => may_begin(turn),
        At::CheckHosts => check_hosts(turn),
        At::ClaimMove => claim_move(turn),
        At::RaiseTarget => raise_target(turn),
        At::SendMigrate => send_migrate(turn),
        _ => {}
    }
}

/// The operator asks for a move, or for one that was left half-done (`finish_moves`).
fn begin(turn: &mut Turn) {
    let (me, before) = (turn.me, turn.before);
    match turn.setup.commands[me as usize].get(usize::from(turn.run().begun)) {
        Some(Command::Move) => {
            for (from, to) in turn.setup.hosts().flat_map(|from| turn.setup.hosts().map(move |to| (from, to))) {
                if from != to && before.look(from).does() == Some(Does::Runs) {
                    turn.go("migrate: sees it run, and plans its move to {}", to, |next| {
                        let run = next.run_mut(me);
                        run.begun += 1;
                        (run.command, run.at, run.host, run.target) =
                            (Command::Move, At::MayBegin, Some(from), Some(to));
                    });
                }
            }
        }
        Some(Command::Finish) if before.claim.pending() => {
            let at = if before.claim.phase == Phase::Moving { At::FirstSource } else { At::TakeOver };
            turn.go("migrate: finds a claim that is half-way, and settles it", None, |next| {
                let claim = next.claim;
                let run = next.run_mut(me);
                run.begun += 1;
                (run.command, run.at, run.claim) = (Command::Finish, at, claim);
                (run.host, run.target) = (claim.host, claim.target);
            });
        }
        _ => {}
    }
}

/// `Transfer::may_begin`, on the claim that is read now.
fn may_begin(turn: &mut Turn) {
    let (me, claim, from) = (turn.me, turn.before.claim, turn.run().host);
    let elsewhere = claim.host.filter(|host| Some(*host) != from);
    let may = match (claim.phase, elsewhere) {
        (Phase::Starting | Phase::Moving, _) => false,
        (Phase::Running, Some(host)) => turn.before.look(host).absent(),
        _ => true,
    };
    if !may {
        return turn.rest("reads the claim: it is busy", None);
    }
    turn.go("reads the claim: it may begin", None, |next| {
        let run = next.run_mut(me);
        (run.claim, run.at) = (claim, At::CheckHosts);
    });
}

/// Neither host is fenced, both answer, and the target has no copy.
fn check_hosts(turn: &mut Turn) {
    let (me, Some((from, to))) = (turn.me, sides(turn)) else { return };
    let fenced = [from, to].into_iter().find(|host| turn.before.fenced(*host) && turn.rules().fenced_never_counts);
    if fenced.is_some() {
        return turn.rest("{} is fenced: refuses", fenced);
    }
    if turn.before.look(to).absent() && turn.before.look(from).exists() {
        turn.go("checks both hosts", None, |next| next.run_mut(me).at = At::ClaimMove);
    } else {
        turn.rest("a host is silent, or the target has a copy: refuses", None);
    }
}

fn claim_move(turn: &mut Turn) {
    let (me, run, Some((from, to))) = (turn.me, *turn.run(), sides(turn)) else { return };
    if turn.before.claim != run.claim {
        return turn.rest("another run was quicker", None);
    }
    let mine = run.claim.moving(from, to, me);
    let at = if turn.rules().raise_target { At::RaiseTarget } else { At::SendMigrate };
    turn.go("writes the claim `moving to {}`", to, |next| own(next, me, mine, at));
}

/// Older requests are revoked on the target, so that none of them meets the copy that arrives; what was never sent writes
/// `running` on the source again.
fn raise_target(turn: &mut Turn) {
    let (me, run, Some((from, to))) = (turn.me, *turn.run(), sides(turn)) else { return };
    if refuses(turn, to) {
        return turn.rest("the claim is of another run by now", None);
    }
    if !turn.before.look(to).absent() {
        let running = turn.running(run.claim, from);
        return turn.go("{} is silent or has a copy: nothing was sent", to, |next| {
            next.swap(run.claim, running);
            next.rest(me);
        });
    }
    let revoked = revoke(turn, to);
    turn.go("revokes older requests on {}", to, |next| {
        revoked(next);
        next.run_mut(me).at = At::SendMigrate;
    });
}

/// `Transfer::go`: within the claim's window the source is asked; what was never sent writes `running` there again.
fn send_migrate(turn: &mut Turn) {
    let (me, run, Some((from, to))) = (turn.me, *turn.run(), sides(turn)) else { return };
    if run.too_old {
        let running = turn.running(run.claim, from);
        turn.go("its claim is too old to act on: nothing was sent", None, |next| {
            next.swap(run.claim, running);
            next.rest(me);
        });
    } else {
        let sent = |next: &mut State| next.run_mut(me).at = At::LookSource;
        turn.go_and("is within its window", None, sent, |turn| send(turn, from, Ask::Migrate(to)));
    }
}
