//! An sshd of one's own on loopback, with keys in a temporary directory.

use rackhand::inventory::Inventory;
use rackhand::ssh::{Fleet, Remote};
use serde_json::json;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

pub struct Server {
    pub dir: tempfile::TempDir,
    pub port: u16,
    extra: String,
    shell: Option<tempfile::TempDir>,
    sshd: Option<Child>,
}

impl Server {
    pub fn start() -> Self {
        Server::with("")
    }

    /// One whose logins get this script as their login shell; `$1` is the command line.
    pub fn with_shell(script: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("sshshell").tempdir().unwrap();
        let path = dir.path().join("shell");
        fs::write(&path, format!("#!/bin/sh\nset -- \"$SSH_ORIGINAL_COMMAND\"\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let mut server = Server::with(&format!("ForceCommand {}\n", path.display()));
        server.shell = Some(dir);
        server
    }

    /// One with these lines more in its configuration.
    pub fn with(extra: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("sshtest").tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        keygen(&dir.path().join("host"));
        keygen(&dir.path().join("id"));
        fs::copy(dir.path().join("id.pub"), dir.path().join("authorized")).unwrap();
        // Needed by sshd where it does not run as a service.
        fs::create_dir_all("/run/sshd").ok();
        let mut server = Server { dir, port, extra: extra.to_owned(), shell: None, sshd: None };
        server.record_key();
        server.run();
        server
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes the server's present key into the known_hosts file.
    pub fn record_key(&self) {
        let key = fs::read_to_string(self.path("host.pub")).unwrap();
        fs::write(self.path("known_hosts"), format!("[127.0.0.1]:{} {key}", self.port)).unwrap();
    }

    pub fn run(&mut self) {
        let config = format!(
            "ListenAddress 127.0.0.1:{}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\n\
             PasswordAuthentication no\nUsePAM no\nMaxSessions 10\nPermitRootLogin yes\n{}",
            self.port,
            self.path("host").display(),
            self.path("authorized").display(),
            self.extra,
        );
        fs::write(self.path("sshd_config"), config).unwrap();
        let mut sshd = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(self.path("sshd_config"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(sshd.stderr.take().unwrap()).lines();
        let listening = lines.find(|line| line.as_ref().unwrap().contains("Server listening"));
        assert!(listening.is_some(), "sshd did not start");
        // Its later words need a reader, or it would block on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        self.sshd = Some(sshd);
    }

    pub fn listener_pid(&self) -> u32 {
        self.sshd.as_ref().unwrap().id()
    }

    /// Ends the server with all its connections, as a host that goes down does.
    pub fn stop(&mut self) {
        if let Some(mut sshd) = self.sshd.take() {
            for pid in children(sshd.id()) {
                kill(pid);
            }
            sshd.kill().unwrap();
            sshd.wait().unwrap();
        }
    }

    /// Ends its connections alone.
    pub fn drop_connections(&self) {
        for pid in children(self.listener_pid()) {
            kill(pid);
        }
    }

    pub fn inventory(&self) -> Inventory {
        inventory(self.port, &self.path("id"), &self.path("known_hosts"))
    }

    pub fn fleet(&self) -> Fleet {
        Fleet::over_ssh(&self.inventory(), Duration::from_secs(5)).unwrap()
    }

    pub fn host(&self) -> Arc<dyn Remote> {
        self.fleet().get("h1").unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An inventory of one host h1 at this port of 127.0.0.1.
pub fn inventory(port: u16, identity: &Path, known_hosts: &Path) -> Inventory {
    let me = std::env::var("USER").unwrap_or_else(|_| "root".to_owned());
    serde_json::from_value(json!({
        "cluster": { "name": "test", "fsid": "6c9a2a6e-5d6c-4d2b-9d59-0d6f7a1b2c3d" },
        "ssh": { "user": me, "port": port, "identity": identity, "known_hosts": known_hosts },
        "networks": { "management": { "cidr": "127.0.0.0/8" }, "storage": { "cidr": "127.0.0.0/8" } },
        "hosts": [{ "name": "h1", "address": "127.0.0.1", "storage_address": "127.0.0.1" }],
    }))
    .unwrap()
}

pub fn keygen(path: &Path) {
    for old in [path.to_path_buf(), path.with_extension("pub")] {
        fs::remove_file(old).ok();
    }
    let done = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).status().unwrap();
    assert!(done.success());
}

/// Processes below `pid`, deepest last.
pub fn children(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(child) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
        if parent == Some(pid) {
            found.push(child);
            found.extend(children(child));
        }
    }
    found
}

pub fn kill(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).ok();
}

/// Whether a process with this text in its command line runs.
pub fn runs(needle: &str) -> bool {
    let me = std::process::id().to_string();
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        entry.file_name().to_string_lossy() != me
            && fs::read(entry.path().join("cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).replace('\0', " ").contains(needle))
    })
}

/// Waits for a condition, a minute at most.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    crate::terminal::eventually(what, Duration::from_secs(60), || condition().then_some(()));
}

/// Whether the port takes connections.
pub fn listens(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}
