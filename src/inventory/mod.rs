//! `inventory.yaml` to checked types.

mod model;

pub use model::*;

use crate::error::{Failure, Kind, ResultExt};
use std::path::Path;

/// Reads and checks an inventory file.
///
/// # Errors
/// Every mistake in the file at once, as a usage failure (exit 2).
pub fn load(path: &Path) -> Result<Inventory, Failure> {
    let text = std::fs::read_to_string(path)
        .or_kind(Kind::Usage)
        .while_doing(|| format!("cannot read inventory {}", path.display()))
        .or_hint("name it with -i FILE or $RACKHAND_INVENTORY, or write one with `rackhand init`")?;
    let base = path.parent().unwrap_or(Path::new(".")).to_path_buf();
    let mut inventory: Inventory =
        serde_saphyr::from_str(&text).map_err(|e| Failure::usage(format!("inventory {}: {e}", path.display())))?;
    inventory.base = base;
    Ok(inventory)
}
