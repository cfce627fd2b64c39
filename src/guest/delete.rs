//! Deleting guests: first said, then done, last forgotten, so that a killed run can be finished.

use super::desired::change;
use super::domain_inventory::may_run;
use super::guest_context::GuestContext;
use super::planning_input::PlanningInput;
use super::spec::{FailoverPolicy, Guest, INDEX, Stage};
use super::stop::{How, stop_one};
use super::{address, claim, hold, snapshots};
use crate::cluster::{ClusterError, KeysChange, Lease, fetch, update};
use crate::error::{Failure, Kind};
use crate::ui::{Job, Outcome, ShutdownPolicy};
use futures::future::{join_all, try_join_all};
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// How long a disk may stay open after its guest is gone: a killed client's watch runs out after 30 s.
const CLOSE: Duration = Duration::from_secs(40);

/// Deletions that were begun are finished.
const PATIENCE: ShutdownPolicy = ShutdownPolicy {
    once: "finishes the deletions; once more to leave them half-done",
    twice: "leaves the deletions half-done",
    aborts_itself: false,
};

/// Deletes guests with their disks; running ones are stopped at once.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn delete(rack: &GuestContext, guests: &[Guest]) -> Result<Vec<(String, Result<(), Failure>)>, Failure> {
    let _unhurried = rack.ui.completion_guard(PATIENCE);
    let planning_input = &PlanningInput::take(rack).await?;
    let deletes = guests.iter().map(|guest| async move {
        let job = rack.ui.job(format!("delete {}", guest.name));
        let result = delete_one(rack, planning_input, guest, &job).await;
        job.conclude(&result, |()| (Outcome::Done, String::new()));
        (guest.name.clone(), result)
    });
    Ok(join_all(deletes).await)
}

pub(super) async fn delete_one(
    rack: &GuestContext,
    planning_input: &PlanningInput,
    guest: &Guest,
    job: &Job,
) -> Result<(), Failure> {
    let begun = guest.stage == Stage::Deleting;
    if !begun {
        may_be_deleted(planning_input, guest)?;
    }
    snapshots::refuse_foreign(rack.port(), guest).await?;
    let waits = |lease: &Lease| job.step(format!("waits for {}, which holds it for {}", lease.holder, lease.purpose));
    hold::wait_out(rack.port(), guest.uuid, waits).await?;
    mark(rack, guest).await?;
    let stopped = async {
        hold::refuse(rack.port(), guest.uuid).await?;
        stop_one(rack, planning_input, guest, How::Force, job).await
    };
    if let Err(failure) = stopped.await {
        // Nothing of it is gone yet: where it is certain that it goes on as it was, it can be used as it was.
        if !begun && matches!(failure.kind, Kind::Refused | Kind::Busy | Kind::Failed) {
            unmark(rack, guest).await?;
        }
        return Err(failure);
    }
    try_join_all(images(guest).iter().map(|image| remove_image(rack, guest, image, job))).await?;
    clear(rack, guest).await
}

/// Refuses where nobody knows whether the guest runs.
fn may_be_deleted(planning_input: &PlanningInput, guest: &Guest) -> Result<(), Failure> {
    let inventory = &planning_input.domain_inventory;
    match inventory.place(guest.uuid) {
        Some(_) => Ok(()),
        None => match inventory.hidden(&planning_input.claim(guest.uuid)) {
            Some((host, why)) => Err(may_run(&host, &why)),
            None => Ok(()),
        },
    }
}

/// All disk images of a guest.
fn images(guest: &Guest) -> Vec<String> {
    guest.disks.iter().map(|disk| disk.image.clone()).chain([guest.seed_image()]).collect()
}

/// Says that it is being deleted, unless it is protected; both in one step.
async fn mark(rack: &GuestContext, guest: &Guest) -> Result<(), Failure> {
    let object = Guest::object(guest.uuid);
    let protected = update(rack.port(), &object, |found: Option<Guest>| {
        Ok::<_, ClusterError>(match found {
            Some(guest) if guest.protected => (Some(guest), true),
            Some(guest) => (Some(Guest { stage: Stage::Deleting, ..guest }), false),
            None => (None, false),
        })
    });
    if protected.await? {
        return Err(Failure::refused("it is protected")
            .hint(format!("take the protection away with `rackhand guest protect off {}`", guest.name)));
    }
    Ok(())
}

/// Takes back that it is being deleted, and with it the wish that it be down.
async fn unmark(rack: &GuestContext, guest: &Guest) -> Result<(), Failure> {
    let object = Guest::object(guest.uuid);
    let (stage, desired) = (guest.stage, guest.desired);
    let unmarked = update(rack.port(), &object, |found: Option<Guest>| {
        let back = |found: Guest| match found.stage {
            Stage::Deleting => Guest { stage, desired, ..found },
            Stage::Creating | Stage::Ready => found,
        };
        Ok::<_, ClusterError>((found.map(back), ()))
    });
    Ok(unmarked.await?)
}

async fn remove_image(rack: &GuestContext, guest: &Guest, image: &str, job: &Job) -> Result<(), Failure> {
    let began = Instant::now();
    loop {
        snapshots::remove_bases(rack.port(), image).await?;
        match rack.port().image_remove(image).await {
            Ok(_) => return Ok(()),
            Err(ClusterError::Busy(text)) if began.elapsed() < CLOSE => {
                // One that was made since the deletion began would be waited for in vain.
                snapshots::refuse_foreign(rack.port(), guest).await?;
                job.step(text);
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Err(ClusterError::Busy(text)) => {
                return Err(Failure::msg(Kind::Busy, text)
                    .hint("see who has it with `rbd status`; then run the same command again"));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Takes back a guest that was never started.
pub(super) async fn undo(rack: &GuestContext, guest: &Guest) -> Result<(), Failure> {
    for image in images(guest) {
        rack.port().image_remove(&image).await?;
    }
    clear(rack, guest).await
}

/// Forgets a guest that has nothing left: addresses, claim, definition, and last its name.
async fn clear(rack: &GuestContext, guest: &Guest) -> Result<(), Failure> {
    let port = rack.port();
    for nic in &guest.nics {
        address::give_back(port, &nic.network, guest.uuid).await?;
    }
    claim::forget(port, guest.uuid).await?;
    hold::forget(port, guest.uuid).await?;
    let object = Guest::object(guest.uuid);
    let forget = update(port, &object, |_: Option<Guest>| Ok::<_, ClusterError>((None, ())));
    forget.await?;
    forget_name(rack, &guest.name, guest.uuid).await
}

pub(super) async fn forget_name(rack: &GuestContext, name: &str, uuid: Uuid) -> Result<(), Failure> {
    match rack.port().change_keys(INDEX, &KeysChange::default().take(name, uuid.to_string())).await {
        // Gone already, or somebody else's by now.
        Ok(()) | Err(ClusterError::Conflict(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Clears away a name whose guest was never defined: its run was killed right after reserving it.
///
/// The name goes first. A run that is still at it looks for its name once it has written the definition, so that one of
/// the two sees the other.
///
/// # Errors
/// When another run has defined the guest meanwhile, or the cluster cannot be asked.
pub async fn delete_reserved(rack: &GuestContext, name: &str, uuid: Uuid) -> Result<(), Failure> {
    forget_name(rack, name, uuid).await?;
    if fetch::<Guest>(rack.port(), &Guest::object(uuid)).await?.is_some() {
        // A run that looked before has a complete guest by now: the name is its own.
        match rack.port().change_keys(INDEX, &KeysChange::default().add(name, uuid.to_string())).await {
            Ok(()) | Err(ClusterError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
        return Err(Failure::msg(Kind::Busy, format!("guest {name} is being made by another run"))
            .hint("run the same command again once that has ended"));
    }
    for network in rack.inventory.networks.guests.keys() {
        address::give_back(rack.port(), network, uuid).await?;
    }
    Ok(())
}

/// Sets what has to be proven of a lost host before guests of it start elsewhere.
pub async fn set_failover(
    rack: &GuestContext,
    guests: &[Guest],
    policy: FailoverPolicy,
) -> Vec<(String, Result<Guest, Failure>)> {
    let changes = guests
        .iter()
        .map(|guest| async move { (guest.name.clone(), change(rack, guest, |guest| guest.failover = policy).await) });
    join_all(changes).await
}

/// Protects guests from being deleted, or no longer.
pub async fn protect(rack: &GuestContext, guests: &[Guest], protected: bool) -> Vec<(String, Result<Guest, Failure>)> {
    let changes = guests.iter().map(|guest| async move {
        (guest.name.clone(), change(rack, guest, |guest| guest.protected = protected).await)
    });
    join_all(changes).await
}
