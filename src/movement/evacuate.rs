//! Emptying a host, and bringing back what left it.

use super::Options;
use super::gather::{Wanted, gather};
use super::plan::{Facts, Plan, Stay, plan, plan_evacuation};
use crate::cluster::{ClusterError, update};
use crate::error::Failure;
use crate::guest::{HostState, Maintenance, Rack, read_host_states, set_maintenance};
use crate::ui::Urgency;
use std::collections::BTreeMap;
use tokio::sync::watch;
use uuid::Uuid;

/// A host that shall be emptied.
#[derive(Debug)]
pub struct Evacuation {
    /// The host.
    pub host: String,
    /// What moves where.
    pub plan: Plan,
}

impl Evacuation {
    /// Looks at the rack and plans.
    ///
    /// # Errors
    /// When the host is unknown or silent, or the cluster cannot be asked.
    pub async fn plan(
        rack: &Rack,
        host: &str,
        options: &Options,
        urgency: &watch::Receiver<Urgency>,
        change: bool,
    ) -> Result<Self, Failure> {
        known(rack, host)?;
        let facts = gather(rack, &Wanted::On(host.to_owned()), options, urgency, change).await?;
        answers(&facts, host)?;
        Ok(Evacuation { host: host.to_owned(), plan: plan_evacuation(&facts, host) })
    }

    /// Closes the host to guests, and remembers who is about to leave where that is wanted.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn begin(&self, rack: &Rack, remember: bool) -> Result<(), Failure> {
        let maintenance =
            Maintenance { since: jiff::Timestamp::now(), by: rack.run.by.clone(), why: Some("evacuated".to_owned()) };
        set_maintenance(rack.port(), &self.host, Some(maintenance)).await.map_err(ClusterError::failure)?;
        if remember {
            let leaving: BTreeMap<Uuid, String> = self.plan.moves.iter().map(|m| (m.uuid, m.guest.clone())).collect();
            change_left(rack, &self.host, |left| left.extend(leaving.clone())).await?;
        }
        Ok(())
    }
}

/// A host that gets back what left it.
#[derive(Debug)]
pub struct Homecoming {
    /// The host.
    pub host: String,
    /// What moves back.
    pub plan: Plan,
}

impl Homecoming {
    /// Opens the host to guests again (unless this is for show) and plans the way back of those that left.
    ///
    /// # Errors
    /// When the host is unknown or silent, or the cluster cannot be asked.
    pub async fn plan(
        rack: &Rack,
        host: &str,
        options: &Options,
        urgency: &watch::Receiver<Urgency>,
        change: bool,
    ) -> Result<Self, Failure> {
        known(rack, host)?;
        let states = read_host_states(rack.port()).await.map_err(ClusterError::failure)?;
        let left = states.get(host).map(|s| s.left.clone()).unwrap_or_default();
        let guests = rack.guests().await?.into_iter().filter(|g| left.contains_key(&g.uuid)).collect();
        let mut facts = gather(rack, &Wanted::Guests(guests), options, urgency, change).await?;
        answers(&facts, host)?;
        for room in facts.rooms.iter_mut().filter(|r| r.name == host) {
            room.closed = None;
        }
        let wanted: Vec<Uuid> = left.keys().copied().collect();
        let mut plan = plan(&facts, &wanted, Some(host));
        for (uuid, name) in &left {
            if !facts.guests.iter().any(|g| g.uuid == *uuid) {
                let reason = "does not run any more; it stays as it is".to_owned();
                plan.unchanged.push(Stay { guest: name.clone(), host: String::new(), reason });
            }
        }
        Ok(Homecoming { host: host.to_owned(), plan })
    }

    /// Opens the host to guests.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn begin(&self, rack: &Rack) -> Result<bool, Failure> {
        set_maintenance(rack.port(), &self.host, None).await.map_err(ClusterError::failure)
    }

    /// Forgets those that came back or need not.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn end(&self, rack: &Rack, missing: &[Uuid]) -> Result<(), Failure> {
        let refused: Vec<&str> = self.plan.refused.iter().map(|s| s.guest.as_str()).collect();
        change_left(rack, &self.host, |left| {
            left.retain(|uuid, name| missing.contains(uuid) || refused.contains(&name.as_str()));
        })
        .await
    }
}

fn known(rack: &Rack, host: &str) -> Result<(), Failure> {
    match rack.hypervisors.get(host) {
        Ok(_) => Ok(()),
        Err(_) => Err(Failure::usage(format!("the inventory has no host `{host}` that runs guests"))
            .hint("see the hosts with `rackhand host list`")),
    }
}

fn answers(facts: &Facts, host: &str) -> Result<(), Failure> {
    let room = facts.rooms.iter().find(|r| r.name == host);
    match room.and_then(|r| r.closed.as_deref()).filter(|why| why.starts_with("does not answer")) {
        Some(why) => Err(Failure::failed(format!("host {host} {why}"))
            .hint("guests of a host that is gone are started elsewhere after it was fenced, not moved")),
        None => Ok(()),
    }
}

async fn change_left(
    rack: &Rack,
    host: &str,
    change: impl Fn(&mut BTreeMap<Uuid, String>) + Send + Sync,
) -> Result<(), Failure> {
    let object = HostState::object(host);
    let set = update(rack.port(), &object, |found: Option<HostState>| {
        let mut state = found.unwrap_or_else(|| HostState { name: host.to_owned(), ..HostState::default() });
        change(&mut state.left);
        Ok::<_, ClusterError>((Some(state), ()))
    });
    set.await.map_err(ClusterError::failure)
}
