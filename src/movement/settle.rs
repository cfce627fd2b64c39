//! After a move, whatever came of it: both sides are looked at until it is known where the guest is.

use super::plan::Move;
use super::verdict::{Side, Verdict, judge};
use crate::guest::Rack;
use crate::libvirt::{Hypervisor, Token, VirtError};
use crate::ui::Job;
use futures::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Time between two looks.
const POLL: Duration = Duration::from_millis(200);
/// How long libvirt may take to clear up by itself. It does so at once when it can; with a silent peer, when its
/// keepalive has run out (5 s x 5 where nothing else is set).
const CLEAR_UP: Duration = Duration::from_secs(8);
/// How long a side may be silent, or a verdict be out, before the outcome is called unknown.
const PATIENCE: Duration = Duration::from_secs(40);

/// Where the guest was found in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// On the target alone.
    OnTarget,
    /// On the source alone.
    OnSource,
    /// On no host at all.
    Nowhere,
    /// On a third host, where other hands have brought it.
    Elsewhere(String),
    /// A job runs on the source: the move goes on.
    StillMoving,
    /// Nobody can tell; what each side says.
    Unknown(String),
}

impl Found {
    /// The host that has the guest, where one does and it is known.
    pub fn host<'a>(&'a self, a_move: &'a Move) -> Option<&'a str> {
        match self {
            Found::OnTarget => Some(&a_move.to),
            Found::OnSource => Some(&a_move.from),
            Found::Elsewhere(host) => Some(host),
            Found::Nowhere | Found::StillMoving | Found::Unknown(_) => None,
        }
    }
}

/// Both sides of a move, and who else could have the guest.
pub struct Sides {
    /// Where the guest ran.
    pub source: Arc<dyn Hypervisor>,
    /// Where it goes.
    pub target: Arc<dyn Hypervisor>,
    others: Vec<Arc<dyn Hypervisor>>,
}

impl Sides {
    /// The hypervisors of a move's hosts.
    ///
    /// # Errors
    /// When the inventory lacks one of them.
    pub fn of(rack: &Rack, a_move: &Move) -> Result<Self, VirtError> {
        let hosts = &rack.hypervisors;
        let others = hosts.all().filter(|h| h.host() != a_move.from && h.host() != a_move.to).cloned().collect();
        Ok(Sides { source: hosts.get(&a_move.from)?, target: hosts.get(&a_move.to)?, others })
    }

    /// What both say about the guest. The source first: the target has the guest before the source loses it, so one
    /// that neither has is on no side.
    async fn look(&self, uuid: uuid::Uuid) -> (Side, Side) {
        let source = look_at(&self.source, uuid).await.unwrap_or_else(|e| Side::Silent(e.to_string()));
        let target = match self.target.domain(uuid).await {
            Ok(domain) => Side::of(domain, false),
            Err(error) => Side::Silent(error.to_string()),
        };
        (source, target)
    }

    /// Looks until it is known where the guest is, and clears up what libvirt left behind. Where it is in doubt
    /// whether the source was asked at all, it may yet begin: only what lasts is believed then.
    pub async fn settle(&self, a_move: &Move, job: &Job, token: Token, in_doubt: bool) -> Found {
        let uuid = a_move.uuid;
        let began = Instant::now();
        let mut since = (None, began);
        loop {
            let (source, target) = self.look(uuid).await;
            let verdict = judge(&source, &target);
            if since.0 != Some(verdict) {
                since = (Some(verdict), Instant::now());
            }
            let lasts = since.1.elapsed() >= CLEAR_UP;
            let words = || format!("{} {source}; {} {target}", a_move.from, a_move.to);
            match verdict {
                Verdict::Moved => return Found::OnTarget,
                Verdict::Stayed if lasts || !in_doubt => return Found::OnSource,
                Verdict::Gone if lasts || !in_doubt => return self.elsewhere(uuid).await,
                Verdict::InTransit if matches!(source, Side::Present { job: true, .. }) => return Found::StillMoving,
                Verdict::EndTargetCopy if lasts => {
                    tracing::info!(guest = a_move.guest, host = a_move.to, "end the copy that never ran");
                    self.done(self.target.destroy(uuid, token).await);
                }
                Verdict::EndSourceCopy if lasts => {
                    tracing::info!(guest = a_move.guest, host = a_move.from, "end the copy that has handed over");
                    self.done(self.source.destroy(uuid, token).await);
                }
                Verdict::ResumeSource if lasts => match self.has_handed_over(uuid).await {
                    Ok(false) => self.done(self.source.resume(uuid, token).await),
                    Ok(true) => return Found::Unknown(too_old(a_move)),
                    Err(error) => self.done(Err(error)),
                },
                // The copy on the target took over; the one on the source has to stop writing now. It is paused, not
                // ended: what to do with it is for people to say.
                Verdict::Twice => match self.source.suspend(uuid, token).await {
                    Ok(()) => {
                        return Found::Unknown(format!("it ran on both hosts; the copy on {} was paused", a_move.from));
                    }
                    Err(error) if began.elapsed() >= PATIENCE => return Found::Unknown(still_twice(a_move, &error)),
                    Err(error) => self.done(Err(error)),
                },
                _ if began.elapsed() >= PATIENCE => return Found::Unknown(words()),
                _ => {}
            }
            job.step(format!("settles: {}", words()));
            sleep(POLL).await;
        }
    }

    /// Where a guest is that neither side has. It ended only if no host has it: its claim will be given back.
    async fn elsewhere(&self, uuid: uuid::Uuid) -> Found {
        let looks = self.others.iter().map(|other| async move { (other.host(), other.domain(uuid).await) });
        let mut silent = None;
        for (host, answer) in join_all(looks).await {
            match answer.map(|domain| Side::of(domain, false)) {
                Ok(Side::Present { .. }) => return Found::Elsewhere(host.to_owned()),
                Ok(_) => {}
                Err(error) => silent = Some(error),
            }
        }
        let ask = |error| format!("neither side has it, and a third host cannot be asked: {error}");
        silent.map_or(Found::Nowhere, |error| Found::Unknown(ask(error)))
    }

    /// Whether the source has sent all there is: from then on the target may have let the guest go on, and have written
    /// to its disk, wherever it is now.
    async fn has_handed_over(&self, uuid: uuid::Uuid) -> Result<bool, VirtError> {
        let answer = self.source.monitor(uuid, r#"{"execute":"query-migrate"}"#).await?;
        // What cannot be read is taken for the worse.
        let answer: Option<serde_json::Value> = serde_json::from_str(&answer).ok();
        Ok(answer.is_none_or(|answer| answer["return"]["status"] == "completed"))
    }

    /// The next look tells what came of it.
    fn done(&self, outcome: Result<(), VirtError>) {
        if let Err(error) = outcome {
            tracing::warn!(%error, "clearing up after a move");
        }
    }
}

fn too_old(a_move: &Move) -> String {
    let Move { from, to, guest, .. } = a_move;
    format!(
        "{from} has handed it over, and {to} does not have it any more: what stands still on {from} may be older than its \
         disk, and must not go on; end it with `rackhand guest stop --force {guest}`, then start it anew"
    )
}

fn still_twice(a_move: &Move, error: &VirtError) -> String {
    let Move { from, guest, .. } = a_move;
    format!(
        "IT RUNS ON BOTH HOSTS, and the copy on {from} cannot be paused: {error}; end it there now, with `virsh destroy {guest}`"
    )
}

/// What a source says; a job that cannot be asked for may run.
async fn look_at(source: &Arc<dyn Hypervisor>, uuid: uuid::Uuid) -> Result<Side, VirtError> {
    let Some(domain) = source.domain(uuid).await? else { return Ok(Side::Absent) };
    match source.job(uuid).await {
        Ok(job) => Ok(Side::of(Some(domain), job.migrates())),
        // It ended in between.
        Err(error) if error.no_domain() => Ok(Side::Absent),
        Err(error) => Err(error),
    }
}

impl std::fmt::Debug for Sides {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sides({} -> {})", self.source.host(), self.target.host())
    }
}
