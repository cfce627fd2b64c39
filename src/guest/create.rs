//! Making guests: every step finds what an earlier, killed run left, and goes on from there.

use super::address::{self, Wish};
use super::image::{self, TemplateName, TemplateVersion};
use super::placement::{Place, place, reasons};
use super::rack::Rack;
use super::seed::Seed;
use super::spec::{Desired, Disk, Guest, INDEX, ImageRef, Machine, Nic, Stage};
use super::start::rooms;
use super::survey::Survey;
use super::{host_state, machine, probe};
use crate::cluster::{ClusterError, Keys, KeysChange, encode, fetch, update};
use crate::error::{Failure, Kind};
use crate::inventory::{GuestNetwork, Size};
use futures::future::join_all;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use uuid::Uuid;

/// Tries of reserving names while others do the same.
const TRIES: usize = 20;
/// Addresses of strangers a guest may run into before something is wrong with the network.
const STRANGERS: usize = 8;

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
    pub user_data: String,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Who goes first.
    pub priority: i32,
    /// Whether deleting is refused.
    pub protected: bool,
    /// The only host they may run on.
    pub host: Option<String>,
}

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Order").field("names", &self.names).field("image", &self.image).finish_non_exhaustive()
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
    order: Order,
    template: (ImageRef, TemplateVersion),
    machine: Machine,
    /// The guests and their hosts.
    pub guests: Vec<Planned>,
    /// Guests of an order for several that are there already.
    pub there: Vec<String>,
}

/// Checks an order against the rack: names, image, network, room. Nothing is changed.
///
/// # Errors
/// Everything that would make it fail for sure.
pub async fn plan(rack: &Rack, order: Order) -> Result<Plan, Failure> {
    network(rack, &order.network)?;
    if let Wish::Exactly(_) = order.address
        && order.names.len() > 1
    {
        return Err(Failure::usage("one address cannot go to several guests").hint("leave --address out"));
    }
    if let Some(host) = order.host.as_deref().filter(|h| rack.hypervisors.get(h).is_err()) {
        return Err(Failure::usage(format!("the inventory has no host `{host}` that runs guests")));
    }
    let (template, index, machine, survey, states, guests) = tokio::join!(
        image::find(rack.port(), &order.image),
        rack.index(),
        machine::common(rack.port(), &rack.hypervisors),
        Survey::take(&rack.hypervisors, true),
        host_state::read(rack.port()),
        rack.guests(),
    );
    let (template, index, machine, guests) = (template?, index?, machine?, guests?);
    let states = states.map_err(ClusterError::failure)?;
    if order.disk < template.1.size {
        let text = format!("a disk of {} is smaller than image {} ({})", order.disk, order.image.name, template.1.size);
        return Err(Failure::usage(text).hint("ask for a larger --disk"));
    }
    let known: BTreeMap<Uuid, &Guest> = guests.iter().map(|g| (g.uuid, g)).collect();
    let (mut there, mut names) = (Vec::new(), Vec::new());
    for name in &order.names {
        match index.get(name).map(|uuid| known.get(uuid)) {
            None => names.push((name.clone(), false)),
            Some(None) => names.push((name.clone(), true)),
            Some(Some(guest)) => match guest.stage {
                Stage::Creating => names.push((name.clone(), true)),
                Stage::Ready => there.push(name.clone()),
                Stage::Deleting => return Err(half_deleted(name)),
            },
        }
    }
    if names.is_empty() {
        let text = format!("guest {} exists already", there.join(", "));
        return Err(Failure::failed(text).hint("take another name, or see it with `rackhand guest show`"));
    }
    let needs: Vec<_> = names.iter().map(|(name, _)| need_of(&order, name)).collect();
    let places = place(&rooms(&rack.inventory, &survey, &states, &guests), &needs);
    let mut planned = Vec::new();
    for ((name, resumed), place) in names.into_iter().zip(places) {
        match place {
            Place::Host(host) => planned.push(Planned { name, host, resumed }),
            Place::Nowhere(why) => return Err(nowhere(&name, &why)),
        }
    }
    Ok(Plan { order, template, machine, guests: planned, there })
}

fn half_deleted(name: &str) -> Failure {
    Failure::failed(format!("guest {name} is half deleted"))
        .hint(format!("finish it with `rackhand guest delete {name}`"))
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

fn network<'a>(rack: &'a Rack, name: &str) -> Result<&'a GuestNetwork, Failure> {
    rack.inventory.networks.guests.get(name).ok_or_else(|| {
        let has: Vec<&str> = rack.inventory.networks.guests.keys().map(String::as_str).collect();
        Failure::usage(format!("the inventory has no guest network `{name}`"))
            .hint(format!("it has: {}", has.join(", ")))
    })
}

/// Makes the guests of a plan, ready to be started; each with its own outcome.
///
/// # Errors
/// When nothing could be begun.
pub async fn make(rack: &Rack, plan: &Plan) -> Result<Vec<(String, Result<Guest, Failure>)>, Failure> {
    let names: Vec<String> = plan.guests.iter().map(|p| p.name.clone()).collect();
    let ids = reserve_names(rack, &names).await?;
    let mut defined = Vec::new();
    for (name, uuid) in names.iter().zip(ids) {
        defined.push((name.clone(), define(rack, plan, name, uuid).await));
    }
    let good: Vec<Guest> = defined.iter().filter_map(|(_, r)| r.as_ref().ok().cloned()).collect();
    // The disks do not depend on the addresses: both at once.
    let (addressed, disks) =
        tokio::join!(settle_addresses(rack, plan, &good), join_all(good.iter().map(|g| make_disk(rack, plan, g))));
    let mut made: BTreeMap<Uuid, Result<Guest, Failure>> = BTreeMap::new();
    for ((guest, addressed), disk) in good.iter().zip(addressed).zip(disks) {
        if addressed.is_err() {
            // It cannot be made as it was ordered: nothing of it stays.
            super::delete::undo(rack, guest).await?;
        }
        made.insert(guest.uuid, disk.and(addressed));
    }
    let finished = join_all(made.into_iter().map(|(uuid, guest)| async move {
        let result = match guest {
            Ok(guest) => finish(rack, plan, guest).await,
            Err(failure) => Err(failure),
        };
        (uuid, result)
    }))
    .await;
    let mut finished: BTreeMap<Uuid, Result<Guest, Failure>> = finished.into_iter().collect();
    let each = defined.into_iter().map(|(name, guest)| {
        let result = guest.and_then(|g| finished.remove(&g.uuid).unwrap_or(Ok(g)));
        (name, result)
    });
    Ok(each.collect())
}

/// Writes the names into the index, all in one step; a name an earlier run reserved keeps its id.
async fn reserve_names(rack: &Rack, names: &[String]) -> Result<Vec<Uuid>, Failure> {
    for _ in 0..TRIES {
        let index = rack.index().await?;
        let mut change = KeysChange::default();
        let ids: Vec<Uuid> = names
            .iter()
            .map(|name| match index.get(name) {
                Some(uuid) => *uuid,
                None => {
                    let uuid = Uuid::new_v4();
                    change = std::mem::take(&mut change).add(name, uuid.to_string());
                    uuid
                }
            })
            .collect();
        match rack.port().change_keys(INDEX, &change).await {
            Ok(()) => return Ok(ids),
            Err(ClusterError::Conflict(_)) => {}
            Err(error) => return Err(error.failure()),
        }
    }
    Err(Failure::msg(Kind::Busy, "guests are made by others all the time"))
}

/// Writes the definition, with its address taken from the pool, or finds the one that is there.
async fn define(rack: &Rack, plan: &Plan, name: &str, uuid: Uuid) -> Result<Guest, Failure> {
    let found = fetch::<Guest>(rack.port(), &Guest::object(uuid)).await.map_err(ClusterError::failure)?;
    if let Some((guest, _)) = found {
        return match guest.stage {
            Stage::Creating => Ok(guest),
            Stage::Ready => Err(Failure::failed(format!("guest {name} exists already"))),
            Stage::Deleting => Err(half_deleted(name)),
        };
    }
    let order = &plan.order;
    let network = network(rack, &order.network)?;
    let lease = address::take(rack.port(), &order.network, network, uuid, 0, order.address).await;
    let lease = match lease {
        Ok(lease) => lease,
        Err(failure) => {
            // Nothing else was made of it: the name is free again.
            let change = KeysChange::default().take(name, uuid.to_string());
            rack.port().change_keys(INDEX, &change).await.map_err(ClusterError::failure)?;
            return Err(failure);
        }
    };
    let guest = Guest {
        name: name.to_owned(),
        uuid,
        stage: Stage::Creating,
        desired: Desired::Stopped,
        image: plan.template.0.clone(),
        memory: order.memory,
        cpus: order.cpus,
        disks: vec![Disk { name: "disk0".into(), image: format!("vm.{uuid}.disk0"), size: order.disk }],
        nics: vec![Nic { network: order.network.clone(), mac: lease.mac, address: lease.address }],
        machine: plan.machine.clone(),
        tags: order.tags.clone(),
        priority: order.priority,
        protected: order.protected,
        pinned: order.host.clone(),
        created: jiff::Timestamp::now(),
    };
    let text = encode(&guest).map_err(ClusterError::failure)?;
    match rack.port().create(&Guest::object(uuid), &text).await {
        Ok(_) => Ok(guest),
        Err(ClusterError::Exists(_)) => {
            Err(Failure::msg(Kind::Busy, format!("guest {name} is being made by another run")))
        }
        Err(error) => Err(error.failure()),
    }
}

/// Clones the template, unless an earlier run did.
async fn make_disk(rack: &Rack, plan: &Plan, guest: &Guest) -> Result<(), Failure> {
    let notes: Keys =
        [("rackhand.guest".to_owned(), guest.name.clone()), ("rackhand.uuid".to_owned(), guest.uuid.to_string())]
            .into();
    let base = plan.template.1.base();
    for disk in &guest.disks {
        match rack.port().image_clone(&base, &disk.image, disk.size.bytes(), &notes).await {
            Ok(_) => {}
            Err(ClusterError::Exists(_)) => {
                // Killed between clone and resize, perhaps.
                let found = rack.port().image(&disk.image).await.map_err(ClusterError::failure)?;
                if found.is_none_or(|image| image.size < disk.size.bytes()) {
                    rack.port().image_resize(&disk.image, disk.size.bytes()).await.map_err(ClusterError::failure)?;
                }
            }
            Err(error) => return Err(error.failure()),
        }
    }
    Ok(())
}

/// Asks the network whether strangers have the addresses; a guest whose address is taken gets another one.
async fn settle_addresses(rack: &Rack, plan: &Plan, guests: &[Guest]) -> Vec<Result<Guest, Failure>> {
    let mut settled: Vec<Result<Guest, Failure>> = guests.iter().cloned().map(Ok).collect();
    let mut open: Vec<usize> = (0..guests.len()).collect();
    for _ in 0..STRANGERS {
        let asked: Vec<IpAddr> = open
            .iter()
            .filter_map(|n| settled[*n].as_ref().ok().and_then(|g| g.nics.first()).map(|nic| nic.address))
            .collect();
        let strangers = match who_answers(rack, plan, &asked).await {
            Ok(strangers) => strangers,
            Err(failure) => {
                rack.ui.warn(format!("could not probe for strangers on network {}: {failure}", plan.order.network));
                return settled;
            }
        };
        if strangers.is_empty() {
            return settled;
        }
        let mut again = Vec::new();
        for n in open {
            let Ok(guest) = &settled[n] else { continue };
            let Some(mac) = guest.nics.first().and_then(|nic| strangers.get(&nic.address)) else { continue };
            // A guest of ours that an earlier run made and started already.
            if guest.nics.iter().any(|nic| nic.mac == *mac) {
                continue;
            }
            let moved = move_away(rack, plan, guest, mac).await;
            if moved.is_ok() {
                again.push(n);
            }
            settled[n] = moved;
        }
        open = again;
        if open.is_empty() {
            return settled;
        }
    }
    for n in open {
        settled[n] = Err(Failure::failed(format!("{STRANGERS} free addresses in a row belong to strangers"))
            .hint("look at the network's `ranges`: somebody else gives out addresses in them"));
    }
    settled
}

async fn who_answers(rack: &Rack, plan: &Plan, addresses: &[IpAddr]) -> Result<BTreeMap<IpAddr, String>, Failure> {
    let network = network(rack, &plan.order.network)?;
    let Some(host) = plan.guests.first() else { return Ok(BTreeMap::new()) };
    let remote = rack.fleet.get(&host.host)?;
    probe::strangers(remote.as_ref(), &network.bridge, addresses).await
}

/// Gives a guest another address, or fails it when it was to have exactly this one.
async fn move_away(rack: &Rack, plan: &Plan, guest: &Guest, mac: &str) -> Result<Guest, Failure> {
    let name = &plan.order.network;
    let Some(nic) = guest.nics.first() else { return Ok(guest.clone()) };
    let port = rack.port();
    if let Wish::Exactly(address) = plan.order.address {
        return Err(Failure::failed(format!(
            "address {address} of network {name} is taken by a stranger with MAC {mac}"
        ))
        .hint("take another address, or find out who that is"));
    }
    rack.ui.warn(format!(
        "{} belongs to a stranger with MAC {mac}; guest {} gets another address",
        nic.address, guest.name
    ));
    address::mark_stranger(port, name, guest.uuid, 0, nic.address, mac).await.map_err(ClusterError::failure)?;
    address::give_back(port, name, guest.uuid).await.map_err(ClusterError::failure)?;
    let lease = address::take(port, name, network(rack, name)?, guest.uuid, 0, Wish::Auto).await?;
    let nics = vec![Nic { network: name.clone(), mac: lease.mac, address: lease.address }];
    change(rack, guest, move |guest| guest.nics.clone_from(&nics)).await
}

/// Writes the seed and says that the guest is complete.
async fn finish(rack: &Rack, plan: &Plan, guest: Guest) -> Result<Guest, Failure> {
    let networks = &rack.inventory.networks.guests;
    let seed = Seed::new(&guest, |name| networks.get(name), plan.order.user_data.clone())?;
    rack.port().image_write(&guest.seed_image(), &seed.disk()?).await.map_err(ClusterError::failure)?;
    change(rack, &guest, |guest| guest.stage = Stage::Ready).await
}

/// Changes a definition by compare-and-swap; tells the new one.
///
/// # Errors
/// When the guest is gone or the cluster cannot be asked.
pub async fn change(rack: &Rack, guest: &Guest, f: impl Fn(&mut Guest) + Send + Sync) -> Result<Guest, Failure> {
    let object = Guest::object(guest.uuid);
    let changed = update(rack.port(), &object, |found: Option<Guest>| {
        let mut changed =
            found.ok_or_else(|| ClusterError::NotFound(format!("guest {} was deleted meanwhile", guest.name)))?;
        f(&mut changed);
        Ok::<_, ClusterError>((Some(changed.clone()), changed))
    });
    changed.await.map_err(ClusterError::failure)
}
