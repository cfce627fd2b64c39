//! Reboots on a fake rack: guests leave and come back, what is unsafe is refused, and what was begun is gone on with.

use super::documents::{RebootPhase, RebootRecord};
use super::{Reboot, RollingReport, Turn, reboot_all};
use crate::cluster::{Candidate, ClusterPort, FakeCluster, encode};
use crate::error::{Failure, Kind};
use crate::guest::claim::{self, Claim, Run};
use crate::guest::{Guest, GuestContext, Maintenance, begin_maintenance, read_host_states, sample_guest};
use crate::inventory;
use crate::libvirt::FakeRack;
use crate::movement::Options;
use crate::ssh::{FakeRemote, Fleet, Output, Remote, RemoteError};
use crate::ui::{CancelLevel, Ui};
use crate::watch::driver::LEASE;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

pub(super) const INVENTORY: &str = "
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

/// Which boot a host is in, and how often it was told to reboot.
#[derive(Debug, Default)]
struct Boots {
    boot: u32,
    orders: u32,
    /// It does not come back.
    stays_down: bool,
    down: bool,
}

struct Bench {
    rack: GuestContext,
    fake: FakeRack,
    cluster: Arc<FakeCluster>,
    boots: BTreeMap<String, Arc<Mutex<Boots>>>,
    guest: Guest,
}

fn remote(name: &str, boots: Arc<Mutex<Boots>>) -> Arc<dyn Remote> {
    let said = |text: String| Some(Ok(Output { status: 0, stdout: text.into_bytes(), stderr: Vec::new() }));
    let host = FakeRemote::new(name).rule(move |exec| {
        let mut boots = boots.lock().unwrap();
        if boots.down {
            return Some(Err(RemoteError::Unreachable { host: "it".into(), reason: "no route".into() }));
        }
        if exec.argv.join(" ").contains("boot_id") {
            return said(format!("boot-{}\n", boots.boot));
        }
        if String::from_utf8_lossy(&exec.stdin).contains("systemctl --no-block reboot") {
            assert_eq!(exec.argv[3..], ["ceph-osd.target", "ceph-mgr.target", "ceph-mon.target"]);
            boots.orders += 1;
            boots.boot += 1;
            boots.down = boots.stays_down;
            return Some(Err(RemoteError::Unreachable { host: "it".into(), reason: "it went".into() }));
        }
        None
    });
    Arc::new(host.on("br-lan", "").on("full size", ""))
}

/// Three hosts; a guest runs on h1. Ceph is whole and goes on without any of them.
async fn bench() -> Bench {
    let inventory = inventory::parse("inventory.yaml", INVENTORY).unwrap();
    let (fake, cluster) = (FakeRack::new(HOSTS), Arc::new(FakeCluster::new()));
    for host in &inventory.hosts {
        fake.address(&inventory.migration_address(host).to_string(), &host.name);
    }
    let guest = sample_guest("web");
    cluster.create(&Guest::object(guest.uuid), &encode(&guest).unwrap()).await.unwrap();
    for disk in &guest.disks {
        cluster.image_create(&disk.image, 1 << 30).await.unwrap();
    }
    fake.put("h1", "web", guest.uuid);
    let running = Claim::default().starting("h1", &Run::new()).running("h1");
    claim::swap(cluster.as_ref(), guest.uuid, &Claim::default(), &running).await.unwrap();
    for prefix in ["osd set-group", "osd unset-group", "osd ok-to-stop", "mon ok-to-stop"] {
        cluster.answer(prefix, Value::Null);
    }
    cluster.answer("osd ls-tree", json!([0]));
    let host = |id: i64, name| json!({"id": -id - 2, "type": "host", "name": name, "children": [id]});
    let osd = |id: i64| json!({"id": id, "type": "osd", "name": format!("osd.{id}"), "status": "up"});
    let nodes = [host(0, "h1"), host(1, "h2"), host(2, "h3"), osd(0), osd(1), osd(2)];
    cluster.answer("osd tree", json!({"nodes": nodes}));
    let clean = json!({"num_pgs": 9, "pgs_by_state": [{"state_name": "active+clean", "count": 9}]});
    cluster.answer("status", json!({"quorum_names": HOSTS, "pgmap": clean}));
    let boots: BTreeMap<String, Arc<Mutex<Boots>>> = HOSTS.map(|name| (name.to_owned(), Arc::default())).into();
    let rack = GuestContext {
        port: cluster.clone(),
        hypervisors: fake.hypervisors(),
        fleet: Fleet::of(HOSTS.map(|name| remote(name, boots[name].clone()))),
        inventory: Arc::new(inventory),
        ui: Ui::hidden(),
        run: Run::new(),
        turns: Arc::default(),
    };
    Bench { rack, fake, cluster, boots, guest }
}

impl Bench {
    fn boots(&self, host: &str) -> std::sync::MutexGuard<'_, Boots> {
        self.boots[host].lock().unwrap()
    }

    async fn roll(&self, hosts: &[&str], cancel_level: CancelLevel) -> Result<RollingReport, Failure> {
        let turn = Turn::take(&self.rack).await.unwrap();
        let options = Options { bandwidth: None, max_downtime: Duration::from_millis(500), link: None, deadline: None };
        let cancel_level = watch::channel(cancel_level).1;
        let patience = Duration::from_secs(300);
        let reboot = Reboot { rack: &self.rack, options: &options, patience, cancel_level, turn: &turn };
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let report = match hosts.as_slice() {
            [one] => Ok(RollingReport::of_one(one, reboot.run(one).await)),
            all => reboot_all(&reboot, all, false).await,
        };
        turn.end().await;
        report
    }

    async fn reboot(&self, host: &str) -> Result<super::Rebooted, Failure> {
        let mut report = self.roll(&[host], CancelLevel::None).await?;
        report.failure.map_or_else(|| Ok(report.hosts.remove(0).reboot.unwrap()), Err)
    }

    async fn maintenance(&self, host: &str) -> Option<Maintenance> {
        read_host_states(self.rack.port()).await.unwrap().remove(host).and_then(|state| state.maintenance)
    }

    fn runs_on(&self) -> String {
        let places = self.fake.places(self.guest.uuid);
        assert_eq!(places.len(), 1, "{places:?}");
        places[0].0.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_is_emptied_rebooted_and_given_its_guests_back() {
    let bench = bench().await;
    let done = bench.reboot("h1").await.unwrap();
    assert_eq!((done.moved, done.returned, done.left.len(), done.resumed), (1, 1, 0, false));
    assert_eq!((bench.runs_on(), bench.boots("h1").orders), ("h1".to_owned(), 1));
    assert_eq!(bench.maintenance("h1").await, None);
    assert_eq!(RebootRecord::read(bench.rack.port(), "h1").await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_was_in_maintenance_stays_in_it() {
    let bench = bench().await;
    let fans = Maintenance { why: Some("fans".into()), ..Maintenance::default() };
    begin_maintenance(bench.rack.port(), "h1", fans).await.unwrap();
    let done = bench.reboot("h1").await.unwrap();
    assert!(done.in_maintenance && done.moved == 1 && done.returned == 0);
    assert_eq!(bench.maintenance("h1").await.unwrap().why.as_deref(), Some("fans"));
}

#[tokio::test(start_paused = true)]
async fn what_ceph_cannot_do_without_is_not_stopped() {
    let bench = bench().await;
    let whole = bench.rack.clone();
    let cluster = Arc::new(FakeCluster::new());
    cluster.answer("osd ls-tree", json!([0]));
    let rack = GuestContext { port: cluster.clone(), ..whole };
    let refused = Bench { rack, cluster, ..bench };
    let failure = refused.reboot("h1").await.unwrap_err();
    assert_eq!(failure.kind, Kind::Refused);
    assert!(failure.to_string().starts_with("host h1: the OSDs of h1 may not stop now"), "{failure}");
    assert_eq!((refused.boots("h1").orders, refused.runs_on()), (0, "h1".to_owned()));
    assert_eq!(RebootRecord::read(refused.rack.port(), "h1").await.unwrap(), None);
    assert!(read_host_states(refused.cluster.as_ref()).await.unwrap().is_empty());
}

/// What an earlier run has left, killed after it was about to reboot the host.
async fn begun(bench: &Bench, host: &str, boot: &str, phase: RebootPhase) {
    let record = RebootRecord {
        host: host.into(),
        by: "an earlier run".into(),
        since: Timestamp::UNIX_EPOCH,
        phase,
        boot: Some(boot.into()),
        kept: false,
        maintenance: Timestamp::UNIX_EPOCH,
        moved: 3,
    };
    record.write(bench.rack.port()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_host_that_has_booted_anew_since_is_not_rebooted_again() {
    let bench = bench().await;
    begin_maintenance(bench.rack.port(), "h2", Maintenance::default()).await.unwrap();
    begun(&bench, "h2", "boot-before", RebootPhase::Rebooting).await;
    let done = bench.reboot("h2").await.unwrap();
    assert!(done.resumed && done.moved == 3);
    assert_eq!(bench.boots("h2").orders, 0);
    // That run died before it had told the host.
    begin_maintenance(bench.rack.port(), "h2", Maintenance::default()).await.unwrap();
    begun(&bench, "h2", "boot-0", RebootPhase::Rebooting).await;
    bench.reboot("h2").await.unwrap();
    assert_eq!(bench.boots("h2").orders, 1);
}

#[tokio::test(start_paused = true)]
async fn guests_that_came_since_a_reboot_was_broken_off_leave_before_it() {
    for in_maintenance in [true, false] {
        let bench = bench().await;
        if in_maintenance {
            begin_maintenance(bench.rack.port(), "h1", Maintenance::default()).await.unwrap();
        }
        begun(&bench, "h1", "boot-0", RebootPhase::Rebooting).await;
        let done = bench.reboot("h1").await.unwrap();
        assert_eq!((done.resumed, done.moved), (in_maintenance, if in_maintenance { 4 } else { 1 }));
        assert_eq!((done.returned, bench.boots("h1").orders, bench.runs_on()), (1, 1, "h1".to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_of_a_reboot_that_was_ended_by_hand_is_stale() {
    for phase in [RebootPhase::Recovering, RebootPhase::Returning] {
        let bench = bench().await;
        begun(&bench, "h2", "boot-before", phase).await;
        assert!(!bench.reboot("h2").await.unwrap().resumed);
        assert_eq!(bench.boots("h2").orders, 1, "it is rebooted as asked");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rolling_reboot_stops_at_a_host_that_stays_away_and_is_gone_on_with() {
    let bench = bench().await;
    bench.boots("h2").stays_down = true;
    let report = bench.roll(&HOSTS, CancelLevel::None).await.unwrap();
    let outcomes: Vec<&str> = report.hosts.iter().map(|host| host.outcome).collect();
    assert_eq!(outcomes, ["rebooted", "failed", "not begun"]);
    let failure = report.failure.unwrap();
    assert_eq!(failure.kind, Kind::Partial);
    assert!(failure.to_string().contains("stopped at h2: host h2: it did not come back within 5m"), "{failure}");
    assert!(bench.maintenance("h2").await.unwrap().noout);
    assert_eq!(bench.roll(&["h1", "h3"], CancelLevel::None).await.unwrap_err().kind, Kind::Refused);

    bench.boots("h2").down = false;
    let report = bench.roll(&HOSTS, CancelLevel::None).await.unwrap();
    let outcomes: Vec<&str> = report.hosts.iter().map(|host| host.outcome).collect();
    assert_eq!(outcomes, ["rebooted before", "rebooted", "rebooted"]);
    assert!(report.failure.is_none() && report.strays().is_ok());
    assert_eq!(HOSTS.map(|host| bench.boots(host).orders), [1, 1, 1]);
    assert_eq!((bench.runs_on(), bench.maintenance("h2").await), ("h1".to_owned(), None));
    // It is over: the next one begins anew.
    assert_eq!(bench.roll(&["h1", "h3"], CancelLevel::None).await.unwrap().hosts[0].outcome, "rebooted");
}

#[tokio::test(start_paused = true)]
async fn an_interruption_begins_no_further_host() {
    let bench = bench().await;
    let report = bench.roll(&["h1", "h3"], CancelLevel::Finish).await.unwrap();
    assert_eq!(report.failure.unwrap().kind, Kind::Interrupted);
    assert_eq!((bench.boots("h1").orders, bench.boots("h3").orders), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_does_not_take_note_keeps_the_host_running() {
    let bench = bench().await;
    let port = bench.cluster.clone();
    let watcher = tokio::spawn(async move {
        let mut candidate = Candidate::new(LEASE, "another watcher", "watches", Duration::from_secs(5));
        loop {
            candidate.attempt(port.as_ref()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let failure = bench.reboot("h1").await.unwrap_err();
    watcher.abort();
    assert!(
        failure.to_string().contains("(another watcher) does not take note that h1 is in maintenance"),
        "{failure}"
    );
    assert_eq!(bench.boots("h1").orders, 0);
}

#[tokio::test(start_paused = true)]
async fn one_run_at_a_time_reboots_hosts_and_a_dead_one_is_waited_out() {
    let bench = bench().await;
    let other = GuestContext { run: Run::new(), ..bench.rack.clone() };
    let turn = Turn::take(&other).await.unwrap();
    assert_eq!(Turn::take(&bench.rack).await.unwrap_err().kind, Kind::Busy);
    // It dies: nothing renews its lease any more.
    drop(turn);
    Turn::take(&bench.rack).await.unwrap();
}
