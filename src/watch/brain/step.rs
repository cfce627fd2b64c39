//! One report in, what is to be done out.

use super::action::Action;
use super::answer::{Moment, answer, record};
use super::event::{Event, EventKind};
use super::guard::{Hold, Rack, right_to_fence};
use super::incident::Incident;
use super::input::{Input, LeaseState};
use super::judge::{judge, state_of};
use super::phase::Phase;
use super::reports::{HostReports, Reports};
use super::settings::Settings;
use super::verdict::{State, Verdict};
use std::collections::BTreeMap;
use std::time::Duration;

/// How often each host looks at the next two, while nothing is wrong.
const PATROL: Duration = Duration::from_secs(2);

/// The judgement of one watcher. It has no clock and does nothing by itself.
#[derive(Clone, Debug)]
pub struct Brain {
    settings: Settings,
    reports: Reports,
    incidents: BTreeMap<String, Incident>,
    lease: Option<LeaseState>,
    stalled: bool,
    led: bool,
    /// Not known after a pause, until it is told again.
    armed: Option<bool>,
    patrolled: Duration,
}

impl Brain {
    /// A watcher of these hosts, that begins now.
    pub fn new(settings: Settings, hosts: impl IntoIterator<Item = String>) -> Self {
        let reports = Reports::new(hosts, Duration::ZERO);
        let incidents = reports.hosts.keys().map(|host| (host.clone(), Incident::default())).collect();
        Brain {
            settings,
            reports,
            incidents,
            lease: None,
            stalled: false,
            led: false,
            armed: Some(true),
            patrolled: Duration::ZERO,
        }
    }

    /// Takes a report, and says what to do.
    pub fn step(&mut self, now: Duration, input: &Input) -> Vec<Action> {
        let mut out = Vec::new();
        if let Some(pause) = self.reports.listen(now, &self.settings) {
            self.forget(now, pause, &mut out);
        }
        self.reports.take(now, input);
        self.note(now, input, &mut out);
        self.notice_lease(now, &mut out);
        match input {
            Input::Beat { host, .. } => self.look(now, host, &mut out),
            _ => {
                self.patrol(now, &mut out);
                // Both have the same hosts in the same order.
                let known = self.incidents.iter().zip(self.reports.hosts.values());
                let stirs = |incident: &Incident, reports: &HostReports| {
                    incident.phase > Phase::Watched
                        || incident.restart_at.is_some()
                        || !reports.is_calm(now, self.reports.listened, &self.settings)
                };
                let hosts: Vec<String> = known
                    .filter(|((_, incident), reports)| stirs(incident, reports))
                    .map(|((host, _), _)| host.clone())
                    .collect();
                for host in hosts {
                    self.look(now, &host, &mut out);
                }
            }
        }
        out
    }

    /// The verdict on a host as of now.
    pub fn verdict(&self, now: Duration, host: &str) -> Verdict {
        judge(now, host, &self.reports, &self.settings)
    }

    /// How far the incident of a host is.
    pub fn phase(&self, host: &str) -> Phase {
        self.incidents.get(host).map_or(Phase::Watched, |incident| incident.phase)
    }

    /// Whether this watcher leads.
    pub fn leads(&self, now: Duration) -> bool {
        matches!(self.lease, Some(LeaseState::Held { until, .. }) if now < until)
    }

    /// The reports it stands on.
    pub fn reports(&self) -> &Reports {
        &self.reports
    }

    /// Whether this watcher may fence a host at this moment, on what it knows of the rack.
    ///
    /// # Errors
    /// The reason why not.
    pub fn may_fence(&self, now: Duration, host: &str) -> Result<(), Hold> {
        right_to_fence(now, &self.rack(now, host), &self.settings)
    }

    /// The lease is held; or storage stands still, and either this watcher was the last that held it, or the term of the one
    /// that did is over. Fencing a host that is held to be dead is harmless even where two watchers do it, and storage may
    /// stand still until it is done.
    fn may_fence_by_lease(&self, now: Duration) -> bool {
        match &self.lease {
            Some(LeaseState::Held { until, .. }) => now < *until || self.stalled,
            Some(LeaseState::Taken { free_at, .. }) => self.stalled && now >= *free_at,
            Some(LeaseState::Stalled) | None => false,
        }
    }

    fn rack(&self, now: Duration, host: &str) -> Rack<'_> {
        let from = self.reports.counts_from(host, &self.settings);
        let lost = |(name, incident): &(&String, &Incident)| match incident.phase {
            _ if *name == host => true,
            _ if incident.maintenance || incident.released => false,
            Phase::Watched => false,
            Phase::Suspected | Phase::Stopping if incident.state.is_some_and(|(state, _)| state == State::Dead) => true,
            Phase::Suspected if self.reports.beats(name, &self.settings) => false,
            _ => incident.silent_since.is_some_and(|at| now.saturating_sub(at) <= self.settings.hold_window),
        };
        Rack {
            hosts: self.reports.hosts.len(),
            healthy: self.reports.hosts.keys().filter(|host| self.reports.beats(host, &self.settings)).count(),
            lost: self.incidents.iter().filter(lost).map(|(host, _)| host.clone()).collect(),
            // What mons said before the host fell silent says nothing of the quorum without it.
            mons: self.reports.mons.as_ref().filter(|mons| mons.asked >= from),
            armed: self.armed == Some(true),
            leads: self.may_fence_by_lease(now),
        }
    }

    fn forget(&mut self, now: Duration, pause: Duration, out: &mut Vec<Action>) {
        let text = format!(
            "this watcher did not run for {:.1} s; it forgets what it heard before and listens anew",
            pause.as_secs_f64()
        );
        out.push(Action::Tell(Event::of_rack(EventKind::Overslept, text)));
        self.armed = None;
        for incident in self.incidents.values_mut().filter(|incident| incident.phase == Phase::Suspected) {
            incident.clear(now);
            incident.blinks.pop();
        }
    }

    /// What an input means for incidents.
    fn note(&mut self, now: Duration, input: &Input, out: &mut Vec<Action>) {
        match input {
            Input::Lease(LeaseState::Stalled) => self.stalled = true,
            Input::Lease(lease) => {
                self.stalled = false;
                self.lease = Some(lease.clone());
            }
            Input::Armed(armed) => self.armed = Some(*armed),
            Input::Release => self.incidents.values_mut().for_each(|incident| {
                incident.released = incident.phase > Phase::Watched;
            }),
            _ => {}
        }
        if let Some((host, incident)) = input.host().and_then(|host| Some((host, self.incidents.get_mut(host)?))) {
            answer(incident, host, input, &Moment { now, settings: &self.settings }, out);
        }
    }

    /// A watcher that begins to lead does what is open, also what it asked for when it led before.
    fn notice_lease(&mut self, now: Duration, out: &mut Vec<Action>) {
        let leads = self.leads(now);
        if leads == self.led {
            return;
        }
        self.led = leads;
        let text = match leads {
            true => "this watcher leads",
            false => "this watcher does not lead any more",
        };
        out.push(Action::Tell(Event::of_rack(EventKind::Lease, text)));
        if leads {
            for incident in self.incidents.values_mut() {
                incident.pending = false;
                incident.next_try = now;
                // What happened to hosts while nobody led is not known.
                incident.restarting = false;
                incident.restart_at = Some(now);
            }
        }
    }

    /// Lets each host look at the next two, so that a cut of the storage network is seen while all hosts beat.
    fn patrol(&mut self, now: Duration, out: &mut Vec<Action>) {
        if now.saturating_sub(self.patrolled) < PATROL {
            return;
        }
        self.patrolled = now;
        let beating: Vec<&String> =
            self.reports.hosts.keys().filter(|host| self.reports.beats(host, &self.settings)).collect();
        for (place, from) in beating.iter().enumerate() {
            let of: Vec<String> = (1..=2)
                .map(|further| beating[(place + further) % beating.len()])
                .filter(|of| of != from)
                .cloned()
                .collect();
            if !of.is_empty() {
                out.push(Action::AskPeers { from: vec![(*from).clone()], of });
            }
        }
        out.push(Action::AskMons);
    }

    /// Looks at one host.
    fn look(&mut self, now: Duration, host: &str, out: &mut Vec<Action>) {
        self.restart(now, host, out);
        let Some(incident) = self.incidents.get(host) else { return };
        match incident.phase {
            Phase::Watched if self.reports.is_calm(now, host, &self.settings) => {}
            Phase::Watched | Phase::Suspected => self.weigh(now, host, out),
            Phase::Stopping | Phase::Fencing | Phase::Recovering => self.go_on(now, host, out),
            Phase::Quarantined => self.see_return(host, out),
        }
    }

    /// Has it looked whether the guests of a host run that is not fenced and beats.
    fn restart(&mut self, now: Duration, host: &str, out: &mut Vec<Action>) {
        let beats = self.reports.beats(host, &self.settings);
        let may = beats && self.armed == Some(true) && self.leads(now);
        let Some(incident) = self.incidents.get_mut(host).filter(|_| may) else { return };
        let due = incident.restart_at.is_some_and(|at| now >= at) && !incident.restarting;
        if due && incident.phase <= Phase::Suspected && !incident.maintenance {
            incident.restart_at = None;
            incident.restarting = true;
            out.push(Action::RestartGuests { host: host.to_owned() });
        }
    }

    /// Looks at a host to which nothing was done yet.
    fn weigh(&mut self, now: Duration, host: &str, out: &mut Vec<Action>) {
        let beats = self.reports.beats(host, &self.settings);
        let silent = self.reports.silence(host, &self.settings) >= self.settings.suspect_after;
        let pause = self.settings.suspect_after / 10;
        if let Some(incident) = self.incidents.get_mut(host) {
            // Reports come by the hundred: what is not well is thought about ten times within `suspect_after`.
            let heard_again = beats && incident.phase == Phase::Suspected;
            if !heard_again && incident.weighed.is_some_and(|at| now < at + pause) {
                return;
            }
            incident.weighed = Some(now);
        }
        if silent {
            self.suspect(now, host, out);
        }
        let state = state_of(now, host, &self.reports, &self.settings);
        let maintained = self.incidents.get(host).is_some_and(|incident| incident.maintenance);
        if matches!(state, State::Dead | State::StorageCut | State::ManagementCut | State::Suspect) || silent {
            self.ask(now, host, out);
        } else if state == State::Healthy && !self.reports.is_calm(now, host, &self.settings) {
            // Somebody did not reach it on the storage network: others are asked as well.
            self.ask(now, host, out);
        }
        let Some(incident) = self.incidents.get_mut(host) else { return };
        if state == State::Healthy {
            if incident.phase == Phase::Suspected {
                let too_often = incident.clear(now);
                out.push(Action::Tell(Event::of(EventKind::Cleared, host, format!("host {host} is heard again"))));
                if too_often {
                    let text = format!("host {host} fell silent and came back {} times", incident.blinks.len());
                    out.push(Action::Tell(Event::of(EventKind::Flapping, host, text)));
                }
            }
            if incident.state.take().is_some() {
                (incident.drained, incident.mended, incident.undrained) = (false, false, 0);
                incident.drain_at = Duration::ZERO;
            }
            return;
        }
        if incident.state.is_none_or(|(before, _)| before != state) {
            incident.state = Some((state, now));
            if state != State::Suspect && !maintained {
                let reason = judge(now, host, &self.reports, &self.settings).reason;
                out.push(Action::Tell(Event::of(EventKind::Judged, host, format!("{state}: {reason}"))));
            }
        }
        if !maintained {
            self.act(now, host, state, out);
        }
    }

    /// A host fell silent: the witnesses are asked, and the mons elect without it, while its patience runs.
    fn suspect(&mut self, now: Duration, host: &str, out: &mut Vec<Action>) {
        let leads = self.leads(now);
        let Some(incident) = self.incidents.get_mut(host) else { return };
        if incident.phase == Phase::Watched {
            incident.phase = Phase::Suspected;
            incident.silent_since = Some(now);
            if !incident.maintenance {
                out.push(Action::Tell(Event::of(EventKind::Suspected, host, format!("host {host} is silent"))));
            }
        }
        let quorum = self.reports.mons.as_ref().map(|mons| &mons.quorum);
        // A watcher that does not lead leaves that to the leader, unless the leader seems to be gone with the host.
        let late = self.reports.silence(host, &self.settings) >= self.settings.patience;
        let wanted = quorum.is_some_and(|quorum| quorum.contains(host)) && (leads || late);
        if wanted && !incident.nudged && !incident.maintenance {
            incident.nudged = true;
            let mons = quorum.into_iter().flatten().filter(|mon| *mon != host).cloned().collect();
            out.push(Action::Nudge { mons });
        }
    }

    fn ask(&mut self, now: Duration, host: &str, out: &mut Vec<Action>) {
        let Some(incident) = self.incidents.get_mut(host) else { return };
        if incident.asked.is_some_and(|at| now.saturating_sub(at) < self.settings.ask_again) {
            return;
        }
        let first = incident.asked.is_none();
        incident.asked = Some(now);
        let hosts: Vec<&String> = self.reports.hosts.keys().collect();
        let place = hosts.iter().position(|name| *name == host).unwrap_or_default();
        let mut from: Vec<String> = (1..hosts.len())
            .map(|further| hosts[(place + further) % hosts.len()])
            .filter(|peer| self.reports.beats(peer, &self.settings))
            .take(self.settings.peers_asked)
            .cloned()
            .collect();
        let mut of = vec![host.to_owned()];
        of.extend(from.iter().take(3).cloned());
        if let Some(known) = self.reports.hosts.get_mut(host) {
            for peer in &from {
                known.asked.entry(peer.clone()).or_insert(now);
            }
        }
        if self.reports.beats(host, &self.settings) {
            from.push(host.to_owned());
        }
        if !from.is_empty() {
            out.push(Action::AskPeers { from, of });
        }
        out.push(Action::AskMons);
        if first {
            out.push(Action::AskBmc { host: host.to_owned() });
        }
    }

    /// Acts on a verdict, if this watcher may.
    fn act(&mut self, now: Duration, host: &str, state: State, out: &mut Vec<Action>) {
        let silent = !self.reports.beats(host, &self.settings);
        let leads = self.leads(now);
        let (armed, cut_after) = (self.armed == Some(true), self.settings.cut_after);
        if !silent && matches!(state, State::Slow | State::Stuck) {
            if leads && armed {
                self.relieve(now, host, state, out);
            }
            return;
        }
        let Some(incident) = self.incidents.get_mut(host) else { return };
        let cut_long = incident.state_for(now) >= cut_after;
        match state {
            State::Dead | State::Stuck => {}
            State::StorageCut if cut_long => {}
            _ => return,
        }
        if !incident.is_due(now) {
            return;
        }
        match self.may_fence(now, host) {
            Err(Hold::NotLeading) => {}
            Err(hold) => self.hold(host, &hold, state, out),
            // Storage stands still: no guest may be stopped on the word of a lease that may be gone.
            Ok(()) if state == State::StorageCut && !silent && !leads => {}
            Ok(()) => {
                let verdict = judge(now, host, &self.reports, &self.settings);
                let Some(incident) = self.incidents.get_mut(host) else { return };
                let stop = state == State::StorageCut && !silent;
                let tries = incident.tries;
                incident.verdict = Some(verdict);
                incident.go(if stop { Phase::Stopping } else { Phase::Fencing }, now);
                incident.tries = tries;
                self.go_on(now, host, out);
            }
        }
    }

    /// A host that lives and is slow gives its guests away; a libvirt that hangs is started anew. Where many are so at once,
    /// it is something that they share, and moving guests about would only add to it.
    fn relieve(&mut self, now: Duration, host: &str, state: State, out: &mut Vec<Action>) {
        let is_slow = |incident: &&Incident| matches!(incident.state, Some((State::Slow | State::Stuck, _)));
        let slow = self.incidents.values().filter(is_slow).count();
        let many = slow > self.settings.may_be_lost(self.reports.hosts.len());
        let stuck_after = self.settings.stuck_after;
        let Some(incident) = self.incidents.get_mut(host) else { return };
        let due = match state {
            State::Slow => !incident.drained && now >= incident.drain_at,
            _ => !incident.mended && incident.state_for(now) >= stuck_after,
        };
        if due && many {
            return self.hold(host, &Hold::ManySlow { slow }, state, out);
        }
        if due && state == State::Slow {
            incident.drained = true;
            out.push(Action::Drain { host: host.to_owned() });
        } else if due {
            incident.mended = true;
            out.push(Action::MendLibvirt { host: host.to_owned() });
        }
    }

    fn hold(&mut self, host: &str, hold: &Hold, state: State, out: &mut Vec<Action>) {
        let Some(incident) = self.incidents.get_mut(host) else { return };
        let text = format!("nothing is done about host {host} ({state}): {hold}");
        if incident.held.as_ref() != Some(&text) {
            out.push(Action::Tell(Event::of(EventKind::Held, host, text.clone())));
            incident.held = Some(text);
        }
    }

    /// Asks for what the phase of an incident stands for.
    fn go_on(&mut self, now: Duration, host: &str, out: &mut Vec<Action>) {
        let leads = self.leads(now);
        let may_fence = match self.may_fence(now, host) {
            // A fence that was begun is ended: others that are lost meanwhile do not make it wrong.
            Ok(()) | Err(Hold::ManyLost { .. }) => true,
            Err(_) => false,
        };
        if self.incidents.get(host).is_some_and(|incident| incident.phase == Phase::Fencing) && !may_fence {
            self.ask(now, host, out);
        }
        if !self.incidents.get(host).is_some_and(|incident| incident.is_due(now)) {
            return;
        }
        let verdict = judge(now, host, &self.reports, &self.settings);
        let Some(incident) = self.incidents.get_mut(host) else { return };
        if incident.phase == Phase::Fencing && !incident.begun && verdict.state == State::Healthy {
            // It is well again, and was not fenced yet; its guests may have been stopped.
            incident.clear(now);
            incident.restart_at = Some(now);
            out.push(Action::Tell(Event::of(EventKind::Cleared, host, format!("host {host} is heard again"))));
            out.push(record(host, incident));
            return;
        }
        let host = host.to_owned();
        match incident.phase {
            Phase::Stopping if leads => {
                incident.pending = true;
                out.push(record(&host, incident));
                out.push(Action::StopGuests { host });
            }
            Phase::Fencing if may_fence => {
                incident.pending = true;
                // Tried again it stands on what is so now: somebody may have let the host in meanwhile.
                let again = std::mem::replace(&mut incident.begun, true);
                let kept = incident.verdict.get_or_insert_with(|| verdict.clone()).clone();
                let verdict = if again { verdict } else { kept };
                out.push(record(&host, incident));
                let text = format!("fencing host {host}: {}", verdict.reason);
                out.push(Action::Tell(Event::of(EventKind::Fencing, &host, text)));
                out.push(Action::Fence { host, verdict });
            }
            Phase::Recovering if leads => {
                incident.pending = true;
                out.push(Action::Recover { host });
            }
            _ => {}
        }
    }

    /// A host that is shut out may come back; it stays shut out until it is readmitted.
    fn see_return(&mut self, host: &str, out: &mut Vec<Action>) {
        let beats = self.reports.beats(host, &self.settings);
        let Some(incident) = self.incidents.get_mut(host) else { return };
        if beats && !incident.returned {
            let text = format!("host {host} is back, and stays shut out: rackhand readmit {host}");
            out.push(Action::Tell(Event::of(EventKind::Returned, host, text)));
        }
        incident.returned = beats;
    }
}
