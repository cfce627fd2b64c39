//! One start on one host, from the claim to the claim: `src/guest/launch.rs`.

use crate::moves::Turn;
use crate::state::{Ask, At, Claim, Does, H, R, Request, State};

/// The next step of a run that has the guest made on a host.
pub fn steps(turn: &mut Turn) {
    match turn.run().at {
        At::SendCreate => send_create(turn),
        At::AwaitMade => await_made(turn),
        At::ReadAgain => read_again(turn),
        At::AwaitRuns => await_runs(turn),
        At::WriteRunning => write_running(turn),
        At::GiveBack => take_own_over(turn),
        _ => {}
    }
}

/// `Launch::run`: within the claim's window the host is asked to make the guest; what was never sent frees the claim.
fn send_create(turn: &mut Turn) {
    let (me, run) = (turn.me, *turn.run());
    let Some(host) = run.host else { return };
    if run.too_old {
        turn.go("its claim is too old to act on: frees it, for nothing was sent", None, |next| {
            next.swap(run.claim, run.claim.freed());
            next.rest(me);
        });
    } else {
        let sent = |next: &mut State| next.run_mut(me).at = At::AwaitMade;
        turn.go_and("is within its window", None, sent, |turn| send(turn, host, Ask::Create));
    }
}

/// `Launch::look_after`: the host says what came of the request, or nothing.
fn await_made(turn: &mut Turn) {
    let (me, run) = (turn.me, *turn.run());
    let Some(host) = run.host else { return };
    turn.rest("hears nothing of {}: gives up", host);
    let look = turn.before.look(host);
    if look.exists() {
        turn.go("sees it made on {}", host, |next| {
            let run = next.run_mut(me);
            (run.looks[host as usize], run.at) = (look, At::ReadAgain);
        });
    } else if look.absent() && !turn.before.under_way(me, Ask::Create) {
        turn.go("was refused by {}", host, |next| next.run_mut(me).at = At::GiveBack);
    }
}

/// `Launch::go_on`: what was made is let go on only when the claim still is the very one it stands on.
fn read_again(turn: &mut Turn) {
    let (me, run) = (turn.me, *turn.run());
    let Some(host) = run.host else { return };
    let claim = turn.before.claim;
    let runs = run.looks[host as usize].does() == Some(Does::Runs);
    let go_on = |turn: &mut Turn, text: &'static str| {
        let at = |at: At| move |next: &mut State| next.run_mut(me).at = at;
        if runs {
            turn.go(text, host, at(At::WriteRunning));
        } else {
            turn.go_and(text, host, at(At::AwaitRuns), |turn| send(turn, host, Ask::Resume));
        }
    };
    if !turn.rules().read_again {
        go_on(turn, "does not read the claim again");
    } else if claim == run.claim {
        go_on(turn, "reads the claim: it still is its own");
    } else if claim.names(host) {
        turn.rest("reads the claim: it is of another run, and still for {}", host);
    } else {
        give_way(turn, "reads the claim: it went elsewhere");
    }
}

/// `Launch::let_go`.
fn await_runs(turn: &mut Turn) {
    let (me, run) = (turn.me, *turn.run());
    let Some(host) = run.host else { return };
    let look = turn.before.look(host);
    if look.does() == Some(Does::Runs) {
        turn.go("sees it run on {}", host, |next| next.run_mut(me).at = At::WriteRunning);
    } else if look.absent() {
        turn.go("it ended on {} before it ran", host, |next| next.run_mut(me).at = At::GiveBack);
    }
    turn.rest("hears nothing of {}: gives up", host);
}

/// The claim of what runs now; a copy whose claim went elsewhere is ended.
fn write_running(turn: &mut Turn) {
    let (me, run) = (turn.me, *turn.run());
    let Some(host) = run.host else { return };
    let running = turn.running(run.claim, host);
    if turn.before.claim == run.claim {
        turn.go("writes the claim `running on {}`", host, |next| {
            next.claim = running;
            next.rest(me);
        });
    } else if turn.before.claim.names(host) {
        turn.rest("the claim names {} all the same", host);
    } else {
        give_way(turn, "its claim went elsewhere");
    }
}

/// `Launch::give_way`: ends the copy of a start whose claim went elsewhere.
fn give_way(turn: &mut Turn, why: &'static str) {
    let (me, run) = (turn.me, *turn.run());
    let Some(host) = run.host else { return };
    let request = Request { to: host, generation: run.claim.generation, ask: Ask::Clear, from: me };
    turn.go_and(
        why,
        None,
        |_| (),
        |turn| {
            if turn.before.clone().send(request) {
                turn.go("asks {} to end its copy", host, |next| {
                    next.send(request);
                    next.rest(me);
                });
            }
        },
    );
}

/// `Launch::give_back`: its own claim is settled like that of any other run, without waiting.
fn take_own_over(turn: &mut Turn) {
    let (me, claim) = (turn.me, turn.run().claim);
    if turn.before.claim == claim {
        turn.go("takes its own claim over", None, |next| {
            own(next, me, claim.taken_over(me), At::RevokeHost);
            next.run_mut(me).gives_back = true;
        });
    } else {
        turn.rest("its claim is of another run by now", None);
    }
}

/// Writes a claim of one's own, whose window begins.
pub fn own(next: &mut State, me: R, mine: Claim, at: At) {
    next.claim = mine;
    let run = next.run_mut(me);
    (run.claim, run.too_old, run.at) = (mine, false, at);
}

/// Sends a request, as soon as there is room for it.
pub fn send(turn: &mut Turn, to: H, ask: Ask) {
    let request = Request { to, generation: turn.run().claim.generation, ask, from: turn.me };
    let text = match ask {
        Ask::Create => "asks {} to create it",
        Ask::Resume => "asks {} to resume it",
        Ask::Migrate(_) => "asks {} to migrate it",
        Ask::Destroy | Ask::Clear => "asks {} to end its copy",
        Ask::Suspend => "asks {} to suspend its copy",
        Ask::Lift => "asks the mons to lift the fence of {}",
    };
    if turn.before.clone().send(request) {
        turn.go(text, to, |next| {
            next.send(request);
        });
    }
}
