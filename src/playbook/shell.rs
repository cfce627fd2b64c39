//! Words for the shell on a host.

pub use crate::ssh::{join, quote};

/// A name as it may stand in a unit's name.
pub(super) fn unit_word(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}
