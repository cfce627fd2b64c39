//! One planned reboot in the rack at a time: a lease, renewed while the command lives.

use crate::cluster::{Candidate, ClusterPort, Seat};
use crate::error::{Failure, Kind};
use crate::guest::GuestContext;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

/// The object of the lease.
const LEASE: &str = "reboots";
/// The term. The storage stands still for a few seconds while a mon is away; a command that died is waited for this long.
const TERM: Duration = Duration::from_secs(60);
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(10);

/// The turn to reboot hosts; dropped, it ends with its term.
#[derive(Debug)]
pub struct Turn {
    port: Arc<dyn ClusterPort>,
    me: String,
    until: Arc<Mutex<Instant>>,
    renewal: JoinHandle<()>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

impl Turn {
    /// Takes the turn. One that a command left behind when it died is waited out.
    ///
    /// # Errors
    /// [`Kind::Busy`] when another run reboots hosts.
    pub async fn take(rack: &GuestContext) -> Result<Self, Failure> {
        let me = format!("{}, {}", rack.run.by, rack.run.id);
        let mut candidate = Candidate::new(LEASE, me.clone(), "reboots hosts", TERM);
        let mut waited = false;
        let until = loop {
            match candidate.attempt(rack.port()).await? {
                Seat::Held { until, .. } => break until,
                Seat::Taken { lease, .. } if waited => {
                    let text = format!("{} reboots hosts just now", lease.holder);
                    return Err(Failure::msg(Kind::Busy, text).hint("one run at a time does; try again later"));
                }
                Seat::Taken { lease, free_at } => {
                    waited = true;
                    rack.ui.note(format!("waits {} s for a sign of {}", lease.term().as_secs(), lease.holder));
                    sleep_until(free_at).await;
                }
            }
        };
        let until = Arc::new(Mutex::new(until));
        let (port, renewed) = (Arc::clone(&rack.port), Arc::clone(&until));
        let renewal = tokio::spawn(async move {
            loop {
                sleep(RENEW).await;
                // One that fails leaves the time that was told last.
                if let Ok(Seat::Held { until, .. }) = candidate.attempt(port.as_ref()).await {
                    *renewed.lock().unwrap_or_else(PoisonError::into_inner) = until;
                }
            }
        });
        Ok(Turn { port: Arc::clone(&rack.port), me, until, renewal })
    }

    /// Whether it is certain that no other run has taken the turn.
    pub(super) fn holds(&self) -> bool {
        Instant::now() < *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the turn back; else the next run waits for the end of its term.
    pub async fn end(self) {
        self.renewal.abort();
        let candidate = Candidate::new(LEASE, self.me.clone(), String::new(), TERM);
        let _ = tokio::time::timeout(RENEW, candidate.resign(self.port.as_ref())).await;
    }
}
