//! Words that the commands of the watch share.

use crate::watch::brain::Phase;

/// A watcher's name for people: without the id that makes it unique.
pub(super) fn short(holder: &str) -> &str {
    holder.split(", ").next().unwrap_or(holder)
}

/// An incident's phase, as the documents have it.
pub(super) fn phase(phase: Phase) -> String {
    serde_json::to_value(phase).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
