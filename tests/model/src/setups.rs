//! What is searched, and what is expected to be found.

use crate::moves::Setup;
use crate::rules::{Faults, Rules};
use crate::state::Command::{self, Finish, Move, Start, Stop};

/// What a search is expected to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Nothing, in all there is.
    Safe,
    /// A guest that runs twice, or one that is lost.
    Violation,
}

/// A search.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What it is about.
    pub name: &'static str,
    /// What is searched.
    pub setup: Setup,
    /// What is expected.
    pub expected: Expected,
}

pub(crate) const NONE: Faults =
    Faults { management: false, storage: false, both: false, power: false, crash: false, link: false, revival: false };
const LINK: Faults = Faults { link: true, ..NONE };
pub(crate) const CUT: Faults = Faults { both: true, ..NONE };
const STORAGE: Faults = Faults { storage: true, ..NONE };
const CUT_OR_LINK: Faults = Faults { both: true, link: true, ..NONE };
const CRASH_OR_POWER: Faults = Faults { crash: true, power: true, ..NONE };
const CUT_OR_CRASH: Faults = Faults { both: true, crash: true, ..NONE };
const LINK_CRASH_POWER: Faults = Faults { link: true, crash: true, power: true, ..NONE };
const ANY: Faults =
    Faults { management: true, storage: true, both: true, power: true, crash: true, link: true, revival: false };

pub(crate) type Runs = [&'static [Command]; 3];

pub(crate) fn safe(
    name: &'static str,
    hosts: usize,
    running: bool,
    commands: Runs,
    faults: Faults,
    budget: u8,
) -> Case {
    let setup = Setup { hosts, running, commands, budget, faults, rules: Rules::ALL };
    Case { name, setup, expected: Expected::Safe }
}

/// Starts and stops with all rules on; searched through every time the tests run.
pub fn small_starts() -> Vec<Case> {
    vec![
        safe("two starts, a host cut off", 2, false, [&[Start], &[Start], &[]], CUT, 1),
        safe("two starts, two of crash and power", 2, false, [&[Start], &[Start], &[]], CRASH_OR_POWER, 2),
        safe("two starts on three hosts, one cut off", 3, false, [&[Start], &[Start], &[]], CUT, 1),
        safe("move and stop, a host cut off", 2, true, [&[Move], &[Stop], &[]], CUT, 1),
    ]
}

/// Moves with all rules on; searched through every time the tests run.
pub fn small_moves() -> Vec<Case> {
    vec![
        safe("move and finish, two of link, crash, power", 2, true, [&[Move], &[Finish], &[]], LINK_CRASH_POWER, 2),
        safe("move and finish on three hosts, link breaks", 3, true, [&[Move], &[Finish], &[]], LINK, 1),
        safe("move, and finish and start, cut or link", 2, true, [&[Move], &[Finish, Start], &[]], CUT_OR_LINK, 1),
        safe("move, and finish and move, link breaks", 2, true, [&[Move], &[Finish, Move], &[]], LINK, 1),
        safe("start, and start and move, link breaks", 2, false, [&[Start], &[Start, Move], &[]], LINK, 1),
    ]
}

/// What takes minutes: `make model`.
pub fn large() -> Vec<Case> {
    vec![
        safe("two starts, two of cut and crash", 2, false, [&[Start], &[Start], &[]], CUT_OR_CRASH, 2),
        safe("start, and two starts, storage cut", 2, false, [&[Start], &[Start, Start], &[]], STORAGE, 1),
        safe("three starts", 2, false, [&[Start], &[Start], &[Start]], NONE, 0),
        safe("move, and finish and start, any two faults", 2, true, [&[Move], &[Finish, Start], &[]], ANY, 2),
        safe(
            "move, and finish, move and start, a host cut off",
            2,
            true,
            [&[Move], &[Finish, Move, Start], &[]],
            CUT,
            1,
        ),
        safe(
            "start, and start, move and finish, link breaks",
            2,
            false,
            [&[Start], &[Start, Move, Finish], &[]],
            LINK,
            1,
        ),
        safe("move, and finish and start on three hosts, cut", 3, true, [&[Move], &[Finish, Start], &[]], CUT, 1),
        safe("move and two that finish it, link breaks", 2, true, [&[Move], &[Finish], &[Finish]], LINK, 1),
        safe("move and two that finish it, any fault", 2, true, [&[Move], &[Finish], &[Finish]], ANY, 1),
        safe("move, and stop and start, cut or link", 2, true, [&[Move], &[Stop, Start], &[]], CUT_OR_LINK, 1),
    ]
}

/// Each rule dropped, with what happens then. Where one rule stands in for another, both are dropped.
pub fn dropped() -> Vec<Case> {
    let all = Rules::ALL;
    let starts: Runs = [&[Start], &[Start], &[]];
    let start_move: Runs = [&[Start], &[Start, Move], &[]];
    let finish_start: Runs = [&[Move], &[Finish, Start], &[]];
    let finish_move: Runs = [&[Move], &[Finish, Move], &[]];
    let longest: Runs = [&[Move], &[Finish, Move, Start], &[]];
    let drop = |name, rules, running, commands, faults: Faults| Case {
        name,
        setup: Setup { hosts: 2, running, commands, budget: u8::from(faults != NONE), faults, rules },
        expected: Expected::Violation,
    };
    vec![
        drop("R1 without taking over first", Rules { take_over_first: false, ..all }, false, starts, CUT),
        drop("R1 without raising the floor", Rules { raise_floor: false, ..all }, false, starts, CUT),
        drop("R2 without a guard on resume", Rules { guard_resume: false, ..all }, false, start_move, LINK),
        drop(
            "R2 without guards on create and resume",
            Rules { guard_create: false, guard_resume: false, ..all },
            false,
            start_move,
            LINK,
        ),
        drop("R2 without a guard on migrate", Rules { guard_migrate: false, ..all }, true, finish_start, STORAGE),
        drop("R2 without a guard on destroy", Rules { guard_end: false, ..all }, true, finish_move, LINK),
        drop("R2 without raising the target's floor", Rules { raise_target: false, ..all }, true, finish_move, LINK),
        drop("R3 without revoking first", Rules { revoke_first: false, ..all }, true, finish_start, STORAGE),
        drop("R4 without writing over the very claim", Rules { exact_write_down: false, ..all }, true, longest, CUT),
        drop("R4 without a look before freeing", Rules { look_before_free: false, ..all }, false, start_move, LINK),
        drop(
            "a copy made running, no guard, no second read",
            Rules { create_paused: false, read_again: false, guard_create: false, ..all },
            false,
            starts,
            NONE,
        ),
    ]
}

/// Rules that others stand in for, dropped: nothing happens in these setups.
pub fn redundant() -> Vec<Case> {
    let without = |name, rules, case: Case| Case { name, setup: Setup { rules, ..case.setup }, ..case };
    let create = Rules { guard_create: false, ..Rules::ALL };
    let raise = Rules { every_write_raises: false, ..Rules::ALL };
    let starts = safe("", 2, false, [&[Start], &[Start], &[]], CUT, 1);
    let moves = safe("", 2, true, [&[Move], &[Finish, Move], &[]], LINK, 1);
    let start_move = safe("", 2, false, [&[Start], &[Start, Move], &[]], LINK, 1);
    vec![
        without("two starts, no guard on create", create, starts),
        without("start, and start and move, no guard on create", create, start_move),
        without("two starts, the same generation for `running`", raise, starts),
        without("move, and finish and move, the same generation for `running`", raise, moves),
        without("start, and start and move, the same generation for `running`", raise, start_move),
    ]
}

/// The protocol without the rules: the ways in which a guest came to run twice.
pub fn without_rules() -> Vec<Case> {
    let case = |name, running, commands, faults| Case {
        name,
        setup: Setup { hosts: 2, running, commands, budget: 1, faults, rules: Rules::NONE },
        expected: Expected::Violation,
    };
    let revival = Faults { revival: true, ..LINK };
    let lost = Case {
        name: "all rules, and libvirt revives the source",
        setup: Setup { rules: Rules::ALL, ..case("", true, [&[Move], &[], &[]], revival).setup },
        expected: Expected::Violation,
    };
    vec![
        case("look, then free: a late create", false, [&[Start], &[Start], &[]], CUT),
        case("a late migrate after `stayed`", true, [&[Move], &[Finish, Start], &[]], CUT),
        case("a late resume revives a source", false, [&[Start], &[Start, Move], &[]], LINK),
        lost,
    ]
}
