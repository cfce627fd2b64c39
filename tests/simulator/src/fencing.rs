//! Fencing a host: commit, barrier, gate, record. The order is that of `fence/storage.rs`.

use crate::brain::Input;
use crate::hosts::Ask;
use crate::mutation::Mutation;
use crate::queue::Ms;
use crate::task::{Kind, Reply, Task};
use crate::world::World;

/// How long a mon may take.
const COMMIT: Ms = 4000;
/// How long OSDs may take to see a map before they are marked down.
const BARRIER: Ms = 1000;
/// How long all of it may take.
const ALL: Ms = 25_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Commit,
    Barrier,
    Gate(usize),
    Record,
}

/// A fence that is under way.
#[derive(Clone, Debug)]
pub(crate) struct Fencing {
    pub(crate) host: usize,
    completes: bool,
    at: At,
    epoch: u64,
    committed: Option<Ms>,
}

impl Fencing {
    /// `completes`: only a fence that was begun before.
    pub(crate) fn of(host: usize, completes: bool) -> Self {
        Fencing { host, completes, at: At::Commit, epoch: 0, committed: None }
    }
}

/// What a task tells its owner at its end; nothing where nobody waits for it.
pub(crate) type Ended = Option<Option<Input>>;

impl World {
    pub(crate) fn fence_step(&mut self, task: &mut Task, _reply: Reply) -> Ended {
        let Kind::Fence(mut fence) = task.kind.clone() else { return Some(None) };
        let ended = self.fence_on(task, &mut fence);
        task.kind = Kind::Fence(fence);
        ended
    }

    fn fence_fails(&self, fence: &Fencing, why: &str) -> Ended {
        let host = self.names[fence.host].clone();
        Some(Some(Input::FenceFailed { host, why: why.to_owned(), nothing_done: fence.committed.is_none() }))
    }

    fn fence_on(&mut self, task: &Task, fence: &mut Fencing) -> Ended {
        let spent = self.now - task.began;
        let (place, cut) = self.place_of(task.owner);
        if spent > ALL {
            return self.fence_fails(fence, "it takes too long");
        }
        match fence.at {
            At::Commit => {
                // Also where the watcher slept: what the verdict stands on is old by then.
                if spent > COMMIT {
                    return self.fence_fails(fence, "no quorum");
                }
                if !self.has_quorum() || !self.door(place, &cut) {
                    self.later(task, 100);
                    return None;
                }
                if fence.completes && !self.is_fenced(fence.host) {
                    return self.fence_fails(fence, "it is well, and storage does not refuse it");
                }
                let clients = !self.has(Mutation::DirtyReadmit);
                let is_new = !self.is_fenced(fence.host);
                fence.epoch = self.commit_fence(fence.host, clients);
                fence.committed = Some(self.now);
                self.stats.fences += 1;
                self.tell(|w| {
                    format!("Ceph: {} is blocklisted, its OSD is down, map {}", w.names[fence.host], fence.epoch)
                });
                if is_new {
                    self.looks_at_fence(fence.host);
                }
                fence.at = if self.has(Mutation::NoBarrier) { At::Record } else { At::Barrier };
                self.soon(task);
            }
            At::Barrier => {
                let behind: Vec<usize> = (0..self.hosts.len())
                    .filter(|osd| self.ceph.osds[*osd].up && self.ceph.osds[*osd].seen < fence.epoch)
                    .collect();
                if behind.is_empty() {
                    fence.at = At::Gate(0);
                } else if self.now - fence.committed.unwrap_or(self.now) > BARRIER
                    && self.has_quorum()
                    && self.door(place, &cut)
                {
                    for osd in behind {
                        self.ceph.osds[osd].up = false;
                        self.after(1500, crate::queue::Event::Osd(osd));
                    }
                    self.new_epoch();
                    self.changed = true;
                }
                self.later(task, 50);
            }
            At::Gate(host) if host >= self.hosts.len() => {
                fence.at = At::Record;
                self.soon(task);
            }
            At::Gate(host) => {
                fence.at = At::Gate(host + 1);
                if host == fence.host || !self.reaches_ssh(place, &cut, host) {
                    self.later(task, 1);
                } else {
                    self.ask(task, host, 0, 0, Ask::CloseGate(fence.host));
                }
            }
            At::Record => {
                if !self.has_documents(task) {
                    return None;
                }
                self.ceph.records.insert(fence.host);
                self.tell(|w| format!("fence of {} is proven", w.names[fence.host]));
                let host = self.names[fence.host].clone();
                return Some(Some(Input::FenceDone { host, proof: format!("map {}", fence.epoch) }));
            }
        }
        None
    }

    /// All guests of a host are stopped over ssh. Older than the claims are by now, the request does nothing.
    pub(crate) fn stop_step(&mut self, task: &Task, host: usize, reply: Reply) -> Ended {
        let name = self.names[host].clone();
        match reply {
            Reply::Go => {
                let claims = self.ceph.claims.iter().enumerate();
                let generations = claims.map(|(guest, claim)| (guest, claim.generation)).collect();
                self.ask(task, host, 0, 0, Ask::StopAll(generations));
                None
            }
            Reply::Found(None) => Some(Some(Input::GuestsStopped { host: name })),
            _ => Some(Some(Input::GuestsNotStopped { host: name, why: "no answer".to_owned() })),
        }
    }
}
