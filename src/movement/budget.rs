//! How many moves at once: as many as the links carry, instead of a fixed number of workers. Pure.

use super::link::usable;
use super::plan::Move;
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// Moves of one host at once, whatever its link carries: libvirtd has 20 workers, each move holds one on both sides.
const HOST_LIMIT: usize = 8;
/// How long what a fresh move sends says little: it opens disks and shakes hands first.
const UNMEASURED: Duration = Duration::from_secs(1);
/// Moves that are begun together may take this long together, in seconds: before anything is measured, a guest counts
/// with its memory spread over this time. Small guests all start at once, and none of them is slowed down for longer.
const TOGETHER: u64 = 10;

/// A move that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Where from.
    pub from: String,
    /// Where to.
    pub to: String,
    /// The guest's memory in bytes.
    pub bytes: u64,
    /// Bytes a second as last measured.
    pub rate: u64,
    /// How long it has been under way.
    pub age: Duration,
}

impl Flow {
    /// A move that is about to start.
    pub fn fresh(a_move: &Move) -> Self {
        let Move { from, to, bytes, .. } = a_move;
        Flow { from: from.clone(), to: to.clone(), bytes: *bytes, rate: 0, age: Duration::ZERO }
    }

    fn touches(&self, host: &str) -> bool {
        self.from == host || self.to == host
    }

    fn is_measured(&self) -> bool {
        self.rate > 0 && self.age >= UNMEASURED
    }

    /// Bytes a second it counts with: what is measured; until then the larger of that and the estimate.
    fn demand(&self) -> u64 {
        if self.is_measured() { self.rate } else { self.rate.max(estimate(self.bytes)) }
    }
}

/// Bytes a second a guest of so much memory counts with before it is measured.
fn estimate(bytes: u64) -> u64 {
    bytes / TOGETHER
}

/// Whether a move may start beside those under way: on each side's link there is room for what it is expected to take, or
/// nothing else uses that link.
pub fn may_start(next: &Move, flows: &BTreeMap<Uuid, Flow>, link: Option<u64>) -> bool {
    let room = usable(link);
    let beside = |host: &str| flows.values().filter(|f| f.touches(host)).count();
    // Full duplex: what comes in does not narrow what goes out.
    let out: Vec<&Flow> = flows.values().filter(|f| f.from == next.from).collect();
    let into: Vec<&Flow> = flows.values().filter(|f| f.to == next.to).collect();
    beside(&next.from) < HOST_LIMIT
        && beside(&next.to) < HOST_LIMIT
        && [out, into].iter().all(|link| link.is_empty() || taken(link) + expected(next, link) <= room)
}

fn taken(link: &[&Flow]) -> u64 {
    link.iter().map(|flow| flow.demand()).sum()
}

/// What a move is expected to take of a link: its estimate, or what one beside it is seen to take, where that is less. One
/// stream over TLS is one processor's work, so a large guest need not have the link for itself.
fn expected(next: &Move, beside: &[&Flow]) -> u64 {
    let seen = beside.iter().filter(|flow| flow.is_measured()).map(|flow| flow.rate).max();
    seen.unwrap_or(u64::MAX).min(estimate(next.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GBIT: u64 = 125_000_000;
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    fn next(bytes: u64) -> Move {
        let (from, to) = ("h1".to_owned(), "h2".to_owned());
        let (guest, need) = ("g".into(), crate::guest::placement::Need::default());
        Move { guest, uuid: Uuid::nil(), from, to, bytes, seconds: 1.0, priority: 0, emulated: false, need }
    }

    fn flow(from: &str, to: &str, bytes: u64, rate: u64, ms: u64) -> Flow {
        Flow { from: from.into(), to: to.into(), bytes, rate, age: Duration::from_millis(ms) }
    }

    fn numbered(flows: impl IntoIterator<Item = Flow>) -> BTreeMap<Uuid, Flow> {
        flows.into_iter().enumerate().map(|(n, flow)| (Uuid::from_u128(n as u128 + 1), flow)).collect()
    }

    /// How many of these moves off h1, to h2 and h3 in turn, start before anything is measured.
    fn at_once(guests: usize, bytes: u64, link: Option<u64>) -> usize {
        let mut flows = BTreeMap::new();
        for n in 0..guests {
            let a_move = Move { to: format!("h{}", 2 + n % 2), ..next(bytes) };
            if may_start(&a_move, &flows, link) {
                flows.insert(Uuid::from_u128(n as u128), Flow::fresh(&a_move));
            }
        }
        flows.len()
    }

    #[test]
    fn small_guests_all_start_at_once_and_large_ones_as_far_as_the_link_carries() {
        assert_eq!(at_once(6, 128 * MIB, Some(GBIT)), 6);
        assert_eq!(at_once(6, 128 * MIB, None), 6);
        assert_eq!(at_once(6, 64 * GIB, Some(10 * GBIT)), 1, "until it is measured");
        assert_eq!(at_once(6, 4 * GIB, Some(10 * GBIT)), 2);
        assert_eq!(at_once(20, MIB, None), HOST_LIMIT);
    }

    #[test]
    fn a_full_link_makes_the_next_one_wait() {
        let ok = |flows: &[Flow]| may_start(&next(128 * MIB), &numbered(flows.to_vec()), Some(GBIT));
        let measured = |from, to, rate| flow(from, to, GIB, rate, 3000);
        assert!(ok(&[]));
        assert!(ok(&[measured("h1", "h3", GBIT / 2)]));
        assert!(!ok(&[measured("h1", "h3", GBIT / 2), measured("h1", "h2", GBIT / 3)]), "h1 sends 83 %");
        assert!(!ok(&[measured("h3", "h2", GBIT * 9 / 10)]), "h2 receives 90 %");
        assert!(ok(&[measured("h3", "h4", GBIT)]), "others' links are theirs");
        assert!(ok(&[measured("h3", "h1", GBIT)]), "full duplex");
    }

    #[test]
    fn a_large_guest_is_expected_to_take_what_the_one_beside_it_takes() {
        let ok = |rate, ms| may_start(&next(64 * GIB), &numbered([flow("h1", "h3", GIB, rate, ms)]), Some(10 * GBIT));
        assert!(ok(3 * GBIT, 1000), "3 and 3 of 8.5 Gbit/s");
        assert!(!ok(5 * GBIT, 1000), "5 and 5");
        assert!(!ok(3 * GBIT, 999), "too fresh to say");
        assert!(!ok(0, 5000), "nothing was measured");
    }

    proptest! {
        /// Whatever is under way and whatever is measured: a move that starts beside others on a link never takes it
        /// beyond its share, by what they are seen and by what it is expected to take.
        #[test]
        fn a_link_is_never_oversubscribed(
            moves in prop::collection::vec((0u8..4, 0u8..4, 1u64..64, 0u64..2000, 0u64..2000), 0..40),
            link in prop::option::of(1u64..30),
        ) {
            let link = link.map(|gbit| gbit * GBIT);
            let mut flows = BTreeMap::new();
            for (n, (from, to, gib, rate, ms)) in moves.into_iter().enumerate() {
                let a_move = Move { from: format!("h{from}"), to: format!("h{to}"), ..next(gib * GIB) };
                if !may_start(&a_move, &flows, link) {
                    continue;
                }
                let fresh = Flow::fresh(&a_move);
                let sides: [fn(&Flow) -> &String; 2] = [|f| &f.from, |f| &f.to];
                for side in sides {
                    let beside: Vec<&Flow> = flows.values().filter(|f| side(f) == side(&fresh)).collect();
                    let seen = beside.iter().filter(|f| f.rate > 0 && f.age >= UNMEASURED).map(|f| f.rate);
                    let its = seen.max().unwrap_or(u64::MAX).min(fresh.demand());
                    let sum = beside.iter().map(|f| f.demand()).sum::<u64>() + its;
                    prop_assert!(beside.len() < HOST_LIMIT && (beside.is_empty() || sum <= usable(link)), "{sum}");
                }
                let measured = Flow { rate: rate * 1_000_000, age: Duration::from_millis(ms), ..Flow::fresh(&a_move) };
                flows.insert(Uuid::from_u128(n as u128), measured);
            }
        }

        /// Nothing waits for ever: with no move on its links each one may start.
        #[test]
        fn one_alone_always_starts(gib in 1u64..10_000, link in prop::option::of(1u64..30)) {
            let elsewhere = numbered([flow("h3", "h4", GIB, 40 * GBIT, 5000)]);
            prop_assert!(may_start(&next(gib * GIB), &elsewhere, link.map(|gbit| gbit * GBIT)));
        }
    }
}
