//! The standing channel to one mon host: requests by number, answers in any order.

use super::ClusterError;
use crate::ssh::{ChannelEnd, ChannelIn, ChannelOut, Exec, Remote};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::{Mutex as AsyncMutex, oneshot};
use tokio::time::timeout;

/// What runs on the mon host.
const AGENT: &str = include_str!("agent.py");
/// Reads the agent from stdin and becomes it.
const BOOTSTRAP: &str = "import sys;b=sys.stdin.buffer;n=int(b.readline());exec(compile(b.read(n),'agent','exec'))";
/// Deadline for the first contact with Ceph. Three lost beats of a mon's lease (`mon_lease`, 5 s by default) are
/// longer, but then there is no quorum to speak of either.
const CONNECT: u64 = 5;
/// Deadline of a monitor's answer, in seconds: an election takes up to two `mon_election_timeout` of 5 s.
const MON_OP: u64 = 12;
/// Deadline of an OSD's answer, in seconds: a dead OSD is noticed after `osd_heartbeat_grace`, 20 s by default.
const OSD_OP: u64 = 30;
/// Requests answered at once.
const THREADS: u64 = 16;
/// Deadline of a state request here: a little more than the OSD's.
pub(super) const STATE: Duration = Duration::from_secs(OSD_OP + 5);
/// Deadline of a disk image request: several OSD requests.
pub(super) const IMAGE: Duration = Duration::from_secs(120);

type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>>;

#[derive(Debug, Deserialize)]
struct Answer {
    id: u64,
    #[serde(default)]
    ok: Value,
    error: Option<AgentError>,
}

#[derive(Debug, Deserialize)]
struct AgentError {
    kind: String,
    errno: i32,
    message: String,
    #[serde(default)]
    mons: Vec<MonView>,
}

/// What a mon says of the quorum.
#[derive(Debug, Deserialize)]
struct MonView {
    name: String,
    state: String,
    quorum: Vec<String>,
    mons: Vec<String>,
}

/// A standing channel.
pub(super) struct Link {
    host: String,
    fsid: String,
    stdin: AsyncMutex<ChannelIn>,
    waiting: Waiting,
    next: AtomicU64,
    silent: AtomicBool,
    reader: tokio::task::JoinHandle<()>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link({})", self.host)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Link {
    /// Starts the agent on a mon host and waits until it has found its cluster.
    pub(super) async fn open(remote: Arc<dyn Remote>) -> Result<Self, ClusterError> {
        let (host, began) = (remote.name().to_owned(), Instant::now());
        let unreachable = |e: &dyn std::fmt::Display| ClusterError::Unreachable(format!("host {host}: {e}"));
        let config = json!({"connect": CONNECT, "mon": MON_OP, "osd": OSD_OP, "threads": THREADS});
        let hello = format!("{}\n{AGENT}{config}\n", AGENT.len());
        let opened = remote.channel(Exec::argv(["python3", "-I", "-S", "-c", BOOTSTRAP]).stdin(hello)).await;
        // This error names its host itself.
        let (stdin, stdout, guard) = opened.map_err(|e| ClusterError::Unreachable(e.to_string()))?.into_parts();
        let mut lines = BufReader::new(stdout);
        let mut first = String::new();
        lines.read_line(&mut first).await.map_err(|e| unreachable(&e))?;
        if first.is_empty() {
            let said = guard.stderr();
            let said = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
            let reason = format!("python3 does not start there: {}", said.trim());
            return Err(ClusterError::NotSetUp { host, reason });
        }
        let answer: Answer = parse(&first)?;
        tracing::debug!(host, ms = began.elapsed().as_millis(), "the channel to Ceph is open");
        if let Some(error) = answer.error {
            return Err(connect_error(&host, error));
        }
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let reader = tokio::spawn(read_answers(lines, Arc::clone(&waiting), guard));
        Ok(Link {
            host,
            fsid: answer.ok["fsid"].as_str().unwrap_or_default().to_owned(),
            stdin: AsyncMutex::new(stdin),
            waiting,
            next: AtomicU64::new(1),
            silent: AtomicBool::new(false),
            reader,
        })
    }

    /// The mon host at the other end.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The cluster it belongs to.
    pub(super) fn fsid(&self) -> &str {
        &self.fsid
    }

    /// Whether the other end still answers, as far as is known.
    pub(super) fn alive(&self) -> bool {
        !self.silent.load(Ordering::Relaxed) && self.waiting.lock().is_ok_and(|w| w.is_some())
    }

    /// Asks and waits for the answer.
    pub(super) async fn ask(&self, op: &str, args: Value, deadline: Duration) -> Result<Value, ClusterError> {
        let request = describe(op, &args);
        let lost = || ClusterError::Lost { host: self.host.clone(), request: request.clone() };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = oneshot::channel();
        match self.waiting.lock() {
            Ok(mut waiting) => match waiting.as_mut() {
                Some(waiting) => drop(waiting.insert(id, tell)),
                None => return Err(ClusterError::Unreachable(format!("connection to mon host {} lost", self.host))),
            },
            Err(_) => return Err(lost()),
        }
        let line = format!("{}\n", json!({"id": id, "op": op, "args": args}));
        let began = Instant::now();
        let exchange = async {
            {
                let mut stdin = self.stdin.lock().await;
                stdin.write_all(line.as_bytes()).await.map_err(|_| lost())?;
                stdin.flush().await.map_err(|_| lost())?;
            }
            told.await.map_err(|_| lost())
        };
        let answer = match timeout(deadline, exchange).await {
            Ok(answer) => answer?,
            Err(_) => {
                self.silent.store(true, Ordering::Relaxed);
                if let Ok(mut waiting) = self.waiting.lock() {
                    waiting.as_mut().map(|w| w.remove(&id));
                }
                return Err(ClusterError::TimedOut { request, after: deadline });
            }
        };
        tracing::debug!(host = self.host, request, ms = began.elapsed().as_millis(), "asked Ceph");
        match answer.error {
            None => Ok(answer.ok),
            Some(error) => Err(request_error(&self.host, request, error)),
        }
    }
}

/// The request in a few words; never its data.
fn describe(op: &str, args: &Value) -> String {
    if op == "command" {
        return args["command"]["prefix"].as_str().unwrap_or(op).to_owned();
    }
    let object = ["oid", "name", "child"].iter().find_map(|k| args[*k].as_str()).unwrap_or("");
    format!("{op} {object}").trim_end().replace('_', " ")
}

fn parse(line: &str) -> Result<Answer, ClusterError> {
    serde_json::from_str(line).map_err(|e| ClusterError::Malformed(format!("answer of the mon host: {e}")))
}

async fn read_answers(mut lines: BufReader<ChannelOut>, waiting: Waiting, guard: ChannelEnd) {
    let mut line = String::new();
    loop {
        line.clear();
        match lines.read_line(&mut line).await {
            Ok(n) if n > 0 => {}
            _ => break,
        }
        match parse(&line) {
            Ok(answer) => {
                let waiter = waiting.lock().ok().and_then(|mut w| w.as_mut().and_then(|w| w.remove(&answer.id)));
                if let Some(waiter) = waiter {
                    // Whoever asked may have given up.
                    let _ = waiter.send(answer);
                }
            }
            Err(error) => tracing::warn!("{error}"),
        }
    }
    // Drops the senders, so everybody who waits is told that the channel is lost.
    if let Ok(mut waiting) = waiting.lock() {
        *waiting = None;
    }
    drop(guard);
}

/// What the mons see, in a line.
fn quorum_text(host: &str, mons: &[MonView]) -> String {
    let Some(mon) = mons.first() else {
        return format!("no mon answers on {host}");
    };
    let seen = if mon.quorum.is_empty() { "nobody".to_owned() } else { mon.quorum.join(", ") };
    format!("mon {} on {host} is {}, quorum: {seen}, of {}", mon.name, mon.state, mon.mons.join(", "))
}

/// Whether any of these mons is part of a quorum.
fn in_quorum(mons: &[MonView]) -> bool {
    mons.iter().any(|m| !m.quorum.is_empty() && (m.state == "leader" || m.state == "peon"))
}

fn connect_error(host: &str, error: AgentError) -> ClusterError {
    match error.kind.as_str() {
        "timeout" => ClusterError::NoQuorum(quorum_text(host, &error.mons)),
        "blocklisted" => ClusterError::Blocklisted(host.to_owned()),
        _ => ClusterError::NotSetUp { host: host.to_owned(), reason: error.message },
    }
}

fn request_error(host: &str, request: String, error: AgentError) -> ClusterError {
    match error.kind.as_str() {
        "exists" => ClusterError::Exists(error.message),
        "not-found" => ClusterError::NotFound(format!("{request}: {}", error.message)),
        "conflict" => ClusterError::Conflict(error.message),
        "busy" => ClusterError::Busy(error.message),
        "blocklisted" => ClusterError::Blocklisted(host.to_owned()),
        // A monitor that answers nothing and a change that only the OSDs delay are different stories.
        "timeout" if !in_quorum(&error.mons) => ClusterError::NoQuorum(quorum_text(host, &error.mons)),
        "timeout" => ClusterError::TimedOut { request, after: Duration::from_secs(OSD_OP) },
        _ => ClusterError::Refused { request, message: error.message, errno: error.errno },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(state: &str, quorum: &[&str]) -> MonView {
        let names = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        MonView { name: "h1".into(), state: state.into(), quorum: names(quorum), mons: names(&["h1", "h2", "h3"]) }
    }

    fn error(kind: &str, mons: Vec<MonView>) -> AgentError {
        AgentError { kind: kind.into(), errno: 110, message: "timed out".into(), mons }
    }

    #[test]
    fn a_timeout_without_a_quorum_says_so_and_one_with_it_does_not() {
        let lost = request_error("h1", "get x".into(), error("timeout", vec![view("probing", &[])]));
        assert_eq!(lost.to_string(), "Ceph has no quorum: mon h1 on h1 is probing, quorum: nobody, of h1, h2, h3");
        let slow = request_error("h1", "get x".into(), error("timeout", vec![view("peon", &["h1", "h2"])]));
        assert!(matches!(slow, ClusterError::TimedOut { .. }), "{slow}");
    }

    #[test]
    fn a_request_is_described_without_its_data() {
        assert_eq!(
            describe("omap_update", &json!({"oid": "network.lan", "set": {"a": "secret"}})),
            "omap update network.lan"
        );
        assert_eq!(describe("command", &json!({"command": {"prefix": "status"}})), "status");
    }
}
