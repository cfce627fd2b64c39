//! A role that one process holds at a time: a state object, changed by compare-and-swap.
//!
//! No clock is compared with another one. Whoever holds the lease changes the object again and again; whoever wants it
//! takes it over once the object was seen unchanged for the whole term, measured by the own clock. The holder counts the
//! term from before it asked for its last change, so it stops relying on the lease before anybody else can take it.

use super::document::{encode, fetch};
use super::lease_rule::{Lease, LeaseRule, LeaseStep};
use super::{ClusterError, ClusterPort, Document};
use std::time::Duration;
use tokio::time::Instant;

impl Document for Lease {
    const SCHEMA: &'static str = "rackhand.lease/1";
}

/// What became of an attempt to hold a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seat {
    /// This process holds it.
    Held {
        /// Its generation, for everything that is asked for in its name.
        generation: u64,
        /// Until when that is certain without a renewal.
        until: Instant,
    },
    /// Another process holds it, or may.
    Taken {
        /// What it says.
        lease: Lease,
        /// When it may be taken over, if it is not changed before.
        free_at: Instant,
    },
}

/// A process that wants to hold a lease.
#[derive(Debug)]
pub struct Candidate {
    object: String,
    rule: LeaseRule,
    began: Instant,
}

impl Candidate {
    /// A process named `holder` that wants the lease kept in `object`. The name has to be its alone, for ever.
    pub fn new(
        object: impl Into<String>,
        holder: impl Into<String>,
        purpose: impl Into<String>,
        term: Duration,
    ) -> Self {
        Candidate { object: object.into(), rule: LeaseRule::new(holder, purpose, term), began: Instant::now() }
    }

    /// Takes or renews the lease, or sees how the one who holds it gets on. To be called again well before the term is
    /// over; an error leaves the lease as it was: held until the time that was told last.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn attempt(&mut self, port: &dyn ClusterPort) -> Result<Seat, ClusterError> {
        loop {
            let found = fetch::<Lease>(port, &self.object).await?;
            // Before the change is asked for: nobody else counts the term from an earlier moment.
            let asked = Instant::now();
            let next =
                match (self.rule.decide(found.as_ref().map(|(lease, _)| lease), asked - self.began), found.as_ref()) {
                    (LeaseStep::Write(next), _) => next,
                    (LeaseStep::Wait(free_at), Some((lease, _))) => {
                        return Ok(Seat::Taken { lease: lease.clone(), free_at: self.began + free_at });
                    }
                    (LeaseStep::Wait(_), None) => continue,
                };
            let text = encode(&next)?;
            let written = match &found {
                Some((_, version)) => port.replace(&self.object, &text, *version).await,
                None => port.create(&self.object, &text).await,
            };
            match written {
                Ok(_) => return Ok(Seat::Held { generation: next.generation, until: asked + next.term() }),
                Err(ClusterError::Conflict(_) | ClusterError::Exists(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives the lease back, if this process holds it: the next one need not wait out the term.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn resign(&self, port: &dyn ClusterPort) -> Result<(), ClusterError> {
        match fetch::<Lease>(port, &self.object).await? {
            Some((lease, version)) if lease.holder == self.rule.holder() => {
                match port.replace(&self.object, &encode(&lease.freed())?, version).await {
                    Ok(_) | Err(ClusterError::Conflict(_)) => Ok(()),
                    Err(error) => Err(error),
                }
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::FakeCluster;
    use futures::future::join_all;
    use proptest::prelude::*;
    use std::cell::RefCell;
    use tokio::time::sleep;

    const TERM: Duration = Duration::from_secs(9);

    fn candidate(holder: &str) -> Candidate {
        Candidate::new("lease.watch", holder, "watches the rack", TERM)
    }

    fn generation(seat: &Seat) -> Option<u64> {
        match seat {
            Seat::Held { generation, .. } => Some(*generation),
            Seat::Taken { .. } => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_renewed_stays_and_one_that_is_not_goes_on_with_a_higher_generation() {
        let port = FakeCluster::new();
        let (mut one, mut two) = (candidate("one"), candidate("two"));
        assert_eq!(generation(&one.attempt(&port).await.unwrap()), Some(1));
        for _ in 0..5 {
            assert_eq!(generation(&two.attempt(&port).await.unwrap()), None);
            sleep(TERM / 2).await;
            assert_eq!(generation(&one.attempt(&port).await.unwrap()), Some(1));
        }
        // The first one dies. The second has seen its last renewal only now.
        let Seat::Taken { free_at, .. } = two.attempt(&port).await.unwrap() else { panic!("taken too early") };
        sleep(TERM - Duration::from_millis(1)).await;
        assert_eq!(generation(&two.attempt(&port).await.unwrap()), None);
        tokio::time::sleep_until(free_at).await;
        assert_eq!(generation(&two.attempt(&port).await.unwrap()), Some(2));
        // It was only away: it learns that the lease is another's.
        assert_eq!(generation(&one.attempt(&port).await.unwrap()), None);
        two.resign(&port).await.unwrap();
        assert_eq!(generation(&one.attempt(&port).await.unwrap()), Some(3), "a free lease is taken at once");
        two.resign(&port).await.unwrap();
        assert_eq!(generation(&one.attempt(&port).await.unwrap()), Some(3), "nobody resigns for another");
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_without_an_answer_leaves_the_lease_as_it_was() {
        let port = FakeCluster::new();
        let mut one = candidate("one");
        one.attempt(&port).await.unwrap();
        port.breaks(Some(ClusterError::NoQuorum("x".to_owned())));
        one.attempt(&port).await.unwrap_err();
        port.breaks(None);
        assert_eq!(generation(&one.attempt(&port).await.unwrap()), Some(1));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Each process renews at its own pace, and stops for a while now and then, longer than the term.
        #[test]
        fn no_two_hold_it_at_a_time(seed: u64, pauses in prop::collection::vec(prop::collection::vec(1u64..16, 6), 2..5)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            let held = RefCell::new(Vec::new());
            runtime.block_on(async {
                let port = FakeCluster::seeded(seed);
                join_all(pauses.iter().enumerate().map(|(n, pauses)| {
                    let (port, held) = (&port, &held);
                    async move {
                        let mut me = candidate(&format!("process {n}"));
                        for pause in pauses {
                            if let Seat::Held { generation, until } = me.attempt(port).await.unwrap() {
                                held.borrow_mut().push((Instant::now(), until, generation, n));
                            }
                            sleep(Duration::from_secs(*pause)).await;
                        }
                    }
                }))
                .await;
            });
            let held = held.into_inner();
            for (n, (from, until, generation, who)) in held.iter().enumerate() {
                for (later, _, higher, other) in &held[n + 1..] {
                    prop_assert!(who == other || later >= until, "{who} until {until:?}, {other} from {later:?}, {from:?}");
                    prop_assert!(higher > generation || (who == other && higher == generation));
                }
            }
        }
    }
}
