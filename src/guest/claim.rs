//! Who may run a guest: one state object a guest, changed by compare-and-swap.
//!
//! The rules that keep a guest from running twice; `settlement.rs` has the order of steps.
//!
//! * Nothing starts or moves a guest without having written a claim, and a claim is written only over the very version
//!   that was read.
//! * Every write makes its generation one higher. What is asked of a host carries the generation of the claim it stands
//!   on, and the host refuses what is older than the highest one it has seen.
//! * A `starting` or `moving` claim of another operation is left alone until it was watched unchanged for [`TAKE_OVER`].
//!   Then it is taken over in place, older requests are revoked on each of its hosts, and those are looked at. Only then
//!   it is freed or goes elsewhere; a host that cannot be asked stays named.
//! * What a start has made stands still until its claim was read once more.

use crate::cluster::{ClusterError, ClusterPort, Document, Unread, decode, update};
use crate::libvirt::Token;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

pub use crate::libvirt::Window;

/// How long a claim of somebody else has to be seen unchanged before it is worth nothing: the window, and the
/// longest a request may wait for its turn before it is sent or given up (60 s for a start, less for a move).
pub const TAKE_OVER: Duration = Duration::from_secs(90);

/// The same, when its writer was a process of this machine that is gone: what it sent has arrived by then.
const TAKE_OVER_DEAD: Duration = Duration::from_secs(5);

/// What the names of claims begin with.
const PREFIX: &str = "claim.";
/// Time between two looks at a claim that is waited out.
const LOOK: Duration = Duration::from_millis(300);

/// What the claim's holder is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Nobody runs it.
    #[default]
    Free,
    /// It is being started on `host`.
    Starting,
    /// It was seen running on `host`.
    Running,
    /// It is on its way from `host` to `target`: it may run on either.
    Moving,
}

/// Who may run a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Claim {
    /// Grows with each write: hosts refuse what is asked on behalf of an older one.
    pub generation: u64,
    /// What the holder is doing.
    pub phase: Phase,
    /// The host it may run on.
    #[serde(default)]
    pub host: Option<String>,
    /// The other host it may run on, while it moves.
    #[serde(default)]
    pub target: Option<String>,
    /// The host it ran on last; the network may still look for it there.
    #[serde(default)]
    pub last: Option<String>,
    /// When the guest was started; a move does not change it.
    #[serde(default)]
    pub started: Option<jiff::Timestamp>,
    /// The run that wrote it.
    #[serde(default)]
    pub run: String,
    /// Who wrote it, for people.
    #[serde(default)]
    pub by: String,
    /// The process that wrote it, so that its own machine can tell whether it still lives.
    #[serde(default)]
    pub process: String,
}

impl Document for Claim {
    const SCHEMA: &'static str = "rackhand.claim/1";
}

impl Claim {
    /// The state object of a guest's claim.
    pub fn object(uuid: Uuid) -> String {
        format!("{PREFIX}{uuid}")
    }

    /// What requests that stand on this claim carry.
    pub fn token(&self) -> Token {
        Token::new(self.generation)
    }

    /// The hosts it may run on.
    pub fn places(&self) -> impl Iterator<Item = &str> {
        [&self.host, &self.target].into_iter().flatten().map(String::as_str)
    }

    /// A claim for a start on a host, after this one.
    #[must_use]
    pub fn starting(&self, host: &str, run: &Run) -> Claim {
        Claim {
            generation: self.generation + 1,
            phase: Phase::Starting,
            host: Some(host.to_owned()),
            target: None,
            last: self.host.clone().or_else(|| self.last.clone()),
            started: None,
            run: run.id.clone(),
            by: run.by.clone(),
            process: run.process.clone(),
        }
    }

    /// The same claim in other hands: where the guest may be stays as it is.
    #[must_use]
    pub fn taken_over(&self, run: &Run) -> Claim {
        Claim {
            generation: self.generation + 1,
            run: run.id.clone(),
            by: run.by.clone(),
            process: run.process.clone(),
            ..self.clone()
        }
    }

    /// The claim of a guest that was seen running on a host.
    #[must_use]
    pub fn running(&self, host: &str) -> Claim {
        Claim {
            generation: self.generation + 1,
            phase: Phase::Running,
            host: Some(host.to_owned()),
            target: None,
            ..self.clone()
        }
    }

    /// The claim of a guest that was seen gone everywhere it might run.
    #[must_use]
    pub fn freed(&self) -> Claim {
        // What was starting there never ran there.
        let ran = self.host.clone().filter(|_| self.phase != Phase::Starting);
        let last = ran.or_else(|| self.last.clone());
        Claim {
            generation: self.generation + 1,
            phase: Phase::Free,
            last,
            host: None,
            target: None,
            started: None,
            ..self.clone()
        }
    }

    /// The claim of a guest that is moved between two hosts.
    #[must_use]
    pub fn moving(&self, from: &str, to: &str, run: &Run) -> Claim {
        Claim {
            generation: self.generation + 1,
            phase: Phase::Moving,
            host: Some(from.to_owned()),
            target: Some(to.to_owned()),
            last: self.last.clone(),
            started: self.started,
            run: run.id.clone(),
            by: run.by.clone(),
            process: run.process.clone(),
        }
    }
}

/// This run of the tool, as it signs claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Unique.
    pub id: String,
    /// The operator, for people.
    pub by: String,
    /// This process: boot and process namespace, number, start time.
    pub process: String,
}

impl Run {
    /// A new one.
    pub fn new() -> Self {
        let user = std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned());
        let host = nix::unistd::gethostname().map(|h| h.to_string_lossy().into_owned()).unwrap_or_default();
        let pid = std::process::id();
        let process = i32::try_from(pid).ok().and_then(process).unwrap_or_default();
        Run { id: Uuid::new_v4().to_string(), by: format!("{user}@{host} (process {pid})"), process }
    }

    /// One operation of this run: of two that go on side by side, each knows its own claims.
    #[must_use]
    pub fn operation(&self) -> Run {
        Run { id: Uuid::new_v4().to_string(), ..self.clone() }
    }
}

impl Default for Run {
    fn default() -> Self {
        Self::new()
    }
}

/// Where process numbers mean the same processes: a boot of a machine, and a process namespace of it (containers share
/// the former). Without blanks or colons.
fn realm() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
    let number: String = namespace.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
    Some(format!("{}/{number}", boot.trim()))
}

/// A process of this realm, told apart from others that get its number later.
fn process(pid: i32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold blanks; `starttime` is the 20th field after it.
    let start = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.to_owned();
    Some(format!("{}:{pid}:{start}", realm()?))
}

/// Whether a process that wrote a claim is known to be gone: it was one of this realm, and there is none of its number
/// or another one. One that may not be looked at (`hidepid`) is still there.
fn known_gone(written_by: &str) -> bool {
    let mut parts = written_by.split(':');
    let (Some(theirs), Some(Ok(pid))) = (parts.next(), parts.next().map(str::parse::<i32>)) else { return false };
    if realm().as_deref() != Some(theirs) {
        return false;
    }
    match nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None) {
        Err(nix::errno::Errno::ESRCH) => true,
        _ => process(pid).is_some_and(|now| now != written_by),
    }
}

/// Waits until a start (or move) of somebody else has ended, or cannot happen any more; tells the claim then.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn wait_out(
    port: &dyn ClusterPort,
    uuid: Uuid,
    seen: Claim,
    waiting: impl Fn(&Claim, Duration),
) -> Result<Claim, ClusterError> {
    let began = tokio::time::Instant::now();
    loop {
        let now = read(port, uuid).await?;
        let pending = matches!(now.phase, Phase::Starting | Phase::Moving);
        if now != seen || !pending {
            return Ok(now);
        }
        let enough = if known_gone(&now.process) { TAKE_OVER_DEAD } else { TAKE_OVER };
        let Some(left) = enough.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) else {
            return Ok(now);
        };
        waiting(&now, left);
        tokio::time::sleep(left.min(LOOK)).await;
    }
}

/// Reads a guest's claim; a guest never started has an empty one.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn read(port: &dyn ClusterPort, uuid: Uuid) -> Result<Claim, ClusterError> {
    Ok(crate::cluster::fetch(port, &Claim::object(uuid)).await?.map(|(claim, _)| claim).unwrap_or_default())
}

/// All claims, by guest. A guest that has none has never been started.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn all(port: &dyn ClusterPort) -> Result<BTreeMap<Uuid, Claim>, ClusterError> {
    Ok(readable(port).await?.0)
}

/// All claims by guest, and those that cannot be read: such a guest is left alone by all that would change its claim.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn readable(port: &dyn ClusterPort) -> Result<(BTreeMap<Uuid, Claim>, Vec<Unread>), ClusterError> {
    let (mut claims, mut unread) = (BTreeMap::new(), Vec::new());
    for object in port.list(PREFIX).await? {
        let Some(uuid) = object.name.strip_prefix(PREFIX).and_then(|u| u.parse().ok()) else { continue };
        match decode(&object.name, &object.data) {
            Ok(claim) => drop(claims.insert(uuid, claim)),
            Err(error) => unread.push(Unread { object: object.name, why: error.to_string() }),
        }
    }
    Ok((claims, unread))
}

/// Replaces a claim by another one if it still is `seen`; tells what is there afterwards and whether it is ours.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn swap(port: &dyn ClusterPort, uuid: Uuid, seen: &Claim, next: &Claim) -> Result<Swap, ClusterError> {
    update(port, &Claim::object(uuid), |found: Option<Claim>| {
        let there = found.clone().unwrap_or_default();
        // Ours already, when an earlier try got through although its answer was lost.
        let ours = there == *seen || there == *next;
        Ok(if ours { (Some(next.clone()), Swap::Ours) } else { (found, Swap::Theirs(there)) })
    })
    .await
}

/// What became of an exchange of claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swap {
    /// Ours is there now.
    Ours,
    /// Somebody else was quicker, with this.
    Theirs(Claim),
}

/// Removes the claim of a guest that is deleted.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn forget(port: &dyn ClusterPort, uuid: Uuid) -> Result<(), ClusterError> {
    update(port, &Claim::object(uuid), |_: Option<Claim>| Ok((None, ()))).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::FakeCluster;

    fn run(id: &str) -> Run {
        Run { id: id.into(), by: "me".into(), process: String::new() }
    }

    #[tokio::test]
    async fn of_two_claims_over_the_same_one_is_ours() {
        let port = FakeCluster::new();
        let uuid = Uuid::nil();
        let seen = read(&port, uuid).await.unwrap();
        let (a, b) = (seen.starting("h1", &run("a")), seen.starting("h2", &run("b")));
        assert_eq!(swap(&port, uuid, &seen, &a).await.unwrap(), Swap::Ours);
        assert_eq!(swap(&port, uuid, &seen, &b).await.unwrap(), Swap::Theirs(a.clone()));
        assert_eq!(read(&port, uuid).await.unwrap(), a);
    }

    #[test]
    fn a_freed_claim_remembers_where_the_guest_ran() {
        let claim = Claim::default().starting("h1", &run("a")).running("h1").freed();
        assert_eq!((claim.phase, claim.last.as_deref(), claim.generation), (Phase::Free, Some("h1"), 3));
        assert_eq!(claim.starting("h2", &run("a")).last.as_deref(), Some("h1"));
    }

    #[test]
    fn only_a_process_of_this_realm_that_is_gone_is_known_to_be_gone() {
        let me = Run::new().process;
        assert!(!known_gone(&me));
        assert!(!known_gone(""));
        assert!(!known_gone("another-boot:1:1"));
        let (realm, pid) = me.rsplit_once(':').unwrap().0.rsplit_once(':').unwrap();
        // Another process got its number; no process has it (2^22 is the highest there is).
        assert!(known_gone(&format!("{realm}:{pid}:1")));
        assert!(known_gone(&format!("{realm}:1073741824:1")));
        assert!(!known_gone(&format!("{realm}0:1073741824:1")), "another container of this machine");
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_of_somebody_far_away_is_waited_out_in_full() {
        let port = FakeCluster::new();
        let uuid = Uuid::nil();
        let seen = Claim::default().starting("h1", &run("a"));
        swap(&port, uuid, &Claim::default(), &seen).await.unwrap();
        let began = tokio::time::Instant::now();
        assert_eq!(wait_out(&port, uuid, seen.clone(), |_, _| ()).await.unwrap(), seen);
        assert!(began.elapsed() >= TAKE_OVER);
    }

    #[test]
    fn a_moving_guest_may_be_at_both_places() {
        let claim = Claim::default().running("h1").moving("h1", "h2", &run("a"));
        assert_eq!(claim.places().collect::<Vec<_>>(), ["h1", "h2"]);
        assert_eq!(claim.running("h2").places().collect::<Vec<_>>(), ["h2"]);
    }
}
