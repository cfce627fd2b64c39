//! What a host's sshd permits: forwarding, sessions.

use super::exec::{Exec, Remote, RemoteExt};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// A stream socket that every systemd host has, whose owner says nothing by itself (systemd-journald).
const QUIET_SOCKET: &str = "/run/systemd/journal/stdout";
/// How soon a forbidden connection is closed: a round trip and the work of a busy sshd.
const REFUSED_WITHIN: Duration = Duration::from_secs(1);

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
}
