//! The steps over scripted hosts that answer as real ones did.

use super::testing::inventory;
use super::{steps, todo};
use crate::cluster::{BuildPort, FakeBuild};
use crate::playbook::Action;
use crate::provision::Ctx;
use crate::ssh::{Exec, FakeRemote, Fleet, Output, Remote};
use crate::ui::{ColorChoice, EventStyle, OutputFormat, Ui};
use std::collections::BTreeMap;
use std::sync::Arc;

const HOST: &str = include_str!("testdata/host.txt");
const CLUSTER: &str = include_str!("testdata/cluster.json");

/// A host like the recorded one, under another name.
fn host(name: &str) -> Arc<FakeRemote> {
    answering(name, CLUSTER)
}

/// The same, where the cluster says this.
fn answering(name: &str, cluster: &str) -> Arc<FakeRemote> {
    let mut answer = HOST.to_owned();
    for own in ["hostname=", "store=", "mgr.", "ceph-mon@", "ceph-mgr@", "lab-"] {
        answer = answer.replace(&format!("{own}c1"), &format!("{own}{name}"));
    }
    Arc::new(FakeRemote::new(name).on("Everything the Ceph steps want to know", answer).on("\"do\":\"probe\"", cluster))
}

fn context(hosts: &[Arc<FakeRemote>]) -> Ctx {
    let fleet = Fleet::of(hosts.iter().map(|h| Arc::clone(h) as Arc<dyn Remote>));
    let ui = Ui::new(OutputFormat::Table, ColorChoice::Never, true, Some(EventStyle::Plain));
    Ctx::new(Arc::new(inventory()), fleet, BTreeMap::new(), ui)
}

#[tokio::test]
async fn all_steps_together_look_once_at_each_host_and_once_at_the_cluster() {
    let hosts = ["c1", "c2", "c3"].map(host);
    let ctx = context(&hosts);
    let mut found = Vec::new();
    for step in steps() {
        found.extend(step.probe(&ctx).await.unwrap().changes);
    }
    assert!(found.iter().any(|c| c.object == "pool guests"), "{found:?}");
    assert!(!found.iter().any(|c| c.object.starts_with("mon ")), "{found:?}");
    let asked = hosts.each_ref().map(|h| h.asked().len());
    assert_eq!(asked, [2, 1, 1]);
}

#[tokio::test]
async fn a_cluster_that_does_not_answer_is_not_planned_to_be_made() {
    let silent = ["c1", "c2", "c3"].map(|name| answering(name, r#"{"silent":"timed out"}"#));
    let ctx = context(&silent);
    for step in steps() {
        let changes = step.probe(&ctx).await.unwrap().changes;
        assert!(changes.iter().all(|c| c.action != Action::Create), "{changes:?}");
        if step.name() == "ceph-pools" {
            assert_eq!((changes.len(), changes[0].detail.as_str()), (1, "look when the monitors answer"));
        }
    }
}

#[tokio::test]
async fn keys_travel_on_stdin_only() {
    let secret = "AQBsecretsecretsecret==";
    let answer = format!(r#"{{"key":{{"entity":"mgr.c1","key":"{secret}","caps":{{"mon":"allow profile mgr"}}}}}}"#);
    let c1 = Arc::new(FakeRemote::new("c1").on("\"do\":\"key\"", answer).rule(|_: &Exec| Some(Ok(Output::default()))));
    let ctx = context(std::slice::from_ref(&c1));
    let change = crate::playbook::Change::new("c1", "ceph-mgrs", Action::Create, "mgr c1");
    let keyring = todo::Op::Keyring {
        entity: "mgr.c1".to_owned(),
        caps: vec!["mon", "allow profile mgr"],
        path: "/var/lib/ceph/mgr/ceph-c1/keyring".to_owned(),
        owner: "ceph:ceph",
    };
    todo::execute(&ctx, "c1", vec![todo::Todo::new(change, vec![keyring])]).await.unwrap();
    let asked = c1.asked();
    assert!(asked.iter().all(|e| !e.argv.join(" ").contains(secret)));
    let written = asked.iter().find(|e| String::from_utf8_lossy(&e.stdin).contains(secret)).unwrap();
    assert!(String::from_utf8_lossy(&written.stdin).contains("caps mon = \"allow profile mgr\""));
}

#[tokio::test]
async fn what_fails_on_a_host_keeps_nothing_else_from_being_done_unless_the_host_is_gone() {
    let todos = |host: &str| {
        ["bad", "good"].map(|script| {
            let change = crate::playbook::Change::new(host, "ceph-osds", Action::Create, format!("disk {script}"));
            todo::Todo::new(change, vec![todo::Op::Script(script, Vec::new())])
        })
    };
    let is_bad = |exec: &Exec| exec.stdin == b"bad";
    let c1 = Arc::new(FakeRemote::new("c1").rule(move |exec: &Exec| {
        Some(Ok(Output { status: i32::from(is_bad(exec)), stderr: b"no space".to_vec(), ..Output::default() }))
    }));
    // One without answers cannot be reached.
    let c2 = Arc::new(FakeRemote::new("c2"));
    let ctx = context(&[Arc::clone(&c1), Arc::clone(&c2)]);
    let all = todos("c2").into_iter().chain(todos("c1")).collect();
    let failure = todo::execute(&ctx, "c1", all).await.unwrap_err();
    assert_eq!(failure.to_string(), "disk bad: host c1: `sh` exited with 1: no space");
    assert!(failure.hints[0].starts_with("also failed: disk bad: host c2: cannot connect"), "{:?}", failure.hints);
    let asked =
        |host: &FakeRemote| host.asked().iter().map(|e| String::from_utf8_lossy(&e.stdin).into_owned()).collect();
    let (first, second): (Vec<String>, Vec<String>) = (asked(&c1), asked(&c2));
    assert_eq!((first, second), (vec!["bad".to_owned(), "good".to_owned()], vec!["bad".to_owned()]));
}

/// The whole of two steps on the fake: what the cluster lacks is asked of it, in order, through the one port.
#[tokio::test]
async fn what_a_cluster_lacks_is_asked_of_it_in_order() {
    let hosts = ["c1", "c2", "c3"].map(host);
    let answer: serde_json::Value = serde_json::from_str(CLUSTER).unwrap();
    let build = Arc::new(FakeBuild { answer: Some(answer["facts"].clone()).into(), ..FakeBuild::default() });
    let mut ctx = context(&hosts);
    ctx.build = Arc::clone(&build) as Arc<dyn BuildPort>;
    let steps = steps::steps();
    let pools = steps.iter().find(|s| s.name() == "ceph-pools").unwrap();
    let changes = pools.probe(&ctx).await.unwrap().changes;
    assert_eq!(changes.iter().map(|c| c.object.as_str()).collect::<Vec<_>>(), ["pool guests", "pool .rackhand"]);
    // The recorded cluster does not change: the step gives up after its rounds, having asked each time.
    pools.apply(&ctx, &changes).await.unwrap();
    let asked = build.commands.lock().unwrap().clone();
    let words = |c: &serde_json::Value| c["prefix"].as_str().or(c["init_pool"].as_str()).unwrap().to_owned();
    let first: Vec<String> = asked.iter().take(4).map(words).collect();
    assert_eq!(first, ["osd pool create", "guests", "osd pool create", "osd pool application enable"]);
    assert!(hosts.iter().all(|h| h.asked().iter().all(|e| !e.argv.contains(&"python3".to_owned()))), "no second door");
}

#[tokio::test]
async fn a_refusal_of_the_monitors_ends_the_step_and_nothing_more_is_asked() {
    let hosts = ["c1", "c2", "c3"].map(host);
    let answer: serde_json::Value = serde_json::from_str(CLUSTER).unwrap();
    let refusals = [("osd pool create".to_owned(), "EINVAL".to_owned())].into();
    let build = Arc::new(FakeBuild { answer: Some(answer["facts"].clone()).into(), refusals, ..FakeBuild::default() });
    let mut ctx = context(&hosts);
    ctx.build = Arc::clone(&build) as Arc<dyn BuildPort>;
    let steps = steps::steps();
    let pools = steps.iter().find(|s| s.name() == "ceph-pools").unwrap();
    let changes = pools.probe(&ctx).await.unwrap().changes;
    let failure = pools.apply(&ctx, &changes).await.unwrap_err();
    assert!(failure.to_string().contains("osd pool create: EINVAL"), "{failure}");
    assert!(build.commands.lock().unwrap().is_empty());
}
