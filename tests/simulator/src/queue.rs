//! What is going to happen, in the order of its time.

use crate::brain::Input;
use crate::faults::Fault;
use crate::hosts::Request;
use crate::task::Reply;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Milliseconds since the simulation began.
pub(crate) type Ms = u64;

/// Something that is going to happen.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Fault(Fault),
    /// A host beats, to all watchers.
    Beat(usize),
    /// Something reaches a watcher: which, and in which of its lives.
    Deliver(usize, u64, Box<Input>),
    Tick(usize, u64),
    Lease(usize, u64),
    /// The write of a lease lands: watcher, life, what was found, what to write, when it was asked for.
    LeaseWrite(Box<crate::driver::LeaseWrite>),
    Poll(usize, u64),
    /// A task goes on; of no effect when it has gone on meanwhile.
    Task(u64, u64, Reply),
    /// A request reaches a host, of this boot.
    Arrive(Box<Request>),
    /// An OSD takes a newer map.
    Learn(usize),
    Election,
    /// The peers of a dead OSD have it marked down, or a live one comes up.
    Osd(usize),
    MoveEnd(u64, u32),
    /// A move waits in its source's libvirt for its target.
    Waiting(Box<Request>, usize, u64, u32),
    Operator,
    /// All faults end.
    Heal,
    Check,
}

#[derive(Debug)]
struct Entry {
    at: Ms,
    order: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// Events by time; those of one moment in the order in which they were added.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    heap: BinaryHeap<Entry>,
    order: u64,
}

impl Queue {
    pub(crate) fn add(&mut self, at: Ms, event: Event) {
        self.order += 1;
        self.heap.push(Entry { at, order: self.order, event });
    }

    pub(crate) fn pop(&mut self) -> Option<(Ms, Event)> {
        self.heap.pop().map(|entry| (entry.at, entry.event))
    }
}
