//! Commands of people, in between.

use crate::brain::Input;
use crate::brain::Phase;
use crate::ceph::Named;
use crate::driver::tell_all;
use crate::fencing::Ended;
use crate::hosts::Ask;
use crate::moves::Move;
use crate::mutation::Mutation;
use crate::queue::Event;
use crate::task::{Kind, Owner, Reply, Task};
use crate::world::World;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Claims,
    Floors(usize),
    Ends(usize),
    Lift,
    Gates(usize),
    Forget,
}

/// A host that is let in again.
#[derive(Clone, Debug)]
pub(crate) struct Readmission {
    pub(crate) host: usize,
    at: At,
    generations: Vec<u64>,
}

impl Readmission {
    pub(crate) fn of(host: usize) -> Self {
        Readmission { host, at: At::Claims, generations: Vec::new() }
    }
}

impl World {
    pub(crate) fn readmit_step(&mut self, task: &mut Task, reply: Reply) -> Ended {
        let Kind::Readmit(mut readmission) = task.kind.clone() else { return Some(None) };
        let ended = self.readmit_on(task, &mut readmission, reply);
        task.kind = Kind::Readmit(readmission);
        ended
    }

    fn readmit_on(&mut self, task: &Task, readmission: &mut Readmission, reply: Reply) -> Ended {
        let host = readmission.host;
        match readmission.at {
            At::Claims => {
                if !self.has_documents(task) {
                    return (self.now - task.began > 30_000).then_some(None);
                }
                if !self.is_fenced(host) {
                    return Some(None);
                }
                // Guests that no other host has room for are still named here. They are taken over in place, so that what
                // follows revokes everything older; once the host is let in, they are guests that run nowhere.
                for guest in 0..self.guests.len() {
                    let claim = self.ceph.claims[guest];
                    if claim.named.hosts().contains(&host) {
                        self.swap_claim(guest, claim, claim.named, task.id);
                    }
                }
                readmission.generations = self.ceph.claims.iter().map(|claim| claim.generation).collect();
                readmission.at = At::Floors(0);
                self.soon(task);
            }
            At::Floors(guest) => {
                if guest > 0 && !matches!(reply, Reply::Found(_)) {
                    return Some(None);
                }
                match readmission.generations.get(guest) {
                    Some(generation) => {
                        readmission.at = At::Floors(guest + 1);
                        self.ask(task, host, guest, *generation, Ask::Look);
                    }
                    None => {
                        readmission.at = At::Ends(0);
                        self.soon(task);
                    }
                }
            }
            At::Ends(guest) => {
                if guest > 0 && reply != Reply::Done {
                    return Some(None);
                }
                match readmission.generations.get(guest) {
                    Some(generation) if !self.has(Mutation::DirtyReadmit) => {
                        readmission.at = At::Ends(guest + 1);
                        self.ask(task, host, guest, *generation, Ask::Destroy);
                    }
                    _ => {
                        readmission.at = At::Lift;
                        self.soon(task);
                    }
                }
            }
            At::Lift => {
                // With a deadline at the mon: one that comes late does nothing.
                if !self.has_quorum() || self.now - task.began > 30_000 {
                    return Some(None);
                }
                self.tell(|w| format!("operator: {} is readmitted", w.names[host]));
                self.lift_fence(host);
                self.ceph.records.remove(&host);
                readmission.at = At::Gates(0);
                self.soon(task);
            }
            At::Gates(other) if other < self.hosts.len() => {
                readmission.at = At::Gates(other + 1);
                self.ask(task, other, 0, 0, Ask::OpenGate(host));
            }
            At::Gates(_) => {
                readmission.at = At::Forget;
                self.soon(task);
            }
            At::Forget => {
                if !self.has_documents(task) {
                    return None;
                }
                if !self.is_fenced(host) {
                    self.ceph.journal.insert(host, Phase::Watched);
                    self.stats.readmitted += 1;
                }
                return Some(None);
            }
        }
        None
    }

    fn readmits(&mut self) {
        for host in 0..self.hosts.len() {
            let quarantined = self.ceph.journal.get(&host) == Some(&Phase::Quarantined);
            let left = self.ceph.journal.get(&host).is_some_and(|phase| phase.is_fenced()) && !self.is_fenced(host);
            if self.hosts[host].is_bad() {
                continue;
            }
            if self.is_fenced(host) && (quarantined || self.healed) {
                self.begin(Owner::Operator, Kind::Readmit(Readmission::of(host)));
            } else if left {
                // A readmission that ended between lifting and forgetting.
                self.ceph.journal.insert(host, Phase::Watched);
            }
        }
    }

    /// A person does something, now and then.
    pub(crate) fn operates(&mut self) {
        let next = if self.healed { 4000 } else { self.rng.range(2000, 9000) };
        self.after(next, Event::Operator);
        if self.healed {
            self.armed = true;
            self.hosts.iter_mut().for_each(|host| host.maintenance = false);
            self.last_release = Some(self.now);
            tell_all(self, &Input::Release);
            self.readmits();
            for guest in 0..self.guests.len() {
                let claim = self.ceph.claims[guest];
                let left = !self.tasks.contains_key(&claim.by)
                    && !claim.named.hosts().iter().any(|host| self.is_fenced(*host));
                if let Some(finish) = Move::finish(guest, claim).filter(|_| left) {
                    self.begin(Owner::Operator, Kind::Move(finish));
                }
            }
            return;
        }
        let host = self.rng.index(self.hosts.len());
        match self.rng.range(0, 12) {
            0..=4 => {
                let guest = self.rng.index(self.guests.len());
                if let Named::Running(from) = self.ceph.claims[guest].named
                    && from != host
                {
                    self.tell(|w| format!("operator: move guest {guest} to {}", w.names[host]));
                    self.begin(Owner::Operator, Kind::Move(Move::of(guest, host)));
                }
            }
            5 | 6 => self.readmits(),
            7 => {
                self.hosts[host].maintenance = !self.hosts[host].maintenance;
                self.hosts[host].maintained_at = self.now;
                self.tell(|w| format!("operator: maintenance of {}: {}", w.names[host], w.hosts[host].maintenance));
            }
            8 => {
                self.armed = !self.armed;
                self.disarmed_at = Some(self.now);
                self.tell(|w| format!("operator: armed {}", w.armed));
            }
            9 if self.rng.percent(30) => {
                self.tell(|_| "operator: release".to_owned());
                self.last_release = Some(self.now);
                tell_all(self, &Input::Release);
            }
            10 => {
                // A command that dies: its tasks are gone, what it asked for is not.
                let mine: Vec<u64> =
                    self.tasks.values().filter(|task| task.owner == Owner::Operator).map(|task| task.id).collect();
                for task in mine {
                    self.tell(|_| format!("operator: task {task} dies"));
                    self.tasks.remove(&task);
                }
            }
            _ => {}
        }
    }
}
