//! What ssh itself makes of a destination: the operator's configuration may give it another name, port or way.
#![allow(clippy::disallowed_methods, reason = "runs ssh and its tools on this machine")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// `ssh -G` connects to nothing; a `Match exec` of the operator's may take a moment.
const LIMIT: Duration = Duration::from_secs(10);

/// What `ssh -G` says of a destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Effective {
    hostname: String,
    port: u16,
    alias: Option<String>,
    jump: Option<String>,
    known_hosts: Option<PathBuf>,
}

impl Effective {
    /// Asks ssh; `None` where it does not answer.
    pub(super) async fn of(config: &Path, arguments: &[OsString], destination: &str) -> Option<Self> {
        let mut command = Command::new("ssh");
        command.arg("-G").arg("-F").arg(config).args(arguments).arg("--").arg(destination);
        command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let output = timeout(LIMIT, command.output()).await.ok()?.ok()?;
        output.status.success().then(|| Self::parse(&String::from_utf8_lossy(&output.stdout)))
    }

    fn parse(text: &str) -> Self {
        let mut found = Effective { port: 22, ..Effective::default() };
        for (key, value) in text.lines().filter_map(|line| line.split_once(' ')) {
            let set = || (value != "none").then(|| value.to_owned());
            match key {
                "hostname" => value.clone_into(&mut found.hostname),
                "port" => found.port = value.parse().unwrap_or(22),
                "hostkeyalias" => found.alias = set(),
                "proxyjump" => found.jump = set(),
                "userknownhostsfile" => found.known_hosts = value.split(' ').next().map(at_home),
                _ => {}
            }
        }
        found
    }

    /// The name a host key is looked up by: `[address]:port` where the port is not 22, or the alias alone.
    pub(super) fn key_name(&self) -> String {
        match (&self.alias, self.port) {
            (Some(alias), _) => alias.clone(),
            (None, 22) => self.hostname.clone(),
            (None, port) => format!("[{}]:{port}", self.hostname),
        }
    }

    /// The first file that host keys are looked up in.
    pub(super) fn known_hosts(&self) -> Option<&Path> {
        self.known_hosts.as_deref()
    }

    /// The jump hosts that the operator's own configuration leads through, as `ssh -J` takes them.
    pub(super) fn jump(self) -> Option<String> {
        self.jump
    }
}

/// A path as ssh prints it, which leaves a `~` as it was written.
fn at_home(path: &str) -> PathBuf {
    match path.strip_prefix("~/") {
        Some(rest) => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(rest),
        None => PathBuf::from(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What real users write into ~/.ssh/config, read by the real ssh.
    #[tokio::test]
    async fn the_operators_own_configuration_decides_where_a_key_is_looked_up() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "Host 10.9.0.11\n  HostKeyAlias h1.rack.example\nHost 10.9.0.12\n  Port 2222\n\
                    Host h3\n  HostName 10.9.0.13\n  UserKnownHostsFile ~/.ssh/rack /dev/null\n";
        std::fs::write(file.path(), text).unwrap();
        for (destination, name) in
            [("10.9.0.11", "h1.rack.example"), ("10.9.0.12", "[10.9.0.12]:2222"), ("h3", "10.9.0.13")]
        {
            let found = Effective::of(file.path(), &[], destination).await.unwrap();
            assert_eq!(found.key_name(), name);
            assert_eq!(found.known_hosts().is_some_and(|file| file.ends_with(".ssh/rack")), destination == "h3");
        }
        let port = ["-p".into(), "2200".into()];
        let found = Effective::of(file.path(), &port, "10.9.0.12").await.unwrap();
        assert_eq!(found.key_name(), "[10.9.0.12]:2200", "the inventory's port comes first");
    }

    #[test]
    fn a_key_is_looked_up_by_alias_or_by_name_and_port() {
        let name = |text: &str| Effective::parse(text).key_name();
        assert_eq!(name("user root\nhostname 10.0.0.1\nport 22\n"), "10.0.0.1");
        assert_eq!(name("hostname h1.example\nport 2222\nproxyjump none\n"), "[h1.example]:2222");
        assert_eq!(name("hostname 10.0.0.1\nport 2222\nhostkeyalias h1.rack\n"), "h1.rack");
        let jump = Effective::parse("hostname 10.0.0.1\nproxyjump op@gate\n").jump();
        assert_eq!(jump.as_deref(), Some("op@gate"));
    }
}
