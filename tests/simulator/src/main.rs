//! Plays many seeds: `rackhand-simulator [COUNT [FIRST]]`, or tells one: `rackhand-simulator story SEED`.
#![allow(clippy::disallowed_methods, reason = "tells how long the real machine took")]

use rackhand_simulator::{Stats, run, story};
use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

fn number(word: Option<&String>, default: u64) -> u64 {
    word.and_then(|word| word.parse().ok()).unwrap_or(default)
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let mut out = std::io::stdout().lock();
    let mut print = |line: &str| {
        // Nobody reads any more: then there is nothing left to do either.
        let _ = writeln!(out, "{line}");
    };
    if words.first().is_some_and(|word| word == "story") {
        story(number(words.get(1), 1), None).iter().for_each(|line| print(line));
        return ExitCode::SUCCESS;
    }
    let (count, first) = (number(words.first(), 20_000), number(words.get(1), 1));
    let began = Instant::now();
    let mut stats = Stats::default();
    let mut failed: u64 = 0;
    for seed in first..first + count {
        let outcome = run(seed, None);
        stats.add(&outcome.stats);
        if let Some(violation) = outcome.violation {
            failed += 1;
            if failed <= 10 {
                print(&format!("seed {seed}, {:.3} s: {}", violation.at_ms as f64 / 1000.0, violation.what));
            }
        }
    }
    let took = began.elapsed().as_secs_f64();
    print(&format!("{count} seeds from {first} in {took:.1} s: {failed} violate something; {stats:?}"));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
