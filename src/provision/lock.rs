//! One provisioning at a time: a lock file held on every host by a standing connection.
//!
//! It dies with the connection, and with the beat: a laptop that is closed frees the hosts within seconds, without
//! anybody having to break a lock.

use crate::error::{Failure, Kind};
use crate::ssh::{Exec, Fleet};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::oneshot;
use tokio::time::{interval, timeout};

/// How often the holder shows that it lives.
const BEAT: Duration = Duration::from_secs(5);
/// How long a host may take to answer.
const ANSWER: Duration = Duration::from_secs(15);

/// Waits for a beat at most three times as long as they are apart; then, or when its stdin closes, it ends and with it
/// the lock. The owner's name is beside the lock, so that the next one can say who holds it.
const HOLD: &str = r#"
mkdir -p /run/rackhand
exec 9>>/run/rackhand/provision.lock
if ! flock -n 9; then echo "busy $(cat /run/rackhand/provision.owner 2>/dev/null)"; exit 0; fi
printf '%s' "$1" >/run/rackhand/provision.owner
echo held
while IFS= read -r -t 15 _; do :; done
"#;

/// The lock on all hosts; dropped, it is free.
#[derive(Debug)]
pub struct HostLock {
    _stop: Vec<oneshot::Sender<()>>,
}

/// Takes the lock on each of these hosts.
///
/// # Errors
/// When somebody else holds one (exit 75), or a host cannot be reached.
pub async fn lock(fleet: &Fleet, hosts: &[&str], owner: &str) -> Result<HostLock, Failure> {
    let mut stops = Vec::new();
    let results = fleet.each(hosts.iter().copied(), |remote| {
        let owner = owner.to_owned();
        async move {
            let host = remote.name().to_owned();
            let exec = Exec::argv(["bash", "-c", HOLD, "hold", &owner]);
            let (mut stdin, stdout, guard) = remote.channel(exec).await?.into_parts();
            let mut lines = BufReader::new(stdout).lines();
            let answer = timeout(ANSWER, lines.next_line()).await;
            match answer {
                Ok(Ok(Some(line))) if line == "held" => {}
                Ok(Ok(Some(line))) => {
                    let who = line.strip_prefix("busy ").unwrap_or("somebody").to_owned();
                    return Err(Failure::msg(Kind::Busy, format!("host {host} is being worked on by {who}"))
                        .hint("try again when that run has ended"));
                }
                _ => return Err(Failure::failed(format!("host {host}: no answer to the request for its lock"))),
            }
            let (stop, mut stopped) = oneshot::channel::<()>();
            tokio::spawn(async move {
                let _guard = guard;
                let _lines = lines;
                let mut beat = interval(BEAT);
                loop {
                    tokio::select! {
                        _ = &mut stopped => return,
                        _ = beat.tick() => if stdin.write_all(b"\n").await.is_err() { return },
                    }
                }
            });
            Ok(stop)
        }
    });
    for (_, result) in results.await {
        stops.push(result?);
    }
    Ok(HostLock { _stop: stops })
}

/// Who runs this, for whoever finds the lock taken.
pub fn owner() -> String {
    let account = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten();
    let user = account.map_or_else(|| "somebody".to_owned(), |a| a.name);
    let machine = nix::unistd::gethostname().map(|h| h.to_string_lossy().into_owned()).unwrap_or_default();
    format!(
        "{user}@{machine} (process {}, since {})",
        std::process::id(),
        jiff::Timestamp::now().strftime("%H:%M:%S UTC")
    )
}
