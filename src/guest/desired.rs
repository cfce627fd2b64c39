//! Changes of a guest's definition, above all of what its owner wants.

use super::guest_context::GuestContext;
use super::spec::{Desired, Guest};
use crate::cluster::{ClusterError, update};
use crate::error::Failure;

/// Writes down what the owner wants; of a guest that is gone there is nothing to write.
pub(super) async fn set_desired(rack: &GuestContext, guest: &Guest, desired: Desired) -> Result<(), Failure> {
    let name = Guest::object(guest.uuid);
    let set = update(rack.port(), &name, |found: Option<Guest>| {
        Ok::<_, ClusterError>((found.map(|guest| Guest { desired, ..guest }), ()))
    });
    Ok(set.await?)
}

/// Changes a definition by compare-and-swap; tells the new one.
///
/// # Errors
/// When the guest is gone or the cluster cannot be asked.
pub(super) async fn change(
    rack: &GuestContext,
    guest: &Guest,
    f: impl Fn(&mut Guest) + Send + Sync,
) -> Result<Guest, Failure> {
    let object = Guest::object(guest.uuid);
    let changed = update(rack.port(), &object, |found: Option<Guest>| {
        let mut changed =
            found.ok_or_else(|| ClusterError::NotFound(format!("guest {} was deleted meanwhile", guest.name)))?;
        f(&mut changed);
        Ok::<_, ClusterError>((Some(changed.clone()), changed))
    });
    changed.await.map_err(Failure::from)
}
