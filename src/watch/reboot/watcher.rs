//! The watch has to know of a host's maintenance before the host goes away.

use crate::cluster::{Lease, fetch};
use crate::error::Failure;
use crate::guest::GuestContext;
use crate::watch::driver::{LEASE, WatchStatus};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long the leading watcher may take to see it: a look every 2 s, of 5 s at most, and one that failed.
const PATIENCE: Duration = Duration::from_secs(15);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// Waits until the leading watcher has said that it knows of the maintenance of a host; where none leads, there is nothing
/// to wait for.
///
/// # Errors
/// When a watcher leads and does not take note.
pub(super) async fn knows(rack: &GuestContext, host: &str) -> Result<(), Failure> {
    let port = rack.port();
    let began = Instant::now();
    let mut first: Option<Lease> = None;
    loop {
        let Some((lease, _)) = fetch::<Lease>(port, LEASE).await?.filter(|(lease, _)| lease.is_held()) else {
            return Ok(());
        };
        let said = WatchStatus::read(port).await?.filter(|said| said.holder == lease.holder);
        if said.is_some_and(|said| said.maintenance.contains(host)) {
            return Ok(());
        }
        let is_alive = first.get_or_insert_with(|| lease.clone()) != &lease;
        if began.elapsed() >= PATIENCE.max(lease.term()) {
            return match is_alive {
                // A watcher that begins to lead looks before it acts.
                false => Ok(()),
                true => Err(Failure::failed(format!(
                    "the watch ({}) does not take note that {host} is in maintenance",
                    lease.holder
                ))
                .hint("look at `rackhand watch status`; the host was not rebooted")),
            };
        }
        sleep(LOOK).await;
    }
}
