//! The machine's own tools as child processes: a deadline each, and errors that name the package to install.
#![allow(clippy::disallowed_methods, reason = "the one place where the lab runs a tool")]

use super::cgroup::{Cgroup, JOIN};
use crate::error::{Failure, Kind};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Long enough for any tool that only asks the kernel for something.
const QUICK: Duration = Duration::from_secs(20);

/// Tools of the lab and the Debian packages they come from.
const PACKAGES: &[(&str, &str)] = &[
    ("apt-cache", "apt"),
    ("apt-config", "apt"),
    ("apt-get", "apt"),
    ("chroot", "coreutils"),
    ("cp", "coreutils"),
    ("depmod", "kmod"),
    ("dpkg-deb", "dpkg"),
    ("gcc", "gcc libc6-dev"),
    ("ip", "iproute2"),
    ("ipmi_sim", "openipmi"),
    ("losetup", "mount"),
    ("mcopy", "mtools"),
    ("mformat", "mtools"),
    ("mke2fs", "e2fsprogs"),
    ("mmdebstrap", "mmdebstrap"),
    ("mount", "mount"),
    ("nsenter", "util-linux"),
    ("qemu-img", "qemu-utils"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("setsid", "util-linux"),
    ("ssh", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("syslinux", "syslinux"),
    ("systemd-nspawn", "systemd-container"),
    ("umount", "mount"),
    ("unshare", "util-linux"),
    ("xz", "xz-utils"),
];

/// One call of a tool.
#[derive(Debug)]
pub(super) struct Tool {
    program: &'static str,
    args: Vec<OsString>,
    stdin: Vec<u8>,
    deadline: Duration,
    group: Option<PathBuf>,
}

impl Tool {
    /// A call of `program`, found on the PATH.
    pub(super) fn new(program: &'static str) -> Self {
        Tool { program, args: Vec::new(), stdin: Vec::new(), deadline: QUICK, group: None }
    }

    /// Adds an argument.
    pub(super) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub(super) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Gives it these bytes on stdin.
    pub(super) fn stdin(mut self, stdin: impl Into<Vec<u8>>) -> Self {
        self.stdin = stdin.into();
        self
    }

    /// Lets it run at most this long.
    pub(super) fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs it in a control group, so that it is found and killed with the lab when this process dies before it.
    pub(super) fn within(mut self, group: &Cgroup) -> Self {
        self.group = Some(group.procs());
        self
    }

    fn command(&self) -> Command {
        let Some(procs) = &self.group else { return Command::new(self.program) };
        let mut command = Command::new("sh");
        command.args(["-c", JOIN]).arg(procs).arg(self.program);
        command
    }

    /// Runs it; stdout when it exits with 0, else an error with the end of its stderr.
    pub(super) async fn run(self) -> Result<String, Failure> {
        let mut command = self.command();
        command.args(&self.args).env("LC_ALL", "C.UTF-8");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // A Ctrl-C at the terminal is for this process alone, which ends its tools itself.
        command.process_group(0);
        let mut child = command.spawn().map_err(|e| spawn_failure(self.program, e))?;
        let stdin = child.stdin.take();
        let (program, deadline) = (self.program, self.deadline);
        let feed = async {
            if let Some(mut pipe) = stdin {
                // A tool that ends without reading its input says why on stderr.
                let _ = pipe.write_all(&self.stdin).await;
            }
        };
        let both = async { tokio::join!(feed, child.wait_with_output()).1 };
        let output = tokio::time::timeout(deadline, both).await.map_err(|_| {
            Failure::failed(format!("`{program}` did not end within {} s and was killed", deadline.as_secs()))
        })??;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let argv: Vec<_> = self.args.iter().map(|a| a.to_string_lossy()).collect();
        let said = tail(&String::from_utf8_lossy(&output.stderr));
        Err(Failure::failed(format!("`{program} {}` failed ({}): {said}", argv.join(" "), output.status)))
    }
}

/// The failure of a tool that could not be started.
pub(super) fn spawn_failure(program: &str, error: std::io::Error) -> Failure {
    if error.kind() == std::io::ErrorKind::NotFound {
        missing(&[program])
    } else {
        Failure::from(error).context(format!("cannot start `{program}`"))
    }
}

/// Checks that all of these tools are there.
pub(super) fn require(programs: &[&str]) -> Result<(), Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let absent: Vec<&str> = programs.iter().copied().filter(|p| !is_on(&path, p)).collect();
    if absent.is_empty() { Ok(()) } else { Err(missing(&absent)) }
}

fn is_on(path: &OsStr, program: &str) -> bool {
    std::env::split_paths(path).any(|dir| Path::new(&dir).join(program).is_file())
}

fn missing(programs: &[&str]) -> Failure {
    let mut packages: Vec<&str> =
        PACKAGES.iter().filter(|(tool, _)| programs.contains(tool)).map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    let failure = Failure::msg(Kind::Usage, format!("this machine lacks {}", programs.join(", ")));
    if packages.is_empty() { failure } else { failure.hint(format!("apt-get install {}", packages.join(" "))) }
}

/// The last lines of what a tool said.
pub(super) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_names_its_package() {
        let failure = missing(&["ip", "losetup", "mount"]);
        assert_eq!(failure.to_string(), "this machine lacks ip, losetup, mount");
        assert_eq!(failure.hints, ["apt-get install iproute2 mount"]);
        assert_eq!(failure.kind, Kind::Usage);
    }

    #[test]
    fn every_tool_that_is_asked_for_has_a_package() {
        let lists = [super::super::preflight::TOOLS, super::super::vm_image::TOOLS];
        for tool in lists.into_iter().flatten().chain(super::super::guest_image::tools().iter()) {
            assert!(PACKAGES.iter().any(|(known, _)| known == tool), "{tool}");
        }
    }

    #[tokio::test]
    async fn a_tool_gets_its_input_and_its_error_is_shown() {
        assert_eq!(Tool::new("cat").stdin("hello").run().await.unwrap(), "hello");
        let failure = Tool::new("sh").args(["-c", "echo broken >&2; exit 3"]).run().await.unwrap_err();
        assert!(failure.to_string().ends_with("broken"), "{failure}");
    }

    #[tokio::test]
    async fn a_tool_that_hangs_is_killed() {
        let hung = Tool::new("sleep").arg("60").deadline(Duration::from_millis(50));
        assert!(hung.run().await.unwrap_err().to_string().contains("did not end"));
    }
}
