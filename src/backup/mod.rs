//! Backups of guests: snapshots of their disks, shipped to a repository outside the cluster, and back.

mod age;
mod lease;
mod mark;
mod point;
mod repository;
mod restore;
mod run;
mod stream;
#[cfg(test)]
mod tests;

pub use age::{Age, Verdict, ages};
pub use repository::{Repository, Target};
pub use restore::{Restore, find, restore, several};
pub use run::{Backed, plan, run};
