//! What people and other watchers have written into the cluster, looked at every now and then.

use super::documents::{Disarmed, OpenIncidents};
use crate::cluster::{ClusterError, ClusterPort};
use crate::fence;
use crate::guest::read_host_states;
use crate::watch::brain::Phase;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// How often the cluster is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How long a look may take; it is begun anew then.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ClusterState {
    /// Incidents that are open.
    pub(super) open: BTreeMap<String, Phase>,
    /// What holds the watch back.
    pub(super) disarmed: Option<Disarmed>,
    /// Hosts that are fenced, as it is written down; one that is about to be let in again still is.
    pub(super) fenced: BTreeSet<String>,
    /// Hosts in maintenance.
    pub(super) maintenance: BTreeSet<String>,
    /// Those whose maintenance should be over, with since when.
    pub(super) overdue: BTreeMap<String, Timestamp>,
}

/// Looks again and again, until nobody wants to know.
pub(super) async fn follow(port: Arc<dyn ClusterPort>, tell: mpsc::Sender<ClusterState>) {
    loop {
        // One that fails leaves what was known as it was.
        if let Ok(Ok(state)) = timeout(PATIENCE, look(port.as_ref())).await
            && tell.send(state).await.is_err()
        {
            return;
        }
        sleep(LOOK).await;
    }
}

async fn look(port: &dyn ClusterPort) -> Result<ClusterState, ClusterError> {
    let open = OpenIncidents::read(port).await?.hosts.into_iter().map(|(host, entry)| (host, entry.phase)).collect();
    let disarmed = Disarmed::read(port).await?;
    let hosts = read_host_states(port).await?;
    let now = Timestamp::now();
    let (mut maintenance, mut overdue) = (BTreeSet::new(), BTreeMap::new());
    for (name, host) in hosts {
        let Some(of_host) = host.maintenance else { continue };
        if let Some(until) = of_host.until.filter(|_| of_host.overdue(now).is_some()) {
            overdue.insert(name.clone(), until);
        }
        maintenance.insert(name);
    }
    let fenced = fence::records(port).await?.into_keys().collect();
    Ok(ClusterState { open, disarmed, fenced, maintenance, overdue })
}
