//! Settling a claim that was found half-way: one function for starts, stops and moves.
//!
//! The rules of claims and of what is asked of hosts. `g` is the claim's generation; every write of a claim makes it
//! `g + 1`; every request carries the `g` of the claim it stands on, and a host refuses what is below its floor, which
//! is the highest `g` it has seen (see `libvirt::Hypervisor`). A floor is never above the generation of the claim.
//!
//! Start, of a claim that is free (or `running` on a host that answers without the guest):
//!  1. swap exactly what was read for `starting on h`; 2. create(g, h), paused, within the claim's window;
//!  3. read the claim: it must be the very one of step 1, else what was made is ended (it names `h` no more) or left;
//!  4. resume(g, h); 5. look; 6. swap exactly the claim of step 1 for `running on h`.
//!
//! A create that was never sent frees the claim; any other failure settles it (below) without waiting.
//!
//! Move, of a claim `running on a`:
//!  1. swap for `moving a -> b`; 2. revoke(g, b), which must not have the guest; 3. migrate(g, a) within the window;
//!  4. look at `a`, then at `b`, again and again, until [`judge`] says where the guest is:
//!     moved: swap exactly the claim of step 1 (or 5) for `running on b`;
//!     stayed or gone: believed only after 5;
//!     a copy left over, for 8 s: read the claim, which must be ours, then destroy(g), resume(g) or suspend(g) it;
//!     one side silent, or no verdict for 40 s: unknown, the claim goes on naming both.
//!  5. revoke before believing: swap the claim for itself (same hosts, g + 1), revoke(g + 1, a), and look again.
//!
//! A request that was never sent writes `running on a` without looking.
//!
//! Settling another run's claim:
//!  `moving`, and seen on `b` alone: swap exactly what was read for `running on b`. A job runs: it is followed.
//!  Else: 1. wait until it was seen unchanged for 90 s (5 s when its writer is a dead process of this machine; not at all
//!  for `stop --force`); 2. take over in place: swap exactly it for itself, same hosts, g + 1;
//!  3. revoke(g + 1) and look, on each host it names, the source first; one that cannot be asked stays named, and nothing
//!  else is done; 4. `starting`: nothing there: free; running: `running on h`; paused: it is ours to resume(g + 1), or end;
//!  `moving`: as step 4 of a move.
//!
//! Stop: destroy(g) with the claim that was read (a pending one is taken over first when forced); once it was seen gone,
//! swap exactly that claim for a free one.

use super::claim::{self, Claim, Phase, Run, Swap};
use super::domain_inventory::may_run;
use super::guest_context::GuestContext;
use super::sides::{Sides, Third};
use super::verdict::{Lone, Side, StartVerdict, Verdict, judge, judge_beside_a_fence, judge_start};
use crate::cluster::ClusterError;
use crate::error::{Failure, Kind};
use crate::fence::{self, Fences};
use crate::libvirt::VirtError;
use crate::ui::{CancelLevel, Job};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// Time between two looks.
const POLL: Duration = Duration::from_millis(200);
/// How long libvirt may take to clear up by itself. It does so at once when it can; with a silent peer, when its
/// keepalive has run out (5 s x 5 where nothing else is set).
const CLEAR_UP: Duration = Duration::from_secs(8);
/// How long a side may be silent, or a verdict be out, before the outcome is called unknown.
const PATIENCE: Duration = Duration::from_secs(40);
/// The same once the operator wants to get away.
const HURRIED: Duration = Duration::from_secs(10);
/// How long the cluster may be out of reach while an outcome is to be written down.
const WRITE_DOWN: Duration = Duration::from_secs(30);

/// What is left to a claim's writer before it is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Courtesy {
    /// The time in which it may still act.
    Wait,
    /// None: the operator insists, or it is our own.
    None,
}

/// What a claim came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is another one by now: look again.
    Changed,
    /// No host has the guest; its claim is free.
    Free,
    /// The guest is on this host, and its claim says so.
    Runs(String),
    /// The guest was made on the host of this claim, which is ours now, and stands still until it is let go on.
    Made(Claim),
    /// A job of the source moves it; the claim to go on with.
    Moves(Claim),
}

/// One guest whose claim is settled.
#[derive(Clone, Debug)]
pub struct Settlement<'a> {
    /// The cluster and its hosts.
    pub rack: &'a GuestContext,
    /// Its id.
    pub guest: Uuid,
    /// Its name.
    pub name: &'a str,
    /// How this operation signs.
    pub run: &'a Run,
    /// Where progress is told.
    pub job: &'a Job,
    /// How much of a hurry the operator is in.
    pub cancel_level: watch::Receiver<CancelLevel>,
}

impl Settlement<'_> {
    /// Settles a claim that is `starting` or `moving`, and was written by another operation.
    ///
    /// # Errors
    /// A refusal where a host of a start does not answer; an unknown outcome where it cannot be told where the guest is:
    /// the claim goes on naming its hosts then.
    pub async fn settle(&self, seen: &Claim, courtesy: Courtesy) -> Result<Settled, Failure> {
        match (seen.phase, &seen.host, &seen.target) {
            (Phase::Moving, Some(from), Some(to)) => {
                let sides = Sides::of(self.rack, from, to)?;
                let fences = fence::standing(self.rack.port()).await?;
                if fences.has(from) || fences.has(to) {
                    return self.settle_beside_a_fence(&sides, seen, &fences).await;
                }
                match self.first_look(&sides, seen, courtesy).await? {
                    First::Settled(settled) => Ok(settled),
                    First::Open(courtesy) => self.settle_move(&sides, seen, courtesy).await,
                }
            }
            (Phase::Starting, Some(host), _) => {
                match self.outlast(seen, self.courtesy_at(host, courtesy).await?).await? {
                    Some(mine) => self.settle_start(mine).await,
                    None => Ok(Settled::Changed),
                }
            }
            _ => Ok(Settled::Changed),
        }
    }

    /// Waits until the claim's writer cannot act on it any more, and takes it over in place; `None` when it has changed.
    async fn outlast(&self, seen: &Claim, courtesy: Courtesy) -> Result<Option<Claim>, Failure> {
        if courtesy == Courtesy::Wait && self.wait(seen).await? != *seen {
            return Ok(None);
        }
        self.take_over(seen).await
    }

    /// Makes exactly this claim ours: same hosts, one generation on. From now on its writer is refused wherever the floor
    /// is raised.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub(super) async fn take_over(&self, seen: &Claim) -> Result<Option<Claim>, Failure> {
        let mine = seen.taken_over(self.run);
        let swapped = claim::swap(self.rack.port(), self.guest, seen, &mine).await?;
        Ok((swapped == Swap::Ours).then_some(mine))
    }

    /// Waits until another run's claim has changed, or cannot be acted on any more; given up at the first interruption.
    async fn wait(&self, seen: &Claim) -> Result<Claim, Failure> {
        let told = |claim: &Claim, left: Duration| {
            self.job.step(format!("waits up to {} s for {}", left.as_secs() + 1, claim.by));
        };
        let mut cancel_level = self.cancel_level.clone();
        tokio::select! {
            biased;
            Ok(_) = cancel_level.wait_for(|cancel_level| *cancel_level != CancelLevel::None) => {
                Err(Failure::msg(Kind::Interrupted, format!("interrupted while {} works on it", seen.by)))
            }
            claim = claim::wait_out(self.rack.port(), self.guest, seen.clone(), told) => Ok(claim?),
        }
    }

    /// Settles a start whose claim is ours by now: looks on its host after older requests were revoked there.
    pub(super) async fn settle_start(&self, mine: Claim) -> Result<Settled, Failure> {
        let Some(host) = mine.host.clone() else { return Ok(Settled::Changed) };
        if fence::standing(self.rack.port()).await?.has(&host) {
            return self.write(&mine, None).await;
        }
        let domain = match self.rack.hypervisors.get(&host)?.revoke(self.guest, mine.token()).await {
            Ok(domain) => domain,
            Err(error) if error.stale() => return Ok(Settled::Changed),
            Err(error) => return Err(may_run(&host, &error.to_string())),
        };
        match judge_start(domain.as_ref()) {
            StartVerdict::Nothing => self.write(&mine, None).await,
            StartVerdict::Runs => self.write(&mine, Some(&host)).await,
            StartVerdict::Made => Ok(Settled::Made(mine)),
        }
    }

    /// Nobody has to be waited for who can only act on a host that is fenced.
    async fn courtesy_at(&self, host: &str, courtesy: Courtesy) -> Result<Courtesy, Failure> {
        let fenced = courtesy == Courtesy::Wait && fence::standing(self.rack.port()).await?.has(host);
        Ok(if fenced { Courtesy::None } else { courtesy })
    }

    /// Settles a move of which one side is fenced, or both: what a fenced host has does not count, so the other one tells
    /// alone where the guest is (rule R10).
    async fn settle_beside_a_fence(&self, sides: &Sides, seen: &Claim, fences: &Fences) -> Result<Settled, Failure> {
        let Some(mine) = self.take_over(seen).await? else { return Ok(Settled::Changed) };
        let side = match (fences.get(sides.source.host()), fences.get(sides.target.host())) {
            (Some(_), Some(_)) => return self.write(&mine, None).await,
            (Some(source), None) => {
                // What waits in the fenced host's libvirt would bring old memory here, however late.
                let target = self.rack.fleet.get(sides.target.host())?;
                fence::close_gate(target.as_ref(), source.proof.addresses()).await?;
                &sides.target
            }
            _ => &sides.source,
        };
        let (host, began) = (side.host().to_owned(), Instant::now());
        loop {
            let domain = match side.revoke(self.guest, mine.token()).await {
                Ok(domain) => domain,
                Err(error) if error.stale() => return Ok(Settled::Changed),
                Err(error) => return Err(may_run(&host, &error.to_string())),
            };
            let source = fences.has(sides.target.host());
            let (handed_over, moves) = match self.leaves(sides, source && domain.is_some()).await {
                Ok(seen) => seen,
                // The only copy that is well is neither ended nor believed to stay on a guess.
                Err(error) if began.elapsed() > PATIENCE => return Err(self.unknown(error.to_string())),
                Err(error) => {
                    self.job.step(format!("looks at {host}: {error}"));
                    sleep(POLL).await;
                    continue;
                }
            };
            match judge_beside_a_fence(domain.as_ref(), source, handed_over) {
                Lone::Gone => return self.write(&mine, None).await,
                // It has nowhere to go, and must not be believed to stay while it may still leave.
                Lone::Stays if moves => {
                    if began.elapsed() > PATIENCE {
                        return Err(self.unknown(format!("its move away from {host} cannot be aborted")));
                    }
                    if let Err(error) = side.abort_job(self.guest).await {
                        self.job.step(format!("aborts its move away from {host}: {error}"));
                    }
                }
                Lone::Stays => return self.write(&mine, Some(&host)).await,
                Lone::Ends if began.elapsed() > PATIENCE => {
                    return Err(self.unknown(format!("its copy on {host} does not end")).hint(self.end_and_start()));
                }
                Lone::Ends => match side.destroy(self.guest, mine.token()).await {
                    Err(error) if error.stale() => return Ok(Settled::Changed),
                    Ok(()) => {}
                    Err(error) => self.job.step(format!("ends the copy on {host}: {error}")),
                },
            }
            sleep(POLL).await;
        }
    }

    /// Of the source of a move: whether it has sent all there was, and whether it is still at it.
    async fn leaves(&self, sides: &Sides, source: bool) -> Result<(bool, bool), VirtError> {
        if !source {
            return Ok((false, false));
        }
        let moves = sides.source.job(self.guest).await?.migrates();
        Ok((sides.has_handed_over(self.guest).await?, moves))
    }

    /// What needs no waiting: a guest that has arrived, or is on its way; one that runs twice.
    async fn first_look(&self, sides: &Sides, seen: &Claim, courtesy: Courtesy) -> Result<First, Failure> {
        let (source, target) = sides.look(self.guest).await;
        let verdict = judge(&source, &target);
        Ok(match verdict {
            Verdict::Moved => First::Settled(self.write(seen, Some(sides.target.host())).await?),
            Verdict::InTransit if matches!(source, Side::Present { job: true, .. }) && courtesy == Courtesy::Wait => {
                First::Settled(Settled::Moves(seen.clone()))
            }
            // The copy on the source has to stop writing now.
            Verdict::Twice => First::Open(Courtesy::None),
            // Nothing can be revoked on a host that does not answer.
            Verdict::Unknown if [&source, &target].iter().any(|side| matches!(side, Side::Silent(_))) => {
                return Err(self.stuck(sides, (&source, &target), verdict, None));
            }
            _ => First::Open(courtesy),
        })
    }

    async fn settle_move(&self, sides: &Sides, seen: &Claim, courtesy: Courtesy) -> Result<Settled, Failure> {
        let Some(mine) = self.outlast(seen, courtesy).await? else { return Ok(Settled::Changed) };
        for side in [&sides.source, &sides.target] {
            match side.revoke(self.guest, mine.token()).await {
                Ok(_) => {}
                Err(error) if error.stale() => return Ok(Settled::Changed),
                Err(error) => {
                    let host = side.host();
                    return Err(self
                        .unknown(format!("what was asked of {host} before cannot be revoked: {error}"))
                        .hint(format!("bring {host} back; then run the same command again")));
                }
            }
        }
        self.resolve(sides, mine, true).await
    }

    /// Finds out what came of a move whose claim is ours, clears up what libvirt left behind, and writes down where the
    /// guest is. `revoked`: whether the source refuses whatever was asked before.
    ///
    /// # Errors
    /// An unknown outcome where it cannot be told: both places stay named.
    pub async fn resolve(&self, sides: &Sides, mut mine: Claim, mut revoked: bool) -> Result<Settled, Failure> {
        let began = Instant::now();
        let (mut since, mut taken, mut obstacle) = ((None, began), revoked, None);
        loop {
            let (source, target) = sides.look(self.guest).await;
            let verdict = judge(&source, &target);
            if since.0 != Some(verdict) {
                since = (Some(verdict), Instant::now());
            }
            let lasts = since.1.elapsed() >= CLEAR_UP;
            match verdict {
                Verdict::Moved => return self.write(&mine, Some(sides.target.host())).await,
                Verdict::Stayed if revoked => return self.write(&mine, Some(sides.source.host())).await,
                Verdict::Gone if revoked => return self.gone(sides, &mine).await,
                Verdict::InTransit if matches!(source, Side::Present { job: true, .. }) => {
                    return Ok(Settled::Moves(mine));
                }
                _ => {}
            }
            if began.elapsed() >= self.patience() {
                return Err(self.stuck(sides, (&source, &target), verdict, obstacle));
            }
            match verdict {
                Verdict::Stayed | Verdict::Gone => {
                    if !taken {
                        let Some(again) = self.take_over(&mine).await? else { return Ok(Settled::Changed) };
                        (mine, taken) = (again, true);
                    }
                    match sides.source.revoke(self.guest, mine.token()).await {
                        Ok(_) => {
                            revoked = true;
                            continue;
                        }
                        Err(error) if error.stale() => return Ok(Settled::Changed),
                        Err(error) => obstacle = Some(error),
                    }
                }
                act if lasts || act == Verdict::Twice => match self.act(sides, act, &mine).await? {
                    Acted::Done(error) => obstacle = error,
                    Acted::Changed => return Ok(Settled::Changed),
                },
                _ => {}
            }
            self.job.step(format!("settles: {}", words(sides, &source, &target)));
            sleep(POLL).await;
        }
    }

    fn patience(&self) -> Duration {
        if *self.cancel_level.borrow() == CancelLevel::Abort { HURRIED } else { PATIENCE }
    }

    /// Clears up what libvirt has not, as long as the claim is ours. The next look tells what came of it.
    async fn act(&self, sides: &Sides, verdict: Verdict, mine: &Claim) -> Result<Acted, Failure> {
        let acts = [Verdict::EndTargetCopy, Verdict::EndSourceCopy, Verdict::ResumeSource, Verdict::Twice];
        if !acts.contains(&verdict) {
            return Ok(Acted::Done(None));
        }
        if claim::read(self.rack.port(), self.guest).await? != *mine {
            return Ok(Acted::Changed);
        }
        let (source, target, uuid, token) = (&sides.source, &sides.target, self.guest, mine.token());
        let outcome = match verdict {
            Verdict::EndTargetCopy => target.destroy(uuid, token).await,
            Verdict::EndSourceCopy => source.destroy(uuid, token).await,
            // What has handed over ends, it never goes on.
            Verdict::ResumeSource => match sides.has_handed_over(uuid).await {
                Ok(true) => return Err(self.unknown(handed_over(sides)).hint(self.end_and_start())),
                Ok(false) => source.resume(uuid, token).await,
                Err(error) => Err(error),
            },
            // The copy on the target took over; the one on the source has to stop writing now. It is paused, not ended:
            // what to do with it is for people to say.
            _ => match source.suspend(uuid, token).await {
                Ok(()) => {
                    let text = format!("it ran on both hosts; the copy on {} was paused", source.host());
                    return Err(self.unknown(text).hint(format!(
                        "look at what each wrote; then end it with `virsh destroy {}` on {}",
                        self.guest,
                        source.host()
                    )));
                }
                Err(error) => Err(error),
            },
        };
        match outcome {
            Err(error) if error.stale() => Ok(Acted::Changed),
            Err(error) => {
                tracing::warn!(%error, guest = self.name, ?verdict, "clearing up after a move");
                Ok(Acted::Done(Some(error)))
            }
            Ok(()) => {
                tracing::info!(guest = self.name, ?verdict, "cleared up after a move");
                Ok(Acted::Done(None))
            }
        }
    }

    /// A guest that neither side has: its claim is freed only if no host has it.
    async fn gone(&self, sides: &Sides, mine: &Claim) -> Result<Settled, Failure> {
        match sides.elsewhere(self.guest).await {
            Third::Nowhere => self.write(mine, None).await,
            Third::Here(host) => self.write(mine, Some(&host)).await,
            Third::Silent(error) => {
                Err(self.unknown(format!("neither side has it, and a third host cannot be asked: {error}")))
            }
        }
    }

    /// Writes where the guest is over exactly the claim that was followed. Tries again while the cluster is out of reach.
    ///
    /// # Errors
    /// An unknown outcome where that cannot be done.
    pub async fn write(&self, followed: &Claim, host: Option<&str>) -> Result<Settled, Failure> {
        let next = host.map_or_else(|| followed.freed(), |host| followed.running(host));
        let until = Instant::now() + WRITE_DOWN;
        let swapped = loop {
            match claim::swap(self.rack.port(), self.guest, followed, &next).await {
                Ok(swapped) => break swapped,
                Err(error) if Instant::now() >= until => return Err(self.unwritten(host, &error)),
                Err(error) => tracing::info!(%error, guest = self.name, "writing the claim again"),
            }
            sleep(Duration::from_millis(500)).await;
        };
        let told = host.map_or(Settled::Free, |host| Settled::Runs(host.to_owned()));
        Ok(match swapped {
            Swap::Ours => told,
            // Another run has settled it to the same end.
            Swap::Theirs(theirs) if theirs.phase == next.phase && theirs.host == next.host => told,
            Swap::Theirs(_) => Settled::Changed,
        })
    }

    fn unwritten(&self, host: Option<&str>, error: &ClusterError) -> Failure {
        let found = host.map_or_else(|| "it runs nowhere".to_owned(), |host| format!("it runs on {host}"));
        self.unknown(format!("{found}, but that could not be written down: {error}"))
            .hint("run the same command again: it looks before it acts")
    }

    fn unknown(&self, text: String) -> Failure {
        Failure::msg(Kind::Unknown, text)
    }

    /// What is said of a move that comes to no verdict.
    fn stuck(&self, sides: &Sides, both: (&Side, &Side), verdict: Verdict, obstacle: Option<VirtError>) -> Failure {
        let (source, target) = both;
        let all = words(sides, source, target);
        let text = match (verdict, obstacle) {
            (Verdict::Twice, Some(error)) => {
                let (from, uuid) = (sides.source.host(), self.guest);
                format!(
                    "IT RUNS ON BOTH HOSTS, and the copy on {from} cannot be paused: {error}; end it there now, with `virsh destroy {uuid}`"
                )
            }
            (_, Some(error)) => format!("{all}; {error}"),
            (_, None) => all,
        };
        let failure = self.unknown(text);
        match (source, target) {
            (Side::Silent(_), _) => {
                failure.hint(format!("bring {} back; then run the same command again", sides.source.host()))
            }
            (_, Side::Silent(_)) => {
                failure.hint(format!("bring {} back; then run the same command again", sides.target.host()))
            }
            (Side::Mute(_), _) | (_, Side::Mute(_)) => failure.hint(self.end_and_start()),
            _ if verdict == Verdict::Twice => failure,
            _ => failure.hint(self.end_and_start()),
        }
    }

    fn end_and_start(&self) -> String {
        let name = self.name;
        format!(
            "end it with `rackhand guest stop --force {name}`, then start it anew with `rackhand guest start {name}`"
        )
    }
}

/// What a first look at a move came to.
enum First {
    /// Nothing is left to do.
    Settled(Settled),
    /// It has to be taken over.
    Open(Courtesy),
}

/// What became of clearing up.
enum Acted {
    /// It was tried; what stood in the way.
    Done(Option<VirtError>),
    /// The claim is another one by now: nothing was done.
    Changed,
}

fn words(sides: &Sides, source: &Side, target: &Side) -> String {
    format!("{} {source}; {} {target}", sides.source.host(), sides.target.host())
}

fn handed_over(sides: &Sides) -> String {
    let (from, to) = (sides.source.host(), sides.target.host());
    format!(
        "{from} has handed it over, and {to} does not have it any more: what stands still on {from} may be older than its \
         disk, and must not go on"
    )
}
