//! What an order for guests comes down to, worked out before anything is made.

use super::address::{Pool, Wish};
use super::claim::{Claim, Phase};
use super::guest_context::GuestContext;
use super::image::{self, TemplateName, TemplateVersion};
use super::machine;
use super::placement::{Place, place, reasons};
use super::planning_input::PlanningInput;
use super::spec::{Desired, FailoverPolicy, Guest, ImageRef, Machine, Stage};
use super::start::{Started, start_at};
use crate::error::Failure;
use crate::inventory::Size;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// What the operator asked for.
#[derive(Clone, PartialEq)]
pub struct Order {
    /// Names of the guests.
    pub names: Vec<String>,
    /// The template.
    pub image: TemplateName,
    /// Memory of each.
    pub memory: Size,
    /// Virtual processors of each.
    pub cpus: u32,
    /// Size of the first disk; at least the template's.
    pub disk: Size,
    /// Network of the NIC.
    pub network: String,
    /// Its address.
    pub address: Wish,
    /// What cloud-init does; may hold secrets.
    pub user_data: Vec<u8>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Who goes first.
    pub priority: i32,
    /// Whether deleting is refused.
    pub protected: bool,
    /// What has to be proven of a lost host before they start elsewhere.
    pub failover: FailoverPolicy,
    /// The only host they may run on.
    pub host: Option<String>,
    /// Whether they are meant to run.
    pub desired: Desired,
}

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Order").field("names", &self.names).field("image", &self.image).finish_non_exhaustive()
    }
}

impl Order {
    /// Whether a guest may be what an earlier run of this very order made, or was about to.
    pub(super) fn made(&self, guest: &Guest) -> bool {
        let address = match self.address {
            Wish::Auto => true,
            Wish::Exactly(address) => guest.nics.iter().any(|nic| nic.address == address),
        };
        let version = self.image.version.is_none_or(|version| version == guest.image.version);
        address
            && version
            && self.image.name == guest.image.name
            && guest.disks.first().is_some_and(|disk| disk.size == self.disk)
            && guest.nics.first().is_some_and(|nic| nic.network == self.network)
            && (self.memory, self.cpus, self.priority, self.desired)
                == (guest.memory, guest.cpus, guest.priority, guest.desired)
            && (self.protected, self.failover, &self.host, &self.tags)
                == (guest.protected, guest.failover, &guest.pinned, &guest.tags)
    }
}

/// A guest that would be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// Its name.
    pub name: String,
    /// Where it would start.
    pub host: String,
    /// Whether an earlier run left it half made.
    pub resumed: bool,
}

/// What an order comes down to, before anything is changed.
#[derive(Debug)]
pub struct Plan {
    pub(super) order: Order,
    pub(super) template: (ImageRef, TemplateVersion),
    pub(super) machine: Machine,
    /// Ids of guests by name.
    pub(super) index: BTreeMap<String, Uuid>,
    /// Guests that an earlier run of the same order made and was killed before it started them.
    pub(super) unstarted: BTreeSet<Uuid>,
    planning_input: PlanningInput,
    /// The guests and their hosts.
    pub guests: Vec<Planned>,
    /// Guests of an order for several that are there already.
    pub there: Vec<String>,
}

/// Checks an order against the rack: names, image, network, room. Nothing is changed.
///
/// # Errors
/// Everything that would make it fail for sure.
pub async fn plan(rack: &GuestContext, order: Order) -> Result<Plan, Failure> {
    let pool = Pool::of(&rack.inventory, &order.network)?;
    if order.address != Wish::Auto && order.names.len() > 1 {
        return Err(Failure::usage("one address cannot go to several guests").hint("leave --address out"));
    }
    pool.check(order.address)?;
    if let Some(host) = order.host.as_deref().filter(|h| rack.hypervisors.get(h).is_err()) {
        return Err(Failure::usage(format!("the inventory has no host `{host}` that runs guests")));
    }
    let (template, index, machine, planning_input) = tokio::try_join!(
        image::find(rack.port(), &order.image),
        rack.index(),
        machine::common(rack.port(), &rack.hypervisors),
        PlanningInput::take(rack),
    )?;
    if order.disk < template.1.size {
        let text = format!("a disk of {} is smaller than image {} ({})", order.disk, order.image.name, template.1.size);
        return Err(Failure::usage(text).hint("ask for a larger --disk"));
    }
    let known: BTreeMap<Uuid, &Guest> = planning_input.guests.iter().map(|g| (g.uuid, g)).collect();
    let (mut there, mut names, mut unstarted) = (Vec::new(), Vec::new(), BTreeSet::new());
    for name in &order.names {
        match index.get(name).map(|uuid| known.get(uuid)) {
            None => names.push((name.clone(), false)),
            Some(None) => names.push((name.clone(), true)),
            Some(Some(guest)) => match guest.stage {
                Stage::Creating if guest.restore.is_none() && order.made(guest) => names.push((name.clone(), true)),
                Stage::Creating => return Err(half_made(name)),
                Stage::Ready if order.made(guest) && not_yet_started(&planning_input.claim(guest.uuid)) => {
                    unstarted.insert(guest.uuid);
                    names.push((name.clone(), true));
                }
                Stage::Ready => there.push(name.clone()),
                Stage::Deleting => return Err(half_deleted(name)),
            },
        }
    }
    if names.is_empty() {
        let text = match there.as_slice() {
            [one] => format!("guest {one} exists already"),
            all => format!("guests {} exist already", all.join(", ")),
        };
        return Err(Failure::failed(text).hint("take another name, or see it with `rackhand guest show`"));
    }
    let needs: Vec<_> = names.iter().map(|(name, _)| need_of(&order, name)).collect();
    let places = place(&planning_input.rooms, &needs);
    let mut planned = Vec::new();
    for ((name, resumed), place) in names.into_iter().zip(places) {
        match place {
            Place::Host(host) => planned.push(Planned { name, host, resumed }),
            Place::Nowhere(why) => return Err(nowhere(&name, &why)),
        }
    }
    Ok(Plan { order, template, machine, index, unstarted, planning_input, guests: planned, there })
}

/// Whether a guest has never run, or is just being started: by another run, which is waited for, or by one that was killed
/// there.
fn not_yet_started(claim: &Claim) -> bool {
    claim.phase == Phase::Starting || claim.phase == Phase::Free && claim.last.is_none()
}

pub(super) fn half_deleted(name: &str) -> Failure {
    Failure::failed(format!("guest {name} is half deleted"))
        .hint(format!("finish it with `rackhand guest delete {name}`"))
}

pub(super) fn half_made(name: &str) -> Failure {
    Failure::failed(format!("guest {name} was begun with other settings, and is half made"))
        .hint(format!("finish it with the command that began it, or clear it away with `rackhand guest delete {name}`"))
}

fn nowhere(name: &str, why: &BTreeMap<String, String>) -> Failure {
    Failure::failed(format!("no host has room for guest {name}: {}", reasons(why)))
        .hint("nothing was made; stop or move other guests, or ask for less")
}

fn need_of(order: &Order, name: &str) -> super::placement::Need {
    super::placement::Need {
        name: name.to_owned(),
        memory: order.memory.bytes(),
        cpus: order.cpus,
        tags: order.tags.clone(),
        pinned: order.host.clone(),
        not: BTreeMap::new(),
        priority: order.priority,
    }
}

/// Starts guests that were made by a plan, where it has put them.
pub async fn start(rack: &GuestContext, plan: &Plan, made: &[Guest]) -> Vec<(String, Result<Started, Failure>)> {
    let planned: BTreeMap<&str, &str> = plan.guests.iter().map(|p| (p.name.as_str(), p.host.as_str())).collect();
    let placed = made.iter().filter_map(|guest| {
        let host = planned.get(guest.name.as_str())?;
        Some((guest, Place::Host((*host).to_owned())))
    });
    start_at(rack, &plan.planning_input, placed, plan.order.host.as_deref(), &|_, _| ()).await
}
