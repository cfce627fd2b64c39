//! The Ceph cluster: commands, state objects changed by compare-and-swap, and disk images.
//!
//! One standing `python3` on a mon host answers all of it over SSH in milliseconds; see `agent/`.

#[cfg(test)]
mod agent_test;
mod build;
mod ceph;
mod channel;
mod connect;
mod document;
mod error;
mod fake;
#[cfg(test)]
mod faulty;
mod lease;
mod lease_rule;
mod port;
mod protocol;
mod request;
mod requests;
mod staggered;
#[cfg(test)]
mod tests;

pub use build::{BuildPort, Builder, EntityKey, FakeBuild};
pub use ceph::{CephStatus, HealthCheck, status};
pub use connect::Cluster;
pub use document::{Document, Unread, decode, encode, fetch, readable, update};
pub use error::ClusterError;
pub use fake::FakeCluster;
#[cfg(test)]
pub(crate) use faulty::FaultyCluster;
pub use lease::{Candidate, Seat};
pub use lease_rule::Lease;
pub use port::{
    ClusterPort, Entry, Image, ImageUser, ImageUsers, Keys, KeysChange, Object, Parent, STATE_POOL, Snapshot, Target,
    Version,
};
