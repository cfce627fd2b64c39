//! The Ceph part of provisioning.

use super::Step;

/// The steps that build the cluster, in order.
pub fn steps() -> Vec<Box<dyn Step>> {
    Vec::new()
}
