//! A hold on a guest: while another process works on it where it is, it is neither moved nor deleted.
//!
//! A hold is a lease, so it ends with the process that has it: see [`crate::cluster::Lease`].

use crate::cluster::{Candidate, ClusterError, ClusterPort, Lease, Seat, Version, decode, encode, fetch, update};
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
    /// one ever. It has to be renewed every [`RENEW`]. The claim and the definition are to be read after it: a guest that is
    /// on its way, or being deleted, is not for this process.
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
/// term is of a process that died: it is taken away. `told` hears of the hold that is watched.
///
/// # Errors
/// [`Kind::Busy`] as soon as the hold is seen to be renewed.
pub async fn wait_out(port: &dyn ClusterPort, guest: Uuid, told: impl Fn(&Lease)) -> Result<(), Failure> {
    let Some((seen, version)) = read(port, guest).await? else { return Ok(()) };
    told(&seen);
    let since = Instant::now();
    while since.elapsed() < seen.term() {
        sleep(LOOK).await;
        match read(port, guest).await? {
            None => return Ok(()),
            Some((lease, _)) if lease == seen => {}
            Some((lease, _)) => return Err(held(guest, &lease)),
        }
    }
    // Over the very version that was watched: a renewal that comes now makes it fail.
    match port.replace(&object(guest), &encode(&seen.freed())?, version).await {
        Err(ClusterError::Conflict(_)) => refuse(port, guest).await,
        written => Ok(written.map(drop)?),
    }
}

/// Refuses if a process holds the guest, without waiting. To be asked once the claim is written that says what is
/// about to happen: whoever takes a hold reads the claim after it, so one of the two sees the other.
///
/// # Errors
/// [`Kind::Busy`] when there is a hold.
pub async fn refuse(port: &dyn ClusterPort, guest: Uuid) -> Result<(), Failure> {
    match read(port, guest).await? {
        Some((lease, _)) => Err(held(guest, &lease)),
        None => Ok(()),
    }
}

async fn read(port: &dyn ClusterPort, guest: Uuid) -> Result<Option<(Lease, Version)>, ClusterError> {
    Ok(fetch::<Lease>(port, &object(guest)).await?.filter(|(lease, _)| lease.is_held()))
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
        wait_out(&port, guest, |_| ()).await.unwrap();
        let mut hold = Hold::take(&port, guest, "backup 1 on laptop", "a backup").await.unwrap();
        assert_eq!(all(&port).await.unwrap().keys().collect::<Vec<_>>(), [&guest]);
        let renewed = async {
            sleep(RENEW).await;
            hold.renew(&port).await.unwrap();
        };
        let (refused, ()) = tokio::join!(wait_out(&port, guest, |_| ()), renewed);
        let failure = refused.unwrap_err();
        assert_eq!(failure.kind, Kind::Busy);
        assert_eq!(
            failure.to_string(),
            "guest 00000000-0000-0000-0000-000000000007 is held by backup 1 on laptop for a backup"
        );
        let other = Hold::take(&port, guest, "backup 2 on laptop", "a backup").await.unwrap_err();
        assert_eq!(other.kind, Kind::Busy);
        assert_eq!(refuse(&port, guest).await.unwrap_err().kind, Kind::Busy);
        // Its process dies.
        let began = Instant::now();
        wait_out(&port, guest, |_| ()).await.unwrap();
        assert!(began.elapsed() >= TERM && began.elapsed() < TERM + 2 * LOOK);
        assert!(all(&port).await.unwrap().is_empty());
        refuse(&port, guest).await.unwrap();
        // It was only away: its hold is a new one, and another process may have moved the guest meanwhile.
        hold.renew(&port).await.unwrap();
        hold.release(&port).await.unwrap();
        assert!(all(&port).await.unwrap().is_empty());
        let began = Instant::now();
        wait_out(&port, guest, |_| ()).await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
        forget(&port, guest).await.unwrap();
        assert_eq!(port.get(&object(guest)).await.unwrap(), None);
    }
}
