//! What goes wrong at one remote call, counted over all ports of a command: for crash tests.

use super::{Channel, Exec, Forward, Output, Remote, RemoteError};
use async_trait::async_trait;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// What happens at the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    /// The caller is killed before it is sent.
    Killed,
    /// It never arrives, and its answer is lost.
    NeverArrived,
    /// It is carried out, and its answer is lost.
    AnswerLost,
}

/// Springs at one call of a command.
#[derive(Debug)]
pub(crate) struct Trap {
    calls: AtomicUsize,
    at: usize,
    blow: Blow,
    killed: Notify,
}

impl Trap {
    /// Springs at the call of this number; the first one is 1.
    pub(crate) fn new(at: usize, blow: Blow) -> Arc<Self> {
        Arc::new(Trap { calls: AtomicUsize::new(0), at, blow, killed: Notify::new() })
    }

    /// Whether it sprang.
    pub(crate) fn sprang(&self) -> bool {
        self.calls.load(Ordering::SeqCst) >= self.at
    }

    /// Runs a command until it ends, or is killed.
    pub(crate) async fn run<T>(&self, command: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.killed.notified() => None,
            outcome = command => Some(outcome),
        }
    }

    /// Lets a call through, unless it is the one.
    pub(crate) async fn pass<T, E>(
        &self,
        call: impl Future<Output = Result<T, E>>,
        lost: impl FnOnce() -> E,
    ) -> Result<T, E> {
        if self.calls.fetch_add(1, Ordering::SeqCst) + 1 != self.at {
            return call.await;
        }
        match self.blow {
            Blow::Killed => {
                self.killed.notify_one();
                std::future::pending().await
            }
            Blow::NeverArrived => Err(lost()),
            Blow::AnswerLost => {
                let _ = call.await;
                Err(lost())
            }
        }
    }
}

/// A host behind a trap.
#[derive(Debug)]
pub(crate) struct FaultyRemote {
    pub(crate) inner: Arc<dyn Remote>,
    pub(crate) trap: Arc<Trap>,
}

#[async_trait]
impl Remote for FaultyRemote {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn run(&self, exec: Exec) -> Result<Output, RemoteError> {
        let (host, command) = (self.name().to_owned(), exec.argv.first().cloned().unwrap_or_default());
        let lost = || RemoteError::Lost { host, command, reason: "the trap sprang".into() };
        self.trap.pass(self.inner.run(exec), lost).await
    }

    async fn channel(&self, exec: Exec) -> Result<Channel, RemoteError> {
        self.inner.channel(exec).await
    }

    async fn forward_socket(&self, remote: &str) -> Result<Forward, RemoteError> {
        self.inner.forward_socket(remote).await
    }
}
