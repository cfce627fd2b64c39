//! From bare hosts to a running cluster: ordered stages, each probe -> plan -> apply -> verify.

mod ceph;
mod facts;
mod ground;
mod lock;
mod packages;
mod pki;
mod plan;
mod run;
mod secret;
mod step;
mod tls;

pub use facts::facts;
pub use ground::{Ground, look};
pub use lock::{HostLock, lock, owner};
pub use packages::{Family, family, packages};
pub use plan::{Plan, PlannedStep};
pub use run::{Provision, Stage, Survey};
pub use secret::{GUEST_USER, secret_uuid};
pub use step::{Ctx, Step};

/// All stages, in the order in which they are applied.
pub fn stages() -> Vec<Stage> {
    let book = |name: &str| Stage::Book(name.to_owned());
    let mut stages = vec![book("os"), book("network"), book("packages"), book("time")];
    stages.extend(ceph::steps().into_iter().map(Stage::Typed));
    stages.push(Stage::Typed(Box::new(tls::Tls)));
    stages.push(book("libvirt"));
    stages.push(Stage::Typed(Box::new(secret::Secret)));
    stages
}
