//! A BMC's power state and whose BMC it is, read over Redfish (curl) or IPMI (ipmitool).
//!
//! The commands run wherever there is a way to the management network: on the operator's machine or on a peer. The
//! password travels on stdin alone, and nothing the BMC answers is trusted.

use super::state::{BmcError, BmcState};
use super::{ipmi, redfish};
use crate::inventory::secret::Secret;
use crate::inventory::{BmcKind, BmcSpec};
use crate::ssh::Remote;

/// Asks a BMC from a place: the operator's machine or a peer.
///
/// # Errors
/// When it cannot be asked from there, refuses the login or answers strangely.
pub async fn query_bmc(place: &dyn Remote, bmc: &BmcSpec, password: &Secret) -> Result<BmcState, BmcError> {
    match bmc.kind {
        BmcKind::Redfish => redfish::query_bmc(place, bmc, password).await,
        BmcKind::Ipmi => ipmi::query_bmc(place, bmc, password).await,
    }
}
