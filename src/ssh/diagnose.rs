//! What ssh says when it cannot connect, turned into the error that names what to do.

use super::error::RemoteError;
use super::exec::Exec;
use std::path::Path;

/// Whom the words are about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    /// Name in the inventory.
    pub(super) name: &'a str,
    /// Address connected to.
    pub(super) address: &'a str,
    /// The cluster's own known_hosts file.
    pub(super) known_hosts: Option<&'a Path>,
}

/// Turns what ssh said into an error; no command was sent.
pub(super) fn diagnose(target: Target<'_>, said: &str) -> RemoteError {
    let host = target.name.to_owned();
    if said.contains("REMOTE HOST IDENTIFICATION HAS CHANGED") {
        RemoteError::HostKey { host, reason: changed_key(target, said) }
    } else if said.contains("REVOKED HOST KEY") {
        RemoteError::HostKey { host, reason: "its key is marked as revoked".to_owned() }
    } else if said.contains("Host key verification failed") || said.contains("host key is known for") {
        RemoteError::HostKey { host, reason: unknown_key(target, said) }
    } else if ["Permission denied", "Too many authentication failures", "no more authentication methods"]
        .iter()
        .any(|words| said.contains(words))
    {
        RemoteError::Login { host, reason: words_of(said) }
    } else {
        RemoteError::Unreachable { host, reason: words_of(said) }
    }
}

/// Why a command did not start: no mark came, so nothing was run. `said` is what the login wrote on stdout and stderr
/// instead, `status` how it ended.
pub(super) fn not_started(host: &str, exec: &Exec, sudo: bool, status: i32, said: (&[u8], &[u8])) -> RemoteError {
    let (host, stderr) = (host.to_owned(), String::from_utf8_lossy(said.1));
    if exec.root
        && sudo
        && let Some(reason) = sudo_refusal(&stderr)
    {
        return RemoteError::Sudo { host, reason };
    }
    let words = [stderr, String::from_utf8_lossy(said.0)].into_iter().find(|text| !text.trim().is_empty());
    let reason = match words {
        Some(words) => {
            let lines: Vec<&str> = words.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            lines[lines.len().saturating_sub(3)..].join("; ")
        }
        None => format!("it ended with status {status} and said nothing"),
    };
    RemoteError::LoginShell { host, command: exec.argv.first().cloned().unwrap_or_default(), reason }
}

/// Why sudo refused, among what was said before anything ran. It also complains when it goes on.
fn sudo_refusal(stderr: &str) -> Option<String> {
    let refuses = |line: &&str| {
        (line.starts_with("sudo: ") && !line.contains("unable to resolve host"))
            || line.contains("is not in the sudoers")
            || line.contains("not allowed to execute")
            || line.ends_with("sudo: command not found")
            || line.ends_with("sudo: not found")
    };
    stderr.lines().map(str::trim).rfind(refuses).map(str::to_owned)
}

/// Whether trying again in a moment may help: the server refused to talk before any login.
pub(super) fn is_crowded(said: &str) -> bool {
    let has = |words: &[&str]| words.iter().any(|words| said.contains(words));
    has(&["kex_exchange_identification", "ssh_exchange_identification", "Exceeded MaxStartups"])
        // A jump host that refuses looks the same from beyond it, but says more.
        && !has(&["timed out", "Permission denied", "verification failed", "Connection refused", "open failed"])
}

/// Whether the connection ended inside a proxy command: ssh then knows no port to name.
pub(super) fn is_beyond_a_proxy(said: &str) -> bool {
    said.contains("UNKNOWN port")
}

fn changed_key(target: Target<'_>, said: &str) -> String {
    let offending = said.lines().find(|l| l.trim_start().starts_with("Offending "));
    let place =
        offending.and_then(|l| l.split_once(" key in ")).map_or("the known_hosts file", |(_, place)| place.trim());
    let file = place.rsplit_once(':').map_or(place, |(file, _)| file);
    let print =
        said.split_whitespace().find(|w| w.starts_with("SHA256:")).unwrap_or("another one").trim_end_matches('.');
    let who = subject(said).unwrap_or_else(|| target.address.to_owned());
    format!(
        "its key has changed: it presents {print}, but {place} records another; somebody may be in between. If it was \
         reinstalled, compare the fingerprint at its console, then run `ssh-keygen -R '{who}' -f '{file}'` and \
         `rackhand host add {} {}`",
        target.name, target.address
    )
}

fn unknown_key(target: Target<'_>, said: &str) -> String {
    let who = subject(said).map_or_else(String::new, |who| format!(" of {who}"));
    let file = target.known_hosts.map_or_else(|| "~/.ssh/known_hosts".to_owned(), |f| f.display().to_string());
    format!(
        "no key{who} is recorded in {file}; record it with `rackhand host add {} {}` and compare the fingerprint",
        target.name, target.address
    )
}

/// The name ssh looked up, `[address]:port` where the port is not 22.
fn subject(said: &str) -> Option<String> {
    said.lines().find_map(|line| {
        let (_, rest) = line.split_once("key is known for ").or_else(|| line.split_once("Host key for "))?;
        rest.split_whitespace().next().map(str::to_owned)
    })
}

/// The lines that say something, last three, in one.
fn words_of(said: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in said.lines().map(str::trim) {
        let line = line.strip_prefix("ssh: ").unwrap_or(line);
        let noise = line.is_empty() || line.starts_with("Warning: Permanently added") || line.starts_with("@@@");
        if !noise && !lines.contains(&line) {
            lines.push(line);
        }
    }
    if lines.is_empty() {
        return "ssh ended without saying why".to_owned();
    }
    lines[lines.len().saturating_sub(3)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGED: &str = "\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
The fingerprint for the ED25519 key sent by the remote host is
SHA256:Wn3Qj1bPUt7Gx9m3x0t0tT4s1x8i1ZpXy9Hk0pLrVbE.
Please contact your system administrator.
Add correct host key in /etc/rack/known_hosts to get rid of this message.
Offending ED25519 key in /etc/rack/known_hosts:3
Host key for [10.0.0.1]:2222 has changed and you have requested strict checking.
Host key verification failed.
";

    fn at(said: &str) -> RemoteError {
        diagnose(
            Target { name: "h1", address: "10.0.0.1", known_hosts: Some(Path::new("/etc/rack/known_hosts")) },
            said,
        )
    }

    #[test]
    fn a_changed_key_names_file_line_fingerprint_and_cure() {
        let RemoteError::HostKey { reason, .. } = at(CHANGED) else { panic!("not a host key error") };
        for words in [
            "/etc/rack/known_hosts:3",
            "SHA256:Wn3Qj1bPUt7Gx9m3x0t0tT4s1x8i1ZpXy9Hk0pLrVbE,",
            "ssh-keygen -R '[10.0.0.1]:2222' -f '/etc/rack/known_hosts'",
            "rackhand host add h1 10.0.0.1",
        ] {
            assert!(reason.contains(words), "{words} is missing in {reason}");
        }
    }

    #[test]
    fn each_way_to_fail_is_told_apart() {
        let unknown = "No ED25519 host key is known for 10.0.0.1 and you have requested strict checking.\n\
                       Host key verification failed.";
        assert!(
            matches!(at(unknown), RemoteError::HostKey { reason, .. } if reason.starts_with("no key of 10.0.0.1 is"))
        );
        let denied = "root@10.0.0.1: Permission denied (publickey).";
        assert!(matches!(at(denied), RemoteError::Login { reason, .. } if reason == denied));
        let refused = "ssh: connect to host 10.0.0.1 port 22: Connection refused\n";
        let said = at(refused).to_string();
        assert_eq!(said, "host h1: cannot connect: connect to host 10.0.0.1 port 22: Connection refused");
        let silent = "Connection timed out during banner exchange\nConnection to 10.0.0.1 port 22 timed out";
        assert!(matches!(at(silent), RemoteError::Unreachable { .. }));
        assert!(matches!(at(""), RemoteError::Unreachable { reason, .. } if reason == "ssh ended without saying why"));
    }

    #[test]
    fn what_refused_a_command_is_told_apart() {
        let by = |sudo, stdout: &str, stderr: &str| {
            not_started("h1", &Exec::argv(["id"]), sudo, 1, (stdout.as_bytes(), stderr.as_bytes()))
        };
        let resolve = "sudo: unable to resolve host h1: Name or service not known\n";
        for refusal in [
            "sudo: a password is required",
            "bash: line 1: sudo: command not found",
            "sh: 1: sudo: not found",
            "bob is not in the sudoers file.",
        ] {
            let error = by(true, "Welcome\n", &format!("{resolve}{refusal}\n"));
            assert!(matches!(&error, RemoteError::Sudo { reason, .. } if reason == refusal), "{error}");
            assert!(matches!(by(false, "", refusal), RemoteError::LoginShell { .. }));
        }
        let error = by(true, "", "sh: 1: timeout: not found\n");
        assert_eq!(error.to_string(), "host h1: its login shell did not run `id`: sh: 1: timeout: not found");
        let error = by(true, "This account is currently not available.\n", "");
        assert!(error.nothing_ran() && error.to_string().ends_with("This account is currently not available."));
        assert!(by(false, "", "").to_string().ends_with("it ended with status 1 and said nothing"));
    }

    #[test]
    fn only_a_crowded_server_is_tried_again() {
        assert!(is_crowded("kex_exchange_identification: Connection closed by remote host"));
        assert!(!is_crowded("kex_exchange_identification: read: Connection timed out"));
        assert!(!is_crowded("connect to host 10.0.0.1 port 22: Connection refused"));
        let refused =
            "op@gate: Permission denied (publickey).\nkex_exchange_identification: Connection closed by remote host";
        assert!(!is_crowded(refused));
        let beyond = "kex_exchange_identification: Connection closed by remote host\n\
                      Connection closed by UNKNOWN port 65535";
        assert!(is_beyond_a_proxy(beyond) && !is_beyond_a_proxy("Connection closed by 10.0.0.1 port 22"));
    }
}
