//! One backup or restore of a guest at a time: the guest's hold, renewed as long as that runs. What is held is neither moved
//! nor deleted.

use crate::cluster::{Candidate, ClusterPort, Lease, Seat};
use crate::error::{Failure, Kind};
use crate::guest::hold::{RENEW, TERM, object};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

/// Time between two looks at a lease that may be of a process that died.
const LOOK: Duration = Duration::from_secs(1);

/// Does `work` while this process holds the guest for `purpose`, in words that stand after "it is held for". What `work` needs
/// to know of the guest it reads itself: it may have been deleted before it was held.
///
/// # Errors
/// Those of the work; [`Kind::Busy`] when another process is at it, or took over because the cluster could not be asked.
pub(super) async fn alone<T>(
    port: &dyn ClusterPort,
    guest: Uuid,
    (owner, purpose): (&str, &str),
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut candidate = Candidate::new(object(guest), owner, purpose, TERM);
    let taken = take(&mut candidate, port).await?;
    let outcome = tokio::select! {
        biased;
        outcome = work => outcome,
        failure = renewed(&mut candidate, port, taken) => Err(failure),
    };
    // It runs out by itself where it cannot be given back.
    let _ = candidate.resign(port).await;
    outcome
}

fn taken(lease: &Lease) -> Failure {
    Failure::msg(Kind::Busy, format!("it is held by {} for {}", lease.holder, lease.purpose))
        .hint("wait until that has ended; then run the same command again")
}

/// Takes the lease; gives its generation, and until when it is certain. One that is not renewed for its whole term is of a process that died.
async fn take(candidate: &mut Candidate, port: &dyn ClusterPort) -> Result<(u64, Instant), Failure> {
    let mut first = None;
    loop {
        match candidate.attempt(port).await? {
            Seat::Held { generation, until } => return Ok((generation, until)),
            Seat::Taken { lease, free_at } => {
                if *first.get_or_insert_with(|| lease.clone()) != lease {
                    return Err(taken(&lease));
                }
                sleep_until(free_at.min(Instant::now() + LOOK)).await;
            }
        }
    }
}

/// Renews the lease until it is lost. One of another generation was free meanwhile, because this machine stood still: another
/// process may have held it.
async fn renewed(candidate: &mut Candidate, port: &dyn ClusterPort, (held, mut until): (u64, Instant)) -> Failure {
    loop {
        sleep(RENEW).await;
        match candidate.attempt(port).await {
            Ok(Seat::Held { generation, until: later }) if generation == held => until = later,
            Ok(Seat::Held { .. }) => {
                return Failure::msg(Kind::Busy, "the hold on it was lost while this process stood still");
            }
            Ok(Seat::Taken { lease, .. }) => return taken(&lease),
            Err(error) if Instant::now() >= until => return error.into(),
            Err(_) => {}
        }
    }
}
