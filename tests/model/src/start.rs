//! `guest start`: `src/guest/start.rs` and `survey.rs`.

use crate::launch::own;
use crate::moves::Turn;
use crate::state::{At, Command, Does, H, HOSTS, Look, Phase, State};
use crate::stop;

/// Nothing is known of any host.
pub const UNASKED: [Look; HOSTS] = [Look::Unasked; HOSTS];

/// The next step of a run that starts the guest, or looks at where it is to stop it.
pub fn steps(turn: &mut Turn) {
    match turn.run().at {
        At::Idle => begin(turn),
        At::ReadClaim => read_claim(turn),
        At::DomainInventory => domain_inventory(turn),
        At::DiskUsers => disk_users(turn),
        At::TakeClaim => take_claim(turn),
        At::SettleRunning => settle_running(turn),
        _ => {}
    }
}

/// The operator asks for the next thing.
fn begin(turn: &mut Turn) {
    let me = turn.me;
    let command = turn.setup.commands[me as usize].get(usize::from(turn.run().begun));
    let (command, text) = match command {
        Some(Command::Start) => (Command::Start, "guest start: reads the claim"),
        Some(Command::Stop) => (Command::Stop, "guest stop --force: reads the claim"),
        _ => return,
    };
    turn.go(text, None, |next| {
        let claim = next.claim;
        let run = next.run_mut(me);
        run.begun += 1;
        (run.command, run.claim, run.at) = (command, claim, At::DomainInventory);
    });
}

/// `claim::read`, always before the hosts are asked: a start that ended in between would be missed by both.
fn read_claim(turn: &mut Turn) {
    let me = turn.me;
    turn.go("reads the claim", None, |next| {
        let claim = next.claim;
        let run = next.run_mut(me);
        (run.claim, run.looks, run.revoked, run.leftover, run.at) = (claim, UNASKED, false, None, At::DomainInventory);
    });
}

/// `Survey::take`: all hosts at once, in any order.
fn domain_inventory(turn: &mut Turn) {
    let (me, looks) = (turn.me, turn.run().looks);
    let unasked: Vec<H> = turn.setup.hosts().filter(|host| looks[*host as usize] == Look::Unasked).collect();
    let last = unasked.len() == 1;
    let early = turn.run().command == Command::Failover && !turn.rules().look_after_fence;
    for host in unasked {
        let look = turn.before.look(host);
        let fences = |next: &mut State| {
            let run = next.run_mut(me);
            (run.looks[host as usize], run.at) = (look, if early { At::Fence } else { At::LookFence });
        };
        let ask = "asks {} what it runs";
        let change = |next: &mut State| next.run_mut(me).looks[host as usize] = look;
        if last && turn.setup.fences() {
            turn.go(ask, host, fences)
        } else if last {
            turn.go_and(ask, host, change, decide)
        } else {
            turn.go(ask, host, change)
        }
    }
}

/// `Survey::standing`, and what a round of a start makes of it.
pub fn decide(turn: &mut Turn) {
    let (me, run) = (turn.me, *turn.run());
    if run.command == Command::Stop {
        return stop::decide(turn);
    }
    let at = |at: At| move |next: &mut State| next.run_mut(me).at = at;
    let (claim, looks) = (run.claim, run.looks);
    let hosts = turn.setup.hosts();
    let runs = hosts.clone().find(|host| looks[*host as usize].does() == Some(Does::Runs));
    let stands = hosts.clone().find(|host| looks[*host as usize].exists());
    let silent = hosts.clone().find(|host| claim.names(*host) && looks[*host as usize] == Look::Silent);
    let alone = hosts.filter(|host| looks[*host as usize].exists()).count() == 1 && silent.is_none();
    if runs.is_some() {
        let says_so = claim.phase == Phase::Running && claim.host == runs;
        if claim.phase != Phase::Moving && !says_so && alone {
            turn.go("it runs on {}", runs, |next| {
                let run = next.run_mut(me);
                (run.host, run.at) = (runs, At::SettleRunning);
            });
        } else {
            turn.rest("it runs on {}", runs);
        }
    } else if silent.is_some() {
        turn.rest("it may run on {}, which is silent: refuses", silent);
    } else if claim.pending() {
        let first = if claim.phase == Phase::Moving { At::FirstSource } else { At::TakeOver };
        turn.go("it is starting or moving: settles that", None, at(first));
    } else if stands.is_some() {
        turn.rest("it stands still on {}: refuses", stands);
    } else {
        turn.go("nothing speaks against a start", None, at(At::DiskUsers));
    }
}

/// `nobody_has_it_open`: Ceph lists the watches of all clients.
fn disk_users(turn: &mut Turn) {
    let (me, before) = (turn.me, turn.before);
    let fenced = turn.run().fenced;
    let user =
        turn.setup.hosts().find(|host| before.host(*host).up && before.copy(*host).watch && !before.fenced(*host));
    let locker = turn.setup.hosts().find(|host| before.copy(*host).lock);
    match user {
        Some(_) => turn.rest("the disk is open on {}: refuses", user),
        None if fenced.is_some() && locker.is_some() && turn.rules().fence_first => {
            turn.go("the disk is locked by {}", locker, |next| {
                let run = next.run_mut(me);
                (run.locker, run.at) = (locker, At::BreakLock);
            })
        }
        None => turn.go("no client has the disk open", None, |next| next.run_mut(me).at = At::TakeClaim),
    }
}

/// `Starting::place`: the claim is written over the very one that was read.
fn take_claim(turn: &mut Turn) {
    let (me, run) = (turn.me, *turn.run());
    let exact = turn.rules().exact_swap || run.command != Command::Failover;
    if turn.before.claim != run.claim && exact {
        return turn.go("another run was quicker: looks again", None, |next| next.run_mut(me).at = At::ReadClaim);
    }
    let claim = turn.before.claim;
    let may = |host: &H| run.looks[*host as usize].absent() && !turn.before.host(*host).range;
    for host in turn.setup.hosts().filter(may).collect::<Vec<H>>() {
        turn.go("writes the claim `starting on {}`", host, |next| {
            own(next, me, claim.starting(host, me), At::SendCreate);
            next.run_mut(me).host = Some(host);
        });
    }
}

/// `settle_running`: the claim of a guest that is seen in one place.
fn settle_running(turn: &mut Turn) {
    let (me, run) = (turn.me, *turn.run());
    let Some(host) = run.host else { return };
    let running = turn.running(run.claim, host);
    turn.go("writes the claim `running on {}`, if it is what was read", host, |next| {
        next.swap(run.claim, running);
        next.rest(me);
    });
}
