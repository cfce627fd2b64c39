//! From bare hosts to a running cluster: ordered steps, each probe -> plan -> apply -> verify.

mod ceph;
mod ground;
mod step;

pub use ground::{Ground, look};
pub use step::{Ctx, Step};

/// The typed steps between packages and libvirt.
pub fn ceph_steps() -> Vec<Box<dyn Step>> {
    ceph::steps()
}
