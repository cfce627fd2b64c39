//! The hypervisors of all hosts.

use super::{Hypervisor, VirtError, VirtHost};
use crate::ssh::Fleet;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One hypervisor a host, each connected when first used.
#[derive(Clone, Debug, Default)]
pub struct Hypervisors {
    hosts: BTreeMap<String, Arc<dyn Hypervisor>>,
}

impl Hypervisors {
    /// Those of these hosts of a fleet; names it has not are left out.
    pub fn over<'a>(fleet: &Fleet, names: impl IntoIterator<Item = &'a str>) -> Self {
        let remotes = names.into_iter().filter_map(|name| fleet.get(name).ok());
        Self::of(remotes.map(|remote| Arc::new(VirtHost::over(remote)) as Arc<dyn Hypervisor>))
    }

    /// These.
    pub fn of(hypervisors: impl IntoIterator<Item = Arc<dyn Hypervisor>>) -> Self {
        Hypervisors { hosts: hypervisors.into_iter().map(|h| (h.host().to_owned(), h)).collect() }
    }

    /// The one of this host.
    ///
    /// # Errors
    /// When there is none.
    pub fn get(&self, host: &str) -> Result<Arc<dyn Hypervisor>, VirtError> {
        self.hosts.get(host).cloned().ok_or_else(|| VirtError::Unreachable {
            host: host.to_owned(),
            reason: "the inventory has no host of this name that runs guests".to_owned(),
        })
    }

    /// All, by name.
    pub fn all(&self) -> impl Iterator<Item = &Arc<dyn Hypervisor>> {
        self.hosts.values()
    }

    /// Their names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.hosts.keys().map(String::as_str)
    }
}
