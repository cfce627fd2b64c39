//! From bare hosts to a running cluster: ordered stages, each probe -> plan -> apply -> verify.

mod ceph;
mod facts;
mod grip;
mod ground;
mod lock;
mod network;
mod packages;
mod pki;
mod plan;
mod run;
mod secret;
mod stages;
mod step;
mod tls;
mod together;

pub use facts::facts;
pub use grip::Grip;
pub use ground::{Ground, look};
pub use lock::{HostLock, lock, owner};
pub use network::{refused_bridges, refused_draft};
pub use packages::packages;
pub use plan::{Plan, PlannedStep};
pub use run::{Provision, Stage, Survey};
pub use secret::{GUEST_USER, secret_uuid};
pub use stages::stages;
pub use step::{Ctx, Step};
use together::one_of;
pub use together::together;
