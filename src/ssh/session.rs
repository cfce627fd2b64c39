//! A host over OpenSSH's own multiplexing, so that the operator's ssh configuration, jump hosts and keys just work.

use super::exec::{Channel, Exec, Output, Remote, RemoteError};
use crate::inventory::{HostSpec, Inventory};
use async_trait::async_trait;
use openssh::{ControlPersist, ForwardType, KnownHosts, Session, SessionBuilder, Socket, Stdio};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::timeout;

/// Commands in flight a host. sshd's MaxSessions is 10, and native-mux was measured to lose the race for a freed
/// session from 6 on.
const IN_FLIGHT: usize = 4;
/// Output kept of one command; more is read and dropped.
const OUTPUT_LIMIT: usize = 64 << 20;
/// What the local deadline grants beyond the remote one, for the kill and the way back.
const GRACE: Duration = Duration::from_secs(10);

/// A host over SSH; connects when first used.
pub struct SshHost {
    name: String,
    destination: String,
    builder: SessionBuilder,
    sudo: bool,
    session: OnceCell<Arc<Session>>,
    slots: Semaphore,
    sockets: TempDir,
    next_socket: AtomicU64,
}

impl std::fmt::Debug for SshHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SshHost({})", self.name)
    }
}

impl SshHost {
    /// The host as the inventory describes it; nothing is connected yet.
    ///
    /// # Errors
    /// When no private directory for sockets can be made.
    pub fn new(inventory: &Inventory, host: &HostSpec, connect: Duration) -> std::io::Result<Self> {
        let defaults = &inventory.ssh;
        let user = host.user.as_ref().or(defaults.user.as_ref());
        let mut builder = SessionBuilder::default();
        builder
            .known_hosts_check(KnownHosts::Strict)
            .connect_timeout(connect)
            .server_alive_interval(Duration::from_secs(3))
            .control_persist(ControlPersist::ClosedAfterInitialConnection);
        if let Some(user) = user {
            builder.user(user.clone());
        }
        if let Some(port) = host.port.or(defaults.port) {
            builder.port(port);
        }
        if let Some(identity) = &defaults.identity {
            builder.keyfile(inventory.path(identity));
        }
        if let Some(known_hosts) = &defaults.known_hosts {
            builder.user_known_hosts_file(inventory.path(known_hosts));
        }
        if let Some(jump) = &defaults.jump {
            builder.jump_hosts([jump]);
        }
        Ok(SshHost {
            name: host.name.clone(),
            destination: host.address.to_string(),
            builder,
            sudo: user.is_some_and(|u| u != "root"),
            session: OnceCell::new(),
            slots: Semaphore::new(IN_FLIGHT),
            sockets: tempfile::Builder::new().prefix("rackhand-").tempdir()?,
            next_socket: AtomicU64::new(0),
        })
    }

    async fn session(&self) -> Result<Arc<Session>, RemoteError> {
        let session = self
            .session
            .get_or_try_init(|| async {
                let connected = self.builder.connect_mux(&self.destination).await;
                connected.map(Arc::new).map_err(|e| self.connect_error(&e))
            })
            .await?;
        Ok(Arc::clone(session))
    }

    fn connect_error(&self, error: &openssh::Error) -> RemoteError {
        let reason = chain(error);
        let host = self.name.clone();
        if reason.contains("Host key verification failed") || reason.contains("IDENTIFICATION HAS CHANGED") {
            RemoteError::HostKey { host, reason }
        } else if reason.contains("Permission denied") {
            RemoteError::Login { host, reason }
        } else {
            RemoteError::Unreachable { host, reason }
        }
    }

    fn lost(&self, exec: &Exec, error: &dyn std::error::Error) -> RemoteError {
        RemoteError::Lost { host: self.name.clone(), command: program(exec), reason: chain(error) }
    }

    /// The words the remote shell gets: sudo where needed, and the deadline on the host's own clock.
    fn words(&self, exec: &Exec, deadline: Option<Duration>) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        if exec.root && self.sudo {
            words.extend(["sudo", "-n", "--"].map(str::to_owned));
        }
        if let Some(deadline) = deadline {
            words.extend(["timeout", "-k", "5"].map(str::to_owned));
            words.push(format!("{:.3}", deadline.as_secs_f64()));
        }
        words.extend(exec.argv.iter().cloned());
        words
    }
}

fn program(exec: &Exec) -> String {
    exec.argv.first().cloned().unwrap_or_default()
}

/// An error with its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

async fn read_bounded(mut from: impl AsyncRead + Unpin) -> std::io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        let n = from.read(&mut chunk).await?;
        if n == 0 {
            return Ok(kept);
        }
        let room = OUTPUT_LIMIT.saturating_sub(kept.len()).min(n);
        kept.extend_from_slice(&chunk[..room]);
    }
}

#[async_trait]
impl Remote for SshHost {
    fn name(&self) -> &str {
        &self.name
    }

    async fn run(&self, exec: Exec) -> Result<Output, RemoteError> {
        let session = self.session().await?;
        let Ok(_slot) = self.slots.acquire().await else { unreachable!("the semaphore is never closed") };
        tracing::debug!(host = self.name, argv = ?exec.argv, "run");
        let words = self.words(&exec, Some(exec.deadline));
        let mut command = session.command(words[0].clone());
        command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let work = async {
            let mut child = command.spawn().await.map_err(|e| self.lost(&exec, &e))?;
            let (stdin, stdout, stderr) = (child.stdin().take(), child.stdout().take(), child.stderr().take());
            let feed = async {
                if let Some(mut stdin) = stdin {
                    // A command that ends without reading its stdin is judged by its status alone.
                    let _ = stdin.write_all(&exec.stdin).await;
                }
            };
            let drain = async {
                let out = async { Ok(if let Some(s) = stdout { read_bounded(s).await? } else { Vec::new() }) };
                let err = async { Ok(if let Some(s) = stderr { read_bounded(s).await? } else { Vec::new() }) };
                tokio::try_join!(out, err)
            };
            let ((), pipes) = tokio::join!(feed, drain);
            let (stdout, stderr) = pipes.map_err(|e: std::io::Error| self.lost(&exec, &e))?;
            let status = child.wait().await.map_err(|e| self.lost(&exec, &e))?;
            Ok(Output { status: status.code().unwrap_or(255), stdout, stderr })
        };
        let timed_out =
            || RemoteError::TimedOut { host: self.name.clone(), command: program(&exec), after: exec.deadline };
        let output = timeout(exec.deadline + GRACE, work).await.map_err(|_| timed_out())??;
        // `timeout` exits with 124, or dies with 137 when the command ignored TERM.
        if output.status == 124 || output.status == 137 { Err(timed_out()) } else { Ok(output) }
    }

    async fn channel(&self, exec: Exec) -> Result<Channel, RemoteError> {
        let session = self.session().await?;
        let words = self.words(&exec, None);
        let mut command = session.arc_command(words[0].clone());
        command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().await.map_err(|e| self.lost(&exec, &e))?;
        match (child.stdin().take(), child.stdout().take()) {
            (Some(mut stdin), Some(stdout)) => {
                if !exec.stdin.is_empty() {
                    stdin.write_all(&exec.stdin).await.map_err(|e| self.lost(&exec, &e))?;
                }
                Ok(Channel::new(stdin, stdout, child))
            }
            _ => Err(self.lost(&exec, &std::io::Error::other("no pipes"))),
        }
    }

    async fn forward_socket(&self, remote: &str) -> Result<PathBuf, RemoteError> {
        let session = self.session().await?;
        let number = self.next_socket.fetch_add(1, Ordering::Relaxed);
        let local = self.sockets.path().join(format!("s{number}"));
        let to = Socket::UnixSocket { path: PathBuf::from(remote).into() };
        let from = Socket::UnixSocket { path: local.clone().into() };
        session.request_port_forward(ForwardType::Local, from, to).await.map_err(|e| RemoteError::Unreachable {
            host: self.name.clone(),
            reason: format!("cannot forward {remote}: {}", chain(&e)),
        })?;
        Ok(local)
    }
}
