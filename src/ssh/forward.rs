//! A unix socket of a host, reachable here: through a pipe of our own, so that it can be cut.
//!
//! ssh can stop to listen, but does not end a connection that was made: whoever waits in one for a host that went silent
//! would wait on. So each connection goes through this process, and ends with its [`Forward`].

use super::master::Master;
use openssh::{ForwardType, Socket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// What ssh may take to stop listening; its end stops it as well.
const CANCEL: Duration = Duration::from_secs(5);
/// How long the far side may take to end a connection that this side has ended.
const LINGER: Duration = Duration::from_secs(10);

/// A unix socket of a host, reachable at [`Forward::path`] while this lives; dropped, every connection through it is cut.
#[derive(Debug)]
pub struct Forward {
    path: PathBuf,
    refused: Arc<AtomicBool>,
    pump: Option<JoinHandle<()>>,
    listening: Option<Listening>,
}

/// What ssh listens on for it.
#[derive(Debug)]
pub(super) struct Listening {
    pub(super) master: Weak<Master>,
    pub(super) local: PathBuf,
    pub(super) remote: PathBuf,
    pub(super) runtime: Handle,
}

impl Forward {
    /// A socket of this machine, as it is.
    pub fn local(path: impl Into<PathBuf>) -> Self {
        Forward { path: path.into(), refused: Arc::default(), pump: None, listening: None }
    }

    /// Takes connections at `path` and leads them on to what ssh listens on.
    pub(super) fn through(path: PathBuf, listening: Listening) -> std::io::Result<Self> {
        let (pump, refused) = pump(&path, listening.local.clone())?;
        Ok(Forward { path, refused, pump: Some(pump), listening: Some(listening) })
    }

    /// Leads from one socket of this machine to another, for fakes.
    ///
    /// # Errors
    /// When nothing can listen at `path`.
    pub fn between(path: PathBuf, target: PathBuf) -> std::io::Result<Self> {
        let (pump, refused) = pump(&path, target)?;
        Ok(Forward { path, refused, pump: Some(pump), listening: None })
    }

    /// The local end.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the host closed a connection without a byte: sshd forbids it, or nothing listens there.
    pub fn was_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        if let Some(pump) = self.pump.take() {
            pump.abort();
            let _ = std::fs::remove_file(&self.path);
        }
        if let Some(Listening { master, local, remote, runtime }) = self.listening.take() {
            runtime.spawn(async move {
                if let Some(master) = master.upgrade() {
                    let from = Socket::UnixSocket { path: local.clone().into() };
                    let to = Socket::UnixSocket { path: remote.into() };
                    let cancel = master.session().close_port_forward(ForwardType::Local, from, to);
                    if !matches!(timeout(CANCEL, cancel).await, Ok(Ok(()))) {
                        tracing::debug!(local = %local.display(), "ssh goes on listening until it ends");
                    }
                }
                let _ = std::fs::remove_file(&local);
            });
        }
    }
}

/// Takes connections at `path` and leads each to `target`; whether one was refused is told as well.
fn pump(path: &Path, target: PathBuf) -> std::io::Result<(JoinHandle<()>, Arc<AtomicBool>)> {
    let listener = UnixListener::bind(path)?;
    let refused = Arc::<AtomicBool>::default();
    let seen = Arc::clone(&refused);
    let pump = tokio::spawn(async move {
        let mut streams = JoinSet::new();
        while let Ok((near, _)) = listener.accept().await {
            streams.spawn(lead(near, target.clone(), Arc::clone(&seen)));
            while streams.try_join_next().is_some() {}
        }
    });
    Ok((pump, refused))
}

/// Leads one connection on until the far side ends it.
async fn lead(mut near: UnixStream, target: PathBuf, refused: Arc<AtomicBool>) {
    let Ok(mut far) = UnixStream::connect(&target).await else {
        refused.store(true, Ordering::Relaxed);
        return;
    };
    let ((mut near_out, mut near_in), (mut far_out, mut far_in)) = (near.split(), far.split());
    let up = async {
        let _ = copy(&mut near_out, &mut far_in).await;
        let _ = far_in.shutdown().await;
        sleep(LINGER).await;
    };
    let down = async {
        let mut first = [0; 1];
        match far_out.read(&mut first).await {
            Ok(1..) => {}
            _ => return refused.store(true, Ordering::Relaxed),
        }
        if near_in.write_all(&first).await.is_ok() {
            let _ = copy(&mut far_out, &mut near_in).await;
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn dropping_a_forward_cuts_whoever_waits_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let (silent, outer) = (dir.path().join("silent"), dir.path().join("outer"));
        let host = UnixListener::bind(&silent).unwrap();
        let forward = Forward::between(outer.clone(), silent).unwrap();
        let mut waiting = UnixStream::connect(forward.path()).await.unwrap();
        let (_held, _) = host.accept().await.unwrap();
        let reader = tokio::spawn(async move { waiting.read(&mut [0; 1]).await });
        drop(forward);
        assert_eq!(reader.await.unwrap().unwrap(), 0, "the end of the stream");
        assert!(!outer.exists());
    }
}
