//! The stages of provisioning.

use super::ceph;
use super::run::Stage;
use super::secret::Secret;
use super::tls::Tls;

/// All stages, in the order in which they are applied.
pub fn stages() -> Vec<Stage> {
    let book = |name: &str| Stage::Playbook(name.to_owned());
    let mut stages = vec![book("os"), book("network"), book("packages"), book("time")];
    stages.extend(ceph::steps().into_iter().map(Stage::Typed));
    stages.push(Stage::Typed(Box::new(Tls)));
    stages.push(book("libvirt"));
    stages.push(Stage::Typed(Box::new(Secret)));
    stages
}
