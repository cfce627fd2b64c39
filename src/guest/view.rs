//! A guest as people and scripts see it: its definition, and what the hosts say of it.

use super::claim::{self, Claim, Phase};
use super::domain_inventory::DomainInventory;
use super::guest_context::GuestContext;
use super::spec::{Desired, Disk, FailoverPolicy, Guest, ImageRef, Nic, Stage};
use crate::error::Failure;
use crate::inventory::Size;
use crate::libvirt::DomainState;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use uuid::Uuid;

/// What a guest is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It runs.
    Running,
    /// Its processors stand still; storage that refuses it does that.
    Paused,
    /// It is going down.
    Stopping,
    /// It crashed and its process is still there.
    Crashed,
    /// It moves between two hosts.
    Moving,
    /// It is being started.
    Starting,
    /// It is down.
    Stopped,
    /// It is not complete.
    Creating,
    /// It is half deleted.
    Deleting,
    /// It may run on a host that does not answer.
    Unknown,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            State::Running => "running",
            State::Paused => "paused",
            State::Stopping => "stopping",
            State::Crashed => "crashed",
            State::Moving => "moving",
            State::Starting => "starting",
            State::Stopped => "stopped",
            State::Creating => "creating",
            State::Deleting => "deleting",
            State::Unknown => "unknown",
        })
    }
}

/// What a domain says of itself; the claim may know more.
impl From<DomainState> for State {
    fn from(state: DomainState) -> Self {
        match state {
            DomainState::Running => State::Running,
            DomainState::Paused | DomainState::Suspended => State::Paused,
            DomainState::Stopping => State::Stopping,
            DomainState::Crashed => State::Crashed,
            DomainState::Off | DomainState::Unknown => State::Unknown,
        }
    }
}

/// A guest as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GuestView {
    /// Its name.
    pub name: String,
    /// Its id.
    pub uuid: Uuid,
    /// What it is doing.
    pub state: State,
    /// Why, where libvirt says something worth knowing.
    pub reason: Option<String>,
    /// Its host; where it may run, when the state is unknown.
    pub host: Option<String>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Memory.
    pub memory: Size,
    /// Virtual processors.
    pub cpus: u32,
    /// Its template.
    pub image: ImageRef,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// Its NICs.
    pub nics: Vec<Nic>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Who goes first.
    pub priority: i32,
    /// Whether deleting is refused.
    pub protected: bool,
    /// What has to be proven of a lost host before it starts elsewhere.
    pub failover: FailoverPolicy,
    /// The only host it may run on.
    pub pinned: Option<String>,
    /// What its owner wants.
    pub desired: Desired,
    /// Machine type.
    pub machine: String,
    /// When it was made.
    pub created: jiff::Timestamp,
    /// When it was started, while it runs.
    pub started: Option<jiff::Timestamp>,
}

/// What is known of all guests, at about one time.
#[derive(Clone, Debug)]
pub struct Overview {
    /// The guests, by name.
    pub guests: Vec<GuestView>,
    /// Their definitions, in the same order.
    pub definitions: Vec<Guest>,
    /// Names reserved by runs that were killed before they defined a guest.
    pub reserved: BTreeMap<String, Uuid>,
    /// What the hosts said.
    pub domain_inventory: DomainInventory,
}

/// Looks at all guests.
///
/// # Errors
/// When the cluster cannot be asked; hosts that do not answer are part of the result.
pub async fn overview(rack: &GuestContext) -> Result<Overview, Failure> {
    let (definitions, claims, index, domain_inventory) =
        tokio::join!(rack.guests(), claim::all(rack.port()), rack.index(), DomainInventory::take(rack, false),);
    let (definitions, claims, domain_inventory) = (definitions?, claims?, domain_inventory?);
    let guests: Vec<GuestView> =
        definitions.iter().map(|guest| view(guest, claims.get(&guest.uuid), &domain_inventory)).collect();
    let mut reserved = index?;
    let defined: BTreeSet<Uuid> = definitions.iter().map(|guest| guest.uuid).collect();
    reserved.retain(|_, uuid| !defined.contains(uuid));
    Ok(Overview { guests, definitions, reserved, domain_inventory })
}

/// What is said of a guest that stands still although its owner wants it to run: its host was shut down, and its guests with
/// it, or it ended by itself.
fn unbidden(guest: &Guest, claim: Option<&Claim>) -> Option<String> {
    let claim = claim.filter(|c| guest.desired == Desired::Running && c.phase == Phase::Running)?;
    let host = claim.host.as_ref()?;
    Some(format!("it ended on {host}, by itself or with its host; `guest start` starts it"))
}

/// Puts a guest together from its definition, its claim and what the hosts say.
pub fn view(guest: &Guest, claim: Option<&Claim>, domain_inventory: &DomainInventory) -> GuestView {
    let place = domain_inventory.place(guest.uuid);
    let (state, host, reason) = match (place, claim.and_then(|claim| domain_inventory.hidden(claim))) {
        (Some((host, domain)), _) => {
            let state = match claim {
                Some(claim) if claim.phase == Phase::Moving => State::Moving,
                Some(claim) if domain_inventory.is_half_started(guest.uuid, claim) => State::Starting,
                _ => State::from(domain.state),
            };
            let reason = (state != State::Running).then(|| domain.reason.clone());
            (state, Some(host.clone()), reason)
        }
        (None, Some((host, why))) => (State::Unknown, Some(host), Some(why)),
        (None, None) => match (guest.stage, claim.map(|c| c.phase)) {
            (Stage::Creating, _) => (State::Creating, None, None),
            (Stage::Deleting, _) => (State::Deleting, None, None),
            (Stage::Ready, Some(Phase::Starting)) => (State::Starting, claim.and_then(|c| c.host.clone()), None),
            _ => (State::Stopped, None, unbidden(guest, claim)),
        },
    };
    let up = matches!(state, State::Running | State::Paused | State::Moving);
    GuestView {
        name: guest.name.clone(),
        uuid: guest.uuid,
        state,
        reason,
        host,
        addresses: guest.nics.iter().map(|nic| nic.address).collect(),
        memory: guest.memory,
        cpus: guest.cpus,
        image: guest.image.clone(),
        disks: guest.disks.clone(),
        nics: guest.nics.clone(),
        tags: guest.tags.clone(),
        priority: guest.priority,
        protected: guest.protected,
        failover: guest.failover,
        pinned: guest.pinned.clone(),
        desired: guest.desired,
        machine: guest.machine.machine.clone(),
        created: guest.created,
        started: claim.and_then(|c| c.started).filter(|_| up),
    }
}
