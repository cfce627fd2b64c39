//! The watcher: runs the brain over what its witnesses say, and does what it asks for.

use super::audience::{Audience, HostPicture, Picture, Told};
use super::clock::Clock;
use super::cluster_state::{self, ClusterState};
use super::countdown::Countdown;
use super::documents::{Disarmed, WatchStatus};
use super::hands::Standing;
use super::journal::Journal;
use super::overdue::Overdue;
use super::perform::Performer;
use super::seat;
use super::setup::{Ports, Setup};
use super::translate::Translator;
use crate::cluster::{Candidate, ClusterPort};
use crate::error::Failure;
use crate::watch::brain::{Action, Brain, Entry, Event, EventKind, Input, LeaseState, Phase, State};
use crate::watch::witness::{Beat, HostStream, MonWitness, OsdWitness, Pace, Report};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Reports and answers that may wait for the watcher.
const QUEUE: usize = 4096;
/// How often the watcher shows how it is.
const SHOW: Duration = Duration::from_millis(250);
/// How often the leader says how it is, where nothing changed.
const SAY: Duration = Duration::from_secs(10);
/// How long giving the lease back may take at the end.
const RESIGN: Duration = Duration::from_secs(2);

/// Watches until `stop` comes, or the audience has seen enough.
///
/// # Errors
/// When the local journal cannot be written or a host is missing.
pub async fn watch(
    setup: Setup,
    ports: Ports,
    audience: &mut dyn Audience,
    stop: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let (port, me) = (Arc::clone(&ports.port), setup.me.clone());
    let mut watcher = Watcher::begin(setup, ports)?;
    let mut stop = std::pin::pin!(stop);
    tokio::select! {
        () = watcher.listen(audience) => {}
        () = &mut stop => {}
    }
    if watcher.setup.acts {
        drop(watcher);
        let candidate = Candidate::new(seat::LEASE, me, String::new(), Duration::ZERO);
        // Else the next one waits out the term.
        let _ = timeout(RESIGN, candidate.resign(port.as_ref())).await;
    }
    Ok(())
}

struct Watcher {
    setup: Setup,
    port: Arc<dyn ClusterPort>,
    clock: Clock,
    brain: Brain,
    translator: Translator,
    performer: Performer,
    reports: mpsc::Receiver<Report>,
    answers: mpsc::Receiver<Input>,
    told: mpsc::Receiver<Told>,
    states: mpsc::Receiver<ClusterState>,
    /// What happens to single guests.
    news: mpsc::Receiver<Event>,
    standing: watch::Sender<Standing>,
    /// What is shown of hosts beside what the brain thinks.
    beats: BTreeMap<String, Beat>,
    lost: BTreeMap<String, String>,
    lease: Option<LeaseState>,
    leads_since: Option<Timestamp>,
    countdown: Option<Countdown>,
    /// Whether the cluster has said whether the watch may act.
    asked_whether_armed: bool,
    maintenance: BTreeSet<String>,
    overdue: Overdue,
    /// Hosts in quarantine without the record of a fence, at the last look.
    unfenced: BTreeSet<String>,
    said: Option<(WatchStatus, Duration)>,
    _osds: OsdWitness,
    tasks: JoinSet<()>,
}

impl Watcher {
    fn begin(setup: Setup, ports: Ports) -> Result<Self, Failure> {
        let clock = Clock::begin();
        let (tell_report, reports) = mpsc::channel(QUEUE);
        let (tell_answer, answers) = mpsc::channel(QUEUE);
        let (tell_told, told) = mpsc::channel(QUEUE);
        let (tell_state, states) = mpsc::channel(1);
        let mons: Vec<String> = setup.hosts.iter().filter(|host| host.mon).map(|host| host.name.clone()).collect();
        let pace = Pace::of(setup.settings.patience);
        let mut streams = BTreeMap::new();
        for host in &setup.hosts {
            let remote = ports.hearts.get(&host.name)?;
            let stream = HostStream::open(remote, pace, host.guests, tell_report.clone());
            streams.insert(host.name.clone(), Arc::new(stream));
        }
        let mon_witness = MonWitness::open(Arc::clone(&ports.port), &mons, &tell_report);
        let osds = OsdWitness::open(Arc::clone(&ports.port), mons.clone(), tell_report);
        let mut tasks = JoinSet::new();
        tasks.spawn(cluster_state::follow(Arc::clone(&ports.port), tell_state));
        if setup.acts {
            let term = seat::term(setup.settings.patience);
            tasks.spawn(seat::hold(Arc::clone(&ports.port), clock, setup.me.clone(), term, tell_answer.clone()));
        }
        let ((standing, stands), (tell_news, news)) = (watch::channel(Standing::default()), mpsc::channel(QUEUE));
        let hands = Arc::clone(&ports.hands);
        tasks.spawn(async move { hands.care(stands, tell_news).await });
        let performer = Performer {
            clock,
            hosts: setup.hosts.iter().map(|host| (host.name.clone(), host.clone())).collect(),
            streams,
            mons: Arc::new(mon_witness),
            hands: ports.hands,
            journal: Journal::open(Arc::clone(&ports.port), setup.journal.as_deref())?,
            answers: tell_answer,
            told: tell_told,
            within: Performer::within(&setup),
            acts: setup.acts,
        };
        let names = setup.hosts.iter().map(|host| host.name.clone());
        let mut brain = Brain::new(setup.settings.clone(), names);
        // It acts once the cluster has said that it may.
        brain.step(Duration::ZERO, &Input::Armed(false));
        Ok(Watcher {
            port: ports.port,
            clock,
            brain,
            translator: Translator::new(mons),
            performer,
            reports,
            answers,
            told,
            states,
            news,
            standing,
            beats: BTreeMap::new(),
            lost: BTreeMap::new(),
            lease: None,
            leads_since: None,
            countdown: None,
            asked_whether_armed: false,
            maintenance: BTreeSet::new(),
            overdue: Overdue::default(),
            unfenced: BTreeSet::new(),
            said: None,
            _osds: osds,
            tasks,
            setup,
        })
    }

    async fn listen(&mut self, audience: &mut dyn Audience) {
        let mut tick = interval(self.setup.settings.suspect_after / 8);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut show = interval(SHOW);
        show.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(report) = self.reports.recv() => self.report(report),
                Some(input) = self.answers.recv() => self.step(&input),
                Some(told) = self.told.recv() => audience.hear(&told),
                Some(event) = self.news.recv() => audience.hear(&Told::event(self.clock.now(), &event)),
                Some(state) = self.states.recv() => self.found(&state),
                _ = tick.tick() => self.tick(),
                _ = show.tick() => {
                    let picture = self.picture();
                    self.say(&picture);
                    self.stand(&picture);
                    if audience.see(&picture) {
                        return;
                    }
                }
            }
        }
    }

    fn report(&mut self, report: Report) {
        match &report {
            Report::Beat { host, beat } => {
                self.beats.insert(host.clone(), beat.clone());
                self.lost.remove(host);
            }
            Report::Ended { host, why } => drop(self.lost.insert(host.clone(), why.clone())),
            _ => {}
        }
        for input in self.translator.report(report) {
            self.step(&input);
        }
    }

    fn tick(&mut self) {
        let now = self.clock.now();
        if let Some(input) = self.translator.tick(now) {
            self.step(&input);
        }
        self.count_down(now);
        self.step(&Input::Tick);
    }

    fn step(&mut self, input: &Input) {
        let now = self.clock.now();
        let actions = self.brain.step(now, input);
        if let Input::Lease(lease) = input
            && *lease != LeaseState::Stalled
        {
            self.lease = Some(lease.clone());
        }
        for action in &actions {
            let Action::Tell(event) = action else { continue };
            let Some(host) = event.host.as_deref() else { continue };
            match event.kind {
                EventKind::Suspected => self.performer.avoid(host),
                EventKind::Readmitted => {
                    let over = Entry { host: host.to_owned(), phase: Phase::Watched, verdict: None };
                    drop(self.performer.journal.record(over));
                }
                _ => {}
            }
        }
        let leads = self.brain.leads(now);
        if leads != self.leads_since.is_some() {
            self.leads_since = leads.then(Timestamp::now);
        }
        let translator = &mut self.translator;
        self.performer.perform(now, actions, || translator.ask(now));
    }

    /// What people and other watchers have written.
    fn found(&mut self, state: &ClusterState) {
        let now = self.clock.now();
        // The leader knows better than what it has written.
        if !self.brain.leads(now) {
            for (host, phase) in &state.open {
                self.step(&Input::Incident { host: host.clone(), phase: *phase });
            }
        }
        self.found_fences(&state.fenced);
        for host in self.maintenance.symmetric_difference(&state.maintenance).cloned().collect::<Vec<_>>() {
            self.step(&Input::Maintenance { on: state.maintenance.contains(&host), host });
        }
        self.maintenance.clone_from(&state.maintenance);
        for (host, text) in self.overdue.due(now, &state.overdue) {
            let _ = self.performer.told.try_send(Told::of(now, "overdue", Some(&host), text));
        }
        let before = self.countdown.take();
        let was_held = before.is_some();
        self.countdown = Countdown::found(before, state.disarmed.clone(), now);
        let (first, held) = (!self.asked_whether_armed, self.countdown.is_some());
        self.asked_whether_armed = true;
        if first || was_held != held {
            if let Some(Countdown { disarmed, .. }) = &self.countdown {
                let left = humantime::format_duration(Duration::from_secs(disarmed.left().as_secs()));
                let text = format!("the watch is disarmed by {} for {left}: {}", disarmed.by, disarmed.reason);
                self.tell("disarmed", text);
            } else if !first {
                self.tell("armed", "the watch is armed again");
            }
        }
        // Each time: after a pause the brain does nothing until it is told.
        self.step(&Input::Armed(!held && self.setup.acts));
    }

    /// Hosts that were fenced or let in again by others.
    fn found_fences(&mut self, fenced: &BTreeSet<String>) {
        let mut missing = BTreeSet::new();
        for host in self.performer.hosts.keys().cloned().collect::<Vec<_>>() {
            match (self.brain.phase(&host), fenced.contains(&host)) {
                // Its guests may not run elsewhere yet: that is finished, or found to be done.
                (Phase::Watched | Phase::Suspected, true) => {
                    self.step(&Input::Incident { host, phase: Phase::Recovering });
                }
                (Phase::Recovering | Phase::Quarantined, false) if self.unfenced.contains(&host) => {
                    self.step(&Input::Readmitted { host });
                }
                // Looked at once more: the look may be older than the fence.
                (Phase::Recovering | Phase::Quarantined, false) => drop(missing.insert(host)),
                _ => {}
            }
        }
        self.unfenced = missing;
    }

    /// Time without acting passes, and ends.
    fn count_down(&mut self, now: Duration) {
        let leads = self.brain.leads(now);
        let Some(countdown) = &mut self.countdown else { return };
        let port = Arc::clone(&self.port);
        if countdown.is_over(now) {
            let (id, text) = (countdown.disarmed.id, "the time without acting is over: the watch is armed again");
            self.countdown = None;
            self.tell("armed", text);
            self.tasks.spawn(async move { drop(Disarmed::arm(port.as_ref(), Some(id)).await) });
            self.step(&Input::Armed(self.setup.acts));
        } else if leads && let Some((id, passed)) = countdown.note(now) {
            self.tasks.spawn(async move { drop(Disarmed::passed(port.as_ref(), id, passed).await) });
        }
        while self.tasks.try_join_next().is_some() {}
    }

    fn tell(&self, kind: &str, text: impl Into<String>) {
        let _ = self.performer.told.try_send(Told::of(self.clock.now(), kind, None, text));
    }

    fn picture(&self) -> Picture {
        let now = self.clock.now();
        let reports = self.brain.reports();
        let host = |name: &String| {
            let verdict = self.brain.verdict(now, name);
            let beat = self.beats.get(name);
            let last = reports.hosts.get(name).and_then(|host| host.beat);
            HostPicture {
                name: name.clone(),
                beats: reports.beats(name, &self.setup.settings),
                silent: last.map(|(at, _)| now.saturating_sub(at)),
                disk: beat.map(|beat| beat.disk.clone()),
                libvirt: beat.and_then(|beat| beat.libvirt.clone()),
                domains: beat.and_then(|beat| beat.domains),
                lost: self.lost.get(name).cloned(),
                state: verdict.state,
                reason: verdict.reason,
                phase: self.brain.phase(name),
            }
        };
        let leader = match &self.lease {
            Some(LeaseState::Taken { holder, .. }) => Some(holder.clone()),
            _ => None,
        };
        Picture {
            at: now,
            leads: self.brain.leads(now),
            leader,
            disarmed: self.countdown.as_ref().map(|countdown| countdown.disarmed.reason.clone()),
            mons: reports.mons.as_ref().map(|m| (m.answering.len(), m.quorum.len(), m.members.len())),
            hosts: reports.hosts.keys().map(host).collect(),
        }
    }

    /// Says how it stands to whoever looks after single guests.
    fn stand(&self, picture: &Picture) {
        let is_well = |host: &&HostPicture| {
            host.beats && host.phase == Phase::Watched && matches!(host.state, State::Healthy | State::Slow)
        };
        let may_act = self.setup.acts && self.asked_whether_armed && self.countdown.is_none();
        let well = picture.hosts.iter().filter(is_well).map(|host| host.name.clone()).collect();
        let now = Standing { acts: picture.leads && may_act, well };
        self.standing.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
    }

    /// The leader says how it is, for `watch status`.
    fn say(&mut self, picture: &Picture) {
        let Some(since) = self.leads_since else { return };
        let open = picture.hosts.iter().filter(|host| host.phase > Phase::Suspected);
        let status = WatchStatus {
            holder: self.setup.me.clone(),
            since,
            patience_ms: u64::try_from(self.setup.settings.patience.as_millis()).unwrap_or(u64::MAX),
            healthy: picture.hosts.iter().filter(|host| host.beats).count(),
            hosts: picture.hosts.len(),
            incidents: open.map(|host| (host.name.clone(), host.phase)).collect(),
            maintenance: self.maintenance.clone(),
            at: None,
        };
        let is_news =
            self.said.as_ref().is_none_or(|(said, at)| *said != status || picture.at.saturating_sub(*at) >= SAY);
        if is_news {
            self.said = Some((status.clone(), picture.at));
            let status = WatchStatus { at: Some(Timestamp::now()), ..status };
            let port = Arc::clone(&self.port);
            self.tasks.spawn(async move { drop(timeout(SAY, status.write(port.as_ref())).await) });
        }
    }
}
