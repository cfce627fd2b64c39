//! Fences: what is searched, and what is expected to be found.

use crate::moves::Setup;
use crate::rules::{Faults, Rules};
use crate::setups::{CUT, Case, Expected, NONE, Runs, safe};
use crate::state::Command::{Failover, Finish, Move, Readmit, Start, Stop};

const MANAGEMENT: Faults = Faults { management: true, ..NONE };
const CUTS: Faults = Faults { storage: true, ..MANAGEMENT };
const CUT_OR_LINK: Faults = Faults { link: true, ..MANAGEMENT };
const CUT_OR_POWER: Faults = Faults { power: true, ..MANAGEMENT };
const CUT_OR_CRASH: Faults = Faults { crash: true, ..MANAGEMENT };
const REVIVAL: Faults = Faults { link: true, crash: true, revival: true, ..NONE };

const FAIL: Runs = [&[Failover], &[], &[]];
const FAIL_READMIT: Runs = [&[Failover, Readmit], &[], &[]];
const TWO_WATCHERS: Runs = [&[Failover], &[Failover], &[]];
const START_FAIL: Runs = [&[Start], &[Failover], &[]];
const START_FAIL_READMIT: Runs = [&[Start], &[Failover, Readmit], &[]];
const MOVE_FAIL: Runs = [&[Move], &[Failover], &[]];
const MOVE_FAIL_READMIT: Runs = [&[Move], &[Failover, Readmit], &[]];
const START_AGAIN: Runs = [&[Stop, Readmit, Start], &[Failover], &[]];
const LATE_LIFT: Runs = [&[Readmit], &[Failover, Readmit, Move, Failover], &[]];

/// A host is fenced, and its guest is started elsewhere; with all rules on.
pub fn small_fences() -> Vec<Case> {
    vec![
        safe("failover of a host that is cut off", 2, true, FAIL, CUT, 1),
        safe("two watchers on three hosts, one cut off", 3, true, TWO_WATCHERS, CUT, 1),
        safe("two watchers that are wrong", 3, true, TWO_WATCHERS, MANAGEMENT, 1),
        safe("start and failover on three hosts", 3, true, START_FAIL, CUT, 1),
        safe("start, and failover and readmit", 2, false, START_FAIL_READMIT, MANAGEMENT, 1),
        safe("stop, readmit and start, and failover", 2, true, START_AGAIN, MANAGEMENT, 1),
        safe("move and failover, two hosts cut off", 2, true, MOVE_FAIL, MANAGEMENT, 2),
        safe("move, and failover and readmit", 2, true, MOVE_FAIL_READMIT, MANAGEMENT, 1),
    ]
}

/// The same in larger setups.
pub fn large_fences() -> Vec<Case> {
    let again: Runs = [&[Move], &[Failover, Readmit, Failover], &[]];
    let finish: Runs = [&[Move, Finish], &[Failover], &[]];
    let three: Runs = [&[Start], &[Failover], &[Failover]];
    vec![
        safe("move and failover on three hosts", 3, true, MOVE_FAIL, MANAGEMENT, 1),
        safe("move and failover, cut or link", 2, true, MOVE_FAIL, CUT_OR_LINK, 2),
        safe("move and failover, any cut", 2, true, MOVE_FAIL, CUTS, 2),
        safe("move, finish and failover, cut or link", 2, true, finish, CUT_OR_LINK, 2),
        safe("move, and failover and readmit, cut or power", 2, true, MOVE_FAIL_READMIT, CUT_OR_POWER, 2),
        safe("move, and failover and readmit, cut or crash", 2, true, MOVE_FAIL_READMIT, CUT_OR_CRASH, 2),
        safe("move, and failover twice", 2, true, again, MANAGEMENT, 1),
        safe("move and failover on three hosts, cut or power", 3, true, MOVE_FAIL, CUT_OR_POWER, 2),
        closes_at_look("migration closed at the look alone", MOVE_FAIL, CUT_OR_POWER),
        safe("failover, readmit, move and failover; readmit", 2, true, LATE_LIFT, MANAGEMENT, 2),
        safe("start and two watchers", 3, true, three, CUT, 1),
    ]
}

/// The weaker rule: incoming migration is closed on the living side of a move alone, in the step of the look at it.
fn closes_at_look(name: &'static str, commands: Runs, faults: Faults) -> Case {
    let case = safe(name, 3, true, commands, faults, 2);
    let rules = Rules { close_incoming: false, close_at_look: true, ..Rules::ALL };
    Case { setup: Setup { rules, ..case.setup }, ..case }
}

/// R13: a move's target goes on only once the source was seen gone, so that no revived source meets a copy that runs. That
/// a source is gone does not say what it wrote before: one that was revived and then lost power is gone too.
pub fn paused_moves() -> Vec<Case> {
    let case = |name, commands, faults, budget| {
        let case = safe(name, 2, true, commands, faults, budget);
        Case { setup: Setup { rules: Rules { move_paused: true, ..Rules::ALL }, ..case.setup }, ..case }
    };
    let (finish, start): (Runs, Runs) = ([&[Move], &[Finish], &[]], [&[Move], &[Finish, Start], &[]]);
    let (cut, power) = (Faults { management: true, ..REVIVAL }, Faults { power: true, ..REVIVAL });
    vec![
        case("R13: paused move and finish, source revived", finish, REVIVAL, 2),
        case("R13: paused move, and finish and start, source revived", start, REVIVAL, 2),
        case("R13: paused move and failover, source revived", MOVE_FAIL, cut, 2),
        Case {
            expected: Expected::Violation,
            ..case("R13: paused move and finish, source revived and off", finish, power, 2)
        },
    ]
}

const ONE_CUT: (Faults, u8) = (MANAGEMENT, 1);
const TWO_CUTS: (Faults, u8) = (MANAGEMENT, 2);

fn without(name: &'static str, hosts: usize, commands: Runs, faults: (Faults, u8), drop: fn(&mut Rules)) -> Case {
    let mut rules = Rules::ALL;
    drop(&mut rules);
    let setup = Setup { hosts, running: true, commands, budget: faults.1, faults: faults.0, rules };
    Case { name, setup, expected: Expected::Violation }
}

fn of_no_guest(case: Case) -> Case {
    Case { setup: Setup { running: false, ..case.setup }, ..case }
}

/// Each rule of fences dropped. Where one rule stands in for another, both are dropped.
pub fn dropped_fences() -> Vec<Case> {
    vec![
        without("R6 without a fence", 2, FAIL, (CUT, 1), |r| r.fence_first = false),
        without("R6 without closing incoming migration", 3, MOVE_FAIL, ONE_CUT, |r| r.close_incoming = false),
        without("R6 without a second look at the fence", 2, START_AGAIN, ONE_CUT, |r| r.fence_again = false),
        without("R6 without an exact swap", 3, TWO_WATCHERS, ONE_CUT, |r| r.exact_swap = false),
        without("R7 without the barrier", 2, FAIL, ONE_CUT, |r| r.barrier = false),
        without("R9 without the exact locker", 3, TWO_WATCHERS, ONE_CUT, |r| r.exact_locker = false),
        without("R10 without revoking on the living side", 2, MOVE_FAIL_READMIT, ONE_CUT, |r| r.revoke_living = false),
        without("R10 without revoking, and looks before the fence", 3, MOVE_FAIL, ONE_CUT, |r| {
            (r.revoke_living, r.look_after_fence) = (false, false);
        }),
        without("R10 lets a handed-over source go on", 2, MOVE_FAIL, (CUT_OR_LINK, 2), |r| r.end_handed_over = false),
        without("R10 lets an incoming copy go on", 2, MOVE_FAIL, (CUT_OR_LINK, 2), |r| r.end_incoming = false),
        without("R11: a start counts a fenced copy", 3, START_FAIL, ONE_CUT, |r| r.fenced_never_counts = false),
        without("R12 without ending copies, entries lifted", 2, FAIL_READMIT, ONE_CUT, |r| {
            (r.readmit_ends_copies, r.entries_stay) = (false, false);
        }),
        without("R12 without ending copies, no clients listed", 2, MOVE_FAIL_READMIT, ONE_CUT, |r| {
            (r.readmit_ends_copies, r.list_clients) = (false, false);
        }),
        of_no_guest(without("R12 without the floor, created running", 2, START_FAIL_READMIT, ONE_CUT, |r| {
            (r.readmit_raises_floor, r.create_paused) = (false, false);
        })),
    ]
}

/// The same where it takes longer to come to that.
pub fn large_dropped_fences() -> Vec<Case> {
    let power = (CUT_OR_POWER, 2);
    vec![
        without("R6 closes only where it is answered", 3, MOVE_FAIL, TWO_CUTS, |r| r.close_everywhere = false),
        without("R6 forgets at a restart what is closed", 3, MOVE_FAIL, power, |r| r.close_lastingly = false),
        without("R11: a move from a fenced host, closed at the look", 3, MOVE_FAIL, power, |r| {
            (r.close_incoming, r.close_at_look, r.fenced_never_counts) = (false, true, false);
        }),
        without("R12 with a late lift, no clients listed", 2, LATE_LIFT, TWO_CUTS, |r| {
            (r.lift_bounded, r.list_clients) = (false, false);
        }),
    ]
}

/// Rules of fences that others stand in for, dropped: nothing happens in these setups.
pub fn redundant_fences() -> Vec<Case> {
    let case = |name, commands, drop| Case { expected: Expected::Safe, ..without(name, 2, commands, ONE_CUT, drop) };
    vec![
        case("failover, no clients listed", MOVE_FAIL_READMIT, |r| r.list_clients = false),
        case("failover, looks before the fence", MOVE_FAIL, |r| r.look_after_fence = false),
        case("failover, adopts what was completed", MOVE_FAIL, |r| r.end_revived = false),
        case("readmit does not read the claim", MOVE_FAIL_READMIT, |r| r.readmit_reads_claim = false),
        case("readmit ends no copies", MOVE_FAIL_READMIT, |r| r.readmit_ends_copies = false),
        of_no_guest(case("readmit raises no floor", START_FAIL_READMIT, |r| r.readmit_raises_floor = false)),
        case("readmit lifts entries", MOVE_FAIL_READMIT, |r| r.entries_stay = false),
        Case {
            expected: Expected::Safe,
            ..without("readmit lifts late", 2, LATE_LIFT, TWO_CUTS, |r| r.lift_bounded = false)
        },
    ]
}
