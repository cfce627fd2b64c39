//! Follows a move that libvirt carries out: its figures, the pause it may cause, and its abort.

use super::options::Options;
use super::plan::Move;
use super::stall::{Progress, STALL, pause, stop_emulated};
use crate::libvirt::{Hypervisor, JobStats, VirtError};
use crate::ui::{CancelLevel, Job};
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
/// MiB/s that no network reaches.
const UNLIMITED: u64 = 1 << 20;
/// How long an aborted move may take to come to its end.
const ABORT: Duration = Duration::from_secs(20);

/// A request to libvirt that is under way.
pub(super) type Call<'a> = Pin<Box<dyn Future<Output = Result<(), VirtError>> + Send + 'a>>;

/// A move that libvirt carries out.
pub(super) struct Followed<'a> {
    pub(super) source: &'a Arc<dyn Hypervisor>,
    pub(super) a_move: &'a Move,
    pub(super) options: &'a Options,
    pub(super) cancel_level: &'a watch::Receiver<CancelLevel>,
    pub(super) job: &'a Job,
}

impl Followed<'_> {
    /// Watches a move until its call returns, or without a call until no job runs any more. Aborts one that stands
    /// still, or that the operator wants aborted.
    pub(super) async fn watch(&self, rate: &(impl Fn(u64) + Send), call: Option<Call<'_>>) -> Result<(), VirtError> {
        let followed = call.is_none();
        let mut call = call.unwrap_or_else(|| Box::pin(no_job(self.source, self.a_move.uuid)));
        let began = Instant::now();
        let mut progress = Progress::default();
        let mut paused = Duration::ZERO;
        let mut stopped = !self.a_move.emulated;
        let mut tick = interval(if stopped { POLL } else { POLL_EMULATED });
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let stats = tokio::select! {
                outcome = &mut call, if !followed => return outcome,
                stats = async { tick.tick().await; self.source.job(self.a_move.uuid).await } => stats.ok(),
            };
            let running = stats.as_ref().filter(|s| s.migrates());
            // No figures: the guest may have left, or its host. Both sides are looked at anew.
            if followed && running.is_none() {
                return Ok(());
            }
            if let Some(stats) = running {
                rate(stats.rate);
                show(self.job, stats);
                let wanted = pause(self.options.max_downtime, stats.iteration);
                if wanted != paused && self.source.set_max_downtime(self.a_move.uuid, wanted).await.is_ok() {
                    paused = wanted;
                }
                if !stopped && stop_emulated(stats) {
                    // libvirt lets it go on where the move ends, here or there.
                    stopped = self.source.pause_for_switch(self.a_move.uuid).await.is_ok();
                    if stopped && self.options.bandwidth.is_some() {
                        // It stands still until the rest has arrived, which after a reboot in the guest is all of it.
                        let _ = self.source.set_bandwidth(self.a_move.uuid, UNLIMITED).await;
                    }
                }
            }
            let stalled = progress.stalled(running, began.elapsed());
            if stalled || *self.cancel_level.borrow() == CancelLevel::Abort {
                self.job.step("aborts the move");
                return self.abort(call, stalled, running.is_some()).await;
            }
        }
    }

    /// Aborts the move; a job of another tool is none of ours to abort.
    async fn abort(&self, call: Call<'_>, stalled: bool, migrates: bool) -> Result<(), VirtError> {
        let asked = if migrates { self.source.abort_job(self.a_move.uuid).await } else { Ok(()) };
        let ended = timeout(ABORT, call).await;
        let message = match (stalled, asked) {
            (_, Err(error)) => format!("aborting it failed: {error}"),
            (true, Ok(())) => format!("aborted: no progress for {} s", STALL.as_secs()),
            (false, Ok(())) => "aborted by the operator".to_owned(),
        };
        let (host, call) = (self.a_move.from.clone(), "move the guest");
        match ended {
            Ok(Ok(())) => Ok(()),
            // It was never begun, and never will be.
            Ok(Err(error)) if error.nothing_ran() => Err(error),
            _ => Err(VirtError::Failed { host, call, code: 0, message }),
        }
    }
}

/// Waits until no migration runs on the guest any more.
async fn no_job(source: &Arc<dyn Hypervisor>, uuid: Uuid) -> Result<(), VirtError> {
    while source.job(uuid).await.is_ok_and(|job| job.migrates()) {
        sleep(POLL).await;
    }
    Ok(())
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
