//! Names and globs of the command line to hosts of the inventory.

use crate::error::{Failure, Kind, LocalExt};
use crate::inventory::Inventory;
use globset::Glob;

/// The hosts these names and globs mean, in the inventory's order; all where none is given.
///
/// # Errors
/// When one of them means no host (exit 2).
pub fn select(inventory: &Inventory, patterns: &[String]) -> Result<Vec<String>, Failure> {
    let all = || inventory.hosts.iter().map(|h| h.name.clone());
    if patterns.is_empty() {
        return Ok(all().collect());
    }
    let mut wanted = vec![false; inventory.hosts.len()];
    for pattern in patterns {
        let glob = Glob::new(pattern).or_kind(Kind::Usage)?.compile_matcher();
        let mut met = false;
        for (name, wanted) in all().zip(&mut wanted) {
            if glob.is_match(&name) {
                (met, *wanted) = (true, true);
            }
        }
        if !met {
            let known = all().collect::<Vec<_>>().join(", ");
            return Err(Failure::usage(format!("no host `{pattern}` in the inventory")).hint(format!("hosts: {known}")));
        }
    }
    Ok(all().zip(wanted).filter(|(_, wanted)| *wanted).map(|(name, _)| name).collect())
}
