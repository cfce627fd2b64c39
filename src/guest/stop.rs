//! Stopping and rebooting guests.

use super::claim::{self, Claim, Phase, Run, Swap};
use super::desired::set_desired;
use super::domain_inventory::{DomainInventory, StartState, may_run, stands_still};
use super::guest_context::GuestContext;
use super::live::Live;
use super::planning_input::PlanningInput;
use super::settlement::{Courtesy, Settled, Settlement};
use super::spec::{Desired, Guest};
use super::start::unless_power_is_open;
use crate::error::{Failure, Kind};
use crate::libvirt::{Domain, DomainState, Hypervisor, Token};
use crate::ui::{Job, Outcome, ShutdownPolicy};
use futures::future::join_all;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How long a guest may take to shut itself down, unless told otherwise.
pub const SHUTDOWN: Duration = Duration::from_secs(90);
/// How long a killed QEMU may take to be gone.
const DESTROY: Duration = Duration::from_secs(30);
/// How often the power button is pressed: a guest that is still in its firmware or its early boot does not hear it,
/// and one that is going down does not mind.
const PRESS: Duration = Duration::from_secs(10);
/// Time between two looks.
const POLL: Duration = Duration::from_millis(200);
/// How long a forced stop waits until it is written down that the guest is to be down: a cluster that takes no writes
/// does not hold it up.
const HEAD_START: Duration = Duration::from_secs(2);
/// Rounds of a stop when others get in between.
const ROUNDS: usize = 16;

/// Guests that go down are waited for.
const PATIENCE: ShutdownPolicy = ShutdownPolicy {
    once: "waits for the guests that are going down; once more to leave them to it",
    twice: "leaves the guests to it",
    aborts_itself: false,
};

/// How a guest is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// By its power button, waiting this long.
    Shutdown(Duration),
    /// At once.
    Force,
}

/// Stops guests; one that is down is left alone. Tells whether each ran.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn stop(
    rack: &GuestContext,
    guests: &[Guest],
    how: How,
) -> Result<Vec<(String, Result<bool, Failure>)>, Failure> {
    let _unhurried = rack.ui.completion_guard(PATIENCE);
    let planning_input = &PlanningInput::take(rack).await?;
    let stops = guests.iter().map(|guest| async move {
        let job = rack.ui.job(format!("stop {}", guest.name));
        let result = stop_one(rack, planning_input, guest, how, &job).await;
        job.conclude(&result, |ran| match ran {
            true => (Outcome::Done, String::new()),
            false => (Outcome::Unchanged, "was down".to_owned()),
        });
        (guest.name.clone(), result)
    });
    Ok(join_all(stops).await)
}

/// Stops a guest and frees its claim after it was seen gone.
pub(super) async fn stop_one(
    rack: &GuestContext,
    planning_input: &PlanningInput,
    guest: &Guest,
    how: How,
    job: &Job,
) -> Result<bool, Failure> {
    if how != How::Force {
        keep_what_would_be_lost(rack, planning_input, guest).await?;
    }
    let stopping = Stopping { rack, guest, how, job, run: rack.run.operation() };
    let mut wish = pin!(set_desired(rack, guest, Desired::Stopped));
    match (how, timeout(HEAD_START, &mut wish).await) {
        (_, Ok(Ok(()))) => stopping.bring_down(planning_input).await,
        (How::Shutdown(_), Ok(Err(failure))) => Err(failure),
        (How::Shutdown(_), Err(_)) => {
            wish.await?;
            stopping.bring_down(planning_input).await
        }
        // What cannot be written down holds no forced stop up.
        (How::Force, Ok(Err(failure))) => stopping.bring_down(planning_input).await.and(Err(failure)),
        (How::Force, Err(_)) => {
            let (ended, wished) = tokio::join!(stopping.bring_down(planning_input), wish);
            wished.and(ended)
        }
    }
}

/// Refuses to stop a guest that writes to something which its next start knows nothing of, and names what else it has beside
/// its definition.
async fn keep_what_would_be_lost(
    rack: &GuestContext,
    planning_input: &PlanningInput,
    guest: &Guest,
) -> Result<(), Failure> {
    let Some((host, _)) = planning_input.domain_inventory.place(guest.uuid) else { return Ok(()) };
    // A guest whose live definition cannot be had is found out about by the stop itself.
    let Ok(xml) = rack.hypervisors.get(host)?.xml(guest.uuid).await else { return Ok(()) };
    for foreign in Live::read(&xml).map(|live| live.foreign(guest, &rack.inventory.ceph.pool)).unwrap_or_default() {
        if foreign.is_lost_with_a_stop() {
            return Err(Failure::refused(foreign.to_string())
                .hint(foreign.cure(guest.uuid, host))
                .hint("--force stops it all the same"));
        }
        rack.ui.note(format!("guest {}: {foreign}; its next start is without that", guest.name));
    }
    Ok(())
}

/// One guest that is stopped.
struct Stopping<'a> {
    rack: &'a GuestContext,
    guest: &'a Guest,
    how: How,
    job: &'a Job,
    run: Run,
}

impl Stopping<'_> {
    /// Ends every copy and frees the claim; tells whether it ran.
    async fn bring_down(&self, planning_input: &PlanningInput) -> Result<bool, Failure> {
        let (rack, guest) = (self.rack, self.guest);
        let mut claim = planning_input.claim(guest.uuid);
        let mut newer: Option<DomainInventory> = None;
        let mut ran = false;
        for _ in 0..ROUNDS {
            let domain_inventory = newer.as_ref().unwrap_or(&planning_input.domain_inventory);
            let over = match domain_inventory.place(guest.uuid) {
                Some(place) => {
                    ran = true;
                    self.end_copy(domain_inventory, &claim, place).await?
                }
                None => self.settle(domain_inventory, &claim).await?,
            };
            if over {
                return Ok(ran);
            }
            claim = claim::read(rack.port(), guest.uuid).await?;
            newer = Some(DomainInventory::take(rack, false).await?);
        }
        Err(Failure::msg(
            Kind::Busy,
            format!("guest {} is started and stopped by other runs again and again", guest.name),
        ))
    }

    /// Ends a copy that was seen; tells whether that was all there is to do.
    async fn end_copy(
        &self,
        domain_inventory: &DomainInventory,
        claim: &Claim,
        seen: &(String, Domain),
    ) -> Result<bool, Failure> {
        let (guest, force) = (self.guest, self.how == How::Force);
        let pending = matches!(claim.phase, Phase::Starting | Phase::Moving);
        let mut claim = claim.clone();
        if force && pending {
            // Whoever is at it is refused from now on, where its copies are ended.
            match self.settlement().take_over(&claim).await? {
                Some(mine) => claim = mine,
                None => return Ok(false),
            }
        }
        // Of a guest on its way the source goes first: nobody is tempted then to let it go on with old memory.
        let source = claim.host.as_deref().filter(|_| force);
        let first = source.and_then(|host| domain_inventory.places(guest.uuid).find(|(at, _)| at == host));
        let (host, domain) = first.unwrap_or(seen);
        if !force && domain.state != DomainState::Running {
            return Err(stands_still(&guest.name, host, domain.state, &domain.reason)
                .hint(format!("or pull its plug with `rackhand guest stop --force {}`", guest.name)));
        }
        end(&self.rack.hypervisors.get(host)?, guest, self.how, claim.token(), self.job).await?;
        // It was nowhere else, as long as its claim is what it was.
        let here = claim.phase == Phase::Running && claim.host.as_deref() == Some(host.as_str());
        if !(here && domain_inventory.is_alone(guest.uuid, &claim)) {
            return Ok(false);
        }
        self.free(&claim).await.map_err(|why| {
            let text = format!("it was ended on {host}, which could not be written down: {why}");
            let hint = "run the same command again once Ceph takes writes: it looks before it acts";
            why.hints.iter().fold(Failure::msg(why.kind, text), |failure, hint| failure.hint(hint)).hint(hint)
        })
    }

    /// Frees the claim of a guest that was seen nowhere; tells whether that could be done.
    async fn settle(&self, domain_inventory: &DomainInventory, claim: &Claim) -> Result<bool, Failure> {
        // Its claim is all that keeps its next start from going ahead without the proof.
        unless_power_is_open(self.guest, claim, &domain_inventory.fences)?;
        match domain_inventory.start_state(self.guest.uuid, claim) {
            StartState::MayRun { host, why } => Err(may_run(&host, &why)),
            StartState::Free => self.free(claim).await,
            StartState::Pending => {
                let courtesy = if self.how == How::Force { Courtesy::None } else { Courtesy::Wait };
                Ok(self.settlement().settle(claim, courtesy).await? == Settled::Free)
            }
            StartState::Runs(_) | StartState::Stands { .. } => Ok(false),
        }
    }

    fn settlement(&self) -> Settlement<'_> {
        let (rack, job, run) = (self.rack, self.job, &self.run);
        Settlement {
            rack,
            guest: self.guest.uuid,
            name: &self.guest.name,
            run,
            job,
            cancel_level: rack.ui.cancel_level(),
        }
    }

    /// Frees the claim that was read before the hosts were asked; `false` when it changed since.
    async fn free(&self, claim: &Claim) -> Result<bool, Failure> {
        let (port, uuid) = (self.rack.port(), self.guest.uuid);
        if claim.phase == Phase::Free {
            return Ok(claim::read(port, uuid).await? == *claim);
        }
        Ok(claim::swap(port, uuid, claim, &claim.freed()).await? == Swap::Ours)
    }
}

/// Ends a running domain and waits until it is gone.
async fn end(
    hypervisor: &Arc<dyn Hypervisor>,
    guest: &Guest,
    how: How,
    token: Token,
    job: &Job,
) -> Result<(), Failure> {
    let host = hypervisor.host().to_owned();
    let (asked, patience) = match how {
        How::Shutdown(patience) => (hypervisor.shutdown(guest.uuid).await, patience),
        How::Force => (hypervisor.destroy(guest.uuid, token).await, DESTROY),
    };
    match asked {
        Ok(()) => {}
        // Of one that another run has taken over, the claim is read again.
        Err(error) if error.no_domain() || error.stale() => return Ok(()),
        // Whether it was heard shows below.
        Err(error) if error.unknown() => {}
        Err(error) => return Err(error.into()),
    }
    let began = Instant::now();
    let mut pressed = began;
    loop {
        match hypervisor.domain(guest.uuid).await {
            Ok(None) => return Ok(()),
            Ok(Some(domain)) if !domain.state.has_process() => return Ok(()),
            Ok(Some(_)) => {}
            Err(error) if error.unknown() => job.step(error.to_string()),
            Err(error) => return Err(Failure::new(Kind::Unknown, error)),
        }
        if began.elapsed() > patience {
            let failure = Failure::failed(format!("it still runs on {host} after {} s", patience.as_secs()));
            return Err(match how {
                How::Shutdown(_) => failure.hint("give it more time with --timeout, or pull its plug with --force"),
                How::Force => failure.hint(format!("look at the storage: QEMU on {host} may wait for it")),
            });
        }
        if matches!(how, How::Shutdown(_)) && pressed.elapsed() > PRESS {
            pressed = Instant::now();
            // Whether it was heard shows above.
            let _ = hypervisor.shutdown(guest.uuid).await;
        }
        job.step(format!("waits for it to go down on {host}"));
        tokio::time::sleep(POLL).await;
    }
}

/// Reboots guests: asks them to, or presses the reset button. One that stands still hears neither.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn reboot(
    rack: &GuestContext,
    guests: &[Guest],
    force: bool,
) -> Result<Vec<(String, Result<(), Failure>)>, Failure> {
    let domain_inventory = &DomainInventory::take(rack, false).await?;
    let reboots = guests.iter().map(|guest| async move {
        let job = rack.ui.job(format!("reboot {}", guest.name));
        let result: Result<(), Failure> = async {
            let hypervisor = rack.hypervisors.get(&domain_inventory.host_of(rack, guest).await?)?;
            if let Some((host, domain)) = domain_inventory.place(guest.uuid)
                && domain.state != DomainState::Running
            {
                return Err(stands_still(&guest.name, host, domain.state, &domain.reason));
            }
            let asked = if force { hypervisor.reset(guest.uuid).await } else { hypervisor.reboot(guest.uuid).await };
            Ok(asked?)
        }
        .await;
        job.conclude(&result, |()| (Outcome::Done, if force { "reset" } else { "asked to" }.to_owned()));
        (guest.name.clone(), result)
    });
    Ok(join_all(reboots).await)
}
