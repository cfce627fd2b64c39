//! Recording the key a host presents, once, so that every later connection can insist on it.
#![allow(clippy::disallowed_methods, reason = "runs ssh and its tools on this machine")]

use super::arguments;
use super::control::{ControlDir, quoted};
use super::diagnose::{Target, diagnose};
use super::effective::Effective;
use super::error::RemoteError;
use super::jump::way_through;
use crate::inventory::{HostSpec, Inventory};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// What the login may take once the key is known; whether it succeeds is not the question here.
const LOGIN: Duration = Duration::from_secs(10);

/// The key a host presents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostKey {
    /// Lines for a known_hosts file; none when the key is recorded already.
    pub new_lines: Vec<String>,
    /// Its fingerprints, with their kind.
    pub fingerprints: Vec<String>,
    /// The file that holds the keys of this inventory's hosts.
    pub file: PathBuf,
}

impl HostKey {
    /// Asks a host for its key, with the inventory's login, port and jump host.
    ///
    /// # Errors
    /// [`RemoteError::HostKey`] when another key is recorded for the address; [`RemoteError::Unreachable`] when the
    /// host does not answer.
    pub async fn ask(inventory: &Inventory, host: &HostSpec, connect: Duration) -> Result<Self, RemoteError> {
        let address = host.address.to_string();
        let failed = |reason: String| RemoteError::Unreachable { host: host.name.clone(), reason };
        let dir = ControlDir::new(connect, &[]).map_err(|e| failed(format!("no directory for sockets: {e}")))?;
        let arguments = arguments::login(inventory, host);
        let effective = Effective::of(dir.config(), &arguments, &address).await;
        let effective = effective.ok_or_else(|| failed("`ssh -G` does not accept its configuration".to_owned()))?;
        let file = file_of(inventory, &effective);
        // ssh itself compares with what is recorded and adds what is new, in a copy.
        let (copy, log) = (dir.fresh('k'), dir.fresh('l'));
        let recorded = read(&file).map_err(|e| failed(format!("cannot read {}: {e}", file.display())))?;
        std::fs::write(&copy, &recorded).map_err(|e| failed(format!("cannot write a copy of the keys: {e}")))?;
        let mut command = Command::new("ssh");
        command.arg("-F").arg(dir.config()).arg("-E").arg(&log);
        for option in ["StrictHostKeyChecking=accept-new", "HashKnownHosts=no", "GlobalKnownHostsFile=/dev/null"] {
            command.args(["-o", option]);
        }
        command.arg("-o").arg(format!("UserKnownHostsFile={}", quoted(&copy)));
        command.args(&arguments);
        if let Some(jump) = &inventory.ssh.jump {
            command.arg("-o").arg(format!("ProxyCommand={}", way_through(jump, dir.config(), &log)));
        }
        command.args(["--", &address, "true"]).kill_on_drop(true).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|e| failed(format!("cannot run ssh: {e}")))?;
        // The key is known before the login is tried; a login that hangs is not the question here.
        let status = timeout(connect + LOGIN, child.wait()).await.ok().and_then(Result::ok).and_then(|s| s.code());
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        let now = read(&copy).unwrap_or_default();
        let new_lines = added(&recorded, &now);
        let target = Target { name: &host.name, address: &address, known_hosts: Some(&file) };
        let error = diagnose(target, &said.replace(&copy.display().to_string(), &file.display().to_string()));
        if matches!(error, RemoteError::HostKey { .. }) {
            return Err(error);
        }
        let fingerprints = fingerprints(&copy, &effective.key_name()).await;
        // ssh's own failures are 255; any other status is the far side's, and so is a refused login.
        let met = !new_lines.is_empty() || status.is_some_and(|code| code != 255);
        if fingerprints.is_empty() || !(met || matches!(error, RemoteError::Login { .. })) {
            return Err(error);
        }
        Ok(HostKey { new_lines, fingerprints, file })
    }

    /// Adds the key to the file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn record(&self) -> io::Result<()> {
        if let Some(parent) = self.file.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let old = read(&self.file)?;
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&self.file)?;
        let mut text = if old.is_empty() || old.ends_with('\n') { String::new() } else { "\n".to_owned() };
        for line in &self.new_lines {
            text.push_str(line);
            text.push('\n');
        }
        // One write: whoever reads at the same time sees all of it or nothing.
        file.write_all(text.as_bytes())?;
        file.sync_all()
    }
}

/// The file with the keys of an inventory's hosts: its own, else the one that the operator's ssh looks into first.
fn file_of(inventory: &Inventory, effective: &Effective) -> PathBuf {
    match (&inventory.ssh.known_hosts, effective.known_hosts()) {
        (Some(file), _) => inventory.path(file),
        (None, Some(file)) => file.to_owned(),
        (None, None) => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".ssh/known_hosts"),
    }
}

fn read(path: &Path) -> io::Result<String> {
    match std::fs::read_to_string(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other,
    }
}

fn added(before: &str, after: &str) -> Vec<String> {
    let known: Vec<&str> = before.lines().collect();
    after.lines().filter(|line| !line.trim().is_empty() && !known.contains(line)).map(str::to_owned).collect()
}

/// `ED25519 SHA256:...` for each key recorded for a host.
async fn fingerprints(file: &Path, subject: &str) -> Vec<String> {
    let mut command = Command::new("ssh-keygen");
    command.args(["-l", "-F", subject, "-f"]).arg(file).stdin(Stdio::null()).stderr(Stdio::null());
    let Ok(output) = command.output().await else { return Vec::new() };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // "# Host 10.0.0.1 found: line 1", then "10.0.0.1 ED25519 SHA256:..."
    let words = text.lines().filter(|l| !l.starts_with('#')).map(|l| l.split_whitespace().collect::<Vec<_>>());
    words
        .filter_map(|w| w.iter().position(|w| w.starts_with("SHA256:")).map(|at| format!("{} {}", w[at - 1], w[at])))
        .collect()
}
