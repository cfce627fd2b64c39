//! Rehearsals that go on by themselves: the leading watcher tries every path of each host's fence, read-only.

use super::driver::LEASE;
use crate::cluster::{ClusterError, ClusterPort, Lease, fetch};
use crate::fence::{Rehearsal, rehearsals, rehearse};
use crate::inventory::{HostSpec, Inventory};
use crate::ssh::Fleet;
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Age from which on a host's fence is rehearsed again. Well below the hour after which it counts as untested.
const AGAIN: SignedDuration = SignedDuration::from_mins(10);
/// How often it is looked whose turn it is.
const LOOK: Duration = Duration::from_secs(20);
/// Hosts that are rehearsed at once: of 100 hosts each has its turn within ten minutes.
const AT_ONCE: usize = 4;
/// How long one round may take.
const ROUND: Duration = Duration::from_secs(60);

/// Rehearses the fences of all hosts again and again, while the watcher of this name leads.
pub async fn follow(port: Arc<dyn ClusterPort>, inventory: Arc<Inventory>, fleet: Fleet, me: String) {
    loop {
        sleep(LOOK).await;
        // What fails is tried again at the next look; its age tells.
        let round = async {
            if leads(port.as_ref(), &me).await? {
                let hosts = due(&inventory, &rehearsals(port.as_ref()).await?.0, Timestamp::now());
                rehearse(port.as_ref(), &inventory, &fleet, &hosts, Timestamp::now()).await?;
            }
            Ok::<(), ClusterError>(())
        };
        if let Ok(Err(error)) = timeout(ROUND, round).await {
            tracing::debug!(%error, "a rehearsal of fences");
        }
    }
}

async fn leads(port: &dyn ClusterPort, me: &str) -> Result<bool, ClusterError> {
    Ok(fetch::<Lease>(port, LEASE).await?.is_some_and(|(lease, _)| lease.holder == me))
}

/// The hosts whose turn it is, those first that have waited longest.
fn due<'a>(inventory: &'a Inventory, known: &[Rehearsal], now: Timestamp) -> Vec<&'a HostSpec> {
    let tried = |host: &HostSpec| known.iter().find(|rehearsal| rehearsal.host == host.name).map(|one| one.tried);
    let mut hosts: Vec<(Option<Timestamp>, &HostSpec)> =
        inventory.hosts.iter().map(|host| (tried(host), host)).collect();
    hosts.retain(|(tried, _)| tried.is_none_or(|at| now.duration_since(at) >= AGAIN));
    hosts.sort_by_key(|(tried, _)| *tried);
    hosts.into_iter().take(AT_ONCE).map(|(_, host)| host).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Candidate, FakeCluster};
    use crate::guest::sample_inventory;
    use crate::ssh::{FakeRemote, Remote};
    use serde_json::json;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_host_that_waited_longest_has_its_turn_first() {
        let inventory = sample_inventory();
        let tried = |host: &str, second| Rehearsal { host: host.into(), tried: at(second), ..Rehearsal::default() };
        let names = |known: &[Rehearsal], now| -> Vec<String> {
            due(&inventory, known, at(now)).iter().map(|host| host.name.clone()).collect()
        };
        assert_eq!(names(&[tried("h1", 1_000), tried("h2", 900)], 1_500), ["h3", "h2"]);
        assert_eq!(names(&[tried("h1", 1_000), tried("h2", 900), tried("h3", 1_400)], 1_700), ["h2", "h1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_watcher_that_leads_rehearses() {
        let port = Arc::new(FakeCluster::new());
        port.answer("osd blocklist ls", json!([]));
        let fleet = Fleet::of(["h1", "h2", "h3"].map(|name| Arc::new(FakeRemote::new(name)) as Arc<dyn Remote>));
        let inventory = Arc::new(sample_inventory());
        let mut candidate = Candidate::new(LEASE, "me", "watches", Duration::from_secs(600));
        candidate.attempt(port.as_ref()).await.unwrap();
        let other = follow(port.clone(), inventory.clone(), fleet.clone(), "another".into());
        assert!(timeout(Duration::from_secs(90), other).await.is_err());
        assert!(rehearsals(port.as_ref()).await.unwrap().0.is_empty());
        assert!(timeout(Duration::from_secs(90), follow(port.clone(), inventory, fleet, "me".into())).await.is_err());
        assert_eq!(rehearsals(port.as_ref()).await.unwrap().0.len(), 3);
    }
}
