//! Texts compared line by line.

use std::fmt::Write as _;

/// Lines that go and come, with a little around them.
pub(super) fn line_diff(old: &str, new: &str) -> String {
    let diff = similar::TextDiff::from_lines(old, new);
    let mut text = String::new();
    for hunk in diff.unified_diff().context_radius(2).iter_hunks() {
        let _ = write!(text, "{hunk}");
    }
    text.lines().filter(|l| !l.starts_with("\\ ")).collect::<Vec<_>>().join("\n")
}
