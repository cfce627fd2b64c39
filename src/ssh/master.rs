//! One ssh master process a host: it holds the connection, commands go through its socket.
#![allow(clippy::disallowed_methods, reason = "runs ssh and its tools on this machine")]

use super::control::ControlDir;
use super::jump::way_through;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use openssh::Session;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// How long a master outlives its last command, should this process be killed and unable to end it.
const IDLE: &str = "ControlPersist=60";
/// What the login may take once connection and key exchange are through; ssh's own ConnectTimeout covers those.
const LOGIN: Duration = Duration::from_secs(10);

/// A connected master; dropping it ends the process.
pub(super) struct Master {
    socket: PathBuf,
    pid: Option<u32>,
    session: Arc<Session>,
    _dir: Arc<ControlDir>,
}

impl std::fmt::Debug for Master {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Master({})", self.socket.display())
    }
}

impl Master {
    /// Connects; the error is what ssh and its jump hosts said.
    pub(super) async fn connect(
        dir: &Arc<ControlDir>,
        arguments: &[OsString],
        jump: Option<&str>,
        destination: &str,
        limit: Duration,
    ) -> Result<Self, String> {
        let socket = dir.fresh('m');
        let log = socket.with_extension("log");
        // Made before the process: dropped half-way, it ends what has been started.
        let session = Session::resume_mux(socket.clone().into(), None);
        let mut master =
            Master { socket: socket.clone(), pid: None, session: Arc::new(session), _dir: Arc::clone(dir) };
        let stderr = OpenOptions::new().create(true).append(true).open(&log);
        let stderr = stderr.map_err(|e| format!("cannot write {}: {e}", log.display()))?;
        let mut command = Command::new("ssh");
        command.arg("-F").arg(dir.config()).arg("-E").arg(&log).arg("-S").arg(&socket);
        command.args(["-M", "-f", "-N", "-o", IDLE]).args(arguments);
        if let Some(jump) = jump {
            command.arg("-o").arg(format!("ProxyCommand={}", way_through(jump, dir.config(), &log)));
        }
        command.arg("--").arg(destination);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).kill_on_drop(true);
        // Out of the terminal's reach: Ctrl-C is for this process to answer.
        command.process_group(0);
        let mut child = command.spawn().map_err(|e| format!("cannot run ssh: {e}"))?;
        // It forks into the background once it is logged in.
        match timeout(limit + LOGIN, child.wait()).await {
            Err(_) => Err(format!("no login within {} s", (limit + LOGIN).as_secs())),
            Ok(Err(error)) => Err(format!("cannot wait for ssh: {error}")),
            Ok(Ok(status)) if !status.success() => Err(std::fs::read_to_string(&log).unwrap_or_default()),
            Ok(Ok(_)) => {
                let mut link = openssh_mux_client::Connection::connect(&socket).await.map_err(|e| e.to_string())?;
                master.pid = link.send_alive_check().await.ok().map(|pid| pid.get());
                Ok(master)
            }
        }
    }

    /// Whether the process still listens. `false` proves that a command would not even be sent.
    pub(super) async fn listens(&self) -> bool {
        tokio::net::UnixStream::connect(&self.socket).await.is_ok()
    }

    /// The session for commands.
    pub(super) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// What ssh last said, for instance why the connection broke.
    pub(super) fn last_words(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.socket.with_extension("log")).ok()?;
        text.lines().map(str::trim).rfind(|l| !l.is_empty()).map(str::to_owned)
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        // Only one that listens right now is ended by its pid: the number could by now be another's.
        if std::os::unix::net::UnixStream::connect(&self.socket).is_ok() {
            let ended = self.pid.is_some_and(|pid| {
                i32::try_from(pid).is_ok_and(|pid| kill(Pid::from_raw(pid), Signal::SIGTERM).is_ok())
            });
            if !ended {
                let _ = openssh_mux_client::shutdown_mux_master(&self.socket);
            }
        }
        let _ = std::fs::remove_file(self.socket.with_extension("log"));
    }
}
