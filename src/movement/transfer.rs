//! One guest's move, from the claim to the claim.

use super::explain::explain;
use super::options::Options;
use super::plan::Move;
use super::preflight::{self, Pairs, before_it_began};
use super::settle::{Found, Sides};
use super::stall::{Progress, pause, stop_emulated};
use crate::cluster::ClusterError;
use crate::error::{Failure, Kind};
use crate::guest::claim::{self, Claim, Phase, Swap, Window};
use crate::guest::{Rack, enter_promise};
use crate::libvirt::{Hypervisor, JobStats, MigrateParams, Token, VirtError};
use crate::ui::Urgency;
use crate::ui::{Job, Outcome};
use serde::Serialize;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use uuid::Uuid;

/// Time between two looks at a running move; cheap (0.3 ms), and the bars and the link budget live on it.
const POLL: Duration = Duration::from_millis(100);
/// The same for an emulated guest, whose end of the first round must not be missed.
const POLL_EMULATED: Duration = Duration::from_millis(15);
/// How long an aborted move may take to come to its end.
const ABORT: Duration = Duration::from_secs(20);
/// How often it is tried to abort a move that does not end.
const ABORTS: u32 = 3;
/// How long the cluster may be out of reach while the outcome of a move is to be written down.
const WRITE_DOWN: Duration = Duration::from_secs(30);

/// What is said of a move that can be brought to no end.
const STILL_MOVES: &str = "it still moves, and cannot be aborted";

/// Why a move did not go as it should.
struct Trouble {
    error: VirtError,
    /// Whether the request may still be on its way, or waiting for its turn.
    in_doubt: bool,
}

impl From<VirtError> for Trouble {
    fn from(error: VirtError) -> Self {
        Trouble { in_doubt: error.unknown(), error }
    }
}

/// A request to libvirt that is under way.
type Call<'a> = Pin<Box<dyn Future<Output = Result<(), VirtError>> + Send + 'a>>;

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
    pub rack: &'a Rack,
    /// Which guest, where from, where to.
    pub a_move: &'a Move,
    /// How.
    pub options: &'a Options,
    /// Hosts that were seen to see each other.
    pub pairs: &'a Pairs,
    /// How much the operator is in a hurry.
    pub urgency: watch::Receiver<Urgency>,
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
        let sides = Sides::of(self.rack, self.a_move)?;
        let claim = claim::read(self.rack.port(), self.a_move.uuid).await?;
        self.may_begin(&claim).await?;
        job.step("looks whether the hosts see each other");
        let (from, to) = (self.a_move.from.as_str(), self.a_move.to.as_str());
        preflight::ready(self.rack, self.pairs, self.a_move).await.map_err(before_it_began)?;
        let mine = claim.moving(from, to, &self.rack.run);
        let window = Window::begin();
        match claim::swap(self.rack.port(), self.a_move.uuid, &claim, &mine).await? {
            Swap::Ours => {}
            Swap::Theirs(theirs) => {
                return Err(Failure::msg(Kind::Busy, format!("{} works on it at the moment", theirs.by)));
            }
        }
        let room = enter_promise(self.rack, self.a_move.uuid, &self.a_move.need, to).await;
        let no_room = |why: String| {
            Err(Failure::refused(format!("host {to}: {why}"))
                .hint("nothing was changed; name another host, or make room"))
        };
        if let Err(failure) = room.map_err(before_it_began).and_then(|room| room.or_else(no_room)) {
            write_down(self.rack, self.a_move, Some(from), &mine).await.map_err(|why| {
                Failure::msg(Kind::Unknown, format!("{failure}; its claim says that it moves: {why}"))
            })?;
            return Err(failure);
        }
        let trouble = self.go(&sides, mine.token().within(window), job, rate).await;
        let found = self.follow(&sides, job, rate, mine.token(), trouble.as_ref().is_some_and(|t| t.in_doubt)).await;
        Ok(self.conclude(found, trouble.map(|t| t.error), &mine, began, job).await)
    }

    /// Whether the guest is free to be moved: nobody else is at it, and it is claimed for no other host.
    async fn may_begin(&self, claim: &Claim) -> Result<(), Failure> {
        let elsewhere = claim.host.as_deref().filter(|host| *host != self.a_move.from);
        match (claim.phase, elsewhere) {
            (Phase::Starting, _) => Err(Failure::msg(Kind::Busy, format!("it is being started by {}", claim.by))),
            (Phase::Moving, _) => Err(Failure::msg(Kind::Busy, format!("it is being moved by {}", claim.by))),
            // Moved by other hands than ours, it is there no more.
            (Phase::Running, Some(host)) if self.is_absent(host).await => Ok(()),
            (Phase::Running, Some(host)) => {
                let text = format!("it is seen on {} and claimed for {host}", self.a_move.from);
                Err(Failure::msg(Kind::Busy, text).hint("run the same command again: somebody may just have moved it"))
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
    async fn go(&mut self, sides: &Sides, token: Token, job: &Job, rate: &(impl Fn(u64) + Send)) -> Option<Trouble> {
        let params = self.params()?;
        // Before it begins: the whole move of a small guest can fit between two looks at it.
        let first = pause(self.options.max_downtime, 0);
        if let Err(error) = sides.source.set_max_downtime(self.a_move.uuid, first).await {
            tracing::debug!(%error, guest = self.a_move.guest, "the limit of the pause is set later");
        }
        let call = sides.source.migrate(self.a_move.uuid, &params, token);
        self.watch(sides, job, rate, Some(call)).await
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
    async fn follow(
        &mut self,
        sides: &Sides,
        job: &Job,
        rate: &(impl Fn(u64) + Send),
        token: Token,
        in_doubt: bool,
    ) -> Found {
        let mut aborts = 0;
        loop {
            match sides.settle(self.a_move, job, token, in_doubt).await {
                Found::StillMoving if aborts < ABORTS => {
                    // Only an abort ends it with an error: there is no call to fail.
                    aborts += u32::from(self.watch(sides, job, rate, None).await.is_some());
                }
                found => return found,
            }
        }
    }

    /// Watches a move until its call returns, or without a call until no job runs any more. Aborts one that stands
    /// still, or that the operator wants aborted.
    async fn watch(
        &mut self,
        sides: &Sides,
        job: &Job,
        rate: &(impl Fn(u64) + Send),
        call: Option<Call<'_>>,
    ) -> Option<Trouble> {
        let followed = call.is_none();
        let mut call = call.unwrap_or_else(|| Box::pin(no_job(&sides.source, self.a_move.uuid)));
        let began = Instant::now();
        let mut progress = Progress::default();
        let mut paused = Duration::ZERO;
        let mut stopped = !self.a_move.emulated;
        let mut tick = interval(if stopped { POLL } else { POLL_EMULATED });
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let stats = tokio::select! {
                outcome = &mut call, if !followed => return outcome.err().map(Trouble::from),
                stats = async { tick.tick().await; sides.source.job(self.a_move.uuid).await } => stats.ok(),
            };
            let running = stats.as_ref().filter(|s| s.migrates());
            // No figures: the guest may have left, or its host. Both sides are looked at anew.
            if followed && running.is_none() {
                return None;
            }
            if let Some(stats) = running {
                rate(stats.rate);
                show(job, stats);
                let wanted = pause(self.options.max_downtime, stats.iteration);
                if wanted != paused && sides.source.set_max_downtime(self.a_move.uuid, wanted).await.is_ok() {
                    paused = wanted;
                }
                if !stopped && stop_emulated(stats) {
                    // libvirt lets it go on where the move ends, here or there.
                    stopped = sides.source.pause_for_switch(self.a_move.uuid).await.is_ok();
                }
            }
            let stalled = progress.stalled(running, began.elapsed());
            if stalled || *self.urgency.borrow() == Urgency::Abort {
                job.step("aborts the move");
                return self.abort(sides, call, stalled).await;
            }
        }
    }

    async fn abort(&self, sides: &Sides, call: Call<'_>, stalled: bool) -> Option<Trouble> {
        let asked = sides.source.abort_job(self.a_move.uuid).await;
        let ended = timeout(ABORT, call).await;
        if matches!(ended, Ok(Ok(()))) {
            return None;
        }
        let message = match (stalled, asked) {
            (_, Err(error)) => format!("aborting it failed: {error}"),
            (true, Ok(())) => format!("aborted: no progress for {} s", super::stall::STALL.as_secs()),
            (false, Ok(())) => "aborted by the operator".to_owned(),
        };
        // A request whose answer was lost may have been aborted before it began.
        let in_doubt = ended.map_or(true, |outcome| outcome.is_err_and(|error| error.unknown()));
        Some(Trouble { error: self.failed(message), in_doubt })
    }

    fn failed(&self, message: String) -> VirtError {
        VirtError::Failed { host: self.a_move.from.clone(), call: "move the guest", code: 0, message }
    }

    /// Writes down where the guest is.
    async fn conclude(&self, found: Found, error: Option<VirtError>, mine: &Claim, began: Instant, job: &Job) -> Ended {
        let ended = match &found {
            Found::OnTarget => Ended::Moved(self.figures(began).await),
            Found::OnSource => Ended::Stayed(explain(self.a_move, error.as_ref())),
            Found::Elsewhere(host) => Ended::Elsewhere(host.clone()),
            Found::Nowhere => Ended::Gone,
            Found::StillMoving => return Ended::Unknown(STILL_MOVES.to_owned()),
            Found::Unknown(why) => {
                let why = error.map_or_else(|| why.clone(), |e| format!("{why}; the move said: {e}"));
                return Ended::Unknown(why);
            }
        };
        job.step("writes down where it is");
        let host = found.host(self.a_move);
        match write_down(self.rack, self.a_move, host, mine).await {
            Ok(()) => ended,
            Err(why) => Ended::Unknown(match host {
                Some(host) => format!("it runs on {host}, but that could not be written down: {why}"),
                None => format!("it runs nowhere, but that could not be written down: {why}"),
            }),
        }
    }

    async fn figures(&self, began: Instant) -> Figures {
        let total_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let Ok(target) = self.rack.hypervisors.get(&self.a_move.to) else { return Figures::default() };
        let stats = target.completed_job(self.a_move.uuid).await.unwrap_or_default();
        Figures { total_ms, downtime_ms: stats.downtime_ms, bytes: stats.memory_processed }
    }
}

/// What is said of a guest that somebody else has brought to a third host.
pub(super) fn elsewhere(host: &str) -> String {
    format!("other hands have moved it to {host}")
}

/// Waits until the guest is not being moved any more.
async fn no_job(source: &Arc<dyn Hypervisor>, uuid: Uuid) -> Result<(), VirtError> {
    while source.job(uuid).await.is_ok_and(|job| job.migrates()) {
        sleep(POLL).await;
    }
    Ok(())
}

/// Replaces a claim that says the guest moves by where it was found. Tries again while the cluster is out of reach.
async fn write_down(rack: &Rack, a_move: &Move, host: Option<&str>, followed: &Claim) -> Result<(), String> {
    let until = Instant::now() + WRITE_DOWN;
    loop {
        match replace(rack, a_move, host, followed).await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= until => return Err(error.to_string()),
            Err(error) => tracing::info!(%error, guest = a_move.guest, "writing the claim again"),
        }
        sleep(Duration::from_millis(500)).await;
    }
}

async fn replace(rack: &Rack, a_move: &Move, host: Option<&str>, followed: &Claim) -> Result<(), ClusterError> {
    let seen = claim::read(rack.port(), a_move.uuid).await?;
    let other = |c: &Claim| c.places().any(|place| place != a_move.from && place != a_move.to);
    // Somebody starts it anew, moves it once more, or moved it on: it is theirs.
    let anew = seen.phase == Phase::Starting || seen.phase == Phase::Moving && seen != *followed;
    // One that is on neither host may be wherever somebody else has brought it.
    if anew || other(&seen) || host.is_none() && seen != *followed {
        return Ok(());
    }
    let next = match host {
        Some(host) if seen.phase == Phase::Running && seen.host.as_deref() == Some(host) => return Ok(()),
        Some(host) => seen.running(host),
        None => seen.freed(),
    };
    match claim::swap(rack.port(), a_move.uuid, &seen, &next).await? {
        Swap::Ours => Ok(()),
        Swap::Theirs(theirs) => Err(ClusterError::Conflict(format!("its claim was changed by {}", theirs.by))),
    }
}

/// Finishes a move that another run began and did not see the end of; tells where the guest is.
///
/// # Errors
/// When it cannot be told.
pub async fn finish(transfer: &mut Transfer<'_>) -> Result<Found, Failure> {
    let sides = Sides::of(transfer.rack, transfer.a_move)?;
    let a_move = transfer.a_move;
    let job = transfer.rack.ui.job(format!("finish the move of {} {} -> {}", a_move.guest, a_move.from, a_move.to));
    let claim = claim::read(transfer.rack.port(), a_move.uuid).await?;
    let mut found = transfer.follow(&sides, &job, &|_| (), claim.token(), false).await;
    if matches!(found, Found::OnSource | Found::Nowhere) && claim.phase == Phase::Moving {
        // Whoever wrote the claim may be about to ask the source, which somebody may start the guest on before he does:
        // wait until that cannot be any more.
        let told = |c: &Claim, left: Duration| job.step(format!("waits up to {} s for {}", left.as_secs(), c.by));
        let waited = claim::wait_out(transfer.rack.port(), a_move.uuid, claim.clone(), told).await;
        waited?;
        found = transfer.follow(&sides, &job, &|_| (), claim.token(), false).await;
    }
    let why = match &found {
        Found::StillMoving => Some(STILL_MOVES),
        Found::Unknown(why) => Some(why.as_str()),
        _ => None,
    };
    if let Some(why) = why {
        job.end(Outcome::Unknown, why);
        return Err(Failure::msg(Kind::Unknown, why));
    }
    let host = found.host(a_move);
    if let Err(why) = write_down(transfer.rack, a_move, host, &claim).await {
        return Err(Failure::msg(Kind::Unknown, why));
    }
    job.done(host.map_or_else(|| "it ended meanwhile".to_owned(), |host| format!("it runs on {host}")));
    Ok(found)
}

fn show(job: &Job, stats: &JobStats) {
    let done = stats.memory_total.saturating_sub(stats.memory_remaining);
    let mut words = format!(
        "{} MiB/s, {} MiB left, round {}",
        stats.rate >> 20,
        stats.memory_remaining >> 20,
        stats.iteration.max(1)
    );
    if stats.throttle > 0 {
        words.push_str(&format!(", slowed down by {} %", stats.throttle));
    }
    job.progress(done, stats.memory_total, words);
}
