//! A host is lost on a fake rack: what is started elsewhere, what is not, and how the host comes back.

use super::readmit;
use super::recovery::HostLoss;
use crate::cluster::{ClusterError, ClusterPort, FakeCluster, ImageUser, ImageUsers, encode, fetch, update};
use crate::error::Kind;
use crate::fence::{self, Stage};
use crate::guest::claim::{self, Claim, Phase, Run};
use crate::guest::placement::Place;
use crate::guest::{
    Desired, DomainInventory, Guest, GuestContext, PlanningInput, restart_at, sample_guest, start_at, stays_down,
};
use crate::inventory;
use crate::libvirt::{DomainState, FakeFault, FakeRack};
use crate::ssh::{FakeRemote, Fleet, Remote};
use crate::ui::Ui;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use uuid::Uuid;

const INVENTORY: &str = "
cluster: { name: test, fsid: 96f6d643-da93-4f34-83ea-d8d4895a3d63 }
networks:
  management: { cidr: 10.0.0.0/24 }
  storage: { cidr: 10.1.0.0/24, speed: 10G }
  guests: { lan: { bridge: br-lan, cidr: 10.0.0.0/24, ranges: [10.0.0.100-10.0.0.199] } }
hosts:
  - { name: h1, address: 10.0.0.1, storage_address: 10.1.0.1, osds: [/dev/loop1] }
  - { name: h2, address: 10.0.0.2, storage_address: 10.1.0.2, osds: [/dev/loop2] }
  - { name: h3, address: 10.0.0.3, storage_address: 10.1.0.3, osds: [/dev/loop3] }
";

pub(super) struct Bench {
    pub(super) rack: GuestContext,
    fake: FakeRack,
    pub(super) cluster: Arc<FakeCluster>,
    pub(super) guests: Vec<Guest>,
}

fn osd(id: u32, host: u8, up: u8) -> Value {
    json!({"osd": id, "up": up, "public_addr": format!("10.1.0.{host}:6801/{id}")})
}

/// The map of the monitors: which addresses they refuse.
pub(super) fn map(refused: &[&str], up: u8) -> Value {
    let ranges: serde_json::Map<String, Value> =
        refused.iter().map(|a| (format!("cidr:{a}:0/32"), json!("2036-11-25T03:25:55.049425+0000"))).collect();
    json!({"epoch": 31, "range_blocklist": ranges, "osds": [osd(0, 1, up), osd(1, 2, 1), osd(2, 3, 1)]})
}

const H1: [&str; 2] = ["10.0.0.1", "10.1.0.1"];

/// Three hosts; these guests run on the first, which falls silent. The monitors take a fence.
pub(super) async fn bench(names: &[&str]) -> Bench {
    let inventory = inventory::parse("inventory.yaml", INVENTORY).unwrap();
    let fake = FakeRack::new(["h1", "h2", "h3"]);
    let cluster = Arc::new(FakeCluster::new());
    let mut guests = Vec::new();
    for name in names {
        let guest = sample_guest(name);
        cluster.create(&Guest::object(guest.uuid), &encode(&guest).unwrap()).await.unwrap();
        for disk in &guest.disks {
            cluster.image_create(&disk.image, 1 << 30).await.unwrap();
        }
        fake.put("h1", name, guest.uuid);
        let running = Claim::default().starting("h1", &Run::new()).running("h1");
        claim::swap(cluster.as_ref(), guest.uuid, &Claim::default(), &running).await.unwrap();
        guests.push(guest);
    }
    cluster.answer("osd blocklist", Value::Null);
    cluster.answer("osd down", Value::Null);
    cluster.answer("status", json!({"newest_map": 31}));
    cluster.answer("osd dump", map(&H1, 0));
    let remote = |name: &str| Arc::new(FakeRemote::new(name).on("rackhand_fence", "")) as Arc<dyn Remote>;
    let rack = GuestContext {
        port: cluster.clone(),
        hypervisors: fake.hypervisors(),
        fleet: Fleet::of(["h1", "h2", "h3"].map(remote)),
        inventory: Arc::new(inventory),
        ui: Ui::hidden(),
        run: Run::new(),
        turns: Arc::default(),
    };
    fake.fault("h1", FakeFault::Unreachable);
    Bench { rack, fake, cluster, guests }
}

impl Bench {
    pub(super) fn loss(&self) -> HostLoss<'_> {
        HostLoss { rack: &self.rack, host: "h1", why: "its cords were pulled" }
    }

    async fn fenced(self) -> Self {
        self.loss().fence(None, |_| ()).await.unwrap();
        self
    }

    pub(super) async fn claim(&self, n: usize) -> Claim {
        claim::read(self.cluster.as_ref(), self.guests[n].uuid).await.unwrap()
    }

    async fn write(&self, n: usize, next: &Claim) {
        claim::swap(self.cluster.as_ref(), self.guests[n].uuid, &self.claim(n).await, next).await.unwrap();
    }

    pub(super) async fn restart(&self) -> Vec<Result<String, Kind>> {
        let started = self.loss().restart(&|_, _| ()).await.unwrap();
        started.into_iter().map(|(_, started)| started.map(|s| s.host).map_err(|f| f.kind)).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn guests_of_a_fenced_host_start_elsewhere_and_its_locks_are_broken() {
    let bench = bench(&["a", "b"]).await;
    let disk = bench.guests[0].disks[0].image.clone();
    let old = ImageUser { address: "10.1.0.1:0/77".into(), client: "client.7".into(), cookie: "auto 1".into() };
    bench.cluster.use_image(&disk, ImageUsers { watchers: vec![old.clone()], lockers: vec![old] });
    let stages = Mutex::new(Vec::new());
    bench.loss().fence(None, |stage| stages.lock().unwrap().push(stage)).await.unwrap();
    assert_eq!(*stages.lock().unwrap(), [Stage::Committed, Stage::OsdsDown, Stage::Everywhere]);
    for started in bench.restart().await {
        assert!(["h2", "h3"].contains(&started.unwrap().as_str()));
    }
    let claim = bench.claim(0).await;
    assert_eq!(claim.phase, Phase::Running);
    assert_ne!(claim.host.as_deref(), Some("h1"));
    assert!(bench.cluster.image_users(&disk).await.unwrap().lockers.is_empty());
    let record = fence::records(bench.cluster.as_ref()).await.unwrap().remove("h1").unwrap();
    assert!(record.proof.clients().contains("10.1.0.1:0/77"), "shut out by itself as well");
    // The same again finds nothing to do.
    assert_eq!(bench.restart().await, []);
}

#[tokio::test(start_paused = true)]
async fn nothing_starts_without_the_proof() {
    let bench = bench(&["a"]).await;
    bench.cluster.answer("osd dump", map(&["10.0.0.1"], 0));
    let failure = bench.loss().fence(None, |_| ()).await.unwrap_err();
    assert!(format!("{failure:?}").contains("does not refuse h1"), "{failure:?}");
    assert_eq!(bench.loss().restart(&|_, _| ()).await.unwrap_err().kind, Kind::Refused);
    // Written down once, and taken from the blocklist by hand since.
    bench.cluster.answer("osd dump", map(&H1, 0));
    bench.loss().fence(None, |_| ()).await.unwrap();
    bench.cluster.answer("osd dump", map(&[], 0));
    assert_eq!(bench.loss().restart(&|_, _| ()).await.unwrap_err().kind, Kind::Refused);
    assert_eq!(bench.fake.places(bench.guests[0].uuid), [("h1".to_owned(), DomainState::Running)]);
}

#[tokio::test(start_paused = true)]
async fn an_osd_that_has_not_seen_the_map_holds_everything_back() {
    let bench = bench(&["a"]).await;
    bench.cluster.answer("status", json!({"newest_map": 30}));
    let failure = bench.loss().fence(None, |_| ()).await.unwrap_err();
    assert!(format!("{failure:?}").contains("osd.1, osd.2"), "{failure:?}");
    assert!(fence::records(bench.cluster.as_ref()).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_move_from_the_lost_host_ends_where_its_guest_runs() {
    let bench = bench(&["a", "b", "c"]).await;
    for n in 0..3 {
        let moving = bench.claim(n).await.moving("h1", "h2", &Run::new());
        bench.write(n, &moving).await;
    }
    bench.fake.put("h2", "a", bench.guests[0].uuid);
    bench.fake.put_as("h2", "b", bench.guests[1].uuid, DomainState::Paused);
    let bench = bench.fenced().await;
    let started = bench.restart().await;
    assert_eq!(started[0], Ok("h2".to_owned()), "it had arrived");
    let place = |n: usize| bench.fake.places(bench.guests[n].uuid).into_iter().filter(|(host, _)| host != "h1");
    for n in [1, 2] {
        let copies: Vec<_> = place(n).collect();
        assert_eq!(copies.len(), 1, "guest {n}: {copies:?}");
        assert_eq!(copies[0].1, DomainState::Running);
        assert_eq!(bench.claim(n).await.host.as_ref(), Some(&copies[0].0));
    }
    assert!(bench.claim(0).await.started.is_none(), "it goes on as it is");
    for n in [1, 2] {
        assert!(bench.claim(n).await.started.is_some(), "it was started anew");
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_comes_back_once_nothing_is_left_of_what_it_ran() {
    let bench = bench(&["a", "b"]).await.fenced().await;
    assert!(bench.restart().await.iter().all(Result::is_ok));
    let failure = readmit(&bench.rack, "h1").await.unwrap_err();
    assert_eq!(failure.kind, Kind::Refused, "it does not answer: {failure:?}");
    bench.fake.mend("h1", FakeFault::Unreachable);
    let done = readmit(&bench.rack, "h1").await.unwrap();
    assert_eq!((done.ended.len(), done.freed.len()), (2, 0));
    for n in 0..2 {
        let (uuid, claim) = (bench.guests[n].uuid, bench.claim(n).await);
        assert_eq!(bench.fake.places(uuid).len(), 1, "one copy is left");
        assert_eq!(bench.fake.floor("h1", uuid), claim.generation, "what was asked before is refused there");
    }
    assert!(fence::records(bench.cluster.as_ref()).await.unwrap().is_empty());
    bench.cluster.answer("osd dump", map(&[], 0));
    assert_eq!(readmit(&bench.rack, "h1").await.unwrap_err().kind, Kind::Refused);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_half_let_in_is_neither_used_nor_believed_dead() {
    let bench = bench(&["a", "b"]).await.fenced().await;
    assert!(bench.restart().await.iter().all(Result::is_ok));
    let addresses = H1.map(|address| address.parse().unwrap()).into();
    fence::begin_to_lift(bench.cluster.as_ref(), "h1", &addresses, "me").await.unwrap().unwrap();
    // It answers, and its old copies show; the storage still refuses it.
    bench.fake.mend("h1", FakeFault::Unreachable);
    let look = DomainInventory::take(&bench.rack, false).await.unwrap();
    assert!(look.silent["h1"].contains("rackhand readmit h1"), "{:?}", look.silent);
    assert!(look.places(bench.guests[0].uuid).all(|(host, _)| host != "h1"), "an old copy is not believed");
    let there = Claim::default().starting("h1", &Run::new());
    assert!(look.hidden(&there).is_some(), "a guest that may run there is not started elsewhere");
    // The same command finishes it.
    assert_eq!(readmit(&bench.rack, "h1").await.unwrap().ended.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_fence_that_was_begun_and_never_written_down_is_not_forgotten() {
    let bench = bench(&["a"]).await;
    let addresses = H1.map(|address| address.parse().unwrap()).into();
    assert!(fence::was_begun(bench.cluster.as_ref(), "h1", &addresses).await.unwrap());
    assert_eq!(bench.loss().restart(&|_, _| ()).await.unwrap_err().kind, Kind::Refused, "it proves nothing");
    bench.fake.mend("h1", FakeFault::Unreachable);
    // What may have run on is ended, for its storage was refused; then it is let in.
    let done = readmit(&bench.rack, "h1").await.unwrap();
    assert_eq!((done.ended.len(), done.freed.len()), (1, 1));
    bench.cluster.answer("osd dump", map(&[], 0));
    assert!(!fence::was_begun(bench.cluster.as_ref(), "h1", &addresses).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn no_copy_is_believed_while_nobody_can_tell_who_is_fenced() {
    let bench = bench(&["a"]).await.fenced().await;
    bench.cluster.answer("osd dump", Value::Null);
    assert!(!DomainInventory::take(&bench.rack, false).await.unwrap().fences.has("h1"));
    bench.cluster.breaks(Some(ClusterError::NoQuorum("an election".into())));
    DomainInventory::take(&bench.rack, false).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_found_no_room_is_stopped_when_its_host_comes_back() {
    let bench = bench(&["a"]).await.fenced().await;
    bench.fake.mend("h1", FakeFault::Unreachable);
    let done = readmit(&bench.rack, "h1").await.unwrap();
    assert_eq!((done.ended.len(), done.freed.len()), (1, 1));
    assert_eq!(bench.claim(0).await.phase, Phase::Free);
    assert_eq!(bench.fake.places(bench.guests[0].uuid), []);
    assert_ne!(bench.guests[0].uuid, Uuid::nil());
}

/// Writes down what the owner of the first guest wants.
async fn wishes(bench: &Bench, desired: Desired) {
    let object = Guest::object(bench.guests[0].uuid);
    let write = update(bench.cluster.as_ref(), &object, |found: Option<Guest>| {
        Ok::<_, ClusterError>((found.map(|guest| Guest { desired, ..guest }), ()))
    });
    write.await.unwrap();
}

async fn wish(bench: &Bench) -> Desired {
    let found = fetch::<Guest>(bench.cluster.as_ref(), &Guest::object(bench.guests[0].uuid)).await;
    found.unwrap().unwrap().0.desired
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_is_stopped_while_it_is_started_by_itself_stays_down() {
    let bench = bench(&["a"]).await.fenced().await;
    let input = PlanningInput::take(&bench.rack).await.unwrap();
    wishes(&bench, Desired::Stopped).await;
    let place = || std::iter::once((&bench.guests[0], Place::Host("h2".into())));
    assert_eq!(restart_at(&bench.rack, &input, place(), &|_, _| ()).await.len(), 0);
    assert_eq!((bench.claim(0).await.phase, wish(&bench).await), (Phase::Free, Desired::Stopped));
    assert_eq!(bench.fake.places(bench.guests[0].uuid).len(), 1, "only what is left on the lost host");
    // One who orders it now has it started, and that is what is wanted from then on.
    let input = PlanningInput::take(&bench.rack).await.unwrap();
    start_at(&bench.rack, &input, place(), None, &|_, _| ()).await.remove(0).1.unwrap();
    assert_eq!(wish(&bench).await, Desired::Running);
}

#[tokio::test(start_paused = true)]
async fn a_guest_stays_down_only_where_nobody_else_has_its_claim() {
    let bench = bench(&["a"]).await;
    let (guest, claim) = (&bench.guests[0], bench.claim(0).await);
    let before = Claim { generation: claim.generation - 1, ..claim.clone() };
    assert!(!stays_down(&bench.rack, guest, &before).await.unwrap());
    assert_eq!((wish(&bench).await, bench.claim(0).await), (Desired::Running, claim.clone()));
    assert!(stays_down(&bench.rack, guest, &claim).await.unwrap());
    assert_eq!((wish(&bench).await, bench.claim(0).await.phase), (Desired::Stopped, Phase::Free));
}
