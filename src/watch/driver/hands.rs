//! What the watch does to the rack: the seam between the driver and fencing, recovery and movement.

use crate::watch::brain::{Event, Power, Verdict};
use async_trait::async_trait;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// A fence that is not proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FenceFailure {
    /// Why.
    pub why: String,
    /// Whether it is certain that nothing was changed.
    pub nothing_done: bool,
}

/// Something that came about while hands were at work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What kind of thing, in a word.
    pub kind: &'static str,
    /// The guest it is about, if it is about one.
    pub guest: Option<String>,
    /// It, in a sentence.
    pub text: String,
}

/// Is told what comes about on the way; also of what goes on after the call has ended.
pub type TellProgress = Arc<dyn Fn(Progress) + Send + Sync>;

/// What came of a recovery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Guests that run again.
    pub started: usize,
    /// Guests that do not, each with the reason.
    pub waiting: Vec<String>,
}

/// What the watcher makes of the rack, as far as single guests depend on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether this watcher leads, and may act.
    pub acts: bool,
    /// Hosts that beat and do their work, and about which nothing is being done.
    pub well: BTreeSet<String>,
}

/// Does to the rack what the brain asks for. All of it may be asked for again, and finishes what was begun.
#[async_trait]
pub trait Hands: Send + Sync {
    /// Shuts a host out; the proof, in words.
    async fn fence(&self, host: &str, verdict: &Verdict, tell: TellProgress) -> Result<String, FenceFailure>;
    /// Starts the guests of a fenced host elsewhere.
    async fn recover(&self, host: &str, tell: TellProgress) -> Result<Recovered, String>;
    /// Stops all guests of a host over SSH and proves that none runs.
    async fn stop_guests(&self, host: &str) -> Result<(), String>;
    /// Starts again what should run on a host that was booted anew.
    async fn restart_guests(&self, host: &str) -> Result<String, String>;
    /// Moves the guests of a slow host away.
    async fn drain(&self, host: &str) -> Result<String, String>;
    /// Starts a host's libvirt anew.
    async fn mend_libvirt(&self, host: &str) -> Result<String, String>;
    /// Asks a host's BMC for its power.
    async fn power(&self, host: &str) -> Power;
    /// A host fell silent: nothing is asked through it any more as long as another one answers.
    async fn avoid(&self, host: &str);
    /// Looks after guests that end alone, for as long as the watcher says how it stands; tells what happens to them.
    async fn care(&self, _standing: watch::Receiver<Standing>, _news: mpsc::Sender<Event>) {}
}
