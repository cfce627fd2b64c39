//! Snapshots of guests' disks: those that backups keep as their base, and all others, which belong to people.

use super::spec::Guest;
use crate::cluster::{ClusterError, ClusterPort, Image};
use crate::error::Failure;

/// What the names of snapshots begin with that a backup keeps as the base of the next one.
pub const BACKUP_BASE: &str = "rackhand-backup.";

/// Refuses when a disk of the guest has snapshots that no backup made: whoever made them may need them.
///
/// # Errors
/// [`crate::error::Kind::Refused`] with the snapshots and how to remove them; or when the cluster cannot be asked.
pub async fn refuse_foreign(port: &dyn ClusterPort, guest: &Guest) -> Result<(), Failure> {
    let mut found = Vec::new();
    for disk in &guest.disks {
        if let Some(image) = port.image(&disk.image).await? {
            let foreign = image.snapshots.iter().filter(|snapshot| !snapshot.name.starts_with(BACKUP_BASE));
            found.extend(foreign.map(|snapshot| format!("{}@{}", disk.image, snapshot.name)));
        }
    }
    let Some(first) = found.first() else { return Ok(()) };
    let what = if found.len() == 1 { "a snapshot" } else { "snapshots" };
    Err(Failure::refused(format!("its disks have {what}: {}", found.join(", "))).hint(format!(
        "remove {} first, for example with `rbd snap rm POOL/{first}` on a host with the role mon",
        if found.len() == 1 { "it" } else { "them" }
    )))
}

/// Removes the bases of backups from a disk image; the points that were made from them stay in their repository.
///
/// # Errors
/// When the cluster cannot be asked, or a snapshot has clones.
pub async fn remove_bases(port: &dyn ClusterPort, image: &str) -> Result<(), ClusterError> {
    let Some(Image { snapshots, .. }) = port.image(image).await? else { return Ok(()) };
    for snapshot in snapshots.iter().filter(|snapshot| snapshot.name.starts_with(BACKUP_BASE)) {
        match port.snapshot_remove(image, &snapshot.name).await {
            Ok(()) | Err(ClusterError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
