//! One start on one host, from the claim to the claim: made, looked at, let go on, written down.

use super::claim::{self, Claim, Phase, Run, Swap};
use super::desired::set_desired;
use super::domain_inventory::stands_still;
use super::guest_context::GuestContext;
use super::settlement::{Settled, Settlement};
use super::spec::{Desired, Guest};
use super::start_step::StartStep;
use super::xml;
use crate::error::{Failure, Kind};
use crate::libvirt::{DomainState, Hypervisor, VirtError, Window};
use crate::ui::Job;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How long a start with an unknown end is looked after.
const LOOK_AFTER: Duration = Duration::from_secs(30);
/// Announcements in five rounds, 50 ms after the start first: QEMU's own defaults after a migration.
const ANNOUNCE: &str = r#"{"execute":"announce-self","arguments":{"initial":50,"max":550,"rounds":5,"step":100}}"#;

/// How a start on a host ended.
#[derive(Debug)]
pub(super) enum Launched {
    /// It runs there; whether it did before.
    Runs(bool),
    /// The host has a domain of another guest under this name: another host may do.
    NameTaken(String),
}

/// A start whose claim is ours.
pub(super) struct Launch<'a> {
    pub(super) rack: &'a GuestContext,
    pub(super) guest: &'a Guest,
    pub(super) host: &'a str,
    /// The claim it stands on.
    pub(super) mine: Claim,
    pub(super) run: &'a Run,
    pub(super) job: &'a Job,
    pub(super) told: &'a (dyn Fn(StartStep) + Sync),
}

/// What the host has after it was asked to make a guest.
enum Made {
    /// The guest, standing still or running.
    Here(DomainState),
    /// Another domain of its name.
    NameTaken(VirtError),
}

/// What became of a guest that was let go on.
enum LetGo {
    /// It runs.
    Runs,
    /// It is there, and stands still.
    Stands(Failure),
    /// It ended before it ran.
    Ended(Failure),
}

impl Launch<'_> {
    /// Has the host make the guest, and lets it go on.
    ///
    /// A request may arrive long after its sender is gone. What was made stands still until its claim was read once more;
    /// whoever takes the claim over has the host refuse what is older.
    pub(super) async fn run(self, window: Window) -> Result<Launched, Failure> {
        let hypervisor = self.rack.hypervisors.get(self.host)?;
        let definition = match xml(self.guest, &self.rack.inventory) {
            Ok(definition) => definition,
            Err(failure) => return Err(self.never_sent(failure).await),
        };
        let token = self.mine.token().within(window);
        match hypervisor.create(self.guest.uuid, &definition, token).await {
            Ok(()) => {
                (self.told)(StartStep::Made);
                self.go_on(&hypervisor, DomainState::Paused).await
            }
            Err(error) if error.stale() => Err(error.into()),
            Err(error) if error.nothing_ran() => Err(self.never_sent(error.into()).await),
            Err(error) => match self.look_after(&hypervisor, error).await? {
                Made::Here(state) => self.go_on(&hypervisor, state).await,
                Made::NameTaken(error) => {
                    self.give_back(Failure::failed("")).await?;
                    Ok(Launched::NameTaken(error.to_string()))
                }
            },
        }
    }

    /// Makes sure of what came of a request to make the guest that did not simply succeed.
    async fn look_after(&self, hypervisor: &Arc<dyn Hypervisor>, error: VirtError) -> Result<Made, Failure> {
        let exists = matches!(error, VirtError::Exists { .. });
        if !exists && !error.unknown() {
            return match self.give_back(error.into()).await {
                Ok(why) | Err(why) => Err(why),
            };
        }
        // Of this id, started without a claim; or another domain that has its name.
        if exists && hypervisor.domain(self.guest.uuid).await.is_ok_and(|domain| domain.is_none()) {
            return Ok(Made::NameTaken(error));
        }
        match appears(self.guest, hypervisor).await {
            Some(state) => Ok(Made::Here(state)),
            None => Err(unknown(self.guest, error)),
        }
    }

    /// Reads the claim once more, lets what was made go on, and writes that down.
    async fn go_on(self, hypervisor: &Arc<dyn Hypervisor>, state: DomainState) -> Result<Launched, Failure> {
        let (host, name) = (self.host, &self.guest.name);
        let now = claim::read(self.rack.port(), self.guest.uuid)
            .await
            .map_err(|why| unsettled(format!("it was made on {host}, where it stands still"), &why.into()))?;
        if now != self.mine {
            return Err(self.give_way(hypervisor, &now).await);
        }
        let already = state == DomainState::Running;
        let stands = match if already { LetGo::Runs } else { self.let_go(hypervisor).await? } {
            LetGo::Runs => None,
            LetGo::Stands(failure) => Some(failure),
            LetGo::Ended(why) => {
                return match self.give_back(why).await {
                    Ok(why) | Err(why) => Err(why),
                };
            }
        };
        let runs = |why: Failure| unsettled(format!("it runs on {host}, but that could not be written down"), &why);
        let running = Claim { started: Some(jiff::Timestamp::now()), ..self.mine.running(host) };
        let swapped = claim::swap(self.rack.port(), self.guest.uuid, &self.mine, &running).await;
        if let Swap::Theirs(theirs) = swapped.map_err(|why| runs(why.into()))?
            && !theirs.places().any(|place| place == host)
        {
            return Err(self.give_way(hypervisor, &theirs).await);
        }
        // Read after the claim was ours: whoever wishes otherwise since is not written over.
        if self.guest.desired != Desired::Running {
            set_desired(self.rack, self.guest, Desired::Running).await.map_err(runs)?;
        }
        if let Some(failure) = stands {
            return Err(failure);
        }
        (self.told)(StartStep::Running(host.to_owned()));
        if self.mine.last.as_deref().is_some_and(|last| last != host) {
            // Bridges and switches remember the guest where it ran before, for minutes.
            if let Err(error) = hypervisor.monitor(self.guest.uuid, ANNOUNCE).await {
                self.rack.ui.warn(format!("guest {name} may be unreachable for up to 5 min: {error}"));
            }
        }
        Ok(Launched::Runs(already))
    }

    /// Finishes a start that another run left behind: what it made is here, and the claim is ours by now.
    pub(super) async fn finish(self) -> Result<Launched, Failure> {
        let hypervisor = self.rack.hypervisors.get(self.host)?;
        self.go_on(&hypervisor, DomainState::Paused).await
    }

    /// Lets a guest that was made go on, and makes sure that it does.
    async fn let_go(&self, hypervisor: &Arc<dyn Hypervisor>) -> Result<LetGo, Failure> {
        let (began, uuid, name) = (Instant::now(), self.guest.uuid, &self.guest.name);
        loop {
            let asked = hypervisor.resume(uuid, self.mine.token()).await;
            let domain = match (&asked, hypervisor.domain(uuid).await) {
                (Err(error), _) if error.stale() => return Err(error.clone().into()),
                // It was carried out, and only the look failed.
                (Ok(()), Err(_)) => return Ok(LetGo::Runs),
                (Err(error), Err(_)) if began.elapsed() > LOOK_AFTER => return Err(unknown(self.guest, error.clone())),
                (_, domain) => domain.ok(),
            };
            match domain {
                Some(Some(domain)) if domain.state == DomainState::Running => return Ok(LetGo::Runs),
                // Asked is not done: its disk failed at once.
                Some(Some(domain)) if domain.reason == "ioerror" || began.elapsed() > LOOK_AFTER => {
                    return Ok(LetGo::Stands(stands_still(name, self.host, domain.state, &domain.reason)));
                }
                Some(gone) if gone.as_ref().is_none_or(|domain| !domain.state.has_process()) => {
                    let why = asked.err().map(|error| format!(": {error}")).unwrap_or_default();
                    return Ok(LetGo::Ended(Failure::failed(format!("it ended on {} before it ran{why}", self.host))));
                }
                _ => sleep(Duration::from_secs(1)).await,
            }
        }
    }

    /// A start that went nowhere: nothing was sent to the host, so that nothing has to be waited for.
    async fn never_sent(&self, why: Failure) -> Failure {
        match claim::swap(self.rack.port(), self.guest.uuid, &self.mine, &self.mine.freed()).await {
            Ok(_) => why,
            Err(error) => unsettled(format!("{why}; its claim could not be given back"), &error.into()),
        }
    }

    /// Settles our own claim after the host said that it has no such guest: older requests are revoked and the host is
    /// looked at before the claim is freed.
    ///
    /// # Errors
    /// With the reason, and what stands in the way, when the claim could not be freed.
    async fn give_back(&self, why: Failure) -> Result<Failure, Failure> {
        let cancel_level = self.rack.ui.cancel_level();
        let (rack, guest) = (self.rack, self.guest.uuid);
        let settlement = Settlement { rack, guest, name: &self.guest.name, run: self.run, job: self.job, cancel_level };
        let settled = async {
            match settlement.take_over(&self.mine).await? {
                Some(mine) => settlement.settle_start(mine).await,
                None => Ok(Settled::Changed),
            }
        };
        match settled.await {
            Ok(Settled::Free | Settled::Changed) => Ok(why),
            Ok(Settled::Runs(_) | Settled::Made(_) | Settled::Moves(_)) => {
                Err(unsettled(format!("{} has it all the same", self.host), &why))
            }
            Err(failure) => Err(unsettled(failure.to_string(), &why)),
        }
    }

    /// Leaves the guest to whoever has its claim now; a copy on a host that the claim does not name any more is ended.
    async fn give_way(&self, hypervisor: &Arc<dyn Hypervisor>, theirs: &Claim) -> Failure {
        let (name, host) = (&self.guest.name, self.host);
        if theirs.places().any(|place| place == host) {
            // It runs somewhere by now, and what is here may be what arrives.
            let does = if theirs.phase == Phase::Moving { "is being moved by" } else { "was taken over by" };
            return Failure::msg(Kind::Busy, format!("guest {name} {does} {}", theirs.by));
        }
        let text =
            format!("the start of guest {name} on {host} took too long, its claim was taken over by {}", theirs.by);
        match hypervisor.destroy(self.guest.uuid, self.mine.token()).await {
            Ok(()) => Failure::msg(Kind::Busy, format!("{text}; its copy on {host} was ended")),
            // Whoever took it over has looked there since, and settles what is there.
            Err(error) if error.stale() => Failure::msg(Kind::Busy, text),
            Err(error) if error.no_domain() => Failure::msg(Kind::Busy, format!("{text}; it has no copy on {host}")),
            Err(error) => {
                Failure::msg(Kind::Unknown, format!("{text}; its copy on {host} could not be ended: {error}")).hint(
                    format!(
                        "end it on {host} now, with `virsh destroy {}`: a guest must never run twice",
                        self.guest.uuid
                    ),
                )
            }
        }
    }
}

/// A start that got this far, and then lost the cluster.
pub(super) fn unsettled(how_far: String, why: &Failure) -> Failure {
    Failure::msg(Kind::Unknown, format!("{how_far}: {why}")).hint("run the same command again: it looks before it acts")
}

fn unknown(guest: &Guest, error: VirtError) -> Failure {
    Failure::new(Kind::Unknown, error)
        .hint(format!("look with `rackhand guest show {}`; starting it again is safe", guest.name))
}

/// Whether a guest whose start has an unknown end shows up on its host, and how.
async fn appears(guest: &Guest, hypervisor: &Arc<dyn Hypervisor>) -> Option<DomainState> {
    let look = async {
        loop {
            if let Ok(Some(domain)) = hypervisor.domain(guest.uuid).await
                && domain.state.has_process()
            {
                return domain.state;
            }
            sleep(Duration::from_secs(1)).await;
        }
    };
    timeout(LOOK_AFTER, look).await.ok()
}
