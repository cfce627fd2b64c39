//! Searches through the large setups as well, and prints a table: `make model`. With a word, only those
//! whose name has it; with `trace` after it, the shortest way to each violation as well.

use rackhand_model::{
    Case, Ended, Expected, Mend, dropped, dropped_fences, large, large_dropped_fences, large_fences, mend,
    paused_moves, redundant, redundant_fences, search, small_fences, small_moves, small_starts, without_rules,
};
use std::process::ExitCode;

/// States after which a search is given up.
const LIMIT: usize = 10_000_000;

fn main() -> ExitCode {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let traces = std::env::args().nth(2).is_some_and(|word| word == "trace");
    let mut as_expected = true;
    println!("| search | states | seconds | end | settled | mended by a command |");
    println!("|---|---:|---:|---|---:|---:|");
    let cases = [
        small_starts(),
        small_moves(),
        small_fences(),
        large(),
        large_fences(),
        dropped(),
        dropped_fences(),
        large_dropped_fences(),
        redundant(),
        redundant_fences(),
        without_rules(),
        paused_moves(),
    ];
    for case in cases.into_iter().flatten().filter(|case| case.name.contains(&wanted)) {
        as_expected &= report(&case, traces);
    }
    ExitCode::from(u8::from(!as_expected))
}

/// One line of the table; `false` when the search ended otherwise than expected.
fn report(case: &Case, traces: bool) -> bool {
    let outcome = search(&case.setup, LIMIT);
    let (end, fits) = match (&outcome.ended, case.expected) {
        (Ended::Safe, expected) => ("all seen, safe".to_owned(), expected == Expected::Safe),
        (Ended::Limit, _) => ("limit, no violation so far".to_owned(), true),
        (Ended::Violation { what, trace }, expected) => {
            (format!("after {} steps: {what}", trace.len()), expected == Expected::Violation)
        }
    };
    let mends: Vec<Mend> = outcome.settled.iter().map(|state| mend(&case.setup, state)).collect();
    let settled = mends.iter().filter(|mend| **mend != Mend::Runs).count();
    let stuck = outcome.settled.iter().zip(&mends).find(|(_, mend)| **mend == Mend::Stuck);
    if let (Some((state, _)), Expected::Safe) = (stuck, case.expected) {
        eprintln!("no command mends {state:?}");
    }
    let mended = mends.iter().filter(|mend| matches!(mend, Mend::By(_))).count();
    let seconds = outcome.took.as_secs_f64();
    println!("| {} | {} | {seconds:.1} | {end} | {settled} | {mended} |", case.name, outcome.states);
    if let Ended::Violation { trace, .. } = &outcome.ended
        && (traces || !fits)
    {
        eprintln!("{}", trace.join("\n"));
    }
    match case.expected {
        Expected::Safe => fits && settled == mended,
        Expected::Violation => fits,
    }
}
