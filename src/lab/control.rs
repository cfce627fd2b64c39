//! How a host's supervisor is spoken to: one JSON line each way over a unix socket.

use super::store::HostDir;
use crate::error::{Failure, Kind, ResultExt};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// Longer than a supervisor needs for anything but a soft power-off, which it does not wait for.
const ANSWER: Duration = Duration::from_secs(30);

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
    let answer = tokio::time::timeout(ANSWER, exchange(dir, request)).await;
    let reply = answer
        .map_err(|_| {
            Failure::msg(Kind::Unknown, format!("the supervisor did not answer within {} s", ANSWER.as_secs()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocol_is_words() {
        assert_eq!(serde_json::to_string(&Request::PartitionStorage).unwrap(), "\"partition-storage\"");
        let state = State { power: Power::Cut, partitioned: vec![] };
        assert_eq!(serde_json::to_string(&state).unwrap(), r#"{"power":"cut","partitioned":[]}"#);
    }

    #[tokio::test]
    async fn a_missing_supervisor_is_said_plainly() {
        let dir = HostDir { path: "/nonexistent".into() };
        let failure = ask("h1", &dir, Request::Status).await.unwrap_err();
        assert!(failure.to_string().starts_with("host h1: its supervisor is gone"), "{failure}");
    }
}
