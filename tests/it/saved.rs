//! A provisioned rack whose guests run is saved and brought up again: nothing that was acknowledged is missing.

use crate::rack::{Guest, Rack};
use crate::terminal::eventually;
use std::time::Duration;

/// Monitors, OSDs and libvirt after a boot of all hosts at once.
const CLUSTER: Duration = Duration::from_secs(180);

/// Starts the guest and waits until it counts on from where it was.
fn counts_on(rack: &Rack, guest: &Guest<'_>, before: &(String, u64)) -> (String, u64) {
    eventually("the guest to start", CLUSTER, || {
        rack.run(&["guest", "start", &guest.name]).status.success().then_some(())
    });
    let now = guest.counts();
    assert!(now.0 != before.0 && now.1 > before.1, "{now:?} after {before:?}");
    now
}

#[test]
fn a_rack_is_saved_with_guests_that_run_and_comes_up_as_it_was() {
    let rack = Rack::provisioned();
    let guest = rack.tiny_guest("kept", &[]);
    let first = guest.counts();
    let saved = format!("{}-kept", rack.name);
    rack.lab(&["save", &saved, "--replace"]);
    // The rack runs on; its guests were shut down with it.
    assert_eq!(rack.guest("kept")["state"], "stopped");
    let second = counts_on(&rack, &guest, &first);
    rack.lab(&["down"]);
    rack.lab(&["up", "--from", &saved]);
    let third = counts_on(&rack, &guest, &first);
    assert_ne!(second.0, third.0);
    rack.lab(&["forget", &saved]);
}
