//! The life of guests on a rack in memory.

use super::address::Wish;
use super::claim::{self, Claim, Phase, Run, Swap};
use super::create::{self, Order};
use super::spec::{Guest, INDEX, Machine, Stage};
use super::*;
use crate::cluster::{ClusterPort, FakeCluster, encode};
use crate::error::{Failure, Kind};
use crate::inventory::Size;
use crate::libvirt::{DomainState, FakeFault, FakeRack};
use crate::ssh::{FakeRemote, Fleet, Remote};
use crate::ui::Ui;
use std::net::IpAddr;
use std::sync::Arc;
use uuid::Uuid;

mod stuck;

struct World {
    rack: GuestContext,
    cluster: Arc<FakeCluster>,
    hosts: FakeRack,
}

/// Three hosts, the template `tiny`, and address conflicts at these addresses.
async fn world(conflicts: &str) -> World {
    let cluster = Arc::new(FakeCluster::new());
    image::sample(&cluster, "tiny").await;
    let machine = Machine { machine: "pc-q35-7.2".into(), virt: "qemu".into(), cpu: "<cpu/>".into() };
    cluster.create("machine", &encode(&machine).unwrap()).await.unwrap();
    let hosts = FakeRack::new(["h1", "h2", "h3"]);
    let remote = |name: &str| Arc::new(FakeRemote::new(name).on("br-lan", conflicts)) as Arc<dyn Remote>;
    let rack = GuestContext {
        port: cluster.clone(),
        hypervisors: hosts.hypervisors(),
        fleet: Fleet::of(["h1", "h2", "h3"].map(remote)),
        inventory: Arc::new(domain::sample_inventory()),
        ui: Ui::hidden(),
        run: Run::new(),
        turns: Arc::default(),
    };
    World { rack, cluster, hosts }
}

fn order(names: &[&str]) -> Order {
    Order {
        names: names.iter().map(|n| (*n).to_owned()).collect(),
        image: "tiny".parse().unwrap(),
        memory: Size::gib(1),
        cpus: 1,
        disk: Size::gib(2),
        network: "lan".into(),
        address: Wish::Auto,
        user_data: "#cloud-config\n".into(),
        tags: [].into(),
        priority: 0,
        protected: false,
        failover: crate::guest::FailoverPolicy::DataSafe,
        host: None,
        desired: Desired::Running,
    }
}

async fn create(world: &World, order: Order) -> Result<Vec<Guest>, Failure> {
    let plan = create::plan(&world.rack, order).await?;
    conclude("create", make(&world.rack, &plan).await?)
}

/// The same rack, as another operator's run sees it.
fn another(rack: &GuestContext) -> GuestContext {
    GuestContext { run: Run { id: Uuid::new_v4().to_string(), ..Run::new() }, turns: Arc::default(), ..rack.clone() }
}

async fn start_one(rack: &GuestContext, guest: &Guest) -> Result<Started, Failure> {
    conclude("start", start(rack, std::slice::from_ref(guest), None).await).map(|mut s| s.remove(0))
}

/// What is left in the cluster of guests.
async fn traces(world: &World) -> Vec<String> {
    let port = &world.cluster;
    let mut left: Vec<String> = Vec::new();
    for prefix in ["guest.", "claim."] {
        left.extend(port.list(prefix).await.unwrap().into_iter().map(|o| o.name));
    }
    left.extend(port.images().await.unwrap().into_iter().filter(|name| name.starts_with("vm.")));
    left.extend(port.keys(INDEX).await.unwrap().into_keys());
    left.extend(port.keys("network.lan").await.unwrap().into_keys());
    left
}

#[tokio::test]
async fn a_guest_is_made_started_stopped_and_deleted_without_a_trace() {
    let world = world("").await;
    let guest = create(&world, order(&["web"])).await.unwrap().remove(0);
    assert_eq!((guest.stage, guest.nics[0].address), (Stage::Ready, IpAddr::from([10, 77, 1, 100])));
    let started = start_one(&world.rack, &guest).await.unwrap();
    assert_eq!(world.hosts.places(guest.uuid), [(started.host.clone(), DomainState::Running)]);
    let claim = claim::read(world.rack.port(), guest.uuid).await.unwrap();
    assert_eq!((claim.phase, claim.host), (Phase::Running, Some(started.host)));
    assert!(start_one(&world.rack, &guest).await.unwrap().already);
    conclude("stop", stop(&world.rack, std::slice::from_ref(&guest), How::Force).await.unwrap()).unwrap();
    assert!(world.hosts.places(guest.uuid).is_empty());
    assert_eq!(claim::read(world.rack.port(), guest.uuid).await.unwrap().phase, Phase::Free);
    conclude("delete", delete(&world.rack, &[guest]).await.unwrap()).unwrap();
    assert_eq!(traces(&world).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_guest_that_its_host_has_shut_down_is_told_so_and_starts_on_another() {
    let world = world("").await;
    let guest = create(&world, order(&["web"])).await.unwrap().remove(0);
    let host = start_one(&world.rack, &guest).await.unwrap().host;
    world.hosts.end(&host, guest.uuid);
    let seen = overview(&world.rack).await.unwrap().guests.remove(0);
    assert_eq!(seen.state, State::Stopped);
    assert!(seen.reason.unwrap().starts_with(&format!("it ended on {host}, by itself or with its host")));
    let other = ["h1", "h2", "h3"].into_iter().find(|h| *h != host).unwrap();
    let started = start(&world.rack, std::slice::from_ref(&guest), Some(other)).await.remove(0).1.unwrap();
    assert_eq!((started.host.as_str(), started.already), (other, false));
    assert_eq!(overview(&world.rack).await.unwrap().guests.remove(0).reason, None);
}

#[tokio::test]
async fn a_name_that_exists_and_an_image_that_does_not_are_refused() {
    let world = world("").await;
    let guest = create(&world, order(&["web"])).await.unwrap().remove(0);
    start_one(&world.rack, &guest).await.unwrap();
    let again = create(&world, order(&["web"])).await.unwrap_err();
    assert_eq!(again.to_string(), "guest web exists already");
    let missing = create(&world, Order { image: "nope".parse().unwrap(), ..order(&["db"]) }).await.unwrap_err();
    assert_eq!((missing.kind, missing.to_string()), (Kind::Usage, "no image `nope`".into()));
    let small = create(&world, Order { disk: Size::mib(1), ..order(&["db"]) }).await.unwrap_err();
    assert!(small.to_string().contains("smaller than image tiny"), "{small}");
}

#[tokio::test]
async fn no_room_anywhere_says_why_for_each_host_and_makes_nothing() {
    let world = world("").await;
    let since = jiff::Timestamp::UNIX_EPOCH;
    let maintenance = Maintenance { since, by: "me".into(), why: Some("new disk".into()), ..Maintenance::default() };
    set_maintenance(world.rack.port(), "h2", Some(maintenance)).await.unwrap();
    world.hosts.fault("h3", FakeFault::Unreachable);
    let failure = create(&world, Order { memory: Size::gib(100), ..order(&["web"]) }).await.unwrap_err();
    let text = failure.to_string();
    assert!(text.contains("h1: 60 GiB of memory free"), "{text}");
    assert!(text.contains("h2: in maintenance: new disk"), "{text}");
    assert!(text.contains("h3: does not answer"), "{text}");
    assert_eq!(traces(&world).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_host_in_maintenance_takes_no_guest_even_when_named() {
    let world = world("").await;
    let since = jiff::Timestamp::UNIX_EPOCH;
    set_maintenance(world.rack.port(), "h1", Some(Maintenance { since, by: "me".into(), ..Maintenance::default() }))
        .await
        .unwrap();
    let failure = create(&world, Order { host: Some("h1".into()), ..order(&["web"]) }).await.unwrap_err();
    assert!(failure.to_string().contains("h1: in maintenance"), "{failure}");
    let guest = create(&world, order(&["web"])).await.unwrap().remove(0);
    let failed = start(&world.rack, &[guest], Some("h1")).await.remove(0).1.unwrap_err();
    assert!(failed.to_string().contains("h1: in maintenance"), "{failed}");
}

#[tokio::test]
async fn a_strangers_address_is_not_given_out() {
    let world = world("10.77.1.100 52:54:00:00:00:99\n").await;
    let guest = create(&world, order(&["web"])).await.unwrap().remove(0);
    assert_eq!(guest.nics[0].address, IpAddr::from([10, 77, 1, 101]));
    // The seed was written meanwhile, and was written again.
    let seed = world.cluster.image_read(&guest.seed_image(), 0, 4 << 20).await.unwrap();
    let says = |address: &str| seed.windows(address.len()).any(|w| w == address.as_bytes());
    assert!(says("10.77.1.101") && !says("10.77.1.100"));
    let wanted = Order { address: Wish::Exactly(IpAddr::from([10, 77, 1, 100])), ..order(&["db"]) };
    assert!(create(&world, wanted).await.unwrap_err().to_string().contains("conflict"));
}

#[tokio::test]
async fn an_address_that_a_stranger_has_fails_the_guest_that_insists_and_leaves_nothing() {
    let world = world("10.77.1.150 52:54:00:00:00:99\n").await;
    let wanted = Order { address: Wish::Exactly(IpAddr::from([10, 77, 1, 150])), ..order(&["db"]) };
    let failure = create(&world, wanted).await.unwrap_err();
    assert!(failure.to_string().contains("taken by a machine with MAC 52:54:00:00:00:99"), "{failure}");
    assert_eq!(traces(&world).await, Vec::<String>::new());
    // Nor does an address that is none of the network's.
    let elsewhere = Order { address: Wish::Exactly(IpAddr::from([192, 0, 2, 1])), ..order(&["db"]) };
    assert_eq!(create(&world, elsewhere).await.unwrap_err().kind, Kind::Usage);
    assert_eq!(traces(&world).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_run_killed_at_any_step_is_finished_by_the_next_one() {
    // After reserving the name; after the definition; after the clone.
    for killed_after in 0..3 {
        let world = world("").await;
        let plan = create::plan(&world.rack, order(&["web"])).await.unwrap();
        let guest = make(&world.rack, &plan).await.unwrap().remove(0).1.unwrap();
        let object = Guest::object(guest.uuid);
        let version = world.cluster.get(&object).await.unwrap().unwrap().version;
        let half = Guest { stage: Stage::Creating, ..guest.clone() };
        match killed_after {
            0 => world.cluster.remove(&object, version).await.unwrap(),
            _ => drop(world.cluster.replace(&object, &encode(&half).unwrap(), version).await.unwrap()),
        }
        if killed_after < 2 {
            world.cluster.image_remove(&guest.disks[0].image).await.unwrap();
        }
        world.cluster.image_remove(&guest.seed_image()).await.unwrap();
        let finished = create(&world, order(&["web"])).await.unwrap().remove(0);
        assert_eq!((finished.uuid, finished.stage), (guest.uuid, Stage::Ready));
        assert_eq!(finished.nics, guest.nics, "the address stays");
        start_one(&world.rack, &finished).await.unwrap();
    }
}

#[tokio::test]
async fn a_run_killed_before_its_start_is_finished_by_the_same_order_alone() {
    let world = world("").await;
    let guest = create(&world, order(&["web"])).await.unwrap().remove(0);
    let again = create(&world, order(&["web"])).await.unwrap().remove(0);
    assert_eq!(again, guest);
    let other = create(&world, Order { memory: Size::gib(2), ..order(&["web"]) }).await.unwrap_err();
    assert_eq!(other.to_string(), "guest web exists already");
    let half = Guest { stage: Stage::Creating, ..guest.clone() };
    let object = Guest::object(guest.uuid);
    let version = world.cluster.get(&object).await.unwrap().unwrap().version;
    world.cluster.replace(&object, &encode(&half).unwrap(), version).await.unwrap();
    let other = create(&world, Order { memory: Size::gib(2), ..order(&["web"]) }).await.unwrap_err();
    assert!(other.to_string().contains("begun with other settings"), "{other}");
    start_one(&world.rack, &create(&world, order(&["web"])).await.unwrap().remove(0)).await.unwrap();
}

#[tokio::test]
async fn of_two_different_orders_for_one_name_the_first_is_made() {
    let world = world("").await;
    let ours = create::plan(&world.rack, order(&["web"])).await.unwrap();
    let theirs = create::plan(&world.rack, Order { memory: Size::gib(2), ..order(&["web"]) }).await.unwrap();
    let first = make(&world.rack, &ours).await.unwrap().remove(0).1.unwrap();
    let object = Guest::object(first.uuid);
    let version = world.cluster.get(&object).await.unwrap().unwrap().version;
    let half = Guest { stage: Stage::Creating, ..first.clone() };
    world.cluster.replace(&object, &encode(&half).unwrap(), version).await.unwrap();
    let second = make(&world.rack, &theirs).await.unwrap().remove(0).1.unwrap_err();
    assert!(second.to_string().contains("begun with other settings"), "{second}");
    assert_eq!(make(&world.rack, &ours).await.unwrap().remove(0).1.unwrap().memory, first.memory);
}

#[tokio::test(start_paused = true)]
async fn a_run_killed_between_its_claim_and_its_request_is_finished_by_the_same_order() {
    let world = world("").await;
    let guest = create(&world, order(&["web"])).await.unwrap().remove(0);
    let dead = Claim::default().starting("h1", &another(&world.rack).run);
    assert_eq!(claim::swap(world.rack.port(), guest.uuid, &Claim::default(), &dead).await.unwrap(), Swap::Ours);
    let again = create(&world, order(&["web"])).await.unwrap().remove(0);
    assert_eq!(again, guest);
    let started = start_one(&world.rack, &again).await.unwrap();
    assert_eq!(world.hosts.places(guest.uuid), [(started.host, DomainState::Running)]);
}

#[tokio::test]
async fn an_order_for_several_leaves_those_alone_that_are_there() {
    let world = world("").await;
    let there = create(&world, order(&["web-2"])).await.unwrap().remove(0);
    start_one(&world.rack, &there).await.unwrap();
    let made = create(&world, order(&["web-1", "web-2", "web-3"])).await.unwrap();
    let names: Vec<&str> = made.iter().map(|g| g.name.as_str()).collect();
    assert_eq!(names, ["web-1", "web-3"]);
}

#[tokio::test]
async fn a_protected_guest_is_not_deleted() {
    let world = world("").await;
    let guest = create(&world, Order { protected: true, ..order(&["web"]) }).await.unwrap().remove(0);
    let refused = conclude("delete", delete(&world.rack, std::slice::from_ref(&guest)).await.unwrap()).unwrap_err();
    assert_eq!(refused.kind, Kind::Refused);
    assert!(world.cluster.image(&guest.disks[0].image).await.unwrap().is_some());
    conclude("protect", protect(&world.rack, std::slice::from_ref(&guest), false).await).unwrap();
    conclude("delete", delete(&world.rack, &[guest]).await.unwrap()).unwrap();
    assert_eq!(traces(&world).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_guest_on_a_host_that_does_not_answer_is_started_nowhere() {
    let world = world("").await;
    let guest = create(&world, order(&["web"])).await.unwrap().remove(0);
    let host = start_one(&world.rack, &guest).await.unwrap().host;
    world.hosts.fault(&host, FakeFault::Unreachable);
    for result in [
        start_one(&world.rack, &guest).await.map(drop),
        conclude("stop", stop(&world.rack, std::slice::from_ref(&guest), How::Force).await.unwrap()).map(drop),
        conclude("delete", delete(&world.rack, std::slice::from_ref(&guest)).await.unwrap()).map(drop),
    ] {
        let failure = result.unwrap_err();
        assert_eq!(failure.kind, Kind::Refused, "{failure}");
        assert!(failure.to_string().contains(&format!("it may still run on {host}")), "{failure}");
    }
    world.hosts.mend(&host, FakeFault::Unreachable);
    assert!(start_one(&world.rack, &guest).await.unwrap().already);
}

#[tokio::test]
async fn a_guest_that_went_down_by_itself_can_be_started_again() {
    let world = world("").await;
    let guest = create(&world, order(&["web"])).await.unwrap().remove(0);
    let host = start_one(&world.rack, &guest).await.unwrap().host;
    world.hosts.end(&host, guest.uuid);
    assert!(!start_one(&world.rack, &guest).await.unwrap().already);
    assert_eq!(world.hosts.places(guest.uuid).len(), 1);
}

#[tokio::test]
async fn a_disk_that_somebody_has_open_starts_nothing() {
    let world = world("").await;
    let guest = create(&world, order(&["web"])).await.unwrap().remove(0);
    let user = crate::cluster::ImageUser {
        address: "10.77.2.13:0/1".into(),
        client: "client.9".into(),
        cookie: String::new(),
    };
    let users = crate::cluster::ImageUsers { watchers: vec![user], lockers: Vec::new() };
    world.cluster.use_image(&guest.disks[0].image, users);
    tokio::time::pause();
    let failure = start_one(&world.rack, &guest).await.unwrap_err();
    assert_eq!(failure.kind, Kind::Refused);
    assert!(failure.to_string().contains("its disk is open at 10.77.2.13:0/1"), "{failure}");
    assert!(world.hosts.places(guest.uuid).is_empty());
}

#[tokio::test(start_paused = true)]
async fn somebody_elses_start_is_waited_out_before_another_one() {
    let world = world("").await;
    let guest = create(&world, Order { memory: Size::gib(40), ..order(&["web"]) }).await.unwrap().remove(0);
    let other = Run { id: "other".into(), by: "you@elsewhere".into(), process: String::new() };
    let theirs = Claim::default().starting("h3", &other);
    claim::swap(world.rack.port(), guest.uuid, &Claim::default(), &theirs).await.unwrap();
    // What was promised to it there does not stand in its way.
    admission::enter(&world.rack, guest.uuid, &need(&guest, None), "h3").await.unwrap().unwrap();
    let began = tokio::time::Instant::now();
    let started = start(&world.rack, std::slice::from_ref(&guest), Some("h3")).await.remove(0).1.unwrap();
    assert_eq!((started.host.as_str(), started.already), ("h3", false));
    assert!(began.elapsed() >= claim::TAKE_OVER);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_comes_through_after_its_claim_was_taken_over_makes_nothing() {
    let world = world("").await;
    let guest = create(&world, order(&["web"])).await.unwrap().remove(0);
    world.hosts.fault("h1", FakeFault::StartsLate);
    let (rack, other) = (&world.rack, another(&world.rack));
    let guests = std::slice::from_ref(&guest);
    let (mut late, mut next) = tokio::join!(start(rack, guests, Some("h1")), async {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        start(&other, guests, Some("h2")).await
    });
    assert!(!next.remove(0).1.unwrap().already);
    let failure = late.remove(0).1.unwrap_err();
    assert_eq!(failure.kind, Kind::Busy);
    assert!(failure.to_string().contains("another run has taken the guest over"), "{failure}");
    assert_eq!(world.hosts.places(guest.uuid), [("h2".to_owned(), DomainState::Running)]);
    let claim = claim::read(world.rack.port(), guest.uuid).await.unwrap();
    assert_eq!((claim.phase, claim.host.as_deref()), (Phase::Running, Some("h2")));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_arrives_when_its_writer_is_gone_and_its_claim_was_taken_over_makes_nothing() {
    let world = world("").await;
    let guest = create(&world, order(&["web"])).await.unwrap().remove(0);
    world.hosts.fault("h1", FakeFault::StartArrivesLate);
    let guests = std::slice::from_ref(&guest);
    let lost = start(&world.rack, guests, Some("h1")).await.remove(0).1.unwrap_err();
    assert_eq!(lost.kind, Kind::Unknown);
    let next = start(&another(&world.rack), guests, Some("h2")).await.remove(0).1.unwrap();
    assert_eq!((next.host.as_str(), next.already), ("h2", false));
    tokio::time::sleep(std::time::Duration::from_secs(200)).await;
    assert_eq!(world.hosts.places(guest.uuid), [("h2".to_owned(), DomainState::Running)]);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_comes_through_when_the_guest_is_on_its_way_there_lets_nothing_go() {
    let world = world("").await;
    let guest = create(&world, order(&["web"])).await.unwrap().remove(0);
    world.hosts.fault("h1", FakeFault::StartsLate);
    let port = world.rack.port();
    let (mut late, ()) = tokio::join!(start(&world.rack, std::slice::from_ref(&guest), Some("h1")), async {
        tokio::time::sleep(std::time::Duration::from_secs(100)).await;
        let other = another(&world.rack).run;
        let seen = claim::read(port, guest.uuid).await.unwrap();
        let moving = seen.starting("h2", &other).running("h2").moving("h2", "h1", &other);
        assert_eq!(claim::swap(port, guest.uuid, &seen, &moving).await.unwrap(), Swap::Ours);
        world.hosts.put("h2", "web", guest.uuid);
    });
    assert_eq!(late.remove(0).1.unwrap_err().kind, Kind::Busy);
    let both = [("h1".to_owned(), DomainState::Paused), ("h2".to_owned(), DomainState::Running)];
    assert_eq!(world.hosts.places(guest.uuid), both);
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_was_made_and_never_let_go_is_let_go_by_the_next_start() {
    let world = world("").await;
    let guest = create(&world, order(&["web"])).await.unwrap().remove(0);
    let theirs = Claim::default().starting("h1", &another(&world.rack).run);
    claim::swap(world.rack.port(), guest.uuid, &Claim::default(), &theirs).await.unwrap();
    world.hosts.put_as("h1", "web", guest.uuid, DomainState::Paused);
    let seen = overview(&world.rack).await.unwrap().guests.remove(0);
    assert_eq!((seen.state, seen.host.as_deref()), (State::Starting, Some("h1")));
    let began = tokio::time::Instant::now();
    let started = start(&world.rack, std::slice::from_ref(&guest), Some("h2")).await.remove(0).1.unwrap();
    assert!(began.elapsed() >= claim::TAKE_OVER, "its writer may be about to let it go on");
    assert_eq!((started.host.as_str(), started.already), ("h1", false));
    assert_eq!(world.hosts.places(guest.uuid), [("h1".to_owned(), DomainState::Running)]);
    let claim = claim::read(world.rack.port(), guest.uuid).await.unwrap();
    assert_eq!((claim.phase, claim.host.as_deref()), (Phase::Running, Some("h1")));
    // One that was paused by other hands does not pass for one that runs.
    world.hosts.turn("h1", guest.uuid, DomainState::Paused, "user");
    let failure = start_one(&world.rack, &guest).await.unwrap_err();
    assert!(failure.to_string().contains("stands still on h1 (paused: user)"), "{failure}");
    assert!(failure.hints[0].contains("rackhand guest resume web"), "{failure:?}");
    let rebooted = reboot(&world.rack, std::slice::from_ref(&guest), true).await.unwrap().remove(0).1.unwrap_err();
    assert!(rebooted.to_string().contains("stands still on h1"), "{rebooted}");
    let how = How::Shutdown(std::time::Duration::from_secs(1));
    let stopped = stop(&world.rack, std::slice::from_ref(&guest), how).await.unwrap().remove(0).1.unwrap_err();
    assert!(stopped.hints.iter().any(|hint| hint.contains("guest stop --force web")), "{stopped:?}");
    let resumed = resume(&world.rack, std::slice::from_ref(&guest)).await.remove(0).1.unwrap();
    assert_eq!(resumed, ("h1".to_owned(), false));
    assert_eq!(world.hosts.places(guest.uuid), [("h1".to_owned(), DomainState::Running)]);
}

#[tokio::test]
async fn a_guest_in_two_places_keeps_its_claim_until_both_are_ended() {
    let world = world("").await;
    let guest = create(&world, order(&["web"])).await.unwrap().remove(0);
    start(&world.rack, std::slice::from_ref(&guest), Some("h2")).await.remove(0).1.unwrap();
    world.hosts.put("h1", "web", guest.uuid);
    let claim = || async { claim::read(world.rack.port(), guest.uuid).await.unwrap() };
    let before = claim().await;
    assert!(start_one(&world.rack, &guest).await.unwrap().already);
    assert_eq!(claim().await, before);
    // Nor is it rewritten while the host it names does not answer.
    world.hosts.fault("h2", FakeFault::Unreachable);
    assert_eq!(start_one(&world.rack, &guest).await.unwrap().host, "h1");
    assert_eq!(claim().await, before);
    world.hosts.mend("h2", FakeFault::Unreachable);
    conclude("stop", stop(&world.rack, std::slice::from_ref(&guest), How::Force).await.unwrap()).unwrap();
    assert!(world.hosts.places(guest.uuid).is_empty());
    assert_eq!(claim().await.phase, Phase::Free);
}

#[tokio::test]
async fn of_a_guest_on_its_way_the_plug_is_pulled_at_the_source_first() {
    let world = world("").await;
    let guest = create(&world, order(&["web"])).await.unwrap().remove(0);
    let moving = Claim::default().starting("h2", &world.rack.run).running("h2").moving("h2", "h1", &world.rack.run);
    claim::swap(world.rack.port(), guest.uuid, &Claim::default(), &moving).await.unwrap();
    world.hosts.put_as("h2", "web", guest.uuid, DomainState::Paused);
    world.hosts.put("h1", "web", guest.uuid);
    conclude("stop", stop(&world.rack, std::slice::from_ref(&guest), How::Force).await.unwrap()).unwrap();
    let ended: Vec<String> = world.hosts.calls().into_iter().filter(|call| call.contains("end the guest")).collect();
    assert_eq!(ended, ["h2 end the guest web", "h1 end the guest web"]);
    assert_eq!(claim::read(world.rack.port(), guest.uuid).await.unwrap().phase, Phase::Free);
}

#[tokio::test]
async fn a_guest_that_is_being_deleted_is_not_started_by_whoever_read_it_before() {
    let world = world("").await;
    let guest = create(&world, order(&["web"])).await.unwrap().remove(0);
    let object = Guest::object(guest.uuid);
    let version = world.cluster.get(&object).await.unwrap().unwrap().version;
    let doomed = Guest { stage: Stage::Deleting, ..guest.clone() };
    world.cluster.replace(&object, &encode(&doomed).unwrap(), version).await.unwrap();
    let failure = start_one(&world.rack, &guest).await.unwrap_err();
    assert!(failure.to_string().contains("guest web was deleted meanwhile"), "{failure}");
    assert!(world.hosts.places(guest.uuid).is_empty());
    assert_eq!(claim::read(world.rack.port(), guest.uuid).await.unwrap().phase, Phase::Free);
}

#[tokio::test]
async fn a_host_put_into_maintenance_after_it_was_looked_at_gets_no_guest() {
    let world = world("").await;
    let guest = create(&world, order(&["web"])).await.unwrap().remove(0);
    let planning_input = PlanningInput::take(&world.rack).await.unwrap();
    let since = jiff::Timestamp::UNIX_EPOCH;
    set_maintenance(world.rack.port(), "h1", Some(Maintenance { since, by: "me".into(), ..Maintenance::default() }))
        .await
        .unwrap();
    let placed = [(&guest, placement::Place::Host("h1".into()))];
    let started =
        start::start_at(&world.rack, &planning_input, placed.into_iter(), None, &|_, _| ()).await.remove(0).1.unwrap();
    assert_ne!(started.host, "h1");
    assert_eq!(world.hosts.places(guest.uuid).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_starts_at_once_exactly_one_runs() {
    for _ in 0..20 {
        let world = world("").await;
        let guest = create(&world, order(&["web"])).await.unwrap().remove(0);
        let starts: Vec<_> = ["h1", "h2", "h3", "h1", "h2", "h3"]
            .iter()
            .map(|host| {
                let rack = another(&world.rack);
                let (guest, host) = (guest.clone(), *host);
                tokio::spawn(async move { start(&rack, &[guest], Some(host)).await.remove(0).1 })
            })
            .collect();
        let mut fresh = 0;
        for start in starts {
            fresh += usize::from(start.await.unwrap().is_ok_and(|s| !s.already));
        }
        assert_eq!(world.hosts.places(guest.uuid).len(), 1);
        assert_eq!(fresh, 1, "one of them started it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn operators_who_start_guests_at_the_same_moment_overfill_no_host() {
    // Each host has 60 GiB for guests: three of these.
    let big = |names: &[&str]| Order { memory: Size::gib(20), ..order(names) };
    for _ in 0..10 {
        let world = world("").await;
        let mut made = Vec::new();
        for batch in [["a", "b", "c", "d"], ["e", "f", "g", "h"], ["i", "j", "k", "l"]] {
            made.push(create(&world, big(&batch)).await.unwrap());
        }
        let mut starts = Vec::new();
        for guests in made {
            let rack = another(&world.rack);
            // All have looked before the first one starts anything.
            let planning_input = PlanningInput::take(&rack).await.unwrap();
            starts.push(tokio::spawn(async move {
                let needs: Vec<_> = guests.iter().map(|g| need(g, None)).collect();
                let places = placement::place(&planning_input.rooms, &needs);
                start::start_at(&rack, &planning_input, guests.iter().zip(places), None, &|_, _| ()).await
            }));
        }
        let (mut hosts, mut refused) = (std::collections::BTreeMap::new(), Vec::new());
        for start in starts {
            for (_, result) in start.await.unwrap() {
                match result {
                    Ok(started) => *hosts.entry(started.host).or_insert(0) += 1,
                    Err(failure) => refused.push(failure.to_string()),
                }
            }
        }
        assert_eq!(hosts.into_values().collect::<Vec<_>>(), [3, 3, 3], "{refused:?}");
        assert!(
            refused.len() == 3 && refused.iter().all(|why| why.starts_with("no host has room: h1: ")),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn a_promise_is_worth_nothing_once_its_guest_is_not_on_its_way_any_more() {
    let world = world("").await;
    let guest = create(&world, Order { memory: Size::gib(40), ..order(&["web"]) }).await.unwrap().remove(0);
    let (port, host) = (world.rack.port(), "h1");
    let used = || async { PlanningInput::take(&world.rack).await.unwrap().rooms[0].used };
    let starting = Claim::default().starting(host, &world.rack.run);
    claim::swap(port, guest.uuid, &Claim::default(), &starting).await.unwrap();
    admission::enter(&world.rack, guest.uuid, &need(&guest, None), host).await.unwrap().unwrap();
    assert_eq!(used().await, 40 << 30);
    // Entered twice it counts once; another one of its size has no room beside it.
    admission::enter(&world.rack, guest.uuid, &need(&guest, None), host).await.unwrap().unwrap();
    let other = admission::enter(&world.rack, Uuid::nil(), &need(&guest, None), host).await.unwrap();
    assert_eq!(
        other.unwrap_err(),
        "20 GiB of memory free (64 GiB in all, 4.0 GiB kept back, 40 GiB taken), 40 GiB needed"
    );
    let moving = starting.running("h2").moving("h2", host, &world.rack.run);
    claim::swap(port, guest.uuid, &starting, &moving).await.unwrap();
    assert_eq!(used().await, 40 << 30);
    claim::swap(port, guest.uuid, &moving, &moving.freed()).await.unwrap();
    assert_eq!(used().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_writes_to_another_tools_overlay_is_stopped_by_force_alone() {
    let world = world("").await;
    let guest = create(&world, order(&["web"])).await.unwrap().remove(0);
    start_one(&world.rack, &guest).await.unwrap();
    let own = format!("{}/{}", world.rack.inventory.ceph.pool, guest.disks[0].image);
    let overlay = format!(
        "<disk type='file'><source file='/s'/><backingStore type='network'><source name='{own}'/></backingStore><target dev='vda'/></disk>"
    );
    world.hosts.xml(guest.uuid, format!("<domain type='qemu'><devices>{overlay}</devices></domain>"));
    let guests = [guest];
    let stopped = async |how| stop(&world.rack, &guests, how).await.unwrap().remove(0).1;
    let refused = stopped(How::Shutdown(SHUTDOWN)).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Refused, "{refused}");
    assert!(refused.to_string().contains("disk vda writes to /s") && refused.hints[1].contains("--force"), "{refused}");
    assert_eq!(world.rack.guest("web").await.unwrap().desired, Desired::Running, "nothing was changed");
    assert!(stopped(How::Force).await.unwrap());
}
