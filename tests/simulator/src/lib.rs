//! The watch against a rack that is not there.
//!
//! The judgement and the rule of the lease are the very files that the library is built of. They run against simulated hosts, a
//! simulated cluster and simulated time, in which everything that can go wrong does; after every step it is looked whether a
//! disk has two writers, whether the watch had the right to do what it did, and in the end whether every guest runs.
//!
//! It is a package of its own so that it is built with optimisation in every profile: 20,000 racks in a test.

#[path = "../../../src/watch/brain/mod.rs"]
pub mod brain;
#[path = "../../../src/cluster/lease_rule.rs"]
pub mod lease_rule;

mod ceph;
mod driver;
mod faults;
mod fencing;
mod hosts;
mod invariants;
mod moves;
mod mutation;
mod operator;
mod plan;
mod queue;
mod recovery;
mod rng;
mod run;
mod task;
mod world;

pub use mutation::Mutation;
pub use run::{Outcome, Stats, Violation, run, story};
