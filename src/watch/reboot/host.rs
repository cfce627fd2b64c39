//! One host: emptied, rebooted, looked after until all of it is back, and given its guests again.

use super::documents::{RebootPhase, RebootRecord};
use super::turn::Turn;
use super::{ceph, watcher};
use crate::error::{Failure, Kind};
use crate::guest::{GuestContext, Maintenance, begin_maintenance, end_maintenance, read_host_states};
use crate::inventory::{HostSpec, Role};
use crate::movement::{Evacuation, Options, Plan, ReturnPlan, execute};
use crate::ssh::{Exec, Remote, RemoteError};
use crate::ui::{CancelLevel, Job, Outcome, ShutdownPolicy, counted};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

/// Time between two looks at a host that boots, and at Ceph.
const LOOK: Duration = Duration::from_secs(2);
/// How long a host may take to tell which boot it is in.
const BOOT_ID: Duration = Duration::from_secs(8);
/// How long the services of a host may take to stop.
const STOP: Duration = Duration::from_secs(180);
/// After this long a maintenance for a reboot counts as forgotten.
const FORGOTTEN: SignedDuration = SignedDuration::from_hours(2);

/// OSDs first: they tell the mons that they go. The reboot is begun and not waited for, since the connection ends with it.
const SCRIPT: &str = "set -e
for target in \"$@\"; do systemctl stop \"$target\"; done
sync
systemctl --no-block reboot
";

/// A reboot is gone on with by the same command, so it may end anywhere.
const POLICY: ShutdownPolicy = ShutdownPolicy {
    once: "ends after the step under way; the same command goes on from there",
    twice: "ends here; the same command goes on from there",
    aborts_itself: false,
};

/// How hosts are rebooted.
#[derive(Debug)]
pub struct Reboot<'a> {
    /// The rack.
    pub rack: &'a GuestContext,
    /// How guests are moved.
    pub options: &'a Options,
    /// How long a host may take to come back, and again for all of it to be well.
    pub patience: Duration,
    /// How much of a hurry the operator is in.
    pub cancel_level: watch::Receiver<CancelLevel>,
    /// This run's turn.
    pub turn: &'a Turn,
}

/// A host that was rebooted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rebooted {
    /// Guests that were moved away.
    pub moved: usize,
    /// Guests that were moved back.
    pub returned: usize,
    /// Guests that were moved away and did not come back; they run elsewhere.
    pub left: Vec<String>,
    /// Whether it was begun by an earlier run.
    pub resumed: bool,
    /// Whether the host was in maintenance before and is still.
    pub in_maintenance: bool,
    /// Seconds in all.
    pub seconds: u64,
}

impl Rebooted {
    fn words(&self) -> String {
        let away = format!("{} moved away, {} moved back", counted(self.moved, "guest"), self.returned);
        if self.in_maintenance { format!("{away}; it is still in maintenance") } else { away }
    }
}

/// What a reboot of a host would do.
#[derive(Debug, Serialize)]
pub struct Preview {
    /// The host.
    pub host: String,
    /// Which guests move where; nothing for a host that runs none.
    pub plan: Option<Plan>,
    /// What is stopped on it, in this order.
    pub stops: Vec<String>,
    /// Why it would be refused now.
    pub refused: Option<String>,
}

impl Preview {
    /// For people.
    pub fn render(&self) -> String {
        let mut lines = vec![match &self.refused {
            Some(why) => format!("{}: would be refused: {why}", self.host),
            None => format!("{}: would stop {}, and reboot", self.host, self.stops.join(", then ")),
        }];
        lines.extend(self.plan.iter().filter(|plan| !plan.moves.is_empty()).map(Plan::render));
        lines.join("\n")
    }
}

/// What is stopped on a host before it reboots, in this order.
fn targets(spec: &HostSpec) -> Vec<String> {
    let mut targets = Vec::new();
    if !spec.osds.is_empty() {
        targets.push("ceph-osd.target".to_owned());
    }
    if spec.has(Role::Mgr) {
        targets.push("ceph-mgr.target".to_owned());
    }
    if spec.has(Role::Mon) {
        targets.push("ceph-mon.target".to_owned());
    }
    targets
}

/// Why guests of a plan stay on the host that is to be rebooted.
fn stays(plan: &Plan) -> Result<(), Failure> {
    let lines: Vec<String> = plan.refused.iter().chain(&plan.unsettled).map(ToString::to_string).collect();
    if lines.is_empty() {
        return Ok(());
    }
    let kind = if plan.unsettled.is_empty() { Kind::Refused } else { Kind::Unknown };
    Err(Failure::msg(kind, format!("it cannot be emptied: {}", lines.join("; ")))
        .hint("stop these guests (`rackhand guest stop`) or make room elsewhere; then run the same command again"))
}

impl Reboot<'_> {
    /// What a reboot of a host would do; nothing is changed.
    ///
    /// # Errors
    /// When the host is unknown or silent, or the cluster cannot be asked.
    pub async fn preview(
        rack: &GuestContext,
        host: &str,
        options: &Options,
        cancel_level: &watch::Receiver<CancelLevel>,
    ) -> Result<Preview, Failure> {
        let spec = known(rack, host)?;
        let plan = match spec.has(Role::Guests) {
            true => Some(Evacuation::plan(rack, host, options, cancel_level, false).await?.plan),
            false => None,
        };
        let refused = match plan.as_ref().map_or(Ok(()), stays) {
            Ok(()) => ceph::may_stop(rack.port(), spec).await.err(),
            Err(failure) => Some(failure),
        };
        let refused = refused.map(|failure| failure.to_string());
        Ok(Preview { host: host.to_owned(), plan, stops: targets(spec), refused })
    }

    /// Reboots a host. What an earlier run began is gone on with: a host that has booted anew since is not rebooted again.
    ///
    /// # Errors
    /// [`Kind::Refused`] when its guests cannot leave or the storage would stand still; when it does not come back in time.
    pub async fn run(&self, host: &str) -> Result<Rebooted, Failure> {
        let _guard = self.rack.ui.completion_guard(POLICY);
        let job = self.rack.ui.job(format!("reboot {host}"));
        let began = Instant::now();
        let result = self.steps(host, &job).await.map(|done| Rebooted { seconds: began.elapsed().as_secs(), ..done });
        job.conclude(&result, |done| (Outcome::Done, done.words()));
        result.map_err(|failure| failure.context(format!("host {host}")))
    }

    async fn steps(&self, host: &str, job: &Job) -> Result<Rebooted, Failure> {
        let spec = known(self.rack, host)?;
        let port = self.rack.port();
        let states = read_host_states(port).await?;
        // One whose maintenance was ended by hand says nothing of how the host is now.
        let found = RebootRecord::read(port, host).await?.filter(|record| record.stands(states.get(host)));
        let resumed = found.is_some();
        let mut record = match found {
            Some(record) => {
                self.rack.ui.note(format!("goes on with the reboot of {host} that {} began", record.by));
                record
            }
            None => self.begin(spec, states.get(host).and_then(|state| state.maintenance.as_ref()), job).await?,
        };
        let remote = self.rack.fleet.get(host)?;
        if record.phase == RebootPhase::Rebooting && boot_id(remote.as_ref()).await.ok() == record.boot {
            // It was not rebooted, and guests may have come since: all is looked at again.
            record.phase = RebootPhase::Draining;
        }
        let is_empty = record.phase == RebootPhase::Draining;
        if is_empty {
            self.drain(spec, &mut record, job).await?;
        }
        self.goes_on()?;
        if record.phase == RebootPhase::Rebooting {
            if is_empty {
                self.order(spec, job).await?;
            }
            self.wait_for_boot(spec, &mut record, job).await?;
        }
        self.goes_on()?;
        if record.phase == RebootPhase::Recovering {
            self.wait_until_well(spec, job).await?;
            record.phase = RebootPhase::Returning;
            record.write(port).await?;
        }
        self.goes_on()?;
        let (returned, left) = self.give_back(spec, &record, job).await?;
        RebootRecord::forget(port, host).await?;
        let (moved, in_maintenance) = (record.moved, record.kept);
        Ok(Rebooted { moved, returned, left, resumed, in_maintenance, seconds: 0 })
    }

    /// Refuses what would be unsafe before anything is changed, and writes down that it begins.
    async fn begin(&self, spec: &HostSpec, before: Option<&Maintenance>, job: &Job) -> Result<RebootRecord, Failure> {
        let (rack, host) = (self.rack, &spec.name);
        job.step("asks Ceph whether it may stop");
        ceph::may_stop(rack.port(), spec).await?;
        if spec.has(Role::Guests) {
            stays(&Evacuation::plan(rack, host, self.options, &self.cancel_level, true).await?.plan)?;
        }
        let now = Timestamp::now();
        let record = RebootRecord {
            host: host.clone(),
            by: rack.run.by.clone(),
            since: now,
            phase: RebootPhase::Draining,
            boot: None,
            kept: before.is_some(),
            maintenance: before.map_or(now, |before| before.since),
            moved: 0,
        };
        record.write(rack.port()).await?;
        Ok(record)
    }

    /// Puts the host into maintenance, moves its guests away, and sees that nothing runs there.
    async fn drain(&self, spec: &HostSpec, record: &mut RebootRecord, job: &Job) -> Result<(), Failure> {
        let (rack, host) = (self.rack, &spec.name);
        let now = Timestamp::now();
        let maintenance = Maintenance {
            since: record.maintenance,
            by: rack.run.by.clone(),
            why: (!record.kept).then(|| "reboot".to_owned()),
            until: now.checked_add(FORGOTTEN).ok().filter(|_| !record.kept),
            noout: !spec.osds.is_empty(),
        };
        begin_maintenance(rack.port(), host, maintenance).await?;
        if spec.has(Role::Guests) {
            job.step("moves its guests away");
            let evacuation = Evacuation::plan(rack, host, self.options, &self.cancel_level, true).await?;
            let evacuation = evacuation.begin(rack, true, self.options, &self.cancel_level).await?;
            let report = execute(rack, &evacuation.plan, self.options, self.cancel_level.clone()).await;
            record.moved += report.moved().count();
            record.write(rack.port()).await?;
            let stay = format!("it stays in maintenance; `rackhand return {host}` brings back what left it");
            report.failure().map_or_else(|| stays(&evacuation.plan), Err).map_err(|failure| failure.hint(stay))?;
            let left = rack.hypervisors.get(host)?.domains().await?;
            let left: Vec<&str> =
                left.iter().filter(|domain| domain.state.has_process()).map(|domain| domain.name.as_str()).collect();
            if !left.is_empty() {
                return Err(Failure::refused(format!("{} still run there", left.join(", "))));
            }
        }
        job.step("waits for the watch to take note");
        watcher::knows(rack, host).await?;
        ceph::may_stop(rack.port(), spec).await?;
        record.boot = Some(boot_id(rack.fleet.get(host)?.as_ref()).await?);
        record.phase = RebootPhase::Rebooting;
        Ok(record.write(rack.port()).await?)
    }

    /// Tells a host to reboot that was found empty by this very run.
    async fn order(&self, spec: &HostSpec, job: &Job) -> Result<(), Failure> {
        let (rack, host) = (self.rack, &spec.name);
        if !self.turn.holds() {
            return Err(Failure::msg(Kind::Busy, "this run may have lost its turn: the cluster did not answer"));
        }
        // The last look: what was asked before took its time.
        let states = read_host_states(rack.port()).await?;
        let record = RebootRecord::read(rack.port(), host).await?;
        if !record.is_some_and(|record| record.stands(states.get(host))) {
            return Err(Failure::msg(Kind::Busy, "its maintenance was ended meanwhile; it was not rebooted"));
        }
        if spec.has(Role::Guests) && rack.hypervisors.get(host)?.domains().await?.iter().any(|d| d.state.has_process())
        {
            return Err(Failure::refused("guests run there again; it was not rebooted"));
        }
        job.step("stops its OSDs, then its mon, and reboots it");
        // Nothing more is asked of the cluster through the mon that goes.
        rack.port().avoid(host).await;
        match rack.fleet.get(host)?.run(Exec::script(SCRIPT, targets(spec)).deadline(STOP)).await {
            Ok(output) if !output.ok() => {
                let text = format!("its services do not stop: {}", output.tail());
                Err(Failure::failed(text).hint(format!("look on {host}; then run the same command again")))
            }
            // Its end takes the answer with it: what counts is which boot it is in.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Waits until the host is in another boot.
    async fn wait_for_boot(&self, spec: &HostSpec, record: &mut RebootRecord, job: &Job) -> Result<(), Failure> {
        let (rack, host) = (self.rack, &spec.name);
        let remote = rack.fleet.get(host)?;
        let began = Instant::now();
        loop {
            let boot = boot_id(remote.as_ref()).await;
            let is_new = boot.as_ref().is_ok_and(|boot| Some(boot) != record.boot.as_ref());
            if is_new {
                break;
            }
            self.goes_on()?;
            let waited = began.elapsed();
            if waited >= self.patience {
                let how = if boot.is_ok() { "it answers and was not rebooted" } else { "it does not answer" };
                let limit = humantime::format_duration(self.patience);
                return Err(Failure::failed(format!("it did not come back within {limit}: {how}")).hint(
                    "look at its console; it stays in maintenance, and the same command goes on once it is back",
                ));
            }
            job.step(format!("waits for it to boot anew, for {} s so far", waited.as_secs()));
            sleep(LOOK).await;
        }
        record.phase = RebootPhase::Recovering;
        Ok(record.write(rack.port()).await?)
    }

    /// Waits until libvirt answers there and Ceph is whole.
    async fn wait_until_well(&self, spec: &HostSpec, job: &Job) -> Result<(), Failure> {
        let rack = self.rack;
        let began = Instant::now();
        loop {
            let waits_for = match self.libvirt(spec).await {
                Some(why) => Some(why),
                // While mons elect, there is no answer.
                None => match ceph::missing(rack.port(), spec).await {
                    Ok(missing) => missing,
                    Err(error) => Some(format!("Ceph: {error}")),
                },
            };
            let Some(waits_for) = waits_for else { return Ok(()) };
            self.goes_on()?;
            if began.elapsed() >= self.patience {
                let limit = humantime::format_duration(self.patience);
                return Err(Failure::failed(format!("it is back, and still waits for {waits_for} after {limit}"))
                    .hint("it stays in maintenance; the same command goes on once that is mended"));
            }
            job.step(format!("waits for {waits_for}"));
            sleep(LOOK).await;
        }
    }

    async fn libvirt(&self, spec: &HostSpec) -> Option<String> {
        if !spec.has(Role::Guests) {
            return None;
        }
        let hypervisor = self.rack.hypervisors.get(&spec.name).ok()?;
        match timeout(BOOT_ID, hypervisor.domains()).await {
            Ok(Ok(_)) => None,
            _ => Some("libvirt to answer".to_owned()),
        }
    }

    /// Ends the maintenance and moves the guests back; how many came, and which did not.
    async fn give_back(
        &self,
        spec: &HostSpec,
        record: &RebootRecord,
        job: &Job,
    ) -> Result<(usize, Vec<String>), Failure> {
        let (rack, host) = (self.rack, &spec.name);
        if record.kept {
            return Ok((0, Vec::new()));
        }
        if !spec.has(Role::Guests) {
            end_maintenance(rack.port(), host).await?;
            return Ok((0, Vec::new()));
        }
        job.step("moves its guests back");
        let home = ReturnPlan::plan(rack, host, self.options, &self.cancel_level, true).await?;
        home.begin(rack).await?;
        let report = execute(rack, &home.plan, self.options, self.cancel_level.clone()).await;
        let absent = || report.guests.iter().filter(|guest| !matches!(guest.outcome, "moved" | "gone"));
        let missing: Vec<Uuid> = absent().map(|guest| guest.uuid).collect();
        home.end(rack, &missing).await?;
        let left: Vec<String> = absent()
            .map(|guest| guest.guest.clone())
            .chain(home.plan.refused.iter().chain(&home.plan.unsettled).map(|guest| guest.guest.clone()))
            .collect();
        if !left.is_empty() {
            let names = left.join(", ");
            rack.ui.warn(format!("{names} did not come back to {host}; `rackhand return {host}` tries again"));
        }
        Ok((report.moved().count(), left))
    }

    /// Whether something more may be begun.
    fn goes_on(&self) -> Result<(), Failure> {
        match *self.cancel_level.borrow() {
            CancelLevel::None => Ok(()),
            _ => Err(Failure::msg(Kind::Interrupted, "interrupted").hint("the same command goes on from there")),
        }
    }
}

fn known<'a>(rack: &'a GuestContext, host: &str) -> Result<&'a HostSpec, Failure> {
    rack.inventory.host(host).ok_or_else(|| Failure::usage(format!("the inventory has no host `{host}`")))
}

/// Which boot a host is in.
async fn boot_id(remote: &dyn Remote) -> Result<String, RemoteError> {
    let silent = || RemoteError::Unreachable { host: remote.name().to_owned(), reason: "no answer in time".to_owned() };
    let ask = remote.run(Exec::argv(["cat", "/proc/sys/kernel/random/boot_id"]).deadline(BOOT_ID).as_login());
    let output = timeout(BOOT_ID, ask).await.map_err(|_| silent())??;
    let boot = output.text().trim().to_owned();
    if output.ok() && !boot.is_empty() { Ok(boot) } else { Err(silent()) }
}
