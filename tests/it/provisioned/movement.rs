//! Moving guests on a provisioned rack: nothing is lost, and every fault ends with the guest in exactly one place.

use crate::rack::{Guest, Pinger, Rack, say};
use crate::terminal::eventually;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const HOSTS: [&str; 3] = ["h1", "h2", "h3"];
/// Slow enough that a tiny guest (some 40 MiB to send) is on its way for several seconds.
const SLOW: &str = "4";

/// The guest runs on one host, and one client has its disk.
fn in_one_place(rack: &Rack, name: &str) -> String {
    let found = rack.places(name);
    assert_eq!(found.len(), 1, "{name} is on {found:?}");
    let image = rack.disk(name);
    let owners = eventually("one watcher of the disk", Duration::from_secs(40), || {
        let status: Value = serde_json::from_str(&rack.ssh("h1", &format!("rbd status --format json {image}"))).ok()?;
        let watchers = status["watchers"].as_array()?.len();
        (watchers == 1).then_some(watchers)
    });
    assert_eq!(owners, 1);
    let locks = rack.ssh("h1", &format!("rbd lock ls --format json {image}"));
    let locks: Value = serde_json::from_str(&locks).unwrap();
    assert!(locks.as_array().unwrap().len() <= 1, "{locks}");
    found[0].clone()
}

/// Moves a guest and gives the host it is on afterwards.
fn migrate(rack: &Rack, guest: &Guest, more: &[&str]) -> (String, Value) {
    let mut args = vec!["migrate", &guest.name, "--yes"];
    args.extend(more);
    let answer = rack.json(&args);
    let one = answer["guests"][0].clone();
    assert_eq!(one["outcome"], "moved", "{answer}");
    (one["to"].as_str().unwrap().to_owned(), one)
}

/// Hosts that could be the target of a move of the guest.
fn others(guest: &Guest) -> Vec<&'static str> {
    let host = guest.host();
    HOSTS.into_iter().filter(|h| *h != host).collect()
}

/// Starts a slow move without waiting for its end, and waits until its memory is under way.
fn slow_move(rack: &Rack, guest: &Guest, to: &str) -> std::process::Child {
    let from = guest.host();
    let mut command = rack.command(&["migrate", &guest.name, "--to", to, "--bandwidth", SLOW, "--yes"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("memory under way", Duration::from_secs(20), || {
        let job = rack.ssh(&from, &format!("virsh domjobinfo {} || true", guest.name));
        let done = job.lines().find(|l| l.starts_with("Memory processed:"))?;
        (!done.contains(" 0.000 ")).then_some(())
    });
    child
}

#[test]
fn twenty_moves_lose_nothing() {
    let rack = Rack::provisioned();
    let guest = rack.tiny_guest("mover", &[]);
    let (boot, mut counter) = guest.answers();
    let began = Instant::now();
    let (mut pauses, mut gaps) = (Vec::new(), Vec::new());
    for round in 0..20 {
        let from = guest.host();
        let pinger = Pinger::start(&guest.address);
        let (to, one) = migrate(&rack, &guest, &[]);
        gaps.push(pinger.longest_gap().as_millis());
        drop(pinger);
        pauses.push(one["figures"]["downtime_ms"].as_u64().unwrap());
        assert_ne!(from, to);
        assert_eq!(guest.host(), to, "round {round}");
        let (same, now) = guest.counts();
        assert_eq!(same, boot, "it booted anew in round {round}");
        assert!(now > counter, "round {round}: the counter went from {counter} to {now}");
        counter = now;
    }
    assert_eq!(rack.places(&guest.name).len(), 1);
    let took = began.elapsed().as_secs_f64() / 20.0;
    pauses.sort_unstable();
    gaps.sort_unstable();
    say(&format!(
        "20 moves: {took:.2} s each with all looks; ping gap {} ms at most, {} ms in the middle; QEMU's own pause {} ms at most",
        gaps[19], gaps[10], pauses[19]
    ));
    let records = guest.stopped_history();
    assert!(records.iter().all(|r| r.boot == boot), "another boot wrote to the disk");
    assert!(records.last().unwrap().seq >= counter, "what was answered was on the disk");
}

#[test]
fn a_target_cut_off_from_the_storage_network_is_refused_before_anything_happens() {
    let rack = Rack::provisioned();
    let guest = rack.tiny_guest("mover", &[]);
    let (boot, _) = guest.answers();
    let from = guest.host();
    let to = others(&guest)[1];
    rack.lab(&["partition", to, "--from", "storage"]);
    eventually("the storage to go on without the host", Duration::from_secs(120), || {
        rack.run(&["guest", "show", &guest.name]).status.success().then_some(())
    });
    let output = rack.run(&["migrate", &guest.name, "--to", to, "--yes"]);
    rack.lab(&["heal", to]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(to) && said.contains("does not answer"), "{said}");
    assert_eq!(in_one_place(&rack, &guest.name), from);
    assert_eq!(guest.counts().0, boot);
    rack.recovers();
}

#[test]
fn a_move_whose_network_breaks_ends_with_the_guest_at_home() {
    let rack = Rack::provisioned();
    let guest = rack.tiny_guest("mover", &[]);
    let (boot, _) = guest.answers();
    let from = guest.host();
    let to = others(&guest)[1];
    let child = slow_move(&rack, &guest, to);
    rack.lab(&["partition", to, "--from", "storage"]);
    let output = child.wait_with_output().unwrap();
    rack.lab(&["heal", to]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert_eq!(in_one_place(&rack, &guest.name), from, "{said}");
    assert_eq!(guest.counts().0, boot);
    rack.recovers();
    // The same command, run again, does it.
    assert_eq!(migrate(&rack, &guest, &["--to", to]).0, to);
    assert_eq!(guest.counts().0, boot);
}

#[test]
fn a_move_without_progress_is_aborted_and_the_guest_stays() {
    let rack = Rack::provisioned();
    let guest = rack.tiny_guest("mover", &[]);
    let (boot, _) = guest.answers();
    let from = guest.host();
    let to = others(&guest)[0];
    let child = slow_move(&rack, &guest, to);
    // The receiving process stands still; its host, its libvirt and the network are well.
    rack.ssh(to, &format!("kill -STOP $(cat /run/libvirt/qemu/{}.pid)", guest.name));
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("no progress for 30 s"), "{said}");
    assert_eq!(in_one_place(&rack, &guest.name), from, "{said}");
    assert_eq!(guest.counts().0, boot);
    assert_eq!(migrate(&rack, &guest, &["--to", to]).0, to);
}

#[test]
fn one_ctrl_c_lets_a_move_finish_and_two_abort_it() {
    let rack = Rack::provisioned();
    let guest = rack.tiny_guest("mover", &[]);
    let (boot, _) = guest.answers();
    let interrupt = |child: &std::process::Child| {
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    };
    let (from, to) = (guest.host(), others(&guest)[0]);
    let child = slow_move(&rack, &guest, to);
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), guest.host().as_str()), (Some(130), to), "{said}");
    let mut child = slow_move(&rack, &guest, &from);
    interrupt(&child);
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    // Its answer to the first: a second one that comes too early would count as the same.
    while !line.contains("once more") {
        line.clear();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "it ended at the first");
    }
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(in_one_place(&rack, &guest.name), to);
    assert_eq!(guest.counts().0, boot);
}

#[test]
fn a_command_killed_in_the_middle_is_finished_by_the_same_command() {
    let rack = Rack::provisioned();
    let guest = rack.tiny_guest("mover", &[]);
    let (boot, counter) = guest.answers();
    let to = others(&guest)[0];
    let mut child = slow_move(&rack, &guest, to);
    child.kill().unwrap();
    child.wait().unwrap();
    let answer = rack.json(&["migrate", &guest.name, "--to", to, "--yes"]);
    assert_eq!(guest.host(), to, "{answer}");
    assert_eq!(in_one_place(&rack, &guest.name), to);
    let (same, now) = guest.counts();
    assert!(same == boot && now > counter);
    // Nothing is left to finish.
    let again = rack.json(&["migrate", &guest.name, "--to", to, "--yes"]);
    assert_eq!(again["plan"]["unchanged"][0]["guest"], "mover", "{again}");
}

#[test]
fn the_target_is_chosen_once_even_by_a_command_that_is_killed() {
    let rack = Rack::provisioned();
    let guest = rack.tiny_guest("mover", &[]);
    guest.answers();
    let to = others(&guest)[0];
    let mut child = slow_move(&rack, &guest, to);
    child.kill().unwrap();
    child.wait().unwrap();
    // Without --to the guest is where it shall be once the move of the killed one has ended.
    let answer = rack.json(&["migrate", &guest.name, "--yes"]);
    assert_eq!(answer["plan"]["unchanged"][0]["host"], to, "{answer}");
    assert_eq!(in_one_place(&rack, &guest.name), to);
}

#[test]
fn two_commands_that_move_the_same_guest_take_turns() {
    let rack = Rack::provisioned();
    let guest = rack.tiny_guest("mover", &[]);
    let (boot, counter) = guest.answers();
    let [first, second] = others(&guest)[..] else { panic!("three hosts") };
    let child = slow_move(&rack, &guest, first);
    let answer = rack.json(&["migrate", &guest.name, "--to", second, "--yes"]);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!((&answer["guests"][0]["from"], &answer["guests"][0]["to"]), (&first.into(), &second.into()), "{answer}");
    assert_eq!(in_one_place(&rack, &guest.name), second);
    let (same, now) = guest.counts();
    assert!(same == boot && now > counter);
}

#[test]
fn a_host_is_emptied_refuses_guests_and_gets_them_back() {
    let rack = Rack::provisioned();
    let guests = ["mover-a", "mover-b"].map(|name| rack.tiny_guest(name, &[]));
    let before: Vec<(String, u64)> = guests.iter().map(Guest::answers).collect();
    let home = guests[0].host();
    let plan = rack.json(&["evacuate", &home, "--dry-run"]);
    assert!(plan["moves"].as_array().is_some_and(|m| !m.is_empty()), "{plan}");
    assert_eq!(guests[0].host(), home, "a dry run moves nothing");
    rack.ok(&["evacuate", &home, "--return-later", "--yes"]);
    assert!(rack.ssh(&home, "virsh -q list --name").trim().is_empty());
    let away = guests[0].host();
    assert_ne!(away, home);
    let output = rack.exits(5, &["migrate", "mover-a", "--to", &home, "--yes"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("in maintenance"));
    rack.ok(&["return", &home, "--yes"]);
    assert_eq!(guests[0].host(), home);
    for (guest, (boot, counter)) in guests.iter().zip(before) {
        let (same, now) = guest.counts();
        assert!(same == boot && now > counter);
    }
}
