//! Reading an inventory, step by step.

use super::diagnostic::{Diagnostic, Diagnostics, Span};
use super::model::Inventory;
use super::schema::Schema;
use super::view::View;
use super::{checks, schema_check, spanned_yaml};
use crate::error::{Failure, Kind};
use std::path::Path;

/// Reads and checks an inventory file.
///
/// # Errors
/// Every mistake in the file at once, as a usage failure (exit 2).
pub fn load(path: &Path) -> Result<Inventory, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        let failure = Failure::new(Kind::Usage, error).context(format!("cannot read inventory {}", path.display()));
        let hint = "name it with -i FILE or $RACKHAND_INVENTORY, or write one with `rackhand init`";
        if missing { failure.hint(hint) } else { failure }
    })?;
    let mut inventory = parse(&path.display().to_string(), &text)?;
    let base = path.parent().filter(|p| !p.as_os_str().is_empty());
    inventory.base = base.unwrap_or(Path::new(".")).to_path_buf();
    Ok(inventory)
}

/// Checks an inventory's text; `file` is its name in messages.
///
/// # Errors
/// Every mistake in the text at once.
pub fn parse(file: &str, text: &str) -> Result<Inventory, Diagnostics> {
    let mut found = Vec::new();
    let schema = Schema::new();
    let value = match spanned_yaml::parse(text, &mut found) {
        Some(root) => {
            let value = schema_check::check(&root, &schema, &mut found);
            checks::all(&View::new(&root), &mut found);
            value
        }
        None if found.is_empty() => {
            let start = Span { line: 1, column: 1, length: 1 };
            found.push(Diagnostic::new(start, "the file is empty", "write one with `rackhand init`"));
            serde_json::Value::Null
        }
        None => serde_json::Value::Null,
    };
    if found.is_empty() {
        match serde_path_to_error::deserialize(value) {
            Ok(inventory) => return Ok(inventory),
            Err(error) => {
                let start = Span { line: 1, column: 1, length: 1 };
                found.push(Diagnostic::new(start, error.to_string(), "write it as docs/inventory.md says"));
            }
        }
    }
    Err(Diagnostics::new(file, text, found))
}
