//! Removing a lab.

use super::names::LabName;
use super::store::{self, LabDir};
use super::{preflight, site, sweep};
use crate::error::Failure;

/// Removes a lab and everything it made; false when there was nothing of that name.
///
/// # Errors
/// When something cannot be removed, or another command is working on the lab.
pub async fn down(name: &LabName) -> Result<bool, Failure> {
    preflight::sweeping()?;
    let lab = LabDir::of(name);
    let found = sweep::exists(&lab)?;
    let _lock = if lab.path.exists() { Some(lab.lock()?) } else { None };
    if found {
        sweep::lab(&lab).await?;
    }
    let _all = store::lock_dir_waiting(&store::labs_root()?).await?;
    sweep::orphans().await?;
    // A `lab up` that was killed early has left no more than an image half built.
    site::sweep().await?;
    Ok(found)
}
