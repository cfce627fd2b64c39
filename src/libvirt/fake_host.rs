//! One host of the rack in memory.

use super::fake::{FakeFault, FakeRack, FakeRequest, Sender, World};
use super::types::{BlockInfo, Domain, DomainState, JobKind, JobOperation, JobStats, MigrateParams, Node};
use super::{Hypervisor, Hypervisors, LifecycleEvents, Token, VirtError};
use async_trait::async_trait;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;
use tokio::sync::oneshot;
use uuid::Uuid;

/// Memory of a fake host.
const MEMORY: u64 = 64 << 30;
/// How long a call to a QEMU that answers nothing takes.
const MUTE: Duration = Duration::from_secs(15);

#[derive(Clone, Debug)]
pub(super) struct FakeHost {
    name: String,
    rack: FakeRack,
}

impl FakeRack {
    /// The hypervisors of its hosts.
    pub fn hypervisors(&self) -> Hypervisors {
        let host = |name| Arc::new(FakeHost { name, rack: self.clone() }) as Arc<dyn Hypervisor>;
        Hypervisors::of(self.names().into_iter().map(host))
    }
}

impl FakeHost {
    fn lost(&self, call: &'static str) -> VirtError {
        VirtError::Lost { host: self.name.clone(), call, message: "the fake lost it".into() }
    }

    /// Compares the token with the guest's floor and raises that.
    fn admit(&self, uuid: Uuid, token: Token, call: &'static str) -> Result<(), VirtError> {
        let mut world = self.rack.world();
        let floor = world.floors.entry((self.name.clone(), uuid)).or_default();
        if token.generation < *floor {
            return Err(VirtError::Stale { host: self.name.clone(), call, floor: *floor });
        }
        *floor = token.generation;
        Ok(())
    }

    /// A changing request: held back where that was asked for, and carried out in one step with the look at the floor.
    async fn request<T: Send + 'static>(
        &self,
        (request, call): (FakeRequest, &'static str),
        uuid: Uuid,
        token: Token,
        act: impl FnOnce(&FakeHost) -> Result<T, VirtError> + Send + 'static,
    ) -> Result<T, VirtError> {
        let _busy = self.busy();
        self.trip().await;
        drop(self.world()?);
        if token.is_late() {
            return Err(VirtError::Late { host: self.name.clone(), call });
        }
        if request == FakeRequest::Create && self.has(FakeFault::StartsLate) {
            tokio::time::sleep(Duration::from_secs(120)).await;
        }
        let host = self.clone();
        let arrive = move || host.admit(uuid, token, call).and_then(|()| act(&host));
        let hold = self.rack.world().holds.remove(&(self.name.clone(), request));
        let Some(sender) = hold else { return arrive() };
        let (tell, told) = oneshot::channel();
        self.rack.world().held.push(Box::new(move || drop(tell.send(arrive()))));
        match sender {
            Sender::Lost => Err(self.lost(call)),
            Sender::Waits => told.await.unwrap_or_else(|_| Err(self.lost(call))),
        }
    }

    /// One round trip.
    async fn trip(&self) {
        let round_trip = self.rack.world().round_trip;
        if !round_trip.is_zero() {
            tokio::time::sleep(round_trip).await;
        }
    }

    /// Counts a request that the host works on, until the count is dropped.
    fn busy(&self) -> Busy<'_> {
        let mut world = self.rack.world();
        let (now, most) = world.busy.entry(self.name.clone()).or_default();
        *now += 1;
        *most = (*most).max(*now);
        Busy(self)
    }

    /// Waits in vain for a QEMU that answers nothing.
    async fn answered(&self, uuid: Uuid, call: &'static str) -> Result<(), VirtError> {
        if self.rack.world().mute.contains(&uuid) {
            tokio::time::sleep(MUTE).await;
            return Err(VirtError::TimedOut { host: self.name.clone(), call, after: MUTE });
        }
        Ok(())
    }

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

    fn pause(&self, uuid: Uuid, call: &'static str) -> Result<(), VirtError> {
        if self.has(FakeFault::PauseFails) {
            return Err(self.failed(call, "the fake goes on"));
        }
        self.set(uuid, call, DomainState::Paused)
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

/// A request that a host works on.
struct Busy<'a>(&'a FakeHost);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if let Some((now, _)) = self.0.rack.world().busy.get_mut(&self.0.name) {
            *now -= 1;
        }
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

    async fn connect(&self) -> Result<(), VirtError> {
        if self.has(FakeFault::Silent) {
            std::future::pending::<()>().await;
        }
        self.world().map(drop)
    }

    async fn domains(&self) -> Result<Vec<Domain>, VirtError> {
        self.trip().await;
        Ok(self.world()?.domains.get(&self.name).map(|d| d.values().cloned().collect()).unwrap_or_default())
    }

    async fn domain(&self, uuid: Uuid) -> Result<Option<Domain>, VirtError> {
        self.trip().await;
        if self.has(FakeFault::LooksLate) {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        Ok(self.world()?.domains.get(&self.name).and_then(|d| d.get(&uuid)).cloned())
    }

    async fn create(&self, uuid: Uuid, xml: &str, token: Token) -> Result<(), VirtError> {
        let call = "start the guest";
        let name = text(xml, "name").ok_or_else(|| self.failed(call, "the XML has no name"))?;
        if text(xml, "uuid").and_then(|u| u.parse().ok()) != Some(uuid) {
            return Err(self.failed(call, "the XML has another uuid"));
        }
        let kib = text(xml, "memory unit='KiB'").and_then(|m| m.parse::<u64>().ok());
        let memory = kib.unwrap_or(1 << 20) << 10;
        let make = move |host: &FakeHost| {
            let taken = |domain: &Domain| domain.uuid == uuid || domain.name == name;
            if host.rack.world().domains.get(&host.name).is_some_and(|all| all.values().any(taken)) {
                let message = format!("domain '{name}' already exists");
                return Err(VirtError::Exists { host: host.name.clone(), call, message });
            }
            host.rack.world().calls.push(format!("{} {call} {name}", host.name));
            host.rack.put_sized(&host.name, &name, uuid, DomainState::Paused, memory);
            Ok(())
        };
        if self.has(FakeFault::StartArrivesLate) {
            let host = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(150)).await;
                let _ = host.admit(uuid, token, call).and_then(|()| make(&host));
            });
            return Err(self.lost(call));
        }
        self.request((FakeRequest::Create, call), uuid, token, make).await
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

    async fn destroy(&self, uuid: Uuid, token: Token) -> Result<(), VirtError> {
        let call = "end the guest";
        let end = move |host: &FakeHost| host.remove(uuid, call).map(drop);
        self.request((FakeRequest::Destroy, call), uuid, token, end).await
    }

    async fn suspend(&self, uuid: Uuid, token: Token) -> Result<(), VirtError> {
        let call = "pause the guest";
        let pause = move |host: &FakeHost| host.pause(uuid, call);
        self.request((FakeRequest::Suspend, call), uuid, token, pause).await
    }

    async fn pause_for_switch(&self, uuid: Uuid) -> Result<(), VirtError> {
        self.pause(uuid, "pause the guest")
    }

    async fn resume(&self, uuid: Uuid, token: Token) -> Result<(), VirtError> {
        let call = "resume the guest";
        let go_on = move |host: &FakeHost| host.set(uuid, call, DomainState::Running);
        self.request((FakeRequest::Resume, call), uuid, token, go_on).await
    }

    async fn revoke(&self, uuid: Uuid, token: Token) -> Result<Option<Domain>, VirtError> {
        drop(self.world()?);
        self.admit(uuid, token, "revoke older requests")?;
        self.domain(uuid).await
    }

    async fn xml(&self, uuid: Uuid) -> Result<String, VirtError> {
        let given = self.world()?.xml.get(&uuid).cloned();
        self.with(uuid, "read the guest's definition", |domain| {
            let bare = || format!("<domain type='qemu'><name>{}</name><uuid>{uuid}</uuid></domain>", domain.name);
            given.unwrap_or_else(bare)
        })
    }

    async fn snapshots(&self, uuid: Uuid) -> Result<Vec<String>, VirtError> {
        let names = self.world()?.snapshots.get(&uuid).cloned().unwrap_or_default();
        self.with(uuid, "list the guest's snapshots", |_| names)
    }

    async fn block_info(&self, uuid: Uuid, _disk: &str) -> Result<BlockInfo, VirtError> {
        self.answered(uuid, "look at the disk").await?;
        let size = 1 << 30;
        self.with(uuid, "look at the disk", |_| BlockInfo { capacity: size, allocation: size, physical: size })
    }

    async fn block_resize(&self, uuid: Uuid, _disk: &str, _bytes: u64) -> Result<(), VirtError> {
        self.with(uuid, "grow the disk", |_| ())
    }

    async fn node(&self) -> Result<Node, VirtError> {
        self.trip().await;
        drop(self.world()?);
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
        self.answered(uuid, "ask the monitor").await?;
        let over = command.contains("query-migrate") && self.has(FakeFault::HandedOver);
        let answer = if over { r#"{"return":{"status":"completed"}}"# } else { r#"{"return":{}}"# };
        self.with(uuid, "ask the monitor", |_| answer.to_owned())
    }

    async fn migrate(&self, uuid: Uuid, params: &MigrateParams, token: Token) -> Result<(), VirtError> {
        let call = "move the guest";
        let target = params.destination.trim_start_matches("qemu+tls://").trim_end_matches("/system").to_owned();
        let target = self.world()?.addresses.get(&target).cloned().unwrap_or(target);
        let stalls = self.has(FakeFault::MoveStalls) || self.has(FakeFault::MoveLeavesCopy);
        let fails = self.has(FakeFault::MoveFails);
        let to = target.clone();
        let begin = move |host: &FakeHost| {
            if host.has(FakeFault::BackupBegins) {
                host.rack.job(&host.name, uuid, JobOperation::Backup);
            }
            let domain = host.with(uuid, call, |domain| domain.clone())?;
            if fails || !host.rack.world().domains.contains_key(&to) {
                return Err(host.failed(call, "unable to connect to the target"));
            }
            if let Some(job) = host.rack.job_of(&host.name, uuid) {
                return Err(host.failed(call, &format!("{job} runs on the domain")));
            }
            if stalls {
                host.arrive(&to, Domain { state: DomainState::Paused, ..domain });
                host.rack.job(&host.name, uuid, JobOperation::MigrationOut);
            } else {
                host.rack.end(&host.name, uuid);
                host.arrive(&to, Domain { reason: "migrated".into(), ..domain });
            }
            Ok(())
        };
        if self.has(FakeFault::MoveBeginsLate) {
            let host = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(3)).await;
                let _ = host.admit(uuid, token, call).and_then(|()| begin(&host));
            });
            return Err(self.lost(call));
        }
        self.request((FakeRequest::Migrate, call), uuid, token, begin).await?;
        if stalls {
            loop {
                // Asked for before the look, so that an abort in between is not missed.
                let aborted = self.rack.aborted.notified();
                if self.rack.job_of(&self.name, uuid).is_none() {
                    break;
                }
                aborted.await;
            }
            if !self.has(FakeFault::MoveLeavesCopy) {
                self.rack.end(&target, uuid);
            }
            return Err(VirtError::Failed { host: self.name.clone(), call, code: 78, message: "aborted".into() });
        }
        if self.has(FakeFault::AnswerLost) { Err(self.lost(call)) } else { Ok(()) }
    }

    async fn job(&self, uuid: Uuid) -> Result<JobStats, VirtError> {
        self.answered(uuid, "look at the job").await?;
        let job = self.world()?.jobs.get(&(self.name.clone(), uuid)).copied();
        let iteration = if self.has(FakeFault::SecondRound) { 2 } else { 0 };
        self.with(uuid, "look at the job", |domain| JobStats {
            iteration,
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
        self.answered(uuid, "set the longest pause").await?;
        self.with(uuid, "set the longest pause", |_| ())
    }

    async fn set_bandwidth(&self, uuid: Uuid, _mib_per_s: u64) -> Result<(), VirtError> {
        self.with(uuid, "set the bandwidth", |_| ())
    }

    async fn lifecycle(&self) -> Result<LifecycleEvents, VirtError> {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        self.world()?.listeners.push((self.name.clone(), sender));
        Ok(LifecycleEvents::new(receiver, ()))
    }
}
