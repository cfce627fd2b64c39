//! One seed, from the first event to the last.

use crate::mutation::Mutation;
use crate::plan::{HEAL, schedule, world};
use crate::queue::{Event, Ms};
use crate::world::World;

/// How long everything may take to be well again.
const PATIENCE: Ms = 240_000;

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When, in milliseconds.
    pub at_ms: u64,
    /// What.
    pub what: String,
}

/// What happened, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Steps of brains.
    pub steps: u64,
    /// Events of all kinds.
    pub events: u64,
    /// Fences that were committed.
    pub fences: u64,
    /// Guests that were started again, or found running and written down.
    pub recovered: u64,
    /// Hosts that were let in again.
    pub readmitted: u64,
    /// Times a watcher forgot what it heard.
    pub overslept: u64,
    /// Times a watcher held back.
    pub held: u64,
}

impl Stats {
    /// Adds another count.
    pub fn add(&mut self, other: &Stats) {
        self.steps += other.steps;
        self.events += other.events;
        self.fences += other.fences;
        self.recovered += other.recovered;
        self.readmitted += other.readmitted;
        self.overslept += other.overslept;
        self.held += other.held;
    }
}

/// How a seed ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What must not have been, if it was.
    pub violation: Option<Violation>,
    /// What happened.
    pub stats: Stats,
}

fn play(world: &mut World) {
    schedule(world);
    while let Some((at, event)) = world.queue.pop() {
        world.now = at;
        world.stats.events += 1;
        world.changed = false;
        let ends = happens(world, event);
        if world.changed {
            world.looks_at_writers();
        }
        if ends || world.violation.is_some() {
            return;
        }
    }
}

/// Gives whether all is over.
fn happens(world: &mut World, event: Event) -> bool {
    match event {
        Event::Fault(fault) => world.fault(fault),
        Event::Beat(host) => world.beat(host),
        Event::Deliver(watcher, life, input) => world.deliver(watcher, life, input),
        Event::Tick(watcher, life) => world.tick(watcher, life),
        Event::Lease(watcher, life) => world.lease(watcher, life),
        Event::LeaseWrite(write) => world.lease_write(*write),
        Event::Poll(watcher, life) => world.poll(watcher, life),
        Event::Task(task, sequence, reply) => world.task_goes_on(task, sequence, reply),
        Event::Arrive(request) => world.arrive(&request),
        Event::Learn(osd) => world.learn(osd),
        Event::Election => world.elect(),
        Event::Osd(host) => world.osd_changes(host),
        Event::MoveEnd(copy, tries) => world.move_end(copy, tries),
        Event::Waiting(request, to, job, tries) => world.waits_on(request, to, job, tries),
        Event::Operator => world.operates(),
        Event::Heal => {
            world.heal();
            world.after(15_000, Event::Check);
        }
        Event::Check => match world.is_well() {
            Ok(()) => return true,
            Err(what) if world.now > HEAL + PATIENCE => {
                world.violates(format!("{} s after all faults ended, {what}", PATIENCE / 1000));
            }
            Err(_) => world.after(3000, Event::Check),
        },
    }
    false
}

/// Plays a seed.
pub fn run(seed: u64, mutation: Option<Mutation>) -> Outcome {
    let mut world = world(seed, mutation);
    play(&mut world);
    Outcome { violation: world.violation, stats: world.stats }
}

/// Plays a seed again, and tells all that happens.
pub fn story(seed: u64, mutation: Option<Mutation>) -> Vec<String> {
    let mut world = world(seed, mutation);
    world.story = Some(Vec::new());
    let first = format!(
        "seed {seed}: {} hosts, {} mons, {} guests, {} watchers",
        world.hosts.len(),
        world.ceph.mons.len(),
        world.guests.len(),
        world.watchers.len()
    );
    world.tell(|_| first);
    play(&mut world);
    world.story.unwrap_or_default()
}
