//! The executor on a fake rack.

use super::*;
use crate::cluster::{ClusterPort, FakeCluster};
use crate::error::Kind;
use crate::guest::claim::{self, Claim, Phase, Run};
use crate::guest::{Guest, GuestContext, Maintenance, sample_guest, set_maintenance};
use crate::inventory;
use crate::libvirt::{DomainState, FakeFault, FakeRack, JobOperation, MigrateParams};
use crate::ssh::{FakeRemote, Fleet, Remote};
use crate::ui::CancelLevel;
use crate::ui::Ui;
use std::sync::Arc;
use tokio::sync::watch;
use uuid::Uuid;

const INVENTORY: &str = "
cluster: { name: test, fsid: 96f6d643-da93-4f34-83ea-d8d4895a3d63 }
networks:
  management: { cidr: 10.0.0.0/24 }
  storage: { cidr: 10.1.0.0/24, speed: 10G }
hosts:
  - { name: h1, address: 10.0.0.1, storage_address: 10.1.0.1, osds: [/dev/loop1] }
  - { name: h2, address: 10.0.0.2, storage_address: 10.1.0.2, osds: [/dev/loop2] }
  - { name: h3, address: 10.0.0.3, storage_address: 10.1.0.3, osds: [/dev/loop3] }
";

struct Bench {
    rack: GuestContext,
    fake: FakeRack,
    guests: Vec<Guest>,
    hurry: watch::Sender<CancelLevel>,
}

const OPTIONS: Options =
    Options { bandwidth: None, max_downtime: std::time::Duration::from_millis(500), link: None, deadline: None };

/// Three hosts, with these guests running on the first.
async fn bench(names: &[&str], remote: impl Fn(FakeRemote) -> FakeRemote) -> Bench {
    let inventory = inventory::parse("inventory.yaml", INVENTORY).unwrap();
    let fake = FakeRack::new(["h1", "h2", "h3"]);
    let port = FakeCluster::new();
    let mut guests = Vec::new();
    for name in names {
        let guest = sample_guest(name);
        port.create(&Guest::object(guest.uuid), &crate::cluster::encode(&guest).unwrap()).await.unwrap();
        fake.put("h1", name, guest.uuid);
        let running = Claim::default().starting("h1", &Run::new()).running("h1");
        claim::swap(&port, guest.uuid, &Claim::default(), &running).await.unwrap();
        guests.push(guest);
    }
    for host in &inventory.hosts {
        fake.address(&host.storage_address.to_string(), &host.name);
    }
    let remotes = inventory.hosts.iter().map(|h| Arc::new(remote(FakeRemote::new(&h.name))) as Arc<dyn Remote>);
    let rack = GuestContext {
        port: Arc::new(port),
        hypervisors: fake.hypervisors(),
        fleet: Fleet::of(remotes),
        inventory: Arc::new(inventory),
        ui: Ui::hidden(),
        run: Run::new(),
        turns: Arc::default(),
    };
    let (hurry, _) = watch::channel(CancelLevel::None);
    Bench { rack, fake, guests, hurry }
}

fn sees_all(remote: FakeRemote) -> FakeRemote {
    remote.on("full size", "")
}

impl Bench {
    async fn evacuate(&self, host: &str) -> Report {
        let cancel_level = self.hurry.subscribe();
        let evacuation = Evacuation::plan(&self.rack, host, &OPTIONS, &cancel_level, true).await.unwrap();
        let evacuation = evacuation.begin(&self.rack, true, &OPTIONS, &cancel_level).await.unwrap();
        execute(&self.rack, &evacuation.plan, &OPTIONS, cancel_level).await
    }

    async fn claim(&self, uuid: Uuid) -> (Phase, Option<String>) {
        let claim = claim::read(self.rack.port(), uuid).await.unwrap();
        (claim.phase, claim.host)
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_is_emptied_and_gets_back_what_left() {
    let bench = bench(&["a", "b", "c", "d"], sees_all).await;
    let report = bench.evacuate("h1").await;
    assert_eq!(report.moved().count(), 4, "{}", report.render());
    assert!(report.failure().is_none());
    for guest in &bench.guests {
        let places = bench.fake.places(guest.uuid);
        assert!(places.len() == 1 && places[0].0 != "h1", "{places:?}");
        assert_eq!(bench.claim(guest.uuid).await, (Phase::Running, Some(places[0].0.clone())));
    }
    // Somebody stops one meanwhile: it stays where it is.
    let cancel_level = bench.hurry.subscribe();
    let host = bench.fake.places(bench.guests[0].uuid)[0].0.clone();
    bench.fake.end(&host, bench.guests[0].uuid);
    let home = ReturnPlan::plan(&bench.rack, "h1", &OPTIONS, &cancel_level, true).await.unwrap();
    home.begin(&bench.rack).await.unwrap();
    let report = execute(&bench.rack, &home.plan, &OPTIONS, cancel_level.clone()).await;
    home.end(&bench.rack, &[]).await.unwrap();
    assert_eq!(report.moved().count(), 3, "{}", report.render());
    assert!(bench.guests[1..].iter().all(|g| bench.fake.places(g.uuid) == [("h1".to_owned(), DomainState::Running)]));
    let again = ReturnPlan::plan(&bench.rack, "h1", &OPTIONS, &cancel_level, true).await.unwrap();
    assert!(again.plan.is_empty() && again.plan.unchanged.is_empty(), "{:?}", again.plan);
}

#[tokio::test(start_paused = true)]
async fn a_move_that_stands_still_is_aborted_and_leaves_one_copy() {
    for fault in [FakeFault::MoveStalls, FakeFault::MoveLeavesCopy] {
        let bench = bench(&["a"], sees_all).await;
        bench.fake.fault("h1", fault);
        let report = bench.evacuate("h1").await;
        let failure = report.failure().unwrap();
        assert_eq!(failure.kind, Kind::Partial);
        assert!(failure.to_string().contains("no progress for 30 s"), "{failure}");
        assert_eq!(bench.fake.places(bench.guests[0].uuid), [("h1".to_owned(), DomainState::Running)], "{fault:?}");
        assert_eq!(bench.claim(bench.guests[0].uuid).await, (Phase::Running, Some("h1".into())));
    }
}

#[tokio::test(start_paused = true)]
async fn an_emulated_guest_that_stands_still_for_the_switch_is_sent_without_a_limit() {
    for bandwidth in [None, Some(6)] {
        let mut bench = bench(&["a"], sees_all).await;
        bench.guests[0].machine.virt = "qemu".into();
        let (object, text) = (Guest::object(bench.guests[0].uuid), crate::cluster::encode(&bench.guests[0]).unwrap());
        let version = bench.rack.port().get(&object).await.unwrap().unwrap().version;
        bench.rack.port().replace(&object, &text, version).await.unwrap();
        bench.fake.fault("h1", FakeFault::MoveStalls);
        bench.fake.fault("h1", FakeFault::SecondRound);
        let (options, cancel_level) = (Options { bandwidth, ..OPTIONS }, bench.hurry.subscribe());
        let evacuation = Evacuation::plan(&bench.rack, "h1", &options, &cancel_level, true).await.unwrap();
        let evacuation = evacuation.begin(&bench.rack, true, &options, &cancel_level).await.unwrap();
        let report = execute(&bench.rack, &evacuation.plan, &options, cancel_level).await;
        assert!(report.failure().is_some(), "it stalls here for good: {}", report.render());
        let calls = bench.fake.calls();
        assert_eq!(calls.iter().any(|call| call.contains("set the bandwidth")), bandwidth.is_some(), "{calls:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_looked_up() {
    let bench = bench(&["a"], sees_all).await;
    bench.fake.fault("h1", FakeFault::AnswerLost);
    let report = bench.evacuate("h1").await;
    assert!(report.failure().is_none(), "{}", report.render());
    let places = bench.fake.places(bench.guests[0].uuid);
    assert!(places.len() == 1 && places[0].0 != "h1", "{places:?}");
    assert_eq!(bench.claim(bench.guests[0].uuid).await, (Phase::Running, Some(places[0].0.clone())));
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_somebody_else_moves_or_has_moved_is_left_to_him() {
    let bench = bench(&["a"], sees_all).await;
    let guest = bench.guests[0].clone();
    let cancel_level = bench.hurry.subscribe();
    let facts =
        gather(&bench.rack, &Wanted::Guests(bench.guests.clone()), &OPTIONS, &cancel_level, true).await.unwrap();
    let plan = plan(&facts, &[guest.uuid], Some("h3"));
    let other = Run { id: "other".into(), by: "you@elsewhere".into(), process: String::new() };
    let seen = claim::read(bench.rack.port(), guest.uuid).await.unwrap();
    let moving = seen.moving("h1", "h2", &other);
    for theirs in [moving.clone(), moving.running("h2")] {
        let seen = claim::read(bench.rack.port(), guest.uuid).await.unwrap();
        claim::swap(bench.rack.port(), guest.uuid, &seen, &theirs).await.unwrap();
        if theirs.phase == Phase::Running {
            bench.fake.put("h2", &guest.name, guest.uuid);
        }
        let report = execute(&bench.rack, &plan, &OPTIONS, cancel_level.clone()).await;
        assert_eq!(report.failure().unwrap().kind, Kind::Busy, "{}", report.render());
        assert_eq!(claim::read(bench.rack.port(), guest.uuid).await.unwrap(), theirs);
    }
    assert!(!bench.fake.calls().iter().any(|c| c.contains("move the guest")));
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_other_hands_have_moved_is_moved_from_where_it_is() {
    let bench = bench(&["a"], sees_all).await;
    let guest = bench.guests[0].clone();
    let seen = claim::read(bench.rack.port(), guest.uuid).await.unwrap();
    claim::swap(bench.rack.port(), guest.uuid, &seen, &seen.running("h2")).await.unwrap();
    let cancel_level = bench.hurry.subscribe();
    let facts =
        gather(&bench.rack, &Wanted::Guests(bench.guests.clone()), &OPTIONS, &cancel_level, true).await.unwrap();
    let report = execute(&bench.rack, &plan(&facts, &[guest.uuid], Some("h3")), &OPTIONS, cancel_level).await;
    assert_eq!(report.moved().count(), 1, "{}", report.render());
    assert_eq!(claim::read(bench.rack.port(), guest.uuid).await.unwrap().host.as_deref(), Some("h3"));
}

#[tokio::test(start_paused = true)]
async fn a_guest_on_a_third_host_is_not_gone_and_one_that_may_be_there_neither() {
    for third_answers in [true, false] {
        let bench = bench(&["a"], sees_all).await;
        let guest = bench.guests[0].clone();
        let seen = claim::read(bench.rack.port(), guest.uuid).await.unwrap();
        let moving = seen.moving("h1", "h2", &Run::new());
        claim::swap(bench.rack.port(), guest.uuid, &seen, &moving).await.unwrap();
        // By hand, while nobody follows the move.
        bench.fake.end("h1", guest.uuid);
        bench.fake.put("h3", "a", guest.uuid);
        if !third_answers {
            bench.fake.fault("h3", FakeFault::Unreachable);
        }
        let cancel_level = bench.hurry.subscribe();
        let facts =
            gather(&bench.rack, &Wanted::Guests(vec![guest.clone()]), &OPTIONS, &cancel_level, true).await.unwrap();
        if third_answers {
            assert_eq!(facts.guests[0].host, "h3");
            assert_eq!(bench.claim(guest.uuid).await, (Phase::Running, Some("h3".into())));
        } else {
            assert!(facts.unsettled[&guest.uuid].reason.contains("h3"), "{:?}", facts.unsettled);
            assert_eq!(bench.claim(guest.uuid).await, (Phase::Moving, Some("h1".into())));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn moves_of_several_operators_overfill_no_host() {
    let bench = bench(&["a", "b"], sees_all).await;
    let cancel_level = bench.hurry.subscribe();
    let mut plans = Vec::new();
    for guest in &bench.guests {
        // Both fit on h2, but not together: it has 60 GiB or less for guests.
        bench.fake.put_sized("h1", &guest.name, guest.uuid, DomainState::Running, 31 << 30);
        let wanted = Wanted::Guests(vec![guest.clone()]);
        let facts = gather(&bench.rack, &wanted, &OPTIONS, &cancel_level, true).await.unwrap();
        plans.push(plan(&facts, &[guest.uuid], Some("h2")));
    }
    let other = GuestContext { run: Run::new(), turns: Arc::default(), ..bench.rack.clone() };
    let (one, two) = tokio::join!(
        execute(&bench.rack, &plans[0], &OPTIONS, cancel_level.clone()),
        execute(&other, &plans[1], &OPTIONS, cancel_level.clone())
    );
    assert_eq!(one.moved().count() + two.moved().count(), 1, "{}\n{}", one.render(), two.render());
    let failure = one.failure().or(two.failure()).unwrap();
    assert_eq!(failure.kind, Kind::Refused);
    assert!(failure.to_string().contains("31 GiB taken), 31 GiB needed"), "{failure}");
    for guest in &bench.guests {
        let places = bench.fake.places(guest.uuid);
        assert_eq!(bench.claim(guest.uuid).await, (Phase::Running, Some(places[0].0.clone())));
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_with_something_that_is_no_guest_is_not_called_empty() {
    let bench = bench(&["a", "b"], sees_all).await;
    bench.fake.put("h1", "foreign", Uuid::nil());
    bench.fake.put_as("h1", "off", Uuid::max(), DomainState::Off);
    bench.fake.put("h2", "b", bench.guests[1].uuid);
    bench.fake.put_as("h1", "b", bench.guests[1].uuid, DomainState::Paused);
    let cancel_level = bench.hurry.subscribe();
    let plan = Evacuation::plan(&bench.rack, "h1", &OPTIONS, &cancel_level, true).await.unwrap().plan;
    assert_eq!(plan.moves.iter().map(|m| m.guest.as_str()).collect::<Vec<_>>(), ["a"]);
    let mut refused: Vec<String> = plan.refused.iter().map(ToString::to_string).collect();
    refused.sort();
    assert_eq!(
        refused,
        [
            format!("guest b on h1: is another copy of the guest on h2; end it there with `virsh destroy {}`", bench.guests[1].uuid),
            "guest foreign on h1: does not belong to this rack; move it, or end it there with `virsh destroy 00000000-0000-0000-0000-000000000000`".to_owned(),
        ]
    );
    let elsewhere = Evacuation::plan(&bench.rack, "h3", &OPTIONS, &cancel_level, true).await.unwrap().plan;
    assert!(elsewhere.refused.is_empty(), "{elsewhere:?}");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_does_not_answer_is_not_taken_for_an_empty_one() {
    let bench = bench(&["a"], sees_all).await;
    bench.fake.fault("h1", FakeFault::Unreachable);
    let facts = settled(&bench).await;
    assert!(answers(&facts, "h2").is_ok());
    let failure = answers(&facts, "h1").unwrap_err();
    assert!(failure.to_string().contains("host h1 does not answer"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn who_comes_after_the_plan_was_made_leaves_as_well() {
    let bench = bench(&["a", "b"], sees_all).await;
    let (a, b) = (&bench.guests[0], &bench.guests[1]);
    let cancel_level = bench.hurry.subscribe();
    bench.fake.end("h1", b.uuid);
    let evacuation = Evacuation::plan(&bench.rack, "h1", &OPTIONS, &cancel_level, true).await.unwrap();
    assert_eq!(evacuation.plan.moves.len(), 1);
    bench.fake.put("h1", "b", b.uuid);
    let evacuation = evacuation.begin(&bench.rack, false, &OPTIONS, &cancel_level).await.unwrap();
    let report = execute(&bench.rack, &evacuation.plan, &OPTIONS, cancel_level).await;
    assert_eq!(report.moved().count(), 2, "{}", report.render());
    assert!([a, b].iter().all(|g| bench.fake.places(g.uuid)[0].0 != "h1"));
}

#[tokio::test(start_paused = true)]
async fn a_guest_on_a_silent_host_is_not_forgotten_by_a_return() {
    let bench = bench(&["a"], sees_all).await;
    assert_eq!(bench.evacuate("h1").await.moved().count(), 1);
    let host = bench.fake.places(bench.guests[0].uuid)[0].0.clone();
    bench.fake.fault(&host, FakeFault::Unreachable);
    let cancel_level = bench.hurry.subscribe();
    let home = ReturnPlan::plan(&bench.rack, "h1", &OPTIONS, &cancel_level, true).await.unwrap();
    assert!(home.plan.refused[0].reason.contains(&format!("it may run on {host}, which does not answer")));
    home.end(&bench.rack, &[]).await.unwrap();
    bench.fake.mend(&host, FakeFault::Unreachable);
    let home = ReturnPlan::plan(&bench.rack, "h1", &OPTIONS, &cancel_level, true).await.unwrap();
    assert_eq!(home.plan.moves.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn hosts_that_do_not_see_each_other_change_nothing() {
    let blind = |remote: FakeRemote| remote.on("full size", "its storage address 10.1.0.2 does not answer\n");
    let bench = bench(&["a"], blind).await;
    let report = bench.evacuate("h1").await;
    let failure = report.failure().unwrap();
    assert_eq!(failure.kind, Kind::Failed);
    assert!(failure.to_string().contains("10.1.0.2 does not answer"), "{failure}");
    assert_eq!(bench.fake.places(bench.guests[0].uuid), [("h1".to_owned(), DomainState::Running)]);
    assert_eq!(bench.claim(bench.guests[0].uuid).await, (Phase::Running, Some("h1".into())));
    assert!(!bench.fake.calls().iter().any(|c| c.contains("move the guest")));
}

#[tokio::test(start_paused = true)]
async fn maintenance_is_refused_whenever_it_was_set() {
    let bench = bench(&["a"], sees_all).await;
    let cancel_level = bench.hurry.subscribe();
    let wanted = Wanted::Guests(bench.guests.clone());
    let facts = gather(&bench.rack, &wanted, &OPTIONS, &cancel_level, true).await.unwrap();
    let plan = plan(&facts, &[bench.guests[0].uuid], Some("h2"));
    let maintenance = Maintenance { since: jiff::Timestamp::UNIX_EPOCH, by: "me".into(), ..Maintenance::default() };
    set_maintenance(bench.rack.port(), "h2", Some(maintenance)).await.unwrap();
    let report = execute(&bench.rack, &plan, &OPTIONS, cancel_level).await;
    assert_eq!(report.failure().unwrap().kind, Kind::Refused);
    assert_eq!(bench.claim(bench.guests[0].uuid).await, (Phase::Running, Some("h1".into())));
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_run_left_behind_is_finished() {
    for (at_target, host) in [(true, "h2"), (false, "h1")] {
        let bench = bench(&["a"], sees_all).await;
        let guest = bench.guests[0].clone();
        let dead = Run { id: "dead".into(), by: "a laptop".into(), process: String::new() };
        let seen = claim::read(bench.rack.port(), guest.uuid).await.unwrap();
        let moving = seen.moving("h1", "h2", &dead);
        claim::swap(bench.rack.port(), guest.uuid, &seen, &moving).await.unwrap();
        if at_target {
            bench.fake.end("h1", guest.uuid);
            bench.fake.put("h2", "a", guest.uuid);
        }
        let wanted = Wanted::Guests(vec![guest.clone()]);
        let cancel_level = bench.hurry.subscribe();
        let facts = gather(&bench.rack, &wanted, &OPTIONS, &cancel_level, true).await.unwrap();
        assert_eq!(facts.guests[0].host, host);
        assert_eq!(facts.arrived.contains_key(&guest.uuid), at_target);
        assert_eq!(bench.claim(guest.uuid).await, (Phase::Running, Some(host.into())));
    }
}

/// Leaves a move of the guest from h1 to h2 to whoever comes next.
async fn begun_and_left(bench: &Bench) -> Guest {
    let guest = bench.guests[0].clone();
    let dead = Run { id: "dead".into(), by: "a laptop".into(), process: String::new() };
    let seen = claim::read(bench.rack.port(), guest.uuid).await.unwrap();
    claim::swap(bench.rack.port(), guest.uuid, &seen, &seen.moving("h1", "h2", &dead)).await.unwrap();
    guest
}

async fn settled(bench: &Bench) -> Facts {
    gather(&bench.rack, &Wanted::Guests(bench.guests.clone()), &OPTIONS, &bench.hurry.subscribe(), true).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_source_that_has_handed_over_never_goes_on() {
    for (fault, state) in [(None, DomainState::Running), (Some(FakeFault::HandedOver), DomainState::Paused)] {
        let bench = bench(&["a"], sees_all).await;
        let guest = begun_and_left(&bench).await;
        bench.fake.put_as("h1", "a", guest.uuid, DomainState::Paused);
        fault.into_iter().for_each(|fault| bench.fake.fault("h1", fault));
        let facts = settled(&bench).await;
        assert_eq!(bench.fake.places(guest.uuid), [("h1".to_owned(), state)]);
        let phase = bench.claim(guest.uuid).await.0;
        match fault {
            None => assert_eq!((phase, facts.unsettled.len()), (Phase::Running, 0)),
            Some(_) => {
                assert_eq!(phase, Phase::Moving, "nobody starts it meanwhile");
                let why = &facts.unsettled[&guest.uuid].reason;
                assert!(why.contains("older than its disk") && why.contains("stop --force a"), "{why}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_that_run_it_is_told_whether_one_could_be_paused() {
    for (fault, says) in [(None, "the copy on h1 was paused"), (Some(FakeFault::PauseFails), "cannot be paused")] {
        let bench = bench(&["a"], sees_all).await;
        let guest = begun_and_left(&bench).await;
        bench.fake.put("h2", "a", guest.uuid);
        fault.into_iter().for_each(|fault| bench.fake.fault("h1", fault));
        let why = settled(&bench).await.unsettled[&guest.uuid].reason.clone();
        assert!(why.contains(says), "{why}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_neither_side_has_is_freed_only_when_nobody_can_move_it_any_more() {
    let bench = bench(&["a"], sees_all).await;
    let guest = begun_and_left(&bench).await;
    bench.fake.end("h1", guest.uuid);
    let began = tokio::time::Instant::now();
    settled(&bench).await;
    assert!(began.elapsed() >= claim::TAKE_OVER);
    assert_eq!(bench.claim(guest.uuid).await.0, Phase::Free);
}

#[tokio::test(start_paused = true)]
async fn a_guest_is_not_moved_to_where_another_copy_of_it_is() {
    let bench = bench(&["a"], sees_all).await;
    let guest = bench.guests[0].clone();
    let plan = plan(&settled(&bench).await, &[guest.uuid], Some("h2"));
    bench.fake.put_as("h2", "a", guest.uuid, DomainState::Paused);
    let report = execute(&bench.rack, &plan, &OPTIONS, bench.hurry.subscribe()).await;
    let failure = report.failure().unwrap();
    assert_eq!(failure.kind, Kind::Refused);
    assert!(failure.to_string().contains("host h2 has another copy of it"), "{failure}");
    assert_eq!(bench.claim(guest.uuid).await, (Phase::Running, Some("h1".into())));
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_leaves_a_slow_host_between_two_looks_is_not_gone() {
    let bench = bench(&["a"], sees_all).await;
    let guest = bench.guests[0].clone();
    let seen = claim::read(bench.rack.port(), guest.uuid).await.unwrap();
    let moving = seen.moving("h1", "h2", &Run::new());
    claim::swap(bench.rack.port(), guest.uuid, &seen, &moving).await.unwrap();
    // Somebody's request is under way; the target has nothing of it yet, and the source answers when all is over.
    bench.fake.fault("h1", FakeFault::MoveBeginsLate);
    bench.fake.fault("h1", FakeFault::LooksLate);
    let params = MigrateParams { destination: "qemu+tls://h2/system".into(), ..MigrateParams::default() };
    assert!(
        bench
            .rack
            .hypervisors
            .get("h1")
            .unwrap()
            .migrate(guest.uuid, &params, moving.token())
            .await
            .unwrap_err()
            .unknown()
    );
    let cancel_level = bench.hurry.subscribe();
    gather(&bench.rack, &Wanted::Guests(vec![guest.clone()]), &OPTIONS, &cancel_level, true).await.unwrap();
    assert_eq!(bench.claim(guest.uuid).await, (Phase::Running, Some("h2".into())));
}

#[tokio::test(start_paused = true)]
async fn a_silent_side_leaves_the_claim_alone() {
    let bench = bench(&["a", "b"], sees_all).await;
    let guest = bench.guests[0].clone();
    let seen = claim::read(bench.rack.port(), guest.uuid).await.unwrap();
    claim::swap(bench.rack.port(), guest.uuid, &seen, &seen.moving("h1", "h2", &Run::new())).await.unwrap();
    bench.fake.fault("h2", FakeFault::Unreachable);
    let cancel_level = bench.hurry.subscribe();
    // It keeps nobody else from leaving.
    let evacuation = Evacuation::plan(&bench.rack, "h1", &OPTIONS, &cancel_level, true).await.unwrap();
    let names = |unmoved_guests: &[Unmoved]| unmoved_guests.iter().map(|s| s.guest.clone()).collect::<Vec<_>>();
    assert_eq!(names(&evacuation.plan.unsettled), ["a"]);
    assert!(evacuation.plan.unsettled[0].reason.contains("h2 does not answer"), "{:?}", evacuation.plan);
    assert_eq!((evacuation.plan.moves.len(), evacuation.plan.moves[0].guest.as_str()), (1, "b"));
    assert_eq!(bench.claim(guest.uuid).await.0, Phase::Moving);
    assert!(!bench.fake.calls().iter().any(|c| c.contains("end the guest")));
}

#[tokio::test(start_paused = true)]
async fn the_first_interruption_finishes_and_the_second_aborts() {
    let bench = bench(&["a", "b"], sees_all).await;
    bench.hurry.send_replace(CancelLevel::Finish);
    let report = bench.evacuate("h1").await;
    assert_eq!(report.failure().unwrap().kind, Kind::Interrupted);
    assert!(report.guests.iter().all(|g| g.outcome == "waiting"));
    bench.hurry.send_replace(CancelLevel::None);
    bench.fake.fault("h1", FakeFault::MoveStalls);
    let (report, ()) = tokio::join!(bench.evacuate("h1"), async {
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        bench.hurry.send_replace(CancelLevel::Abort);
    });
    assert_eq!(report.failure().unwrap().kind, Kind::Interrupted);
    assert!(report.render().contains("aborted by the operator"), "{}", report.render());
    for guest in &bench.guests {
        assert_eq!(bench.fake.places(guest.uuid), [("h1".to_owned(), DomainState::Running)]);
    }
}

#[tokio::test(start_paused = true)]
async fn another_tools_job_is_named_and_never_aborted() {
    for begins_late in [false, true] {
        let bench = bench(&["a", "b"], sees_all).await;
        let uuid = bench.guests[0].uuid;
        if begins_late {
            bench.fake.fault("h1", FakeFault::BackupBegins);
        } else {
            bench.fake.job("h1", uuid, JobOperation::Backup);
        }
        let report = bench.evacuate("h1").await;
        let of_a = report.guests.iter().find(|g| g.guest == "a").unwrap();
        let why = of_a.reason.clone().unwrap();
        assert!(of_a.outcome == "stayed" && why.contains("a backup runs"), "{why}");
        assert_eq!(bench.fake.job_of("h1", uuid), Some(JobOperation::Backup));
        assert!(!bench.fake.calls().iter().any(|call| call.contains("abort")), "{:?}", bench.fake.calls());
        assert_eq!(bench.fake.places(uuid), [("h1".to_owned(), DomainState::Running)]);
        assert_eq!(bench.claim(uuid).await, (Phase::Running, Some("h1".into())));
        if !begins_late {
            assert_eq!(report.moved().count(), 1, "b moves: {}", report.render());
            assert!(
                report.failure().unwrap().hints.iter().any(|hint| hint.contains(&format!("virsh domjobinfo {uuid}")))
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_qemu_that_hangs_is_not_a_silent_host() {
    let bench = bench(&["a", "b"], sees_all).await;
    let uuid = bench.guests[0].uuid;
    bench.fake.mute(uuid);
    let began = tokio::time::Instant::now();
    let report = bench.evacuate("h1").await;
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
    assert_eq!(report.moved().map(|g| g.guest.as_str()).collect::<Vec<_>>(), ["b"]);
    let why = report.guests.iter().find(|g| g.guest == "a").unwrap().reason.clone().unwrap();
    assert_eq!(why, "its QEMU on h1 does not answer within 5 s; nothing was sent to it");
    assert!(!bench.fake.calls().iter().any(|call| call.contains("move the guest a")));
    assert_eq!(bench.claim(uuid).await, (Phase::Running, Some("h1".into())));
}

#[tokio::test(start_paused = true)]
async fn what_holds_a_guest_on_its_host_is_found_by_the_dry_run_and_before_the_claim() {
    let bench = bench(&["iso", "snap", "plain"], sees_all).await;
    let [iso, snap] = [bench.guests[0].uuid, bench.guests[1].uuid];
    let disk = "<disk type='file' device='cdrom'><source file='/root/a.iso'/><target dev='sda'/></disk>";
    bench.fake.xml(iso, format!("<domain type='kvm'><devices>{disk}</devices></domain>"));
    bench.fake.snapshot(snap, "before-upgrade");
    let cancel_level = bench.hurry.subscribe();
    let mut plan = Evacuation::plan(&bench.rack, "h1", &OPTIONS, &cancel_level, false).await.unwrap().plan;
    rehearse(&bench.rack, &mut plan, None).await;
    let refused: Vec<String> = plan.refused.iter().map(ToString::to_string).collect();
    assert_eq!(plan.moves.iter().map(|m| m.guest.as_str()).collect::<Vec<_>>(), ["plain"]);
    insta::assert_snapshot!(refused.join("\n"), @r"
    guest iso on h1: it cannot leave h1: cdrom sda was attached beside its definition: /root/a.iso, which lies on the host
    guest snap on h1: it cannot leave h1: libvirt there keeps snapshots of it (before-upgrade)
    ");
    let report = bench.evacuate("h1").await;
    assert_eq!(report.moved().count(), 1, "{}", report.render());
    let failure = report.failure().unwrap();
    let hints = failure.hints.join("\n").replace(&iso.to_string(), "ISO").replace(&snap.to_string(), "SNAP");
    insta::assert_snapshot!(hints, @r"
    on h1: `virsh change-media ISO sda --eject`
    on h1: `virsh snapshot-delete SNAP before-upgrade --metadata` forgets one and keeps its data
    ");
    assert!(!bench.fake.calls().iter().any(|call| call.contains("move the guest iso") || call.contains("guest snap")));
}
