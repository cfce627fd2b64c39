//! One provisioning at a time: a lock file held on every host by a standing connection.
//!
//! It dies with the connection, and with the beat: a laptop that is closed frees the hosts within seconds, without
//! anybody having to break a lock. A run that lost one on its way (the host restarted, its network was edited) takes it
//! again before it goes on.

use super::together::together;
use crate::error::{Failure, Kind};
use crate::ssh::{Exec, Fleet, Remote};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::{Mutex, oneshot};
use tokio::time::{Instant, interval, sleep, timeout};

/// How often the holder shows that it lives.
const BEAT: Duration = Duration::from_secs(5);
/// How long a host may take to answer.
const ANSWER: Duration = Duration::from_secs(15);
/// How long a lock of our own may outlive its lost connection: the holder's wait for a beat, and a little.
const OUTLIVED: Duration = Duration::from_secs(20);

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
    fleet: Fleet,
    owner: String,
    held: Mutex<BTreeMap<String, Held>>,
}

/// The lock on one host.
#[derive(Debug)]
struct Held {
    alive: Arc<AtomicBool>,
    _stop: oneshot::Sender<()>,
}

/// Takes the lock on each of these hosts.
///
/// # Errors
/// When somebody else holds one (exit 75), or a host cannot be reached.
pub async fn lock(fleet: &Fleet, hosts: &[&str], owner: &str) -> Result<HostLock, Failure> {
    let held = together(fleet.each(hosts.iter().copied(), |remote| take(remote, owner.to_owned())).await)?;
    Ok(HostLock { fleet: fleet.clone(), owner: owner.to_owned(), held: Mutex::new(held) })
}

impl HostLock {
    /// Takes again what was lost on the way.
    ///
    /// # Errors
    /// When somebody else has taken it since (exit 75), or the host cannot be reached.
    pub async fn keep(&self) -> Result<(), Failure> {
        let mut held = self.held.lock().await;
        let lost: Vec<String> =
            held.iter().filter(|(_, h)| !h.alive.load(Ordering::Relaxed)).map(|(name, _)| name.clone()).collect();
        if lost.is_empty() {
            return Ok(());
        }
        tracing::info!(hosts = lost.join(" "), "the lock was lost with its connection; taking it again");
        let again = self.fleet.each(lost.iter().map(String::as_str), |remote| take(remote, self.owner.clone())).await;
        held.extend(together(again).map_err(|failure| failure.context("the lock was lost on the way"))?);
        Ok(())
    }
}

/// Takes the lock on a host; one that an earlier connection of this very run left behind is waited for.
async fn take(remote: Arc<dyn Remote>, owner: String) -> Result<Held, Failure> {
    let until = Instant::now() + OUTLIVED;
    loop {
        match try_take(&*remote, &owner).await? {
            Ok(held) => return Ok(held),
            Err(who) if who == owner && Instant::now() < until => sleep(Duration::from_millis(500)).await,
            Err(who) => {
                let host = remote.name();
                return Err(Failure::msg(Kind::Busy, format!("host {host} is being worked on by {who}"))
                    .hint("try again when that run has ended"));
            }
        }
    }
}

/// The lock, or who holds it.
async fn try_take(remote: &dyn Remote, owner: &str) -> Result<Result<Held, String>, Failure> {
    let exec = Exec::argv(["bash", "-c", HOLD, "hold", owner]);
    let (mut stdin, stdout, guard) = remote.channel(exec).await?.into_parts();
    let mut lines = BufReader::new(stdout).lines();
    match timeout(ANSWER, lines.next_line()).await {
        Ok(Ok(Some(line))) if line == "held" => {}
        Ok(Ok(Some(line))) if line.starts_with("busy") => {
            let who = line.trim_start_matches("busy").trim();
            return Ok(Err(if who.is_empty() { "another run".to_owned() } else { who.to_owned() }));
        }
        _ => {
            let said = guard.stderr();
            let why = said.lines().rfind(|line| !line.trim().is_empty()).map(|line| format!(": {}", line.trim()));
            let host = remote.name();
            let text = format!("host {host}: no answer to the request for its lock{}", why.unwrap_or_default());
            return Err(Failure::failed(text));
        }
    }
    let (stop, mut stopped) = oneshot::channel::<()>();
    let alive = Arc::new(AtomicBool::new(true));
    let lives = Arc::clone(&alive);
    tokio::spawn(async move {
        let _guard = guard;
        let mut beat = interval(BEAT);
        loop {
            tokio::select! {
                _ = &mut stopped => return,
                // It says nothing more: whatever comes is its end.
                _ = lines.next_line() => break,
                _ = beat.tick() => if stdin.write_all(b"\n").await.is_err() { break },
            }
        }
        lives.store(false, Ordering::Relaxed);
    });
    Ok(Ok(Held { alive, _stop: stop }))
}

/// Who runs this, for whoever finds the lock taken.
pub fn owner() -> String {
    let account = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten();
    let user = account.map_or_else(|| "unknown".to_owned(), |a| a.name);
    let machine = nix::unistd::gethostname().map(|h| h.to_string_lossy().into_owned()).unwrap_or_default();
    format!(
        "{user}@{machine} (process {}, since {})",
        std::process::id(),
        jiff::Timestamp::now().strftime("%H:%M:%S UTC")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::{Channel, Forward, Output, RemoteError};
    use async_trait::async_trait;
    use std::process::Stdio;
    use tokio::process::{Child, Command};

    /// A host on this machine: its lock is in a directory of its own, and its connections can be cut.
    #[derive(Debug)]
    struct Host {
        dir: tempfile::TempDir,
        channels: std::sync::Mutex<Vec<Child>>,
    }

    impl Host {
        fn cut(&self) {
            for child in self.channels.lock().unwrap().iter_mut() {
                child.start_kill().unwrap();
            }
        }
    }

    #[async_trait]
    impl Remote for Host {
        fn name(&self) -> &str {
            "h1"
        }
        async fn run(&self, _: Exec) -> Result<Output, RemoteError> {
            Ok(Output::default())
        }
        async fn channel(&self, exec: Exec) -> Result<Channel, RemoteError> {
            let script = exec.argv[2].replace("/run/rackhand", &self.dir.path().display().to_string());
            let mut command = Command::new("bash");
            command.args(["-c", &script, "hold", &exec.argv[4]]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
            self.channels.lock().unwrap().push(child);
            Ok(Channel::new(stdin, stdout, ()))
        }
        async fn forward_socket(&self, path: &str) -> Result<Forward, RemoteError> {
            Ok(Forward::local(path))
        }
    }

    #[tokio::test]
    async fn a_lost_lock_is_taken_again_unless_somebody_else_has_it() {
        let host = Arc::new(Host { dir: tempfile::tempdir().unwrap(), channels: std::sync::Mutex::default() });
        let fleet = Fleet::of([Arc::clone(&host) as Arc<dyn Remote>]);
        let first = lock(&fleet, &["h1"], "first").await.unwrap();
        first.keep().await.unwrap();
        let refused = lock(&fleet, &["h1"], "second").await.unwrap_err();
        assert_eq!((refused.kind, refused.to_string().as_str()), (Kind::Busy, "host h1 is being worked on by first"));

        let lost = || async {
            host.cut();
            while first.held.lock().await["h1"].alive.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        lost().await;
        first.keep().await.unwrap();
        assert_eq!(lock(&fleet, &["h1"], "second").await.unwrap_err().kind, Kind::Busy, "it holds it again");

        lost().await;
        let second = lock(&fleet, &["h1"], "second").await.unwrap();
        let failure = first.keep().await.unwrap_err();
        assert_eq!(failure.kind, Kind::Busy);
        assert!(failure.to_string().ends_with("being worked on by second"), "{failure}");
        drop(second);
    }
}
