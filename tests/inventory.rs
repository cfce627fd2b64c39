//! The inventory through the built binary: exit codes, streams, and files left behind.
#![expect(clippy::unwrap_used, reason = "a test says what is wrong by panicking")]

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn rackhand(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rackhand"))
        .args(arguments)
        .current_dir(directory)
        .env_remove("RACKHAND_INVENTORY")
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

const THREE: [&str; 9] = [
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

#[test]
fn what_init_writes_is_correct_and_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(rackhand(dir.path(), &THREE).status.code(), Some(0));
    let written = std::fs::read_to_string(dir.path().join("inventory.yaml")).unwrap();
    let mut empty = Command::new(env!("CARGO_BIN_EXE_rackhand"));
    empty.args(["inventory", "check"]).current_dir(dir.path()).env("RACKHAND_INVENTORY", "");
    assert!(empty.status().unwrap().success(), "an empty variable is none");
    let checked = rackhand(dir.path(), &["inventory", "check"]);
    assert_eq!(
        (checked.status.code(), text(&checked.stdout).as_str()),
        (Some(0), "inventory.yaml is correct: 3 hosts\n")
    );
    let again = rackhand(dir.path(), &THREE);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("--force"));
    assert_eq!(std::fs::read_to_string(dir.path().join("inventory.yaml")).unwrap(), written);
    let forced = rackhand(dir.path(), &[&THREE[..], &["--force"]].concat());
    assert_eq!(forced.status.code(), Some(0));
    assert_ne!(std::fs::read_to_string(dir.path().join("inventory.yaml")).unwrap(), written, "each has its own fsid");
}

#[test]
fn ctrl_c_at_a_question_ends_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let line = format!("{} init", env!("CARGO_BIN_EXE_rackhand"));
    let mut terminal = Command::new("timeout")
        .args(["60", "script", "-q", "-e", "-f", "-c", &line, "/dev/null"])
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut keys, mut screen) = (terminal.stdin.take().unwrap(), terminal.stdout.take().unwrap());
    let mut shown = Vec::new();
    while !text(&shown).contains("name of the cluster") {
        let mut byte = [0];
        assert_eq!(screen.read(&mut byte).unwrap(), 1, "it ended without a question: {}", text(&shown));
        shown.push(byte[0]);
    }
    keys.write_all(b"\x03").unwrap();
    screen.read_to_end(&mut shown).unwrap();
    assert_eq!(terminal.wait().unwrap().code(), Some(130), "{}", text(&shown));
    assert!(!dir.path().join("inventory.yaml").exists());
}

#[test]
fn wrong_flags_write_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut flags = THREE;
    flags[8] = "H3=10.0.0.12";
    let output = rackhand(dir.path(), &flags);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains("`H3` is no host name") && said.contains("10.0.0.12 is taken by host h2"), "{said}");
    assert_eq!(rackhand(dir.path(), &["init"]).status.code(), Some(2));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn every_command_stops_at_a_wrong_inventory_with_all_its_mistakes() {
    let dir = tempfile::tempdir().unwrap();
    rackhand(dir.path(), &THREE);
    let file = dir.path().join("inventory.yaml");
    let bad =
        std::fs::read_to_string(&file).unwrap().replace("size: 3", "size: three").replace("10.0.0.13", "10.0.0.12");
    std::fs::write(&file, bad).unwrap();
    for command in [&["inventory", "show"][..], &["facts"], &["provision", "--yes"]] {
        let output = rackhand(dir.path(), command);
        assert_eq!(output.status.code(), Some(2), "{command:?}");
        let said = text(&output.stderr);
        assert!(said.contains("`three` is no whole number") && said.contains("is taken by host h2"), "{said}");
        assert!(output.stdout.is_empty());
    }
    let output = rackhand(dir.path(), &["inventory", "check", "-o", "json"]);
    assert_eq!(output.status.code(), Some(2));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["schema"], "rackhand.inventory-check/1");
    assert_eq!(document["mistakes"].as_array().unwrap().len(), 3);
}

#[test]
fn a_secret_in_the_file_is_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let example = std::fs::read_to_string(root.join("inventory.example.yaml")).unwrap();
    for password in ["hunter2", "{inline: hunter2}", "{inline: [hunter2]}", "\n        hunter2"] {
        let text_of = example.replacen("{file: secrets/idrac-h3}", password, 1);
        std::fs::write(dir.path().join("inventory.yaml"), text_of).unwrap();
        for command in [["inventory", "show"], ["inventory", "check"]] {
            for format in ["table", "json"] {
                let output = rackhand(dir.path(), &[&command[..], &["-o", format]].concat());
                let all = text(&output.stdout) + &text(&output.stderr);
                assert!(!all.contains("hunter2"), "{all}");
            }
        }
    }
}

#[test]
fn a_rack_without_an_osd_is_refused_before_any_host_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(rackhand(dir.path(), &THREE).status.code(), Some(0));
    for command in [&["check"][..], &["provision", "--dry-run"], &["provision", "--yes"]] {
        let output = rackhand(dir.path(), command);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("error: the inventory has no OSD"), "{said}");
        assert!(said.contains("hint: list disks of 3 hosts or more under `osds:`"), "{said}");
    }
}
