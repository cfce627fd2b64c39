//! Both sides of a move, and who else could have the guest.

use super::guest_context::GuestContext;
use super::verdict::Side;
use crate::libvirt::{Hypervisor, VirtError};
use futures::future::join_all;
use std::sync::Arc;
use uuid::Uuid;

/// Both sides of a move, and who else could have the guest.
pub struct Sides {
    /// Where the guest ran.
    pub source: Arc<dyn Hypervisor>,
    /// Where it goes.
    pub target: Arc<dyn Hypervisor>,
    others: Vec<Arc<dyn Hypervisor>>,
}

impl std::fmt::Debug for Sides {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sides({} -> {})", self.source.host(), self.target.host())
    }
}

/// Where a guest is that neither side has.
#[derive(Debug)]
pub(super) enum Third {
    /// On no host at all.
    Nowhere,
    /// Here: it was brought there by other means.
    Here(String),
    /// A host cannot be asked; why.
    Silent(VirtError),
}

impl Sides {
    /// The hypervisors of a move's hosts.
    ///
    /// # Errors
    /// When the inventory lacks one of them.
    pub fn of(rack: &GuestContext, from: &str, to: &str) -> Result<Self, VirtError> {
        let hosts = &rack.hypervisors;
        let others = hosts.all().filter(|h| h.host() != from && h.host() != to).cloned().collect();
        Ok(Sides { source: hosts.get(from)?, target: hosts.get(to)?, others })
    }

    /// What both say about the guest. The source first: the target has the guest before the source loses it, so one
    /// that neither has is on no side.
    pub(super) async fn look(&self, uuid: Uuid) -> (Side, Side) {
        let source = look_at(&self.source, uuid).await;
        let target = match self.target.domain(uuid).await {
            Ok(domain) => Side::of(domain, false),
            Err(error) => Side::Silent(error.to_string()),
        };
        (source, target)
    }

    /// Where a guest is that neither side has. It ended only if no host has it.
    pub(super) async fn elsewhere(&self, uuid: Uuid) -> Third {
        let looks = self.others.iter().map(|other| async move { (other.host(), other.domain(uuid).await) });
        let mut silent = None;
        for (host, answer) in join_all(looks).await {
            match answer {
                Ok(Some(domain)) if domain.state.has_process() => return Third::Here(host.to_owned()),
                Ok(_) => {}
                Err(error) => silent = Some(error),
            }
        }
        silent.map_or(Third::Nowhere, Third::Silent)
    }

    /// Whether the source has sent all there is: from then on the target may have let the guest go on, and have written
    /// to its disk, wherever it is now.
    ///
    /// # Errors
    /// When its QEMU cannot be asked.
    pub(super) async fn has_handed_over(&self, uuid: Uuid) -> Result<bool, VirtError> {
        let answer = self.source.monitor(uuid, r#"{"execute":"query-migrate"}"#).await?;
        // What cannot be read is taken for the worse.
        let answer: Option<serde_json::Value> = serde_json::from_str(&answer).ok();
        Ok(answer.is_none_or(|answer| answer["return"]["status"] == "completed"))
    }
}

/// What a source says; a job that cannot be asked for may run. A host that answers for itself is not silent because of
/// one QEMU that hangs.
async fn look_at(source: &Arc<dyn Hypervisor>, uuid: Uuid) -> Side {
    let domain = match source.domain(uuid).await {
        Ok(Some(domain)) => domain,
        Ok(None) => return Side::Absent,
        Err(error) => return Side::Silent(error.to_string()),
    };
    match source.job(uuid).await {
        Ok(job) => Side::of(Some(domain), job.migrates()),
        // It ended in between.
        Err(error) if error.no_domain() => Side::Absent,
        Err(error) if error.nothing_ran() => Side::Silent(error.to_string()),
        Err(error) => Side::Mute(error.to_string()),
    }
}
