//! Requests that arrive late, at the worst moment: the ways in which two copies of a guest could come to write
//! (the numbers are those of the protocol's model), and what other tools do to a guest.

use super::harness::{World, evacuate, migrate};
use crate::cluster::{ClusterPort, FakeCluster};
use crate::error::Kind;
use crate::guest::claim::{Claim, Phase};
use crate::guest::hold::{self, Hold};
use crate::guest::{Guest, Settled, Settlement, start};
use crate::libvirt::{DomainState, FakeFault, FakeRequest, JobOperation};
use std::time::Duration;
use tokio::time::{Instant, sleep};

fn one(guest: &Guest) -> &[Guest] {
    std::slice::from_ref(guest)
}

/// Waits until a request is on its way.
async fn held(world: &World) {
    while world.hosts.held() == 0 {
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn violation_2_a_create_that_lands_after_its_claim_was_taken_over_makes_nothing() {
    let world = World::new().await;
    let guest = world.made("web").await;
    world.hosts.hold("h1", FakeRequest::Create);
    let (a, b) = (world.another(), world.another());
    let (mut late, ()) = tokio::join!(start(&a, one(&guest), Some("h1")), async {
        held(&world).await;
        start(&b, one(&guest), Some("h2")).await.remove(0).1.unwrap();
        assert_eq!(world.runs_once(guest.uuid).await, "h2");
        world.hosts.release();
    });
    assert_eq!(late.remove(0).1.unwrap_err().kind, Kind::Busy);
    assert_eq!(world.runs_once(guest.uuid).await, "h2");
}

#[tokio::test(start_paused = true)]
async fn violation_3_a_start_that_is_taken_over_half_made_is_never_freed_while_its_copy_is_there() {
    let world = World::new().await;
    let guest = world.made("web").await;
    // What A made stands still; its resume is under way.
    world.hosts.hold("h1", FakeRequest::Resume);
    let (a, b) = (world.another(), world.another());
    let (mut late, ()) = tokio::join!(start(&a, one(&guest), Some("h1")), async {
        held(&world).await;
        // B's own request is lost as well, and tried again.
        world.hosts.hold_and_lose("h1", FakeRequest::Resume);
        let started = start(&b, one(&guest), Some("h2")).await.remove(0).1.unwrap();
        assert_eq!(started.host, "h1", "it is there already");
        assert_eq!(world.runs_once(guest.uuid).await, "h1");
        world.hosts.turn("h1", guest.uuid, DomainState::Paused, "user");
        world.hosts.release();
    });
    assert_eq!(late.remove(0).1.unwrap_err().kind, Kind::Busy);
    let claim = world.claim(guest.uuid).await;
    assert_eq!((claim.phase, claim.host.as_deref()), (Phase::Running, Some("h1")));
}

#[tokio::test(start_paused = true)]
async fn violation_4_a_migrate_that_was_given_up_does_not_move_the_guest_later() {
    let world = World::new().await;
    let guest = world.running("web").await;
    world.hosts.hold_and_lose("h1", FakeRequest::Migrate);
    let began = Instant::now();
    let failure = migrate(&world.another(), "web", "h2").await.unwrap_err();
    assert_ne!(failure.kind, Kind::Unknown, "{failure}");
    assert!(began.elapsed() < Duration::from_secs(5), "revoking takes no waiting");
    assert_eq!(world.runs_once(guest.uuid).await, "h1");
    world.hosts.release();
    assert_eq!(world.runs_once(guest.uuid).await, "h1");
    migrate(&world.another(), "web", "h2").await.unwrap();
    assert_eq!(world.runs_once(guest.uuid).await, "h2");
}

#[tokio::test(start_paused = true)]
async fn a_migrate_that_cannot_be_revoked_leaves_both_places_named() {
    let world = World::new().await;
    let guest = world.running("web").await;
    world.hosts.hold("h1", FakeRequest::Migrate);
    let rack = world.another();
    let (moved, ()) = tokio::join!(migrate(&rack, "web", "h2"), async {
        held(&world).await;
        world.hosts.fault("h1", FakeFault::Unreachable);
    });
    assert_eq!(moved.unwrap_err().kind, Kind::Unknown);
    let claim = world.claim(guest.uuid).await;
    assert_eq!((claim.phase, claim.places().collect::<Vec<_>>()), (Phase::Moving, vec!["h1", "h2"]));
    let refused = start(&world.another(), one(&guest), Some("h3")).await.remove(0).1.unwrap_err();
    assert_eq!(refused.kind, Kind::Refused, "{refused}");
    // It lands, and the host answers again: the same command finds out.
    world.hosts.mend("h1", FakeFault::Unreachable);
    world.hosts.release();
    migrate(&world.another(), "web", "h2").await.unwrap();
    assert_eq!(world.runs_once(guest.uuid).await, "h2");
}

#[tokio::test(start_paused = true)]
async fn violation_5_what_one_run_believes_is_not_written_over_what_another_one_did() {
    let world = World::new().await;
    let guest = world.running("web").await;
    // A has begun a move, believes `stayed`, and pauses before it writes that down.
    let (run, seen) = (world.another().run, world.claim(guest.uuid).await);
    let followed = seen.moving("h1", "h2", &run);
    crate::guest::claim::swap(world.rack.port(), guest.uuid, &seen, &followed).await.unwrap();
    // B finishes that move, and moves the guest.
    migrate(&world.another(), "web", "h2").await.unwrap();
    assert_eq!(world.runs_once(guest.uuid).await, "h2");
    let (rack, name, job) = (&world.rack, "web", world.rack.ui.job("a"));
    let cancel_level = rack.ui.cancel_level();
    let settlement = Settlement { rack, guest: guest.uuid, name, run: &run, job: &job, cancel_level };
    assert_eq!(settlement.write(&followed, Some("h1")).await.unwrap(), Settled::Changed);
    assert_eq!(world.runs_once(guest.uuid).await, "h2");
}

#[tokio::test(start_paused = true)]
async fn violation_6_a_resume_of_an_old_start_does_not_revive_the_source_of_a_move() {
    let world = World::new().await;
    let guest = world.made("web").await;
    world.hosts.hold("h1", FakeRequest::Resume);
    let (a, b) = (world.another(), world.another());
    let (mut late, ()) = tokio::join!(start(&a, one(&guest), Some("h1")), async {
        held(&world).await;
        start(&b, one(&guest), None).await.remove(0).1.unwrap();
        migrate(&b, "web", "h2").await.unwrap();
        // The link breaks after the switch: the source stands still, and must not go on.
        world.hosts.put("h1", "web", guest.uuid);
        world.hosts.turn("h1", guest.uuid, DomainState::Paused, "migration");
        world.hosts.release();
    });
    assert_eq!(late.remove(0).1.unwrap_err().kind, Kind::Busy);
    let both = [("h1".to_owned(), DomainState::Paused), ("h2".to_owned(), DomainState::Running)];
    assert_eq!(world.hosts.places(guest.uuid), both);
}

#[tokio::test(start_paused = true)]
async fn an_old_destroy_does_not_end_the_guest_that_came_after() {
    let world = World::new().await;
    let guest = world.running("web").await;
    world.hosts.hold_and_lose("h1", FakeRequest::Destroy);
    let old: Claim = world.claim(guest.uuid).await;
    let hypervisor = world.rack.hypervisors.get("h1").unwrap();
    assert!(hypervisor.destroy(guest.uuid, old.token()).await.unwrap_err().unknown());
    migrate(&world.another(), "web", "h2").await.unwrap();
    migrate(&world.another(), "web", "h1").await.unwrap();
    world.hosts.release();
    assert_eq!(world.runs_once(guest.uuid).await, "h1");
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_another_tool_works_on_is_not_moved_and_its_job_is_not_aborted() {
    let world = World::new().await;
    let guest = world.running("web").await;
    let before = world.claim(guest.uuid).await;
    world.hosts.job("h1", guest.uuid, JobOperation::Backup);
    let failure = migrate(&world.another(), "web", "h2").await.unwrap_err();
    assert_eq!(failure.kind, Kind::Busy, "{failure}");
    assert!(failure.to_string().contains("a backup"), "{failure}");
    assert_eq!(world.hosts.job_of("h1", guest.uuid), Some(JobOperation::Backup));
    assert_eq!(world.claim(guest.uuid).await, before, "it was not even claimed");
}

#[tokio::test(start_paused = true)]
async fn one_guest_whose_qemu_hangs_stays_and_the_others_move() {
    let world = World::new().await;
    let (a, b) = (world.running("a").await, world.running("b").await);
    world.hosts.mute(a.uuid);
    let began = Instant::now();
    let report = evacuate(&world.another(), "h1").await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let failure = report.failure().unwrap();
    assert!(failure.kind == Kind::Partial && failure.to_string().contains("QEMU on h1 does not answer"), "{failure}");
    assert_eq!(world.runs_once(a.uuid).await, "h1");
    assert_ne!(world.runs_once(b.uuid).await, "h1");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_a_dead_run_left_unwritten_does_not_block_an_evacuation() {
    let world = World::new().await;
    let guest = world.running("web").await;
    let seen = world.claim(guest.uuid).await;
    let unwritten = seen.freed().starting("h1", &world.another().run);
    crate::guest::claim::swap(world.rack.port(), guest.uuid, &seen, &unwritten).await.unwrap();
    let report = evacuate(&world.another(), "h1").await.unwrap();
    assert!(report.failure().is_none(), "{}", report.render());
    assert_ne!(world.runs_once(guest.uuid).await, "h1");
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_is_held_is_moved_only_once_its_holder_died() {
    let world = World::new().await;
    let guest = world.running("web").await;
    let mut hold = Hold::take(world.rack.port(), guest.uuid, "backup 1 on laptop", "a backup").await.unwrap();
    let rack = world.another();
    let (refused, ()) = tokio::join!(migrate(&rack, "web", "h2"), async {
        sleep(hold::RENEW).await;
        hold.renew(world.rack.port()).await.unwrap();
    });
    let refused = refused.unwrap_err();
    assert_eq!(refused.kind, Kind::Busy, "{refused}");
    assert!(refused.to_string().contains("backup 1 on laptop"), "{refused}");
    assert_eq!(world.runs_once(guest.uuid).await, "h1");
    // Its process dies.
    let began = Instant::now();
    migrate(&world.another(), "web", "h2").await.unwrap();
    assert!(began.elapsed() >= hold::TERM, "{:?}", began.elapsed());
    assert_eq!(world.runs_once(guest.uuid).await, "h2");
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_is_taken_while_the_move_is_claimed_keeps_the_guest_where_it_is() {
    let world = World::new().await;
    let guest = world.running("web").await;
    let other = FakeCluster::new();
    Hold::take(&other, guest.uuid, "backup 1 on laptop", "a backup").await.unwrap();
    let held = other.get(&hold::object(guest.uuid)).await.unwrap().unwrap();
    world.cluster.follow(&Claim::object(guest.uuid), &held.name, &held.data);
    let refused = migrate(&world.another(), "web", "h2").await.unwrap_err();
    assert_eq!(refused.kind, Kind::Busy, "{refused}");
    assert_eq!(world.runs_once(guest.uuid).await, "h1");
    assert!(!world.hosts.calls().iter().any(|call| call.contains("move the guest")), "{:?}", world.hosts.calls());
}
