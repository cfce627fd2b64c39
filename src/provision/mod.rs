//! From bare hosts to a running cluster: ordered stages, each probe -> plan -> apply -> verify.

mod ceph;
mod facts;
mod lock;
mod network;
mod packages;
mod pki;
mod plan;
mod platform;
mod run;
mod run_guard;
mod secret;
mod stages;
mod step;
mod tls;
mod together;

pub use facts::facts;
pub use lock::{HostLock, lock, owner};
pub use network::{refused_bridges, refused_draft};
pub use packages::packages;
pub use plan::{Plan, PlannedStep};
pub use platform::{HostPlatform, probe_platform};
pub use run::{ProbedState, Provision, Stage};
pub use run_guard::RunGuard;
pub use secret::{GUEST_USER, secret_uuid};
pub use stages::stages;
pub use step::{Ctx, Step};
pub use together::together;
