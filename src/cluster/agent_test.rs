//! The real agent over a cluster in memory: `python3` here in place of a mon host, `agent/fake` in place of librados.

use super::channel::Link;
use super::connect::Cluster;
use super::request::{Lane, Request};
use super::{ClusterError, ClusterPort, Parent, Target};
use crate::ssh::{Channel, Exec, Forward, Output, Remote, RemoteError};
use async_trait::async_trait;
use futures::future::join_all;
use serde_json::{Value, json};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

const FSID: &str = "11111111-2222-4333-8444-555555555555";

/// A mon host: what its cluster does is told in a folder.
#[derive(Debug)]
struct MonHost {
    name: &'static str,
    folder: TempDir,
}

impl MonHost {
    fn new(name: &'static str) -> Arc<Self> {
        Arc::new(MonHost { name, folder: tempfile::tempdir().unwrap() })
    }

    /// Says what happens from now on.
    fn told(&self, control: &Value) {
        // Read while it is written, it would be cut short.
        let path = self.folder.path().join("control.new");
        std::fs::write(&path, control.to_string()).unwrap();
        std::fs::rename(path, self.folder.path().join("control.json")).unwrap();
    }

    /// Lets go what waits for `go`.
    fn go(&self) {
        std::fs::write(self.folder.path().join("go"), "").unwrap();
    }

    /// What was carried out.
    fn ran(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.path().join("ran")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// A mon of this host, as far as its admin socket goes.
    fn mon(&self, state: &str) -> tokio::task::JoinHandle<()> {
        let name = self.name;
        let socket = tokio::net::UnixListener::bind(self.folder.path().join(format!("ceph-mon.{name}.asok"))).unwrap();
        let addresses = json!({"addrvec": [{"type": "v2", "addr": format!("{name}:3300"), "nonce": 0}]});
        let mons = json!([{"rank": 0, "name": name, "public_addrs": addresses}]);
        let answer = json!({"name": name, "state": state, "monmap": {"mons": mons}}).to_string();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = socket.accept().await.unwrap();
                let mut command = Vec::new();
                while !command.ends_with(b"\0") {
                    command.push(stream.read_u8().await.unwrap());
                }
                stream.write_u32(answer.len() as u32).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        })
    }

    async fn link(self: &Arc<Self>) -> Link {
        Link::open(Arc::clone(self) as Arc<dyn Remote>, FSID.parse().unwrap()).await.unwrap()
    }
}

#[async_trait]
impl Remote for MonHost {
    fn name(&self) -> &str {
        self.name
    }

    async fn run(&self, exec: Exec) -> Result<Output, RemoteError> {
        Err(RemoteError::Unreachable { host: self.name.to_owned(), reason: format!("{exec:?} is not expected") })
    }

    async fn channel(&self, exec: Exec) -> Result<Channel, RemoteError> {
        let (code, program) = exec.argv.split_last().unwrap();
        let modules = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cluster/agent/fake");
        let mut child = tokio::process::Command::new(&program[0])
            .args(&program[1..])
            .arg(format!("import sys;sys.dont_write_bytecode=True;sys.path.insert(0,{modules:?});{code}"))
            .env("RACKHAND_FAKE", self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        stdin.write_all(&exec.stdin).await.unwrap();
        Ok(Channel::new(stdin, stdout, ()))
    }

    async fn forward_socket(&self, _: &str) -> Result<Forward, RemoteError> {
        Err(RemoteError::Unreachable { host: self.name.to_owned(), reason: "not expected".to_owned() })
    }
}

fn cluster(hosts: &[&Arc<MonHost>]) -> Cluster {
    let hosts: Vec<Arc<dyn Remote>> = hosts.iter().map(|host| Arc::clone(host) as Arc<dyn Remote>).collect();
    Cluster::of(hosts.into_iter(), FSID.parse().unwrap(), "guests".to_owned())
}

fn create(oid: &str) -> Request {
    Request::state("create", json!({"pool": "p", "oid": oid, "data": "{}"}))
}

/// Waits until `right` holds.
async fn eventually(right: impl Fn() -> bool) {
    for _ in 0..1500 {
        if right() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("waited 30 s in vain");
}

#[tokio::test]
async fn state_objects_are_swapped_and_listed_whole() {
    let port = cluster(&[&MonHost::new("h1")]);
    assert!(port.list("guest.").await.unwrap().is_empty());
    let first = port.create("guest.0", "one").await.unwrap();
    port.replace("guest.0", "two", first).await.unwrap();
    assert!(matches!(port.replace("guest.0", "three", first).await, Err(ClusterError::Conflict(_))));
    assert!(matches!(port.create("guest.0", "four").await, Err(ClusterError::Exists(_))));
    let large = "x".repeat(100_000);
    let more = (1..600).map(|n| (format!("guest.{n}"), if n == 300 { large.clone() } else { n.to_string() }));
    let more: Vec<(String, String)> = more.collect();
    for made in join_all(more.iter().map(|(name, data)| port.create(name, data))).await {
        made.unwrap();
    }
    let listed = port.list("guest.").await.unwrap();
    assert_eq!(listed.len(), 600);
    assert_eq!(listed[0].data, "two");
    assert!(listed.is_sorted_by(|a, b| a.name < b.name));
    assert_eq!(listed.iter().find(|entry| entry.name == "guest.300").unwrap().data, large);
    assert_eq!(port.get("guest.17").await.unwrap().unwrap().data, "17");
}

#[tokio::test]
async fn long_work_on_disks_keeps_no_state_object_waiting() {
    let host = MonHost::new("h1");
    host.told(&json!({"rules": [{"on": "remove", "until": "go"}]}));
    let port = cluster(&[&host]);
    let names: Vec<String> = (0..3 * Lane::Image.threads()).map(|n| format!("disk{n}")).collect();
    let removals = join_all(names.iter().map(|name| port.image_remove(name)));
    let state = async {
        port.create("x", "{}").await.unwrap();
        assert!(!host.ran().iter().any(|what| what.starts_with("remove")));
        host.go();
    };
    let (removed, ()) = tokio::join!(removals, state);
    assert!(removed.into_iter().all(|removed| !removed.unwrap()));
}

#[tokio::test]
async fn what_is_past_its_deadline_is_never_begun() {
    let host = MonHost::new("h1");
    host.told(&json!({"rules": [{"on": "write slow", "until": "go"}]}));
    let link = host.link().await;
    let slow: Vec<Request> = (0..Lane::State.threads()).map(|n| create(&format!("slow{n}"))).collect();
    let others = join_all(slow.iter().map(|request| link.ask(request)));
    let late = async {
        let late = Request { deadline: Duration::from_millis(300), ..create("late") };
        let error = link.ask(&late).await.unwrap_err();
        assert!(matches!(error, ClusterError::TimedOut { .. }), "it was sent: {error}");
        host.go();
    };
    let (others, ()) = tokio::join!(others, late);
    assert!(others.iter().all(Result::is_ok));
    link.ask(&create("after")).await.unwrap();
    assert!(host.ran().contains(&"write after".to_owned()));
    assert!(!host.ran().contains(&"write late".to_owned()));
}

#[tokio::test]
async fn what_waits_when_the_connection_ends_is_dropped() {
    let host = MonHost::new("h1");
    host.told(&json!({"rules": [{"on": "write slow", "until": "go"}]}));
    let link = Arc::new(host.link().await);
    let names = (0..Lane::State.threads()).map(|n| format!("slow{n}")).chain((0..9).map(|n| format!("queued{n}")));
    let asked: Vec<_> = names
        .map(|name| {
            let link = Arc::clone(&link);
            tokio::spawn(async move { link.ask(&create(&name)).await })
        })
        .collect();
    // Answered by other threads, after all that was sent before it.
    let ready = Request::mon("ready", json!({"pool": "p"}), Duration::from_secs(30));
    link.ask(&ready).await.unwrap();
    for task in asked {
        task.abort();
        let _ = task.await;
    }
    drop(link);
    // The agent has to see the end of its stdin before it is let go.
    tokio::time::sleep(Duration::from_millis(300)).await;
    host.go();
    let slow = || host.ran().iter().filter(|what| what.starts_with("write slow")).count();
    eventually(|| slow() == Lane::State.threads()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!host.ran().iter().any(|what| what.starts_with("write queued")), "{:?}", host.ran());
}

#[tokio::test]
async fn a_full_cluster_says_so_at_once_and_still_frees_space() {
    let host = MonHost::new("h1");
    let port = cluster(&[&host]);
    port.image_create("disk", 10).await.unwrap();
    let version = port.create("guest.1", "{}").await.unwrap();
    host.told(&json!({"full": true}));
    assert!(matches!(port.image_create("other", 10).await, Err(ClusterError::Full { .. })));
    assert!(matches!(port.image_grow("disk", 20).await, Err(ClusterError::Full { .. })));
    let version = port.replace("guest.1", r#"{"stage": "deleting"}"#, version).await.unwrap();
    assert!(port.image_remove("disk").await.unwrap());
    port.remove("guest.1", version).await.unwrap();
}

#[tokio::test]
async fn a_disk_is_never_made_smaller() {
    let host = MonHost::new("h1");
    let port = cluster(&[&host]);
    port.image_create("disk", 10).await.unwrap();
    assert_eq!(port.image_grow("disk", 20).await.unwrap(), 20);
    assert_eq!(port.image_grow("disk", 5).await.unwrap(), 20);
    assert!(!host.ran().contains(&"resize disk 5".to_owned()));
}

#[tokio::test]
async fn the_agent_greets_without_a_quorum_and_answers_what_needs_none() {
    let host = MonHost::new("h1");
    host.told(&json!({"rules": [{"on": "connect", "errno": 110}]}));
    let port = cluster(&[&host]);
    let daemon = host.mon("probing");
    let error = port.create("x", "{}").await.unwrap_err();
    assert!(matches!(error, ClusterError::NoQuorum(_)), "{error}");
    assert!(error.to_string().contains("mon h1 on h1 is probing"), "{error}");
    let enter = json!({"prefix": "quorum enter"});
    let answer = port.asok("h1", "mon.h1", enter, Duration::from_secs(5)).await.unwrap();
    assert_eq!(answer["state"], "probing");
    let other = port.asok("h1", "mon.h2", json!({"prefix": "mon_status"}), Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(other, ClusterError::NotFound(_)), "{other}");
    // The quorum is back: the same channel finds it.
    host.told(&json!({}));
    port.create("x", "{}").await.unwrap();
    daemon.abort();
}

#[tokio::test]
async fn the_mon_host_whose_answer_was_doubtful_is_asked_last() {
    let (one, two) = (MonHost::new("h1"), MonHost::new("h2"));
    one.told(&json!({"rules": [{"on": "read x", "errno": 110}, {"on": "write x", "errno": 110}]}));
    let port = cluster(&[&one, &two]);
    assert_eq!(port.get("y").await.unwrap(), None);
    assert_eq!(port.via().await.as_deref(), Some("h1"));
    // A question is asked again elsewhere, and what comes next is not asked of the doubtful host first.
    assert_eq!(port.get("x").await.unwrap(), None);
    assert_eq!(port.get("y").await.unwrap(), None);
    assert_eq!(port.via().await.as_deref(), Some("h2"));
    // A change that may have been made is not.
    two.told(&json!({"rules": [{"on": "write x", "errno": 110}]}));
    let error = port.create("x", "{}").await.unwrap_err();
    assert!(error.unknown(), "{error}");
    assert!(!one.ran().contains(&"write x".to_owned()));
}

#[tokio::test]
async fn a_fenced_mon_host_is_passed_over() {
    let (one, two) = (MonHost::new("h1"), MonHost::new("h2"));
    one.told(&json!({"rules": [{"on": "read", "errno": 108}]}));
    let port = cluster(&[&one, &two]);
    port.create("x", "{}").await.unwrap();
    assert_eq!(port.via().await.as_deref(), Some("h2"));
    two.told(&json!({"rules": [{"on": "read", "errno": 108}]}));
    assert!(matches!(port.get("x").await, Err(ClusterError::Blocklisted(_))));
}

#[tokio::test]
async fn a_channel_that_breaks_leaves_a_change_unknown_and_a_question_to_another_host() {
    let (one, two) = (MonHost::new("h1"), MonHost::new("h2"));
    let port = cluster(&[&one, &two]);
    assert_eq!(port.get("x").await.unwrap(), None);
    one.told(&json!({"rules": [{"on": "read x", "exit": true}]}));
    assert_eq!(port.get("x").await.unwrap(), None, "h2 answers");
    two.told(&json!({"rules": [{"on": "write x", "exit": true}]}));
    let error = port.create("x", "{}").await.unwrap_err();
    assert!(matches!(error, ClusterError::Lost { .. }) && error.unknown(), "{error}");
}

#[tokio::test]
async fn a_mon_host_can_be_asked_by_name() {
    let (one, two) = (MonHost::new("h1"), MonHost::new("h2"));
    let mons = [one.mon("leader"), two.mon("peon")];
    let port = cluster(&[&one, &two]);
    let status = json!({"prefix": "status"});
    for (target, host, what) in [
        (Target::MonAt("h2".to_owned()), &two, "[v2:h2:3300]: status"),
        (Target::MonAt("h1".to_owned()), &one, "[v2:h1:3300]: status"),
        (Target::Mon, &one, "any mon: status"),
    ] {
        let answer = port.command(&target, status.clone(), Duration::from_secs(5)).await.unwrap();
        assert_eq!(answer["answered"], true);
        assert!(host.ran().contains(&what.to_owned()), "{target}");
    }
    let error = port.command(&Target::MonAt("h9".to_owned()), status, Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot ask Ceph: the inventory has no mon host h9");
    for mon in mons {
        mon.abort();
    }
    port.latest_map().await.unwrap();
    assert!(one.ran().contains(&"latest map".to_owned()));
}

#[tokio::test]
async fn another_cluster_than_the_inventorys_is_refused() {
    let host = MonHost::new("h1");
    let hosts = std::iter::once(Arc::clone(&host) as Arc<dyn Remote>);
    let port = Cluster::of(hosts, Uuid::nil(), "guests".to_owned());
    let error = port.create("x", "{}").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("host h1 belongs to the Ceph cluster {FSID}, the inventory says {}", Uuid::nil())
    );
    assert!(host.ran().iter().all(|what| !what.starts_with("write")));
}

#[tokio::test]
async fn snapshots_of_several_disks_are_made_together_or_not_at_all() {
    let host = MonHost::new("h1");
    let port = cluster(&[&host]);
    let of = |image: &str, snapshot: &str| Parent { image: image.to_owned(), snapshot: snapshot.to_owned() };
    for name in ["a", "b"] {
        port.image_create(name, 10).await.unwrap();
    }
    port.snapshots_create(&[of("a", "one"), of("b", "one")]).await.unwrap();
    let error = port.snapshots_create(&[of("a", "two"), of("b", "one")]).await.unwrap_err();
    assert!(matches!(error, ClusterError::Exists(_)), "{error}");
    assert!(!host.ran().contains(&"snap a@two".to_owned()));
    host.told(&json!({"rules": [{"on": "snap b@three", "errno": 5}]}));
    port.snapshots_create(&[of("a", "three"), of("b", "three")]).await.unwrap_err();
    assert!(host.ran().contains(&"unsnap a@three".to_owned()), "{:?}", host.ran());
}

#[tokio::test]
async fn a_lock_is_broken_for_exactly_the_client_that_was_seen() {
    let host = MonHost::new("h1");
    let port = cluster(&[&host]);
    port.image_create("disk", 10).await.unwrap();
    let users = port.image_users("disk").await.unwrap();
    assert_eq!(users.watchers.len(), 1, "its own watch is not told");
    let locker = users.lockers[0].clone();
    assert_eq!((locker.client.as_str(), locker.cookie.as_str()), ("client.9", "auto 1"));
    let other = super::ImageUser { address: "10.0.0.8:0/1".to_owned(), ..locker.clone() };
    assert!(!port.image_break_lock("disk", &other).await.unwrap());
    assert!(port.image_break_lock("disk", &locker).await.unwrap());
    assert!(!port.image_break_lock("disk", &locker).await.unwrap());
    assert_eq!(host.ran().iter().filter(|what| what.starts_with("break")).count(), 1);
}
