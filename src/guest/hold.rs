//! A hold on a guest: while another process works on it where it is, it is neither moved nor deleted.
//!
//! A hold is a lease, so it ends with the process that has it: see [`crate::cluster::Lease`].

use crate::cluster::{Candidate, ClusterError, ClusterPort, Lease, Seat, decode, fetch, update};
use crate::error::{Failure, Kind};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// How long a hold lasts that is not renewed. Long enough for a renewal that meets an election of the monitors; what
/// waits for a process that died waits this long.
pub const TERM: Duration = Duration::from_secs(30);
/// How often a hold is renewed.
pub const RENEW: Duration = Duration::from_secs(8);
/// What the names of holds begin with.
const PREFIX: &str = "hold.";
/// Time between two looks at a hold that is waited out.
const LOOK: Duration = Duration::from_secs(1);

/// The state object of a guest's hold.
pub fn object(guest: Uuid) -> String {
    format!("{PREFIX}{guest}")
}

/// A hold that this process has, or wants.
#[derive(Debug)]
pub struct Hold {
    guest: Uuid,
    candidate: Candidate,
}

impl Hold {
    /// Holds a guest for `reason`, in words that stand after "it is held for". `owner` names the process, and no other
    /// one ever. It has to be renewed every [`RENEW`].
    ///
    /// # Errors
    /// [`Kind::Busy`] when another process holds it.
    pub async fn take(port: &dyn ClusterPort, guest: Uuid, owner: &str, reason: &str) -> Result<Self, Failure> {
        let mut hold = Hold { guest, candidate: Candidate::new(object(guest), owner, reason, TERM) };
        hold.renew(port).await?;
        Ok(hold)
    }

    /// Keeps the hold; tells until when it lasts.
    ///
    /// # Errors
    /// [`Kind::Busy`] when it was lost: it was not renewed in time, and another process has it now.
    pub async fn renew(&mut self, port: &dyn ClusterPort) -> Result<Instant, Failure> {
        match self.candidate.attempt(port).await? {
            Seat::Held { until, .. } => Ok(until),
            Seat::Taken { lease, .. } => Err(held(self.guest, &lease)),
        }
    }

    /// Lets the guest go.
    ///
    /// # Errors
    /// When the cluster cannot be asked; the hold then ends by itself.
    pub async fn release(self, port: &dyn ClusterPort) -> Result<(), ClusterError> {
        self.candidate.resign(port).await
    }
}

/// All guests that are held, or were when their holder died.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn all(port: &dyn ClusterPort) -> Result<BTreeMap<Uuid, Lease>, ClusterError> {
    let mut holds = BTreeMap::new();
    for entry in port.list(PREFIX).await? {
        let Some(guest) = entry.name.strip_prefix(PREFIX).and_then(|uuid| uuid.parse().ok()) else { continue };
        let lease: Lease = decode(&entry.name, &entry.data)?;
        if lease.is_held() {
            holds.insert(guest, lease);
        }
    }
    Ok(holds)
}

/// Makes sure that no process holds a guest, before it is moved or deleted. A hold that is not renewed for its whole
/// term is of a process that died, and counts no more.
///
/// # Errors
/// [`Kind::Busy`] as soon as the hold is seen to be renewed.
pub async fn none(port: &dyn ClusterPort, guest: Uuid) -> Result<(), Failure> {
    let held_now =
        || async { Ok::<_, ClusterError>(fetch::<Lease>(port, &object(guest)).await?.map(|(lease, _)| lease)) };
    let Some(seen) = held_now().await?.filter(Lease::is_held) else { return Ok(()) };
    let since = Instant::now();
    while since.elapsed() < seen.term() {
        sleep(LOOK).await;
        match held_now().await?.filter(Lease::is_held) {
            None => return Ok(()),
            Some(lease) if lease == seen => {}
            Some(lease) => return Err(held(guest, &lease)),
        }
    }
    Ok(())
}

/// Removes what is left of a deleted guest's holds.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn forget(port: &dyn ClusterPort, guest: Uuid) -> Result<(), ClusterError> {
    update(port, &object(guest), |_: Option<Lease>| Ok((None, ()))).await
}

fn held(guest: Uuid, lease: &Lease) -> Failure {
    Failure::msg(Kind::Busy, format!("guest {guest} is held by {} for {}", lease.holder, lease.purpose))
        .hint("wait until that has ended; then run the same command again")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::FakeCluster;

    #[tokio::test(start_paused = true)]
    async fn a_hold_that_lives_refuses_and_one_that_died_is_waited_out() {
        let (port, guest) = (FakeCluster::new(), Uuid::from_u128(7));
        none(&port, guest).await.unwrap();
        let mut hold = Hold::take(&port, guest, "backup 1 on laptop", "a backup").await.unwrap();
        assert_eq!(all(&port).await.unwrap().keys().collect::<Vec<_>>(), [&guest]);
        let renewed = async {
            sleep(RENEW).await;
            hold.renew(&port).await.unwrap();
        };
        let (refused, ()) = tokio::join!(none(&port, guest), renewed);
        let failure = refused.unwrap_err();
        assert_eq!(failure.kind, Kind::Busy);
        assert_eq!(
            failure.to_string(),
            "guest 00000000-0000-0000-0000-000000000007 is held by backup 1 on laptop for a backup"
        );
        let other = Hold::take(&port, guest, "backup 2 on laptop", "a backup").await.unwrap_err();
        assert_eq!(other.kind, Kind::Busy);
        // Its process dies.
        let began = Instant::now();
        none(&port, guest).await.unwrap();
        assert!(began.elapsed() >= TERM && began.elapsed() < TERM + 2 * LOOK);
        hold.release(&port).await.unwrap();
        assert!(all(&port).await.unwrap().is_empty());
        let began = Instant::now();
        none(&port, guest).await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
        forget(&port, guest).await.unwrap();
        assert_eq!(port.get(&object(guest)).await.unwrap(), None);
    }
}
