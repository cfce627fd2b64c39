//! Does what the brain asks for; answers come back as inputs.

use super::audience::Told;
use super::clock::Clock;
use super::hands::{FenceFailure, Hands, Progress, TellProgress};
use super::journal::Journal;
use super::setup::{Setup, WatchedHost};
use crate::watch::brain::{Action, Input, Phase, Verdict};
use crate::watch::witness::{HostStream, MonWitness, Probe};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// How long a fence may take before it is told as not proven; asked for again, it goes on.
const FENCE: Duration = Duration::from_secs(60);
/// How old a verdict may be when a fence begins.
const STALE: Duration = Duration::from_secs(4);
/// How long a recovery may take before it is told as not through; asked for again, it goes on.
const RECOVERY: Duration = Duration::from_secs(900);
/// How long a BMC may take to answer.
const BMC: Duration = Duration::from_secs(15);

/// Does what the brain asks for.
pub(super) struct Performer {
    pub(super) clock: Clock,
    pub(super) hosts: BTreeMap<String, WatchedHost>,
    pub(super) streams: BTreeMap<String, Arc<HostStream>>,
    pub(super) mons: Arc<MonWitness>,
    pub(super) hands: Arc<dyn Hands>,
    pub(super) journal: Journal,
    pub(super) answers: mpsc::Sender<Input>,
    pub(super) told: mpsc::Sender<Told>,
    /// How long a host has to reach another one.
    pub(super) within: Duration,
    /// Whether it may have mons call an election; all else that changes anything needs the lease.
    pub(super) acts: bool,
}

impl Performer {
    /// How long a host has to reach another one, with these settings.
    pub(super) fn within(setup: &Setup) -> Duration {
        (setup.settings.patience / 3).clamp(Duration::from_millis(300), Duration::from_secs(1))
    }

    /// Does what one step asks for. `round` numbers the question to the mons, should one be among it.
    pub(super) fn perform(&self, now: Duration, actions: Vec<Action>, mut round: impl FnMut() -> u64) {
        let mut records: Vec<oneshot::Receiver<()>> = Vec::new();
        for action in actions {
            match action {
                Action::Nudge { mons } if self.acts => self.nudge(mons),
                Action::Nudge { .. } => {}
                Action::AskMons => self.mons.ask(round()),
                Action::AskPeers { from, of } => from.into_iter().for_each(|from| self.ask_peer(now, from, &of)),
                Action::AskBmc { host } => self.ask_bmc(host),
                Action::Record(entry) => {
                    // Later entries carry the same verdict.
                    if let Some(verdict) = entry.verdict.as_ref().filter(|_| entry.phase == Phase::Fencing) {
                        let _ = self.told.try_send(Told::verdict(now, verdict));
                    }
                    records.push(self.journal.record(entry));
                }
                Action::Tell(event) => {
                    // Full only when nobody reads, and then nobody misses it.
                    let _ = self.told.try_send(Told::event(now, &event));
                }
                Action::StopGuests { host } => self.stop_guests(host, std::mem::take(&mut records)),
                Action::Fence { host, verdict } => self.fence(host, verdict, std::mem::take(&mut records)),
                Action::Recover { host } => self.recover(host, std::mem::take(&mut records)),
                Action::RestartGuests { host } => self.restart_guests(host),
                Action::Drain { host } => {
                    let failed = Input::DrainFailed { host: host.clone() };
                    self.aside("drained", host, Some(failed), |hands, host| async move { hands.drain(&host).await });
                }
                Action::MendLibvirt { host } => {
                    self.aside("mended", host, None, |hands, host| async move { hands.mend_libvirt(&host).await });
                }
            }
        }
    }

    fn nudge(&self, hosts: Vec<String>) {
        let (mons, told, clock) = (Arc::clone(&self.mons), self.told.clone(), self.clock);
        tokio::spawn(async move {
            let answers = mons.nudge(&hosts).await;
            let words: Vec<String> = answers
                .iter()
                .map(|(host, answer)| match answer {
                    Ok(()) => host.clone(),
                    Err(error) => format!("{host} ({error})"),
                })
                .collect();
            let text = format!("the mons on {} were told to call an election", words.join(", "));
            let _ = told.send(Told::of(clock.now(), "nudged", None, text)).await;
        });
    }

    fn ask_peer(&self, asked: Duration, from: String, of: &[String]) {
        let of: Vec<&WatchedHost> =
            of.iter().filter(|name| **name != from).filter_map(|name| self.hosts.get(name)).collect();
        let ask = of.iter().flat_map(|host| [host.management.clone(), host.storage.clone()]).collect();
        let (probe, stream) = (Probe { ask, within: self.within }, self.streams.get(&from).map(Arc::clone));
        let names: Vec<String> = of.iter().map(|host| host.name.clone()).collect();
        let answers = self.answers.clone();
        tokio::spawn(async move {
            let seen = match stream {
                Some(stream) => stream.probe(&probe).await,
                None => None,
            };
            for (index, of) in names.into_iter().enumerate() {
                let reached = |place: usize| seen.as_ref().and_then(|seen| seen.get(2 * index + place).copied());
                let (management, storage) = (reached(0), reached(1));
                let view = Input::View { from: from.clone(), of, asked, management, storage };
                if answers.send(view).await.is_err() {
                    return;
                }
            }
        });
    }

    fn ask_bmc(&self, host: String) {
        use crate::watch::brain::Power;
        let (hands, answers) = (Arc::clone(&self.hands), self.answers.clone());
        tokio::spawn(async move {
            let power = timeout(BMC, hands.power(&host)).await.unwrap_or(Power::Unreachable);
            let _ = answers.send(Input::Power { host, power }).await;
        });
    }

    /// Does something once what announces it is written down, and hands its answer to the brain.
    fn after<F>(&self, records: Vec<oneshot::Receiver<()>>, work: impl FnOnce(Arc<dyn Hands>) -> F)
    where
        F: Future<Output = Input> + Send + 'static,
    {
        let (work, answers) = (work(Arc::clone(&self.hands)), self.answers.clone());
        tokio::spawn(async move {
            for record in records {
                // The journal ends only with the watcher itself.
                if record.await.is_err() {
                    return;
                }
            }
            let _ = answers.send(work.await).await;
        });
    }

    /// Tells people what comes about while a host is fenced or recovered.
    fn progress(&self, host: &str) -> TellProgress {
        let (told, clock, host) = (self.told.clone(), self.clock, host.to_owned());
        Arc::new(move |Progress { kind, guest, text }| {
            let _ = told.try_send(Told { guest, ..Told::of(clock.now(), kind, Some(&host), text) });
        })
    }

    fn fence(&self, host: String, verdict: Verdict, records: Vec<oneshot::Receiver<()>>) {
        let (clock, judged, tell) = (self.clock, self.clock.now(), self.progress(&host));
        self.after(records, move |hands| async move {
            // A process that slept must not act, on waking, on what was so before.
            if clock.now().saturating_sub(judged) > STALE {
                let why =
                    "the verdict is too old to act on: the watcher slept, or its journal took too long".to_owned();
                return Input::FenceFailed { host, why, nothing_done: true };
            }
            let late = || FenceFailure { why: format!("not proven within {} s", FENCE.as_secs()), nothing_done: false };
            match timeout(FENCE, hands.fence(&host, &verdict, tell)).await.unwrap_or_else(|_| Err(late())) {
                Ok(proof) => Input::FenceDone { host, proof },
                Err(FenceFailure { why, nothing_done }) => Input::FenceFailed { host, why, nothing_done },
            }
        });
    }

    fn recover(&self, host: String, records: Vec<oneshot::Receiver<()>>) {
        let tell = self.progress(&host);
        self.after(records, |hands| async move {
            let late = || format!("not through within {} s", RECOVERY.as_secs());
            match timeout(RECOVERY, hands.recover(&host, tell)).await.unwrap_or_else(|_| Err(late())) {
                Ok(done) => Input::RecoveryDone { host, started: done.started, waiting: done.waiting },
                Err(why) => Input::RecoveryFailed { host, why },
            }
        });
    }

    fn restart_guests(&self, host: String) {
        self.after(Vec::new(), |hands| async move {
            let waiting = match timeout(RECOVERY, hands.restart_guests(&host)).await {
                Ok(Ok(_)) => Vec::new(),
                Ok(Err(why)) => vec![why],
                Err(_) => vec![format!("not through within {} s", RECOVERY.as_secs())],
            };
            Input::Restarted { host, waiting }
        });
    }

    fn stop_guests(&self, host: String, records: Vec<oneshot::Receiver<()>>) {
        self.after(records, |hands| async move {
            let late = || format!("not done within {} s", FENCE.as_secs());
            match timeout(FENCE, hands.stop_guests(&host)).await.unwrap_or_else(|_| Err(late())) {
                Ok(()) => Input::GuestsStopped { host },
                Err(why) => Input::GuestsNotStopped { host, why },
            }
        });
    }

    /// Does something that the brain does not wait for; people are told what came of it, and the brain `failed` where it did.
    fn aside<F>(
        &self,
        kind: &'static str,
        host: String,
        failed: Option<Input>,
        work: impl FnOnce(Arc<dyn Hands>, String) -> F,
    ) where
        F: Future<Output = Result<String, String>> + Send + 'static,
    {
        let (work, told, clock) = (work(Arc::clone(&self.hands), host.clone()), self.told.clone(), self.clock);
        let answers = self.answers.clone();
        tokio::spawn(async move {
            let done = match timeout(RECOVERY, work).await {
                Ok(Ok(text)) => Ok(text),
                Ok(Err(why)) => Err(format!("host {host}: {why}")),
                Err(_) => Err(format!("host {host}: not done within {} s", RECOVERY.as_secs())),
            };
            if let (Err(_), Some(failed)) = (&done, failed) {
                let _ = answers.send(failed).await;
            }
            let (Ok(text) | Err(text)) = done;
            let _ = told.send(Told::of(clock.now(), kind, Some(&host), text)).await;
        });
    }

    /// A host fell silent: nothing is asked through it any more.
    pub(super) fn avoid(&self, host: &str) {
        let (hands, host) = (Arc::clone(&self.hands), host.to_owned());
        tokio::spawn(async move { hands.avoid(&host).await });
    }
}
