//! Many racks; a seed that fails is told from its beginning.

use rackhand_simulator::{Mutation, run, story};

const SEEDS: u64 = 20_000;
/// Seeds in which a planted bug has to be found.
const ENOUGH: u64 = 4_000;

fn fails(seed: u64) {
    let outcome = run(seed, None);
    if let Some(violation) = outcome.violation {
        let told = story(seed, None).join("\n");
        // Not a test by itself, but what each of them asserts.
        assert_eq!(violation.what, "", "seed {seed}\n{told}");
    }
}

#[test]
fn nothing_that_must_not_be_happens_in_twenty_thousand_racks() {
    std::thread::scope(|scope| {
        for half in 0..2 {
            scope.spawn(move || (1..=SEEDS).filter(|seed| seed % 2 == half).for_each(fails));
        }
    });
}

#[test]
fn a_seed_is_played_the_same_way_each_time() {
    for seed in 1..=20 {
        assert_eq!(run(seed, None), run(seed, None));
        assert_eq!(story(seed, None), story(seed, None));
    }
}

#[test]
fn each_planted_bug_is_found() {
    let mut missed = Vec::new();
    for mutation in Mutation::ALL {
        match (1..=ENOUGH).find_map(|seed| Some((seed, run(seed, Some(mutation)).violation?))) {
            Some((seed, violation)) => println!("{mutation:?}: seed {seed}, {}", violation.what),
            None => missed.push(mutation),
        }
    }
    assert!(missed.is_empty(), "not found in {ENOUGH} seeds: {missed:?}");
}
