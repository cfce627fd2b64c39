//! A unix socket of a host, reachable here: through a pipe of our own, so that it can be cut.
//!
//! ssh can stop to listen, but does not end a connection that was made: whoever waits in one for a host that went silent
//! would wait on. So each connection goes through this process, and ends with its [`Forward`].

use super::exec::{Exec, Remote, RemoteExt};
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
/// A stream socket that every systemd host has, whose owner says nothing by itself (systemd-journald).
const QUIET_SOCKET: &str = "/run/systemd/journal/stdout";
/// How soon a forbidden connection is closed: a round trip and the work of a busy sshd.
const REFUSED_WITHIN: Duration = Duration::from_secs(1);

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

/// What a host's sshd permits, as far as rackhand depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SshdLimits {
    /// Why no unix socket can be forwarded; empty where it can.
    pub forwarding: String,
    /// `MaxSessions`, where sshd tells.
    pub max_sessions: Option<u32>,
}

/// Asks sshd for its settings as they hold for this login. Arguments: a socket whose existence is told.
const SETTINGS: &str = r#"
PATH=$PATH:/usr/sbin:/sbin
[ -S "$1" ] && echo "socket there"
sshd -T -C "user=${SUDO_USER:-$(id -un)},host=localhost,addr=${SSH_CONNECTION%% *}" 2>/dev/null |
    grep -E '^(allowstreamlocalforwarding|allowtcpforwarding|disableforwarding|maxsessions) '
exit 0
"#;

/// Tries whether unix sockets can be forwarded, and looks at sshd's limits.
///
/// # Errors
/// When the host cannot be reached.
pub async fn sshd_limits(remote: &dyn Remote) -> Result<SshdLimits, super::RemoteError> {
    let output = remote.check(Exec::script(SETTINGS, [QUIET_SOCKET])).await?;
    let settings = Settings::read(&output.text());
    let mut limits = SshdLimits { max_sessions: settings.max_sessions, ..SshdLimits::default() };
    // A socket's owner may hang up for reasons of its own: only a setting that forbids is held against sshd.
    if settings.socket && !settings.forbids.is_empty() && !passes(remote).await {
        limits.forwarding = settings.why(QUIET_SOCKET);
    }
    Ok(limits)
}

/// Whether a connection to a socket that is there stays open.
async fn passes(remote: &dyn Remote) -> bool {
    let Ok(forward) = remote.forward_socket(QUIET_SOCKET).await else { return false };
    let Ok(mut stream) = UnixStream::connect(forward.path()).await else { return false };
    // Silence is consent.
    timeout(REFUSED_WITHIN, stream.read(&mut [0; 1])).await.is_err()
}

/// Why a forwarded connection to this socket was closed at once.
pub async fn why_refused(remote: &dyn Remote, socket: &str) -> String {
    match remote.check(Exec::script(SETTINGS, [socket])).await {
        Ok(output) => Settings::read(&output.text()).why(socket),
        Err(error) => error.to_string(),
    }
}

#[derive(Debug, Default)]
struct Settings {
    socket: bool,
    forbids: Vec<String>,
    max_sessions: Option<u32>,
}

impl Settings {
    fn read(text: &str) -> Self {
        let mut settings = Settings::default();
        for (key, value) in text.lines().filter_map(|line| line.trim().split_once(' ')) {
            let forbid = |name: &str| format!("`{name} {value}`");
            match (key, value) {
                ("socket", _) => settings.socket = true,
                ("allowstreamlocalforwarding", "no" | "remote") => {
                    settings.forbids.push(forbid("AllowStreamLocalForwarding"));
                }
                ("allowtcpforwarding", "no" | "remote") => settings.forbids.push(forbid("AllowTcpForwarding")),
                ("disableforwarding", "yes") => settings.forbids.push(forbid("DisableForwarding")),
                ("maxsessions", number) => settings.max_sessions = number.parse().ok(),
                _ => {}
            }
        }
        settings
    }

    fn why(&self, socket: &str) -> String {
        if !self.socket {
            return format!("nothing listens on {socket}");
        }
        if self.forbids.is_empty() {
            return "its sshd closes forwarded connections: look for `restrict` or `no-port-forwarding` before the key in \
                    the login's authorized_keys"
                .to_owned();
        }
        format!(
            "its sshd forbids forwarding: {}; permit it in /etc/ssh/sshd_config (or sshd_config.d), then \
             `systemctl reload ssh`",
            self.forbids.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_forbids_forwarding_is_named_and_what_permits_it_is_not() {
        let why = |text: &str| Settings::read(text).why("/run/x");
        assert_eq!(why("allowstreamlocalforwarding yes\n"), "nothing listens on /run/x");
        let hardened = "socket there\nmaxsessions 2\nallowtcpforwarding no\nallowstreamlocalforwarding yes\n";
        assert!(why(hardened).contains("forbids forwarding: `AllowTcpForwarding no`;"), "{}", why(hardened));
        assert_eq!(Settings::read(hardened).max_sessions, Some(2));
        assert!(why("socket there\ndisableforwarding yes\n").contains("`DisableForwarding yes`"));
        assert!(why("socket there\ndisableforwarding no\n").contains("authorized_keys"));
    }

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
