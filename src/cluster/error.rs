//! How asking the cluster can fail; what the caller may do next is part of the type.

use crate::error::{Failure, Kind};
use std::time::Duration;

/// A request to the cluster that did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClusterError {
    /// No mon host could be asked.
    #[error("cannot ask Ceph: {0}")]
    Unreachable(String),
    /// A mon host answers, but Ceph is not set up on it.
    #[error("cannot ask Ceph: it is not set up on {host}: {reason}")]
    NotSetUp {
        /// The mon host.
        host: String,
        /// What is missing.
        reason: String,
    },
    /// The host has a cluster, and it is not the one that is meant.
    #[error("host {host} belongs to the Ceph cluster {found}, the inventory says {wanted}")]
    OtherCluster {
        /// The mon host.
        host: String,
        /// The cluster it belongs to.
        found: String,
        /// The one of the inventory.
        wanted: String,
    },
    /// The hosts answer, but the monitors have no majority: nothing was changed.
    #[error("Ceph has no quorum: {0}")]
    NoQuorum(String),
    /// The monitors lost their majority while a change was under way; it may have been made or not.
    #[error("Ceph lost its quorum during `{request}`, its outcome is unknown: {seen}")]
    QuorumLost {
        /// What was asked.
        request: String,
        /// What a mon says.
        seen: String,
    },
    /// It was not begun: nothing was changed.
    #[error("`{request}` was not begun: {reason}")]
    Unsent {
        /// What was to be asked.
        request: String,
        /// Why it was not.
        reason: String,
    },
    /// The host that was asked is fenced off from the storage.
    #[error("host {0} is on Ceph's blocklist: it is fenced and cannot be asked")]
    Blocklisted(String),
    /// No answer in time to a question: nothing was changed.
    #[error("Ceph did not answer `{request}` within {} s", .after.as_secs())]
    NoAnswer {
        /// What was asked.
        request: String,
        /// The deadline.
        after: Duration,
    },
    /// No answer in time to a change; it may have been made or not.
    #[error("Ceph did not answer `{request}` within {} s, its outcome is unknown", .after.as_secs())]
    TimedOut {
        /// What was asked.
        request: String,
        /// The deadline.
        after: Duration,
    },
    /// The channel broke after the request was sent; a change may have been made or not.
    #[error("connection to mon host {host} lost during `{request}`, its outcome is unknown")]
    Lost {
        /// The mon host.
        host: String,
        /// What was asked.
        request: String,
    },
    /// The cluster is full: nothing that takes space was written.
    #[error("Ceph is full and refused `{request}`")]
    Full {
        /// What was asked.
        request: String,
    },
    /// It exists already.
    #[error("{0}")]
    Exists(String),
    /// It does not exist.
    #[error("{0}")]
    NotFound(String),
    /// Another run changed it first: read it again.
    #[error("{0}")]
    Conflict(String),
    /// Another run holds or uses it; the text says which.
    #[error("{0}")]
    Busy(String),
    /// Ceph refused it.
    #[error("Ceph refused `{request}`: {message}")]
    Refused {
        /// What was asked.
        request: String,
        /// What Ceph said.
        message: String,
        /// Its error number.
        errno: i32,
    },
    /// An answer or a state object that cannot be understood.
    #[error("{0}")]
    Malformed(String),
}

impl ClusterError {
    /// Whether a change may have been made although this error came back.
    pub fn unknown(&self) -> bool {
        matches!(self, Self::TimedOut { .. } | Self::QuorumLost { .. } | Self::Lost { .. })
    }

    /// Whether it speaks against the mon host that was asked: another one may know better.
    pub(super) fn doubts_the_link(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_)
                | Self::NoQuorum(_)
                | Self::QuorumLost { .. }
                | Self::Unsent { .. }
                | Self::Blocklisted(_)
                | Self::NoAnswer { .. }
                | Self::TimedOut { .. }
                | Self::Lost { .. }
        )
    }

    /// The exit code that fits where nothing better is known.
    pub fn kind(&self) -> Kind {
        match self {
            Self::TimedOut { .. } | Self::QuorumLost { .. } | Self::Lost { .. } => Kind::Unknown,
            Self::Busy(_) => Kind::Busy,
            Self::Blocklisted(_) | Self::OtherCluster { .. } => Kind::Refused,
            Self::Unreachable(_)
            | Self::NotSetUp { .. }
            | Self::NoQuorum(_)
            | Self::Unsent { .. }
            | Self::NoAnswer { .. }
            | Self::Full { .. }
            | Self::Exists(_)
            | Self::NotFound(_)
            | Self::Conflict(_)
            | Self::Refused { .. }
            | Self::Malformed(_) => Kind::Failed,
        }
    }
}

impl From<ClusterError> for Failure {
    fn from(error: ClusterError) -> Self {
        let hint = match &error {
            ClusterError::NoQuorum(_) | ClusterError::QuorumLost { .. } => {
                Some("bring mon hosts back until a majority is up; then run the same command again")
            }
            ClusterError::OtherCluster { .. } => {
                Some("take the inventory of these hosts; if this is it, `cluster.fsid` in it was changed: put it back")
            }
            ClusterError::NotSetUp { .. } => Some("set the rack up with `rackhand provision`"),
            ClusterError::TimedOut { .. } | ClusterError::Lost { .. } => {
                Some("run the same command again: it looks before it acts")
            }
            ClusterError::NoAnswer { .. } | ClusterError::Unsent { .. } => {
                Some("see what Ceph waits for with `rackhand status`; then run the same command again")
            }
            ClusterError::Full { .. } => {
                Some("delete guests or images that are not needed, or add disks; `rackhand status` shows the space")
            }
            _ => None,
        };
        let failure = Failure::new(error.kind(), error);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_chooses_its_kind() {
        let text = || "x".to_owned();
        let table = [
            (ClusterError::Unreachable(text()), Kind::Failed),
            (ClusterError::NotSetUp { host: text(), reason: text() }, Kind::Failed),
            (ClusterError::OtherCluster { host: text(), found: text(), wanted: text() }, Kind::Refused),
            (ClusterError::NoQuorum(text()), Kind::Failed),
            (ClusterError::QuorumLost { request: text(), seen: text() }, Kind::Unknown),
            (ClusterError::Unsent { request: text(), reason: text() }, Kind::Failed),
            (ClusterError::NoAnswer { request: text(), after: Duration::from_secs(1) }, Kind::Failed),
            (ClusterError::Full { request: text() }, Kind::Failed),
            (ClusterError::Blocklisted(text()), Kind::Refused),
            (ClusterError::TimedOut { request: text(), after: Duration::from_secs(1) }, Kind::Unknown),
            (ClusterError::Lost { host: text(), request: text() }, Kind::Unknown),
            (ClusterError::Exists(text()), Kind::Failed),
            (ClusterError::NotFound(text()), Kind::Failed),
            (ClusterError::Conflict(text()), Kind::Failed),
            (ClusterError::Busy(text()), Kind::Busy),
            (ClusterError::Refused { request: text(), message: text(), errno: 22 }, Kind::Failed),
            (ClusterError::Malformed(text()), Kind::Failed),
        ];
        for (error, kind) in table {
            assert_eq!(error.unknown(), kind == Kind::Unknown, "{error:?}");
            assert_eq!(Failure::from(error.clone()).kind, kind, "{error:?}");
        }
    }
}
