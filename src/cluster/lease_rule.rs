//! When a lease may be taken: the rule, without a clock and without a cluster. The simulator of the watch runs it too.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The state object of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Lease {
    /// Who holds it; empty when it is free. No two processes ever have the same name.
    pub holder: String,
    /// What for, in words for people.
    pub purpose: String,
    /// Grows each time it goes to another holder, and never goes back: what an older holder asks for can be told apart.
    pub generation: u64,
    /// Grows each time the holder renews it.
    pub renewals: u64,
    /// How long it has to be seen unchanged before another process may take it, in milliseconds.
    pub term_ms: u64,
}

impl Lease {
    /// How long it has to be seen unchanged before another process may take it.
    pub fn term(&self) -> Duration {
        Duration::from_millis(self.term_ms)
    }

    /// The same, held by no process. The object stays, so that its generation never goes back.
    #[must_use]
    pub fn freed(self) -> Self {
        Lease { holder: String::new(), purpose: String::new(), ..self }
    }

    /// Whether a process holds it, or held it when it died.
    pub fn is_held(&self) -> bool {
        !self.holder.is_empty()
    }
}

/// What to do about a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseStep {
    /// Write this, over exactly what was found.
    Write(Lease),
    /// Leave it to its holder until then, on the own clock.
    Wait(Duration),
}

/// What a process that wants a lease remembers.
#[derive(Clone, Debug)]
pub struct LeaseRule {
    me: Lease,
    /// What was seen last, and since when it has been like this.
    seen: Option<(Lease, Duration)>,
}

impl LeaseRule {
    /// For a process with a name that is its alone, for ever.
    pub fn new(holder: impl Into<String>, purpose: impl Into<String>, term: Duration) -> Self {
        let term_ms = u64::try_from(term.as_millis()).unwrap_or(u64::MAX);
        let (holder, purpose) = (holder.into(), purpose.into());
        LeaseRule { me: Lease { holder, purpose, generation: 0, renewals: 0, term_ms }, seen: None }
    }

    /// The name of the process.
    pub fn holder(&self) -> &str {
        &self.me.holder
    }

    /// What to do about what was found. `now` is on any clock of this process that only goes forward.
    pub fn decide(&mut self, found: Option<&Lease>, now: Duration) -> LeaseStep {
        let Some(found) = found else {
            self.seen = None;
            return LeaseStep::Write(Lease { generation: 1, ..self.me.clone() });
        };
        if found.holder == self.me.holder {
            let (generation, renewals) = (found.generation, found.renewals + 1);
            return LeaseStep::Write(Lease { generation, renewals, ..self.me.clone() });
        }
        let since = match &self.seen {
            Some((seen, since)) if seen == found => *since,
            _ => now,
        };
        self.seen = Some((found.clone(), since));
        match !found.is_held() || now.saturating_sub(since) >= found.term() {
            true => LeaseStep::Write(Lease { generation: found.generation + 1, ..self.me.clone() }),
            false => LeaseStep::Wait(since + found.term()),
        }
    }
}
