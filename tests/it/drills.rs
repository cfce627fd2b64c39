//! Faults of a rack, each staged while the watch runs: what may be started elsewhere is, what is not lost is left alone,
//! and each guest's disk tells one history. `make drills` runs them.

use crate::rack::{Guest, Rack, say};
use crate::terminal::eventually;
use crate::watching::{Watch, boots, comes_back, counts_on_elsewhere, on};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// How long a fault lasts that must not be taken for a death.
const SPELL: Duration = Duration::from_secs(12);
/// Longer than a recovery takes on a busy machine.
const RECOVERY: Duration = Duration::from_secs(180);

/// A guest on the host, and what it counted.
fn guest_on<'a>(rack: &'a Rack, host: &str) -> (Guest<'a>, (String, u64)) {
    let guest = rack.tiny_guest("drilled", &[]);
    on(rack, &guest, host);
    let before = guest.counts();
    (guest, before)
}

/// The guest's disk was written by these boots alone, the last one at last.
fn one_history(guest: &Guest<'_>, last: &str) {
    let history = guest.stopped_history();
    assert_eq!(boots(&history).last(), Some(&last));
}

/// Nothing was fenced, and the guest runs on as it was.
fn left_alone(rack: &Rack, watch: &Watch, guest: &Guest<'_>, before: &(String, u64)) {
    let fenced = rack.json(&["fence", "list"]);
    assert!(!fenced.to_string().contains("\"h1\""), "{fenced}\n{}", watch.story());
    let (boot, now) = guest.counts();
    assert!(boot == before.0 && now > before.1, "{}", watch.story());
    one_history(guest, &boot);
}

/// Waits until all hosts answer again.
fn all_answer(rack: &Rack) {
    eventually("all hosts to answer", RECOVERY, || {
        let status = rack.json(&["status"]);
        let hosts = status["hosts"].as_array()?;
        hosts.iter().all(|host| host["reachable"] == true).then_some(())
    });
}

/// For as long as the fault lasts the host is not called dead.
fn not_dead_for(watch: &Watch, host: &str) {
    let end = Instant::now() + SPELL;
    while Instant::now() < end {
        assert!(watch.told("fenced", host).is_none(), "{}", watch.story());
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn management_network_lost_is_told_and_nothing_is_fenced() {
    let rack = Rack::provisioned();
    let watch = Watch::leading(&rack);
    let (guest, before) = guest_on(&rack, "h1");
    rack.lab(&["partition", "h1", "--from", "management"]);
    watch.tells("verdict", "h1", RECOVERY);
    not_dead_for(&watch, "h1");
    rack.lab(&["heal", "h1"]);
    all_answer(&rack);
    left_alone(&rack, &watch, &guest, &before);
}

#[test]
fn storage_network_lost_ends_with_the_guest_elsewhere() {
    let rack = Rack::provisioned();
    let watch = Watch::leading(&rack);
    let (guest, before) = guest_on(&rack, "h1");
    let cut = Instant::now();
    rack.lab(&["partition", "h1", "--from", "storage"]);
    let after = counts_on_elsewhere(&guest, &before, "h1");
    say(&format!("storage network lost: the guest answers after {:.1} s", cut.elapsed().as_secs_f64()));
    rack.lab(&["heal", "h1"]);
    watch.tells("power", "h1", RECOVERY);
    comes_back(&rack, "h1");
    assert_eq!(guest.counts().0, after.0, "{}", watch.story());
    drop(watch);
    one_history(&guest, &after.0);
}

#[test]
fn both_networks_lost_ends_with_one_copy_when_the_host_is_back() {
    let rack = Rack::provisioned();
    let watch = Watch::leading(&rack);
    let (guest, before) = guest_on(&rack, "h1");
    let cut = Instant::now();
    rack.lab(&["partition", "h1", "--from", "all"]);
    let after = counts_on_elsewhere(&guest, &before, "h1");
    say(&format!("both networks lost: the guest answers after {:.1} s", cut.elapsed().as_secs_f64()));
    // Its BMC has a cable of its own, so that the watch switched it off.
    watch.tells("power", "h1", RECOVERY);
    rack.lab(&["heal", "h1"]);
    comes_back(&rack, "h1");
    assert_eq!(guest.counts().0, after.0, "{}", watch.story());
    drop(watch);
    one_history(&guest, &after.0);
}

#[test]
fn a_stopped_sshd_is_not_a_dead_host() {
    let rack = Rack::provisioned();
    let watch = Watch::leading(&rack);
    let (guest, before) = guest_on(&rack, "h1");
    // All of them at once, those of standing sessions as well; the host itself lets them go on again.
    let script = "sleep 0.5; pkill -STOP -x sshd; sleep 12; pkill -CONT -x sshd";
    rack.ssh("h1", &format!("setsid sh -c '{script}' >/dev/null 2>&1 </dev/null &"));
    not_dead_for(&watch, "h1");
    all_answer(&rack);
    left_alone(&rack, &watch, &guest, &before);
}

#[test]
fn a_dead_libvirt_leaves_its_guests_alone() {
    let rack = Rack::provisioned();
    let watch = Watch::leading(&rack);
    let (guest, before) = guest_on(&rack, "h1");
    rack.ssh("h1", "systemctl kill -s KILL libvirtd virtqemud 2>/dev/null; true");
    not_dead_for(&watch, "h1");
    left_alone(&rack, &watch, &guest, &before);
}

#[test]
fn a_host_that_reboots_at_once_ends_with_its_guest_in_one_place() {
    let rack = Rack::provisioned();
    let watch = Watch::leading(&rack);
    let (guest, before) = guest_on(&rack, "h1");
    rack.lab(&["power", "reset", "h1"]);
    // Whether it was fenced depends on how quickly it boots; the guest runs once in either case, once somebody says start.
    eventually("h1 to answer, and to be let in where it was fenced", RECOVERY, || {
        let fenced = rack.run(&["readmit", "h1", "--yes"]);
        matches!(fenced.status.code(), Some(0 | 5)).then_some(())
    });
    rack.recovers();
    rack.ok(&["guest", "start", &guest.name]);
    let (boot, now) = guest.counts();
    assert!(boot != before.0 && now > before.1, "{}", watch.story());
    assert_eq!(rack.places(&guest.name).len(), 1);
    drop(watch);
    one_history(&guest, &boot);
}

#[test]
fn a_killed_leader_is_followed_by_the_standby_which_finishes() {
    let rack = Rack::provisioned();
    let leader = Watch::leading(&rack);
    let standby = Watch::start(&rack);
    let (guest, before) = guest_on(&rack, "h1");
    rack.lab(&["cut", "h1"]);
    leader.tells("verdict", "h1", RECOVERY);
    leader.dies();
    let killed = Instant::now();
    let after = counts_on_elsewhere(&guest, &before, "h1");
    say(&format!("leader killed at the verdict: the guest answers {:.1} s later", killed.elapsed().as_secs_f64()));
    standby.tells("power", "h1", RECOVERY);
    comes_back(&rack, "h1");
    assert_eq!(guest.counts().0, after.0, "{}", standby.story());
    drop(standby);
    one_history(&guest, &after.0);
}

#[test]
fn a_watcher_killed_at_ten_moments_is_finished_by_the_next() {
    let rack = Rack::provisioned();
    for moment in 0..10 {
        let watch = Watch::leading(&rack);
        let (guest, before) = guest_on(&rack, "h1");
        rack.lab(&["cut", "h1"]);
        // Through suspicion, verdict, fence and restarts: a step of a third of a second each time.
        std::thread::sleep(Duration::from_millis(300 * moment));
        watch.dies();
        let next = Watch::start(&rack);
        let after = counts_on_elsewhere(&guest, &before, "h1");
        next.tells("power", "h1", RECOVERY);
        comes_back(&rack, "h1");
        assert_eq!(guest.counts().0, after.0, "killed after {} ms\n{}", 300 * moment, next.story());
        drop(next);
        one_history(&guest, &after.0);
    }
}

/// Cuts a host while the guest moves from h1 to h2, and gives what it counted afterwards.
fn cut_in_a_move(lost: &str) {
    let rack = Rack::provisioned();
    let watch = Watch::leading(&rack);
    let (guest, before) = guest_on(&rack, "h1");
    let mut command = rack.command(&["migrate", &guest.name, "--to", "h2", "--bandwidth", "4", "--yes"]);
    let mut moving = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("memory under way", Duration::from_secs(30), || {
        let job = rack.ssh("h1", &format!("virsh domjobinfo {} || true", guest.name));
        let done = job.lines().find(|l| l.starts_with("Memory processed:"))?;
        (!done.contains(" 0.000 ")).then_some(())
    });
    rack.lab(&["cut", lost]);
    watch.tells("power", lost, RECOVERY);
    let _ = moving.wait();
    let (boot, now) = eventually("the guest to count on", RECOVERY, || {
        guest.answer().filter(|(boot, now)| *now > before.1 && (lost == "h2" || *boot != before.0))
    });
    assert!(now > before.1, "{}", watch.story());
    assert!(lost == "h1" || boot == before.0, "it booted anew though its host lives\n{}", watch.story());
    comes_back(&rack, lost);
    assert_eq!(guest.counts().0, boot, "{}", watch.story());
    assert_eq!(rack.places(&guest.name).len(), 1);
    drop(watch);
    one_history(&guest, &boot);
}

#[test]
fn the_source_of_a_move_is_cut() {
    cut_in_a_move("h1");
}

#[test]
fn the_target_of_a_move_is_cut() {
    cut_in_a_move("h2");
}

#[test]
fn two_of_three_hosts_lost_starts_nothing_until_they_are_back() {
    let rack = Rack::provisioned();
    let watch = Watch::leading(&rack);
    let (guest, before) = guest_on(&rack, "h1");
    rack.lab(&["cut", "h1"]);
    rack.lab(&["cut", "h2"]);
    watch.tells("suspected", "h1", RECOVERY);
    std::thread::sleep(SPELL);
    assert!(guest.answer().is_none(), "{}", watch.story());
    assert!(rack.ssh("h3", "virsh -q list --name").trim().is_empty(), "{}", watch.story());
    for host in ["h1", "h2"] {
        rack.lab(&["power", "on", host]);
    }
    eventually("both hosts to take part again", Duration::from_secs(400), || {
        let let_in = |host: &str| matches!(rack.run(&["readmit", host, "--yes"]).status.code(), Some(0 | 5));
        (let_in("h1") && let_in("h2")).then_some(())
    });
    rack.recovers();
    rack.ok(&["guest", "start", &guest.name]);
    let (boot, now) = guest.counts();
    assert!(boot != before.0 && now > before.1, "{}", watch.story());
    assert_eq!(rack.places(&guest.name).len(), 1);
    drop(watch);
    one_history(&guest, &boot);
}
