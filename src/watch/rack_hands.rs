//! Fencing, recovery and BMCs of the real rack, as the watch asks for them.

use super::brain::{Event, Power, State, Verdict};
use super::care::Caretaker;
use super::drain::{drain, mend_libvirt};
use super::driver::{FenceFailure, Hands, Progress, Recovered, Standing, TellProgress};
use super::recovery::{HostLoss, storage_addresses};
use crate::error::{Failure, Kind};
use crate::fence::{self, FenceRecord, Stage};
use crate::guest::{GuestContext, StartStep, claim};
use crate::host::BmcSeen;
use async_trait::async_trait;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep};

/// How often the connections to the hypervisors are looked after: none has to be opened once a host is dead.
const WARM: Duration = Duration::from_secs(15);
/// How long a BMC may take to switch its host off.
const POWER: Duration = Duration::from_secs(30);
/// How long a guest may take to end.
const END: Duration = Duration::from_secs(20);
/// Time between two looks at guests that end.
const LOOK: Duration = Duration::from_millis(300);
/// Hosts whose guests wait to be looked at.
const LOOKS: usize = 1024;

/// Acts on the real rack.
#[derive(Debug)]
pub struct RackHands {
    rack: GuestContext,
    warm: JoinHandle<()>,
    /// Hosts whose guests are to be looked at.
    looks: mpsc::Sender<String>,
    asked: Mutex<Option<mpsc::Receiver<String>>>,
    /// Hosts that are being switched off.
    switching: Arc<StdMutex<BTreeSet<String>>>,
}

impl Drop for RackHands {
    fn drop(&mut self) {
        self.warm.abort();
    }
}

impl RackHands {
    /// Acts on this rack, and keeps its hypervisors connected.
    pub fn new(rack: GuestContext) -> Self {
        let (hypervisors, port) = (rack.hypervisors.clone(), Arc::clone(&rack.port));
        let warm = tokio::spawn(async move {
            let mut due = interval(WARM);
            loop {
                due.tick().await;
                port.warm().await;
                for hypervisor in hypervisors.all() {
                    let hypervisor = Arc::clone(hypervisor);
                    tokio::spawn(async move { hypervisor.connect().await });
                }
            }
        });
        let (looks, asked) = mpsc::channel(LOOKS);
        RackHands { rack, warm, looks, asked: Mutex::new(Some(asked)), switching: Arc::default() }
    }

    /// Switches a host off by its BMC, beside everything else: what is left of its guests' networks is silent then. Does
    /// nothing where that is under way.
    fn switch_off(&self, host: &str, why: &str, record: FenceRecord, tell: TellProgress) {
        let (rack, host, why) = (self.rack.clone(), host.to_owned(), why.to_owned());
        let switching = Arc::clone(&self.switching);
        if !switching.lock().unwrap_or_else(PoisonError::into_inner).insert(host.clone()) {
            return;
        }
        tokio::spawn(async move {
            let loss = HostLoss { rack: &rack, host: &host, why: &why };
            let (kind, text) = match loss.power_off(&record, POWER).await {
                Ok(proof) => ("power", format!("host {host} is off: {}", proof.by())),
                Err(failure) => ("power-unconfirmed", format!("the power of host {host} is unconfirmed: {failure}")),
            };
            tell(Progress { kind, guest: None, text });
            switching.lock().unwrap_or_else(PoisonError::into_inner).remove(&host);
        });
    }

    /// Ends what runs on a host by the claims of its guests, and sees that nothing runs there any more.
    async fn stop_all(&self, host: &str) -> Result<(), Failure> {
        let hypervisor = self.rack.hypervisors.get(host)?;
        for guest in self.rack.guests().await? {
            let claim = claim::read(self.rack.port(), guest.uuid).await?;
            if !claim.places().any(|place| place == host) {
                continue;
            }
            match hypervisor.destroy(guest.uuid, claim.token()).await {
                Err(error) if !error.no_domain() => return Err(Failure::new(Kind::Failed, error)),
                _ => {}
            }
        }
        let ends = tokio::time::Instant::now() + END;
        loop {
            let domains = hypervisor.domains().await.map_err(|error| Failure::new(Kind::Failed, error))?;
            let left: Vec<String> =
                domains.iter().filter(|domain| domain.state.has_process()).map(|domain| domain.name.clone()).collect();
            if left.is_empty() {
                return Ok(());
            }
            if tokio::time::Instant::now() >= ends {
                return Err(Failure::failed(format!("{} still run on host {host}", left.join(", "))));
            }
            sleep(LOOK).await;
        }
    }
}

/// What proves that a host is shut out, in words.
fn proof(record: &FenceRecord) -> String {
    let addresses: Vec<String> = record.proof.addresses().iter().map(ToString::to_string).collect();
    format!("every OSD refuses {} since OSD map {}", addresses.join(" and "), record.proof.epoch())
}

#[async_trait]
impl Hands for RackHands {
    async fn fence(&self, host: &str, verdict: &Verdict, tell: TellProgress) -> Result<String, FenceFailure> {
        // A host that is well is fenced only to complete what another watcher began.
        let is_lost = matches!(verdict.state, State::Dead | State::Stuck | State::StorageCut);
        if !is_lost {
            let addresses = self.rack.inventory.host(host).map(storage_addresses).unwrap_or_default();
            let why = match fence::was_begun(self.rack.port(), host, &addresses).await {
                Ok(true) => None,
                Ok(false) => Some(("it is well, and no fence of it was begun".to_owned(), true)),
                Err(error) => Some((format!("whether a fence of it was begun cannot be told: {error}"), false)),
            };
            if let Some((why, nothing_done)) = why {
                return Err(FenceFailure { why, nothing_done });
            }
        }
        let loss = HostLoss { rack: &self.rack, host, why: &verdict.reason };
        let reached = |stage: Stage| {
            let (kind, words) = match stage {
                Stage::Committed => ("committed", "the monitors refuse its clients"),
                Stage::OsdsDown => ("osds-down", "its OSDs are marked down"),
                Stage::Everywhere => ("everywhere", "every OSD refuses its clients"),
            };
            tell(Progress { kind, guest: None, text: format!("host {host}: {words}") });
        };
        match loss.fence(None, reached).await {
            Ok(record) => {
                if matches!(verdict.state, State::Dead | State::Stuck) {
                    self.switch_off(host, &verdict.reason, record.clone(), Arc::clone(&tell));
                }
                Ok(proof(&record))
            }
            Err(failure) => Err(FenceFailure { why: failure.to_string(), nothing_done: failure.kind == Kind::Usage }),
        }
    }

    async fn recover(&self, host: &str, tell: TellProgress) -> Result<Recovered, String> {
        let loss = HostLoss { rack: &self.rack, host, why: "" };
        // Beside the starts: a gate keeps out migrations that wait in the dead host's libvirt, should it come back.
        let gates = async {
            match fence::records(self.rack.port()).await {
                Ok(mut records) => {
                    let record = records.remove(host);
                    if let Some(record) = &record {
                        loss.close_gates(record).await;
                    }
                    record
                }
                Err(error) => {
                    self.rack.ui.warn(format!("migrations from {host} were not shut out: {error}"));
                    None
                }
            }
        };
        let (starts, rest) = (Arc::clone(&tell), tell);
        let follow = move |guest: &str, step: &StartStep| {
            starts(Progress { kind: step.word(), guest: Some(guest.to_owned()), text: step.text() });
        };
        let (record, started) = tokio::join!(gates, loss.restart(&follow));
        let mut done = Recovered::default();
        for (guest, started) in started.map_err(|failure| failure.to_string())? {
            match started {
                Ok(_) => done.started += 1,
                Err(failure) => done.waiting.push(format!("{guest}: {failure}")),
            }
        }
        // Strict guests wait for its power, and one that hangs half-way may end only with it.
        if let Some(record) = record.filter(|record| !done.waiting.is_empty() && record.power.is_none()) {
            self.switch_off(host, "guests wait for the proof that it is off", record, rest);
        }
        Ok(done)
    }

    async fn stop_guests(&self, host: &str) -> Result<(), String> {
        self.stop_all(host).await.map_err(|failure| failure.to_string())
    }

    /// Asked for each host when a watcher begins to lead, and when one was booted anew: the caretaker looks.
    async fn restart_guests(&self, host: &str) -> Result<String, String> {
        self.looks.send(host.to_owned()).await.map_err(|_| "nobody looks after guests any more".to_owned())?;
        Ok(String::new())
    }

    async fn drain(&self, host: &str) -> Result<String, String> {
        drain(&self.rack, host).await.map_err(|failure| failure.to_string())
    }

    async fn mend_libvirt(&self, host: &str) -> Result<String, String> {
        mend_libvirt(&self.rack, host).await.map_err(|failure| failure.to_string())
    }

    async fn power(&self, host: &str) -> Power {
        let Some(spec) = self.rack.inventory.host(host) else { return Power::Unreachable };
        match fence::ask(spec, &self.rack.inventory, &self.rack.fleet).await {
            Some(BmcSeen::Answered { on: true, .. }) => Power::On,
            Some(BmcSeen::Answered { on: false, .. }) => Power::Off,
            Some(BmcSeen::Failed { .. } | BmcSeen::Untried { .. }) | None => Power::Unreachable,
        }
    }

    async fn avoid(&self, host: &str) {
        self.rack.port().avoid(host).await;
    }

    async fn care(&self, standing: watch::Receiver<Standing>, news: mpsc::Sender<Event>) {
        if let Some(asked) = self.asked.lock().await.take() {
            Caretaker::new(self.rack.clone(), news).run(standing, asked).await;
        }
    }
}
