//! How patient the watch is.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How patient the watch is, and when it holds back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// How long a host has to be silent before it can be called dead. Shorter than a switch, a bond or a spanning tree
    /// needs to recover, and a blink of the network becomes a failover.
    pub patience: Duration,
    /// After how much silence the witnesses are asked, and an election of the mons is started: both are harmless.
    pub suspect_after: Duration,
    /// How old the word of a witness may be.
    pub view_age: Duration,
    /// How long after its first question the watch asks the same witness again.
    pub ask_again: Duration,
    /// How much longer than its patience the watch waits for a healthy peer that has not answered yet.
    pub answer_wait: Duration,
    /// How many peers a question goes to.
    pub peers_asked: usize,
    /// How many peers have to say that they do not reach a host on either network.
    pub peers_needed: usize,
    /// A pause between two steps that makes the watch forget what it has heard: it was not listening.
    pub oversleep: Duration,
    /// How much of a pause between two steps counts as listening.
    pub attention: Duration,
    /// How long a host that was not heard since the watch began to listen is given on top of its patience.
    pub grace: Duration,
    /// Hosts that fall silent within this time count as one event.
    pub hold_window: Duration,
    /// More than this share of the hosts at once, in percent, and more than one: the watch holds and asks for a person.
    pub hold_share: usize,
    /// How long work on a beat may be late before a host counts as slow, or as stuck.
    pub slow_after: Duration,
    /// How long a host may be silent that only answers pings, its OSDs down, before it counts as stuck.
    pub stuck_after: Duration,
    /// How long the storage network of a host has to be cut before its guests are stopped.
    pub cut_after: Duration,
    /// How long the watch waits before it tries a fence or a recovery again; doubled each time, to sixteen times this.
    pub retry: Duration,
}

impl Settings {
    /// All settings that go with a patience.
    pub fn with_patience(patience: Duration) -> Self {
        let suspect_after = patience * 4 / 9;
        Settings {
            patience,
            suspect_after,
            view_age: patience * 2,
            ask_again: patience / 4,
            answer_wait: patience,
            peers_asked: 5,
            peers_needed: 2,
            oversleep: patience.max(Duration::from_secs(2)),
            attention: suspect_after / 2,
            grace: patience * 3 + Duration::from_secs(2),
            hold_window: Duration::from_secs(30),
            hold_share: 25,
            slow_after: Duration::from_secs(5),
            stuck_after: Duration::from_secs(30),
            cut_after: (patience * 3).max(Duration::from_secs(3)),
            retry: Duration::from_secs(1),
        }
    }

    /// What goes with the failover profile `fastest`: a host is suspected after 0.4 s and judged after 0.9 s.
    pub fn fastest() -> Self {
        Settings::with_patience(Duration::from_millis(900))
    }

    /// What goes with the profile `standard`: 3 s, longer than a bond or a spanning tree takes to recover.
    pub fn standard() -> Self {
        Settings::with_patience(Duration::from_secs(3))
    }

    /// How many of `hosts` may be lost at once without the watch holding back.
    pub fn may_be_lost(&self, hosts: usize) -> usize {
        (hosts * self.hold_share / 100).max(1)
    }
}
