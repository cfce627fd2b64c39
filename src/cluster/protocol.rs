//! What the agent says, line by line, and what it means.

use super::ClusterError;
use super::request::{OSD_OP, Request};
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// The agent's first line says this.
const GREETING: &str = "rackhand-agent/1";
/// Bytes of a line at most: a state object of 8 MiB, with every byte escaped.
const LINE: u64 = 56 << 20;
/// Bytes of an answer that comes in pieces.
pub(super) const WHOLE: usize = 256 << 20;

/// A line of the agent.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    /// The request it belongs to.
    pub(super) id: u64,
    /// The agent's clock when it said this, in seconds.
    pub(super) now: f64,
    /// A piece of the answer; more follows.
    pub(super) part: Option<Vec<Value>>,
    /// The answer, where it did not come in pieces.
    #[serde(default)]
    pub(super) ok: Value,
    /// Why there is none.
    pub(super) error: Option<AgentError>,
}

/// Why a request was not answered.
#[derive(Debug, Deserialize)]
pub(super) struct AgentError {
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

#[derive(Debug, Deserialize)]
struct Greeting {
    greeting: String,
    now: f64,
}

/// Reads the next line; none at the end.
pub(super) async fn next_line(lines: &mut (impl AsyncBufRead + Unpin)) -> Result<Option<Vec<u8>>, ClusterError> {
    let mut line = Vec::new();
    let read = lines.take(LINE).read_until(b'\n', &mut line).await;
    match read {
        Ok(0) | Err(_) => Ok(None),
        Ok(_) if line.ends_with(b"\n") => Ok(Some(line)),
        Ok(n) if n as u64 == LINE => {
            Err(ClusterError::Malformed(format!("a mon host answers with more than {LINE} bytes in a line")))
        }
        Ok(_) => Ok(None),
    }
}

/// Reads the agent's greeting; tells the agent's clock then.
pub(super) async fn greeting(lines: &mut (impl AsyncBufRead + Unpin)) -> Option<f64> {
    let line = next_line(lines).await.ok().flatten()?;
    let hello: Greeting = serde_json::from_slice(&line).ok()?;
    (hello.greeting == GREETING).then_some(hello.now)
}

/// Reads a line of the agent.
pub(super) fn parse(line: &[u8]) -> Result<Answer, ClusterError> {
    serde_json::from_slice(line).map_err(|e| ClusterError::Malformed(format!("answer of the mon host: {e}")))
}

/// What the mons see, in a line.
fn quorum_text(host: &str, mons: &[MonView]) -> String {
    let Some(mon) = mons.first() else {
        return format!("no mon answers on {host}");
    };
    let seen = if mon.quorum.is_empty() { "none".to_owned() } else { mon.quorum.join(", ") };
    format!("mon {} on {host} is {}, quorum: {seen}, of {}", mon.name, mon.state, mon.mons.join(", "))
}

/// Whether a mon of this host says that it has lost the quorum. One that is stopped says nothing: then the cluster may
/// well have one, and something else is slow.
fn quorum_lost(mons: &[MonView]) -> bool {
    let member = |m: &MonView| !m.quorum.is_empty() && (m.state == "leader" || m.state == "peon");
    !mons.is_empty() && !mons.iter().any(member)
}

/// What an error of the agent means for this request.
pub(super) fn request_error(host: &str, request: &Request, error: AgentError) -> ClusterError {
    let AgentError { kind, errno, message, mons } = error;
    let (words, host) = (request.words(), host.to_owned());
    match kind.as_str() {
        "exists" => ClusterError::Exists(message),
        "not-found" => ClusterError::NotFound(format!("{words}: {message}")),
        "conflict" => ClusterError::Conflict(message),
        "busy" => ClusterError::Busy(message),
        "blocklisted" => ClusterError::Blocklisted(host),
        "full" => ClusterError::Full { request: words },
        "late" => ClusterError::Unsent { request: words, reason: message },
        // Connecting found none: the request itself was not sent.
        "no-quorum" => ClusterError::NoQuorum(quorum_text(&host, &mons)),
        "not-set-up" | "not-installed" => ClusterError::NotSetUp { host, reason: message },
        "other-cluster" => ClusterError::OtherCluster { host, found: message, wanted: String::new() },
        "timeout" => timed_out(request, quorum_lost(&mons).then(|| quorum_text(&host, &mons))),
        _ => ClusterError::Refused { request: words, message, errno },
    }
}

/// A request that was sent and got no answer in time; `lost` is what a mon says of a quorum that is gone.
fn timed_out(request: &Request, lost: Option<String>) -> ClusterError {
    let words = request.words();
    match (lost, request.changes) {
        (Some(seen), true) => ClusterError::QuorumLost { request: words, seen },
        (Some(seen), false) => ClusterError::NoQuorum(seen),
        (None, true) => ClusterError::TimedOut { request: words, after: Duration::from_secs(OSD_OP) },
        (None, false) => ClusterError::NoAnswer { request: words, after: Duration::from_secs(OSD_OP) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{Fuzzer, kind_of};
    use serde_json::json;

    fn view(state: &str, quorum: &[&str]) -> Value {
        json!({"name": "h1", "state": state, "quorum": quorum, "mons": ["h1", "h2", "h3"]})
    }

    fn told(request: &Request, kind: &str, mons: &[Value]) -> ClusterError {
        let error = json!({"kind": kind, "errno": 110, "message": "timed out", "mons": mons});
        request_error("h1", request, serde_json::from_value(error).unwrap())
    }

    #[test]
    fn a_change_that_was_sent_and_not_answered_is_unknown_and_a_question_is_not() {
        let (get, swap) = (Request::state("get", json!({"oid": "x"})), Request::state("replace", json!({"oid": "x"})));
        let (lost, held) = ([view("probing", &[])], [view("peon", &["h1", "h2"])]);
        type Right = fn(&ClusterError) -> bool;
        let table: [(&Request, &str, &[Value], Right); 8] = [
            (&swap, "timeout", &lost, |e| matches!(e, ClusterError::QuorumLost { .. }) && e.unknown()),
            (&get, "timeout", &lost, |e| matches!(e, ClusterError::NoQuorum(_)) && !e.unknown()),
            (&swap, "timeout", &held, |e| matches!(e, ClusterError::TimedOut { .. }) && e.unknown()),
            (&get, "timeout", &held, |e| matches!(e, ClusterError::NoAnswer { .. }) && !e.unknown()),
            // The mon of this host is stopped: it says nothing, and an OSD is slow.
            (&swap, "timeout", &[], |e| matches!(e, ClusterError::TimedOut { .. }) && e.unknown()),
            (&get, "timeout", &[], |e| matches!(e, ClusterError::NoAnswer { .. })),
            (&swap, "no-quorum", &lost, |e| matches!(e, ClusterError::NoQuorum(_)) && !e.unknown()),
            (&swap, "late", &[], |e| matches!(e, ClusterError::Unsent { .. }) && !e.unknown()),
        ];
        for (request, kind, mons, right) in table {
            let error = told(request, kind, mons);
            assert!(right(&error), "{request:?} {kind} {mons:?}: {error:?}");
        }
        assert_eq!(
            told(&swap, "no-quorum", &lost).to_string(),
            "Ceph has no quorum: mon h1 on h1 is probing, quorum: none, of h1, h2, h3"
        );
    }

    #[tokio::test]
    async fn only_the_agent_is_taken_for_it() {
        let hello = b"{\"greeting\":\"rackhand-agent/1\",\"now\":7.5}\n";
        assert_eq!(greeting(&mut &hello[..]).await, Some(7.5));
        for other in [&b"Welcome to h1\n"[..], b"{\"greeting\":\"hello\",\"now\":1}\n", b"", b"{\"greeting\""] {
            assert_eq!(greeting(&mut &other[..]).await, None);
        }
    }

    #[test]
    fn fuzz_answers_of_the_agent() {
        let corpus = [
            "{\"greeting\": \"rackhand-agent/1\", \"now\": 12.5}\n",
            "{\"id\": 1, \"now\": 12.5, \"ok\": {\"data\": \"x\", \"version\": 3}}\n",
            "{\"id\": 2, \"now\": 1e300, \"part\": [1, null, {}]}\n{\"id\": 2, \"now\": 13, \"ok\": null}\n",
            "{\"id\": 3, \"now\": 1, \"error\": {\"kind\": \"busy\", \"errno\": 16, \"message\": \"m\", \"mons\": [{\"name\": \"a\", \
             \"state\": \"leader\", \"quorum\": [\"a\"], \"mons\": [\"a\"]}]}}\n",
            "Last login: today\r\n",
        ];
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Fuzzer::run(&corpus, |input| {
            runtime.block_on(async {
                let mut kinds = String::new();
                kinds += if greeting(&mut &*input).await.is_some() { "greets" } else { "silent" };
                let (mut rest, mut lines) = (input, 0);
                while let Ok(Some(line)) = next_line(&mut rest).await {
                    lines += 1;
                    assert!(lines <= input.len(), "it comes to an end");
                    kinds += &match parse(&line) {
                        Ok(answer) => {
                            format!("{}{}{};", answer.part.is_some(), answer.ok.is_null(), answer.error.is_some())
                        }
                        Err(error) => kind_of(&error.to_string()),
                    };
                }
                kinds
            })
        });
    }
}
