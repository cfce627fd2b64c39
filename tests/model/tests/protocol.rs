//! The protocol in all states that small setups can reach. A failing test prints the shortest trace.

use rackhand_model::{
    Case, Ended, Expected, Mend, dropped, dropped_fences, mend, search, small_fences, small_moves, small_starts,
    without_rules,
};

/// More than any of these setups has.
const LIMIT: usize = 6_000_000;

fn check(cases: Vec<Case>) {
    for case in cases {
        let outcome = search(&case.setup, LIMIT);
        println!("{}: {} states, {:.1} s", case.name, outcome.states, outcome.took.as_secs_f64());
        let found = match &outcome.ended {
            Ended::Violation { what, trace } => format!("{what}\n{}", trace.join("\n")),
            ended => format!("{ended:?}"),
        };
        let as_expected = match case.expected {
            Expected::Safe => outcome.ended == Ended::Safe,
            Expected::Violation => matches!(outcome.ended, Ended::Violation { .. }),
        };
        assert!(as_expected, "{}: expected {:?}, found: {found}", case.name, case.expected);
        if case.expected == Expected::Safe {
            let stuck = outcome.settled.iter().find(|state| mend(&case.setup, state) == Mend::Stuck);
            assert!(stuck.is_none(), "{}: no command mends {:?}", case.name, stuck);
        }
    }
}

#[test]
fn no_start_makes_a_guest_run_twice_and_a_command_mends_each_situation() {
    check(small_starts());
}

#[test]
fn no_move_makes_a_guest_run_twice_and_a_command_mends_each_situation() {
    check(small_moves());
}

#[test]
fn no_failover_makes_a_guest_run_twice_and_a_command_mends_each_situation() {
    check(small_fences());
}

#[test]
fn each_rule_of_fences_is_there_for_a_reason() {
    check(dropped_fences());
}

#[test]
fn each_rule_is_there_for_a_reason() {
    check(dropped());
}

#[test]
fn without_the_rules_a_guest_can_run_twice() {
    check(without_rules());
}
