//! How a host's supervisor is spoken to: one JSON line each way over a unix socket.

use super::store::HostDir;
use crate::error::{Failure, Kind, ResultExt};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

/// Longer than a supervisor needs for anything it waits for: killing a host whose disks are slow takes longest.
const ANSWER: Duration = Duration::from_secs(120);
/// For a look: a supervisor answers in milliseconds, unless it is busy with a request.
const LOOK: Duration = Duration::from_secs(5);

/// What a supervisor can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Request {
    /// Only the state.
    Status,
    /// Power on; nothing to do when it is on. Puts pulled cords back.
    On,
    /// Power off at once, as a BMC does it.
    Off,
    /// Ask the host to shut down; SIGKILL after a grace.
    Soft,
    /// The same, and on again when it has ended; refused when off.
    SoftReset,
    /// Off and on again at once; refused when off.
    Reset,
    /// Off when it is on, then on.
    Cycle,
    /// Pull all cords: links down, SIGKILL, BMC dead.
    Cut,
    /// Take the storage cable out of its switch.
    PartitionStorage,
    /// Take the management cable out of its switch; the BMC has its own.
    PartitionManagement,
    /// Both of them.
    PartitionAll,
    /// All cables back in; a cut host stays off, its BMC lives again.
    Heal,
}

/// Whether a host runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Power {
    /// It runs.
    On,
    /// It does not, and its BMC answers.
    Off,
    /// Its cords are pulled: its BMC is dead too.
    Cut,
    /// Its supervisor is busy and did not say.
    Unknown,
    /// Nobody looks after it: its supervisor is gone.
    Lost,
}

impl Power {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Power::On => "on",
            Power::Off => "off",
            Power::Cut => "cut",
            Power::Unknown => "unknown",
            Power::Lost => "lost",
        }
    }
}

/// The state of a host.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct State {
    pub(super) power: Power,
    /// Networks it is cut off from.
    pub(super) partitioned: Vec<String>,
}

/// A supervisor's answer.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Reply {
    /// The state after the request.
    pub(super) state: State,
    /// Why the request was not carried out.
    pub(super) error: Option<String>,
}

/// Asks a host's supervisor, and waits for the answer.
pub(super) async fn ask(host: &str, dir: &HostDir, request: Request) -> Result<State, Failure> {
    let patience = if request == Request::Status { LOOK } else { ANSWER };
    let answer = tokio::time::timeout(patience, exchange(dir, request)).await;
    let reply = answer
        .map_err(|_| {
            let message = format!("its supervisor did not answer within {} s", patience.as_secs());
            Failure::msg(Kind::Unknown, message).hint("`rackhand lab list` shows what became of it")
        })
        .and_then(|r| r)
        .while_doing(|| format!("host {host}"))?;
    match reply.error {
        None => Ok(reply.state),
        Some(error) => Err(Failure::failed(format!("host {host}: {error}"))),
    }
}

async fn exchange(dir: &HostDir, request: Request) -> Result<Reply, Failure> {
    let stream = UnixStream::connect(dir.socket())
        .await
        .while_doing(|| "its supervisor is gone".to_owned())
        .or_hint("`rackhand lab down` sweeps what is left of the lab")?;
    let (read, mut write) = stream.into_split();
    let mut line = serde_json::to_vec(&request)?;
    line.push(b'\n');
    write.write_all(&line).await?;
    let mut answer = String::new();
    BufReader::new(read).read_line(&mut answer).await?;
    serde_json::from_str(&answer).while_doing(|| "its supervisor died".to_owned())
}

/// A request and where its answer goes.
pub(super) type Message = (Request, oneshot::Sender<Reply>);

/// How the control socket and the BMC speak to the supervisor; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Handle(mpsc::Sender<Message>);

impl Handle {
    /// A handle, and where its requests arrive.
    pub(super) fn new() -> (Self, mpsc::Receiver<Message>) {
        let (sender, requests) = mpsc::channel(16);
        (Handle(sender), requests)
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask(&self, request: Request) -> Result<Reply, Failure> {
        let (answer, answered) = oneshot::channel();
        let gone = || Failure::failed("the supervisor ends");
        self.0.send((request, answer)).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocol_is_words() {
        assert_eq!(serde_json::to_string(&Request::PartitionStorage).unwrap(), "\"partition-storage\"");
        let state = State { power: Power::Cut, partitioned: vec![] };
        assert_eq!(serde_json::to_string(&state).unwrap(), r#"{"power":"cut","partitioned":[]}"#);
    }

    #[tokio::test(start_paused = true)]
    async fn a_supervisor_that_does_not_answer_is_not_waited_for_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let host = HostDir { path: dir.path().to_owned() };
        let _listener = tokio::net::UnixListener::bind(host.socket()).unwrap();
        for request in [Request::Status, Request::Off] {
            assert_eq!(ask("h1", &host, request).await.unwrap_err().kind, Kind::Unknown);
        }
    }

    #[tokio::test]
    async fn a_missing_supervisor_is_said_plainly() {
        let dir = HostDir { path: "/nonexistent".into() };
        let failure = ask("h1", &dir, Request::Status).await.unwrap_err();
        assert!(failure.to_string().starts_with("host h1: its supervisor is gone"), "{failure}");
    }
}
