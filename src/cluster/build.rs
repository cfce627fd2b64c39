//! The cluster while it is built: what it is asked before, and while, it has no state of ours and no standing channel.
//!
//! One request, one answer, through a monitor host: a first monitor answers nothing until there is a quorum, and a host
//! that has no Ceph yet has nothing to keep a channel to.

use super::staggered::first_of;
use crate::error::{Failure, Kind};
use crate::inventory::{Inventory, Role};
use crate::ssh::{Exec, Fleet};
use async_trait::async_trait;
use base64::Engine;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

const SCRIPT: &str = include_str!("build.py");
/// Seconds until a cluster without quorum counts as silent.
const CONNECT: u32 = 5;
/// How long the next monitor host waits for the one before it.
const STAGGER: Duration = Duration::from_secs(2);
/// Seconds for one command of a cluster that answers; an election takes up to 5 with Ceph's own timers.
const COMMAND: u32 = 20;
/// How long one request may take, all its commands together.
const REQUEST: Duration = Duration::from_secs(120);

/// A key with its entity's capabilities.
#[derive(Clone, Deserialize)]
pub struct EntityKey {
    entity: String,
    key: String,
    caps: BTreeMap<String, String>,
}

impl fmt::Debug for EntityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntityKey").field("entity", &self.entity).field("caps", &self.caps).finish_non_exhaustive()
    }
}

impl EntityKey {
    /// A key, where it is not read from an answer.
    pub fn new(entity: &str, key: &str, caps: &[&str]) -> Self {
        let caps = caps.chunks_exact(2).map(|pair| (pair[0].to_owned(), pair[1].to_owned())).collect();
        EntityKey { entity: entity.to_owned(), key: key.to_owned(), caps }
    }

    /// The keyring file's text.
    pub fn keyring(&self) -> String {
        let mut text = format!("[{}]\n\tkey = {}\n", self.entity, self.key);
        for (who, what) in &self.caps {
            text.push_str(&format!("\tcaps {who} = \"{what}\"\n"));
        }
        text
    }
}

/// The cluster while it is built, or a fake of it.
#[async_trait]
pub trait BuildPort: Send + Sync + fmt::Debug {
    /// Everything that the steps want to know, with the keys of these entities as hashes, and the monitor host that
    /// answered; else why none did.
    async fn survey(&self, entities: &[String]) -> Result<(String, Value), String>;
    /// Gives the monitors commands in order, from this host; stops at the first that fails.
    async fn run(&self, via: &str, commands: &[Value]) -> Result<(), Failure>;
    /// The key of an entity, made with these capabilities where it does not exist; without any it must exist.
    async fn key(&self, via: &str, entity: &str, caps: &[&str]) -> Result<EntityKey, Failure>;
    /// The current monitor map.
    async fn monmap(&self, via: &str) -> Result<Vec<u8>, Failure>;
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Facts(Value),
    Key(EntityKey),
    Monmap(String),
    Done(()),
    Failed(String),
    Silent(String),
}

/// The cluster through its monitor hosts.
#[derive(Debug)]
pub struct Builder {
    fleet: Fleet,
    mons: Vec<String>,
}

impl Builder {
    /// Through the monitor hosts of this inventory.
    pub fn new(fleet: Fleet, inventory: &Inventory) -> Self {
        let mons = inventory.with_role(Role::Mon).map(|host| host.name.clone()).collect();
        Builder { fleet, mons }
    }

    async fn seen_from(&self, host: String, request: Value) -> Result<(String, Value), String> {
        match self.ask(&host, request).await {
            Ok(Answer::Facts(facts)) => Ok((host, facts)),
            Ok(Answer::Silent(reason)) => Err(format!("{host}: {reason}")),
            Ok(_) => Err(format!("{host}: it answered something else")),
            Err(failure) => Err(failure.to_string()),
        }
    }

    async fn ask(&self, host: &str, mut request: Value) -> Result<Answer, Failure> {
        request["connect"] = CONNECT.into();
        request["timeout"] = COMMAND.into();
        let exec = Exec::argv(["python3", "-c", SCRIPT]).stdin(request.to_string());
        let output = self.fleet.get(host)?.run(exec.deadline(REQUEST)).await?;
        // A bare host has no python3.
        if output.status == 127 {
            return Ok(Answer::Silent("python3 is not installed".to_owned()));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| {
            Failure::failed(format!("host {host}: the cluster script broke: {error}: {}", output.tail()))
        })
    }
}

fn unexpected(host: &str, answer: Answer) -> Failure {
    match answer {
        Answer::Failed(reason) => Failure::failed(format!("the cluster refused, asked from {host}: {reason}")),
        Answer::Silent(reason) => Failure::failed(format!("the cluster does not answer, asked from {host}: {reason}")),
        _ => Failure::failed(format!("the cluster answered something else, asked from {host}")),
    }
}

#[async_trait]
impl BuildPort for Builder {
    async fn survey(&self, entities: &[String]) -> Result<(String, Value), String> {
        let request = json!({ "do": "probe", "entities": entities });
        let mons = self.mons.iter().cloned();
        let found = first_of(mons, STAGGER, |host| self.seen_from(host, request.clone())).await;
        found.map_err(|reasons| reasons.join("; "))
    }

    async fn run(&self, via: &str, commands: &[Value]) -> Result<(), Failure> {
        match self.ask(via, json!({ "do": "run", "commands": commands })).await? {
            Answer::Done(()) => Ok(()),
            other => Err(unexpected(via, other)),
        }
    }

    async fn key(&self, via: &str, entity: &str, caps: &[&str]) -> Result<EntityKey, Failure> {
        match self.ask(via, json!({ "do": "key", "entity": entity, "caps": caps })).await? {
            Answer::Key(key) => Ok(key),
            other => Err(unexpected(via, other)),
        }
    }

    async fn monmap(&self, via: &str) -> Result<Vec<u8>, Failure> {
        match self.ask(via, json!({ "do": "monmap" })).await? {
            Answer::Monmap(text) => {
                base64::engine::general_purpose::STANDARD.decode(text).map_err(|e| Failure::new(Kind::Failed, e))
            }
            other => Err(unexpected(via, other)),
        }
    }
}

/// A cluster that is built in memory: it remembers what it was told, and answers what it is given.
#[derive(Debug, Default)]
pub struct FakeBuild {
    /// What a survey answers, or why none can be made.
    pub answer: std::sync::Mutex<Option<Value>>,
    /// The commands that were run, in their order.
    pub commands: std::sync::Mutex<Vec<Value>>,
    /// What a command with this prefix is refused with.
    pub refusals: BTreeMap<String, String>,
}

#[async_trait]
impl BuildPort for FakeBuild {
    async fn survey(&self, _: &[String]) -> Result<(String, Value), String> {
        tokio::task::yield_now().await;
        let answer = self.answer.lock().map_err(|e| e.to_string())?.clone();
        answer.map(|answer| ("c1".to_owned(), answer)).ok_or_else(|| "c1: timed out".to_owned())
    }

    async fn run(&self, via: &str, commands: &[Value]) -> Result<(), Failure> {
        tokio::task::yield_now().await;
        for command in commands {
            let prefix = command["prefix"].as_str().unwrap_or_default();
            if let Some(reason) = self.refusals.get(prefix) {
                return Err(unexpected(via, Answer::Failed(format!("{prefix}: {reason}"))));
            }
            self.commands.lock().map_err(|e| Failure::failed(e.to_string()))?.push(command.clone());
        }
        Ok(())
    }

    async fn key(&self, _: &str, entity: &str, caps: &[&str]) -> Result<EntityKey, Failure> {
        tokio::task::yield_now().await;
        Ok(EntityKey::new(entity, "AQBfake==", caps))
    }

    async fn monmap(&self, _: &str) -> Result<Vec<u8>, Failure> {
        tokio::task::yield_now().await;
        Ok(b"monmap".to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::{FakeRemote, Remote};
    use std::sync::Arc;

    fn builder(hosts: &[(&str, &str)]) -> Builder {
        let remotes = hosts
            .iter()
            .map(|(name, answer)| Arc::new(FakeRemote::new(*name).on("\"do\"", *answer)) as Arc<dyn Remote>);
        Builder { fleet: Fleet::of(remotes), mons: hosts.iter().map(|(name, _)| (*name).to_owned()).collect() }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_monitor_host_that_answers_is_asked_from_then_on() {
        let port = builder(&[("h1", r#"{"silent":"no quorum"}"#), ("h2", r#"{"facts":{"x":1}}"#)]);
        assert_eq!(port.survey(&[]).await, Ok(("h2".to_owned(), json!({ "x": 1 }))));
        let silent = builder(&[("h1", r#"{"silent":"no quorum"}"#), ("h2", r#"{"done":null}"#)]);
        assert_eq!(silent.survey(&[]).await, Err("h1: no quorum; h2: it answered something else".to_owned()));
    }

    #[tokio::test]
    async fn a_refusal_names_the_host_that_was_asked() {
        let port = builder(&[("h1", r#"{"failed":"osd pool set: EINVAL"}"#)]);
        let failure = port.run("h1", &[json!({ "prefix": "osd pool set" })]).await.unwrap_err();
        assert_eq!(failure.to_string(), "the cluster refused, asked from h1: osd pool set: EINVAL");
    }

    #[test]
    fn a_key_is_not_in_debug_output() {
        let key = EntityKey::new("client.x", "AQBsecret==", &["mon", "profile rbd"]);
        assert!(!format!("{key:?}").contains("AQBsecret"));
        assert_eq!(key.keyring(), "[client.x]\n\tkey = AQBsecret==\n\tcaps mon = \"profile rbd\"\n");
    }

    /// The script on a cluster that answers `auth get` with this status, and all else with nothing in particular.
    fn asked(status: i32) -> Answer {
        use std::io::Write;
        use std::process::{Command, Stdio};
        let directory = tempfile::tempdir().unwrap();
        let rados = format!(
            "class Error(Exception): pass\nclass TimedOut(Error): pass\n\
             class Rados:\n    def __init__(self, name, conffile, conf):\n        assert conf['rados_mon_op_timeout'] == '20'\n\
             \x20   def connect(self, timeout): pass\n\
             \x20   def mon_command(self, cmd, data): return ({status}, '', '') if 'auth get' in cmd else (0, '{{}}', '')\n"
        );
        std::fs::write(directory.path().join("rados.py"), rados).unwrap();
        let script = SCRIPT.replace("/etc/ceph/ceph.client.admin.keyring", "/dev/null");
        let mut python = Command::new("python3");
        python.args(["-B", "-c", &script]).env("PYTHONPATH", directory.path());
        let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let request = json!({ "do": "probe", "entities": ["client.admin"], "connect": 5, "timeout": 20 });
        child.stdin.take().unwrap().write_all(request.to_string().as_bytes()).unwrap();
        let text = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_question_that_ran_out_of_time_is_not_told_as_an_entity_that_is_missing() {
        assert!(matches!(asked(-2), Answer::Facts(_)), "there is no such entity");
        assert!(matches!(asked(-110), Answer::Silent(reason) if reason == "auth get client.admin: -110"));
    }
}
