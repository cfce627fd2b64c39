//! One connection to one libvirt daemon: opened when first used, opened again when lost.
//!
//! libvirt's calls block and cannot be interrupted, so each runs on a thread of its own (never on tokio's) and is
//! waited for with a deadline. Keepalive frees the threads of a daemon that went silent.

use super::error::VirtError;
use crate::ssh::Remote;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
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

    /// The URI of the daemon behind a socket.
    async fn uri(&self, socket: &str) -> Result<String, VirtError> {
        match self {
            Endpoint::Uri { uri, .. } => Ok(uri.clone()),
            Endpoint::Remote(remote) => {
                let local = remote.forward_socket(socket).await.map_err(|e| self.unreachable(e))?;
                Ok(format!("qemu+unix:///system?socket={}", local.display()))
            }
        }
    }

    fn unreachable(&self, reason: impl std::fmt::Display) -> VirtError {
        VirtError::Unreachable { host: self.host().to_owned(), reason: reason.to_string() }
    }

    /// Opens a connection with keepalive.
    async fn open(&self) -> Result<Connect, VirtError> {
        start_event_loop().map_err(|e| self.unreachable(e))?;
        let mut reason = String::new();
        for socket in self.sockets() {
            let uri = self.uri(socket).await?;
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
            spawn(open).map_err(|e| self.unreachable(e))?;
            match tokio::time::timeout(OPEN, told).await {
                Ok(Ok(Ok(connect))) => return Ok(connect),
                Ok(Ok(Err(e))) => reason = e.message().to_owned(),
                Ok(Err(_)) => reason = "the connecting thread ended early".to_owned(),
                Err(_) => reason = format!("no answer within {} s", OPEN.as_secs()),
            }
        }
        Err(self.unreachable(reason))
    }
}

/// A connection, shared by the calls of one host.
#[derive(Debug)]
pub(super) struct Connection {
    endpoint: Endpoint,
    current: Mutex<Closing>,
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

    /// The open connection.
    pub(super) async fn connect(&self) -> Result<Connect, VirtError> {
        let mut current = self.current.lock().await;
        // Known without asking the daemon.
        if let Some(connect) = current.0.as_ref().filter(|c| c.is_alive().unwrap_or(false)) {
            return Ok(connect.clone());
        }
        let began = Instant::now();
        let connect = self.endpoint.open().await?;
        tracing::debug!(host = self.host(), ms = began.elapsed().as_millis(), "connected to libvirt");
        *current = Closing(Some(connect.clone()));
        Ok(connect)
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
        let (slot, connect) = timeout_at(until, begin)
            .await
            .map_err(|_| self.endpoint.unreachable(format!("no turn to {call} within {} s", deadline.as_secs())))??;
        let (tell, told) = oneshot::channel();
        let (host, began) = (self.host().to_owned(), Instant::now());
        let body = move || {
            let outcome =
                work(&connect).map_err(|e| VirtError::from_virt(&host, call, &e, connect.is_alive().unwrap_or(false)));
            tracing::debug!(host, call, ms = began.elapsed().as_millis(), "asked libvirt");
            drop((slot, connect));
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

/// Closes its connection on a thread: closing the last handle talks to the daemon.
#[derive(Debug, Default)]
pub(super) struct Closing(pub(super) Option<Connect>);

impl Drop for Closing {
    fn drop(&mut self) {
        if let Some(connect) = self.0.take() {
            // Without a thread it is closed right here.
            let _ = spawn(move || drop(connect));
        }
    }
}

pub(super) fn spawn(work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name("libvirt".to_owned()).spawn(work).map(drop)
}

/// Starts the thread that keepalive and events run on, once.
fn start_event_loop() -> Result<(), String> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    let start = || {
        // By default the library prints each error to stderr as well.
        virt::error::clear_error_callback();
        virt::event::event_register_default_impl().map_err(|e| e.message().to_owned())?;
        let turn = || {
            while virt::event::event_run_default_impl().is_ok() {}
            tracing::error!("libvirt's event loop ended");
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

    #[tokio::test]
    async fn a_daemon_that_is_not_there_is_unreachable() {
        let uri = "qemu+unix:///system?socket=/nonexistent/sock".to_owned();
        let connection = Connection::new(Endpoint::Uri { host: "h1".to_owned(), uri });
        let error = connection.call("look", Duration::from_secs(5), |_| Ok(())).await.unwrap_err();
        assert!(error.nothing_ran(), "{error}");
    }
}
