//! The Ceph part of provisioning: facts, pure plans over them, and one executor.
//!
//! Each step's plan is a pure function of the inventory and the `Facts`. Applying it goes in rounds:
//! look, plan, do what is in the plan that was agreed on, wait, until nothing of it is left. So a run that was killed
//! anywhere is finished by the next one, whatever it left behind.

mod cluster;
mod conf;
mod crush;
mod disk;
mod facts;
mod health;
mod mgrs;
mod mons;
mod names;
mod osds;
mod pools;
mod settings;
mod steps;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod todo;

pub(super) use steps::steps;
