//! What a shell is told when it completes a line.

use crate::run::{RACKHAND, Run, hermetic, repository, stdout};
use std::path::Path;
use std::time::{Duration, Instant};

const INIT: &[&str] = &[
    "init",
    "--management",
    "10.255.0.0/24",
    "--host",
    "h1=10.255.0.11",
    "--host",
    "h2=10.255.0.12",
    "--guest-range",
    "10.255.0.100-10.255.0.120",
];

/// What completes the last of these words.
fn complete(run: Run, words: usize) -> Vec<String> {
    let run = run.env("COMPLETE", "bash").env("_CLAP_IFS", "\n").env("_CLAP_COMPLETE_INDEX", &(words - 1).to_string());
    run.status(0).stderr_is("").out.lines().map(str::to_owned).collect()
}

#[test]
fn hosts_and_networks_come_from_the_inventory_that_the_line_names() {
    let made = Run::new(INIT).status(0);
    let text = made.read("inventory.yaml");
    let words = ["--", "rackhand", "evacuate", "h"];
    assert_eq!(complete(made.then(&words), 3), ["h1", "h2"]);
    let words = ["--", "rackhand", "-i", "other.yaml", "guest", "list", "--host", ""];
    let other = made.then(&words).file("other.yaml", &text.replace("name: h2", "name: k2"));
    assert_eq!(complete(other, 7), ["h1", "k2"]);
    assert_eq!(complete(made.then(&["--", "rackhand", "network", "pool", ""]), 4).first().unwrap(), "lan");
    // A wrong inventory is for the command itself to complain about.
    let wrong = made.then(&["--", "rackhand", "evacuate", "h"]).file("inventory.yaml", "hosts: 1");
    assert_eq!(complete(wrong, 3), Vec::<String>::new());
}

#[test]
fn a_cluster_that_does_not_answer_costs_a_second_and_says_nothing() {
    let made = Run::new(INIT).status(0);
    let began = Instant::now();
    let found = complete(made.then(&["--", "rackhand", "guest", "start", "w"]), 4);
    assert_eq!(found, Vec::<String>::new());
    assert!(began.elapsed() < Duration::from_secs(10), "far more than its deadline of a second");
}

#[test]
fn the_script_of_bash_asks_the_program() {
    let made = Run::new(INIT).status(0);
    let script = "source \"$1\"; COMP_WORDS=(rackhand facts h); COMP_CWORD=2; _clap_complete_rackhand rackhand h facts
        printf '%s\n' \"${COMPREPLY[@]}\"";
    let path = format!("{}:{}", Path::new(RACKHAND).parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut bash = hermetic("bash");
    bash.args(["-c", script, "bash"]).arg(repository("completions/rackhand.bash")).env("PATH", path);
    let output = bash.current_dir(made.path("")).output().unwrap();
    assert_eq!(stdout(&output), "h1\nh2\n");
}
