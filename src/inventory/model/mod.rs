//! The checked inventory: what every other room reads.

mod host;
mod inventory;
mod networks;
mod storage;
mod units;
mod watch;

pub use host::{BmcKind, BmcSpec, HostSpec, InlineSecret, Location, Role, SecretRef};
pub(super) use inventory::resolve;
pub use inventory::{ClusterIdentity, Inventory, SshDefaults};
pub use networks::{GuestNetwork, HostNetwork, IpoibMode, LinkKind, MigrationNetwork, Networks};
pub use storage::{BackupSpec, BackupStorage, CephSpec, FailoverProfile, FailureDomain, GuestDefaults};
pub use units::{AddressRange, KeyPin, LinkSpeed, Patience, Size};
pub use watch::{WatchSpec, WebhookSpec};
