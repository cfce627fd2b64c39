//! A small fuzzer for the tests of what reads other people's bytes; `make fuzz` runs each target for 30 s.
//!
//! It mutates a corpus at random and keeps what ended in a way that was not seen before. It does not see which branches
//! were taken, as cargo-fuzz does: that needs a nightly compiler.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use tokio::time::Instant;

/// How long each target runs, in seconds; without it a few inputs are tried, which is what `make test` does.
const SECONDS: &str = "RACKHAND_FUZZ_SECONDS";
/// Where another run begins.
const SEED: &str = "RACKHAND_FUZZ_SEED";
/// Inputs that are tried where no time is given.
const FEW: u64 = 60;
/// Bytes of an input at most.
const LONGEST: usize = 16 << 10;
/// Bytes that readers of text stumble over.
const ODD: [&[u8]; 14] = [
    b"\n",
    b"\0",
    b"\t",
    b"\"",
    b"'",
    b"{",
    b"}",
    b"[",
    b": ",
    b"- ",
    b"\xff",
    b"\xe2\x80\xae",
    b"18446744073709551616",
    b"-1",
];

/// Mutations of a corpus, in an order that its seed decides.
pub(crate) struct Fuzzer {
    corpus: Vec<Vec<u8>>,
    seen: BTreeSet<String>,
    random: u64,
}

impl Fuzzer {
    /// Tries `target` on mutations of the corpus. It tells how an input ended, in words that do not depend on the
    /// input's own; what it must not do, it does not survive.
    pub(crate) fn run(corpus: &[&str], target: impl Fn(&[u8]) -> String) {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let seed = number(SEED).unwrap_or(1);
        let limit = number(SECONDS).map(Duration::from_secs);
        let corpus = corpus.iter().map(|text| text.as_bytes().to_vec()).collect();
        let mut fuzzer = Fuzzer { corpus, seen: BTreeSet::new(), random: seed };
        let (began, mut tried) = (Instant::now(), 0u64);
        while limit.map_or(tried < FEW, |limit| began.elapsed() < limit) {
            let input = fuzzer.next();
            tried += 1;
            let ended = catch_unwind(AssertUnwindSafe(|| target(&input)));
            match ended {
                Ok(how) => {
                    if fuzzer.seen.insert(how) {
                        fuzzer.corpus.push(input);
                    }
                }
                Err(_) => panic!("input {tried} of seed {seed} is not survived:\n{}", String::from_utf8_lossy(&input)),
            }
        }
        println!("{tried} inputs, {} ways to end", fuzzer.seen.len());
    }

    /// The next input: one of the corpus with up to eight changes.
    fn next(&mut self) -> Vec<u8> {
        let at = self.below(self.corpus.len());
        let mut input = self.corpus[at].clone();
        for _ in 0..=self.below(8) {
            self.mutate(&mut input);
        }
        input.truncate(LONGEST);
        input
    }

    fn mutate(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        let until = (at + 1 + self.below(16)).min(input.len());
        match self.below(6) {
            0 if at < input.len() => input[at] ^= 1 << self.below(8),
            1 if at < until => drop(input.drain(at..until)),
            2 if at < until => {
                let again = input[at..until].to_vec();
                input.splice(at..at, again);
            }
            3 => {
                let odd = ODD[self.below(ODD.len())];
                input.splice(at..at, odd.iter().copied());
            }
            4 => {
                let other = self.below(self.corpus.len());
                let other = self.corpus[other].clone();
                let from = self.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => input.truncate(at.max(1)),
        }
    }

    /// A number below `limit`, or 0 (SplitMix64).
    fn below(&mut self, limit: usize) -> usize {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit.max(1) as u64) as usize
    }
}

/// A message without what it quotes and counts, so that the same mistake in another place is the same.
pub(crate) fn kind_of(message: &str) -> String {
    let mut quoted = false;
    message
        .chars()
        .filter(|c| {
            if *c == '`' {
                quoted = !quoted;
            }
            !quoted && !c.is_ascii_digit()
        })
        .take(200)
        .collect()
}
