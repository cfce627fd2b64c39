//! All that the witnesses said last, with the times.

use super::input::{Input, Power, Work};
use super::settings::Settings;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What one host saw of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// When it was asked to look.
    pub asked: Duration,
    /// Whether it reached the other one on the management network.
    pub management: Option<bool>,
    /// Whether it reached the other one on the storage network.
    pub storage: Option<bool>,
}

impl View {
    /// Of two views of the same witness the one asked for later counts; of two asked for at once, whatever was reached.
    fn and(self, other: View) -> View {
        let reached = |a: Option<bool>, b: Option<bool>| match (a, b) {
            (Some(a), Some(b)) => Some(a || b),
            (a, b) => a.or(b),
        };
        match self.asked.cmp(&other.asked) {
            std::cmp::Ordering::Less => other,
            std::cmp::Ordering::Greater => self,
            std::cmp::Ordering::Equal => View {
                asked: self.asked,
                management: reached(self.management, other.management),
                storage: reached(self.storage, other.storage),
            },
        }
    }
}

/// What the mons said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mons {
    /// When they were asked.
    pub asked: Duration,
    /// All mons of the cluster, by their hosts.
    pub members: BTreeSet<String>,
    /// Those that answered.
    pub answering: BTreeSet<String>,
    /// Those in quorum.
    pub quorum: BTreeSet<String>,
}

impl Mons {
    /// Whether enough mons answer to form a quorum. During an election that is all there is to see; a fence is proven by
    /// its commit, which needs the quorum itself.
    pub fn are_enough(&self) -> bool {
        let enough = |mons: &BTreeSet<String>| mons.intersection(&self.members).count() * 2 > self.members.len();
        enough(&self.answering)
    }
}

/// Work of a host that is not done in time, beat after beat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Since when.
    pub since: Duration,
    /// What the last beat said.
    pub says: Work,
}

/// What is known of one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostReports {
    /// When its last beat came in, and how long the watcher had listened then.
    pub beat: Option<(Duration, Duration)>,
    /// Why its stream ended, if it did since its last beat.
    pub lost: Option<String>,
    /// Its disk, where that is late.
    pub disk: Option<Trouble>,
    /// Its libvirt, where that is late.
    pub libvirt: Option<Trouble>,
    /// What others saw of it.
    pub views: BTreeMap<String, View>,
    /// When somebody last said that its storage network is not reached.
    pub storage_denied: Option<Duration>,
    /// Who was asked about it since it fell silent, and when first.
    pub asked: BTreeMap<String, Duration>,
    /// Its OSDs in Ceph: when that was heard, how many are up and down.
    pub osds: Option<(Duration, usize, usize)>,
    /// What its BMC said, and when.
    pub power: Option<(Duration, Power)>,
}

/// What is known of all hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reports {
    /// The hosts of the inventory.
    pub hosts: BTreeMap<String, HostReports>,
    /// What the mons said.
    pub mons: Option<Mons>,
    /// How long the watcher has listened: its time without the pauses in which it did not run.
    pub listened: Duration,
    /// Since when it remembers, by both times.
    pub began: (Duration, Duration),
    stepped: Duration,
}

impl Reports {
    /// Nothing is known yet.
    pub fn new(hosts: impl IntoIterator<Item = String>, now: Duration) -> Self {
        let hosts = hosts.into_iter().map(|host| (host, HostReports::default())).collect();
        Reports { hosts, mons: None, listened: Duration::ZERO, began: (now, Duration::ZERO), stepped: now }
    }

    /// Time has come to `now`. Gives the pause, if it was so long that all that was heard before has to be forgotten.
    pub fn listen(&mut self, now: Duration, settings: &Settings) -> Option<Duration> {
        let pause = now.saturating_sub(self.stepped);
        self.stepped = self.stepped.max(now);
        self.listened += pause.min(settings.attention);
        if pause <= settings.oversleep {
            return None;
        }
        for host in self.hosts.values_mut() {
            *host = HostReports { osds: host.osds, ..HostReports::default() };
        }
        self.mons = None;
        self.began = (now, self.listened);
        Some(pause)
    }

    /// Writes down what was said.
    pub fn take(&mut self, now: Duration, input: &Input) {
        let listened = self.listened;
        match input {
            Input::Beat { host, disk, libvirt } => self.change(host, |host| {
                host.beat = Some((now, listened));
                host.lost = None;
                host.asked.clear();
                trouble(&mut host.disk, disk, now);
                trouble(&mut host.libvirt, libvirt, now);
            }),
            Input::BeatLost { host, why } => self.change(host, |host| host.lost = Some(why.clone())),
            Input::View { from, of, asked, management, storage } if self.hosts.contains_key(from) => {
                let view = View { asked: *asked, management: *management, storage: *storage };
                self.change(of, |host| {
                    if *storage == Some(false) {
                        host.storage_denied = Some(now);
                    }
                    let kept = host.views.get(from).map_or(view, |before| before.and(view));
                    host.views.insert(from.clone(), kept);
                });
            }
            Input::Mons { asked, members, answering, quorum } => {
                let (members, answering, quorum) = (members.clone(), answering.clone(), quorum.clone());
                if self.mons.as_ref().is_none_or(|known| known.asked <= *asked) {
                    self.mons = Some(Mons { asked: *asked, members, answering, quorum });
                }
            }
            Input::Osds { host, up, down } => self.change(host, |host| host.osds = Some((now, *up, *down))),
            Input::Power { host, power } => self.change(host, |host| host.power = Some((now, *power))),
            _ => {}
        }
    }

    fn change(&mut self, host: &str, with: impl FnOnce(&mut HostReports)) {
        if let Some(host) = self.hosts.get_mut(host) {
            with(host);
        }
    }

    /// How long a host has been silent while the watcher listened. One that was never heard is given some time on top.
    pub fn silence(&self, host: &str, settings: &Settings) -> Duration {
        match self.hosts.get(host).and_then(|host| host.beat) {
            Some((_, heard)) => self.listened.saturating_sub(heard),
            None => self.listened.saturating_sub(self.began.1 + settings.grace),
        }
    }

    /// Whether a host beats.
    pub fn beats(&self, host: &str, settings: &Settings) -> bool {
        self.hosts.get(host).is_some_and(|host| host.beats(self.listened, settings))
    }

    /// From when on answers about a host count: what was asked before it was suspected says nothing of what is so since.
    pub fn counts_from(&self, host: &str, settings: &Settings) -> Duration {
        let Some(known) = self.hosts.get(host).filter(|_| !self.beats(host, settings)) else { return Duration::ZERO };
        let asked = known.asked.values().min().copied();
        asked.unwrap_or_else(|| known.beat.map_or(self.began.0, |(at, _)| at))
    }
}

impl HostReports {
    /// Whether it beats, for a watcher that has listened for so long.
    pub fn beats(&self, listened: Duration, settings: &Settings) -> bool {
        self.beat.is_some_and(|(_, heard)| listened.saturating_sub(heard) < settings.suspect_after)
    }

    /// Whether there is nothing about it to think about.
    pub fn is_calm(&self, now: Duration, listened: Duration, settings: &Settings) -> bool {
        self.beats(listened, settings)
            && self.disk.is_none()
            && self.libvirt.is_none()
            && self.storage_denied.is_none_or(|at| now.saturating_sub(at) > settings.view_age)
    }
}

impl Reports {
    /// Whether there is nothing about a host to think about.
    pub fn is_calm(&self, now: Duration, host: &str, settings: &Settings) -> bool {
        self.hosts.get(host).is_some_and(|host| host.is_calm(now, self.listened, settings))
    }
}

fn trouble(kept: &mut Option<Trouble>, work: &Work, now: Duration) {
    *kept = match (kept.take(), work) {
        (_, Work::Done(_)) => None,
        (Some(before), says) => Some(Trouble { since: before.since, says: says.clone() }),
        (None, says) => Some(Trouble { since: now, says: says.clone() }),
    };
}
