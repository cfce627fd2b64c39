//! How a call to libvirt can fail; whether it ran is part of the type.

use crate::error::{Failure, Kind};
use std::time::Duration;

/// `VIR_ERR_OPERATION_FAILED`, also given when a domain of that id or name already runs.
const OPERATION_FAILED: u32 = 9;
/// `VIR_ERR_DOM_EXIST`.
const DOM_EXIST: u32 = 20;
/// `VIR_ERR_NO_DOMAIN`.
const NO_DOMAIN: u32 = 42;
/// `VIR_ERR_OPERATION_INVALID`.
const OPERATION_INVALID: u32 = 55;
/// `VIR_ERR_OPERATION_ABORTED`.
const OPERATION_ABORTED: u32 = 78;

/// A call to a host's libvirt that did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum VirtError {
    /// No connection: nothing was done.
    #[error("host {host}: cannot reach libvirt: {reason}")]
    Unreachable {
        /// The host.
        host: String,
        /// What was in the way.
        reason: String,
    },
    /// The host has seen a newer claim on the guest: it was not carried out, and never will be.
    #[error("host {host}: did not {call}: another run has taken the guest over (generation {floor})")]
    Stale {
        /// The host.
        host: String,
        /// What was asked.
        call: &'static str,
        /// The generation it has seen.
        floor: u64,
    },
    /// The claim it stands on was too old before it could be sent: nothing was done.
    #[error("host {host}: did not {call}: the guest's claim is too old to act on")]
    Late {
        /// The host.
        host: String,
        /// What was to be asked.
        call: &'static str,
    },
    /// libvirt has not taken on an earlier request for the same guest yet: nothing was done.
    #[error("host {host}: did not {call}: libvirt has not answered an earlier request for this guest")]
    Held {
        /// The host.
        host: String,
        /// What was asked.
        call: &'static str,
    },
    /// The host has no such domain.
    #[error("host {host}: cannot {call}: no such guest here")]
    NoDomain {
        /// The host.
        host: String,
        /// What was asked.
        call: &'static str,
    },
    /// The host already has a domain of that id or name.
    #[error("host {host}: cannot {call}: {message}")]
    Exists {
        /// The host.
        host: String,
        /// What was asked.
        call: &'static str,
        /// libvirt's words.
        message: String,
    },
    /// libvirt said no, or tried and failed.
    #[error("host {host}: cannot {call}: {message}")]
    Failed {
        /// The host.
        host: String,
        /// What was asked.
        call: &'static str,
        /// libvirt's error number.
        code: u32,
        /// libvirt's words.
        message: String,
    },
    /// No answer within the deadline: it may have happened or not, or happen yet.
    #[error("host {host}: cannot tell whether `{call}` succeeded: no answer from libvirt within {} s", .after.as_secs())]
    TimedOut {
        /// The host.
        host: String,
        /// What was asked.
        call: &'static str,
        /// The deadline.
        after: Duration,
    },
    /// The connection broke during the call: it may have happened or not.
    #[error("host {host}: cannot tell whether `{call}` succeeded: connection to libvirt lost: {message}")]
    Lost {
        /// The host.
        host: String,
        /// What was asked.
        call: &'static str,
        /// libvirt's words.
        message: String,
    },
}

/// Letters of libvirt's words that are shown.
const WORDS: usize = 300;

/// libvirt's words without what QEMU logged before it ended: its whole command line, then the line that matters.
fn cut(message: &str) -> String {
    let mut lines = message.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default();
    let last = lines.next_back().map(|line| {
        // `2026-11-27T23:59:59.123456Z qemu-system-x86_64: what went wrong`
        line.split_once(": ").filter(|(head, _)| head.contains("qemu")).map_or(line, |(_, what)| what)
    });
    let head = match last {
        // A first line that holds the command line has its own words before it.
        Some(_) => first.split(": 20").next().unwrap_or(first),
        None => first,
    };
    match last {
        Some(last) => format!("{}: {}", short(head.trim_end_matches(':'), WORDS / 2), short(last, WORDS)),
        None => short(head, WORDS),
    }
}

fn short(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", text[..end].trim_end()),
        None => text.to_owned(),
    }
}

impl VirtError {
    /// From what libvirt reports; `alive` is whether the connection still is.
    pub(super) fn from_virt(host: &str, call: &'static str, error: &virt::error::Error, alive: bool) -> Self {
        let (host, message) = (host.to_owned(), cut(error.message()));
        let code = error.code().to_raw();
        if !alive {
            return VirtError::Lost { host, call, message };
        }
        let exists =
            code == DOM_EXIST || (message.contains("already") && matches!(code, OPERATION_FAILED | OPERATION_INVALID));
        match code {
            NO_DOMAIN => VirtError::NoDomain { host, call },
            _ if exists => VirtError::Exists { host, call, message },
            _ => VirtError::Failed { host, call, code, message },
        }
    }

    /// Whether the call may have had its effect or not.
    pub fn unknown(&self) -> bool {
        match self {
            Self::TimedOut { .. } | Self::Lost { .. } => true,
            Self::Unreachable { .. }
            | Self::Stale { .. }
            | Self::Late { .. }
            | Self::Held { .. }
            | Self::NoDomain { .. }
            | Self::Exists { .. }
            | Self::Failed { .. } => false,
        }
    }

    /// Whether it is certain that nothing was done.
    pub fn nothing_ran(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::NoDomain { .. }
                | Self::Stale { .. }
                | Self::Late { .. }
                | Self::Held { .. }
        )
    }

    /// Whether another run has taken the guest over, as the host knows.
    pub fn stale(&self) -> bool {
        matches!(self, Self::Stale { .. })
    }

    /// Whether the host has no such domain.
    pub fn no_domain(&self) -> bool {
        matches!(self, Self::NoDomain { .. })
    }

    /// Whether a job was aborted on request.
    pub fn aborted(&self) -> bool {
        matches!(self, Self::Failed { code: OPERATION_ABORTED, .. })
    }

    /// The host it happened on.
    pub fn host(&self) -> &str {
        match self {
            Self::Unreachable { host, .. }
            | Self::Stale { host, .. }
            | Self::Late { host, .. }
            | Self::Held { host, .. }
            | Self::NoDomain { host, .. }
            | Self::Exists { host, .. }
            | Self::Failed { host, .. }
            | Self::TimedOut { host, .. }
            | Self::Lost { host, .. } => host,
        }
    }
}

impl From<VirtError> for Failure {
    fn from(error: VirtError) -> Self {
        match &error {
            _ if error.unknown() => Failure::new(Kind::Unknown, error).hint("look at it before it is done once more"),
            VirtError::Stale { .. } | VirtError::Late { .. } | VirtError::Held { .. } => {
                Failure::new(Kind::Busy, error).hint("run the same command again: it looks before it acts")
            }
            _ => Failure::new(Kind::Failed, error),
        }
    }
}

/// From what virsh says on a request that failed.
pub(super) fn of_virsh(host: &str, call: &'static str, said: &str) -> VirtError {
    let mut lines = said.lines().filter_map(|line| line.trim().strip_prefix("error: "));
    let message = lines.next_back().unwrap_or(said.trim()).to_owned();
    let host = host.to_owned();
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    match () {
        () if has(&["failed to connect to the hypervisor"]) => VirtError::Unreachable { host, reason: message },
        () if has(&["Disconnected from", "end of file", "client socket is closed", "Cannot recv data"]) => {
            VirtError::Lost { host, call, message }
        }
        () if has(&["failed to get domain", "Domain not found", "no domain with matching"]) => {
            VirtError::NoDomain { host, call }
        }
        () if has(&["already exists", "already active", "already running", "already defined"]) => {
            VirtError::Exists { host, call, message }
        }
        () => VirtError::Failed { host, call, code: OPERATION_FAILED, message },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_error_chooses_its_kind() {
        let (host, message) = (|| "h1".to_owned(), || "x".to_owned());
        let table = [
            (VirtError::Unreachable { host: host(), reason: message() }, Kind::Failed),
            (VirtError::NoDomain { host: host(), call: "call" }, Kind::Failed),
            (VirtError::Exists { host: host(), call: "call", message: message() }, Kind::Failed),
            (VirtError::Failed { host: host(), call: "call", code: 1, message: message() }, Kind::Failed),
            (VirtError::Stale { host: host(), call: "call", floor: 3 }, Kind::Busy),
            (VirtError::Late { host: host(), call: "call" }, Kind::Busy),
            (VirtError::Held { host: host(), call: "call" }, Kind::Busy),
            (VirtError::TimedOut { host: host(), call: "call", after: Duration::from_secs(1) }, Kind::Unknown),
            (VirtError::Lost { host: host(), call: "call", message: message() }, Kind::Unknown),
        ];
        for (error, kind) in table {
            assert_eq!(Failure::from(error.clone()).kind, kind, "{error:?}");
        }
    }

    #[test]
    fn what_virsh_says_is_told_apart() {
        let read = |said: &str| of_virsh("h1", "start the guest", said);
        let taken = "error: Failed to create domain from /run/x\nerror: operation failed: domain 'web' already exists with uuid 1\n";
        assert!(
            matches!(read(taken), VirtError::Exists { message, .. } if message.starts_with("operation failed: domain 'web'"))
        );
        assert!(read("error: failed to get domain '6f2c'\n").no_domain());
        assert!(read("error: failed to connect to the hypervisor\nerror: Connection refused\n").nothing_ran());
        assert!(read("error: Disconnected from qemu:///system due to end of file\n").unknown());
        let full = read("error: Failed to create domain from /run/x\nerror: internal error: cannot allocate memory\n");
        assert!(!full.unknown() && !full.nothing_ran());
        assert_eq!(full.to_string(), "host h1: cannot start the guest: internal error: cannot allocate memory");
    }

    #[test]
    fn what_qemu_logged_is_cut_to_the_line_that_matters() {
        let command = "-device virtio-blk-pci,bus=pci.1 ".repeat(150);
        let message = format!(
            "internal error: process exited while connecting to monitor: 2026-11-27 23:59:58.100+0000: starting up libvirt \
             version: 9.0.0, qemu version: 7.2.9\nLC_ALL=C \\\nPATH=/usr/bin \\\n/usr/bin/qemu-system-x86_64 {command}\n\
             2026-11-27T23:59:59.123456Z qemu-system-x86_64: -blockdev file,filename=/root/a.iso: Could not open \
             '/root/a.iso': No such file or directory\n"
        );
        assert_eq!(
            cut(&message),
            "internal error: process exited while connecting to monitor: -blockdev file,filename=/root/a.iso: Could not \
             open '/root/a.iso': No such file or directory"
        );
        assert_eq!(cut("operation failed: no such thing"), "operation failed: no such thing");
    }

    proptest! {
        #[test]
        fn a_message_is_never_long_and_keeps_its_last_line(lines in prop::collection::vec("[a-z ]{0,400}", 0..8), last in "[a-z]{1,200}") {
            let text = cut(&format!("{}\n{last}", lines.join("\n")));
            prop_assert!(text.chars().count() <= WORDS + WORDS / 2 + 10);
            prop_assert!(text.ends_with(&last), "{text}");
        }
    }
}
