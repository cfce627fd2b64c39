//! The inventory through the built binary: exit codes, streams, and files left behind.

use crate::run::{Ran, Run, repository};
use crate::terminal::{Terminal, eventually};
use std::time::Duration;

const INIT: [&str; 9] = [
    "init",
    "--management",
    "10.0.0.0/24",
    "--host",
    "h1=10.0.0.11",
    "--host",
    "h2=10.0.0.12",
    "--host",
    "h3=10.0.0.13",
];

/// A directory with an inventory of three hosts.
fn three() -> Ran {
    Run::new(&INIT).status(0).files_are(&["inventory.yaml"])
}

#[test]
fn what_init_writes_is_correct_and_is_not_overwritten() {
    let made = three();
    let written = made.read("inventory.yaml");
    // An empty variable is none.
    for inventory in ["", "inventory.yaml"] {
        let check = made.then(&["inventory", "check"]).env("RACKHAND_INVENTORY", inventory);
        check.status(0).stdout_is("inventory.yaml is correct: 3 hosts\n");
    }
    made.then(&INIT).status(2).stderr_has("--force");
    assert_eq!(made.read("inventory.yaml"), written);
    made.then(&[&INIT[..], &["--force"]].concat()).status(0);
    assert_ne!(made.read("inventory.yaml"), written, "each has its own fsid");
}

#[test]
fn ctrl_c_at_a_question_ends_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let mut terminal = Terminal::run(dir.path(), "init", &[]);
    let minute = Duration::from_secs(60);
    eventually("the first question", minute, || terminal.shows("name of the cluster").then_some(()));
    terminal.types("\x03");
    let status = eventually("the end", minute, || terminal.ended());
    assert_eq!(status.code(), Some(130), "{}", terminal.screen());
    assert!(!dir.path().join("inventory.yaml").exists());
}

#[test]
fn wrong_flags_write_nothing() {
    let mut flags = INIT;
    flags[8] = "H3=10.0.0.12";
    let wrong = Run::new(&flags).status(2).files_are(&[]);
    wrong.stderr_has("`H3` is not a host name").stderr_has("10.0.0.12 is taken by host h2");
    Run::new(&["init"]).status(2).files_are(&[]);
}

#[test]
fn every_command_stops_at_a_wrong_inventory_with_all_its_mistakes() {
    let made = three();
    let wrong = made.read("inventory.yaml").replace("size: 3", "size: three").replace("10.0.0.13", "10.0.0.12");
    for command in [&["inventory", "show"][..], &["facts"], &["provision", "--yes"]] {
        let stopped = made.then(command).file("inventory.yaml", &wrong).status(2).stdout_is("");
        stopped.stderr_has("`three` is not a whole number").stderr_has("is taken by host h2");
    }
    let document = made.then(&["inventory", "check", "-o", "json"]).status(2).json();
    assert_eq!(document["schema"], "rackhand.inventory-check/1");
    assert_eq!(document["diagnostics"].as_array().unwrap().len(), 3);
}

#[test]
fn a_secret_in_the_file_is_never_shown() {
    let example = std::fs::read_to_string(repository("inventory.example.yaml")).unwrap();
    for password in ["hunter2", "{inline: hunter2}", "{inline: [hunter2]}", "\n        hunter2"] {
        let text = example.replacen("{file: secrets/idrac-h3}", password, 1);
        assert_ne!(text, example);
        for (command, code) in [("show", 2), ("check", 2)] {
            for format in ["table", "json"] {
                let run = Run::new(&["inventory", command, "-o", format]).file("inventory.yaml", &text);
                run.status(if password == "{inline: hunter2}" { 0 } else { code }).never_says("hunter2");
            }
        }
    }
}

#[test]
fn a_rack_without_an_osd_is_refused_before_any_host_is_asked() {
    let made = three();
    for command in [&["check"][..], &["provision", "--dry-run"], &["provision", "--yes"]] {
        made.then(command).status(2).stdout_is("").stderr_is(
            "error: the inventory has no OSD: Ceph would have nowhere to store anything\n\
             hint: list disks of 3 hosts or more under `osds:`; `rackhand facts --disks` shows what each host has\n",
        );
    }
}
