//! The search: breadth first, so that the trace to what must not be is a shortest one.
#![allow(clippy::disallowed_methods, reason = "a search that has no clock to pause")]

use crate::fingerprint::{fingerprint, situation};
use crate::moves::{Setup, Step};
use crate::state::{At, State};
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// How a search ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every state that can be reached was seen, and none is a violation.
    Safe,
    /// A violation, and the steps that lead there.
    Violation {
        /// What is wrong.
        what: &'static str,
        /// The steps.
        trace: Vec<String>,
    },
    /// There are more states than were allowed; none of those seen is a violation. That is no proof.
    Limit,
}

/// What a search has found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub ended: Ended,
    /// How many states it saw.
    pub states: usize,
    /// How long it took.
    pub took: Duration,
    /// Settled situations: no run acts, no request is on its way, no move goes on, all hosts answer.
    pub settled: Vec<State>,
}

/// Searches everything that can be reached, up to `limit` states.
pub fn search(setup: &Setup, limit: usize) -> Outcome {
    let began = Instant::now();
    let first = setup.first();
    let mut seen = Seen::new();
    seen.insert(fingerprint(&first), 0);
    let (mut level, mut next, mut found) = (vec![(first, 0)], Vec::new(), Vec::new());
    let mut settled = Situations::default();
    let mut ended = Ended::Safe;
    'search: while !level.is_empty() {
        for (state, id) in level.drain(..) {
            settled.add(setup, &state);
            setup.successors(&state, &mut found);
            for (after, _) in found.drain(..) {
                let Some(new) = seen.insert(fingerprint(&after), id) else { continue };
                if let Some(what) = after.violation() {
                    ended = Ended::Violation { what, trace: seen.trace(setup, new) };
                    break 'search;
                }
                next.push((after, new));
            }
            if seen.len() > limit {
                ended = Ended::Limit;
                break 'search;
            }
        }
        std::mem::swap(&mut level, &mut next);
    }
    Outcome { ended, states: seen.len(), took: began.elapsed(), settled: settled.all }
}

/// Whether a state that satisfies `wanted` can be reached from one, without passing a violation.
pub fn reaches(setup: &Setup, from: State, limit: usize, wanted: impl Fn(&State) -> bool) -> bool {
    let mut seen = Seen::new();
    seen.insert(fingerprint(&from), 0);
    let (mut queue, mut found, mut at) = (vec![from], Vec::new(), 0);
    while at < queue.len() && at < limit {
        let state = queue[at];
        if wanted(&state) {
            return true;
        }
        setup.successors(&state, &mut found);
        for (after, _) in found.drain(..) {
            if after.violation().is_none() && seen.insert(fingerprint(&after), 0).is_some() {
                queue.push(after);
            }
        }
        at += 1;
    }
    false
}

/// Settled situations, each kind once: what differs in runs and generations alone is the same one.
#[derive(Default)]
struct Situations {
    keys: HashSet<u64>,
    all: Vec<State>,
}

impl Situations {
    fn add(&mut self, setup: &Setup, state: &State) {
        let quiet = state.requests.iter().all(Option::is_none)
            && state.runs.iter().all(|run| run.at == At::Idle)
            && setup
                .hosts()
                .all(|host| state.answers(host) && state.has_storage(host) && state.copy(host).job.is_none());
        if !quiet {
            return;
        }
        if self.keys.insert(situation(state)) {
            self.all.push(*state);
        }
    }
}

/// The states seen, by their fingerprints, with the state that led there.
struct Seen {
    slots: Vec<u32>,
    prints: Vec<u64>,
    parents: Vec<u32>,
}

impl Seen {
    const EMPTY: u32 = u32::MAX;

    fn new() -> Self {
        Seen { slots: vec![Self::EMPTY; 1 << 12], prints: Vec::new(), parents: Vec::new() }
    }

    fn len(&self) -> usize {
        self.prints.len()
    }

    /// The number of a state that is new.
    fn insert(&mut self, print: u64, parent: u32) -> Option<u32> {
        if self.prints.len() * 2 >= self.slots.len() {
            self.slots = vec![Self::EMPTY; self.slots.len() * 4];
            for (id, print) in (0..).zip(&self.prints) {
                let slot = Self::slot(&self.slots, &self.prints, *print);
                self.slots[slot] = id;
            }
        }
        let slot = Self::slot(&self.slots, &self.prints, print);
        if self.slots[slot] != Self::EMPTY {
            return None;
        }
        let id = u32::try_from(self.prints.len()).unwrap_or(Self::EMPTY);
        self.slots[slot] = id;
        self.prints.push(print);
        self.parents.push(parent);
        Some(id)
    }

    /// Where a state is, or would be.
    fn slot(slots: &[u32], prints: &[u64], print: u64) -> usize {
        let mask = slots.len() - 1;
        let mut slot = usize::try_from(print >> 32).unwrap_or_default() & mask;
        while slots[slot] != Self::EMPTY && prints[slots[slot] as usize] != print {
            slot = (slot + 1) & mask;
        }
        slot
    }

    /// The steps that lead to a state: its forebears are gone through again from the first.
    fn trace(&self, setup: &Setup, last: u32) -> Vec<String> {
        let mut path = vec![last];
        while let Some(id) = path.last().filter(|id| **id != 0) {
            path.push(self.parents[*id as usize]);
        }
        let (mut state, mut found, mut words) = (setup.first(), Vec::new(), Vec::new());
        for id in path.iter().rev().skip(1) {
            found.clear();
            setup.successors(&state, &mut found);
            let step: Option<&(State, Step)> = found.iter().find(|(s, _)| fingerprint(s) == self.prints[*id as usize]);
            let Some((after, step)) = step else { break };
            words.push(step.to_string());
            state = *after;
        }
        words
    }
}
