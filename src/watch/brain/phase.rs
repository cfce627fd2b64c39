//! How far an incident is.

use serde::{Deserialize, Serialize};

/// How far the incident of a host is. The order is that of the incident.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// None is open.
    #[default]
    Watched,
    /// The host is silent, and the witnesses are being asked.
    Suspected,
    /// Its guests are being stopped over SSH, because its storage is cut.
    Stopping,
    /// It is being fenced. From here on nothing but a proof, or the certainty that nothing was done, ends the phase.
    Fencing,
    /// It is fenced, and its guests are being started elsewhere.
    Recovering,
    /// Its guests run elsewhere; the host stays shut out until it is readmitted.
    Quarantined,
}

impl Phase {
    /// Whether the host may be shut out, so that nothing starts there.
    pub fn is_fenced(self) -> bool {
        self >= Phase::Fencing
    }
}
