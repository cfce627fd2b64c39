//! libvirt on the hosts: typed calls with deadlines over a forwarded unix socket, and a fake rack for tests.

mod connection;
mod error;
mod events;
mod fake;
mod fake_host;
#[cfg(test)]
mod faulty;
#[allow(unsafe_code)]
mod ffi;
mod guarded;
mod hosts;
mod hypervisor;
mod token;
mod types;
mod virt_host;

pub use error::VirtError;
pub use events::{Lifecycle, LifecycleEvent, LifecycleEvents};
pub use fake::{FakeFault, FakeRack, FakeRequest};
#[cfg(test)]
pub(crate) use faulty::faulty_hypervisors;
pub use hosts::Hypervisors;
pub use hypervisor::Hypervisor;
pub use token::{Token, Window};
pub use types::{BlockInfo, Domain, DomainState, JobKind, JobOperation, JobStats, MigrateParams, Node};
pub use virt_host::VirtHost;
