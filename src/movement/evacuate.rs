//! Emptying a host, and bringing back what left it.

use super::options::Options;
use super::plan::{Facts, Plan, Unmoved, plan, plan_evacuation};
use super::planning_input::{Wanted, answers, gather};
use crate::cluster::{ClusterError, update};
use crate::error::Failure;
use crate::guest::claim::{self, Phase};
use crate::guest::{GuestContext, HostState, Maintenance, end_maintenance, read_host_states, set_maintenance};
use crate::ui::CancelLevel;
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::watch;
use uuid::Uuid;

/// A host that shall be emptied.
#[derive(Debug)]
pub struct Evacuation {
    /// The host.
    pub host: String,
    /// What moves where.
    pub plan: Plan,
    /// The guests it was found with.
    here: BTreeSet<Uuid>,
}

impl Evacuation {
    /// Looks at the rack and plans.
    ///
    /// # Errors
    /// When the host is unknown or silent, or the cluster cannot be asked.
    pub async fn plan(
        rack: &GuestContext,
        host: &str,
        options: &Options,
        cancel_level: &watch::Receiver<CancelLevel>,
        change: bool,
    ) -> Result<Self, Failure> {
        known(rack, host)?;
        let facts = facts(rack, host, &Wanted::On(host.to_owned()), options, cancel_level, change).await?;
        let here = facts.guests.iter().filter(|guest| guest.host == host).map(|guest| guest.uuid).collect();
        Ok(Evacuation { host: host.to_owned(), plan: plan_evacuation(&facts, host), here })
    }

    /// Closes the host to guests, and remembers who is about to leave where that is wanted. Guests that got there
    /// after it was planned are planned in.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn begin(
        self,
        rack: &GuestContext,
        remember: bool,
        options: &Options,
        cancel_level: &watch::Receiver<CancelLevel>,
    ) -> Result<Self, Failure> {
        let maintenance = Maintenance {
            since: jiff::Timestamp::now(),
            by: rack.run.by.clone(),
            why: Some("evacuated".to_owned()),
            ..Maintenance::default()
        };
        set_maintenance(rack.port(), &self.host, Some(maintenance)).await?;
        let evacuation = match self.somebody_came(rack).await? {
            true => Evacuation::plan(rack, &self.host, options, cancel_level, true).await?,
            false => self,
        };
        if remember {
            let moves = &evacuation.plan.moves;
            let leaving: BTreeMap<Uuid, String> = moves.iter().map(|m| (m.uuid, m.guest.clone())).collect();
            change_left(rack, &evacuation.host, |left| left.extend(leaving.clone())).await?;
        }
        Ok(evacuation)
    }

    /// Whether guests got to the host since it was planned. From now on nobody brings any more: whoever had looked
    /// before has written his claim by now, and is waited for, or sees the maintenance when he enters its reservation.
    async fn somebody_came(&self, rack: &GuestContext) -> Result<bool, Failure> {
        let mut came = false;
        for (guest, claim) in claim::all(rack.port()).await? {
            if self.here.contains(&guest) || !claim.places().any(|place| place == self.host) {
                continue;
            }
            came = true;
            if claim.phase == Phase::Starting {
                rack.ui.note(format!("waits for a guest that is being started there by {}", claim.by));
                claim::wait_out(rack.port(), guest, claim, |_, _| ()).await?;
            }
        }
        Ok(came)
    }
}

/// A host that gets back what left it.
#[derive(Debug)]
pub struct ReturnPlan {
    /// The host.
    pub host: String,
    /// What moves back.
    pub plan: Plan,
    /// Whether it is in service already, and nobody is written down as having left it.
    pub over: bool,
}

impl ReturnPlan {
    /// Plans the way back of those that left.
    ///
    /// # Errors
    /// When the host is unknown or silent, or the cluster cannot be asked.
    pub async fn plan(
        rack: &GuestContext,
        host: &str,
        options: &Options,
        cancel_level: &watch::Receiver<CancelLevel>,
        change: bool,
    ) -> Result<Self, Failure> {
        known(rack, host)?;
        let states = read_host_states(rack.port()).await?;
        let left = states.get(host).map(|s| s.left.clone()).unwrap_or_default();
        let guests = rack.guests().await?.into_iter().filter(|g| left.contains_key(&g.uuid)).collect();
        let mut facts = facts(rack, host, &Wanted::Guests(guests), options, cancel_level, change).await?;
        for room in facts.rooms.iter_mut().filter(|r| r.name == host) {
            room.closed = None;
        }
        let wanted: Vec<Uuid> = left.keys().copied().collect();
        let mut plan = plan(&facts, &wanted, Some(host));
        for (uuid, name) in &left {
            let unmoved_guest =
                |reason: &str| Unmoved { guest: name.clone(), host: String::new(), reason: reason.to_owned() };
            match facts.hidden.get(uuid) {
                _ if facts.unsettled.contains_key(uuid) || facts.guests.iter().any(|g| g.uuid == *uuid) => {}
                Some(why) => plan.refused.push(unmoved_guest(why)),
                None => plan.unchanged.push(unmoved_guest("does not run any more; it stays as it is")),
            }
        }
        let over = left.is_empty() && states.get(host).is_none_or(|s| s.maintenance.is_none());
        Ok(ReturnPlan { host: host.to_owned(), plan, over })
    }

    /// Opens the host to guests.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn begin(&self, rack: &GuestContext) -> Result<bool, Failure> {
        end_maintenance(rack.port(), &self.host).await
    }

    /// Forgets those that came back or need not.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn end(&self, rack: &GuestContext, missing: &[Uuid]) -> Result<(), Failure> {
        let refused: Vec<&str> =
            self.plan.refused.iter().chain(&self.plan.unsettled).map(|s| s.guest.as_str()).collect();
        change_left(rack, &self.host, |left| {
            left.retain(|uuid, name| missing.contains(uuid) || refused.contains(&name.as_str()));
        })
        .await
    }
}

fn known(rack: &GuestContext, host: &str) -> Result<(), Failure> {
    match rack.hypervisors.get(host) {
        Ok(_) => Ok(()),
        Err(_) => Err(Failure::usage(format!("the inventory has no host `{host}` that runs guests"))
            .hint("see the hosts with `rackhand inventory show`")),
    }
}

/// What planning about a host that answers starts from.
async fn facts(
    rack: &GuestContext,
    host: &str,
    wanted: &Wanted,
    options: &Options,
    cancel_level: &watch::Receiver<CancelLevel>,
    change: bool,
) -> Result<Facts, Failure> {
    let facts = gather(rack, wanted, options, cancel_level, change).await?;
    answers(&facts, host).map(|()| facts)
}

async fn change_left(
    rack: &GuestContext,
    host: &str,
    change: impl Fn(&mut BTreeMap<Uuid, String>) + Send + Sync,
) -> Result<(), Failure> {
    let object = HostState::object(host);
    let set = update(rack.port(), &object, |found: Option<HostState>| {
        let mut state = found.unwrap_or_else(|| HostState { name: host.to_owned(), ..HostState::default() });
        change(&mut state.left);
        Ok::<_, ClusterError>((Some(state), ()))
    });
    set.await.map_err(Failure::from)
}
