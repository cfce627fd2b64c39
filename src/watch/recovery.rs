//! What follows a verdict: the host is shut out, and its guests start elsewhere.

use crate::error::{Failure, Kind};
use crate::fence::{self, FenceError, FenceRecord, Fencing, PowerProof, Stage};
use crate::guest::claim::Phase;
use crate::guest::placement::{Closed, HostCapacity, Place, place, reasons};
use crate::guest::{Desired, FollowStarts, Guest, GuestContext, PlanningInput, Started, need, restart_at};
use crate::inventory::{HostSpec, Role};
use crate::ssh::Remote;
use serde::Serialize;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// A host that is lost, or is to be treated as if it were.
#[derive(Clone, Debug)]
pub struct HostLoss<'a> {
    /// The cluster and its hosts.
    pub rack: &'a GuestContext,
    /// The host.
    pub host: &'a str,
    /// Why it is fenced, for people.
    pub why: &'a str,
}

/// Where a guest of a lost host goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Restart {
    /// The guest.
    pub guest: String,
    /// Its new host; none where no host has room.
    pub to: Option<String>,
    /// Why it has no place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What would happen to a host's guests if it were lost now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RestartPlan {
    /// The host.
    pub host: String,
    /// Its guests, in the order in which they are started.
    pub guests: Vec<Restart>,
}

impl RestartPlan {
    /// Guests that would stay down.
    pub fn stranded(&self) -> impl Iterator<Item = &Restart> {
        self.guests.iter().filter(|restart| restart.to.is_none())
    }
}

/// Guests that are to run, and may be on this host by their claims; the most important first.
fn guests_of<'a>(input: &'a PlanningInput, host: &str) -> Vec<&'a Guest> {
    let here = |guest: &&Guest| {
        let claim = input.claim(guest.uuid);
        let named = claim.phase != Phase::Free && claim.places().any(|place| place == host);
        // A start elsewhere found no room, and gave its claim back.
        let waits = claim.phase == Phase::Free && claim.last.as_deref() == Some(host);
        (named && claim.phase != Phase::Running) || ((named || waits) && guest.desired == Desired::Running)
    };
    let mut guests: Vec<&Guest> = input.guests.iter().filter(here).collect();
    guests.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.name.cmp(&b.name)));
    guests
}

/// The hosts without one that is lost.
fn without(rooms: &[HostCapacity], host: &str) -> Vec<HostCapacity> {
    let mut rooms = rooms.to_vec();
    for room in rooms.iter_mut().filter(|room| room.name == host) {
        room.closed = Some(Closed::Evacuated);
    }
    rooms
}

impl HostLoss<'_> {
    fn fencing(&self) -> Result<Fencing<'_>, Failure> {
        let inventory = &self.rack.inventory;
        let Some(spec) = inventory.host(self.host) else {
            return Err(Failure::usage(format!("the inventory has no host `{}`", self.host)));
        };
        let mons = inventory.with_role(Role::Mon).map(|mon| mon.name.clone()).filter(|name| name != self.host);
        Ok(Fencing {
            port: self.rack.port(),
            host: self.host.to_owned(),
            addresses: storage_addresses(spec),
            mons: mons.collect(),
        })
    }

    /// What would happen to its guests; nothing is changed.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn plan(&self) -> Result<RestartPlan, Failure> {
        let input = PlanningInput::take(self.rack).await?;
        let guests = guests_of(&input, self.host);
        let needs: Vec<_> = guests.iter().map(|guest| need(guest, None)).collect();
        let places = place(&without(&input.rooms, self.host), &needs);
        let restarts = guests.iter().zip(places).map(|(guest, place)| match place {
            Place::Host(to) => Restart { guest: guest.name.clone(), to: Some(to), why: None },
            Place::Nowhere(why) => Restart { guest: guest.name.clone(), to: None, why: Some(reasons(&why)) },
        });
        Ok(RestartPlan { host: self.host.to_owned(), guests: restarts.collect() })
    }

    /// Has the monitors that are left elect anew; harmless where the host lives.
    ///
    /// # Errors
    /// When the inventory does not know the host.
    pub async fn nudge(&self) -> Result<usize, Failure> {
        Ok(self.fencing()?.nudge().await)
    }

    /// Shuts the host out of the storage, and writes that down. `osds`: the host's OSDs, where they are known.
    ///
    /// # Errors
    /// When it cannot be proven: nothing may be started elsewhere then.
    pub async fn fence(
        &self,
        osds: Option<Vec<u32>>,
        reached: impl Fn(Stage) + Send + Sync,
    ) -> Result<FenceRecord, Failure> {
        let proof = self.fencing()?.run(osds, reached).await.map_err(|error| unproven(self.host, error))?;
        let record = FenceRecord {
            host: self.host.to_owned(),
            since: jiff::Timestamp::now(),
            by: self.rack.run.by.clone(),
            why: self.why.to_owned(),
            proof,
            power: None,
            lifting: false,
        };
        fence::write(self.rack.port(), &record).await?;
        Ok(record)
    }

    /// Switches the host off by its BMC, and writes the proof of it down: what is left of its guests' networks is silent then.
    /// The storage's proof does not wait for it.
    ///
    /// # Errors
    /// When it is not proven to be off within `limit`: its power is unconfirmed.
    pub async fn power_off(&self, record: &FenceRecord, limit: Duration) -> Result<PowerProof, Failure> {
        let proof = self.switch_off(limit).await?;
        self.keep_power(record, &proof).await?;
        if let Err(error) = self.fencing()?.definitely_dead(&proof).await {
            tracing::info!(%error, host = self.host, "saying that its OSDs are dead");
        }
        Ok(proof)
    }

    /// Writes the proof that the host is off down in its fence.
    ///
    /// # Errors
    /// When the fence is not that one any more: what is not written down lets no guest start.
    pub(super) async fn keep_power(&self, record: &FenceRecord, proof: &PowerProof) -> Result<(), Failure> {
        if fence::add_power(self.rack.port(), record, proof).await? {
            return Ok(());
        }
        let text =
            format!("that {} is off was not written down: its fence was lifted or made anew meanwhile", self.host);
        Err(Failure::failed(text).hint(format!("run `rackhand failover {}` again", self.host)))
    }

    /// Switches the host off by its BMC.
    ///
    /// # Errors
    /// When it is not proven to be off within `limit`.
    pub async fn switch_off(&self, limit: Duration) -> Result<PowerProof, Failure> {
        let (inventory, port) = (&self.rack.inventory, self.rack.port());
        let Some(spec) = inventory.host(self.host) else {
            return Err(Failure::usage(format!("the inventory has no host `{}`", self.host)));
        };
        // The service tag that the host told while it ran; one that was never rehearsed has no BMC that is proven its own.
        let serial = fence::rehearsals(port).await?.0.into_iter().find(|known| known.host == self.host);
        let serial = serial.and_then(|known| known.serial);
        let proof = fence::power_off(spec, &serial.unwrap_or_default(), inventory, &self.rack.fleet, limit).await;
        proof.map_err(|error| Failure::new(Kind::Failed, error))
    }

    /// Has every other host take no migration from it any more, and warns of those that could not be asked. The guests that
    /// this matters for are those whose move was under way: their settlement closes the gate itself, or fails.
    pub async fn close_gates(&self, record: &FenceRecord) {
        let addresses = record.proof.addresses();
        let close = |remote: Arc<dyn Remote>| async move { fence::close_gate(remote.as_ref(), addresses).await };
        for (name, failure) in self.at_the_others(close).await {
            self.rack.ui.warn(format!("{name} would still take a migration from {}: {failure}", self.host));
        }
    }

    /// Has every other host take migrations from it again; tells which could not be asked.
    pub(super) async fn open_gates(&self, record: &FenceRecord) -> Vec<(String, Failure)> {
        let addresses = record.proof.addresses();
        self.at_the_others(|remote| async move { fence::open_gate(remote.as_ref(), addresses).await }).await
    }

    /// Does something at every other host that runs guests; tells where it failed.
    async fn at_the_others<F>(&self, work: impl Fn(Arc<dyn Remote>) -> F) -> Vec<(String, Failure)>
    where
        F: Future<Output = Result<(), Failure>>,
    {
        let others = self.rack.hypervisors.names().filter(|name| *name != self.host);
        let done = self.rack.fleet.each(others, work).await.into_iter();
        done.filter_map(|(name, done)| Some((name, done.err()?))).collect()
    }

    /// Starts its guests on other hosts, the most important first; one that is stopped meanwhile is left out. `follow` is told
    /// how far each is. The host has to be fenced: the start itself looks.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn restart(&self, follow: &FollowStarts) -> Result<Vec<(String, Result<Started, Failure>)>, Failure> {
        let input = PlanningInput::take(self.rack).await?;
        if !input.domain_inventory.fences.has(self.host) {
            return Err(Failure::refused(format!("{} is not fenced: its guests may still run there", self.host)));
        }
        let guests = guests_of(&input, self.host);
        let needs: Vec<_> = guests.iter().map(|guest| need(guest, None)).collect();
        let places = place(&input.rooms, &needs);
        Ok(restart_at(self.rack, &input, guests.into_iter().zip(places), follow).await)
    }
}

/// The addresses from which clients of the storage on a host may come.
pub fn storage_addresses(host: &HostSpec) -> BTreeSet<IpAddr> {
    BTreeSet::from([host.address, host.storage_address])
}

/// A fence without a proof.
fn unproven(host: &str, error: FenceError) -> Failure {
    let kind =
        if matches!(&error, FenceError::Cluster(error) if error.unknown()) { Kind::Unknown } else { Kind::Failed };
    Failure::new(kind, error)
        .context(format!("cannot prove that {host} is shut out of the storage; none of its guests was started"))
        .hint("see the cluster with `rackhand status`; the same command can be run again")
}
