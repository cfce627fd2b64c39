//! A watcher: a brain, a lease, and what carries out what the brain asks for.

use crate::brain::{Action, Brain, Entry, EventKind, Input, LeaseState, Phase, Power, Settings, State, Work};
use crate::ceph::Named;
use crate::fencing::Fencing;
use crate::hosts::{Ask, Doing, Request};
use crate::lease_rule::{Lease, LeaseRule, LeaseStep};
use crate::moves::Move;
use crate::mutation::Mutation;
use crate::queue::{Event, Ms};
use crate::recovery::Recovery;
use crate::task::{Kind, Owner};
use crate::world::{Cut, Place, World};
use std::time::Duration;

/// How long a lease has to be seen unchanged before another watcher takes it.
const TERM: Duration = Duration::from_secs(6);
/// How often it is renewed.
const RENEWAL: Ms = 2000;
/// After how long an attempt counts as one that storage did not answer.
const STALLED: Ms = 1500;
const POLL: Ms = 2000;

/// A watcher.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) place: Place,
    pub(crate) alive: bool,
    /// Goes up with each start of the process.
    pub(crate) life: u64,
    born: Ms,
    pub(crate) asleep_until: Ms,
    pub(crate) cut: Cut,
    pub(crate) settings: Settings,
    pub(crate) brain: Brain,
    rule: LeaseRule,
    booted: Vec<u64>,
    /// Entries that could not be written to the cluster yet; they are on a disk.
    unwritten: Vec<Entry>,
    /// After how many more steps it dies.
    pub(crate) crash_in: Option<u32>,
}

impl Watcher {
    pub(crate) fn new(place: Place, settings: Settings, names: &[String]) -> Self {
        let brain = Brain::new(settings.clone(), names.iter().cloned());
        let rule = LeaseRule::new("", "", TERM);
        Watcher {
            place,
            alive: false,
            life: 0,
            born: 0,
            asleep_until: 0,
            cut: Cut::default(),
            settings,
            brain,
            rule,
            booted: Vec::new(),
            unwritten: Vec::new(),
            crash_in: None,
        }
    }
}

impl Watcher {
    /// Whether it has run long enough to have heard of everything.
    pub(crate) fn settled(&self, now: Ms) -> bool {
        self.alive && now > self.born + 20_000 && now > self.asleep_until + 20_000
    }
}

/// A write of the lease that is under way.
#[derive(Clone, Debug)]
pub(crate) struct LeaseWrite {
    watcher: usize,
    life: u64,
    found: Option<Lease>,
    next: Lease,
    asked: Ms,
}

/// Tells the owner of a task how it ended.
pub(crate) fn tell_owner(world: &mut World, owner: Owner, input: Option<Input>) {
    if let (Owner::Watcher(watcher, life), Some(input)) = (owner, input) {
        world.after(1, Event::Deliver(watcher, life, Box::new(input)));
    }
}

/// Tells all watchers, as a document would that they read.
pub(crate) fn tell_all(world: &mut World, input: &Input) {
    for watcher in 0..world.watchers.len() {
        world.sends(watcher, input.clone());
    }
}

impl World {
    fn sends(&mut self, watcher: usize, input: Input) {
        let (latency, life) = (self.latency(), self.watchers[watcher].life);
        self.after(latency, Event::Deliver(watcher, life, Box::new(input)));
    }

    pub(crate) fn watcher_begins(&mut self, watcher: usize) {
        let (now, hosts) = (self.now, self.hosts.len());
        let names = self.names.clone();
        let it = &mut self.watchers[watcher];
        if it.alive {
            return;
        }
        it.alive = true;
        it.life += 1;
        it.born = now;
        it.asleep_until = 0;
        it.crash_in = None;
        it.booted = vec![0; hosts];
        it.brain = Brain::new(it.settings.clone(), names);
        it.rule = LeaseRule::new(format!("w{watcher}.{}", it.life), "watch", TERM);
        let life = it.life;
        self.tell(|_| format!("watcher {watcher} begins"));
        self.after(1, Event::Poll(watcher, life));
        self.after(5, Event::Lease(watcher, life));
        self.after(10, Event::Tick(watcher, life));
    }

    pub(crate) fn watcher_dies(&mut self, watcher: usize) {
        if self.watchers[watcher].alive {
            self.watchers[watcher].alive = false;
            self.tasks.retain(|_, task| !matches!(task.owner, Owner::Watcher(owner, _) if owner == watcher));
            self.tell(|_| format!("watcher {watcher} dies"));
        }
    }

    /// One more step of a watcher; it may be its last.
    pub(crate) fn counts_to_crash(&mut self, watcher: usize) -> bool {
        match self.watchers[watcher].crash_in {
            Some(0) => {
                self.watchers[watcher].crash_in = None;
                self.watcher_dies(watcher);
                let back = self.rng.range(500, 15_000);
                self.after(back, Event::Fault(crate::faults::Fault::WatcherBegins(watcher)));
                true
            }
            Some(steps) => {
                self.watchers[watcher].crash_in = Some(steps - 1);
                false
            }
            None => false,
        }
    }

    fn lives(&self, watcher: usize, life: u64) -> bool {
        self.watchers[watcher].alive && self.watchers[watcher].life == life
    }

    /// Whether it runs at this moment; where it sleeps, the event waits for it.
    fn is_awake(&mut self, watcher: usize, life: u64, event: &Event) -> bool {
        if !self.lives(watcher, life) {
            return false;
        }
        let until = self.watchers[watcher].asleep_until;
        if until > self.now {
            // What is due at the end of a sleep comes in any order.
            let at = until + self.rng.range(0, 50);
            self.queue.add(at, event.clone());
            return false;
        }
        true
    }

    fn own_time(&self, watcher: usize) -> Duration {
        Duration::from_millis(self.now - self.watchers[watcher].born)
    }

    pub(crate) fn tick(&mut self, watcher: usize, life: u64) {
        if !self.is_awake(watcher, life, &Event::Tick(watcher, life)) {
            return;
        }
        let pace = self.watchers[watcher].settings.suspect_after.as_millis() / 5;
        let pace = u64::try_from(pace).unwrap_or(100) + self.rng.range(0, 10);
        self.after(pace, Event::Tick(watcher, life));
        self.step(watcher, &Input::Tick);
    }

    pub(crate) fn deliver(&mut self, watcher: usize, life: u64, input: Box<Input>) {
        if !self.lives(watcher, life) {
            return;
        }
        if self.watchers[watcher].asleep_until > self.now {
            let at = self.watchers[watcher].asleep_until + self.rng.range(0, 50);
            self.queue.add(at, Event::Deliver(watcher, life, input));
            return;
        }
        self.step(watcher, &input);
    }

    fn step(&mut self, watcher: usize, input: &Input) {
        let now = self.own_time(watcher);
        let actions = self.watchers[watcher].brain.step(now, input);
        self.stats.steps += 1;
        for action in actions {
            let counts =
                !matches!(action, Action::AskMons | Action::AskPeers { .. } | Action::AskBmc { .. } | Action::Tell(_));
            if counts && self.counts_to_crash(watcher) {
                return;
            }
            self.performs(watcher, action);
        }
    }

    fn host_of(name: &str) -> usize {
        name.trim_start_matches('h').parse().unwrap_or(0)
    }

    fn performs(&mut self, watcher: usize, action: Action) {
        let owner = Owner::Watcher(watcher, self.watchers[watcher].life);
        match action {
            Action::Nudge { mons } => {
                let (place, cut) = self.place_of(owner);
                if mons.iter().any(|mon| self.reaches_ssh(place, &cut, Self::host_of(mon))) {
                    let time = 600 + self.latency();
                    self.elect_in(time);
                }
            }
            Action::AskMons => self.asks_mons(watcher),
            Action::AskPeers { from, of } => self.asks_peers(watcher, &from, &of),
            Action::AskBmc { host } => {
                let known = &self.hosts[Self::host_of(&host)];
                let power = match (known.power, known.bmc_lies) {
                    (true, false) | (false, true) => Power::On,
                    (true, true) => Power::Off,
                    (false, false) => Power::Unreachable,
                };
                self.sends(watcher, Input::Power { host, power });
            }
            Action::Record(entry) => {
                self.watchers[watcher].unwritten.push(entry);
                self.writes_journal(watcher);
            }
            Action::StopGuests { host } => self.begin(owner, Kind::Stop(Self::host_of(&host))),
            Action::Fence { host, verdict } => {
                let host = Self::host_of(&host);
                let is_lost = matches!(verdict.state, State::Dead | State::Stuck | State::StorageCut);
                self.looks_at_right(watcher, host);
                self.tell(|_| format!("watcher {watcher} fences: {}", verdict.reason));
                self.begin(owner, Kind::Fence(Fencing::of(host, !is_lost)));
            }
            Action::Recover { host } => self.begin(owner, Kind::Recover(Recovery::of(Self::host_of(&host), true))),
            Action::RestartGuests { host } => {
                self.begin(owner, Kind::Recover(Recovery::of(Self::host_of(&host), false)));
            }
            Action::Drain { host } => {
                let host = Self::host_of(&host);
                for guest in 0..self.guests.len() {
                    let to = self.rng.index(self.hosts.len());
                    if to != host && self.ceph.claims[guest].named == Named::Running(host) {
                        self.begin(owner, Kind::Move(Move::of(guest, to)));
                    }
                }
            }
            // No guest depends on it.
            Action::MendLibvirt { .. } => {}
            Action::Tell(event) => {
                if event.kind == EventKind::Overslept {
                    self.stats.overslept += 1;
                }
                if event.kind == EventKind::Held {
                    self.stats.held += 1;
                }
                self.tell(|_| format!("watcher {watcher}: {}", event.text));
            }
        }
    }

    fn asks_mons(&mut self, watcher: usize) {
        let (place, cut) = (self.watchers[watcher].place, self.watchers[watcher].cut.clone());
        let name = |host: &usize| self.names[*host].clone();
        let members = self.ceph.mons.iter().map(name).collect();
        let answering: Vec<usize> =
            self.ceph.mons.iter().filter(|mon| self.reaches_ssh(place, &cut, **mon)).copied().collect();
        let quorum = match answering.iter().any(|mon| self.ceph.formed.contains(mon)) {
            true => self.ceph.formed.iter().map(name).collect(),
            false => std::collections::BTreeSet::new(),
        };
        let answering = answering.iter().map(name).collect();
        let asked = self.own_time(watcher);
        self.sends(watcher, Input::Mons { asked, members, answering, quorum });
    }

    fn asks_peers(&mut self, watcher: usize, from: &[String], of: &[String]) {
        let (place, cut) = (self.watchers[watcher].place, self.watchers[watcher].cut.clone());
        let asked = self.own_time(watcher);
        for from in from {
            let peer = Self::host_of(from);
            if !self.reaches_ssh(place, &cut, peer) || self.rng.percent(2) {
                continue;
            }
            for of in of.iter().filter(|of| *of != from) {
                let other = Self::host_of(of);
                let (management, storage) = (Some(self.management(peer, other)), Some(self.storage(peer, other)));
                self.sends(watcher, Input::View { from: from.clone(), of: of.clone(), asked, management, storage });
            }
        }
    }

    pub(crate) fn beat(&mut self, host: usize) {
        let fast = self.watchers.iter().any(|watcher| watcher.settings.patience < Duration::from_secs(1));
        let pace = if fast { 150 } else { 500 } + self.rng.range(0, 20);
        self.after(pace, Event::Beat(host));
        if !self.hosts[host].power || self.hosts[host].hung {
            return;
        }
        for watcher in 0..self.watchers.len() {
            let it = &self.watchers[watcher];
            if !it.alive || !self.reaches_ssh(it.place, &it.cut, host) {
                continue;
            }
            let (known, name) = (&self.hosts[host], self.names[host].clone());
            let fine = || Work::Done(Duration::from_millis(3));
            let disk = if known.slow_disk { Work::Late } else { fine() };
            let libvirt = if known.no_libvirt { Work::Failed("no socket".to_owned()) } else { fine() };
            let boot = known.boot;
            if self.watchers[watcher].booted[host] != boot {
                self.watchers[watcher].booted[host] = boot;
                self.sends(watcher, Input::Booted { host: name.clone(), boot_id: format!("{boot}") });
            }
            self.sends(watcher, Input::Beat { host: name, disk, libvirt });
        }
    }

    pub(crate) fn lease(&mut self, watcher: usize, life: u64) {
        if !self.is_awake(watcher, life, &Event::Lease(watcher, life)) {
            return;
        }
        let pace = RENEWAL + self.rng.range(0, 200);
        self.after(pace, Event::Lease(watcher, life));
        let (place, cut) = (self.watchers[watcher].place, self.watchers[watcher].cut.clone());
        if !self.door(place, &cut) || !self.io_works() {
            self.ceph.stalled_at = Some(self.now);
            self.after(STALLED, Event::Deliver(watcher, life, Box::new(Input::Lease(LeaseState::Stalled))));
            return;
        }
        let now = self.own_time(watcher);
        let found = self.ceph.lease.clone();
        match self.watchers[watcher].rule.decide(found.as_ref(), now) {
            LeaseStep::Wait(free_at) => {
                let holder = found.map(|lease| lease.holder).unwrap_or_default();
                self.sends(watcher, Input::Lease(LeaseState::Taken { holder, free_at }));
            }
            LeaseStep::Write(next) => {
                let latency = self.latency();
                let write = LeaseWrite { watcher, life, found, next, asked: self.now };
                self.after(latency, Event::LeaseWrite(Box::new(write)));
            }
        }
    }

    pub(crate) fn lease_write(&mut self, write: LeaseWrite) {
        let LeaseWrite { watcher, life, ref found, ref next, asked } = write;
        let late = self.now - asked > STALLED;
        if !self.io_works() {
            if late {
                self.after(0, Event::Deliver(watcher, life, Box::new(Input::Lease(LeaseState::Stalled))));
            }
            // It waits in the cluster, whoever asked for it.
            if self.now - asked < 20_000 {
                self.after(400, Event::LeaseWrite(Box::new(write)));
            }
            return;
        }
        if self.ceph.lease != *found {
            return;
        }
        self.ceph.lease = Some(next.clone());
        let born = self.watchers[watcher].born;
        if !late && self.lives(watcher, life) {
            let until = Duration::from_millis(asked - born) + next.term();
            let held = LeaseState::Held { until, generation: next.generation };
            self.after(1, Event::Deliver(watcher, life, Box::new(Input::Lease(held))));
        }
    }

    /// What a watcher reads from the cluster now and then, and what it could not write before.
    pub(crate) fn poll(&mut self, watcher: usize, life: u64) {
        if !self.is_awake(watcher, life, &Event::Poll(watcher, life)) {
            return;
        }
        self.after(POLL, Event::Poll(watcher, life));
        let (place, cut) = (self.watchers[watcher].place, self.watchers[watcher].cut.clone());
        if !self.door(place, &cut) || !self.io_works() {
            return;
        }
        self.writes_journal(watcher);
        let leads = self.watchers[watcher].brain.leads(self.own_time(watcher));
        if leads {
            self.looks_after_guests(watcher);
        }
        self.sends(watcher, Input::Armed(self.armed));
        for host in 0..self.hosts.len() {
            let (name, on) = (self.names[host].clone(), self.hosts[host].maintenance);
            self.sends(watcher, Input::Maintenance { host: name.clone(), on });
            let phase = self.ceph.journal.get(&host).copied().unwrap_or_default();
            let mine = self.watchers[watcher].brain.phase(&name);
            if self.is_fenced(host) {
                if leads && mine > phase && !self.has(Mutation::DropsJournal) {
                    self.enters(host, mine);
                }
                let phase = if phase.is_fenced() { phase } else { Phase::Fencing };
                if leads && phase > mine {
                    self.sends(watcher, Input::Incident { host: name, phase });
                }
                if leads {
                    self.closes_gates(watcher, host);
                }
            } else if mine.is_fenced() && phase == Phase::Watched {
                self.sends(watcher, Input::Readmitted { host: name });
            }
        }
    }

    fn enters(&mut self, host: usize, phase: Phase) {
        self.ceph.journal.insert(host, phase);
        self.ceph.entered[host] |= phase.is_fenced();
    }

    /// Entries of the journal go to the cluster as soon as it answers.
    fn writes_journal(&mut self, watcher: usize) {
        let (place, cut) = (self.watchers[watcher].place, self.watchers[watcher].cut.clone());
        let leads = self.watchers[watcher].brain.leads(self.own_time(watcher));
        if !self.door(place, &cut) || !self.io_works() {
            if self.has(Mutation::DropsJournal) {
                self.watchers[watcher].unwritten.clear();
            }
            return;
        }
        for entry in std::mem::take(&mut self.watchers[watcher].unwritten) {
            // What happened is written down in any case; how far the incident is, only its leader says.
            let host = Self::host_of(&entry.host);
            self.ceph.entered[host] |= entry.phase.is_fenced();
            if leads {
                self.ceph.journal.insert(host, entry.phase);
            }
        }
    }

    /// Stands for what restarts guests that died alone: their claim names a host that is well, and they are not there.
    fn looks_after_guests(&mut self, watcher: usize) {
        for guest in 0..self.guests.len() {
            let claim = self.ceph.claims[guest];
            let (Named::Running(host) | Named::Starting(host)) = claim.named else { continue };
            let beats = {
                let it = &self.watchers[watcher];
                it.brain.reports().beats(&self.names[host], &it.settings)
            };
            let gone = self.copy_on(guest, host).is_none_or(|copy| copy.doing == Doing::Paused);
            if beats && gone && self.armed && !self.is_fenced(host) && !self.tasks.contains_key(&claim.by) {
                let owner = Owner::Watcher(watcher, self.watchers[watcher].life);
                self.begin(owner, Kind::Recover(Recovery::of(host, false)));
            }
        }
    }

    /// Hosts that were booted since a fence have forgotten that they refuse its migrations.
    fn closes_gates(&mut self, watcher: usize, fenced: usize) {
        let (place, cut) = (self.watchers[watcher].place, self.watchers[watcher].cut.clone());
        for host in 0..self.hosts.len() {
            let open = host != fenced && !self.hosts[host].gate.contains(&fenced);
            if open && self.reaches_ssh(place, &cut, host) {
                let boot = self.hosts[host].boot;
                let ask = Ask::CloseGate(fenced);
                let request = Request { host, boot, guest: 0, generation: 0, ask, task: 0, sequence: 0 };
                let latency = self.latency();
                self.after(latency, Event::Arrive(Box::new(request)));
            }
        }
    }

    /// How many copies of a guest can write.
    pub(crate) fn writers(&self, guest: usize) -> usize {
        let running = self.copies.iter().filter(|copy| copy.guest == guest && copy.doing == Doing::Running);
        running.filter(|copy| self.writes(copy)).count()
    }
}
