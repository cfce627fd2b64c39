//! Whom the watcher tells what happens, and shows how it is.

use crate::watch::brain::{Event, Phase, State, Verdict, Witnessed};
use crate::watch::witness::Work;
use std::time::Duration;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// When, since the watcher began.
    pub at: Duration,
    /// What kind of thing, in a word.
    pub kind: String,
    /// The host it is about, if it is about one.
    pub host: Option<String>,
    /// The guest it is about, if it is about one of that host.
    pub guest: Option<String>,
    /// It, in a sentence.
    pub text: String,
    /// What it stands on, a line a witness.
    pub evidence: Vec<String>,
}

impl Told {
    /// An event of the brain.
    pub(super) fn event(at: Duration, event: &Event) -> Self {
        let kind = serde_json::to_value(event.kind).ok();
        let kind = kind.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
        Told { at, kind, host: event.host.clone(), guest: None, text: event.text.clone(), evidence: Vec::new() }
    }

    /// Something that the driver did.
    pub(super) fn of(at: Duration, kind: &str, host: Option<&str>, text: impl Into<String>) -> Self {
        let (kind, host, text) = (kind.to_owned(), host.map(str::to_owned), text.into());
        Told { at, kind, host, guest: None, text, evidence: Vec::new() }
    }

    /// A verdict on which something is done, with what every witness said.
    pub(super) fn verdict(at: Duration, verdict: &Verdict) -> Self {
        let said = |one: &Witnessed| {
            format!("{:.3} s, {}: {}", Duration::from_millis(one.at_ms).as_secs_f64(), one.who, one.says)
        };
        let evidence = verdict.evidence.iter().map(said).collect();
        Told { evidence, ..Told::of(at, "verdict", Some(&verdict.host), verdict.reason.clone()) }
    }
}

/// How one host is.
#[derive(Clone, Debug, PartialEq)]
pub struct HostPicture {
    /// The host.
    pub name: String,
    /// Whether its heart beats.
    pub beats: bool,
    /// How long ago it beat last.
    pub silent: Option<Duration>,
    /// Its disk, with the last beat.
    pub disk: Option<Work>,
    /// Its libvirt, with the last beat.
    pub libvirt: Option<Work>,
    /// Domains that run there.
    pub domains: Option<u32>,
    /// Why its stream ended, where it did.
    pub lost: Option<String>,
    /// What the watch makes of it.
    pub state: State,
    /// Why.
    pub reason: String,
    /// How far its incident is.
    pub phase: Phase,
}

/// How it all is.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// The time since the watcher began.
    pub at: Duration,
    /// Whether this watcher leads.
    pub leads: bool,
    /// Who leads, where it is another one.
    pub leader: Option<String>,
    /// Whether the watch may act; where not, why.
    pub disarmed: Option<String>,
    /// How many mons answer, are in quorum, and are there; nothing before any has answered.
    pub mons: Option<(usize, usize, usize)>,
    /// The hosts, by name.
    pub hosts: Vec<HostPicture>,
}

/// Whom the watcher tells what happens, and shows how it is.
pub trait Audience: Send {
    /// Something happened.
    fn hear(&mut self, told: &Told);
    /// How it is, several times a second; the watcher ends where this is enough.
    fn see(&mut self, picture: &Picture) -> bool;
}
