//! Letting a guest go on that stands still: one whose disk failed, or that was paused by other hands.

use super::claim::{self, Phase, Swap};
use super::domain_inventory::{DomainInventory, StartState, may_run, stands_still};
use super::guest_context::GuestContext;
use super::spec::Guest;
use crate::error::{Failure, Kind};
use crate::fence::address_of;
use crate::libvirt::{Domain, DomainState};
use crate::ui::{Job, Outcome};
use futures::future::join_all;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::sleep;

/// How long a guest that was let go on is watched: a disk that fails stops it again at its next write.
const SETTLES: Duration = Duration::from_secs(1);

/// Lets guests go on; tells the host of each, and whether it ran already.
pub async fn resume(rack: &GuestContext, guests: &[Guest]) -> Vec<(String, Result<(String, bool), Failure>)> {
    let resumes = guests.iter().map(|guest| async move {
        let job = rack.ui.job(format!("resume {}", guest.name));
        let result = resume_one(rack, guest, &job).await;
        job.conclude(&result, |(host, already)| match already {
            true => (Outcome::Unchanged, format!("runs on {host}")),
            false => (Outcome::Done, format!("on {host}")),
        });
        (guest.name.clone(), result)
    });
    join_all(resumes).await
}

/// The only copy of a guest, whose claim says nothing else, goes on: older requests are refused from then on.
async fn resume_one(rack: &GuestContext, guest: &Guest, job: &Job) -> Result<(String, bool), Failure> {
    let (port, uuid, name) = (rack.port(), guest.uuid, &guest.name);
    let claim = claim::read(port, uuid).await?;
    let domain_inventory = DomainInventory::take(rack, false).await?;
    let (host, state, reason) = match domain_inventory.start_state(uuid, &claim) {
        StartState::Runs(host) => return Ok((host, true)),
        StartState::MayRun { host, why } => return Err(may_run(&host, &why)),
        StartState::Free => {
            return Err(Failure::failed(format!("guest {name} does not run"))
                .hint(format!("start it with `rackhand guest start {name}`")));
        }
        StartState::Pending => return Err(pending(name, claim.phase, &claim.by)),
        StartState::Stands { host, state, reason } => (host, state, reason),
    };
    if let Some((silent, why)) =
        domain_inventory.silent.iter().next().filter(|_| claim.host.as_deref() != Some(host.as_str()))
    {
        return Err(may_run(silent, why));
    }
    if !domain_inventory.is_alone(uuid, &claim) {
        return Err(Failure::refused(format!("it has a copy on {host} and another one"))
            .hint("see where with `rackhand doctor`, and end the one that is not the guest"));
    }
    // What came with a move, or was handed over by one, may be older than its disk.
    let moved = ["migration", "postcopy", "starting up"].iter().any(|word| reason.contains(word));
    if state != DomainState::Paused || moved {
        let failure = Failure::refused(format!("it stands still on {host} ({state}: {reason}), and must not go on"));
        return Err(failure.hint(format!("end it with `rackhand guest stop --force {name}`, then start it anew")));
    }
    only_here(rack, guest, &host).await?;
    let mine = claim.taken_over(&rack.run.operation()).running(&host);
    if let Swap::Theirs(theirs) = claim::swap(port, uuid, &claim, &mine).await? {
        return Err(Failure::msg(Kind::Busy, format!("{} works on it at the moment", theirs.by)));
    }
    let hypervisor = rack.hypervisors.get(&host)?;
    hypervisor.resume(uuid, mine.token()).await?;
    job.step("looks whether it goes on");
    sleep(SETTLES).await;
    match hypervisor.domain(uuid).await? {
        Some(Domain { state: DomainState::Running, .. }) => Ok((host, false)),
        Some(Domain { state, reason, .. }) => Err(stands_still(name, &host, state, &reason)),
        None => Err(Failure::failed(format!("it ended on {host} when it was let go on"))),
    }
}

/// Refuses where a client of another host has a disk of the guest open, or a second one of its own host, whatever claims and
/// hosts say.
async fn only_here(rack: &GuestContext, guest: &Guest, host: &str) -> Result<(), Failure> {
    let here: Vec<IpAddr> =
        rack.inventory.host(host).map(|spec| vec![spec.address, spec.storage_address]).unwrap_or_default();
    for disk in &guest.disks {
        let users = rack.port().image_users(&disk.image).await?;
        let other = users
            .watchers
            .iter()
            .find(|user| !address_of(&user.address).is_some_and(|address| here.contains(&address)));
        if let Some(other) = other {
            return Err(Failure::refused(format!("its disk is open at {} as well", other.address))
                .hint("find out who has it open there, and end that: a disk must never have two writers"));
        }
        let clients: BTreeSet<(&str, &str)> =
            users.watchers.iter().map(|user| (user.address.as_str(), user.client.as_str())).collect();
        if clients.len() > 1 {
            let addresses: Vec<&str> = clients.iter().map(|(address, _)| *address).collect();
            return Err(Failure::refused(format!(
                "its disk is open more than once on {host}: {}",
                addresses.join(", ")
            ))
            .hint(format!("end what else has it open on {host}: a disk must never have two writers")));
        }
    }
    Ok(())
}

fn pending(name: &str, phase: Phase, by: &str) -> Failure {
    let (does, mends) = match phase {
        Phase::Moving => ("moved", format!("`rackhand migrate {name}` settles its move")),
        _ => ("started", format!("`rackhand guest start {name}` finishes its start")),
    };
    Failure::msg(Kind::Busy, format!("it is being {does} by {by}")).hint(mends)
}
