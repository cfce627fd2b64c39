//! What the cluster remembers of a host.

use crate::cluster::{ClusterError, ClusterPort, Document, readable, update};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// What the names of hosts' state objects begin with.
const PREFIX: &str = "host.";

/// A host's standing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct HostState {
    /// The host's name in the inventory.
    pub name: String,
    /// Since when it takes no guests, and why.
    #[serde(default)]
    pub maintenance: Option<Maintenance>,
    /// Guests that left it and shall come back, by id.
    #[serde(default)]
    pub left: BTreeMap<Uuid, String>,
}

/// A host that takes no guests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Maintenance {
    /// Since when.
    pub since: jiff::Timestamp,
    /// Who said so.
    pub by: String,
    /// Why.
    #[serde(default)]
    pub why: Option<String>,
    /// When it was meant to be over. Nothing ends by itself then: people are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<jiff::Timestamp>,
    /// Whether Ceph was told not to move the data of its OSDs elsewhere while they are down (`noout`).
    #[serde(default)]
    pub noout: bool,
}

impl Maintenance {
    /// For how many seconds it has been over; nothing where it is not, or has no end.
    pub fn overdue(&self, now: jiff::Timestamp) -> Option<i64> {
        let late = now.as_second() - self.until?.as_second();
        (late > 0).then_some(late)
    }
}

impl Document for HostState {
    const SCHEMA: &'static str = "rackhand.host/1";
}

impl HostState {
    /// The state object of a host.
    pub fn object(name: &str) -> String {
        format!("{PREFIX}{name}")
    }
}

/// What is remembered of all hosts. One whose state cannot be read takes no guests: it may be in maintenance.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn read(port: &dyn ClusterPort) -> Result<BTreeMap<String, HostState>, ClusterError> {
    let (hosts, unread) = readable::<HostState>(port, PREFIX).await?;
    let unread = unread.into_iter().filter_map(|object| {
        let name = object.object.strip_prefix(PREFIX)?.to_owned();
        let by = "rackhand".to_owned();
        let maintenance = Maintenance { by, why: Some(object.why), ..Maintenance::default() };
        Some(HostState { name, maintenance: Some(maintenance), left: BTreeMap::new() })
    });
    Ok(hosts.into_iter().chain(unread).map(|host| (host.name.clone(), host)).collect())
}

/// Puts a host into maintenance, or takes it out of it; tells whether that changed anything.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn set_maintenance(
    port: &dyn ClusterPort,
    name: &str,
    maintenance: Option<Maintenance>,
) -> Result<bool, ClusterError> {
    update(port, &HostState::object(name), |found: Option<HostState>| {
        let mut host = found.unwrap_or_else(|| HostState { name: name.to_owned(), ..HostState::default() });
        let changed = host.maintenance.is_some() != maintenance.is_some();
        if changed {
            host.maintenance = maintenance.clone();
        }
        Ok((Some(host), changed))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::FakeCluster;

    #[tokio::test]
    async fn maintenance_goes_on_once_and_off_again() {
        let port = FakeCluster::new();
        let since = jiff::Timestamp::UNIX_EPOCH;
        let on = || Some(Maintenance { since, by: "me".into(), ..Maintenance::default() });
        assert!(set_maintenance(&port, "h1", on()).await.unwrap());
        assert!(!set_maintenance(&port, "h1", on()).await.unwrap());
        assert!(read(&port).await.unwrap()["h1"].maintenance.is_some());
        assert!(set_maintenance(&port, "h1", None).await.unwrap());
        assert!(read(&port).await.unwrap()["h1"].maintenance.is_none());
        port.create("host.h2", "{").await.unwrap();
        let all = read(&port).await.unwrap();
        assert!(all["h1"].maintenance.is_none() && all["h2"].maintenance.is_some(), "it may be in maintenance");
    }
}
