//! A rack of hypervisors in memory, for tests of what is built on top.

use super::types::{BlockInfo, Domain, DomainState, JobKind, JobOperation, JobStats, MigrateParams, Node, Start};
use super::{Hypervisor, Hypervisors, LifecycleEvents, VirtError};
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use uuid::Uuid;

/// Memory of a fake host.
const MEMORY: u64 = 64 << 30;

/// What goes wrong on a fake rack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FakeFault {
    /// The host's libvirt cannot be reached.
    Unreachable,
    /// Moves away from the host fail.
    MoveFails,
    /// Moves away from the host stand still until aborted, with a paused copy on the target.
    MoveStalls,
    /// As [`FakeFault::MoveStalls`], and the paused copy stays on the target after the abort.
    MoveLeavesCopy,
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
}

#[derive(Debug, Default)]
struct World {
    domains: BTreeMap<String, BTreeMap<Uuid, Domain>>,
    faults: BTreeSet<(String, FakeFault)>,
    jobs: BTreeMap<(String, Uuid), JobOperation>,
    addresses: BTreeMap<String, String>,
    calls: Vec<String>,
}

/// Hosts and their domains; every handle sees the same.
#[derive(Clone, Debug)]
pub struct FakeRack {
    world: Arc<Mutex<World>>,
    aborted: Arc<Notify>,
}

impl FakeRack {
    /// Empty hosts of these names. A destination `qemu+tls://NAME/system` is the host of that name.
    pub fn new<'a>(hosts: impl IntoIterator<Item = &'a str>) -> Self {
        let domains = hosts.into_iter().map(|h| (h.to_owned(), BTreeMap::new())).collect();
        let world = World { domains, ..World::default() };
        FakeRack { world: Arc::new(Mutex::new(world)), aborted: Arc::default() }
    }

    /// The hypervisors of its hosts.
    pub fn hypervisors(&self) -> Hypervisors {
        let names: Vec<String> = self.world().domains.keys().cloned().collect();
        Hypervisors::of(names.into_iter().map(|name| Arc::new(FakeHost { name, rack: self.clone() }) as _))
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

    /// Makes a destination `qemu+tls://ADDRESS/system` mean this host.
    pub fn address(&self, address: &str, host: &str) {
        self.world().addresses.insert(address.to_owned(), host.to_owned());
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

    /// The changes asked for so far, `HOST VERB NAME`.
    pub fn calls(&self) -> Vec<String> {
        self.world().calls.clone()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct FakeHost {
    name: String,
    rack: FakeRack,
}

impl FakeHost {
    fn has(&self, fault: FakeFault) -> bool {
        self.rack.world().faults.contains(&(self.name.clone(), fault))
    }

    fn world(&self) -> Result<MutexGuard<'_, World>, VirtError> {
        if self.has(FakeFault::Unreachable) {
            return Err(VirtError::Unreachable { host: self.name.clone(), reason: "the fake is cut off".into() });
        }
        Ok(self.rack.world())
    }

    fn failed(&self, call: &'static str, message: &str) -> VirtError {
        VirtError::Failed { host: self.name.clone(), call, code: 38, message: message.to_owned() }
    }

    fn with<T>(&self, uuid: Uuid, call: &'static str, f: impl FnOnce(&mut Domain) -> T) -> Result<T, VirtError> {
        let mut world = self.world()?;
        let domain = world.domains.get_mut(&self.name).and_then(|d| d.get_mut(&uuid));
        let Some(domain) = domain else { return Err(VirtError::NoDomain { host: self.name.clone(), call }) };
        let (value, line) = (f(domain), format!("{} {call} {}", self.name, domain.name));
        world.calls.push(line);
        Ok(value)
    }

    fn set(&self, uuid: Uuid, call: &'static str, state: DomainState) -> Result<(), VirtError> {
        self.with(uuid, call, |domain| domain.state = state)
    }

    fn remove(&self, uuid: Uuid, call: &'static str) -> Result<Domain, VirtError> {
        let domain = self.with(uuid, call, |domain| domain.clone())?;
        self.world()?.domains.entry(self.name.clone()).or_default().remove(&uuid);
        Ok(domain)
    }

    fn arrive(&self, target: &str, domain: Domain) {
        self.rack.world().domains.entry(target.to_owned()).or_default().insert(domain.uuid, domain);
    }
}

/// The text of an element; attributes as they stand belong to `tag`.
fn text(xml: &str, tag: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{tag}>"))?;
    let tag = tag.split(' ').next()?;
    rest.split_once(&format!("</{tag}>")).map(|(value, _)| value.trim().to_owned())
}

#[async_trait]
impl Hypervisor for FakeHost {
    fn host(&self) -> &str {
        &self.name
    }

    async fn domains(&self) -> Result<Vec<Domain>, VirtError> {
        Ok(self.world()?.domains.get(&self.name).map(|d| d.values().cloned().collect()).unwrap_or_default())
    }

    async fn domain(&self, uuid: Uuid) -> Result<Option<Domain>, VirtError> {
        if self.has(FakeFault::LooksLate) {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        Ok(self.world()?.domains.get(&self.name).and_then(|d| d.get(&uuid)).cloned())
    }

    async fn create(&self, xml: &str, start: Start) -> Result<Domain, VirtError> {
        let call = "start the guest";
        let name = text(xml, "name").ok_or_else(|| self.failed(call, "the XML has no name"))?;
        let uuid = text(xml, "uuid").and_then(|u| u.parse().ok());
        let uuid = uuid.ok_or_else(|| self.failed(call, "the XML has no uuid"))?;
        if self.domain(uuid).await?.is_some() {
            let message = format!("domain '{name}' already exists");
            return Err(VirtError::Exists { host: self.name.clone(), call, message });
        }
        if self.has(FakeFault::StartsLate) {
            tokio::time::sleep(Duration::from_secs(120)).await;
        }
        let state = if start == Start::Paused { DomainState::Paused } else { DomainState::Running };
        self.world()?.calls.push(format!("{} {call} {name}", self.name));
        let kib = text(xml, "memory unit='KiB'").and_then(|m| m.parse::<u64>().ok());
        let (rack, host, memory) = (self.rack.clone(), self.name.clone(), kib.unwrap_or(1 << 20) << 10);
        if self.has(FakeFault::StartArrivesLate) {
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(150)).await;
                rack.put_sized(&host, &name, uuid, state, memory);
            });
            return Err(VirtError::Lost { host: self.name.clone(), call, message: "the fake lost it".into() });
        }
        rack.put_sized(&host, &name, uuid, state, memory);
        self.domain(uuid).await?.ok_or_else(|| self.failed(call, "it ended at once"))
    }

    async fn shutdown(&self, uuid: Uuid) -> Result<(), VirtError> {
        self.remove(uuid, "press the power button").map(drop)
    }

    async fn reboot(&self, uuid: Uuid) -> Result<(), VirtError> {
        self.set(uuid, "reboot the guest", DomainState::Running)
    }

    async fn reset(&self, uuid: Uuid) -> Result<(), VirtError> {
        self.set(uuid, "reset the guest", DomainState::Running)
    }

    async fn destroy(&self, uuid: Uuid) -> Result<(), VirtError> {
        self.remove(uuid, "end the guest").map(drop)
    }

    async fn suspend(&self, uuid: Uuid) -> Result<(), VirtError> {
        if self.has(FakeFault::PauseFails) {
            return Err(self.failed("pause the guest", "the fake goes on"));
        }
        self.set(uuid, "pause the guest", DomainState::Paused)
    }

    async fn resume(&self, uuid: Uuid) -> Result<(), VirtError> {
        self.set(uuid, "resume the guest", DomainState::Running)
    }

    async fn xml(&self, uuid: Uuid) -> Result<String, VirtError> {
        self.with(uuid, "read the guest's definition", |domain| {
            format!("<domain type='qemu'><name>{}</name><uuid>{uuid}</uuid></domain>", domain.name)
        })
    }

    async fn block_info(&self, uuid: Uuid, _disk: &str) -> Result<BlockInfo, VirtError> {
        let size = 1 << 30;
        self.with(uuid, "look at the disk", |_| BlockInfo { capacity: size, allocation: size, physical: size })
    }

    async fn block_resize(&self, uuid: Uuid, _disk: &str, _bytes: u64) -> Result<(), VirtError> {
        self.with(uuid, "grow the disk", |_| ())
    }

    async fn node(&self) -> Result<Node, VirtError> {
        Ok(Node { memory: MEMORY, cpus: 16, sockets: 1, cores: 8, threads: 2 })
    }

    async fn capabilities(&self) -> Result<String, VirtError> {
        Ok("<capabilities/>".to_owned())
    }

    async fn domain_capabilities(&self, _machine: &str, _virttype: &str) -> Result<String, VirtError> {
        Ok("<domainCapabilities><cpu><mode name='host-model' supported='yes'/></cpu></domainCapabilities>".to_owned())
    }

    async fn baseline_cpu(&self, _virttype: &str, cpus: &[String]) -> Result<String, VirtError> {
        cpus.first().cloned().ok_or_else(|| self.failed("find the common processor", "no processor given"))
    }

    async fn can_give_cpu(&self, _virttype: &str, _cpu: &str) -> Result<bool, VirtError> {
        self.world().map(|_| true)
    }

    async fn agent(&self, _uuid: Uuid, _command: &str, _deadline: Duration) -> Result<String, VirtError> {
        Err(self.failed("ask the guest agent", "the fake guest has none"))
    }

    async fn monitor(&self, uuid: Uuid, command: &str) -> Result<String, VirtError> {
        let over = command.contains("query-migrate") && self.has(FakeFault::HandedOver);
        let answer = if over { r#"{"return":{"status":"completed"}}"# } else { r#"{"return":{}}"# };
        self.with(uuid, "ask the monitor", |_| answer.to_owned())
    }

    async fn migrate(&self, uuid: Uuid, params: &MigrateParams) -> Result<(), VirtError> {
        let call = "move the guest";
        let domain = self.with(uuid, call, |domain| domain.clone())?;
        let target = params.destination.trim_start_matches("qemu+tls://").trim_end_matches("/system").to_owned();
        let target = self.world()?.addresses.get(&target).cloned().unwrap_or(target);
        if !self.world()?.domains.contains_key(&target) || self.has(FakeFault::MoveFails) {
            return Err(self.failed(call, "unable to connect to the target"));
        }
        if let Some(job) = self.rack.job_of(&self.name, uuid) {
            return Err(self.failed(call, &format!("{job} runs on the domain")));
        }
        let leaves_copy = self.has(FakeFault::MoveLeavesCopy);
        if self.has(FakeFault::MoveStalls) || leaves_copy {
            self.arrive(&target, Domain { state: DomainState::Paused, ..domain });
            self.rack.job(&self.name, uuid, JobOperation::MigrationOut);
            loop {
                // Asked for before the look, so that an abort in between is not missed.
                let aborted = self.rack.aborted.notified();
                if self.rack.job_of(&self.name, uuid).is_none() {
                    break;
                }
                aborted.await;
            }
            if !leaves_copy {
                self.rack.world().domains.entry(target).or_default().remove(&uuid);
            }
            return Err(VirtError::Failed { host: self.name.clone(), call, code: 78, message: "aborted".into() });
        }
        let (rack, source) = (self.rack.clone(), self.name.clone());
        let go = move || {
            let mut world = rack.world();
            world.domains.entry(source).or_default().remove(&uuid);
            let arrived = Domain { reason: "migrated".into(), ..domain };
            world.domains.entry(target).or_default().insert(uuid, arrived);
        };
        if self.has(FakeFault::MoveBeginsLate) {
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(3)).await;
                go();
            });
            return Err(VirtError::Lost { host: self.name.clone(), call, message: "the fake lost it".into() });
        }
        go();
        if self.has(FakeFault::AnswerLost) {
            return Err(VirtError::Lost { host: self.name.clone(), call, message: "the fake lost it".into() });
        }
        Ok(())
    }

    async fn job(&self, uuid: Uuid) -> Result<JobStats, VirtError> {
        let job = self.world()?.jobs.get(&(self.name.clone(), uuid)).copied();
        self.with(uuid, "look at the job", |domain| JobStats {
            kind: if job.is_some() { JobKind::Running } else { JobKind::None },
            operation: job.unwrap_or_default(),
            memory_total: domain.memory,
            memory_remaining: domain.memory,
            ..JobStats::default()
        })
    }

    async fn completed_job(&self, uuid: Uuid) -> Result<JobStats, VirtError> {
        self.with(uuid, "look at the completed job", |domain| JobStats {
            kind: JobKind::Completed,
            memory_total: domain.memory,
            memory_processed: domain.memory,
            elapsed_ms: 1000,
            downtime_ms: 20,
            ..JobStats::default()
        })
    }

    async fn abort_job(&self, uuid: Uuid) -> Result<(), VirtError> {
        self.world()?.jobs.remove(&(self.name.clone(), uuid));
        self.rack.aborted.notify_waiters();
        self.with(uuid, "abort the job", |_| ())
    }

    async fn set_max_downtime(&self, uuid: Uuid, _downtime: Duration) -> Result<(), VirtError> {
        self.with(uuid, "set the longest pause", |_| ())
    }

    async fn set_bandwidth(&self, uuid: Uuid, _mib_per_s: u64) -> Result<(), VirtError> {
        self.with(uuid, "set the bandwidth", |_| ())
    }

    async fn lifecycle(&self) -> Result<LifecycleEvents, VirtError> {
        let (_, receiver) = tokio::sync::mpsc::unbounded_channel();
        self.world().map(|_| LifecycleEvents::new(receiver, ()))
    }
}
