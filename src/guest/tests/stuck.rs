//! Guests that stand still, starts that cannot be where they were planned, deletions that are refused.

use super::hold::{self, Hold};
use super::*;
use std::time::Duration;
use tokio::time::Instant;

/// What a process leaves in the cluster that takes hold of a guest.
async fn held(guest: Uuid) -> (String, String) {
    let cluster = FakeCluster::new();
    Hold::take(&cluster, guest, "backup 1 on laptop", "a backup").await.unwrap();
    let object = cluster.get(&hold::object(guest)).await.unwrap().unwrap();
    (object.name, object.data)
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_is_held_while_it_is_marked_for_deletion_goes_on_as_it_was() {
    let world = world("").await;
    let guest = create(&world, order(&["web"])).await.unwrap().remove(0);
    let guests = std::slice::from_ref(&guest);
    let host = start_one(&world.rack, &guest).await.unwrap().host;
    let (name, data) = held(guest.uuid).await;
    world.cluster.follow(&Guest::object(guest.uuid), &name, &data);
    let refused = delete(&world.rack, guests).await.unwrap().remove(0).1.unwrap_err();
    assert_eq!(refused.kind, Kind::Busy, "{refused}");
    assert!(refused.to_string().contains("held by backup 1 on laptop for a backup"), "{refused}");
    assert_eq!(world.hosts.places(guest.uuid), [(host, DomainState::Running)]);
    let found = world.rack.guest("web").await.unwrap();
    assert_eq!((found.stage, found.desired), (Stage::Ready, Desired::Running));
    // The process that had it died.
    conclude("delete", delete(&world.rack, guests).await.unwrap()).unwrap();
    assert_eq!(traces(&world).await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_forced_stop_ends_the_guest_while_the_cluster_takes_no_writes() {
    let world = world("").await;
    let guest = create(&world, order(&["web"])).await.unwrap().remove(0);
    let guests = std::slice::from_ref(&guest);
    let host = start_one(&world.rack, &guest).await.unwrap().host;
    world.cluster.stalls(true);
    let began = Instant::now();
    let gone = async {
        while !world.hosts.places(guest.uuid).is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        began.elapsed()
    };
    let (stopped, gone) = tokio::join!(stop(&world.rack, guests, How::Force), gone);
    assert!(gone < Duration::from_secs(4), "{gone:?}");
    let failure = stopped.unwrap().remove(0).1.unwrap_err();
    assert!(failure.to_string().contains("Ceph"), "{failure}");
    assert!(began.elapsed() < Duration::from_secs(90), "{:?}", began.elapsed());
    // By its power button it is not stopped before that is written down.
    world.cluster.stalls(false);
    conclude("stop", stop(&world.rack, guests, How::Force).await.unwrap()).unwrap();
    assert_eq!(claim::read(world.rack.port(), guest.uuid).await.unwrap().phase, Phase::Free);
    assert_eq!(start_one(&world.rack, &guest).await.unwrap().host, host);
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_was_handed_over_or_is_on_its_way_is_not_resumed() {
    let world = world("").await;
    let guest = create(&world, order(&["web"])).await.unwrap().remove(0);
    let guests = std::slice::from_ref(&guest);
    let host = start_one(&world.rack, &guest).await.unwrap().host;
    world.hosts.turn(&host, guest.uuid, DomainState::Paused, "migration");
    let refused = resume(&world.rack, guests).await.remove(0).1.unwrap_err();
    assert_eq!(refused.kind, Kind::Refused, "{refused}");
    assert!(refused.hints[0].contains("guest stop --force web"), "{refused:?}");
    let seen = claim::read(world.rack.port(), guest.uuid).await.unwrap();
    let moving = seen.moving(&host, "h3", &world.rack.run);
    claim::swap(world.rack.port(), guest.uuid, &seen, &moving).await.unwrap();
    let busy = resume(&world.rack, guests).await.remove(0).1.unwrap_err();
    assert!(busy.kind == Kind::Busy && busy.hints[0].contains("rackhand migrate web"), "{busy:?}");
    // What it is stuck in, a forced stop ends.
    conclude("stop", stop(&world.rack, guests, How::Force).await.unwrap()).unwrap();
    assert!(world.hosts.places(guest.uuid).is_empty());
    assert_eq!(claim::read(world.rack.port(), guest.uuid).await.unwrap().phase, Phase::Free);
}

#[tokio::test(start_paused = true)]
async fn a_host_with_a_domain_of_that_name_is_passed_over() {
    let world = world("").await;
    let guest = create(&world, order(&["web"])).await.unwrap().remove(0);
    world.hosts.name_taken("h1", "web");
    let started = start_one(&world.rack, &guest).await.unwrap();
    assert_ne!(started.host, "h1");
    assert_eq!(world.hosts.places(guest.uuid), [(started.host, DomainState::Running)]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_delete_leaves_the_guest_as_it_was() {
    let world = world("").await;
    let guest = create(&world, order(&["web"])).await.unwrap().remove(0);
    let guests = std::slice::from_ref(&guest);
    let host = start_one(&world.rack, &guest).await.unwrap().host;
    let snapshot = |on: bool| {
        let (cluster, image) = (world.cluster.clone(), guest.disks[0].image.clone());
        async move {
            match on {
                true => cluster.snapshot_create(&image, "keep", false).await.unwrap(),
                false => cluster.snapshot_remove(&image, "keep").await.unwrap(),
            }
        }
    };
    snapshot(true).await;
    let refused = conclude("delete", delete(&world.rack, guests).await.unwrap()).unwrap_err();
    assert!(
        refused.kind == Kind::Refused && refused.to_string().contains(&format!("{}@keep", guest.disks[0].image)),
        "{refused}"
    );
    assert!(refused.hints[0].contains("rbd snap rm"), "{refused:?}");
    assert_eq!(world.hosts.places(guest.uuid), [(host.clone(), DomainState::Running)], "it was not stopped for it");
    snapshot(false).await;
    // It falls silent after it was looked at: the stop is refused when the guest is marked already.
    let planning_input = PlanningInput::take(&world.rack).await.unwrap();
    world.hosts.fault(&host, FakeFault::Unreachable);
    let job = world.rack.ui.job("delete");
    let refused = delete::delete_one(&world.rack, &planning_input, &guest, &job).await.unwrap_err();
    world.hosts.mend(&host, FakeFault::Unreachable);
    assert_ne!(refused.kind, Kind::Unknown, "{refused}");
    let now = world.rack.guest("web").await.unwrap();
    assert_eq!((now.stage, now.desired), (Stage::Ready, Desired::Running));
    assert!(start_one(&world.rack, &now).await.unwrap().already);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_under_way_waits_for_no_snapshot_and_takes_the_bases_of_backups_with_it() {
    let world = world("").await;
    let guest = create(&world, order(&["web"])).await.unwrap().remove(0);
    let (guests, image) = (std::slice::from_ref(&guest), guest.disks[0].image.as_str());
    let base = format!("{}vault.20261128T013000Z", snapshots::BACKUP_BASE);
    world.cluster.snapshot_create(image, &base, false).await.unwrap();
    // Begun by an earlier run, and somebody made a snapshot since.
    let object = Guest::object(guest.uuid);
    let version = world.cluster.get(&object).await.unwrap().unwrap().version;
    let begun = Guest { stage: Stage::Deleting, ..guest.clone() };
    world.cluster.replace(&object, &encode(&begun).unwrap(), version).await.unwrap();
    world.cluster.snapshot_create(image, "keep", false).await.unwrap();
    let began = tokio::time::Instant::now();
    let refused = conclude("delete", delete(&world.rack, &[begun]).await.unwrap()).unwrap_err();
    assert_eq!(refused.kind, Kind::Refused, "{refused}");
    assert!(refused.to_string().ends_with("@keep") && !refused.to_string().contains(&base), "{refused}");
    assert!(began.elapsed() < std::time::Duration::from_secs(1), "it does not wait for what cannot end by itself");
    let left = world.cluster.image(image).await.unwrap().unwrap().snapshots.len();
    assert_eq!(left, 2, "nothing was removed");
    world.cluster.snapshot_remove(image, "keep").await.unwrap();
    conclude("delete", delete(&world.rack, guests).await.unwrap()).unwrap();
    assert_eq!(traces(&world).await, Vec::<String>::new());
}

#[tokio::test]
async fn of_a_name_that_is_cleared_away_and_a_definition_under_way_one_sees_the_other() {
    let world = world("").await;
    let plan = create::plan(&world.rack, order(&["web"])).await.unwrap();
    // The name is reserved, the definition not yet written.
    let uuid = Uuid::new_v4();
    let reserve = crate::cluster::KeysChange::default().add("web", uuid.to_string());
    world.cluster.change_keys(INDEX, &reserve).await.unwrap();
    delete_reserved(&world.rack, "web", uuid).await.unwrap();
    let made = make(&world.rack, &plan).await.unwrap().remove(0).1.unwrap();
    assert_ne!(made.uuid, uuid);
    // A name whose guest is defined by now is left to its run.
    let busy = delete_reserved(&world.rack, "web", made.uuid).await.unwrap_err();
    assert_eq!(busy.kind, Kind::Busy, "{busy}");
    assert_eq!(world.rack.guest("web").await.unwrap().uuid, made.uuid, "its name is still its own");
}

#[tokio::test(start_paused = true)]
async fn guests_that_go_to_one_host_are_entered_together() {
    let world = world("").await;
    let apart = |names: &[&str]| Order { tags: [("apart".to_owned(), "db".to_owned())].into(), ..order(names) };
    let guests = create(&world, order(&["a", "b", "c", "d", "e", "f"])).await.unwrap();
    let twins = create(&world, apart(&["x", "y"])).await.unwrap();
    for guest in guests.iter().chain(&twins) {
        let starting = Claim::default().starting("h1", &world.rack.run);
        claim::swap(world.rack.port(), guest.uuid, &Claim::default(), &starting).await.unwrap();
    }
    world.cluster.slow(std::time::Duration::from_millis(10));
    let before = world.cluster.create("before", "{}").await.unwrap();
    let enters = guests
        .iter()
        .chain(&twins)
        .map(|guest| async { admission::enter(&world.rack, guest.uuid, &need(guest, None), "h1").await.unwrap() });
    let entered = futures::future::join_all(enters).await;
    // The first goes alone; all that come meanwhile go together.
    let writes = world.cluster.get("reservations.h1").await.unwrap().unwrap().version - before;
    assert!(writes <= 2, "{writes} writes");
    let why: Vec<&String> = entered.iter().filter_map(|entered| entered.as_ref().err()).collect();
    assert_eq!(why.len(), 1, "of the two that are to be apart one is refused: {entered:?}");
    assert!(why[0].contains("apart"), "{why:?}");
    let rooms = PlanningInput::take(&world.rack).await.unwrap().rooms;
    assert_eq!(rooms[0].used, 7 << 30);
}
