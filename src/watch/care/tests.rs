//! The rule by table, and the caretaker on a fake rack.

use super::caretaker::{Outcomes, in_time};
use super::*;
use crate::cluster::{ClusterPort, FakeCluster, ImageUser, ImageUsers, encode};
use crate::guest::claim::{self, Claim, Phase, Run};
use crate::guest::{Desired, Ending, Guest, GuestContext, sample_guest};
use crate::inventory;
use crate::libvirt::{DomainState, FakeFault, FakeRack, Lifecycle};
use crate::ssh::{FakeRemote, Fleet, Output, Remote};
use crate::ui::Ui;
use crate::watch::brain::{Event, EventKind};
use crate::watch::driver::Standing;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

const G: Uuid = Uuid::from_u128(1);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn down(host: &str, ending: Ending) -> Sight {
    Sight::Down { host: host.into(), ending }
}

fn orders(rule: &mut Rule, at: u64) -> Vec<Order> {
    rule.due(secs(at), |_| true)
}

#[test]
fn a_guest_that_dies_is_started_where_it_was_then_elsewhere_and_then_left_alone() {
    let mut rule = Rule::default();
    let mut at = 100;
    let (on, not) = (|host: &str| Where::On(host.into()), |host: &str| Where::NotOn(host.into()));
    let table = [
        (0, on("h1"), "h1"),
        (5, on("h1"), "h1"),
        (10, on("h1"), "h1"),
        (20, not("h1"), "h2"),
        (40, not("h2"), "h1"),
        (60, not("h1"), "h3"),
    ];
    let mut host = "h1";
    for (pause, place, next) in table {
        assert_eq!(rule.see(secs(at), G, down(host, Ending::Crashed)).len(), 1, "told once");
        assert_eq!(rule.see(secs(at), G, down(host, Ending::Crashed)), [], "the same is not news");
        assert_eq!(rule.next(), Some(secs(at + pause)));
        if pause > 0 {
            assert_eq!(orders(&mut rule, at + pause - 1), []);
        }
        at += pause;
        assert_eq!(orders(&mut rule, at), [Order::Start(G, place)]);
        assert_eq!(orders(&mut rule, at), [], "it is under way");
        assert_eq!(rule.tried(secs(at), G, Ok(next.into())), [Order::Tell(Given::Mended(G, next.into()))]);
        host = next;
        at += 10;
    }
    let left = rule.see(secs(at), G, down(host, Ending::Crashed));
    assert!(left.contains(&Order::Tell(Given::Left(G, 7))), "{left:?}");
    assert_eq!((orders(&mut rule, at + 1000), rule.next()), (Vec::new(), None));
    // A person started it; it ran for an hour, and its history is forgotten.
    assert_eq!(rule.see(secs(at + 100), G, Sight::Fine), []);
    assert_eq!(rule.see(secs(at + 4000), G, down("h3", Ending::Crashed)).len(), 1);
    assert_eq!(orders(&mut rule, at + 4000), [Order::Start(G, Where::On("h3".into()))]);
}

#[test]
fn only_a_crash_counts_as_the_guests_own_fault() {
    let mut rule = Rule::default();
    for n in 0..9 {
        rule.see(secs(n), G, down("h1", if n % 2 == 0 { Ending::WithHost } else { Ending::Killed }));
        assert_eq!(orders(&mut rule, n), [Order::Start(G, Where::On("h1".into()))]);
        rule.tried(secs(n), G, Ok("h1".into()));
    }
    assert!(rule.see(secs(9), G, down("h1", Ending::ShutDown)).contains(&Order::KeepDown(G)));
    assert_eq!(orders(&mut rule, 9), []);
    assert_eq!(
        rule.see(secs(9), G, down("h1", Ending::Untold)),
        [Order::Tell(Given::Unclear(G, "h1".into()))],
        "a person has to say"
    );
    assert_eq!(orders(&mut rule, 1000), []);
}

#[test]
fn what_fails_is_tried_again_more_and_more_seldom_and_anywhere() {
    let mut rule = Rule::default();
    rule.see(secs(0), G, down("h1", Ending::Crashed));
    assert_eq!(rule.due(secs(0), |_| false), [], "its host is not well: that is for the failover");
    assert_eq!(orders(&mut rule, 1), [Order::Start(G, Where::On("h1".into()))]);
    let mut told = 0;
    let mut at = 1;
    for pause in [5, 10, 20, 40, 60, 60] {
        told += rule.tried(secs(at), G, Err("no room".into())).len();
        assert_eq!(orders(&mut rule, at + pause - 1), [], "{pause}");
        at += pause;
        assert_eq!(orders(&mut rule, at), [Order::Start(G, Where::Anywhere)]);
    }
    assert_eq!(told, 2, "people are not told each time");
    // A guest whose disk failed is let go on; when it ends meanwhile it is started.
    let mut stalled = Rule::default();
    stalled.see(secs(0), G, Sight::Stalled { host: "h1".into() });
    assert_eq!(orders(&mut stalled, 0), [Order::Resume(G)]);
    stalled.tried(secs(0), G, Err("its disk failed".into()));
    stalled.see(secs(1), G, down("h1", Ending::Crashed));
    assert_eq!(orders(&mut stalled, 1), [Order::Start(G, Where::On("h1".into()))]);
}

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
const HOSTS: [&str; 3] = ["h1", "h2", "h3"];

struct Bench {
    fake: FakeRack,
    cluster: Arc<FakeCluster>,
    guest: Guest,
    /// How the guest's log says that it ended.
    log: Arc<Mutex<String>>,
    rack: GuestContext,
    standing: watch::Sender<Standing>,
    asked: mpsc::Sender<String>,
    told: Arc<Mutex<Vec<Event>>>,
    _tasks: [JoinHandle<()>; 2],
}

fn well() -> Standing {
    Standing { acts: true, well: HOSTS.map(str::to_owned).into() }
}

/// Three hosts; a guest runs on the first, and is looked after.
async fn bench(standing: Standing) -> Bench {
    let (fake, cluster, guest) = (FakeRack::new(HOSTS), Arc::new(FakeCluster::new()), sample_guest("web"));
    cluster.create(&Guest::object(guest.uuid), &encode(&guest).unwrap()).await.unwrap();
    for disk in &guest.disks {
        cluster.image_create(&disk.image, 1 << 30).await.unwrap();
    }
    fake.put("h1", "web", guest.uuid);
    let running = Claim::default().starting("h1", &Run::new()).running("h1");
    claim::swap(cluster.as_ref(), guest.uuid, &Claim::default(), &running).await.unwrap();
    let log = Arc::new(Mutex::new(String::new()));
    let remote = |name: &str| {
        let log = Arc::clone(&log);
        let answer = move |_: &crate::ssh::Exec| {
            if log.lock().unwrap().starts_with("fails") {
                return Some(Ok(Output { status: 1, stdout: Vec::new(), stderr: Vec::new() }));
            }
            let text = format!("host 1000 running\nguest web\n{}", log.lock().unwrap());
            Some(Ok(Output { status: 0, stdout: text.into_bytes(), stderr: Vec::new() }))
        };
        Arc::new(FakeRemote::new(name).rule(answer)) as Arc<dyn Remote>
    };
    let rack = GuestContext {
        port: cluster.clone(),
        hypervisors: fake.hypervisors(),
        fleet: Fleet::of(HOSTS.map(remote)),
        inventory: Arc::new(inventory::parse("inventory.yaml", INVENTORY).unwrap()),
        ui: Ui::hidden(),
        run: Run::new(),
        turns: Arc::default(),
    };
    let (tell, mut news) = mpsc::channel(100);
    let (standing, stands) = watch::channel(standing);
    let (asked, looks) = mpsc::channel(10);
    let told: Arc<Mutex<Vec<Event>>> = Arc::default();
    let hears = Arc::clone(&told);
    let tasks = [
        tokio::spawn(Caretaker::new(rack.clone(), tell).run(stands, looks)),
        tokio::spawn(async move {
            while let Some(event) = news.recv().await {
                hears.lock().unwrap().push(event);
            }
        }),
    ];
    sleep(secs(1)).await;
    Bench { fake, cluster, guest, log, rack, standing, asked, told, _tasks: tasks }
}

impl Bench {
    fn logs(&self, reason: &str) {
        *self.log.lock().unwrap() = format!(
            "2026-11-28 08:00:00.100+0000: starting up libvirt version: 9.0.0\n\
             2026-11-28 08:20:00.100+0000: shutting down, reason={reason}\n"
        );
    }

    fn kinds(&self) -> Vec<EventKind> {
        self.told.lock().unwrap().iter().map(|event| event.kind).collect()
    }

    async fn runs_on(&self, hosts: &[&str]) {
        let until = async {
            loop {
                let places = self.fake.places(self.guest.uuid);
                if places.len() == 1 && places[0].1 == DomainState::Running && hosts.contains(&&*places[0].0) {
                    return;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        let runs = timeout(secs(120), until).await;
        runs.unwrap_or_else(|_| {
            panic!("{:?}, told {:?}", self.fake.places(self.guest.uuid), self.told.lock().unwrap())
        });
        // Time for the claim to be written and for a second look.
        sleep(secs(8)).await;
    }

    async fn wish(&self) -> Desired {
        let found = crate::cluster::fetch::<Guest>(self.cluster.as_ref(), &Guest::object(self.guest.uuid)).await;
        found.unwrap().unwrap().0.desired
    }

    async fn claim(&self) -> Claim {
        claim::read(self.cluster.as_ref(), self.guest.uuid).await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_guest_whose_qemu_died_runs_again_where_it_was_and_the_fourth_time_elsewhere() {
    let bench = bench(well()).await;
    for _ in 0..3 {
        bench.fake.happens("h1", bench.guest.uuid, Lifecycle::Crashed);
        bench.runs_on(&["h1"]).await;
        assert_eq!(bench.claim().await.host.as_deref(), Some("h1"));
    }
    assert_eq!(bench.kinds(), [EventKind::GuestDown, EventKind::GuestUp].repeat(3));
    bench.fake.happens("h1", bench.guest.uuid, Lifecycle::Crashed);
    bench.runs_on(&["h2", "h3"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_shut_itself_down_stays_down_and_that_is_written_down() {
    let bench = bench(well()).await;
    bench.logs("shutdown");
    bench.fake.happens("h1", bench.guest.uuid, Lifecycle::ShutDown);
    sleep(secs(60)).await;
    assert_eq!(bench.kinds(), [EventKind::GuestOff]);
    assert_eq!((bench.wish().await, bench.claim().await.phase), (Desired::Stopped, Phase::Free));
    assert!(bench.fake.places(bench.guest.uuid).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_was_ended_by_other_hands_runs_again() {
    let bench = bench(well()).await;
    bench.logs("destroyed");
    bench.fake.happens("h1", bench.guest.uuid, Lifecycle::Stopped);
    bench.runs_on(&["h1"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_guest_whose_disk_failed_goes_on() {
    let bench = bench(well()).await;
    bench.fake.happens("h1", bench.guest.uuid, Lifecycle::IoError);
    bench.runs_on(&["h1"]).await;
    assert_eq!(bench.kinds(), [EventKind::GuestDown, EventKind::GuestUp]);
    assert!(bench.fake.floor("h1", bench.guest.uuid) > 0, "its request carried the claim's generation");
}

#[tokio::test(start_paused = true)]
async fn a_guest_whose_disk_is_open_elsewhere_as_well_does_not_go_on() {
    let bench = bench(well()).await;
    let user = |address: &str| ImageUser { address: address.into(), client: "client.7".into(), cookie: String::new() };
    let own = user("10.1.0.1:0/7");
    let disk = bench.guest.disks[0].image.clone();
    bench.cluster.use_image(&disk, ImageUsers { watchers: vec![own.clone(), user("10.1.0.2:0/9")], lockers: vec![] });
    bench.fake.happens("h1", bench.guest.uuid, Lifecycle::IoError);
    sleep(secs(120)).await;
    assert_eq!(bench.fake.places(bench.guest.uuid)[0].1, DomainState::Paused);
    assert!(bench.kinds().contains(&EventKind::GuestFailed));
    // Nor does one that has another process of its own host as a second writer.
    bench.cluster.use_image(&disk, ImageUsers { watchers: vec![own.clone(), user("10.1.0.1:0/9")], lockers: vec![] });
    sleep(secs(120)).await;
    assert_eq!(bench.fake.places(bench.guest.uuid)[0].1, DomainState::Paused);
    bench.cluster.use_image(&disk, ImageUsers { watchers: vec![own], lockers: vec![] });
    bench.runs_on(&["h1"]).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_stands_by_does_nothing_and_finds_it_by_the_log_when_it_leads() {
    let bench = bench(Standing::default()).await;
    bench.logs("crashed");
    bench.fake.happens("h1", bench.guest.uuid, Lifecycle::Crashed);
    sleep(secs(60)).await;
    assert!(bench.fake.places(bench.guest.uuid).is_empty() && bench.kinds().is_empty());
    // It leads, and the host is not well yet.
    bench.standing.send(Standing { acts: true, well: ["h2".to_owned()].into() }).unwrap();
    bench.asked.send("h1".into()).await.unwrap();
    sleep(secs(60)).await;
    assert!(bench.fake.places(bench.guest.uuid).is_empty());
    assert_eq!(bench.kinds(), [EventKind::GuestDown]);
    bench.standing.send(well()).unwrap();
    bench.runs_on(&["h1"]).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_started_that_was_stopped_or_of_which_nothing_is_known() {
    let bench = bench(well()).await;
    // Its log says nothing.
    bench.fake.happens("h1", bench.guest.uuid, Lifecycle::Stopped);
    sleep(secs(60)).await;
    assert_eq!(bench.kinds(), [EventKind::GuestFailed]);
    assert!(bench.fake.places(bench.guest.uuid).is_empty());
    assert_eq!(bench.claim().await.phase, Phase::Running, "its claim goes on naming the host");
}

#[test]
fn a_guest_that_was_given_up_is_looked_after_again_once_somebody_started_it() {
    let mut rule = Rule::default();
    for n in 0..6 {
        rule.see(secs(n * 100), G, down("h1", Ending::Crashed));
        orders(&mut rule, n * 100 + 99);
        rule.tried(secs(n * 100 + 99), G, Ok("h1".into()));
    }
    rule.see(secs(800), G, down("h1", Ending::Crashed));
    assert_eq!(rule.see(secs(900), G, down("h1", Ending::Crashed)), []);
    // By an event, and by a look.
    for seen in [false, true] {
        if seen {
            rule.see(secs(901), G, Sight::Fine);
        } else {
            rule.runs(G);
        }
        assert_eq!(rule.see(secs(902), G, down("h1", Ending::Crashed)).len(), 1, "{seen}");
        assert_eq!(orders(&mut rule, 902), [Order::Start(G, Where::On("h1".into()))]);
        rule.tried(secs(902), G, Ok("h1".into()));
        rule.see(secs(903), G, down("h1", Ending::Untold));
        assert_eq!(rule.see(secs(903), G, down("h1", Ending::Untold)), [], "told once");
    }
    // A word of it is enough.
    rule.see(secs(904), G, down("h1", Ending::Killed));
    assert_eq!(orders(&mut rule, 904), [Order::Start(G, Where::On("h1".into()))]);
    rule.unwanted(G);
    assert_eq!((orders(&mut rule, 2000), rule.next()), (Vec::new(), None));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_panics_or_is_late_leaves_no_guest_out_and_fails_none_that_runs() {
    let bench = bench(Standing::default()).await;
    let guests = || vec![bench.guest.uuid, G];
    let check = |outcomes: Outcomes| {
        assert_eq!(outcomes[0], (bench.guest.uuid, Ok(Some("h1".to_owned()))));
        assert!(outcomes[1].1.is_err());
    };
    check(in_time(&bench.rack, guests(), async { panic!("as it happens") }).await);
    check(in_time(&bench.rack, guests(), std::future::pending()).await);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_cannot_tell_holds_up_only_its_own_guests() {
    let bench = bench(well()).await;
    let other = sample_guest("db");
    bench.cluster.create(&Guest::object(other.uuid), &encode(&other).unwrap()).await.unwrap();
    for disk in &other.disks {
        bench.cluster.image_create(&disk.image, 1 << 30).await.unwrap();
    }
    bench.fake.put("h2", "db", other.uuid);
    let running = Claim::default().starting("h2", &Run::new()).running("h2");
    claim::swap(bench.cluster.as_ref(), other.uuid, &Claim::default(), &running).await.unwrap();
    *bench.log.lock().unwrap() = "fails".to_owned();
    bench.fake.happens("h1", bench.guest.uuid, Lifecycle::Stopped);
    bench.fake.happens("h2", other.uuid, Lifecycle::Crashed);
    sleep(secs(120)).await;
    assert_eq!(bench.fake.places(other.uuid), [("h2".to_owned(), DomainState::Running)]);
    assert!(bench.fake.places(bench.guest.uuid).is_empty());
    assert!(bench.kinds().contains(&EventKind::GuestFailed), "{:?}", bench.told.lock().unwrap());
    bench.logs("destroyed");
    bench.runs_on(&["h1"]).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_heard_while_a_host_is_silent_or_others_are_at_it_is_not_lost() {
    let bench = bench(well()).await;
    bench.logs("destroyed");
    let running = bench.claim().await;
    let moving = running.moving("h1", "h2", &Run::new());
    claim::swap(bench.cluster.as_ref(), bench.guest.uuid, &running, &moving).await.unwrap();
    bench.fake.happens("h1", bench.guest.uuid, Lifecycle::Stopped);
    sleep(secs(30)).await;
    assert!(bench.fake.places(bench.guest.uuid).is_empty() && bench.kinds().is_empty());
    bench.fake.fault("h1", FakeFault::Unreachable);
    claim::swap(bench.cluster.as_ref(), bench.guest.uuid, &moving, &moving.running("h1")).await.unwrap();
    sleep(secs(100)).await;
    assert!(bench.kinds().is_empty(), "{:?}", bench.told.lock().unwrap());
    bench.fake.mend("h1", FakeFault::Unreachable);
    bench.runs_on(&["h1"]).await;
}
