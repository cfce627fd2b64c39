//! The standing channel to one mon host: requests by number, answers in any order.

use super::ClusterError;
use super::protocol::{self, Answer, WHOLE};
use super::request::{Lane, MON_OP, OSD_OP, Request};
use crate::ssh::{ChannelEnd, ChannelIn, ChannelOut, Exec, Remote};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::sync::{Mutex as AsyncMutex, Semaphore, SemaphorePermit, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

/// What runs on the mon host.
const AGENT: &str = concat!(
    include_str!("agent/base.py"),
    include_str!("agent/state.py"),
    include_str!("agent/images.py"),
    include_str!("agent/main.py")
);
/// Reads the agent from stdin and becomes it.
const BOOTSTRAP: &str = "import sys;b=sys.stdin.buffer;n=int(b.readline());exec(compile(b.read(n),'agent','exec'))";
/// Deadline for the first contact with Ceph, in seconds. Three lost beats of a mon's lease (`mon_lease`, 5 s by
/// default) are longer, but then there is no quorum to speak of either.
const CONNECT: u64 = 5;

type Reply = Result<Value, protocol::AgentError>;

/// A request that waits for its answer, and the pieces that have come.
#[derive(Debug)]
struct Waiter {
    tell: oneshot::Sender<Reply>,
    parts: Vec<Value>,
    bytes: usize,
}

/// What the reader and those who ask share.
#[derive(Debug)]
struct Heard {
    /// Those who wait for an answer; nothing once the channel is broken.
    waiting: Option<HashMap<u64, Waiter>>,
    /// What the agent's clock is ahead of the time since `began`, in seconds, at least: an answer was on its way for a
    /// while, and the clock here may have stood still when the machine slept.
    ahead: f64,
    /// When the last answer came.
    last: Instant,
}

/// A standing channel.
pub(super) struct Link {
    host: String,
    stdin: AsyncMutex<ChannelIn>,
    heard: Arc<Mutex<Heard>>,
    began: Instant,
    lanes: HashMap<&'static str, Semaphore>,
    next: AtomicU64,
    silent: AtomicBool,
    /// Whether it has found its cluster.
    ready: AtomicBool,
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

fn locked(heard: &Mutex<Heard>) -> std::sync::MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    /// Starts the agent on a mon host and waits for its greeting; it connects to the cluster `fsid` when it is asked.
    pub(super) async fn open(remote: Arc<dyn Remote>, fsid: Uuid) -> Result<Self, ClusterError> {
        let (host, began) = (remote.name().to_owned(), Instant::now());
        let lanes: serde_json::Map<String, Value> =
            Lane::ALL.iter().map(|lane| (lane.name().to_owned(), lane.threads().into())).collect();
        let config = json!({"connect": CONNECT, "mon": MON_OP, "osd": OSD_OP, "lanes": lanes, "fsid": fsid});
        let hello = format!("{}\n{AGENT}{config}\n", AGENT.len());
        let opened = remote.channel(Exec::argv(["python3", "-I", "-S", "-c", BOOTSTRAP]).stdin(hello)).await;
        // This error names its host itself.
        let (stdin, stdout, end) = opened.map_err(|e| ClusterError::Unreachable(e.to_string()))?.into_parts();
        let mut lines = BufReader::new(stdout);
        let Some(now) = protocol::greeting(&mut lines).await else {
            let said = end.stderr();
            let said = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it says nothing");
            let reason = format!("python3 does not start there: {}", said.trim());
            return Err(ClusterError::NotSetUp { host, reason });
        };
        tracing::debug!(host, ms = began.elapsed().as_millis(), "the agent greets");
        let ahead = now - began.elapsed().as_secs_f64();
        let heard = Arc::new(Mutex::new(Heard { waiting: Some(HashMap::new()), ahead, last: Instant::now() }));
        let reader = tokio::spawn(read_answers(lines, Arc::clone(&heard), began, end));
        Ok(Link {
            host,
            stdin: AsyncMutex::new(stdin),
            heard,
            began,
            lanes: Lane::ALL.iter().map(|lane| (lane.name(), Semaphore::new(lane.admitted()))).collect(),
            next: AtomicU64::new(1),
            silent: AtomicBool::new(false),
            ready: AtomicBool::new(false),
            reader,
        })
    }

    /// The mon host at the other end.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Whether the other end still answers, as far as is known.
    pub(super) fn alive(&self) -> bool {
        !self.silent.load(Ordering::Relaxed) && locked(&self.heard).waiting.is_some()
    }

    /// Whether it has found its cluster before.
    pub(super) fn was_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// It has found its cluster.
    pub(super) fn is_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// Gives up the channel: everybody who waits for an answer is told that it is lost.
    pub(super) fn cut(&self) {
        self.silent.store(true, Ordering::Relaxed);
        locked(&self.heard).waiting = None;
        self.reader.abort();
    }

    /// Asks and waits for the answer. The deadline begins when it is the request's turn.
    pub(super) async fn ask(&self, request: &Request) -> Result<Value, ClusterError> {
        let _turn = self.turn(request).await?;
        let ends = Instant::now() + request.deadline;
        match self.exchange(request, ends).await {
            // The clocks here and there drifted apart, as they do when this machine sleeps; the refusal brought the
            // right time with it.
            Err(ClusterError::Unsent { .. }) if Instant::now() < ends => self.exchange(request, ends).await,
            answer => answer,
        }
    }

    /// Waits until few enough others of its kind are under way; no longer than they are answered at all.
    async fn turn(&self, request: &Request) -> Result<SemaphorePermit<'_>, ClusterError> {
        let unsent = || ClusterError::Unsent {
            request: request.words(),
            reason: format!("mon host {} answers none of those that were sent before it", self.host),
        };
        let lane = self.lanes.get(request.lane.name()).ok_or_else(unsent)?;
        loop {
            match timeout(request.deadline, lane.acquire()).await {
                Ok(turn) => return turn.map_err(|_| unsent()),
                Err(_) if self.alive() && locked(&self.heard).last.elapsed() < request.deadline => {}
                Err(_) => return Err(unsent()),
            }
        }
    }

    async fn exchange(&self, request: &Request, ends: Instant) -> Result<Value, ClusterError> {
        let began = Instant::now();
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = oneshot::channel();
        // The agent refuses to begin what can only end after nobody waits for it any more.
        let until = {
            let mut heard = locked(&self.heard);
            let until = ends.duration_since(self.began).as_secs_f64() + heard.ahead;
            let Some(waiting) = heard.waiting.as_mut() else {
                return Err(ClusterError::Unreachable(format!("connection to mon host {} lost", self.host)));
            };
            waiting.insert(id, Waiter { tell, parts: Vec::new(), bytes: 0 });
            until
        };
        let line = format!("{}\n", json!({"id": id, "op": request.op, "args": request.args, "until": until}));
        let sent = AtomicBool::new(false);
        let exchange = async {
            {
                let mut stdin = self.stdin.lock().await;
                sent.store(true, Ordering::Relaxed);
                stdin.write_all(line.as_bytes()).await.map_err(|_| self.lost(request))?;
                stdin.flush().await.map_err(|_| self.lost(request))?;
            }
            told.await.map_err(|_| self.lost(request))
        };
        let answer = match timeout_at(ends, exchange).await {
            Ok(answer) => answer?,
            Err(_) => {
                self.silent.store(true, Ordering::Relaxed);
                if let Some(waiting) = locked(&self.heard).waiting.as_mut() {
                    waiting.remove(&id);
                }
                return Err(self.late(request, sent.load(Ordering::Relaxed)));
            }
        };
        tracing::debug!(host = self.host, request = request.words(), ms = began.elapsed().as_millis(), "asked Ceph");
        answer.map_err(|error| protocol::request_error(&self.host, request, error))
    }

    /// The channel broke after the request was sent.
    fn lost(&self, request: &Request) -> ClusterError {
        let (host, words) = (&self.host, request.words());
        match request.changes {
            true => ClusterError::Lost { host: host.clone(), request: words },
            false => ClusterError::Unreachable(format!("connection to mon host {host} lost during `{words}`")),
        }
    }

    /// The mon host did not answer in time.
    fn late(&self, request: &Request, sent: bool) -> ClusterError {
        let (request, after, changes) = (request.words(), request.deadline, request.changes);
        match (sent, changes) {
            (false, _) => {
                let reason = format!("mon host {} takes no more requests", self.host);
                ClusterError::Unsent { request, reason }
            }
            (true, true) => ClusterError::TimedOut { request, after },
            (true, false) => ClusterError::NoAnswer { request, after },
        }
    }
}

/// Hands each answer to the one who waits for it, until the channel breaks or the agent talks nonsense.
async fn read_answers(mut lines: BufReader<ChannelOut>, heard: Arc<Mutex<Heard>>, began: Instant, end: ChannelEnd) {
    loop {
        let line = match protocol::next_line(&mut lines).await {
            Ok(Some(line)) => line,
            Ok(None) => break,
            Err(error) => {
                tracing::warn!("{error}");
                break;
            }
        };
        match protocol::parse(&line) {
            Ok(answer) => take(&mut locked(&heard), answer, line.len(), began.elapsed()),
            Err(error) => tracing::warn!("{error}"),
        }
    }
    // Drops the senders, so everybody who waits is told that the channel is lost.
    locked(&heard).waiting = None;
    drop(end);
}

/// Takes a line of the agent: a piece is kept until the last one is there.
fn take(heard: &mut Heard, answer: Answer, bytes: usize, elapsed: Duration) {
    heard.last = Instant::now();
    heard.ahead = heard.ahead.max(answer.now - elapsed.as_secs_f64());
    let Some(waiting) = heard.waiting.as_mut() else { return };
    if let Some(part) = answer.part {
        let Some(waiter) = waiting.get_mut(&answer.id) else { return };
        waiter.bytes += bytes;
        waiter.parts.extend(part);
        if waiter.bytes > WHOLE {
            // Dropping it tells the one who waits that the answer is lost.
            waiting.remove(&answer.id);
        }
        return;
    }
    let Some(waiter) = waiting.remove(&answer.id) else { return };
    let reply = match answer.error {
        Some(error) => Err(error),
        None if !waiter.parts.is_empty() => Ok(Value::Array(waiter.parts)),
        None => Ok(answer.ok),
    };
    // Whoever asked may have given up.
    let _ = waiter.tell.send(reply);
}
