//! A rack that beats, told to a brain 50 ms at a time.

use crate::watch::brain::{Action, Brain, EventKind, Input, LeaseState, Settings, Work};
use std::collections::BTreeSet;
use std::time::Duration;

pub(super) const STEP: Duration = Duration::from_millis(50);

/// A rack around a brain: what each host is like, and what the brain asked for.
pub(super) struct Bench {
    pub(super) brain: Brain,
    pub(super) now: Duration,
    pub(super) hosts: Vec<String>,
    /// Off: no beats, and nobody reaches it.
    pub(super) dead: BTreeSet<String>,
    /// No beats reach the watcher.
    pub(super) deaf: BTreeSet<String>,
    pub(super) cut_management: BTreeSet<String>,
    pub(super) cut_storage: BTreeSet<String>,
    /// Hosts whose views are lost.
    pub(super) mute: BTreeSet<String>,
    pub(super) disk: Work,
    pub(super) libvirt: Work,
    pub(super) lease: Option<LeaseState>,
    pub(super) mons_answer: bool,
    pub(super) seen: Vec<(Duration, Action)>,
}

fn fine() -> Work {
    Work::Done(Duration::from_millis(2))
}

impl Bench {
    pub(super) fn new(hosts: usize) -> Self {
        let hosts: Vec<String> = (1..=hosts).map(|n| format!("h{n:02}")).collect();
        let until = Duration::from_secs(3600);
        Bench {
            brain: Brain::new(Settings::fastest(), hosts.clone()),
            now: Duration::ZERO,
            hosts,
            dead: BTreeSet::new(),
            deaf: BTreeSet::new(),
            cut_management: BTreeSet::new(),
            cut_storage: BTreeSet::new(),
            mute: BTreeSet::new(),
            disk: fine(),
            libvirt: fine(),
            lease: Some(LeaseState::Held { until, generation: 1 }),
            mons_answer: true,
            seen: Vec::new(),
        }
    }

    /// All has been quiet for a while.
    pub(super) fn settled(hosts: usize) -> Self {
        let mut bench = Bench::new(hosts);
        bench.run(Duration::from_secs(10));
        assert!(bench.told().iter().all(|(_, kind, _)| *kind == EventKind::Lease), "{:?}", bench.told());
        bench.seen.clear();
        bench
    }

    pub(super) fn tell(&mut self, input: &Input) {
        let actions = self.brain.step(self.now, input);
        for action in actions {
            self.seen.push((self.now, action.clone()));
            self.answer(&action);
        }
    }

    fn mons(&self) -> Vec<String> {
        self.hosts.iter().take(3).cloned().collect()
    }

    fn answer(&mut self, action: &Action) {
        match action {
            Action::AskMons if self.mons_answer => {
                let members: BTreeSet<String> = self.mons().into_iter().collect();
                let up = |mon: &&String| !self.dead.contains(*mon) && !self.deaf.contains(*mon);
                let answering: BTreeSet<String> = members.iter().filter(up).cloned().collect();
                let quorum = answering.clone();
                self.tell(&Input::Mons { asked: self.now, members, answering, quorum });
            }
            Action::AskPeers { from, of } => {
                let mut views = Vec::new();
                for from in from.iter().filter(|from| !self.dead.contains(*from) && !self.mute.contains(*from)) {
                    for of in of.iter().filter(|of| *of != from) {
                        let reach = |cut: &BTreeSet<String>| {
                            Some(!self.dead.contains(of) && !cut.contains(of) && !cut.contains(from))
                        };
                        let (management, storage) = (reach(&self.cut_management), reach(&self.cut_storage));
                        let (from, of) = (from.clone(), of.clone());
                        views.push(Input::View { from, of, asked: self.now, management, storage });
                    }
                }
                views.iter().for_each(|view| self.brain_only(view));
            }
            _ => {}
        }
    }

    fn brain_only(&mut self, input: &Input) {
        let actions = self.brain.step(self.now, input);
        self.seen.extend(actions.into_iter().map(|action| (self.now, action)));
    }

    /// One step of time. Beats come every 150 ms.
    pub(super) fn step(&mut self) {
        self.now += STEP;
        if let Some(lease) = self.lease.clone() {
            self.tell(&Input::Lease(lease));
        }
        if self.now.as_millis().is_multiple_of(150) {
            for host in self.hosts.clone() {
                let silent = [&self.dead, &self.deaf, &self.cut_management].iter().any(|set| set.contains(&host));
                if !silent {
                    let (disk, libvirt) = match host == self.hosts[0] {
                        true => (self.disk.clone(), self.libvirt.clone()),
                        false => (fine(), fine()),
                    };
                    self.tell(&Input::Beat { host, disk, libvirt });
                }
            }
        }
        self.tell(&Input::Tick);
    }

    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.step();
        }
    }

    pub(super) fn told(&self) -> Vec<(Duration, EventKind, String)> {
        self.seen
            .iter()
            .filter_map(|(at, action)| match action {
                Action::Tell(event) => Some((*at, event.kind, event.text.clone())),
                _ => None,
            })
            .collect()
    }

    /// When something was asked for first.
    pub(super) fn when(&self, wanted: impl Fn(&Action) -> bool) -> Option<Duration> {
        self.seen.iter().find(|(_, action)| wanted(action)).map(|(at, _)| *at)
    }

    pub(super) fn fences(&self) -> Vec<String> {
        self.seen
            .iter()
            .filter_map(|(_, action)| match action {
                Action::Fence { host, .. } => Some(host.clone()),
                _ => None,
            })
            .collect()
    }
}
