//! One connection to one libvirt daemon: opened when first used, opened again when lost.
//!
//! libvirt's calls block and cannot be interrupted, so each runs on a thread of its own (never on tokio's) and is
//! waited for with a deadline. Keepalive frees the threads of a daemon that went silent.

use super::error::VirtError;
use super::events::LifecycleEvent;
use crate::ssh::{Forward, Remote, why_refused};
use std::sync::{Arc, Mutex as StdMutex, OnceLock};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Mutex, Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};
use virt::connect::Connect;

/// Calls in flight a connection: libvirtd answers no more than `max_client_requests` (5 by default) of one client.
const IN_FLIGHT: usize = 4;
/// A daemon that says nothing for three of these counts as gone; with them a stopped daemon was noticed after 8 s.
const KEEPALIVE_SECONDS: i32 = 2;
const KEEPALIVE_COUNT: u32 = 3;
/// How long opening may take: one forwarded socket, one handshake.
const OPEN: Duration = Duration::from_secs(10);
/// The name of a thread that opens a connection.
const OPENING: &str = "libvirt-open";
/// Where the daemon listens: monolithic (Debian, Ubuntu), or modular (RHEL family).
const SOCKETS: [&str; 2] = ["/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock"];

/// Where a daemon is found.
#[derive(Clone, Debug)]
pub(super) enum Endpoint {
    /// On a host, over its forwarded socket.
    Remote(Arc<dyn Remote>),
    /// At an URI.
    Uri { host: String, uri: String },
}

impl Endpoint {
    pub(super) fn host(&self) -> &str {
        match self {
            Endpoint::Remote(remote) => remote.name(),
            Endpoint::Uri { host, .. } => host,
        }
    }

    /// The sockets to try; none where the URI is known.
    fn sockets(&self) -> &'static [&'static str] {
        match self {
            Endpoint::Remote(_) => &SOCKETS,
            Endpoint::Uri { .. } => &[""],
        }
    }

    /// The URI of the daemon behind a socket, and what leads there.
    async fn uri(&self, socket: &str) -> Result<(String, Option<Forward>), VirtError> {
        match self {
            Endpoint::Uri { uri, .. } => Ok((uri.clone(), None)),
            Endpoint::Remote(remote) => {
                let forward = remote.forward_socket(socket).await.map_err(|e| self.unreachable(e))?;
                Ok((format!("qemu+unix:///system?socket={}", forward.path().display()), Some(forward)))
            }
        }
    }

    fn unreachable(&self, reason: impl std::fmt::Display) -> VirtError {
        VirtError::Unreachable { host: self.host().to_owned(), reason: reason.to_string() }
    }

    /// Opens a connection with keepalive. Whoever stops waiting cuts the way, which ends the thread as well.
    async fn open(&self) -> Result<Opened, VirtError> {
        start_event_loop().map_err(|e| self.unreachable(e))?;
        let (mut reason, mut refused) = (String::new(), false);
        for socket in self.sockets() {
            let (uri, forward) = self.uri(socket).await?;
            let (tell, told) = oneshot::channel();
            let open = move || {
                let opened = Connect::open(Some(&uri));
                if let Ok(connect) = &opened {
                    // Refused by drivers without a network below them, which need none.
                    let _ = connect.set_keep_alive(KEEPALIVE_SECONDS, KEEPALIVE_COUNT);
                }
                // Nobody waits any longer when the deadline has passed.
                let _ = tell.send(opened);
            };
            let thread = std::thread::Builder::new().name(OPENING.to_owned()).spawn(open);
            thread.map_err(|e| self.unreachable(e))?;
            match tokio::time::timeout(OPEN, told).await {
                Ok(Ok(Ok(connect))) => {
                    return Ok(Opened { connect: Some(connect), forward: StdMutex::new(forward) });
                }
                Ok(Ok(Err(e))) => reason = e.message().to_owned(),
                Ok(Err(_)) => reason = "the connecting thread ended early".to_owned(),
                Err(_) => reason = format!("no answer within {} s", OPEN.as_secs()),
            }
            refused |= forward.is_some_and(|forward| forward.was_refused());
        }
        Err(self.unreachable(if refused { self.why_refused().await.unwrap_or(reason) } else { reason }))
    }

    /// Why its sockets were closed at once: the reason that stands for one that is there.
    async fn why_refused(&self) -> Option<String> {
        let Endpoint::Remote(remote) = self else { return None };
        let mut why = None;
        for socket in SOCKETS {
            let of_this = why_refused(remote.as_ref(), socket).await;
            if !of_this.starts_with("nothing listens") {
                return Some(of_this);
            }
            why = why.or(Some(of_this));
        }
        why
    }
}

/// A connection, shared by the calls of one host.
#[derive(Debug)]
pub(super) struct Connection {
    endpoint: Endpoint,
    current: Mutex<Option<Arc<Opened>>>,
    slots: Arc<Semaphore>,
}

impl Connection {
    /// Nothing is opened yet.
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Connection { endpoint, current: Mutex::default(), slots: Arc::new(Semaphore::new(IN_FLIGHT)) }
    }

    /// The host's name.
    pub(super) fn host(&self) -> &str {
        self.endpoint.host()
    }

    /// The host behind it, where it is one over SSH.
    pub(super) fn remote(&self) -> Option<&Arc<dyn Remote>> {
        match &self.endpoint {
            Endpoint::Remote(remote) => Some(remote),
            Endpoint::Uri { .. } => None,
        }
    }

    /// Another connection to the same daemon, for a call that takes long.
    pub(super) fn sibling(&self) -> Self {
        Connection::new(self.endpoint.clone())
    }

    /// Connects now instead of with the first call.
    pub(super) async fn open(&self) -> Result<(), VirtError> {
        self.connect().await.map(drop)
    }

    /// The open connection.
    async fn connect(&self) -> Result<Arc<Opened>, VirtError> {
        let mut current = self.current.lock().await;
        // Known without asking the daemon.
        if let Some(opened) = current.as_ref().filter(|opened| opened.is_alive()) {
            return Ok(Arc::clone(opened));
        }
        let began = Instant::now();
        let opened = Arc::new(self.endpoint.open().await?);
        tracing::debug!(host = self.host(), ms = began.elapsed().as_millis(), "connected to libvirt");
        *current = Some(Arc::clone(&opened));
        Ok(opened)
    }

    /// Ends its connection under whoever waits in it.
    fn cut(&self) {
        if let Ok(mut current) = self.current.try_lock()
            && let Some(opened) = current.take()
            && let Ok(mut forward) = opened.forward.lock()
        {
            *forward = None;
        }
    }

    /// Runs `work` on a thread, and waits for it until the deadline. What has not begun by then never will.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        call: &'static str,
        deadline: Duration,
        work: impl FnOnce(&Connect) -> Result<T, virt::error::Error> + Send + 'static,
    ) -> Result<T, VirtError> {
        let until = Instant::now() + deadline;
        let begin = async {
            let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|e| self.endpoint.unreachable(e))?;
            Ok((slot, self.connect().await?))
        };
        let (slot, opened) = timeout_at(until, begin)
            .await
            .map_err(|_| self.endpoint.unreachable(format!("no turn to {call} within {} s", deadline.as_secs())))??;
        let (tell, told) = oneshot::channel();
        let (host, began) = (self.host().to_owned(), Instant::now());
        let body = move || {
            let outcome = match &opened.connect {
                Some(connect) => work(connect).map_err(|e| VirtError::from_virt(&host, call, &e, opened.is_alive())),
                None => {
                    Err(VirtError::Unreachable { host: host.clone(), reason: "the connection is closed".to_owned() })
                }
            };
            tracing::debug!(host, call, ms = began.elapsed().as_millis(), "asked libvirt");
            drop((slot, opened));
            // Nobody waits any longer when the deadline has passed.
            let _ = tell.send(outcome);
        };
        spawn(body).map_err(|e| self.endpoint.unreachable(e))?;
        match timeout_at(until, told).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(VirtError::Lost {
                host: self.host().to_owned(),
                call,
                message: "the calling thread ended early".to_owned(),
            }),
            Err(_) => Err(VirtError::TimedOut { host: self.host().to_owned(), call, after: deadline }),
        }
    }

    /// As [`Self::read`] for what asks whether the daemon lives: calls that hang must not make it look dead. So with any
    /// of them in flight it takes a connection of its own, which is cut when this ends, however it ends.
    pub(super) async fn probe<T: Send + 'static>(
        &self,
        call: &'static str,
        deadline: Duration,
        work: impl FnOnce(&Connect) -> Result<T, virt::error::Error> + Clone + Send + 'static,
    ) -> Result<T, VirtError> {
        if self.slots.available_permits() == IN_FLIGHT {
            return self.read(call, deadline, work).await;
        }
        let own = self.sibling();
        let _cut = CutAtEnd(&own);
        own.call(call, deadline, work).await
    }

    /// As [`Self::call`] for what changes nothing: asked once more when the connection turned out to be dead.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        call: &'static str,
        deadline: Duration,
        work: impl FnOnce(&Connect) -> Result<T, virt::error::Error> + Clone + Send + 'static,
    ) -> Result<T, VirtError> {
        match self.call(call, deadline, work.clone()).await {
            Err(VirtError::Lost { .. }) => self.call(call, deadline, work).await,
            outcome => outcome,
        }
    }
}

/// An open connection and the way it takes. Closed on a thread: closing the last handle talks to the daemon.
#[derive(Debug)]
struct Opened {
    /// Set until it is dropped.
    connect: Option<Connect>,
    forward: StdMutex<Option<Forward>>,
}

impl Opened {
    /// Known without asking the daemon.
    fn is_alive(&self) -> bool {
        self.connect.as_ref().is_some_and(|connect| connect.is_alive().unwrap_or(false))
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let (connect, forward) = (self.connect.take(), self.forward.get_mut().ok().and_then(Option::take));
        // In this order, and without a thread right here.
        let _ = spawn(move || {
            drop(connect);
            drop(forward);
        });
    }
}

/// Cuts a connection when it is dropped.
struct CutAtEnd<'a>(&'a Connection);

impl Drop for CutAtEnd<'_> {
    fn drop(&mut self) {
        self.0.cut();
    }
}

pub(super) fn spawn(work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name("libvirt".to_owned()).spawn(work).map(drop)
}

/// Those who are told when the event loop ends; `None`: it has ended.
static WATCHERS: StdMutex<Option<Vec<UnboundedSender<LifecycleEvent>>>> = StdMutex::new(Some(Vec::new()));

/// Tells this watcher as well when no events come any more because their loop has ended.
pub(super) fn tell_at_the_end(watcher: UnboundedSender<LifecycleEvent>) {
    if let Ok(mut watchers) = WATCHERS.lock() {
        match watchers.as_mut() {
            Some(watchers) => {
                watchers.retain(|watcher| !watcher.is_closed());
                watchers.push(watcher);
            }
            None => drop(watcher.send(LifecycleEvent::Lost)),
        }
    }
}

fn event_loop_ended() {
    tracing::error!("libvirt's event loop ended: events and keepalive stand still");
    let watchers = WATCHERS.lock().ok().and_then(|mut watchers| watchers.take());
    for watcher in watchers.into_iter().flatten() {
        // The receiver may be gone already.
        let _ = watcher.send(LifecycleEvent::Lost);
    }
}

/// Starts the thread that keepalive and events run on, once.
fn start_event_loop() -> Result<(), String> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    if WATCHERS.lock().is_ok_and(|watchers| watchers.is_none()) {
        return Err("libvirt's event loop has ended: start the command anew".to_owned());
    }
    let start = || {
        // By default the library prints each error to stderr as well.
        virt::error::clear_error_callback();
        virt::event::event_register_default_impl().map_err(|e| e.message().to_owned())?;
        let turn = || {
            while virt::event::event_run_default_impl().is_ok() {}
            event_loop_ended();
        };
        spawn(turn).map_err(|e| e.to_string())
    };
    STARTED.get_or_init(start).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection {
        Connection::new(Endpoint::Uri { host: "h1".to_owned(), uri: "test:///default".to_owned() })
    }

    #[tokio::test]
    async fn a_call_that_never_began_is_known_not_to_have_happened() {
        let connection = connection();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let wait = Arc::new(std::sync::Mutex::new(wait));
        for _ in 0..IN_FLIGHT {
            let wait = Arc::clone(&wait);
            let block = move |_: &Connect| {
                let _ = wait.lock().unwrap().recv();
                Ok(())
            };
            let late = connection.call("block", Duration::from_millis(200), block).await.unwrap_err();
            assert!(late.unknown(), "{late}");
        }
        let queued = connection.call("wait", Duration::from_millis(50), |_| Ok(())).await.unwrap_err();
        assert!(queued.nothing_ran(), "{queued}");
        drop(go);
        connection.call("go on", Duration::from_secs(5), |_| Ok(())).await.unwrap();
    }

    /// Threads of this process with this name.
    fn threads(name: &str) -> usize {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        tasks.filter(|t| std::fs::read_to_string(t.path().join("comm")).is_ok_and(|c| c.trim() == name)).count()
    }

    /// A host whose libvirtd takes connections and says nothing, as one that hangs does.
    #[derive(Debug)]
    struct Hung(tempfile::TempDir);

    #[async_trait::async_trait]
    impl Remote for Hung {
        fn name(&self) -> &str {
            "hung"
        }
        async fn run(&self, _: crate::ssh::Exec) -> Result<crate::ssh::Output, crate::ssh::RemoteError> {
            Ok(crate::ssh::Output::default())
        }
        async fn channel(&self, _: crate::ssh::Exec) -> Result<crate::ssh::Channel, crate::ssh::RemoteError> {
            Err(crate::ssh::RemoteError::Unreachable { host: "hung".to_owned(), reason: String::new() })
        }
        async fn forward_socket(&self, _: &str) -> Result<Forward, crate::ssh::RemoteError> {
            Ok(Forward::between(self.0.path().join("near"), self.0.path().join("far")).unwrap())
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn whoever_gives_up_on_a_daemon_that_hangs_leaves_no_thread_behind() {
        let host = Hung(tempfile::tempdir().unwrap());
        let daemon = tokio::net::UnixListener::bind(host.0.path().join("far")).unwrap();
        let connection = Connection::new(Endpoint::Remote(Arc::new(host)));
        let look = tokio::spawn(async move { connection.read("look", Duration::from_secs(9), |_| Ok(())).await });
        let (_held, _) = daemon.accept().await.unwrap();
        assert!(threads(OPENING) > 0, "it waits for the daemon's first word");
        look.abort();
        let gone = async {
            while threads(OPENING) > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), gone).await.unwrap();
    }

    #[tokio::test]
    async fn a_probe_is_answered_while_every_slot_hangs() {
        let connection = Arc::new(connection());
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let wait = Arc::new(std::sync::Mutex::new(wait));
        for _ in 0..IN_FLIGHT {
            let wait = Arc::clone(&wait);
            let block = move |_: &Connect| {
                let _ = wait.lock().unwrap().recv();
                Ok(())
            };
            connection.call("create", Duration::from_millis(100), block).await.unwrap_err();
        }
        let alive = connection.probe("look", Duration::from_secs(5), |connect| connect.is_alive()).await.unwrap();
        assert!(alive);
        drop(go);
    }

    #[tokio::test]
    async fn a_daemon_that_is_not_there_is_unreachable() {
        let uri = "qemu+unix:///system?socket=/nonexistent/sock".to_owned();
        let connection = Connection::new(Endpoint::Uri { host: "h1".to_owned(), uri });
        let error = connection.call("look", Duration::from_secs(5), |_| Ok(())).await.unwrap_err();
        assert!(error.nothing_ran(), "{error}");
    }
}
