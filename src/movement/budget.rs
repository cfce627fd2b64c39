//! How many moves at once: as many as the links carry, instead of a fixed number of workers. Pure.

use super::plan::{LINK_SHARE, Move};
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// Moves of one host at once, whatever its link carries: libvirtd has 20 workers, each move holds one on both sides.
const HOST_LIMIT: usize = 8;
/// How long a fresh move's rate is awaited before the next one that shares a link with it may start.
const UNMEASURED: Duration = Duration::from_secs(1);
/// Link speed assumed where none is known, bytes a second: 10 Gbit/s, the slowest the rack is meant for. Too high a
/// guess costs nothing but that moves share the link; each one's rate is what it gets.
const ASSUMED_LINK: u64 = 1_250_000_000;

/// A move that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Where from.
    pub from: String,
    /// Where to.
    pub to: String,
    /// Bytes a second as last measured.
    pub rate: u64,
    /// How long it has been under way.
    pub age: Duration,
}

impl Flow {
    fn touches(&self, host: &str) -> bool {
        self.from == host || self.to == host
    }
}

/// Whether a move may start beside those under way.
pub fn may_start(next: &Move, flows: &BTreeMap<Uuid, Flow>, link: Option<u64>) -> bool {
    let room = link.unwrap_or(ASSUMED_LINK) / 100 * LINK_SHARE;
    [&next.from, &next.to].into_iter().all(|host| {
        let beside: Vec<&Flow> = flows.values().filter(|f| f.touches(host)).collect();
        beside.len() < HOST_LIMIT
            && beside.iter().all(|f| f.rate > 0 || f.age >= UNMEASURED)
            // Full duplex: what comes in does not narrow what goes out.
            && beside.iter().filter(|f| f.from == *host).map(|f| f.rate).sum::<u64>() < room
            && beside.iter().filter(|f| f.to == *host).map(|f| f.rate).sum::<u64>() < room
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GBIT: u64 = 125_000_000;

    fn next() -> Move {
        let (from, to) = ("h1".to_owned(), "h2".to_owned());
        let (guest, need) = ("g".into(), crate::guest::placement::Need::default());
        Move { guest, uuid: Uuid::nil(), from, to, bytes: 1, seconds: 1.0, priority: 0, emulated: false, need }
    }

    fn flows(list: &[(&str, &str, u64, u64)]) -> BTreeMap<Uuid, Flow> {
        let flow = |(n, (from, to, rate, ms)): (usize, &(&str, &str, u64, u64))| {
            let age = Duration::from_millis(*ms);
            (Uuid::from_u128(n as u128 + 1), Flow { from: (*from).into(), to: (*to).into(), rate: *rate, age })
        };
        list.iter().enumerate().map(flow).collect()
    }

    #[test]
    fn a_full_link_makes_the_next_one_wait() {
        let ok = |list: &[(&str, &str, u64, u64)]| may_start(&next(), &flows(list), Some(GBIT));
        assert!(ok(&[]));
        assert!(ok(&[("h1", "h3", GBIT / 2, 3000)]));
        assert!(!ok(&[("h1", "h3", GBIT / 2, 3000), ("h1", "h2", GBIT / 2, 3000)]), "h1 sends 100 %");
        assert!(!ok(&[("h3", "h2", GBIT * 9 / 10, 3000)]), "h2 receives 90 %");
        assert!(ok(&[("h3", "h4", GBIT, 3000)]), "others' links are theirs");
        assert!(ok(&[("h3", "h1", GBIT * 2 / 3, 3000)]), "full duplex");
    }

    #[test]
    fn a_fresh_one_is_measured_first_and_a_host_has_its_limit() {
        assert!(!may_start(&next(), &flows(&[("h1", "h3", 0, 100)]), None));
        assert!(may_start(&next(), &flows(&[("h1", "h3", 0, 1000)]), None));
        let many = vec![("h1", "h3", 1000, 3000); HOST_LIMIT];
        assert!(!may_start(&next(), &flows(&many), None));
    }
}
