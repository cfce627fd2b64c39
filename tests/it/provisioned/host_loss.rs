//! A host loses its power: its guests run elsewhere, with everything they were told was written, and never twice.

use crate::rack::{Guest, Rack, say};
use crate::terminal::eventually;
use rackhand::lab::guest_image::Record;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longer than a host takes to boot and its OSD to come up, on a busy machine.
const BOOT: Duration = Duration::from_secs(240);

/// `rackhand watch`, with what it has told so far; ended with the value.
struct Watch {
    child: Child,
    told: Arc<Mutex<Vec<Value>>>,
}

impl Watch {
    /// Starts it, and waits until it leads.
    fn leading(rack: &Rack) -> Watch {
        let mut command = rack.command(&["watch", "--events", "json"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let (from, to) = (child.stderr.take().unwrap(), Arc::clone(&told));
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
                to.lock().unwrap().push(event);
            }
        });
        let watch = Watch { child, told };
        eventually("the watch to lead", Duration::from_secs(90), || {
            let status = rack.run(&["watch", "status"]);
            status.status.success().then_some(())
        });
        watch
    }

    /// Waits until it has told of something of this kind.
    fn tells(&self, kind: &str, host: &str, patience: Duration) -> Value {
        eventually(&format!("{kind} of {host}"), patience, || {
            let told = self.told.lock().unwrap();
            told.iter().find(|event| event["kind"] == kind && event["host"] == host).cloned()
        })
    }

    /// All it has told, for the message of a test that fails.
    fn story(&self) -> String {
        self.told.lock().unwrap().iter().map(|event| format!("{event}\n")).collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

/// Moves the guest to the host unless it is there.
fn on(rack: &Rack, guest: &Guest, host: &str) {
    if guest.host() != host {
        rack.ok(&["migrate", &guest.name, "--to", host, "--yes"]);
    }
}

/// Waits until the guest counts on after a boot elsewhere, from all that it had answered before.
fn counts_on_elsewhere(guest: &Guest, before: &(String, u64), lost: &str) -> (String, u64) {
    let now = eventually(&format!("{} to count on elsewhere", guest.name), Duration::from_secs(120), || {
        guest.answer().filter(|(boot, _)| *boot != before.0)
    });
    assert!(now.1 > before.1, "{now:?} after {before:?}: what was answered is lost");
    assert_ne!(guest.host(), lost);
    now
}

/// Gives the host its power back, and lets it in again once it answers.
fn comes_back(rack: &Rack, host: &str) {
    rack.lab(&["power", "on", host]);
    eventually(&format!("{host} to be let in again"), BOOT, || {
        rack.run(&["readmit", host, "--yes"]).status.success().then_some(())
    });
    rack.recovers();
    let fenced = rack.json(&["fence", "list"]);
    assert!(!fenced.to_string().contains(&format!("\"{host}\"")), "{fenced}");
}

/// The disk was written by one boot after the other, in this order.
fn boots(history: &[Record]) -> Vec<&str> {
    let mut seen = BTreeSet::new();
    history.iter().map(|record| record.boot.as_str()).filter(|boot| seen.insert(*boot)).collect()
}

#[test]
fn a_lost_host_is_failed_over_by_hand_and_let_in_again() {
    let rack = Rack::provisioned();
    let lost = "h3";
    let guest = rack.tiny_guest("survivor", &[]);
    on(&rack, &guest, lost);
    let output = rack.exits(5, &["failover", lost, "--yes"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("h3 answers: it is not lost"));
    let before = guest.counts();
    rack.lab(&["cut", lost]);
    let outcome = rack.json(&["failover", lost, "--yes"]);
    assert_eq!(outcome["started"][0]["guest"], "survivor", "{outcome}");
    let after = counts_on_elsewhere(&guest, &before, lost);
    say(&format!(
        "failover by hand: shut out after {} ms, started after {} ms",
        outcome["fenced_after_ms"], outcome["started_after_ms"]
    ));
    // Neither again, nor onto the host that is shut out.
    let again = rack.json(&["failover", lost, "--yes"]);
    assert_eq!(again["started"].as_array().map(Vec::len), Some(0), "{again}");
    rack.exits(5, &["migrate", "survivor", "--to", lost, "--yes"]);
    comes_back(&rack, lost);
    assert_eq!(guest.counts().0, after.0, "it booted anew when the host came back");
    on(&rack, &guest, lost);
    assert_eq!(guest.counts().0, after.0);
    let history = guest.stopped_history();
    assert_eq!(boots(&history).last(), Some(&after.0.as_str()));
}

#[test]
fn the_watch_starts_the_guests_of_a_host_that_lost_its_power_elsewhere() {
    let rack = Rack::provisioned();
    // It carries a mon (the first is the leader), an OSD, and the guest.
    let lost = "h1";
    let guest = rack.tiny_guest("survivor", &[]);
    on(&rack, &guest, lost);
    let watch = Watch::leading(&rack);
    let before = guest.counts();
    rack.lab(&["cut", lost]);
    let cut = Instant::now();
    let after = counts_on_elsewhere(&guest, &before, lost);
    say(&format!("the watch: the guest answers {:.1} s after the cut", cut.elapsed().as_secs_f64()));
    let evidence = watch.tells("verdict", lost, Duration::from_secs(1));
    assert!(evidence["message"].as_str().is_some_and(|why| why.contains("h2") && why.contains("h3")), "{evidence}");
    // Until then it tries to switch the host off, and would do so as soon as that has power.
    watch.tells("power", lost, Duration::from_secs(120));
    let incidents = rack.json(&["incident", "list"]);
    let incident =
        incidents["incidents"].as_array().and_then(|all| all.iter().find(|one| one["host"] == lost)).cloned();
    assert!(incident.is_some(), "{incidents}\n{}", watch.story());
    comes_back(&rack, lost);
    assert_eq!(guest.counts().0, after.0, "{}", watch.story());
    drop(watch);
    let history = guest.stopped_history();
    assert_eq!(boots(&history).last(), Some(&after.0.as_str()));
}
