//! What runs where, asked from the hosts themselves.

use super::claim::{self, Claim, Phase};
use super::guest_context::GuestContext;
use super::spec::Guest;
use crate::error::Failure;
use crate::fence::{self, Fences};
use crate::libvirt::{Domain, DomainState, Hypervisors, Node, VirtError};
use crate::ssh::RollCall;
use futures::future::join_all;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::timeout;
use uuid::Uuid;

/// How long a host may take to tell what it runs; a host that takes longer delays nobody else.
const ANSWER: Duration = Duration::from_secs(8);

/// What all hosts said, at about one time.
#[derive(Clone, Debug, Default)]
pub struct DomainInventory {
    /// Domains by guest id, with their host.
    pub seen: BTreeMap<Uuid, Vec<(String, Domain)>>,
    /// Hosts that answered, with their size where it was asked for.
    pub hosts: BTreeMap<String, Option<Node>>,
    /// Hosts that did not, with the reason.
    pub silent: BTreeMap<String, String>,
    /// Hosts that were not asked: they are shut out of the storage, so whatever they have does not count.
    pub fences: Fences,
}

fn silent(host: &str, reason: String) -> VirtError {
    VirtError::Unreachable { host: host.to_owned(), reason }
}

/// What a start of a guest has to reckon with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartState {
    /// It runs here.
    Runs(String),
    /// It is starting or moving: its claim has to be settled first.
    Pending,
    /// It has a process here that does not run.
    Stands {
        /// The host.
        host: String,
        /// What it is doing instead.
        state: DomainState,
        /// Why, in libvirt's words.
        reason: String,
    },
    /// Nothing speaks against a start anywhere.
    Free,
    /// It may run on a host that does not answer.
    MayRun {
        /// The host.
        host: String,
        /// Why it does not answer.
        why: String,
    },
}

/// The failure of whatever would need to know that a guest does not run on a silent host.
pub(super) fn may_run(host: &str, why: &str) -> Failure {
    Failure::refused(format!("it may still run on {host}, which does not answer ({why})"))
        .hint(format!("bring {host} back, or make sure that it is off: a guest must never run twice"))
}

/// The failure of whatever needs a guest that runs, where it has a process that does not.
pub(super) fn stands_still(name: &str, host: &str, state: DomainState, reason: &str) -> Failure {
    let failure = Failure::failed(format!("it stands still on {host} ({state}: {reason})"));
    match (state, reason) {
        (DomainState::Paused, "ioerror") => failure.hint(format!(
            "its disk failed: see that Ceph is well with `rackhand status`, then let it go on with `rackhand guest resume {name}`"
        )),
        (DomainState::Paused, _) => failure.hint(format!("let it go on with `rackhand guest resume {name}`")),
        _ => failure.hint(format!("end it with `rackhand guest stop --force {name}`, then start it anew")),
    }
}

impl DomainInventory {
    /// Asks all hosts at once what they run, and how large they are where `sizes` is set. Claims have to be read before it;
    /// see [`fence::standing`].
    ///
    /// # Errors
    /// When the cluster cannot tell which hosts are fenced: what an old copy there shows must not be believed (rule R11).
    pub async fn take(rack: &GuestContext, sizes: bool) -> Result<DomainInventory, Failure> {
        let fences = fence::standing(rack.port()).await?;
        Ok(Self::ask(&rack.hypervisors, fences, sizes).await)
    }

    /// The same, with what is known of fenced hosts already.
    pub async fn ask(hypervisors: &Hypervisors, fences: Fences, sizes: bool) -> DomainInventory {
        let roll = &RollCall::default();
        let asked =
            hypervisors.all().filter(|hypervisor| !fences.close(hypervisor.host())).map(|hypervisor| async move {
                let ask = async {
                    // A dead host is told by its connection, within seconds; one that is busy may take longer to answer.
                    roll.answer(hypervisor.connect())
                        .await
                        .unwrap_or_else(|| Err(silent(hypervisor.host(), roll.late())))?;
                    let node = if sizes { Some(hypervisor.node().await?) } else { None };
                    Ok((node, hypervisor.domains().await?))
                };
                let late = || format!("no answer within {} s", ANSWER.as_secs());
                let answer = match timeout(ANSWER, ask).await {
                    Ok(answer) => answer.map_err(|e: VirtError| e.to_string()),
                    Err(_) => Err(late()),
                };
                (hypervisor.host().to_owned(), answer)
            });
        let mut domain_inventory = DomainInventory::default();
        let answers = join_all(asked).await;
        domain_inventory.silent.extend(fences.reasons().map(|(host, why)| (host.to_owned(), why)));
        domain_inventory.fences = fences;
        for (host, answer) in answers {
            match answer {
                Ok((node, domains)) => {
                    for domain in domains {
                        domain_inventory.seen.entry(domain.uuid).or_default().push((host.clone(), domain));
                    }
                    domain_inventory.hosts.insert(host, node);
                }
                Err(why) => drop(domain_inventory.silent.insert(host, why)),
            }
        }
        domain_inventory
    }

    /// Where a guest has a QEMU process; of two while it moves, the one that runs.
    pub fn place(&self, uuid: Uuid) -> Option<&(String, Domain)> {
        let running = self.places(uuid).find(|(_, domain)| domain.state == DomainState::Running);
        running.or_else(|| self.places(uuid).next())
    }

    /// Everywhere a guest has a QEMU process.
    pub fn places(&self, uuid: Uuid) -> impl Iterator<Item = &(String, Domain)> {
        self.seen.get(&uuid).into_iter().flatten().filter(|(_, domain)| domain.state.has_process())
    }

    /// What each host runs, for a look at all of them.
    pub fn by_host(&self) -> BTreeMap<&str, Vec<&Domain>> {
        let mut hosts: BTreeMap<&str, Vec<&Domain>> = BTreeMap::new();
        for (host, domain) in self.seen.values().flatten() {
            hosts.entry(host).or_default().push(domain);
        }
        hosts
    }

    /// What a host runs.
    pub fn on(&self, host: &str) -> impl Iterator<Item = &Domain> {
        self.seen.values().flatten().filter(move |(at, _)| at == host).map(|(_, domain)| domain)
    }

    /// Whether a guest is in one place alone, as far as its claim tells where it might be.
    pub fn is_alone(&self, uuid: Uuid, claim: &Claim) -> bool {
        self.places(uuid).count() == 1 && claim.places().all(|host| self.cannot_hide(host))
    }

    /// Whether a guest was made on the host its claim names, and was not let go on yet.
    pub fn is_half_started(&self, uuid: Uuid, claim: &Claim) -> bool {
        let here = |host: &str| claim.phase == Phase::Starting && claim.host.as_deref() == Some(host);
        self.place(uuid).is_some_and(|(host, domain)| domain.state == DomainState::Paused && here(host))
    }

    /// Whether a host cannot have a guest that is not seen: it told what it has, or can do nothing with it.
    fn cannot_hide(&self, host: &str) -> bool {
        self.hosts.contains_key(host) || self.fences.has(host)
    }

    /// Why a guest of this claim cannot be seen: it may be on a host that does not answer.
    pub fn hidden(&self, claim: &Claim) -> Option<(String, String)> {
        let host = claim.places().find(|host| !self.cannot_hide(host))?;
        let why = self.silent.get(host).cloned();
        Some((host.to_owned(), why.unwrap_or_else(|| "it is not in the inventory as a host of guests".to_owned())))
    }

    /// The host a guest runs on.
    ///
    /// # Errors
    /// When it runs nowhere, or may run on a host that does not answer.
    pub async fn host_of(&self, rack: &GuestContext, guest: &Guest) -> Result<String, Failure> {
        if let Some((host, _)) = self.place(guest.uuid) {
            return Ok(host.clone());
        }
        let claim = claim::read(rack.port(), guest.uuid).await?;
        Err(match self.hidden(&claim) {
            Some((host, why)) => {
                Failure::failed(format!("guest {} may run on {host}, which does not answer ({why})", guest.name))
            }
            None => Failure::failed(format!("guest {} does not run", guest.name))
                .hint(format!("start it with `rackhand guest start {}`", guest.name)),
        })
    }

    /// What a start has to reckon with. The claim has to be read *before* the survey was taken: a start that ended in
    /// between would otherwise be missed by both.
    pub fn start_state(&self, uuid: Uuid, claim: &Claim) -> StartState {
        let place = self.place(uuid);
        if let Some((host, _)) = place.filter(|(_, domain)| domain.state == DomainState::Running) {
            return StartState::Runs(host.clone());
        }
        let pending = matches!(claim.phase, Phase::Starting | Phase::Moving);
        match (place, self.hidden(claim)) {
            (_, Some((host, why))) => StartState::MayRun { host, why },
            _ if pending => StartState::Pending,
            (Some((host, domain)), None) => {
                StartState::Stands { host: host.clone(), state: domain.state, reason: domain.reason.clone() }
            }
            (None, None) => StartState::Free,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::claim::Run;
    use super::*;
    use crate::libvirt::{FakeFault, FakeRack};

    fn run(id: &str) -> Run {
        Run { id: id.into(), by: "me".into(), process: String::new() }
    }

    async fn start_state(rack: &FakeRack, claim: &Claim) -> StartState {
        DomainInventory::ask(&rack.hypervisors(), Fences::default(), false).await.start_state(Uuid::nil(), claim)
    }

    #[tokio::test]
    async fn a_guest_that_is_seen_runs_whatever_its_claim_says() {
        let rack = FakeRack::new(["h1", "h2"]);
        rack.put("h2", "web", Uuid::nil());
        assert_eq!(start_state(&rack, &Claim::default()).await, StartState::Runs("h2".into()));
    }

    #[tokio::test]
    async fn a_silent_host_holds_its_guests_and_nobody_elses() {
        let rack = FakeRack::new(["h1", "h2"]);
        rack.fault("h1", FakeFault::Unreachable);
        let here = Claim::default().starting("h1", &run("a")).running("h1");
        let there = Claim::default().starting("h2", &run("a")).running("h2");
        assert!(matches!(start_state(&rack, &here).await, StartState::MayRun { host, .. } if host == "h1"));
        assert_eq!(start_state(&rack, &there).await, StartState::Free);
        let moving = there.moving("h2", "h1", &run("a"));
        assert!(matches!(start_state(&rack, &moving).await, StartState::MayRun { host, .. } if host == "h1"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_host_delays_the_others_by_two_seconds() {
        let rack = FakeRack::new(["h1", "h2"]);
        rack.fault("h1", FakeFault::Silent);
        rack.put("h2", "web", Uuid::nil());
        let began = tokio::time::Instant::now();
        let domain_inventory = DomainInventory::ask(&rack.hypervisors(), Fences::default(), false).await;
        assert_eq!(began.elapsed().as_secs(), 2);
        assert!(domain_inventory.silent["h1"].contains("no answer within 2 s"), "{:?}", domain_inventory.silent);
        assert_eq!(domain_inventory.place(Uuid::nil()).unwrap().0, "h2");
    }

    #[tokio::test]
    async fn what_was_begun_has_to_be_settled_first() {
        let rack = FakeRack::new(["h1", "h2"]);
        let theirs = Claim::default().starting("h2", &run("a"));
        assert_eq!(start_state(&rack, &theirs).await, StartState::Pending);
        assert_eq!(start_state(&rack, &theirs.moving("h2", "h1", &run("a"))).await, StartState::Pending);
        rack.put_as("h2", "web", Uuid::nil(), DomainState::Paused);
        assert_eq!(start_state(&rack, &theirs).await, StartState::Pending, "it was made, and never let go on");
    }

    #[tokio::test]
    async fn a_process_that_does_not_run_is_told_apart() {
        let rack = FakeRack::new(["h1", "h2"]);
        rack.put("h1", "web", Uuid::nil());
        rack.turn("h1", Uuid::nil(), DomainState::Paused, "ioerror");
        let stands = StartState::Stands { host: "h1".into(), state: DomainState::Paused, reason: "ioerror".into() };
        assert_eq!(start_state(&rack, &Claim::default()).await, stands);
        let failure = stands_still("web", "h1", DomainState::Paused, "ioerror");
        assert!(failure.hints[0].contains("rackhand guest resume web"), "{failure:?}");
    }

    #[tokio::test]
    async fn a_guest_is_alone_where_nothing_else_can_be() {
        let rack = FakeRack::new(["h1", "h2"]);
        let claim = Claim::default().starting("h1", &run("a")).running("h1");
        rack.put_as("h1", "web", Uuid::nil(), DomainState::Paused);
        let domain_inventory = || async { DomainInventory::ask(&rack.hypervisors(), Fences::default(), false).await };
        assert!(domain_inventory().await.is_alone(Uuid::nil(), &claim));
        rack.put("h2", "web", Uuid::nil());
        let twice = domain_inventory().await;
        assert!(!twice.is_alone(Uuid::nil(), &claim));
        assert_eq!(twice.place(Uuid::nil()).unwrap().0, "h2", "the one that runs");
        rack.fault("h1", FakeFault::Unreachable);
        assert!(!domain_inventory().await.is_alone(Uuid::nil(), &claim), "it may be on the silent one as well");
    }
}
