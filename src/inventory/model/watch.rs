//! How the rack is watched over.

use super::{FailoverProfile, Inventory, Patience};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How the rack is watched over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WatchSpec {
    /// How long a host may be silent before it can be held to be dead; where nothing is said, what goes with
    /// `ceph.failover`: 900ms with `fastest`, else 3s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<Patience>,
}

impl Inventory {
    /// How long a host may be silent before it can be held to be dead. A bond or a spanning tree may take 1 to 3 s to
    /// recover; only `fastest` asks for a network that never does.
    pub fn patience(&self) -> Duration {
        match (self.watch.patience, self.ceph.failover) {
            (Some(patience), _) => patience.0,
            (None, FailoverProfile::Fastest) => Duration::from_millis(900),
            (None, FailoverProfile::Stock | FailoverProfile::Standard | FailoverProfile::Fast) => {
                Duration::from_secs(3)
            }
        }
    }
}
