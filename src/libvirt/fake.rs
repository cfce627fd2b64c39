//! A rack of hypervisors in memory, for tests of what is built on top.

use super::events::{Lifecycle, LifecycleEvent};
use super::types::{Domain, DomainState, JobOperation};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use uuid::Uuid;

/// A changing request, as it can be held back on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FakeRequest {
    /// To make a guest.
    Create,
    /// To let it go on.
    Resume,
    /// To end it.
    Destroy,
    /// To pause it.
    Suspend,
    /// To send it to another host.
    Migrate,
}

/// What becomes of the sender of a request that is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    /// It waits for the answer.
    Waits,
    /// It is told that the connection is lost.
    Lost,
}

/// A request on its way; run when it arrives.
type Message = Box<dyn FnOnce() + Send>;

/// What goes wrong on a fake rack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FakeFault {
    /// The host's libvirt cannot be reached.
    Unreachable,
    /// No connection to the host's libvirt comes about, and none is refused.
    Silent,
    /// Moves away from the host fail.
    MoveFails,
    /// Moves away from the host stand still until aborted, with a paused copy on the target.
    MoveStalls,
    /// As [`FakeFault::MoveStalls`], and the paused copy stays on the target after the abort.
    MoveLeavesCopy,
    /// Moves away from the host are in their second round over the memory.
    SecondRound,
    /// Moves away from the host succeed, but the answer is lost.
    AnswerLost,
    /// As [`FakeFault::AnswerLost`], and the host begins only seconds later.
    MoveBeginsLate,
    /// Starts on the host take two minutes.
    StartsLate,
    /// The answer to a start is lost at once, and the request arrives minutes later.
    StartArrivesLate,
    /// The source's part of a move is over: all was sent.
    HandedOver,
    /// A guest on the host cannot be paused.
    PauseFails,
    /// The host takes five seconds to look at a guest.
    LooksLate,
    /// Another tool begins a backup just before the host moves a guest.
    BackupBegins,
}

#[derive(Default)]
pub(super) struct World {
    pub(super) domains: BTreeMap<String, BTreeMap<Uuid, Domain>>,
    pub(super) faults: BTreeSet<(String, FakeFault)>,
    pub(super) jobs: BTreeMap<(String, Uuid), JobOperation>,
    pub(super) addresses: BTreeMap<String, String>,
    pub(super) xml: BTreeMap<Uuid, String>,
    pub(super) snapshots: BTreeMap<Uuid, Vec<String>>,
    pub(super) calls: Vec<String>,
    pub(super) floors: BTreeMap<(String, Uuid), u64>,
    /// Guests whose QEMU answers nothing.
    pub(super) mute: BTreeSet<Uuid>,
    pub(super) holds: BTreeMap<(String, FakeRequest), Sender>,
    pub(super) held: Vec<Message>,
    /// Who hears the events of which host.
    pub(super) listeners: Vec<(String, UnboundedSender<LifecycleEvent>)>,
    /// What each call takes.
    pub(super) round_trip: Duration,
    /// Requests that each host works on at the moment, and the most at a time so far.
    pub(super) busy: BTreeMap<String, (usize, usize)>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("domains", &self.domains).field("floors", &self.floors).finish_non_exhaustive()
    }
}

/// Hosts and their domains; every handle sees the same.
#[derive(Clone, Debug)]
pub struct FakeRack {
    world: Arc<Mutex<World>>,
    pub(super) aborted: Arc<Notify>,
}

impl FakeRack {
    /// Empty hosts of these names. A destination `qemu+tls://NAME/system` is the host of that name.
    pub fn new<'a>(hosts: impl IntoIterator<Item = &'a str>) -> Self {
        let domains = hosts.into_iter().map(|h| (h.to_owned(), BTreeMap::new())).collect();
        let world = World { domains, ..World::default() };
        FakeRack { world: Arc::new(Mutex::new(world)), aborted: Arc::default() }
    }

    /// The names of its hosts.
    pub(super) fn names(&self) -> Vec<String> {
        self.world().domains.keys().cloned().collect()
    }

    /// Puts a running domain of 1 GiB on a host.
    pub fn put(&self, host: &str, name: &str, uuid: Uuid) {
        self.put_as(host, name, uuid, DomainState::Running);
    }

    /// Puts a domain in a state on a host.
    pub fn put_as(&self, host: &str, name: &str, uuid: Uuid, state: DomainState) {
        self.put_sized(host, name, uuid, state, 1 << 30);
    }

    /// Puts a domain of so much memory on a host.
    pub fn put_sized(&self, host: &str, name: &str, uuid: Uuid, state: DomainState, memory: u64) {
        let domain = Domain { name: name.into(), uuid, state, reason: "booted".into(), memory, cpus: 1 };
        self.world().domains.entry(host.to_owned()).or_default().insert(uuid, domain);
    }

    /// Lets a job run on a domain of a host, as another tool would have begun it.
    pub fn job(&self, host: &str, uuid: Uuid, operation: JobOperation) {
        self.world().jobs.insert((host.to_owned(), uuid), operation);
    }

    /// What the job that runs on a domain of a host does.
    pub fn job_of(&self, host: &str, uuid: Uuid) -> Option<JobOperation> {
        self.world().jobs.get(&(host.to_owned(), uuid)).copied()
    }

    /// Ends a guest by other hands than ours.
    pub fn end(&self, host: &str, uuid: Uuid) {
        self.world().domains.entry(host.to_owned()).or_default().remove(&uuid);
    }

    /// Something happens to a guest by itself, and whoever listens hears of it: it is gone with an end, and stands still with
    /// an I/O error.
    pub fn happens(&self, host: &str, uuid: Uuid, change: Lifecycle) {
        let Some(name) = self.world().domains.get(host).and_then(|d| d.get(&uuid)).map(|d| d.name.clone()) else {
            return;
        };
        match change {
            Lifecycle::Crashed | Lifecycle::ShutDown | Lifecycle::Stopped | Lifecycle::MovedAway => {
                self.end(host, uuid)
            }
            Lifecycle::IoError => self.turn(host, uuid, DomainState::Paused, "ioerror"),
            _ => {}
        }
        for (_, listener) in self.world().listeners.iter().filter(|(at, _)| at == host) {
            let _ = listener.send(LifecycleEvent::Changed { name: name.clone(), uuid, change });
        }
    }

    /// Brings a guest into a state for libvirt's reason.
    pub fn turn(&self, host: &str, uuid: Uuid, state: DomainState, reason: &str) {
        if let Some(domain) = self.world().domains.get_mut(host).and_then(|d| d.get_mut(&uuid)) {
            (domain.state, domain.reason) = (state, reason.to_owned());
        }
    }

    /// Stops a guest's QEMU process: its monitor answers no more.
    pub fn mute(&self, uuid: Uuid) {
        self.world().mute.insert(uuid);
    }

    /// Puts a domain of this name and another id on a host.
    pub fn name_taken(&self, host: &str, name: &str) {
        self.put_as(host, name, Uuid::from_u128(u128::MAX - 1), DomainState::Off);
    }

    /// Holds the next such request to a host back until [`FakeRack::release`]; its sender waits.
    pub fn hold(&self, host: &str, request: FakeRequest) {
        self.world().holds.insert((host.to_owned(), request), Sender::Waits);
    }

    /// As [`FakeRack::hold`]; its sender is told at once that the connection is lost.
    pub fn hold_and_lose(&self, host: &str, request: FakeRequest) {
        self.world().holds.insert((host.to_owned(), request), Sender::Lost);
    }

    /// How many requests are on their way.
    pub fn held(&self) -> usize {
        self.world().held.len()
    }

    /// Lets all that was held back arrive, in its order.
    pub fn release(&self) {
        let held = std::mem::take(&mut self.world().held);
        held.into_iter().for_each(|arrive| arrive());
    }

    /// The highest generation that a host has seen of a guest.
    pub fn floor(&self, host: &str, uuid: Uuid) -> u64 {
        self.world().floors.get(&(host.to_owned(), uuid)).copied().unwrap_or_default()
    }

    /// Gives a domain this live XML.
    pub fn xml(&self, uuid: Uuid, xml: impl Into<String>) {
        self.world().xml.insert(uuid, xml.into());
    }

    /// Gives a domain a libvirt snapshot.
    pub fn snapshot(&self, uuid: Uuid, name: &str) {
        self.world().snapshots.entry(uuid).or_default().push(name.to_owned());
    }

    /// Makes a destination `qemu+tls://ADDRESS/system` mean this host.
    pub fn address(&self, address: &str, host: &str) {
        self.world().addresses.insert(address.to_owned(), host.to_owned());
    }

    /// Makes each call to a host take a round trip from now on.
    pub fn slow(&self, round_trip: Duration) {
        self.world().round_trip = round_trip;
    }

    /// The most requests that any host had at a time.
    pub fn busiest(&self) -> usize {
        self.world().busy.values().map(|(_, most)| *most).max().unwrap_or_default()
    }

    /// Makes something go wrong from now on.
    pub fn fault(&self, host: &str, fault: FakeFault) {
        self.world().faults.insert((host.to_owned(), fault));
    }

    /// Mends it.
    pub fn mend(&self, host: &str, fault: FakeFault) {
        self.world().faults.remove(&(host.to_owned(), fault));
    }

    /// Hosts that have the domain, with its state there.
    pub fn places(&self, uuid: Uuid) -> Vec<(String, DomainState)> {
        let world = self.world();
        world.domains.iter().filter_map(|(host, d)| d.get(&uuid).map(|d| (host.clone(), d.state))).collect()
    }

    /// How many domains there are on all hosts.
    pub fn domains(&self) -> usize {
        self.world().domains.values().map(BTreeMap::len).sum()
    }

    /// The changes asked for so far, `HOST VERB NAME`.
    pub fn calls(&self) -> Vec<String> {
        self.world().calls.clone()
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
