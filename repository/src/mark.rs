//! The note that a verification leaves beside a damaged point, so that nothing more is stored upon it.

use crate::error::{ErrorKind, Named, Result};
use crate::files::write_synced;
use crate::store::{At, SUMS, Store, json, read_small, sha256};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// `.damaged-POINT` in a guest's directory.
pub(crate) const DAMAGED: &str = ".damaged-";
/// How many damages a note names.
const NAMED: usize = 8;

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    found_at: Timestamp,
    /// What tells the point from its successor of the same name.
    sums: String,
    damages: Vec<String>,
}

/// Where the note of a point lies.
pub(crate) fn path(store: &Store, at: At<'_>, point: &str) -> PathBuf {
    store.guest_directory(at).join(format!("{DAMAGED}{point}"))
}

/// What tells a point from its successor of the same name: SHA-256 of its `SHA256SUMS`.
pub(crate) fn sums(directory: &Path) -> String {
    read_small(&directory.join(SUMS)).map_or_else(|_| "none".to_owned(), |text| sha256(&text))
}

/// Notes what was found in a point whose sums were `sums`.
pub(crate) fn set(store: &Store, at: At<'_>, point: &str, sums: String, damages: &[&str]) -> Result<()> {
    let damages = damages.iter().take(NAMED).map(|text| (*text).to_owned()).collect();
    write_synced(&path(store, at, point), &json(&Note { found_at: Timestamp::now(), sums, damages })?)
}

/// Removes the note of a point, where there is one.
pub(crate) fn clear(store: &Store, at: At<'_>, point: &str) -> Result<()> {
    let path = path(store, at, point);
    match fs::remove_file(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.named(&path),
    }
}

/// What a verification has found in a point as it is now.
pub(crate) fn problem(store: &Store, at: At<'_>, point: &str) -> Option<String> {
    let text = match read_small(&path(store, at, point)) {
        Err(error) if error.kind == ErrorKind::NotFound => return None,
        Err(error) => return Some(format!("point {point}: {error}")),
        Ok(text) => text,
    };
    match serde_json::from_slice::<Note>(&text) {
        Ok(note) if note.sums != sums(&store.directory(at, point)) => None,
        Ok(note) => {
            let what = note.damages.first().map_or("damage", String::as_str);
            Some(format!("point {point}: the verification of {} found: {what}", note.found_at.strftime("%FT%TZ")))
        }
        Err(_) => Some(format!("point {point}: a verification found damage")),
    }
}
