//! Bringing a guest back: its disks new in the guests' pool, its definition under its old name or another one.

use super::lease::alone;
use super::point;
use super::repository::{Pipes, Repository, Target, unexpected};
use super::run::mon_host;
use super::stream;
use crate::cluster::{ClusterError, KeysChange, fetch, update};
use crate::error::{Failure, Kind};
use crate::guest::address::{self, Pool, Wish};
use crate::guest::claim::Claim;
use crate::guest::{Desired, Disk, Guest, GuestContext, INDEX, Nic, Restoring, Seed, Stage, check_name};
use crate::libvirt::{Token, VirtError};
use crate::ui::{Job, Outcome, ShutdownPolicy};
use base64::Engine;
use futures::future::join_all;
use jiff::Timestamp;
use rackhand_repository::{Done, PointPath, PointSummary, ReadDisk, Request, Shown};
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::mpsc::channel;
use tokio::time::timeout;
use uuid::Uuid;

/// How long a host may take to tell what it remembers of a guest.
const ANSWER: Duration = Duration::from_secs(20);
/// Chunks of a stream that are on their way; each has a megabyte at most.
const AHEAD: usize = 16;

/// A restore that was begun is finished by the same command.
const PATIENCE: ShutdownPolicy = ShutdownPolicy {
    once: "waits until the guest is restored; once more to break off",
    twice: "leaves the guest half restored; the same command finishes it",
    aborts_itself: false,
};

/// What is to be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restore {
    /// The guest's name or UUID.
    pub guest: String,
    /// The point; the newest that can be restored where none is named.
    pub point: Option<String>,
    /// Another name: a new guest beside the old one.
    pub name: Option<String>,
}

/// Finds the point that is meant.
///
/// # Errors
/// When the repository has none.
pub async fn find(rack: &GuestContext, repository: &Repository, wanted: &Restore) -> Result<PointSummary, Failure> {
    let own = rack.inventory.cluster.fsid.to_string();
    let mut points = repository.points(&Target::default()).await?;
    points.retain(|p| p.name == wanted.guest || p.guest == wanted.guest);
    // A cluster that was built anew has another id: what the old one left is taken then.
    if points.iter().any(|p| p.cluster == own) {
        points.retain(|p| p.cluster == own);
    }
    if points.is_empty() {
        return Err(Failure::usage(format!("repository {} has no point of guest {}", repository.name, wanted.guest))
            .hint("see what it has with `rackhand backup list`"));
    }
    let guests: BTreeSet<String> = points.iter().map(|p| p.guest.clone()).collect();
    if guests.len() > 1 {
        return Err(several(&wanted.guest, &guests));
    }
    let now = Timestamp::now();
    let found = match &wanted.point {
        Some(name) => points.into_iter().find(|p| p.point == *name),
        None => points.into_iter().filter(|p| p.problem.is_none()).max_by_key(|p| newest(&p.point, now)),
    };
    match found {
        Some(PointSummary { problem: Some(problem), point, .. }) => {
            Err(Failure::msg(Kind::Problem, format!("point {point} cannot be restored: {problem}")))
        }
        Some(found) => Ok(found),
        None => Err(Failure::usage(format!("guest {} has no such point that can be restored", wanted.guest))
            .hint("see its points with `rackhand backup list`")),
    }
}

/// What makes the newest point the greatest; one from the future comes after all others.
fn newest(point: &str, now: Timestamp) -> (bool, String) {
    (!point::ahead(point, now), point.to_owned())
}

/// Refuses a name that several guests had.
pub fn several<'a>(name: &str, guests: impl IntoIterator<Item = &'a String>) -> Failure {
    let guests: Vec<&str> = guests.into_iter().map(String::as_str).collect();
    Failure::usage(format!("several guests had the name {name}")).hint(format!("give the UUID: {}", guests.join(", ")))
}

/// Restores a guest; it is not started. The same command, run again, finishes one that was killed.
///
/// # Errors
/// When a guest of this name is there, the point is damaged, or the cluster cannot be asked.
pub async fn restore(rack: &GuestContext, repository: &Repository, wanted: &Restore) -> Result<Guest, Failure> {
    let _unhurried = rack.ui.completion_guard(PATIENCE);
    let found = find(rack, repository, wanted).await?;
    let at = PointPath {
        repository: repository.path.clone(),
        cluster: found.cluster.clone(),
        guest: found.guest.clone(),
        point: found.point.clone(),
    };
    let shown = match repository.ask(Request::Show(at.clone()), None).await? {
        Done::Show(shown) => *shown,
        other => return Err(unexpected(&other)),
    };
    let name = wanted.name.clone().unwrap_or_else(|| found.name.clone());
    let job = rack.ui.job(format!("restore {name}"));
    let result = bring_back(rack, repository, (&at, &shown), wanted.name.as_deref(), &job).await;
    job.conclude(&result, |_| (Outcome::Done, format!("from {}", at.point)));
    result
}

async fn bring_back(
    rack: &GuestContext,
    repository: &Repository,
    (at, shown): (&PointPath, &Shown),
    name: Option<&str>,
    job: &Job,
) -> Result<Guest, Failure> {
    let old: Guest = serde_json::from_value(shown.definition["guest"].clone())
        .map_err(|error| Failure::msg(Kind::Problem, format!("the definition in point {}: {error}", at.point)))?;
    let mark = Restoring { repository: repository.name.clone(), point: at.point.clone(), run: rack.run.id.clone() };
    // As another guest it has another id, the same one whenever this is run again.
    let uuid = match name {
        Some(name) => Uuid::new_v5(&old.uuid, format!("{} {name}", at.point).as_bytes()),
        None => old.uuid,
    };
    let owner = format!("restore {} of {}", rack.run.id, rack.run.by);
    let work = async {
        let guest = define(rack, &old, (uuid, name.unwrap_or(&old.name)), &mark).await?;
        for (disk, stored) in guest.disks.iter().zip(&shown.manifest.disks) {
            let read = ReadDisk { at: at.clone(), disk: stored.index, to: None, without_snapshot: true };
            restore_disk(rack, repository, (&guest, &disk.image, stored.size), read, job).await?;
        }
        still_ours(rack, &guest).await?;
        write_seed(rack, &guest, &old, &shown.definition["seed"]).await?;
        still_ours(rack, &guest).await?;
        pass_all_floors(rack, uuid).await?;
        complete(rack, &guest).await
    };
    alone(rack.port(), uuid, (&owner, "a restore"), work).await
}

/// Says that the guest is complete, if this run still restores it.
async fn complete(rack: &GuestContext, guest: &Guest) -> Result<Guest, Failure> {
    let object = Guest::object(guest.uuid);
    let ready = update(rack.port(), &object, |found: Option<Guest>| match found {
        Some(found) if found.stage == Stage::Creating && found.restore == guest.restore => {
            let ready = Guest { stage: Stage::Ready, restore: None, ..found };
            Ok::<_, ClusterError>((Some(ready.clone()), Some(ready)))
        }
        other => Ok((other, None)),
    });
    ready.await?.ok_or_else(|| taken_over(&guest.name))
}

/// Makes sure that the guest is still being restored, and by this run, before something of it is removed or overwritten: a
/// machine that slept may have lost it to another run, which has started it since.
async fn still_ours(rack: &GuestContext, guest: &Guest) -> Result<(), Failure> {
    match fetch::<Guest>(rack.port(), &Guest::object(guest.uuid)).await? {
        Some((found, _)) if found.stage == Stage::Creating && found.restore == guest.restore => Ok(()),
        _ => Err(taken_over(&guest.name)),
    }
}

fn taken_over(name: &str) -> Failure {
    Failure::msg(Kind::Busy, format!("guest {name} was deleted or restored by another run meanwhile"))
}

/// Begins the guest's claim above the generations that hosts remember of the guest that was deleted: they refuse what is older.
/// No guest ever has as many as there are seconds since 1970, so that hosts which do not answer now are passed by that; a host
/// that remembers more, because a clock was wrong once, says how much.
async fn pass_all_floors(rack: &GuestContext, uuid: Uuid) -> Result<(), Failure> {
    let clock = u64::try_from(Timestamp::now().as_second())?;
    let floors = rack.hypervisors.all().map(|host| async move {
        match timeout(ANSWER, host.revoke(uuid, Token::new(clock))).await {
            Ok(Err(VirtError::Stale { floor, .. })) => floor,
            _ => clock,
        }
    });
    let highest = join_all(floors).await.into_iter().max().unwrap_or(clock);
    let generation = highest.max(clock) + 1;
    let object = Claim::object(uuid);
    let begun = update(rack.port(), &object, |found: Option<Claim>| {
        // A run of the same restore that died has left one: the hosts have heard of a later generation since.
        let claim = found.unwrap_or_default();
        Ok::<_, ClusterError>((Some(Claim { generation: claim.generation.max(generation), ..claim }), ()))
    });
    Ok(begun.await?)
}

/// Enters the guest under its name, not complete yet; one that an earlier run of the same restore entered is found.
/// From another point it is begun anew: nothing of the first one's definition or disks stays.
async fn define(
    rack: &GuestContext,
    old: &Guest,
    (uuid, name): (Uuid, &str),
    mark: &Restoring,
) -> Result<Guest, Failure> {
    let port = rack.port();
    check_name(name)?;
    let object = Guest::object(uuid);
    let begun = fetch::<Guest>(port, &object).await?.map(|(found, _)| found);
    if let Some(found) = begun.as_ref().filter(|found| !half_restored(found, name)) {
        return Err(there(&found.name));
    }
    match port.change_keys(INDEX, &KeysChange::default().add(name, uuid.to_string())).await {
        Ok(()) => {}
        Err(ClusterError::Conflict(_)) if rack.index().await?.get(name) == Some(&uuid) => {}
        Err(ClusterError::Conflict(_)) => return Err(there(name)),
        Err(error) => return Err(error.into()),
    }
    let mut nics = Vec::new();
    for (index, nic) in old.nics.iter().enumerate() {
        let pool = Pool::of(&rack.inventory, &nic.network)?;
        let same = uuid == old.uuid;
        let kept = match same {
            true => Some(address::take(port, &pool, uuid, index, Wish::Exactly(nic.address)).await),
            false => None,
        };
        let lease = match kept {
            Some(Ok(lease)) => lease,
            // Whether it is taken is not known then.
            Some(Err(failure)) if matches!(failure.kind, Kind::Unknown | Kind::Busy) => return Err(failure),
            Some(Err(_)) | None => address::take(port, &pool, uuid, index, Wish::Auto).await?,
        };
        if same && lease.address != nic.address {
            rack.ui.warn(format!("guest {name}: its address {} is taken; it has {} now", nic.address, lease.address));
        }
        nics.push(Nic { network: nic.network.clone(), mac: lease.mac, address: lease.address });
    }
    let disks = old.disks.iter().enumerate();
    let guest = Guest {
        name: name.to_owned(),
        uuid,
        stage: Stage::Creating,
        desired: Desired::Stopped,
        disks: disks.map(|(n, disk)| Disk { image: format!("vm.{uuid}.disk{n}"), ..disk.clone() }).collect(),
        nics,
        restore: Some(mark.clone()),
        ..old.clone()
    };
    let entered = update(port, &object, |found: Option<Guest>| {
        Ok::<_, ClusterError>(match found {
            Some(found) if !half_restored(&found, name) => (Some(found), false),
            _ => (Some(guest.clone()), true),
        })
    });
    if !entered.await? {
        return Err(there(name));
    }
    for disk in begun.into_iter().flat_map(|begun| begun.disks) {
        if !guest.disks.iter().any(|new| new.image == disk.image) {
            still_ours(rack, &guest).await?;
            port.image_remove(&disk.image).await?;
        }
    }
    Ok(guest)
}

/// Whether an earlier run of a restore entered it.
fn half_restored(found: &Guest, name: &str) -> bool {
    found.stage == Stage::Creating && found.restore.is_some() && found.name == name
}

fn there(name: &str) -> Failure {
    Failure::refused(format!("guest {name} is there"))
        .hint("restore it beside that one with --as NAME, or delete that one first with `rackhand guest delete`")
}

/// Writes a disk anew. What an earlier run left of it goes first.
async fn restore_disk(
    rack: &GuestContext,
    repository: &Repository,
    (guest, image, size): (&Guest, &str, u64),
    read: ReadDisk,
    job: &Job,
) -> Result<(), Failure> {
    let port = rack.port();
    if port.image(image).await?.is_some() {
        still_ours(rack, guest).await?;
        port.image_remove(image).await?;
    }
    still_ours(rack, guest).await?;
    port.image_create(image, size).await?;
    let remote = mon_host(rack).await?;
    still_ours(rack, guest).await?;
    let (to, from) = channel(AHEAD);
    let pipes = Pipes { input: None, output: Some(to) };
    let (read, written) = tokio::join!(
        repository.exchange(Request::Read(read), pipes, Some(job)),
        stream::write(remote.as_ref(), &rack.inventory.ceph.pool, image, from),
    );
    match (read, written) {
        (Ok(Done::Read(read)), Ok(bytes)) if read.bytes == bytes => Ok(()),
        (Ok(Done::Read(read)), Ok(bytes)) => {
            Err(Failure::failed(format!("{bytes} of {} bytes arrived at disk image {image}", read.bytes)))
        }
        // What is damaged in the repository is why the stream ended early.
        (Err(failure), _) if failure.kind == Kind::Problem => Err(failure),
        (_, Err(failure)) | (Err(failure), _) => Err(failure),
        (Ok(other), Ok(_)) => Err(unexpected(&other)),
    }
}

/// Writes the seed: as it was, or for another name or address.
async fn write_seed(rack: &GuestContext, guest: &Guest, old: &Guest, seed: &Value) -> Result<(), Failure> {
    let mut bytes = base64::engine::general_purpose::STANDARD.decode(seed["base64"].as_str().unwrap_or_default())?;
    bytes.resize(usize::try_from(seed["size"].as_u64().unwrap_or_default())?, 0);
    if (&guest.name, guest.uuid, &guest.nics) != (&old.name, old.uuid, &old.nics) {
        let networks = &rack.inventory.networks.guests;
        let user_data = Seed::user_data_of(&bytes)?;
        bytes = Seed::new(guest, |name| networks.get(name), user_data)?.disk()?;
    }
    rack.port().image_write(&guest.seed_image(), &bytes).await.map_err(Failure::from)
}
