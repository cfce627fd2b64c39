//! The whole watcher on hosts, a cluster and hands that are not there, with a clock that the tests move.

use super::*;
use crate::cluster::{ClusterPort, FakeCluster, KeysChange};
use crate::ssh::{Fleet, Remote};
use crate::watch::brain::{Phase, Power, Settings, State, Verdict};
use crate::watch::witness::Pace;
use crate::watch::witness::testing::{BeatingHost, Mode, WELL};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

const NAMES: [&str; 5] = ["h1", "h2", "h3", "h4", "h5"];
const MONS: usize = 3;

/// Remembers what was asked for; all of it succeeds.
#[derive(Debug, Default)]
struct FakeHands {
    cluster: Arc<FakeCluster>,
    calls: Mutex<Vec<(Instant, String)>>,
}

impl FakeHands {
    fn call(&self, what: &str, host: &str) {
        self.calls.lock().unwrap().push((Instant::now(), format!("{what} {host}")));
    }

    fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().iter().map(|(_, call)| call.clone()).collect()
    }

    async fn until(&self, call: &str) -> Instant {
        loop {
            if let Some((at, _)) = self.calls.lock().unwrap().iter().find(|(_, made)| made == call) {
                return *at;
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}

#[async_trait]
impl Hands for FakeHands {
    async fn fence(&self, host: &str, _: &Verdict, tell: TellProgress) -> Result<String, FenceFailure> {
        self.call("fence", host);
        let record = json!({
            "schema": "rackhand.fence/1", "host": host, "since": "2026-01-01T00:00:00Z", "by": "one", "why": "dead",
            "proof": {"host": host, "addresses": [], "clients": [], "epoch": 7}});
        let change = KeysChange::default().add(host, record.to_string());
        self.cluster.change_keys("fences", &change).await.unwrap();
        tell(Progress { kind: "everywhere", guest: None, text: "every OSD refuses it".to_owned() });
        Ok("its addresses are blocklisted".to_owned())
    }
    async fn recover(&self, host: &str, tell: TellProgress) -> Result<Recovered, String> {
        self.call("recover", host);
        tell(Progress { kind: "running", guest: Some("web".to_owned()), text: "runs on h2".to_owned() });
        Ok(Recovered { started: 2, waiting: Vec::new() })
    }
    async fn stop_guests(&self, host: &str) -> Result<(), String> {
        self.call("stop", host);
        Ok(())
    }
    /// Asked for each host when a watcher begins to lead; all guests run.
    async fn restart_guests(&self, _: &str) -> Result<String, String> {
        Ok(String::new())
    }
    async fn drain(&self, host: &str) -> Result<String, String> {
        self.call("drain", host);
        Ok(String::new())
    }
    async fn mend_libvirt(&self, host: &str) -> Result<String, String> {
        self.call("mend", host);
        Ok(String::new())
    }
    async fn power(&self, _: &str) -> Power {
        Power::Unreachable
    }
    async fn avoid(&self, host: &str) {
        self.call("avoid", host);
    }
}

#[derive(Clone, Default)]
struct Ears {
    told: Arc<Mutex<Vec<Told>>>,
    picture: Arc<Mutex<Option<Picture>>>,
}

impl Audience for Ears {
    fn hear(&mut self, told: &Told) {
        self.told.lock().unwrap().push(told.clone());
    }
    fn see(&mut self, picture: &Picture) -> bool {
        *self.picture.lock().unwrap() = Some(picture.clone());
        false
    }
}

impl Ears {
    fn kinds(&self) -> Vec<String> {
        self.told.lock().unwrap().iter().map(|told| told.kind.clone()).collect()
    }

    async fn until(&self, wanted: impl Fn(&Picture) -> bool) -> Picture {
        let found = async {
            loop {
                if let Some(picture) = self.picture.lock().unwrap().clone().filter(&wanted) {
                    return picture;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(Duration::from_secs(120), found).await.expect("it never comes to this")
    }

    async fn until_told(&self, kind: &str) -> Told {
        let found = async {
            loop {
                if let Some(told) = self.told.lock().unwrap().iter().find(|told| told.kind == kind).cloned() {
                    return told;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(120), found).await.unwrap_or_else(|_| panic!("{kind} is never told"))
    }
}

struct Rack {
    hosts: BTreeMap<String, Arc<BeatingHost>>,
    cluster: Arc<FakeCluster>,
    hands: Arc<FakeHands>,
}

fn address(network: u8, name: &str) -> String {
    format!("10.{network}.0.{}", &name[1..])
}

fn mon_status(quorum: &[u64]) -> Value {
    let mons: Vec<Value> = (0..MONS).map(|rank| json!({"rank": rank, "name": NAMES[rank]})).collect();
    json!({"state": "peon", "quorum": quorum, "monmap": {"mons": mons}})
}

impl Rack {
    fn new() -> Self {
        let pause = Pace::of(Settings::fastest().patience).interval;
        let hosts = NAMES.iter().map(|name| ((*name).to_owned(), BeatingHost::new(name, pause))).collect();
        let cluster = Arc::new(FakeCluster::new());
        let hands = FakeHands { cluster: Arc::clone(&cluster), calls: Mutex::default() };
        let rack = Rack { hosts, cluster, hands: Arc::new(hands) };
        for name in &NAMES[..MONS] {
            rack.cluster.answer(&format!("mon.{name} mon_status"), mon_status(&[0, 1, 2]));
            rack.cluster.answer(&format!("mon.{name} quorum enter"), json!("an election"));
        }
        rack
    }

    /// Begins to watch; ends when the handle is aborted.
    fn watch(&self, me: &str) -> (Ears, JoinHandle<()>) {
        self.begin(me, true)
    }

    fn begin(&self, me: &str, acts: bool) -> (Ears, JoinHandle<()>) {
        let host = |(index, name): (usize, &&str)| WatchedHost {
            name: (*name).to_owned(),
            management: (address(0, name).parse().unwrap(), vec![22]),
            storage: (address(1, name).parse().unwrap(), vec![22, 6800]),
            guests: true,
            mon: index < MONS,
        };
        let hosts = NAMES.iter().enumerate().map(host).collect();
        let setup = Setup { me: me.to_owned(), settings: Settings::fastest(), hosts, journal: None, acts };
        let hearts = Fleet::of(self.hosts.values().map(|host| Arc::clone(host) as Arc<dyn Remote>));
        let port = Arc::clone(&self.cluster) as Arc<dyn ClusterPort>;
        let ports = Ports { hearts, port, hands: Arc::clone(&self.hands) as Arc<dyn Hands> };
        let ears = Ears::default();
        let mut audience = ears.clone();
        let task = tokio::spawn(async move {
            watch(setup, ports, &mut audience, std::future::pending()).await.unwrap();
        });
        (ears, task)
    }

    /// No other host reaches this one on these networks.
    fn unreached(&self, name: &str, networks: &[u8]) {
        for (other, host) in &self.hosts {
            if other != name {
                let mut unreached = host.unreached.lock().unwrap();
                unreached.as_mut().unwrap().extend(networks.iter().map(|network| address(*network, name)));
            }
        }
    }

    /// Pulls the cord.
    fn cut(&self, name: &str) -> Instant {
        self.hosts[name].becomes(Mode::Silent);
        self.unreached(name, &[0, 1]);
        self.cluster.answer(&format!("mon.{name} mon_status"), Value::Null);
        for mon in NAMES[..MONS].iter().filter(|mon| **mon != name) {
            self.cluster.answer(&format!("mon.{mon} mon_status"), mon_status(&[1, 2]));
        }
        Instant::now()
    }

    /// All is well with a host again.
    fn heal(&self, name: &str) {
        self.hosts[name].becomes(WELL);
        for host in self.hosts.values() {
            host.unreached.lock().unwrap().as_mut().unwrap().clear();
        }
        for mon in &NAMES[..MONS] {
            self.cluster.answer(&format!("mon.{mon} mon_status"), mon_status(&[0, 1, 2]));
        }
    }
}

fn is_ready(picture: &Picture) -> bool {
    picture.leads && picture.hosts.iter().all(|host| host.beats) && picture.mons == Some((3, 3, 3))
}

#[tokio::test(start_paused = true)]
async fn a_host_whose_cord_is_pulled_is_suspected_nudged_judged_fenced_and_recovered() {
    let rack = Rack::new();
    let (ears, _task) = rack.watch("one");
    ears.until(is_ready).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(rack.hands.calls(), [""; 0], "nothing is done to a healthy rack");
    let cut = rack.cut("h1");
    let fenced = rack.hands.until("fence h1").await - cut;
    assert!(fenced >= Duration::from_millis(700) && fenced <= Duration::from_millis(1300), "{fenced:?}");
    rack.hands.until("recover h1").await;
    ears.until_told("recovered").await;
    let kinds = ears.kinds();
    let order = ["suspected", "nudged", "judged", "fencing", "fenced", "recovered"];
    let places: Vec<_> = order.iter().map(|kind| kinds.iter().position(|told| told == kind)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{kinds:?}");
    assert_eq!(rack.hands.calls(), ["avoid h1", "fence h1", "recover h1"]);
    sleep(Duration::from_secs(10)).await;
    let open = OpenIncidents::read(rack.cluster.as_ref()).await.unwrap();
    assert_eq!(open.hosts["h1"].phase, Phase::Quarantined);
    // It is repaired, and let in again.
    rack.heal("h1");
    let fences = rack.cluster.keys("fences").await.unwrap();
    let lifted = KeysChange::default().take("h1", fences["h1"].clone());
    rack.cluster.change_keys("fences", &lifted).await.unwrap();
    ears.until_told("readmitted").await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(OpenIncidents::read(rack.cluster.as_ref()).await.unwrap(), OpenIncidents::default());
}

#[tokio::test(start_paused = true)]
async fn the_guests_of_a_host_that_somebody_else_fenced_are_started_elsewhere() {
    let rack = Rack::new();
    let (ears, _task) = rack.watch("one");
    ears.until(is_ready).await;
    let verdict =
        Verdict { host: "h2".into(), state: State::Dead, silent_ms: 0, evidence: Vec::new(), reason: "by hand".into() };
    rack.hands.fence("h2", &verdict, Arc::new(|_| ())).await.unwrap();
    timeout(Duration::from_secs(10), rack.hands.until("recover h2")).await.unwrap();
    assert_eq!(rack.hands.calls(), ["fence h2", "recover h2"]);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_others_reach_is_not_fenced_however_long_it_is_silent_here() {
    let rack = Rack::new();
    let (ears, _task) = rack.watch("one");
    ears.until(is_ready).await;
    // sshd is stopped: the kernel answers others, and Ceph and the guests go on.
    rack.hosts["h4"].becomes(Mode::Silent);
    let picture = ears.until(|p| p.hosts[3].state == State::UnreachableFromHere).await;
    assert!(picture.hosts[3].reason.contains("reached by"), "{}", picture.hosts[3].reason);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(rack.hands.calls(), ["avoid h4"]);
    rack.hosts["h4"].becomes(WELL);
    ears.until(|p| p.hosts[3].state == State::Healthy).await;
    assert!(ears.kinds().contains(&"cleared".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_hears_nobody_is_the_broken_one() {
    let rack = Rack::new();
    let (ears, _task) = rack.watch("one");
    ears.until(is_ready).await;
    NAMES.iter().for_each(|name| rack.hosts[*name].becomes(Mode::Silent));
    NAMES[..MONS].iter().for_each(|name| rack.cluster.answer(&format!("mon.{name} mon_status"), Value::Null));
    sleep(Duration::from_secs(30)).await;
    assert!(!rack.hands.calls().iter().any(|call| call.starts_with("fence")), "{:?}", rack.hands.calls());
}

#[tokio::test(start_paused = true)]
async fn a_disarmed_watch_tells_and_does_nothing_until_its_time_is_over() {
    let rack = Rack::new();
    let disarmed = Disarmed::new(Duration::from_secs(60), "a new switch".into(), "ann@admin".into());
    disarmed.write(rack.cluster.as_ref()).await.unwrap();
    let (ears, _task) = rack.watch("one");
    let picture = ears.until(is_ready).await;
    assert_eq!(picture.disarmed.as_deref(), Some("a new switch"));
    assert_eq!(ears.until_told("disarmed").await.text, "the watch is disarmed by ann@admin for 1m: a new switch");
    rack.cut("h1");
    assert!(ears.until_told("held").await.text.contains("disarmed"));
    sleep(Duration::from_secs(40)).await;
    assert_eq!(rack.hands.calls(), ["avoid h1"]);
    timeout(Duration::from_secs(40), rack.hands.until("fence h1")).await.unwrap();
    assert_eq!(Disarmed::read(rack.cluster.as_ref()).await.unwrap(), None);
    assert!(ears.kinds().contains(&"armed".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_standby_takes_over_from_a_leader_that_dies_and_goes_on_where_it_ended() {
    let rack = Rack::new();
    let (one, leader) = rack.watch("one");
    one.until(is_ready).await;
    let (two, _standby) = rack.watch("two");
    let picture = two.until(|p| p.leader.is_some()).await;
    assert_eq!((picture.leads, picture.leader.as_deref()), (false, Some("one")));
    sleep(Duration::from_secs(10)).await;
    // The host that dies carries the leader.
    let cut = rack.cut("h1");
    leader.abort();
    let fenced = timeout(Duration::from_secs(60), rack.hands.until("fence h1")).await.unwrap() - cut;
    assert!(fenced < Duration::from_secs(6), "{fenced:?}");
    two.until_told("recovered").await;
    let calls = rack.hands.calls();
    assert_eq!(calls.iter().filter(|call| *call == "fence h1").count(), 1, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_ends_in_order_is_followed_at_once() {
    let rack = Rack::new();
    let port = Arc::clone(&rack.cluster) as Arc<dyn ClusterPort>;
    let (one, leader) = rack.watch("one");
    one.until(is_ready).await;
    leader.abort();
    let gives_back = crate::cluster::Candidate::new("watch.leader", "one", "", Duration::ZERO);
    gives_back.resign(port.as_ref()).await.unwrap();
    let began = Instant::now();
    let (two, _standby) = rack.watch("two");
    two.until(|p| p.leads).await;
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_overslept_forgets_what_it_heard_and_fences_nobody() {
    let rack = Rack::new();
    let (ears, _task) = rack.watch("one");
    ears.until(is_ready).await;
    tokio::time::advance(Duration::from_secs(3600)).await;
    ears.until_told("overslept").await;
    ears.until(is_ready).await;
    sleep(Duration::from_secs(10)).await;
    assert!(!rack.hands.calls().iter().any(|call| call.starts_with("fence")), "{:?}", rack.hands.calls());
}

#[tokio::test(start_paused = true)]
async fn a_slow_disk_and_a_stuck_libvirt_are_no_death() {
    let rack = Rack::new();
    let (ears, _task) = rack.watch("one");
    ears.until(is_ready).await;
    rack.hosts["h2"].becomes(Mode::Beats { disk: r#"{"late":2500}"#, libvirt: r#"{"took":0.2}"# });
    rack.hosts["h3"].becomes(Mode::Beats { disk: r#"{"took":0.6}"#, libvirt: r#"{"late":9000}"# });
    ears.until(|p| p.hosts[1].state == State::Slow && p.hosts[2].state == State::Stuck).await;
    rack.hands.until("drain h2").await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(rack.hands.calls(), ["drain h2"]);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_only_looks_judges_and_tells_and_changes_nothing() {
    let rack = Rack::new();
    let (ears, _task) = rack.begin("one", false);
    ears.until(|p| p.hosts.iter().all(|host| host.beats) && p.mons == Some((3, 3, 3))).await;
    rack.cut("h1");
    ears.until(|p| p.hosts[0].state == State::Dead).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(rack.hands.calls(), ["avoid h1"]);
    assert!(!ears.kinds().contains(&"nudged".to_owned()), "{:?}", ears.kinds());
    assert_eq!(rack.cluster.get("watch.leader").await.unwrap(), None);
}
