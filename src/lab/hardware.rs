//! What a host of the lab is made of.

use super::cgroup::Cgroup;
use super::names::HostPlan;
use super::store::{HostDir, HostKind};
use std::path::PathBuf;

/// What a boot needs; the same for every boot of a host.
#[derive(Debug)]
pub(super) struct Hardware {
    pub(super) host: HostPlan,
    pub(super) dir: HostDir,
    pub(super) image: PathBuf,
    pub(super) kind: HostKind,
    /// How many disks it has.
    pub(super) disks: u8,
    /// Loop devices of its disks, where it is a container.
    pub(super) loops: Vec<String>,
    pub(super) cgroup: Cgroup,
}
