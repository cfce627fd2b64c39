//! A BMC's power state and whose BMC it is, over Redfish (curl) or IPMI (ipmitool); and its switch.
//!
//! The commands run wherever there is a way to the management network: on the operator's machine or on a peer. The
//! password travels on stdin alone, and nothing the BMC answers is trusted.

use super::state::{Access, BmcError, BmcState, LOOK, Pressed};
use super::{ipmi, redfish};
use crate::inventory::secret::Secret;
use crate::inventory::{BmcKind, BmcSpec};
use crate::ssh::Remote;

/// Asks a BMC from a place: the operator's machine or a peer.
///
/// # Errors
/// When it cannot be asked from there, refuses the login or answers strangely.
pub async fn query_bmc(place: &dyn Remote, bmc: &BmcSpec, password: &Secret) -> Result<BmcState, BmcError> {
    query(&Access { place, bmc, password, patience: LOOK }).await
}

/// Asks a BMC.
pub(super) async fn query(access: &Access<'_>) -> Result<BmcState, BmcError> {
    match access.bmc.kind {
        BmcKind::Redfish => redfish::query_bmc(access).await,
        BmcKind::Ipmi => ipmi::query_bmc(access).await,
    }
}

/// Orders a BMC to switch the power off, if it is that of the machine with this service tag.
pub(super) async fn press(access: &Access<'_>, serial: &str) -> Result<Pressed, BmcError> {
    match access.bmc.kind {
        BmcKind::Redfish => redfish::press(access, serial).await,
        BmcKind::Ipmi => ipmi::press(access, serial).await,
    }
}
