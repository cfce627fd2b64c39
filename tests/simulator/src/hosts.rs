//! Hosts, the copies of guests on them, and what they do with requests.

use crate::mutation::Mutation;
use crate::queue::{Event, Ms};
use crate::task::{Reply, Task};
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};

/// A host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Host {
    pub(crate) power: bool,
    /// Answers pings and nothing else; its guests stand still.
    pub(crate) hung: bool,
    pub(crate) management: bool,
    pub(crate) storage: bool,
    pub(crate) no_ssh: bool,
    pub(crate) slow_disk: bool,
    pub(crate) no_libvirt: bool,
    pub(crate) bmc_lies: bool,
    /// How late its OSD takes new maps.
    pub(crate) map_delay: Ms,
    pub(crate) boot: u64,
    /// The lowest generation of each guest whose requests it still carries out.
    pub(crate) floor: BTreeMap<usize, u64>,
    /// Hosts whose migrations it refuses.
    pub(crate) gate: BTreeSet<usize>,
    pub(crate) maintenance: bool,
    /// When that was changed last.
    pub(crate) maintained_at: Ms,
    /// Since when it is off, hung, or without storage.
    pub(crate) bad_at: Option<Ms>,
    /// Since when it is shut out, if it is.
    pub(crate) fenced_at: Ms,
    /// When it was let in again.
    pub(crate) readmitted_at: Ms,
    /// Until when it was.
    pub(crate) good_at: Ms,
}

impl Host {
    pub(crate) fn is_bad(&self) -> bool {
        !self.power || self.hung || !self.storage
    }
}

/// What a copy of a guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    Paused,
    Running,
    /// Takes in the memory of another copy.
    Incoming,
    /// Runs, and a move of it is under way. Only looks say this.
    Leaving,
}

/// A copy of a guest: a QEMU process.
#[derive(Clone, Debug)]
pub(crate) struct CopyOf {
    pub(crate) id: u64,
    pub(crate) guest: usize,
    pub(crate) host: usize,
    pub(crate) doing: Doing,
    pub(crate) lineage: u64,
    pub(crate) since: Ms,
    /// The move that is under way from here, or 0.
    pub(crate) job: u64,
}

/// What a host is asked to do.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    /// Raise the floor to the generation, and look.
    Look,
    Create,
    Resume,
    Destroy,
    Migrate(usize),
    /// Abort the move that is under way from here.
    Abort,
    CloseGate(usize),
    OpenGate(usize),
    /// End all copies that are not of a younger generation than these.
    StopAll(BTreeMap<usize, u64>),
}

/// A request to a host.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) host: usize,
    pub(crate) boot: u64,
    pub(crate) guest: usize,
    pub(crate) generation: u64,
    pub(crate) ask: Ask,
    /// The task that asked, and where it stood.
    pub(crate) task: u64,
    pub(crate) sequence: u64,
}

impl World {
    pub(crate) fn copy_on(&self, guest: usize, host: usize) -> Option<&CopyOf> {
        self.copies.iter().find(|copy| copy.guest == guest && copy.host == host)
    }

    /// A request has reached its host.
    pub(crate) fn arrive(&mut self, request: &Request) {
        let host = &self.hosts[request.host];
        if !host.power || host.boot != request.boot {
            return;
        }
        if host.hung {
            self.after(500, Event::Arrive(Box::new(request.clone())));
            return;
        }
        let reply = self.carry_out(request);
        if !matches!(request.ask, Ask::CloseGate(_) | Ask::OpenGate(_) | Ask::StopAll(_)) {
            self.tell(|w| {
                let (guest, host) = (request.guest, &w.names[request.host]);
                format!("{host}: {:?} of guest {guest}, generation {}: {reply:?}", request.ask, request.generation)
            });
        }
        let latency = self.latency();
        self.after(latency, Event::Task(request.task, request.sequence, reply));
    }

    /// Compares a request's generation with the floor, and raises that, in one step.
    fn is_refused(&mut self, request: &Request) -> bool {
        let ignore = self.has(Mutation::NoFloor);
        let floor = self.hosts[request.host].floor.entry(request.guest).or_default();
        let older = request.generation < *floor;
        *floor = (*floor).max(request.generation);
        older && !ignore
    }

    fn carry_out(&mut self, request: &Request) -> Reply {
        let (host, guest) = (request.host, request.guest);
        self.changed = true;
        match &request.ask {
            Ask::CloseGate(from) => {
                self.hosts[host].gate.insert(*from);
                if !self.has(Mutation::OpenGate) {
                    self.cut_streams(*from, host);
                }
                return Reply::Done;
            }
            Ask::OpenGate(from) => {
                self.hosts[host].gate.remove(from);
                return Reply::Done;
            }
            Ask::StopAll(generations) => {
                for (guest, generation) in generations {
                    let floor = self.hosts[host].floor.get(guest).copied().unwrap_or_default();
                    if floor <= *generation {
                        self.copies.retain(|copy| (copy.guest, copy.host) != (*guest, host));
                    }
                }
                return Reply::Found(self.copies.iter().any(|copy| copy.host == host).then_some(Doing::Running));
            }
            _ => {}
        }
        if self.hosts[host].no_libvirt {
            return Reply::Failed;
        }
        if self.is_refused(request) {
            return Reply::Refused;
        }
        let found = self.copy_on(guest, host).map(|copy| match copy.doing {
            Doing::Running if copy.job != 0 => Doing::Leaving,
            doing => doing,
        });
        match &request.ask {
            Ask::Look => Reply::Found(found),
            Ask::Create if found.is_some() => Reply::Failed,
            Ask::Create => {
                let id = self.id();
                let copy = CopyOf { id, guest, host, doing: Doing::Paused, lineage: id, since: self.now, job: 0 };
                self.copies.push(copy);
                Reply::Done
            }
            // It reads nothing of its disk before it is let go on: its memory is as young as this moment.
            Ask::Resume => {
                let lineage = self.id();
                match self.copies.iter_mut().find(|copy| copy.guest == guest && copy.host == host) {
                    Some(copy) if copy.doing == Doing::Paused => {
                        copy.doing = Doing::Running;
                        copy.lineage = lineage;
                        Reply::Done
                    }
                    Some(copy) if copy.doing == Doing::Running => Reply::Done,
                    _ => Reply::Failed,
                }
            }
            Ask::Destroy => {
                self.copies.retain(|copy| (copy.guest, copy.host) != (guest, host));
                Reply::Done
            }
            Ask::Abort => {
                self.abort(guest, host);
                Reply::Done
            }
            Ask::Migrate(to) => self.migrate(request, *to),
            _ => Reply::Failed,
        }
    }

    /// Sends a request; the task hears of it, or that nobody answered in two seconds.
    pub(crate) fn ask(&mut self, task: &Task, host: usize, guest: usize, generation: u64, ask: Ask) {
        let (place, cut) = self.place_of(task.owner);
        let (task, sequence) = (task.id, task.sequence);
        let limit = match ask {
            Ask::Migrate(_) => 12_000,
            _ => 2000,
        };
        self.after(limit, Event::Task(task, sequence, Reply::NoAnswer));
        if !self.reaches_ssh(place, &cut, host) {
            return;
        }
        let boot = self.hosts[host].boot;
        let mut latency = self.latency();
        if self.rng.percent(3) {
            latency += self.rng.range(500, 25_000);
        }
        let request = Request { host, boot, guest, generation, ask, task, sequence };
        self.after(latency, Event::Arrive(Box::new(request)));
    }
}
