//! What the migration network carries. Pure.

/// Link speed assumed where the inventory tells none, in bytes a second: 10 Gbit/s, the slowest a rack is meant to have. Too
/// high a guess makes moves share the link; too low a one would leave most of it unused.
const ASSUMED_LINK: u64 = 1_250_000_000;
/// Percent of a link that moves may fill; the rest is the storage's.
const LINK_SHARE: u64 = 85;

/// Bytes a second that moves may take of a link of this speed, each direction by itself.
pub fn usable(link: Option<u64>) -> u64 {
    (link.unwrap_or(ASSUMED_LINK) / 100 * LINK_SHARE).max(1)
}
