//! Making guests: every step finds what an earlier, killed run left, and goes on from there.

use super::address::{self, Lease, Pool};
use super::address_conflict::settle_addresses;
use super::create::{Plan, half_deleted, half_made};
use super::guest_context::GuestContext;
use super::seed::Seed;
use super::spec::{Disk, Guest, INDEX, Nic, Stage};
use crate::cluster::{ClusterError, Keys, KeysChange, Version, encode, fetch, update};
use crate::error::{Failure, Kind};
use crate::ui::ShutdownPolicy;
use futures::future::{join_all, try_join_all};
use uuid::Uuid;

/// Tries of reserving names while others do the same.
const TRIES: usize = 20;

/// Guests that were begun are made to the end, which takes a second.
const PATIENCE: ShutdownPolicy = ShutdownPolicy {
    once: "finishes the guests that were begun; once more to leave them half-made",
    twice: "leaves guests half-made",
    aborts_itself: false,
};

/// What came of each guest of a plan, by name.
pub type Made = Vec<(String, Result<Guest, Failure>)>;

/// Makes the guests of a plan, ready to be started; each with its own outcome.
///
/// # Errors
/// When nothing could be begun.
pub async fn make(rack: &GuestContext, plan: &Plan) -> Result<Made, Failure> {
    let _unhurried = rack.ui.completion_guard(PATIENCE);
    let reserved = reserve_names(rack, plan).await?;
    let defined = define(rack, plan, &reserved).await?;
    let good = defined.iter().filter_map(|(_, result)| result.as_ref().ok());
    let good: Vec<Guest> = good.filter(|guest| guest.stage == Stage::Creating).cloned().collect();
    // Disks and seeds do not wait for what the network says: a guest that gets another address gets another seed.
    let (addressed, built) =
        tokio::join!(settle_addresses(rack, plan, &good), join_all(good.iter().map(|g| build(rack, plan, g))));
    let finish = good.iter().zip(addressed).zip(built).map(|((guest, addressed), built)| async move {
        match addressed {
            Ok(settled) => {
                built?;
                finish(rack, plan, guest, settled).await
            }
            Err(failure) => {
                // It cannot be made as it was ordered: nothing of it stays.
                super::delete::undo(rack, guest).await?;
                Err(failure)
            }
        }
    });
    let mut finished = join_all(finish).await.into_iter();
    let each = defined.into_iter().map(|(name, guest)| {
        let result = match guest {
            Ok(guest) if guest.stage == Stage::Creating => finished.next().unwrap_or(Ok(guest)),
            other => other,
        };
        (name, result)
    });
    Ok(each.collect())
}

/// A name in the index.
struct Reserved {
    name: String,
    uuid: Uuid,
    /// Whether it was not there before.
    fresh: bool,
}

/// Writes the names into the index, all in one step; a name an earlier run reserved keeps its id.
async fn reserve_names(rack: &GuestContext, plan: &Plan) -> Result<Vec<Reserved>, Failure> {
    let mut index = plan.index.clone();
    for _ in 0..TRIES {
        let reserve = |name: &String| match index.get(name) {
            Some(uuid) => Reserved { name: name.clone(), uuid: *uuid, fresh: false },
            None => Reserved { name: name.clone(), uuid: Uuid::new_v4(), fresh: true },
        };
        let reserved: Vec<Reserved> = plan.guests.iter().map(|p| reserve(&p.name)).collect();
        let fresh = reserved.iter().filter(|r| r.fresh);
        let change = fresh.fold(KeysChange::default(), |change, r| change.add(&r.name, r.uuid.to_string()));
        match rack.port().change_keys(INDEX, &change).await {
            Ok(()) => return Ok(reserved),
            Err(ClusterError::Conflict(_)) => index = rack.index().await?,
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failure::msg(Kind::Busy, "guests are made by other runs again and again"))
}

/// Writes the definitions, their addresses taken from the pool in one step; those that are there are found.
async fn define(rack: &GuestContext, plan: &Plan, reserved: &[Reserved]) -> Result<Made, Failure> {
    let found = reserved.iter().map(|r| async move {
        let object = Guest::object(r.uuid);
        Ok::<_, ClusterError>(if r.fresh { None } else { fetch::<Guest>(rack.port(), &object).await? })
    });
    let found = try_join_all(found).await?;
    let owners: Vec<Uuid> = reserved.iter().zip(&found).filter(|(_, f)| f.is_none()).map(|(r, _)| r.uuid).collect();
    let order = &plan.order;
    let pool = Pool::of(&rack.inventory, &order.network)?;
    let leases = address::take_each(rack.port(), &pool, &owners, 0, order.address).await?;
    let mut leases = leases.into_iter();
    let defined = reserved.iter().zip(found).map(|(reserved, found)| {
        let lease = if found.is_none() { leases.next() } else { None };
        async move {
            let result = match (found, lease) {
                (Some((guest, _)), _) => resume(plan, guest),
                (None, Some(Ok(lease))) => write(rack, plan, reserved, lease).await,
                (None, Some(Err(failure))) => {
                    // Nothing else was made of it: the name is free again.
                    super::delete::forget_name(rack, &reserved.name, reserved.uuid).await.and(Err(failure))
                }
                (None, None) => Err(Failure::failed("it got no address")),
            };
            (reserved.name.clone(), result)
        }
    });
    Ok(join_all(defined).await)
}

fn resume(plan: &Plan, guest: Guest) -> Result<Guest, Failure> {
    match guest.stage {
        Stage::Creating if guest.restore.is_none() && plan.order.made(&guest) => Ok(guest),
        // Begun by somebody else since the plan was made.
        Stage::Creating => Err(half_made(&guest.name)),
        Stage::Ready if plan.unstarted.contains(&guest.uuid) => Ok(guest),
        Stage::Ready => Err(Failure::failed(format!("guest {} exists already", guest.name))),
        Stage::Deleting => Err(half_deleted(&guest.name)),
    }
}

/// Writes the definition of a guest that has none.
async fn write(rack: &GuestContext, plan: &Plan, reserved: &Reserved, lease: Lease) -> Result<Guest, Failure> {
    let (order, name, uuid) = (&plan.order, &reserved.name, reserved.uuid);
    let guest = Guest {
        name: name.clone(),
        uuid,
        stage: Stage::Creating,
        desired: order.desired,
        image: plan.template.0.clone(),
        memory: order.memory,
        cpus: order.cpus,
        disks: vec![Disk { name: "disk0".into(), image: format!("vm.{uuid}.disk0"), size: order.disk }],
        nics: vec![Nic { network: order.network.clone(), mac: lease.mac, address: lease.address }],
        machine: plan.machine.clone(),
        tags: order.tags.clone(),
        priority: order.priority,
        protected: order.protected,
        failover: order.failover,
        pinned: order.host.clone(),
        created: jiff::Timestamp::now(),
        restore: None,
    };
    let text = encode(&guest)?;
    match rack.port().create(&Guest::object(uuid), &text).await {
        Ok(version) => still_reserved(rack, &guest, version).await.map(|()| guest),
        Err(ClusterError::Exists(_)) => {
            Err(Failure::msg(Kind::Busy, format!("guest {name} is being made by another run")))
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether the name was not cleared away while the definition was written; takes the definition back where it was.
async fn still_reserved(rack: &GuestContext, guest: &Guest, version: Version) -> Result<(), Failure> {
    let index = rack.port().keys(INDEX).await?;
    if index.get(&guest.name).is_some_and(|uuid| *uuid == guest.uuid.to_string()) {
        return Ok(());
    }
    rack.port().remove(&Guest::object(guest.uuid), version).await?;
    for nic in &guest.nics {
        address::give_back(rack.port(), &nic.network, guest.uuid).await?;
    }
    Err(Failure::msg(Kind::Busy, format!("guest {} was deleted meanwhile", guest.name)))
}

/// Makes disks and seed at once.
async fn build(rack: &GuestContext, plan: &Plan, guest: &Guest) -> Result<(), Failure> {
    tokio::try_join!(make_disk(rack, plan, guest), write_seed(rack, plan, guest)).map(drop)
}

/// Clones the template, unless an earlier run did.
async fn make_disk(rack: &GuestContext, plan: &Plan, guest: &Guest) -> Result<(), Failure> {
    let notes: Keys =
        [("rackhand.guest".to_owned(), guest.name.clone()), ("rackhand.uuid".to_owned(), guest.uuid.to_string())]
            .into();
    let base = plan.template.1.base();
    for disk in &guest.disks {
        match rack.port().image_clone(&base, &disk.image, disk.size.bytes(), &notes).await {
            Ok(_) => {}
            Err(ClusterError::Exists(_)) => {
                // Killed between clone and resize, perhaps.
                let found = rack.port().image(&disk.image).await?;
                if found.is_none_or(|image| image.size < disk.size.bytes()) {
                    rack.port().image_grow(&disk.image, disk.size.bytes()).await?;
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Writes the seed.
async fn write_seed(rack: &GuestContext, plan: &Plan, guest: &Guest) -> Result<(), Failure> {
    let networks = &rack.inventory.networks.guests;
    let seed = Seed::new(guest, |name| networks.get(name), plan.order.user_data.clone())?;
    rack.port().image_write(&guest.seed_image(), &seed.disk()?).await.map_err(Failure::from)
}

/// Says that the guest is complete.
async fn finish(rack: &GuestContext, plan: &Plan, built: &Guest, settled: Guest) -> Result<Guest, Failure> {
    if settled.nics != built.nics {
        write_seed(rack, plan, &settled).await?;
    }
    let object = Guest::object(settled.uuid);
    let finished = update(rack.port(), &object, |found: Option<Guest>| match found {
        // Somebody began to delete it, and goes on with that.
        None | Some(Guest { stage: Stage::Deleting, .. }) => Ok((found, None)),
        Some(guest) => {
            let guest = Guest { stage: Stage::Ready, ..guest };
            Ok::<_, ClusterError>((Some(guest.clone()), Some(guest)))
        }
    });
    let finished = finished.await?;
    finished.ok_or_else(|| Failure::failed(format!("guest {} was deleted meanwhile", settled.name)))
}
