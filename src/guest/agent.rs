//! Commands inside a guest, through its guest agent.

use super::domain_inventory::DomainInventory;
use super::guest_context::GuestContext;
use super::spec::Guest;
use crate::error::{Failure, Kind};
use crate::libvirt::Hypervisor;
use base64::Engine;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Deadline of a single word with the agent.
const WORD: Duration = Duration::from_secs(5);

/// How a command in a guest ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ended {
    /// Its exit status; 128 + n for signal n.
    pub status: i64,
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
}

/// Runs a command in a guest to its end.
///
/// # Errors
/// When the guest does not run, has no agent, or the command does not end in time.
pub async fn exec(rack: &GuestContext, guest: &Guest, command: &[String], limit: Duration) -> Result<Ended, Failure> {
    let domain_inventory = DomainInventory::take(rack, false).await?;
    let hypervisor = rack.hypervisors.get(&domain_inventory.host_of(rack, guest).await?)?;
    let Some((program, arguments)) = command.split_first() else { return Err(Failure::usage("no command named")) };
    let start =
        json!({"execute": "guest-exec", "arguments": {"path": program, "arg": arguments, "capture-output": true}});
    let answer = ask(&hypervisor, guest, &start)
        .await
        .map_err(|failure| failure.hint("the guest needs qemu-guest-agent, running"))
        .map_err(|failure| failure.context(format!("cannot run `{program}` in guest {}", guest.name)))?;
    let pid = answer["pid"].as_i64().ok_or_else(|| Failure::failed("the guest agent gave no process number"))?;
    let status = json!({"execute": "guest-exec-status", "arguments": {"pid": pid}});
    let began = Instant::now();
    loop {
        let answer = ask(&hypervisor, guest, &status).await.map_err(|failure| Failure {
            kind: Kind::Unknown,
            ..failure.context(format!("`{program}` was started in guest {} as process {pid}", guest.name))
        })?;
        if answer["exited"].as_bool() == Some(true) {
            return Ok(ended(&answer));
        }
        if began.elapsed() > limit {
            let text =
                format!("`{program}` in guest {} still runs after {} s, as process {pid}", guest.name, limit.as_secs());
            return Err(Failure::msg(Kind::Unknown, text).hint("give it more time with --timeout"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn ask(hypervisor: &Arc<dyn Hypervisor>, guest: &Guest, command: &Value) -> Result<Value, Failure> {
    let text = hypervisor.agent(guest.uuid, &command.to_string(), WORD).await?;
    let answer: Value = serde_json::from_str(&text)?;
    Ok(answer["return"].clone())
}

fn ended(answer: &Value) -> Ended {
    let text = |key: &str| {
        let bytes = answer[key].as_str().and_then(|t| base64::engine::general_purpose::STANDARD.decode(t).ok());
        String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
    };
    let status = answer["exitcode"].as_i64().or_else(|| answer["signal"].as_i64().map(|n| 128 + n)).unwrap_or(0);
    Ended { status, stdout: text("out-data"), stderr: text("err-data") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read() {
        let answer = json!({"exited": true, "exitcode": 3, "out-data": "aGkK"});
        assert_eq!(ended(&answer), Ended { status: 3, stdout: "hi\n".into(), stderr: String::new() });
        assert_eq!(ended(&json!({"exited": true, "signal": 9})).status, 137);
    }
}
