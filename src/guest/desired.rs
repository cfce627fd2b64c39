//! What a guest's owner wants, as its definition keeps it.

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
