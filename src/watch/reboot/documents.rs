//! What reboots keep in the cluster, so that a command that died is gone on with by the next one.

use crate::cluster::{ClusterError, ClusterPort, Document, fetch, update};
use crate::guest::HostState;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What the names of hosts' reboots begin with.
const PREFIX: &str = "reboot.";
/// The object of a rolling reboot. No host has this name: a host's is behind another prefix.
const ROLLING: &str = "rolling-reboot";

/// How far the reboot of a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RebootPhase {
    /// Its guests leave.
    Draining,
    /// It is told to reboot; whether it was is seen by its boot id.
    Rebooting,
    /// It has booted anew; its services come back.
    Recovering,
    /// It gets its guests back.
    Returning,
}

/// The reboot of a host that is not over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RebootRecord {
    /// The host.
    pub(super) host: String,
    /// Who began it.
    pub(super) by: String,
    /// When.
    pub(super) since: Timestamp,
    /// How far it is.
    pub(super) phase: RebootPhase,
    /// The boot that is to end.
    pub(super) boot: Option<String>,
    /// Whether the host was in maintenance before; it stays in it then.
    pub(super) kept: bool,
    /// Since when the maintenance lasts under which this is done. Ended by hand, or another one by now, the record is stale.
    pub(super) maintenance: Timestamp,
    /// Guests that were moved away for it.
    #[serde(default)]
    pub(super) moved: usize,
}

impl Document for RebootRecord {
    const SCHEMA: &'static str = "rackhand.reboot-record/1";
}

impl RebootRecord {
    /// The reboot of a host that was begun and is not over.
    pub(super) async fn read(port: &dyn ClusterPort, host: &str) -> Result<Option<Self>, ClusterError> {
        Ok(fetch::<Self>(port, &format!("{PREFIX}{host}")).await?.map(|(record, _)| record))
    }

    /// Writes down how far it is.
    pub(super) async fn write(&self, port: &dyn ClusterPort) -> Result<(), ClusterError> {
        update::<Self, (), ClusterError>(port, &format!("{PREFIX}{}", self.host), |_| Ok((Some(self.clone()), ())))
            .await
    }

    /// Whether it is still under way, as the host's state says. While guests come back there is no maintenance any more.
    pub(super) fn stands(&self, state: Option<&HostState>) -> bool {
        match state.and_then(|state| state.maintenance.as_ref()) {
            Some(maintenance) => maintenance.since == self.maintenance,
            None => self.phase == RebootPhase::Returning && state.is_some_and(|state| !state.left.is_empty()),
        }
    }

    /// It is over, or was not begun.
    pub(super) async fn forget(port: &dyn ClusterPort, host: &str) -> Result<(), ClusterError> {
        update::<Self, (), ClusterError>(port, &format!("{PREFIX}{host}"), |_| Ok((None, ()))).await
    }
}

/// A rolling reboot that is not over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RollingRecord {
    /// Who began it.
    pub(super) by: String,
    /// When.
    pub(super) since: Timestamp,
    /// The hosts, in their order.
    pub(super) hosts: Vec<String>,
    /// Those that are done.
    pub(super) done: Vec<String>,
}

impl Document for RollingRecord {
    const SCHEMA: &'static str = "rackhand.rolling-reboot/1";
}

impl RollingRecord {
    /// The one that is not over.
    pub(super) async fn read(port: &dyn ClusterPort) -> Result<Option<Self>, ClusterError> {
        Ok(fetch::<Self>(port, ROLLING).await?.map(|(record, _)| record))
    }

    /// Writes down how far it is.
    pub(super) async fn write(&self, port: &dyn ClusterPort) -> Result<(), ClusterError> {
        update::<Self, (), ClusterError>(port, ROLLING, |_| Ok((Some(self.clone()), ()))).await
    }

    /// It is over.
    pub(super) async fn forget(port: &dyn ClusterPort) -> Result<(), ClusterError> {
        update::<Self, (), ClusterError>(port, ROLLING, |_| Ok((None, ()))).await
    }
}
