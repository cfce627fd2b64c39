//! Backing guests up: snapshots of all disks at one instant, shipped, and kept as the base of the next time.

use super::lease::alone;
use super::point::{self, base};
use super::repository::{Pipes, Repository, Target, unexpected};
use super::stream::{Disk, send};
use crate::cluster::{ClusterError, Image, Parent, fetch};
use crate::error::{Failure, Kind};
use crate::guest::image::Template;
use crate::guest::{Guest, GuestContext, Stage};
use crate::inventory::Role;
use crate::ssh::Remote;
use crate::ui::{CancelLevel, Job, Outcome, ShutdownPolicy};
use base64::Engine;
use futures::stream::{StreamExt, iter};
use indicatif::HumanBytes;
use jiff::Timestamp;
use rackhand_repository::{Consistency, Done, PointKind, PointSummary, Receive, ReceiveDisk, Request};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{Sender, channel};

/// Chunks of a stream that are on their way; each has a megabyte at most.
const AHEAD: usize = 16;
/// Bytes of a seed that are kept; it has a megabyte.
const SEED: u64 = 4 << 20;
/// How long a mon host may take to let itself be connected to, before the next one is asked.
const CONNECT: Duration = Duration::from_secs(5);

/// Backups that were begun come to their end; a point that is not complete is not there.
const PATIENCE: ShutdownPolicy = ShutdownPolicy {
    once: "begins no more backups, waits for those that run; once more to break them off",
    twice: "breaks the backups off; points that are not complete are not there",
    aborts_itself: false,
};

/// A point that was made.
pub type Backed = PointSummary;

/// What would be made of a guest: the point that the new one would be a difference to, or none for a full.
///
/// # Errors
/// When the cluster or the repository cannot be asked.
pub async fn plan(rack: &GuestContext, repository: &Repository, guest: &Guest) -> Result<Option<String>, Failure> {
    repository.known(rack.port()).await?;
    let (points, images) = look(rack, repository, guest).await?;
    Ok(base_of(&points, repository, &images).map(|base| base.point.clone()))
}

/// Backs guests up, so many at a time; each with its own outcome.
pub async fn run(
    rack: &GuestContext,
    repository: &Repository,
    guests: &[Guest],
    full: bool,
    parallel: usize,
) -> Vec<(String, Result<Backed, Failure>)> {
    let _unhurried = rack.ui.completion_guard(PATIENCE);
    let cancelled = rack.ui.cancel_level();
    let backups = guests.iter().map(|guest| {
        let cancelled = cancelled.clone();
        async move {
            if *cancelled.borrow() != CancelLevel::None {
                let failure = Failure::msg(Kind::Interrupted, "it was not begun any more");
                return (guest.name.clone(), Err(failure));
            }
            let job = rack.ui.job(format!("back up {}", guest.name));
            let work = back_up(rack, repository, guest, full, &job);
            let result = alone(rack.port(), guest.uuid, (&owner(rack), "a backup"), work).await;
            job.conclude(&result, |made| (Outcome::Done, said(made)));
            (guest.name.clone(), result)
        }
    });
    iter(backups).buffered(parallel.max(1)).collect().await
}

fn owner(rack: &GuestContext) -> String {
    format!("backup {} of {}", rack.run.id, rack.run.by)
}

fn said(made: &Backed) -> String {
    let kind = if made.kind == PointKind::Incremental { "incremental" } else { "full" };
    format!("{}, {kind}, {} stored", made.point, HumanBytes(made.stored_bytes))
}

/// The guest's points, and its disks with their snapshots.
async fn look(
    rack: &GuestContext,
    repository: &Repository,
    guest: &Guest,
) -> Result<(Vec<PointSummary>, Vec<Image>), Failure> {
    if guest.stage != Stage::Ready {
        return Err(Failure::failed("it is not complete")
            .hint(format!("see what it is with `rackhand guest show {}`", guest.name)));
    }
    let cluster = Some(rack.inventory.cluster.fsid.to_string());
    let mut points = repository.points(&Target { cluster, guest: Some(guest.uuid.to_string()) }).await?;
    // A point from the future says that a clock was wrong. What follows does not stand on it, and has the right time.
    let now = Timestamp::now();
    points.retain(|point| !point::ahead(&point.point, now));
    let mut images = Vec::new();
    for disk in &guest.disks {
        let image = rack.port().image(&disk.image).await?;
        images.push(image.ok_or_else(|| Failure::failed(format!("its disk image {} is not there", disk.image)))?);
    }
    Ok((points, images))
}

fn base_of<'a>(points: &'a [PointSummary], repository: &Repository, images: &[Image]) -> Option<&'a PointSummary> {
    let has = |image: &Image, snapshot: &str| image.snapshots.iter().any(|s| s.name == snapshot);
    base(points, &repository.name, |snapshot| !images.is_empty() && images.iter().all(|image| has(image, snapshot)))
}

async fn back_up(
    rack: &GuestContext,
    repository: &Repository,
    guest: &Guest,
    full: bool,
    job: &Job,
) -> Result<Backed, Failure> {
    repository.known(rack.port()).await?;
    // Now that it is held it is not deleted any more; it may have been before.
    let found = fetch::<Guest>(rack.port(), &Guest::object(guest.uuid)).await?;
    let guest = &found.ok_or_else(|| Failure::failed("it was deleted meanwhile"))?.0;
    let (points, images) = look(rack, repository, guest).await?;
    let found = base_of(&points, repository, &images).map(|base| base.point.clone());
    // What a run that was killed left, and what the newest point does not stand on.
    keep_alone(rack, repository, guest, found.as_deref()).await?;
    let newest = points.iter().map(|point| point.point.as_str()).max();
    let new = point::name(Timestamp::now(), newest);
    let snapshot = point::snapshot(&repository.name, &new);
    job.step("taking snapshots");
    let snapshots = guest.disks.iter().map(|disk| Parent { image: disk.image.clone(), snapshot: snapshot.clone() });
    let snapshots: Vec<Parent> = snapshots.collect();
    let parent = found.clone().filter(|_| !full);
    let shipped = async {
        rack.port().snapshots_create(&snapshots).await?;
        ship(rack, repository, guest, (&new, parent.as_deref()), job).await
    };
    match shipped.await {
        Ok(made) => {
            // The point is there whatever becomes of the old base: the next run removes it where this one cannot.
            if let Err(failure) = keep_alone(rack, repository, guest, Some(&new)).await {
                rack.ui.warn(format!("guest {}: an old base stays on its disks: {failure}", guest.name));
            }
            Ok(made)
        }
        Err(failure) => {
            // What cannot be removed now goes with the next run.
            let _ = keep_alone(rack, repository, guest, found.as_deref()).await;
            Err(failure)
        }
    }
}

/// Removes all bases of this repository but that of one point.
async fn keep_alone(
    rack: &GuestContext,
    repository: &Repository,
    guest: &Guest,
    kept: Option<&str>,
) -> Result<(), Failure> {
    for disk in &guest.disks {
        let Some(image) = rack.port().image(&disk.image).await? else { continue };
        for snapshot in image.snapshots {
            let point = point::of(&repository.name, &snapshot.name);
            if point.is_some() && point != kept {
                match rack.port().snapshot_remove(&disk.image, &snapshot.name).await {
                    Ok(()) | Err(ClusterError::NotFound(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    Ok(())
}

/// Sends the disks as a new point; tells the point once it is complete and durable.
async fn ship(
    rack: &GuestContext,
    repository: &Repository,
    guest: &Guest,
    (new, parent): (&str, Option<&str>),
    job: &Job,
) -> Result<Backed, Failure> {
    let snapshot = |of: &str| point::snapshot(&repository.name, of);
    let mut disks = Vec::new();
    for (index, disk) in guest.disks.iter().enumerate() {
        let image = rack.port().image(&disk.image).await?;
        // A disk that grows meanwhile is stored as large as it was at the snapshot.
        let taken = image.and_then(|image| image.snapshots.into_iter().find(|s| s.name == snapshot(new)));
        let taken = taken.ok_or_else(|| Failure::failed(format!("the snapshot of {} is gone", disk.image)))?;
        disks.push(ReceiveDisk {
            index: u32::try_from(index)?,
            image: disk.image.clone(),
            size: taken.size,
            from_snapshot: parent.map(snapshot),
            to_snapshot: taken.name,
            template: None,
        });
    }
    let streams: Vec<Disk> = disks
        .iter()
        .map(|d| Disk { image: d.image.clone(), from: d.from_snapshot.clone(), to: d.to_snapshot.clone() })
        .collect();
    let request = Request::Receive(Receive {
        repository: repository.path.clone(),
        cluster: rack.inventory.cluster.fsid.to_string(),
        guest: guest.uuid.to_string(),
        name: guest.name.clone(),
        point: new.to_owned(),
        parent: parent.map(str::to_owned),
        definition: definition(rack, guest).await?,
        consistency: if disks.len() > 1 { Consistency::Apart } else { Consistency::Crash },
        disks,
        reader: None,
        parallel: None,
        owner: Some(owner(rack)),
    });
    let remote = mon_host(rack).await?;
    let (to, input) = channel(AHEAD);
    let feed = feed(remote.as_ref(), &rack.inventory.ceph.pool, &streams, to);
    let pipes = Pipes { input: Some(input), output: None };
    let (stored, fed) = tokio::join!(repository.exchange(request, pipes, Some(job)), feed);
    match (stored, fed) {
        (Ok(Done::Receive(received)), Ok(())) => Ok(received.point),
        // A reader that failed is why the repository misses the end of a stream.
        (_, Err(failure)) | (Err(failure), Ok(())) => Err(failure),
        (Ok(other), Ok(())) => Err(unexpected(&other)),
    }
}

async fn feed(remote: &dyn Remote, pool: &str, disks: &[Disk], to: Sender<Vec<u8>>) -> Result<(), Failure> {
    for disk in disks {
        if !send(remote, pool, disk, &to).await? {
            break;
        }
    }
    Ok(())
}

/// A mon host that can be reached: it reads from the OSDs and writes to them.
///
/// # Errors
/// When none answers.
pub(super) async fn mon_host(rack: &GuestContext) -> Result<Arc<dyn Remote>, Failure> {
    let mut why = Vec::new();
    for host in rack.inventory.with_role(Role::Mon) {
        let remote = rack.fleet.get(&host.name)?;
        match tokio::time::timeout(CONNECT, remote.connect()).await {
            Ok(Ok(())) => return Ok(remote),
            Ok(Err(error)) => why.push(error.to_string()),
            Err(_) => why.push(format!("host {}: no connection within {} s", host.name, CONNECT.as_secs())),
        }
    }
    Err(Failure::failed(format!("no mon host can be reached: {}", why.join("; "))))
}

/// All that a restore needs to know of a guest beside its disks.
async fn definition(rack: &GuestContext, guest: &Guest) -> Result<Value, Failure> {
    let seed = match rack.port().image_read(&guest.seed_image(), 0, SEED).await {
        Ok(bytes) => bytes,
        Err(ClusterError::NotFound(_)) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    // It ends with zeros.
    let used = seed.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    let template = rack.port().get(&Template::object(&guest.image.name)).await?;
    let template = template.and_then(|object| serde_json::from_str::<Value>(&object.data).ok());
    Ok(json!({
        "schema": "rackhand.backup-guest/1",
        "guest": guest,
        "seed": {
            "size": seed.len(),
            "base64": base64::engine::general_purpose::STANDARD.encode(&seed[..used]),
        },
        "template": template,
        "domain": crate::guest::xml(guest, &rack.inventory).ok(),
        "cluster": {"name": rack.inventory.cluster.name, "pool": rack.inventory.ceph.pool},
    }))
}
