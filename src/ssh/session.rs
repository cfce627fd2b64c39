//! A host over OpenSSH's own multiplexing, so that the operator's ssh configuration, jump hosts and keys just work.

use super::arguments;
use super::channel::Channel;
use super::command_line::{Mark, command_line, short};
use super::connect_limit::ConnectLimit;
use super::control::ControlDir;
use super::diagnose::{Target, diagnose, is_beyond_a_proxy, is_crowded, not_started};
use super::effective::Effective;
use super::error::RemoteError;
use super::exec::{Exec, Output, Remote};
use super::forward::{Forward, Listening};
use super::marked::{StderrTail, read_all, read_to_mark};
use super::master::Master;
use crate::inventory::{HostSpec, Inventory};
use async_trait::async_trait;
use openssh::{Child, ForwardType, Socket, Stdio};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, sleep, timeout};

/// Commands in flight a host. sshd's MaxSessions is 10, and native-mux was measured to lose the race for a freed
/// session from 6 on; standing channels need some too.
const IN_FLIGHT: usize = 4;
/// What the local deadline grants beyond the remote one, for the kill and the way back.
const GRACE: Duration = Duration::from_secs(10);
/// Attempts to connect to a server that refuses to talk because too many connect at once (MaxStartups).
const CONNECT_ATTEMPTS: u32 = 4;

/// What the hosts of a fleet share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) dir: Arc<ControlDir>,
    pub(super) gate: ConnectLimit,
    pub(super) connect: Duration,
}

/// A host over SSH; connects when first used, and anew when the connection is found dead before a command is sent.
pub(super) struct SshHost {
    name: String,
    address: String,
    known_hosts: Option<PathBuf>,
    arguments: Vec<OsString>,
    jump: Option<String>,
    /// `None`: the login name comes from the operator's ssh configuration and is asked for once connected.
    is_root: Option<bool>,
    sudo: AtomicBool,
    link: Mutex<Link>,
    attempts: AtomicU64,
    slots: Semaphore,
    /// Shortest time to the first byte of a command's output in microseconds; 0 while unknown.
    latency: AtomicU64,
    /// Whether it was said already that the login prints.
    noisy: AtomicBool,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Link {
    master: Option<Arc<Master>>,
    /// Why the last attempt failed, for those who waited for it.
    failure: Option<RemoteError>,
}

impl std::fmt::Debug for SshHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SshHost({})", self.name)
    }
}

impl SshHost {
    /// The host as the inventory describes it; nothing is connected yet.
    pub(super) fn new(inventory: &Inventory, host: &HostSpec, shared: Arc<Shared>) -> Self {
        let defaults = &inventory.ssh;
        let user = host.user.as_ref().or(defaults.user.as_ref());
        let known_hosts = defaults.known_hosts.as_ref().map(|file| inventory.path(file));
        SshHost {
            name: host.name.clone(),
            address: host.address.to_string(),
            known_hosts,
            arguments: arguments::all(inventory, host),
            jump: defaults.jump.clone(),
            is_root: user.map(|user| user == "root"),
            sudo: AtomicBool::new(user.is_some_and(|user| user != "root")),
            link: Mutex::default(),
            attempts: AtomicU64::new(0),
            slots: Semaphore::new(IN_FLIGHT),
            latency: AtomicU64::new(0),
            noisy: AtomicBool::new(false),
            shared,
        }
    }

    /// The living connection, made now where there is none.
    async fn master(&self) -> Result<Arc<Master>, RemoteError> {
        let seen = self.attempts.load(Ordering::Acquire);
        let mut link = self.link.lock().await;
        if let Some(master) = &link.master {
            if master.listens().await {
                return Ok(Arc::clone(master));
            }
            tracing::debug!(host = self.name, why = master.last_words(), "the connection is gone; connecting anew");
            link.master = None;
        } else if let Some(failure) = &link.failure
            && self.attempts.load(Ordering::Acquire) != seen
        {
            // Another command tried while this one waited: the answer holds for both.
            return Err(failure.clone());
        }
        let connected = self.new_master().await;
        self.attempts.fetch_add(1, Ordering::AcqRel);
        match connected {
            Ok(master) => {
                link.failure = None;
                link.master = Some(Arc::clone(&master));
                Ok(master)
            }
            Err(error) => {
                link.failure = Some(error.clone());
                Err(error)
            }
        }
    }

    async fn new_master(&self) -> Result<Arc<Master>, RemoteError> {
        let began = Instant::now();
        let mut attempt = 1;
        let mut jump = self.jump.clone();
        let master = loop {
            let said = {
                let (shared, jump) = (&self.shared, jump.as_deref());
                let work = Master::connect(&shared.dir, &self.arguments, jump, &self.address, shared.connect);
                match self.shared.gate.pass(work).await {
                    Ok(master) => break Arc::new(master),
                    Err(said) => said,
                }
            };
            // What a jump host of the operator's own configuration says has no reader: once more, in our way.
            if jump.is_none() && is_beyond_a_proxy(&said) {
                let found = Effective::of(self.shared.dir.config(), &self.arguments, &self.address).await;
                jump = found.and_then(Effective::jump);
                if jump.is_some() {
                    continue;
                }
            }
            if attempt == CONNECT_ATTEMPTS || !is_crowded(&said) {
                let target =
                    Target { name: &self.name, address: &self.address, known_hosts: self.known_hosts.as_deref() };
                let error = diagnose(target, &said);
                tracing::debug!(host = self.name, %error, ms = began.elapsed().as_millis(), "cannot connect");
                return Err(error);
            }
            sleep(Duration::from_millis(rand::random_range(100..400) * u64::from(attempt))).await;
            attempt += 1;
        };
        if self.is_root.is_none() {
            let output = self.execute(&master, &Exec::argv(["id", "-u"]).as_login()).await?;
            self.sudo.store(output.text().trim() != "0", Ordering::Relaxed);
        }
        tracing::debug!(host = self.name, ms = began.elapsed().as_millis(), "connected");
        Ok(master)
    }

    fn lost(&self, exec: &Exec, reason: &dyn std::error::Error, master: &Master) -> RemoteError {
        let reason = match master.last_words() {
            Some(words) => format!("{}: {words}", chain(reason)),
            None => chain(reason),
        };
        RemoteError::Lost { host: self.name.clone(), command: program(exec), reason }
    }

    /// Starts a command, again and again while sshd refuses it a session: a refused one certainly did not run.
    async fn spawn(
        &self,
        master: &Master,
        exec: &Exec,
        deadline: Option<Duration>,
        mark: &Mark,
    ) -> Result<Child<Arc<openssh::Session>>, RemoteError> {
        let line = command_line(exec, self.sudo.load(Ordering::Relaxed), deadline, mark);
        let (mut pause, began) = (Duration::from_millis(10), Instant::now());
        loop {
            let mut command = Arc::clone(master.session()).arc_raw_command(&line);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            match command.spawn().await {
                Ok(child) => return Ok(child),
                Err(error) if chain(&error).contains("Session open refused by peer") => {
                    if began.elapsed() >= exec.deadline {
                        let reason = "its sshd grants no further session: raise MaxSessions to 10".to_owned();
                        return Err(RemoteError::Unreachable { host: self.name.clone(), reason });
                    }
                    sleep(pause + Duration::from_millis(rand::random_range(0..20))).await;
                    pause = (pause * 2).min(Duration::from_millis(200));
                }
                Err(error) => return Err(self.lost(exec, &error, master)),
            }
        }
    }

    async fn execute(&self, master: &Master, exec: &Exec) -> Result<Output, RemoteError> {
        let began = Instant::now();
        let work = timeout(exec.deadline + GRACE, self.to_its_end(master, exec, began)).await;
        let result = work.map_err(|_| self.timed_out(exec, exec.deadline)).flatten();
        match &result {
            Ok(output) => tracing::debug!(
                host = self.name,
                argv = short(exec),
                stdin = exec.stdin.len(),
                status = output.status,
                stdout = output.stdout.len(),
                stderr = output.stderr.len(),
                ms = began.elapsed().as_millis(),
                "ran"
            ),
            Err(error) => tracing::debug!(
                host = self.name, argv = short(exec), %error, ms = began.elapsed().as_millis(), "did not run to its end"
            ),
        }
        result
    }

    async fn to_its_end(&self, master: &Master, exec: &Exec, began: Instant) -> Result<Output, RemoteError> {
        let mark = Mark::fresh();
        let mut child = self.spawn(master, exec, Some(exec.deadline), &mark).await?;
        let (stdin, stdout, stderr) = (child.stdin().take(), child.stdout().take(), child.stderr().take());
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A command that ends without reading its stdin is judged by its status alone.
                let _ = stdin.write_all(&exec.stdin).await;
            }
        };
        let out = read_all(stdout, mark.bytes(), || self.note_latency(began.elapsed()));
        let err = read_all(stderr, mark.bytes(), || {});
        let ((), stdout, stderr) = tokio::join!(feed, out, err);
        let stdout = stdout.map_err(|e| self.lost(exec, &e, master))?;
        let stderr = stderr.map_err(|e| self.lost(exec, &e, master))?;
        let status = self.status(child, exec, master).await?;
        // `timeout` exits with 124, or 137 when the command ignored TERM; a command may have such a status of its own.
        if matches!(status, 124 | 137) && began.elapsed() >= exec.deadline {
            return Err(self.timed_out(exec, exec.deadline));
        }
        let Some(output) = stdout.after else {
            let said = (&stdout.before[..], &stderr.before[..]);
            return Err(not_started(&self.name, exec, self.sudo.load(Ordering::Relaxed), status, said));
        };
        self.note_noise(&stdout.before, &stderr.before);
        // A command whose shell had no stderr to write the mark to has said nothing there.
        Ok(Output { status, stdout: output, stderr: stderr.after.unwrap_or_default() })
    }

    /// How a started command ended.
    async fn status(
        &self,
        child: Child<Arc<openssh::Session>>,
        exec: &Exec,
        master: &Master,
    ) -> Result<i32, RemoteError> {
        status_of(child).await.map_err(|error| self.lost(exec, &error, master))
    }

    fn timed_out(&self, exec: &Exec, after: Duration) -> RemoteError {
        RemoteError::TimedOut { host: self.name.clone(), command: program(exec), after }
    }

    /// Says once what the login prints before every command: it costs time, and hides from whoever looks for it.
    fn note_noise(&self, stdout: &[u8], stderr: &[u8]) {
        let said = [stderr, stdout].map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
        if let Some(said) = said.iter().find(|text| !text.is_empty())
            && !self.noisy.swap(true, Ordering::Relaxed)
        {
            let first: String = said.lines().next().unwrap_or_default().chars().take(120).collect();
            tracing::info!(host = self.name, said = first, "the login prints before each command; it is passed over");
        }
    }

    /// Starts a command that stays, and waits until it has begun.
    async fn open(&self, master: &Arc<Master>, exec: &Exec) -> Result<Channel, RemoteError> {
        let mark = Mark::fresh();
        let mut child = self.spawn(master, exec, None, &mark).await?;
        let pipes = (child.stdin().take(), child.stdout().take(), child.stderr().take());
        let (Some(mut stdin), Some(mut stdout), Some(stderr)) = pipes else {
            return Err(self.lost(exec, &std::io::Error::other("no pipes"), master));
        };
        let mut tail = StderrTail::of(stderr, mark.bytes());
        // One that does not begin closes its stdin; what matters then is what it said.
        let (fed, begun) = tokio::join!(stdin.write_all(&exec.stdin), read_to_mark(&mut stdout, mark.bytes()));
        let (said, rest) = begun.map_err(|e| self.lost(exec, &e, master))?;
        let Some(rest) = rest else {
            let status = self.status(child, exec, master).await?;
            tail.ended().await;
            let said = (&said[..], tail.login().into_bytes());
            return Err(not_started(&self.name, exec, self.sudo.load(Ordering::Relaxed), status, (said.0, &said.1)));
        };
        fed.map_err(|e| self.lost(exec, &e, master))?;
        self.note_noise(&said, tail.login().as_bytes());
        let (host, command, master) = (self.name.clone(), program(exec), Arc::clone(master));
        let status = async move {
            let ended = status_of(child).await;
            drop(master);
            ended.map_err(|error| RemoteError::Lost { host, command, reason: chain(&error) })
        };
        Ok(Channel::ending(stdin, std::io::Cursor::new(rest).chain(stdout), tail, Box::pin(status)))
    }

    fn note_latency(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1);
        let known = self.latency.load(Ordering::Relaxed);
        if known == 0 || micros < known {
            self.latency.store(micros, Ordering::Relaxed);
        }
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

/// The exit status of a child whose streams have ended; 255 where a signal took the last shell.
async fn status_of(child: Child<Arc<openssh::Session>>) -> Result<i32, openssh::Error> {
    match child.wait().await {
        Ok(status) => Ok(status.code().unwrap_or(255)),
        // The library's word for exit status 127, which scripts have for reasons of their own.
        Err(openssh::Error::Remote(e)) if e.kind() == std::io::ErrorKind::NotFound => Ok(127),
        Err(error) => Err(error),
    }
}

#[async_trait]
impl Remote for SshHost {
    fn name(&self) -> &str {
        &self.name
    }

    async fn run(&self, exec: Exec) -> Result<Output, RemoteError> {
        let master = self.master().await?;
        let busy = || RemoteError::Unreachable {
            host: self.name.clone(),
            reason: format!("{IN_FLIGHT} commands still run there after {} s", exec.deadline.as_secs()),
        };
        let Ok(Ok(_slot)) = timeout(exec.deadline, self.slots.acquire()).await else { return Err(busy()) };
        self.execute(&master, &exec).await
    }

    async fn channel(&self, exec: Exec) -> Result<Channel, RemoteError> {
        let master = self.master().await?;
        let limit = exec.deadline + GRACE;
        timeout(limit, self.open(&master, &exec)).await.unwrap_or_else(|_| Err(self.timed_out(&exec, limit)))
    }

    async fn forward_socket(&self, remote: &str) -> Result<Forward, RemoteError> {
        let master = self.master().await?;
        let (local, near) = (self.shared.dir.fresh('s'), self.shared.dir.fresh('f'));
        let to = Socket::UnixSocket { path: PathBuf::from(remote).into() };
        let from = Socket::UnixSocket { path: local.clone().into() };
        let failed = |reason: String| RemoteError::Unreachable {
            host: self.name.clone(),
            reason: format!("cannot forward {remote}: {reason}"),
        };
        match timeout(GRACE, master.session().request_port_forward(ForwardType::Local, from, to)).await {
            Ok(Ok(())) => {
                let (master, runtime) = (Arc::downgrade(&master), Handle::current());
                let listening = Listening { master, local, remote: PathBuf::from(remote), runtime };
                Forward::through(near, listening).map_err(|e| failed(e.to_string()))
            }
            Ok(Err(error)) => Err(failed(chain(&error))),
            Err(_) => Err(failed(format!("no answer within {} s", GRACE.as_secs()))),
        }
    }

    async fn connect(&self) -> Result<(), RemoteError> {
        self.master().await.map(drop)
    }

    async fn disconnect(&self) {
        self.link.lock().await.master = None;
    }

    fn exec_latency(&self) -> Option<Duration> {
        match self.latency.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(Duration::from_micros(micros)),
        }
    }
}
