//! The look at a host: one script, one round trip, the sections that are asked for.

use super::clock::since_epoch;
use super::facts::Facts;
use super::parse;
use crate::ssh::{Exec, Remote, RemoteError, RemoteExt};
use std::time::Duration;

/// The script that looks; its sections are read by [`super::parse`].
const SCRIPT: &str = include_str!("host.sh");
/// Longer than any healthy host takes, disks that spin up included.
const DEADLINE: Duration = Duration::from_secs(30);

/// A section of the script: what is looked at together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Its clock and what sets it.
    Time,
    /// Files of the kernel and of the system: machine, processors, memory, system.
    Files,
    /// What there is no file for.
    Hardware,
    /// Interfaces and addresses.
    Net,
    /// Names of disks and of InfiniBand's interfaces.
    Links,
    /// Block devices.
    Block,
    /// What is on them.
    Content,
    /// Traces of Ceph.
    Ceph,
    /// Installed versions.
    Software,
    /// Space in file systems.
    Space,
    /// What runs its system.
    Platform,
    /// Units of Ceph, libvirt and rackhand.
    Units,
}

impl Section {
    /// Everything that describes a host and does not change by itself.
    pub const FACTS: [Section; 10] = [
        Section::Time,
        Section::Files,
        Section::Hardware,
        Section::Net,
        Section::Links,
        Section::Block,
        Section::Content,
        Section::Ceph,
        Section::Software,
        Section::Space,
    ];

    /// Its name in the script.
    fn word(self) -> &'static str {
        match self {
            Section::Time => "time",
            Section::Files => "files",
            Section::Hardware => "hardware",
            Section::Net => "net",
            Section::Links => "links",
            Section::Block => "block",
            Section::Content => "content",
            Section::Ceph => "ceph",
            Section::Software => "software",
            Section::Space => "space",
            Section::Platform => "platform",
            Section::Units => "units",
        }
    }
}

/// Asks a host what it is: one script, one round trip.
///
/// # Errors
/// When the host cannot be reached or the script does not come to its end.
pub async fn gather(remote: &dyn Remote) -> Result<Facts, RemoteError> {
    look(remote, &Section::FACTS, DEADLINE).await
}

/// Looks at these sections alone; the rest of the answer is empty.
///
/// # Errors
/// When the host cannot be reached or the script does not come to its end.
pub async fn look(remote: &dyn Remote, sections: &[Section], deadline: Duration) -> Result<Facts, RemoteError> {
    // Connected before the clock is read, so that the round trip is that of the script alone.
    remote.connect().await?;
    let exec = Exec::script(SCRIPT, sections.iter().map(|section| section.word())).deadline(deadline);
    let began = since_epoch();
    let output = remote.check(exec).await?;
    let ended = since_epoch();
    let mut facts = parse::facts(&output.text()).map_err(|reason| RemoteError::Status {
        host: remote.name().to_owned(),
        command: "facts".to_owned(),
        status: output.status,
        stderr: reason,
    })?;
    facts.clock.difference = facts.clock.now - f64::midpoint(began, ended);
    facts.clock.precision = (ended - began) / 2.0;
    facts.exec_latency = remote.exec_latency().map(|latency| latency.as_secs_f64());
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    fn run(shell: &str, sections: &[Section]) -> String {
        let mut command = Command::new(shell);
        command.args(["-s", "--"]).args(sections.iter().map(|section| section.word()));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(SCRIPT.as_bytes()).unwrap();
        String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).into_owned()
    }

    /// Where `sh` is bash, a script on stdin that takes its stdin away ends there.
    #[test]
    fn the_script_comes_to_its_end_in_any_shell() {
        for shell in ["sh", "bash"] {
            let facts = parse::facts(&run(shell, &Section::FACTS)).unwrap();
            assert!(facts.cpu.threads > 0 && facts.memory.total > 0 && !facts.os.arch.is_empty(), "{shell}: {facts:?}");
            assert!(facts.platform.is_none(), "nobody asked for it");
        }
    }

    #[test]
    fn each_section_is_known_to_the_script_and_looked_at_alone() {
        let all = [&Section::FACTS[..], &[Section::Platform, Section::Units]].concat();
        for section in all {
            let text = run("sh", &[section]);
            let marks: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("@@ ")).collect();
            let labels = (section == Section::Content).then_some("labels");
            let expected: Vec<&str> = ["begin 3", section.word()].into_iter().chain(labels).chain(["end"]).collect();
            assert_eq!(marks, expected);
        }
    }
}
