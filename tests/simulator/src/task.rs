//! Work that takes several steps, between any two of which whoever does it may die or sleep.

use crate::driver::tell_owner;
use crate::fencing::Fencing;
use crate::hosts::Doing;
use crate::moves::Move;
use crate::operator::Readmission;
use crate::queue::{Event, Ms};
use crate::recovery::Recovery;
use crate::world::{Cut, Place, World};

/// What a task hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Time to go on.
    Go,
    Done,
    /// The request is older than the floor.
    Refused,
    Failed,
    NoAnswer,
    /// What a look found.
    Found(Option<Doing>),
}

/// Who does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A watcher, in one of its lives.
    Watcher(usize, u64),
    /// A person.
    Operator,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Fence(Fencing),
    Recover(Recovery),
    Stop(usize),
    Move(Move),
    Readmit(Readmission),
}

/// Work under way.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) id: u64,
    pub(crate) owner: Owner,
    pub(crate) sequence: u64,
    pub(crate) began: Ms,
    pub(crate) kind: Kind,
}

impl Task {
    /// The host it is about.
    pub(crate) fn about(&self) -> Option<(u8, usize)> {
        match &self.kind {
            Kind::Fence(fence) => Some((0, fence.host)),
            Kind::Recover(recovery) => Some((if recovery.fenced { 1 } else { 2 }, recovery.host)),
            Kind::Stop(host) => Some((3, *host)),
            Kind::Readmit(readmission) => Some((4, readmission.host)),
            Kind::Move(_) => None,
        }
    }
}

impl World {
    pub(crate) fn begin(&mut self, owner: Owner, kind: Kind) {
        let id = self.id();
        let task = Task { id, owner, sequence: 0, began: self.now, kind };
        let twice = self.tasks.values().any(|other| other.owner == owner && other.about() == task.about());
        if twice && task.about().is_some() {
            return;
        }
        self.tasks.insert(id, task);
        self.after(1, Event::Task(id, 0, Reply::Go));
    }

    pub(crate) fn place_of(&self, owner: Owner) -> (Place, Cut) {
        match owner {
            Owner::Watcher(watcher, _) => (self.watchers[watcher].place, self.watchers[watcher].cut.clone()),
            Owner::Operator => (Place::Outside, Cut::default()),
        }
    }

    /// Comes back to a task later.
    pub(crate) fn later(&mut self, task: &Task, time: Ms) {
        self.after(time, Event::Task(task.id, task.sequence, Reply::Go));
    }

    /// Comes back to a task after as long as a message takes.
    pub(crate) fn soon(&mut self, task: &Task) {
        let latency = self.latency();
        self.later(task, latency);
    }

    /// Whether documents can be read and written by a task. Where not, it is come back to.
    pub(crate) fn has_documents(&mut self, task: &Task) -> bool {
        let (place, cut) = self.place_of(task.owner);
        let works = self.door(place, &cut) && self.io_works();
        if !works {
            self.later(task, 300);
        }
        works
    }

    pub(crate) fn task_goes_on(&mut self, id: u64, sequence: u64, reply: Reply) {
        let Some(task) = self.tasks.get(&id).filter(|task| task.sequence == sequence) else { return };
        if let Owner::Watcher(watcher, life) = task.owner {
            let known = &self.watchers[watcher];
            if !known.alive || known.life != life {
                self.tasks.remove(&id);
                return;
            }
            if known.asleep_until > self.now {
                let at = known.asleep_until + self.rng.range(0, 50);
                self.queue.add(at, Event::Task(id, sequence, reply));
                return;
            }
            if self.counts_to_crash(watcher) {
                return;
            }
        }
        let Some(mut task) = self.tasks.remove(&id) else { return };
        task.sequence += 1;
        let ended = match task.kind {
            Kind::Fence(_) => self.fence_step(&mut task, reply),
            Kind::Recover(_) => self.recover_step(&mut task, reply),
            Kind::Stop(host) => self.stop_step(&task, host, reply),
            Kind::Move(_) => self.move_step(&mut task, reply),
            Kind::Readmit(_) => self.readmit_step(&mut task, reply),
        };
        match ended {
            None => {
                self.tasks.insert(id, task);
            }
            Some(answer) => tell_owner(self, task.owner, answer),
        }
    }
}
