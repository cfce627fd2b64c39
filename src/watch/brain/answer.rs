//! What the answers to what was asked for mean for an incident.

use super::action::{Action, Entry};
use super::event::{Event, EventKind};
use super::incident::Incident;
use super::input::Input;
use super::phase::Phase;
use super::settings::Settings;
use std::time::Duration;

/// Pauses of a retry between two tries to move the guests of a slow host away; each further one is twice as long.
const DRAIN_AGAIN: u32 = 60;

/// The moment of an answer.
pub(super) struct Moment<'a> {
    pub(super) now: Duration,
    pub(super) settings: &'a Settings,
}

/// What an input about a host means for its incident.
pub(super) fn answer(incident: &mut Incident, host: &str, input: &Input, at: &Moment<'_>, out: &mut Vec<Action>) {
    let now = at.now;
    let mut tell = |kind: EventKind, text: String| out.push(Action::Tell(Event::of(kind, host, text)));
    match input {
        Input::Maintenance { on, .. } => incident.maintenance = *on,
        Input::Booted { boot_id, .. } => {
            let before = incident.boot_id.replace(boot_id.clone());
            if before.is_some_and(|before| before != *boot_id) {
                tell(EventKind::Rebooted, format!("host {host} was booted anew"));
                incident.restart_at = Some(now);
            }
        }
        Input::Incident { phase, .. } if *phase > incident.phase => {
            incident.go(*phase, now);
            incident.begun = true;
        }
        Input::Restarted { waiting, .. } => {
            incident.restarting = false;
            if !waiting.is_empty() {
                incident.restart_at = Some(now + at.settings.retry * 4);
                tell(EventKind::RecoveryFailed, format!("guests of host {host} wait: {}", waiting.join("; ")));
            }
        }
        Input::DrainFailed { .. } => {
            incident.drained = false;
            incident.drain_at = now + at.settings.retry * DRAIN_AGAIN * (1 << incident.undrained.min(4));
            incident.undrained += 1;
        }
        Input::GuestsStopped { .. } if incident.phase == Phase::Stopping => incident.go(Phase::Fencing, now),
        Input::GuestsNotStopped { why, .. } if incident.phase == Phase::Stopping => {
            let text = format!("the guests of host {host} are not stopped over ssh ({why}): it is fenced all the same");
            tell(EventKind::Held, text);
            incident.go(Phase::Fencing, now);
        }
        Input::FenceDone { proof, .. } if incident.phase <= Phase::Fencing => {
            incident.go(Phase::Recovering, now);
            tell(EventKind::Fenced, format!("host {host} is fenced: {proof}"));
            out.push(record(host, incident));
        }
        Input::FenceFailed { why, nothing_done, .. } if incident.phase == Phase::Fencing => {
            tell(EventKind::FenceFailed, format!("the fence of host {host} is not proven: {why}"));
            incident.retry(now, at.settings);
            if *nothing_done {
                incident.begun = false;
                incident.phase = Phase::Suspected;
                out.push(record(host, incident));
            }
        }
        Input::RecoveryDone { started, waiting, .. } if incident.phase == Phase::Recovering => {
            recovered(incident, at, (host, *started, waiting), out);
        }
        Input::RecoveryFailed { why, .. } if incident.phase == Phase::Recovering => {
            tell(EventKind::RecoveryFailed, format!("the recovery of host {host} is not through: {why}"));
            incident.retry(now, at.settings);
        }
        Input::Readmitted { .. } if incident.phase.is_fenced() => {
            incident.clear(now);
            incident.drained = false;
            tell(EventKind::Readmitted, format!("host {host} is let in again"));
        }
        _ => {}
    }
}

pub(super) fn record(host: &str, incident: &Incident) -> Action {
    Action::Record(Entry { host: host.to_owned(), phase: incident.phase, verdict: incident.verdict.clone() })
}

fn recovered(
    incident: &mut Incident,
    at: &Moment<'_>,
    (host, started, waiting): (&str, usize, &[String]),
    out: &mut Vec<Action>,
) {
    if waiting.is_empty() {
        incident.go(Phase::Quarantined, at.now);
        incident.held = None;
        out.push(record(host, incident));
        let text = format!("the guests of host {host} run elsewhere; {started} were started");
        out.push(Action::Tell(Event::of(EventKind::Recovered, host, text)));
        return;
    }
    incident.retry(at.now, at.settings);
    let text = format!("guests of host {host} wait: {}", waiting.join("; "));
    if incident.held.as_ref() != Some(&text) {
        out.push(Action::Tell(Event::of(EventKind::RecoveryFailed, host, text.clone())));
        incident.held = Some(text);
    }
}
