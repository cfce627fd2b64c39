//! Incidents in the cluster.

use super::document::{Incident, Outcome, PREFIX, Step};
use crate::cluster::{ClusterError, ClusterPort, Document, Unread, fetch, readable, update};
use serde::{Deserialize, Serialize};

/// The object with the number of the last incident.
const COUNTER: &str = "incidents";

#[derive(Debug, Default, Deserialize, Serialize)]
struct Counter {
    last: u64,
}

impl Document for Counter {
    const SCHEMA: &'static str = "rackhand.incidents/1";
}

/// A number that no other incident has. One that is asked for and not used stays unused.
pub(super) async fn number(port: &dyn ClusterPort) -> Result<u64, ClusterError> {
    update(port, COUNTER, |found: Option<Counter>| {
        let last = found.unwrap_or_default().last + 1;
        Ok((Some(Counter { last }), last))
    })
    .await
}

/// Writes steps down; what is there already stays as it is.
pub(super) async fn write(
    port: &dyn ClusterPort,
    head: &Incident,
    steps: &[Step],
    outcome: Option<Outcome>,
) -> Result<(), ClusterError> {
    update(port, &Incident::object(head.number), |found: Option<Incident>| {
        let mut incident = found.unwrap_or_else(|| head.clone());
        if incident.id != head.id {
            return Err(ClusterError::Exists(format!("incident {} is another one", head.number)));
        }
        incident.merge(steps, outcome);
        Ok((Some(incident), ()))
    })
    .await
}

/// All incidents, the oldest first, and those that cannot be read.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn all(port: &dyn ClusterPort) -> Result<(Vec<Incident>, Vec<Unread>), ClusterError> {
    let (mut incidents, unread) = readable::<Incident>(port, PREFIX).await?;
    incidents.sort_by_key(|incident| incident.number);
    Ok((incidents, unread))
}

/// An incident by its number.
///
/// # Errors
/// When the cluster cannot be asked, or the incident cannot be read.
pub async fn one(port: &dyn ClusterPort, number: u64) -> Result<Option<Incident>, ClusterError> {
    Ok(fetch::<Incident>(port, &Incident::object(number)).await?.map(|(incident, _)| incident))
}

/// Incidents that have not ended: whoever handled them may have been killed.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn unfinished(port: &dyn ClusterPort) -> Result<Vec<Incident>, ClusterError> {
    Ok(all(port).await?.0.into_iter().filter(|incident| incident.outcome.is_none()).collect())
}
