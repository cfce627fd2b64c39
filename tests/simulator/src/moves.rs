//! Live migration between two libvirt daemons.

use crate::ceph::{Claim, Named};
use crate::fencing::Ended;
use crate::hosts::{Ask, CopyOf, Doing, Request};
use crate::mutation::Mutation;
use crate::queue::Event;
use crate::task::{Kind, Reply, Task};
use crate::world::World;

impl World {
    fn takes_from(&self, from: usize, to: usize) -> bool {
        let works = |host: usize| self.hosts[host].power && !self.hosts[host].hung && !self.hosts[host].no_libvirt;
        let open = self.has(Mutation::OpenGate) || !self.hosts[to].gate.contains(&from);
        works(from) && works(to) && self.storage(from, to) && open
    }

    /// Whether the connection between the two just hangs: it goes on when the link is back.
    fn hangs(&self, from: usize, to: usize) -> bool {
        let works = |host: usize| self.hosts[host].power && !self.hosts[host].no_libvirt;
        let open = self.has(Mutation::OpenGate) || !self.hosts[to].gate.contains(&from);
        works(from) && works(to) && open && !self.takes_from(from, to)
    }

    fn job(&mut self, guest: usize, host: usize, job: u64) {
        let is_it = |copy: &&mut CopyOf| copy.guest == guest && copy.host == host && copy.doing == Doing::Running;
        if let Some(copy) = self.copies.iter_mut().find(is_it) {
            copy.job = job;
        }
    }

    /// The source was told to move a guest.
    pub(crate) fn migrate(&mut self, request: &Request, to: usize) -> Reply {
        let (guest, from) = (request.guest, request.host);
        if self.copy_on(guest, from).is_none_or(|copy| copy.doing != Doing::Running || copy.job != 0) {
            return Reply::Failed;
        }
        if self.hangs(from, to) {
            // It waits in libvirt, whoever asked for it; a look finds the job.
            let job = self.id();
            self.job(guest, from, job);
            self.after(1000, Event::Waiting(Box::new(request.clone()), to, job, 0));
            return Reply::Done;
        }
        self.streams(guest, from, to)
    }

    /// A move that waits for its target.
    pub(crate) fn waits_on(&mut self, request: Box<Request>, to: usize, job: u64, tries: u32) {
        let (guest, from) = (request.guest, request.host);
        if self.copy_on(guest, from).is_none_or(|copy| copy.job != job) {
            return;
        }
        if self.hangs(from, to) && tries < 40 {
            self.after(1000, Event::Waiting(request, to, job, tries + 1));
            return;
        }
        self.changed = true;
        self.tell(|w| format!("{}: goes on with the move of guest {guest} to {}", w.names[from], w.names[to]));
        self.job(guest, from, 0);
        self.streams(guest, from, to);
    }

    fn streams(&mut self, guest: usize, from: usize, to: usize) -> Reply {
        let source = self.copy_on(guest, from).filter(|copy| copy.doing == Doing::Running).map(|copy| copy.lineage);
        let Some(lineage) = source.filter(|_| self.copy_on(guest, to).is_none() && self.takes_from(from, to)) else {
            return Reply::Failed;
        };
        let id = self.id();
        self.job(guest, from, id);
        self.copies.push(CopyOf { id, guest, host: to, doing: Doing::Incoming, lineage, since: self.now, job: 0 });
        let takes = self.rng.range(500, 6000);
        self.after(takes, Event::MoveEnd(id, 0));
        Reply::Done
    }

    /// All memory is over there, or should be.
    pub(crate) fn move_end(&mut self, id: u64, tries: u32) {
        self.changed = true;
        let source = self.copies.iter().find(|copy| copy.job == id).cloned();
        let target = self.copies.iter().find(|copy| copy.id == id && copy.doing == Doing::Incoming).cloned();
        let (Some(source), Some(target)) = (&source, &target) else {
            // One side is gone: the other one ends the move too.
            self.copies.retain(|copy| copy.id != id || copy.doing != Doing::Incoming);
            if let Some(source) = source {
                self.job(source.guest, source.host, 0);
            }
            return;
        };
        if tries < 30 && self.hangs(source.host, target.host) {
            self.after(1000, Event::MoveEnd(id, tries + 1));
            return;
        }
        if self.takes_from(source.host, target.host) {
            self.tell(|w| format!("{}: guest {} has arrived", w.names[target.host], target.guest));
            self.copies.retain(|copy| copy.id != source.id);
            if let Some(copy) = self.copies.iter_mut().find(|copy| copy.id == id) {
                copy.doing = Doing::Running;
            }
        } else {
            self.copies.retain(|copy| copy.id != id);
            self.job(source.guest, source.host, 0);
        }
    }

    /// What is on its way from a host to another one is dropped; its target ends.
    pub(crate) fn cut_streams(&mut self, from: usize, to: usize) {
        let sources: Vec<u64> = self.copies.iter().filter(|copy| copy.host == from).map(|copy| copy.lineage).collect();
        self.copies.retain(|copy| copy.host != to || copy.doing != Doing::Incoming || !sources.contains(&copy.lineage));
    }
}

/// How often a mover looks whether its move has ended.
const LOOKS: u32 = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Claim,
    Floor,
    Ask,
    Asked,
    TakeOver,
    LookTarget,
    LookedTarget,
    LookSource,
    LookedSource,
    Write(usize),
}

/// A move by a person, or off a slow host by the watch.
#[derive(Clone, Debug)]
pub(crate) struct Move {
    pub(crate) guest: usize,
    pub(crate) to: usize,
    from: usize,
    at: At,
    claim: Option<Claim>,
    looks: u32,
}

impl Move {
    pub(crate) fn of(guest: usize, to: usize) -> Self {
        Move { guest, to, from: 0, at: At::Claim, claim: None, looks: 0 }
    }

    /// Ends a move whose mover is gone.
    pub(crate) fn finish(guest: usize, claim: Claim) -> Option<Self> {
        let Named::Moving(from, to) = claim.named else { return None };
        Some(Move { guest, to, from, at: At::TakeOver, claim: Some(claim), looks: 0 })
    }
}

impl World {
    /// Aborts the move of a guest from here; its target ends.
    pub(crate) fn abort(&mut self, guest: usize, from: usize) {
        let job = self.copy_on(guest, from).map_or(0, |copy| copy.job);
        self.copies.retain(|copy| job == 0 || copy.id != job || copy.doing != Doing::Incoming);
        self.job(guest, from, 0);
    }

    pub(crate) fn move_step(&mut self, task: &mut Task, reply: Reply) -> Ended {
        let Kind::Move(mut moving) = task.kind.clone() else { return Some(None) };
        let ended = match self.now - task.began > 60_000 {
            true => Some(None),
            false => self.move_on(task, &mut moving, reply),
        };
        task.kind = Kind::Move(moving);
        ended
    }

    fn move_goes(&mut self, task: &Task, moving: &mut Move, at: At) -> Ended {
        moving.at = at;
        self.soon(task);
        None
    }

    fn move_on(&mut self, task: &Task, moving: &mut Move, reply: Reply) -> Ended {
        let (guest, to) = (moving.guest, moving.to);
        if matches!(moving.at, At::Claim | At::TakeOver | At::Write(_)) && !self.has_documents(task) {
            return None;
        }
        let generation = moving.claim.map_or(0, |claim| claim.generation);
        match (moving.at, reply) {
            (At::Claim, _) => {
                let read = self.ceph.claims[guest];
                let Named::Running(from) = read.named else { return Some(None) };
                let refused = from == to || self.hosts[to].maintenance || self.is_fenced(to) || self.is_fenced(from);
                let named = Named::Moving(from, to);
                let claim = if refused { None } else { self.swap_claim(guest, read, named, task.id) };
                let Some(claim) = claim else { return Some(None) };
                moving.from = from;
                moving.claim = Some(claim);
                self.move_goes(task, moving, At::Floor)
            }
            (At::Floor, _) => {
                moving.at = At::Ask;
                self.ask(task, to, guest, generation, Ask::Look);
                None
            }
            (At::Ask, Reply::Found(None)) => {
                moving.at = At::Asked;
                self.ask(task, moving.from, guest, generation, Ask::Migrate(to));
                None
            }
            (At::Ask | At::Asked, _) => self.move_goes(task, moving, At::TakeOver),
            (At::TakeOver, _) => {
                // In place and one generation on: what was asked for before can be revoked now.
                let Some(read) = moving.claim else { return Some(None) };
                let Some(claim) = self.swap_claim(guest, read, read.named, task.id) else { return Some(None) };
                moving.claim = Some(claim);
                self.move_goes(task, moving, At::LookSource)
            }
            // The source first: what was asked of it is revoked with the look, so that nothing leaves after it.
            (At::LookSource, _) => {
                moving.at = At::LookedSource;
                self.ask(task, moving.from, guest, generation, Ask::Look);
                None
            }
            (At::LookedSource, Reply::Found(Some(Doing::Leaving))) if moving.looks < LOOKS => {
                moving.looks += 1;
                moving.at = At::LookSource;
                self.later(task, 1000);
                None
            }
            (At::LookedSource, Reply::Found(Some(Doing::Leaving))) => Some(None),
            (At::LookedSource, Reply::Found(_)) => self.move_goes(task, moving, At::LookTarget),
            (At::LookTarget, _) => {
                moving.at = At::LookedTarget;
                self.ask(task, to, guest, generation, Ask::Look);
                None
            }
            (At::LookedTarget, Reply::Found(Some(Doing::Running))) => self.move_goes(task, moving, At::Write(to)),
            (At::LookedTarget, Reply::Found(Some(_))) if moving.looks < LOOKS => {
                moving.looks += 1;
                moving.at = At::LookTarget;
                self.later(task, 1000);
                None
            }
            // Where it runs nowhere, whoever looks after lost guests finds it by this claim.
            (At::LookedTarget, Reply::Found(None)) => {
                let from = moving.from;
                self.move_goes(task, moving, At::Write(from))
            }
            (At::Write(host), _) => {
                if let Some(claim) = moving.claim {
                    self.swap_claim(guest, claim, Named::Running(host), task.id);
                }
                Some(None)
            }
            // Not known: the claim goes on naming both.
            _ => Some(None),
        }
    }
}
