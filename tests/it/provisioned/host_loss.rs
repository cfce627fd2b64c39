//! A host loses its power: its guests run elsewhere, with everything they were told was written, and never twice.

use crate::rack::{Rack, say};
use crate::watching::{Watch, boots, comes_back, counts_on_elsewhere, on};
use std::time::{Duration, Instant};

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
