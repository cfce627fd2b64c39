//! The lease of the watchers: one leads, the others stand by.

use super::clock::Clock;
use crate::cluster::{Candidate, ClusterPort, Seat};
use crate::watch::brain::{Input, LeaseState};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// The object of the lease.
pub const LEASE: &str = "watch.leader";
/// The shortest term: longer than the storage stands still when a host is lost (4 s at worst), shorter than the 6 s in
/// which another watcher has to take over.
const SHORTEST_TERM: Duration = Duration::from_millis(4500);
/// Renewals within a term.
const RENEWALS: u32 = 9;
/// An attempt that takes longer is told of as a stall, and begun anew: the mon host it was asked through may be the
/// one that died.
const STALL: Duration = Duration::from_millis(1200);

/// The term that goes with a patience.
pub(super) fn term(patience: Duration) -> Duration {
    (patience * 5).max(SHORTEST_TERM)
}

/// Takes the lease, renews it or waits for it, until nobody wants to know.
pub(super) async fn hold(
    port: Arc<dyn ClusterPort>,
    clock: Clock,
    me: String,
    term: Duration,
    tell: mpsc::Sender<Input>,
) {
    let mut candidate = Candidate::new(LEASE, me, "watches the rack", term);
    loop {
        // Before the attempt: nobody else counts the term from an earlier moment.
        let asked = clock.now();
        let attempt = timeout(STALL, candidate.attempt(port.as_ref())).await;
        let state = match attempt {
            Ok(Ok(Seat::Held { generation, .. })) => LeaseState::Held { until: asked + term, generation },
            Ok(Ok(Seat::Taken { lease, free_at })) => {
                LeaseState::Taken { holder: lease.holder, free_at: clock.at(free_at) }
            }
            Ok(Err(_)) | Err(_) => LeaseState::Stalled,
        };
        if tell.send(Input::Lease(state)).await.is_err() {
            return;
        }
        sleep(term / RENEWALS).await;
    }
}
