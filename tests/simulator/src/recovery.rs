//! Starting the guests of a host again, by rules R1 to R11 of docs/protocol.md; one step for each read, swap and request.

use crate::brain::{Input, Phase};
use crate::ceph::{Claim, Named};
use crate::fencing::Ended;
use crate::hosts::{Ask, Doing};
use crate::mutation::Mutation;
use crate::queue::Ms;
use crate::task::{Kind, Owner, Reply, Task};
use crate::world::World;

/// How long a recovery may take before it is begun anew.
const ALL: Ms = 60_000;
/// Guests that a host has room for.
pub(crate) const ROOM: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    List,
    Next,
    Read,
    Take,
    Look,
    Looked,
    Aborted,
    Ended,
    Fences,
    Place,
    Create,
    Created,
    Reread,
    Resumed,
    Write(usize),
}

/// A recovery that is under way.
#[derive(Clone, Debug)]
pub(crate) struct Recovery {
    pub(crate) host: usize,
    /// Whether the host is fenced; else it was booted anew, and is asked like any other.
    pub(crate) fenced: bool,
    at: At,
    guests: Vec<usize>,
    guest: usize,
    claim: Option<Claim>,
    /// Living hosts that have to be looked at.
    look: Vec<usize>,
    target: usize,
    started: usize,
    waiting: Vec<String>,
}

impl Recovery {
    pub(crate) fn of(host: usize, fenced: bool) -> Self {
        Recovery {
            host,
            fenced,
            at: At::List,
            guests: Vec::new(),
            guest: 0,
            claim: None,
            look: Vec::new(),
            target: 0,
            started: 0,
            waiting: Vec::new(),
        }
    }
}

impl World {
    pub(crate) fn recover_step(&mut self, task: &mut Task, reply: Reply) -> Ended {
        let Kind::Recover(mut recovery) = task.kind.clone() else { return Some(None) };
        let ended = match self.now - task.began > ALL {
            true => {
                recovery.waiting.push("it takes too long".to_owned());
                self.recovery_ends(&recovery)
            }
            false => self.recover_on(task, &mut recovery, reply),
        };
        task.kind = Kind::Recover(recovery);
        ended
    }

    fn recovery_ends(&mut self, recovery: &Recovery) -> Ended {
        let host = self.names[recovery.host].clone();
        let waiting = recovery.waiting.clone();
        Some(Some(match recovery.fenced {
            true => Input::RecoveryDone { host, started: recovery.started, waiting },
            false => Input::Restarted { host, waiting },
        }))
    }

    /// Gives up on one guest for now, and goes on with the next.
    fn waits(&mut self, task: &Task, recovery: &mut Recovery, why: &str) -> Ended {
        recovery.waiting.push(format!("guest {}: {why}", recovery.guest));
        recovery.at = At::Next;
        self.soon(task);
        None
    }

    fn goes(&mut self, task: &Task, recovery: &mut Recovery, at: At) -> Ended {
        recovery.at = at;
        self.soon(task);
        None
    }

    fn recover_on(&mut self, task: &Task, recovery: &mut Recovery, reply: Reply) -> Ended {
        let reads =
            matches!(recovery.at, At::List | At::Read | At::Take | At::Fences | At::Place | At::Reread | At::Write(_));
        if reads && !self.has_documents(task) {
            return None;
        }
        match recovery.at {
            At::List => {
                recovery.guests = (0..self.guests.len()).rev().collect();
                self.goes(task, recovery, At::Next)
            }
            At::Next => match recovery.guests.pop() {
                Some(guest) => {
                    recovery.guest = guest;
                    self.goes(task, recovery, At::Read)
                }
                None => self.recovery_ends(recovery),
            },
            At::Read => self.recover_reads(task, recovery),
            At::Take => {
                let Some(read) = recovery.claim else { return self.goes(task, recovery, At::Read) };
                let Some(taken) = self.swap_claim(recovery.guest, read, read.named, task.id) else {
                    return self.goes(task, recovery, At::Read);
                };
                recovery.claim = Some(taken);
                let look = !self.has(Mutation::NoLook);
                self.goes(task, recovery, if look { At::Look } else { At::Fences })
            }
            At::Look | At::Looked | At::Aborted | At::Ended => self.recover_looks(task, recovery, reply),
            At::Fences => {
                // The claim was read before this: a host that was let in since cannot be named by it any more.
                if recovery.fenced && (!self.is_fenced(recovery.host) || !self.ceph.records.contains(&recovery.host)) {
                    return self.waits(task, recovery, "the fence is gone");
                }
                self.goes(task, recovery, At::Place)
            }
            At::Place => self.recover_places(task, recovery),
            At::Create | At::Created | At::Reread | At::Resumed => self.recover_starts(task, recovery, reply),
            At::Write(host) => {
                if let Some(claim) = recovery.claim
                    && self.swap_claim(recovery.guest, claim, Named::Running(host), task.id).is_some()
                {
                    recovery.started += 1;
                    self.stats.recovered += 1;
                }
                self.goes(task, recovery, At::Next)
            }
        }
    }

    fn recover_reads(&mut self, task: &Task, recovery: &mut Recovery) -> Ended {
        let claim = self.ceph.claims[recovery.guest];
        let named = claim.named.hosts();
        let lives = |id: u64| self.tasks.contains_key(&id);
        let concerns = match claim.named {
            // Left by a watcher that died, or by this one in an earlier attempt.
            Named::Starting(_) => named.contains(&recovery.host) || claim.by == task.id || !lives(claim.by),
            Named::Running(_) | Named::Moving(..) => named.contains(&recovery.host),
        };
        // Two hosts that live, and a mover that does: it is his to end.
        let moves = matches!(claim.named, Named::Moving(..)) && !recovery.fenced && lives(claim.by);
        if !concerns || moves {
            return self.goes(task, recovery, At::Next);
        }
        // A host whose fence is proven is not asked, even where it answers (R11). Of a move the source is asked first, which
        // is the last of this list: nothing leaves it after that.
        recovery.look = named
            .into_iter()
            .rev()
            .filter(|host| !(self.is_fenced(*host) && self.ceph.records.contains(host)))
            .collect();
        recovery.claim = Some(claim);
        self.goes(task, recovery, At::Take)
    }

    fn recover_looks(&mut self, task: &Task, recovery: &mut Recovery, reply: Reply) -> Ended {
        let Some(claim) = recovery.claim else { return self.goes(task, recovery, At::Read) };
        let (guest, generation) = (recovery.guest, claim.generation);
        let Some(host) = recovery.look.last().copied() else { return self.goes(task, recovery, At::Fences) };
        match (recovery.at, reply) {
            (At::Look, _) => {
                recovery.at = At::Looked;
                self.ask(task, host, guest, generation, Ask::Look);
                None
            }
            (At::Looked, Reply::Found(Some(Doing::Running))) => self.goes(task, recovery, At::Write(host)),
            (At::Looked, Reply::Found(Some(Doing::Leaving))) if recovery.fenced => {
                // Its target is fenced, and may live: a move that ends there takes the guest with it. Abort, and look again.
                recovery.at = At::Aborted;
                self.ask(task, host, guest, generation, Ask::Abort);
                None
            }
            (At::Aborted, Reply::Done) => self.goes(task, recovery, At::Look),
            (At::Looked, Reply::Found(None)) => {
                recovery.look.pop();
                self.goes(task, recovery, At::Look)
            }
            (At::Looked, Reply::Found(Some(Doing::Incoming | Doing::Leaving))) if !recovery.fenced => {
                self.waits(task, recovery, "a move is under way")
            }
            (At::Looked, Reply::Found(Some(_))) => {
                recovery.at = At::Ended;
                self.ask(task, host, guest, generation, Ask::Destroy);
                None
            }
            (At::Ended, Reply::Done) => {
                recovery.look.pop();
                self.goes(task, recovery, At::Look)
            }
            _ => self.waits(task, recovery, "a host that its claim names does not answer"),
        }
    }

    fn recover_places(&mut self, task: &Task, recovery: &mut Recovery) -> Ended {
        let Owner::Watcher(watcher, _) = task.owner else { return Some(None) };
        let brain = &self.watchers[watcher].brain;
        let settings = &self.watchers[watcher].settings;
        let fits = |host: &usize| {
            let name = &self.names[*host];
            brain.reports().beats(name, settings)
                && brain.phase(name) == Phase::Watched
                && !self.is_fenced(*host)
                && !self.hosts[*host].maintenance
                && self.copies.iter().filter(|copy| copy.host == *host).count() < ROOM
        };
        let fitting: Vec<usize> = (0..self.hosts.len()).filter(fits).collect();
        let Some(claim) = recovery.claim.filter(|_| !fitting.is_empty()) else {
            return self.waits(task, recovery, "no host has room");
        };
        recovery.target = fitting[self.rng.index(fitting.len())];
        match self.swap_claim(recovery.guest, claim, Named::Starting(recovery.target), task.id) {
            Some(claim) => {
                recovery.claim = Some(claim);
                self.goes(task, recovery, At::Create)
            }
            None => self.goes(task, recovery, At::Read),
        }
    }

    fn recover_starts(&mut self, task: &Task, recovery: &mut Recovery, reply: Reply) -> Ended {
        let Some(claim) = recovery.claim else { return self.goes(task, recovery, At::Read) };
        let (guest, target) = (recovery.guest, recovery.target);
        match (recovery.at, reply) {
            (At::Create, _) => {
                recovery.at = At::Created;
                self.ask(task, target, guest, claim.generation, Ask::Create);
                None
            }
            (At::Created, Reply::Done) => self.goes(task, recovery, At::Reread),
            (At::Reread, _) if self.ceph.claims[guest] == claim => {
                recovery.at = At::Resumed;
                self.ask(task, target, guest, claim.generation, Ask::Resume);
                None
            }
            (At::Reread, _) => self.goes(task, recovery, At::Read),
            (At::Resumed, Reply::Done) => self.goes(task, recovery, At::Write(target)),
            // Not known how it ended: it is taken over and looked at in the next attempt.
            _ => self.waits(task, recovery, "its start did not end well"),
        }
    }
}
