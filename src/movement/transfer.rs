//! One guest's move, from the claim to the claim.

use super::explain::explain;
use super::follow::Followed;
use super::options::Options;
use super::plan::Move;
use super::preflight::{self, Pairs, before_it_began};
use super::stall::pause;
use crate::cluster::Lease;
use crate::error::{Failure, Kind};
use crate::fence;
use crate::guest::claim::{self, Claim, Phase, Run, Swap, Window};
use crate::guest::hold;
use crate::guest::{Courtesy, GuestContext, Settled, Settlement, Sides, enter_reservation};
use crate::libvirt::{MigrateParams, Token, VirtError};
use crate::ui::{CancelLevel, Job, Outcome};
use serde::Serialize;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

/// How often it is tried to abort a move that does not end.
const ABORTS: u32 = 3;
/// How long a guest's QEMU may take to answer before its move is asked for.
const ANSWERS: Duration = Duration::from_secs(5);

/// What is said of a move that can be brought to no end.
const STILL_MOVES: &str = "it still moves, and cannot be aborted";

/// What a move took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Milliseconds from the first request to the last look.
    pub total_ms: u64,
    /// Milliseconds the guest stood still, as QEMU says.
    pub downtime_ms: u64,
    /// Bytes of memory sent.
    pub bytes: u64,
}

/// How a guest's move ended.
#[derive(Debug)]
pub enum Ended {
    /// It runs on the target.
    Moved(Figures),
    /// It is where it was; why.
    Stayed(Failure),
    /// Other hands have brought it to this third host.
    Elsewhere(String),
    /// It ended by itself meanwhile.
    Gone,
    /// Nobody can tell; what is known.
    Unknown(String),
}

/// What a move needs besides the rack.
#[derive(Debug)]
pub struct Transfer<'a> {
    /// The cluster and its hosts.
    pub rack: &'a GuestContext,
    /// Which guest, where from, where to.
    pub a_move: &'a Move,
    /// How.
    pub options: &'a Options,
    /// Hosts that were seen to see each other.
    pub pairs: &'a Pairs,
    /// How much the operator is in a hurry.
    pub cancel_level: watch::Receiver<CancelLevel>,
}

impl Transfer<'_> {
    /// Moves the guest, and makes sure of where it is afterwards. `rate` is told what it sends.
    pub async fn run(mut self, rate: impl Fn(u64) + Send) -> Ended {
        let job = self.rack.ui.job(format!("move {} {} -> {}", self.a_move.guest, self.a_move.from, self.a_move.to));
        let began = Instant::now();
        let ended = match self.attempt(began, &job, &rate).await {
            Ok(ended) => ended,
            Err(failure) if failure.kind == Kind::Unknown => Ended::Unknown(failure.to_string()),
            Err(failure) => Ended::Stayed(failure),
        };
        match &ended {
            Ended::Moved(f) => job.done(format!(
                "{:.2} s, stood still {} ms, {} MiB",
                Duration::from_millis(f.total_ms).as_secs_f64(),
                f.downtime_ms,
                f.bytes >> 20
            )),
            Ended::Stayed(failure) => job.fail(format!("still on {}: {failure}", self.a_move.from)),
            Ended::Elsewhere(host) => job.fail(elsewhere(host)),
            Ended::Gone => job.fail("it ended meanwhile"),
            Ended::Unknown(why) => job.end(Outcome::Unknown, why.clone()),
        }
        ended
    }

    async fn attempt(&mut self, began: Instant, job: &Job, rate: &(impl Fn(u64) + Send)) -> Result<Ended, Failure> {
        let sides = Sides::of(self.rack, &self.a_move.from, &self.a_move.to)?;
        let (port, uuid, to) = (self.rack.port(), self.a_move.uuid, self.a_move.to.as_str());
        let claim = claim::read(port, uuid).await?;
        self.may_begin(&claim).await?;
        job.step("looks whether the hosts see each other");
        // After the claim was read, so that a fence that came later finds this very claim, or none of ours.
        let waits =
            |lease: &Lease| job.step(format!("waits for {}, which holds it for {}", lease.holder, lease.purpose));
        let (fences, ready, free) = tokio::join!(
            fence::standing(port),
            preflight::ready(self.rack, self.pairs, self.a_move),
            hold::wait_out(port, uuid, waits)
        );
        let fences = fences?;
        if let Some(host) = [self.a_move.from.as_str(), to].into_iter().find(|host| fences.close(host)) {
            return Err(Failure::refused(format!("nothing moves from or to {host}: it is fenced, or is being let in"))
                .hint(format!("let it in again with `rackhand readmit {host}`")));
        }
        ready.and(free).map_err(before_it_began)?;
        let run = self.rack.run.operation();
        let mine = claim.moving(&self.a_move.from, to, &run);
        let window = Window::begin();
        if let Swap::Theirs(theirs) = claim::swap(port, uuid, &claim, &mine).await? {
            return Err(Failure::msg(Kind::Busy, format!("{} works on it at the moment", theirs.by)));
        }
        if let Err(failure) = self.enter(&sides, &mine).await {
            return self.never_sent(&run, job, &mine, failure).await;
        }
        match self.go(&sides, mine.token().within(window), job, rate).await {
            Err(error) if error.nothing_ran() && !error.no_domain() => {
                self.never_sent(&run, job, &mine, error.into()).await
            }
            outcome => {
                let settled = self.find(&sides, &run, job, rate, mine).await?;
                Ok(self.conclude(settled, outcome.err(), began).await)
            }
        }
    }

    /// Gets the target ready: it has room, and refuses whatever was asked of it for this guest before. A process that took
    /// hold of the guest since it was looked for keeps it where it is.
    async fn enter(&self, sides: &Sides, mine: &Claim) -> Result<(), Failure> {
        let (uuid, to) = (self.a_move.uuid, self.a_move.to.as_str());
        let (room, there, free) = tokio::join!(
            enter_reservation(self.rack, uuid, &self.a_move.need, to),
            sides.target.revoke(uuid, mine.token()),
            hold::refuse(self.rack.port(), uuid)
        );
        free.map_err(before_it_began)?;
        if let Err(why) = room.map_err(before_it_began)? {
            return Err(Failure::refused(format!("host {to}: {why}"))
                .hint("nothing was changed; name another host, or make room"));
        }
        match there.map_err(Failure::from).map_err(before_it_began)? {
            Some(domain) if domain.state.has_process() => Err(another_copy(to, uuid)),
            _ => Ok(()),
        }
    }

    /// Gives the claim back: the source was asked nothing, so that nothing has to be looked at.
    async fn never_sent(&self, run: &Run, job: &Job, mine: &Claim, failure: Failure) -> Result<Ended, Failure> {
        match self.settlement(run, job).write(mine, Some(&self.a_move.from)).await {
            Ok(_) => Err(before_it_began(failure)),
            Err(why) => Err(Failure::msg(Kind::Unknown, format!("{failure}; its claim says that it moves: {why}"))),
        }
    }

    /// Whether the guest is free to be moved: no other run is at it, and it is claimed for no other host.
    async fn may_begin(&self, claim: &Claim) -> Result<(), Failure> {
        let elsewhere = claim.host.as_deref().filter(|host| *host != self.a_move.from);
        match (claim.phase, elsewhere) {
            (Phase::Starting, _) => Err(Failure::msg(Kind::Busy, format!("it is being started by {}", claim.by))
                .hint(format!("`rackhand guest start {}` finishes its start", self.a_move.guest))),
            (Phase::Moving, _) => Err(Failure::msg(Kind::Busy, format!("it is being moved by {}", claim.by))),
            // Moved by other hands than ours, it is there no more.
            (Phase::Running, Some(host)) if self.is_absent(host).await => Ok(()),
            (Phase::Running, Some(host)) => {
                let text = format!("it is seen on {} and claimed for {host}", self.a_move.from);
                Err(Failure::msg(Kind::Busy, text).hint("run the same command again: it may just have been moved"))
            }
            _ => Ok(()),
        }
    }

    /// Whether a host answers that it has no such guest.
    async fn is_absent(&self, host: &str) -> bool {
        match self.rack.hypervisors.get(host) {
            Ok(hypervisor) => hypervisor.domain(self.a_move.uuid).await.is_ok_and(|domain| domain.is_none()),
            Err(_) => false,
        }
    }

    /// Lets libvirt move it, and watches.
    async fn go(&self, sides: &Sides, token: Token, job: &Job, rate: &(impl Fn(u64) + Send)) -> Result<(), VirtError> {
        let (from, to) = (&self.a_move.from, &self.a_move.to);
        let unreachable = |reason: String| VirtError::Unreachable { host: from.clone(), reason };
        let params = self.params().ok_or_else(|| unreachable(format!("the inventory has no host {to}")))?;
        // Before it begins: the whole move of a small guest can fit between two looks at it.
        let first = pause(self.options.max_downtime, 0);
        match timeout(ANSWERS, sides.source.set_max_downtime(self.a_move.uuid, first)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) if error.nothing_ran() => return Err(error),
            Ok(Err(error)) if !error.unknown() => {
                tracing::debug!(%error, guest = self.a_move.guest, "the limit of the pause is set later");
            }
            Ok(Err(_)) | Err(_) => {
                return Err(unreachable(format!("the QEMU of guest {} does not answer", self.a_move.guest)));
            }
        }
        let call = sides.source.migrate(self.a_move.uuid, &params, token);
        self.followed(sides, job).watch(rate, Some(call)).await
    }

    fn followed<'a>(&'a self, sides: &'a Sides, job: &'a Job) -> Followed<'a> {
        Followed {
            source: &sides.source,
            a_move: self.a_move,
            options: self.options,
            cancel_level: &self.cancel_level,
            job,
        }
    }

    fn settlement<'a>(&'a self, run: &'a Run, job: &'a Job) -> Settlement<'a> {
        let (rack, guest, name) = (self.rack, self.a_move.uuid, self.a_move.guest.as_str());
        Settlement { rack, guest, name, run, job, cancel_level: self.cancel_level.clone() }
    }

    fn params(&self) -> Option<MigrateParams> {
        let inventory = &self.rack.inventory;
        let target = inventory.host(&self.a_move.to)?;
        let fast = inventory.migration_network().speed.is_some_and(|s| s.0 >= 10_000);
        Some(MigrateParams {
            destination: preflight::libvirt_uri(inventory, target),
            data: Some(preflight::data_uri(inventory, target)),
            bandwidth: self.options.bandwidth,
            // One stream is one processor's work; 4 fill 25 Gbit/s.
            parallel: fast.then_some(4),
            auto_converge: true,
            tls: true,
            deadline: None,
        })
    }

    /// Looks at both sides until the guest is found, following a move that still goes on; one that cannot be aborted
    /// is left to itself in the end.
    async fn find(
        &self,
        sides: &Sides,
        run: &Run,
        job: &Job,
        rate: &(impl Fn(u64) + Send),
        mut mine: Claim,
    ) -> Result<Settled, Failure> {
        for _ in 0..ABORTS {
            match self.settlement(run, job).resolve(sides, mine, false).await? {
                Settled::Moves(claim) => mine = claim,
                settled => return Ok(settled),
            }
            // What it ends with shows on both sides.
            while self.followed(sides, job).watch(rate, None).await.is_ok() {
                match self.settlement(run, job).resolve(sides, mine, false).await? {
                    Settled::Moves(claim) => mine = claim,
                    settled => return Ok(settled),
                }
            }
        }
        Err(Failure::msg(Kind::Unknown, STILL_MOVES))
    }

    async fn conclude(&self, settled: Settled, error: Option<VirtError>, began: Instant) -> Ended {
        match settled {
            Settled::Runs(host) if host == self.a_move.to => Ended::Moved(self.figures(began).await),
            Settled::Runs(host) if host == self.a_move.from => Ended::Stayed(explain(self.a_move, error.as_ref())),
            Settled::Runs(host) => Ended::Elsewhere(host),
            Settled::Free => Ended::Gone,
            Settled::Changed | Settled::Made(_) | Settled::Moves(_) => {
                Ended::Unknown("another run has taken the move over".to_owned())
            }
        }
    }

    async fn figures(&self, began: Instant) -> Figures {
        let total_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let Ok(target) = self.rack.hypervisors.get(&self.a_move.to) else { return Figures::default() };
        let stats = target.completed_job(self.a_move.uuid).await.unwrap_or_default();
        Figures { total_ms, downtime_ms: stats.downtime_ms, bytes: stats.memory_processed }
    }
}

/// What is said of a guest that other hands have brought to a third host.
pub(super) fn elsewhere(host: &str) -> String {
    format!("other hands have moved it to {host}")
}

fn another_copy(to: &str, uuid: Uuid) -> Failure {
    Failure::refused(format!("host {to} has another copy of it"))
        .hint(format!("find out what that is, and end it on {to} with `virsh destroy {uuid}`"))
}

/// Finishes a move that another run began and did not see the end of; tells what its claim came to.
///
/// # Errors
/// When it cannot be told.
pub async fn finish(transfer: &Transfer<'_>) -> Result<Settled, Failure> {
    let a_move = transfer.a_move;
    let (port, uuid) = (transfer.rack.port(), a_move.uuid);
    let sides = Sides::of(transfer.rack, &a_move.from, &a_move.to)?;
    let job = transfer.rack.ui.job(format!("finish the move of {} {} -> {}", a_move.guest, a_move.from, a_move.to));
    let run = transfer.rack.run.operation();
    let mut aborts = 0;
    let settled = loop {
        let claim = claim::read(port, uuid).await?;
        match transfer.settlement(&run, &job).settle(&claim, Courtesy::Wait).await {
            // One that was found moving is followed; only an abort ends that with an error.
            Ok(Settled::Moves(_)) if aborts < ABORTS => {
                aborts += u32::from(transfer.followed(&sides, &job).watch(&|_| (), None).await.is_err());
            }
            Ok(Settled::Moves(_)) => break Err(Failure::msg(Kind::Unknown, STILL_MOVES)),
            other => break other,
        }
    };
    match &settled {
        Ok(Settled::Runs(host)) => job.done(format!("it runs on {host}")),
        Ok(Settled::Free) => job.done("it ended meanwhile"),
        Ok(_) => job.done("another run has settled it"),
        Err(failure) => job.end(Outcome::Unknown, failure.to_string()),
    }
    settled
}
