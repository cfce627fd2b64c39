//! What the watch does when something happens to a rack.

use super::bench::Bench;
use crate::watch::brain::{Action, EventKind, Input, LeaseState, Phase, State, Work};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_dead_host_is_suspected_after_four_tenths_of_a_second_and_fenced_after_nine() {
    for hosts in [3, 4, 9, 40] {
        let mut bench = Bench::settled(hosts);
        let cut = bench.now;
        bench.dead.insert("h01".into());
        bench.run(SECOND * 2);
        let nudged = bench.when(|action| matches!(action, Action::Nudge { .. })).unwrap() - cut;
        let fenced = bench.when(|action| matches!(action, Action::Fence { .. })).unwrap() - cut;
        assert!(nudged <= Duration::from_millis(450), "nudged after {nudged:?}");
        assert!(fenced <= Duration::from_millis(950), "{hosts} hosts: fenced after {fenced:?}");
        assert_eq!(bench.fences(), ["h01"]);
    }
}

#[test]
fn an_incident_goes_from_the_fence_to_the_quarantine_and_ends_with_readmit() {
    let mut bench = Bench::settled(3);
    bench.dead.insert("h02".into());
    bench.run(SECOND * 2);
    let host = || "h02".to_owned();
    bench.tell(&Input::FenceFailed { host: host(), why: "an OSD is late".into(), nothing_done: false });
    bench.run(SECOND * 2);
    assert_eq!(bench.fences(), ["h02", "h02"], "asked for again");
    assert!(bench.when(|action| matches!(action, Action::Recover { .. })).is_none());
    bench.tell(&Input::FenceDone { host: host(), proof: "epoch 9".into() });
    assert!(bench.when(|action| matches!(action, Action::Recover { .. })).is_some());
    bench.tell(&Input::RecoveryDone { host: host(), started: 1, waiting: vec!["g2: no room".into()] });
    assert_eq!(bench.brain.phase("h02"), Phase::Recovering);
    bench.run(SECOND * 2);
    bench.tell(&Input::RecoveryDone { host: host(), started: 1, waiting: vec![] });
    assert_eq!(bench.brain.phase("h02"), Phase::Quarantined);
    bench.dead.clear();
    bench.run(SECOND * 2);
    assert_eq!(bench.brain.phase("h02"), Phase::Quarantined, "a host that returns stays shut out");
    assert!(bench.told().iter().any(|(_, kind, _)| *kind == EventKind::Returned));
    bench.tell(&Input::Readmitted { host: host() });
    assert_eq!(bench.brain.phase("h02"), Phase::Watched);
}

#[test]
fn nothing_is_fenced_when_all_hosts_fall_silent_or_mons_or_peers_do_not_answer() {
    let mut all = Bench::settled(5);
    all.deaf = all.hosts.iter().cloned().collect();
    let mut mons = Bench::settled(5);
    mons.dead.insert("h05".into());
    mons.mons_answer = false;
    let mut peers = Bench::settled(3);
    peers.dead.insert("h03".into());
    peers.mute.insert("h01".into());
    let mut many = Bench::settled(5);
    many.dead.extend(["h04".into(), "h05".into()]);
    let mut disarmed = Bench::settled(3);
    disarmed.dead.insert("h03".into());
    disarmed.tell(&Input::Armed(false));
    let mut maintained = Bench::settled(3);
    maintained.dead.insert("h03".into());
    maintained.tell(&Input::Maintenance { host: "h03".into(), on: true });
    for (what, bench) in [
        ("all silent", &mut all),
        ("no mons", &mut mons),
        ("one peer", &mut peers),
        ("two of five", &mut many),
        ("disarmed", &mut disarmed),
        ("maintenance", &mut maintained),
    ] {
        bench.run(SECOND * 60);
        assert!(bench.fences().is_empty(), "{what}");
    }
    let held = |bench: &Bench, word: &str| {
        assert!(bench.told().iter().any(|(_, kind, text)| *kind == EventKind::Held && text.contains(word)), "{word}");
    };
    held(&mons, "no quorum");
    held(&many, "at once");
    held(&disarmed, "disarmed");
    many.tell(&Input::Release);
    many.run(SECOND);
    assert_eq!(many.fences(), ["h04", "h05"]);
}

#[test]
fn a_host_that_somebody_reaches_is_not_dead() {
    let mut here = Bench::settled(3);
    here.deaf.insert("h02".into());
    let mut management = Bench::settled(4);
    management.cut_management.insert("h02".into());
    for (bench, state) in [(&mut here, State::UnreachableFromHere), (&mut management, State::ManagementCut)] {
        bench.run(SECOND * 60);
        assert!(bench.fences().is_empty());
        let verdict = bench.brain.verdict(bench.now, "h02");
        assert_eq!(verdict.state, state, "{verdict:?}");
    }
}

#[test]
fn a_host_without_storage_has_its_guests_stopped_before_it_is_fenced() {
    let mut bench = Bench::settled(4);
    bench.cut_storage.insert("h02".into());
    bench.run(SECOND * 10);
    assert!(bench.when(|action| matches!(action, Action::StopGuests { host } if host == "h02")).is_some());
    assert!(bench.fences().is_empty());
    bench.tell(&Input::GuestsStopped { host: "h02".into() });
    bench.run(SECOND);
    assert_eq!(bench.fences(), ["h02"]);
    // The whole storage network: nobody's word counts, and nobody is fenced.
    let mut all = Bench::settled(4);
    all.cut_storage = all.hosts.iter().cloned().collect();
    all.run(SECOND * 60);
    assert!(all.fences().is_empty() && all.when(|action| matches!(action, Action::StopGuests { .. })).is_none());
}

#[test]
fn slow_is_not_dead() {
    let mut slow = Bench::settled(3);
    slow.disk = Work::Late;
    slow.run(SECOND * 60);
    assert!(slow.fences().is_empty());
    assert_eq!(slow.seen.iter().filter(|(_, action)| matches!(action, Action::Drain { .. })).count(), 1);
    // What did not move is tried again, less and less often, while it stays slow.
    for (fails, seconds, drains) in [(true, 50, 1), (false, 20, 2), (true, 110, 2), (false, 20, 3)] {
        if fails {
            slow.tell(&Input::DrainFailed { host: "h01".into() });
        }
        slow.run(SECOND * seconds);
        let asked = slow.seen.iter().filter(|(_, action)| matches!(action, Action::Drain { .. })).count();
        assert_eq!(asked, drains, "{seconds}");
    }
    let mut stuck = Bench::settled(3);
    stuck.libvirt = Work::Failed("no socket".into());
    stuck.run(SECOND * 60);
    let mends = stuck.seen.iter().filter(|(_, action)| matches!(action, Action::MendLibvirt { .. })).count();
    assert_eq!(mends, 1, "once, and not before it has not answered for long");
    assert_eq!(stuck.brain.verdict(stuck.now, "h01").state, State::Stuck);
    assert!(stuck.fences().is_empty());
}

#[test]
fn a_watcher_that_overslept_forgets_and_says_so() {
    let mut bench = Bench::settled(3);
    bench.now += SECOND * 1000;
    bench.tell(&Input::Tick);
    bench.run(SECOND * 10);
    assert!(bench.fences().is_empty());
    assert!(bench.told().iter().any(|(_, kind, _)| *kind == EventKind::Overslept));
    assert!(bench.told().iter().all(|(_, kind, _)| *kind != EventKind::Suspected), "{:?}", bench.told());
}

#[test]
fn many_short_pauses_never_make_a_host_dead() {
    let mut bench = Bench::settled(3);
    for _ in 0..3 {
        bench.now += SECOND;
        bench.tell(&Input::Tick);
    }
    assert!(bench.fences().is_empty());
    assert!(bench.told().iter().all(|(_, kind, _)| *kind != EventKind::Judged), "{:?}", bench.told());
}

#[test]
fn only_the_watcher_that_leads_acts_and_a_standby_goes_on_at_once() {
    let mut bench = Bench::settled(3);
    let free_at = bench.now + SECOND * 4;
    bench.lease = Some(LeaseState::Taken { holder: "other".into(), free_at });
    bench.dead.insert("h03".into());
    bench.run(SECOND * 3);
    assert!(bench.fences().is_empty());
    bench.lease = Some(LeaseState::Stalled);
    bench.run(SECOND / 2);
    assert!(bench.fences().is_empty(), "the other one may still hold it");
    bench.run(SECOND);
    assert_eq!(bench.fences(), ["h03"], "storage stands still until the host is fenced");
    bench.tell(&Input::FenceDone { host: "h03".into(), proof: "epoch 9".into() });
    bench.run(SECOND);
    assert!(
        bench.when(|action| matches!(action, Action::Recover { .. })).is_none(),
        "no guest starts without the lease"
    );
    bench.lease = Some(LeaseState::Held { until: SECOND * 3600, generation: 2 });
    bench.run(SECOND);
    assert!(bench.when(|action| matches!(action, Action::Recover { .. })).is_some());
}

#[test]
fn an_incident_of_another_watcher_is_gone_on_with() {
    let mut bench = Bench::settled(3);
    bench.tell(&Input::Incident { host: "h02".into(), phase: Phase::Fencing });
    bench.run(SECOND);
    assert_eq!(bench.fences(), ["h02"]);
    bench.tell(&Input::Incident { host: "h03".into(), phase: Phase::Recovering });
    assert!(bench.when(|action| matches!(action, Action::Recover { host } if host == "h03")).is_some());
}

#[test]
fn a_host_that_was_booted_anew_before_it_was_fenced_has_its_guests_looked_after() {
    let mut bench = Bench::settled(3);
    let restarts = |bench: &Bench| {
        let is_it = |action: &Action| matches!(action, Action::RestartGuests { host } if host == "h02");
        bench.seen.iter().filter(|(_, action)| is_it(action)).count()
    };
    let booted = |id: &str| Input::Booted { host: "h02".into(), boot_id: id.into() };
    bench.tell(&Input::Restarted { host: "h02".into(), waiting: vec![] });
    bench.tell(&booted("one"));
    bench.tell(&booted("one"));
    bench.run(SECOND);
    assert_eq!(restarts(&bench), 0, "the same boot");
    bench.tell(&booted("two"));
    assert_eq!(restarts(&bench), 1);
    bench.run(SECOND);
    assert_eq!(restarts(&bench), 1, "it is under way");
    bench.tell(&Input::Restarted { host: "h02".into(), waiting: vec!["g1: no room".into()] });
    bench.run(SECOND * 5);
    assert_eq!(restarts(&bench), 2, "and tried again");
}

#[test]
fn a_host_that_is_well_again_before_it_was_fenced_is_left_alone() {
    let mut bench = Bench::settled(3);
    bench.dead.insert("h02".into());
    bench.run(SECOND * 2);
    assert_eq!(bench.fences(), ["h02"]);
    bench.dead.clear();
    bench.run(SECOND);
    bench.tell(&Input::FenceFailed { host: "h02".into(), why: "no quorum".into(), nothing_done: true });
    bench.run(SECOND * 10);
    assert_eq!(bench.fences(), ["h02"]);
    assert_eq!(bench.brain.phase("h02"), Phase::Watched);
}

#[test]
fn after_a_pause_nothing_is_done_before_the_watch_is_known_to_be_armed() {
    let mut bench = Bench::settled(3);
    bench.now += SECOND * 100;
    bench.tell(&Input::Tick);
    bench.run(SECOND * 8);
    bench.dead.insert("h02".into());
    bench.run(SECOND * 3);
    assert!(bench.fences().is_empty());
    bench.tell(&Input::Armed(true));
    bench.run(SECOND);
    assert_eq!(bench.fences(), ["h02"]);
}
