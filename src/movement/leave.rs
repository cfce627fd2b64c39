//! What keeps a running guest on its host: another tool's work on it, a QEMU that does not answer.

use crate::error::{Failure, Kind};
use crate::guest::{GuestContext, Live};
use crate::libvirt::Hypervisor;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use uuid::Uuid;

/// How long a QEMU may take to answer. One that is stopped or hangs never does, and every request for its guest would wait
/// for it; the others of its host are not concerned.
const QEMU: Duration = Duration::from_secs(5);

/// Looks whether a guest can leave its host; gives its live definition.
///
/// # Errors
/// What holds it there, with what cures that; nothing was changed.
pub async fn leave(rack: &GuestContext, host: &str, uuid: Uuid) -> Result<String, Failure> {
    let hypervisor = rack.hypervisors.get(host)?;
    // With a job of another tool the rest would wait for its end.
    let Ok(job) = timeout(QEMU, hypervisor.job(uuid)).await else { return Err(hangs(host, uuid)) };
    let job = job?;
    if let Some(other) = job.other() {
        let text = format!("another tool works on it on {host}: {other} runs, which a move would have to abort");
        return Err(Failure::msg(Kind::Busy, text).hint(format!(
            "wait until it ends (on {host}: `virsh domjobinfo {uuid}`), or abort it there: `virsh domjobabort {uuid}`"
        )));
    }
    let looks = tokio::try_join!(hypervisor.xml(uuid), hypervisor.snapshots(uuid));
    let (xml, snapshots) = looks?;
    if let Some(held) = Live::read(&xml).and_then(|live| live.holds_on_host().into_iter().next()) {
        return Err(Failure::refused(format!("it cannot leave {host}: {held}")).hint(held.cure(uuid, host)));
    }
    if !snapshots.is_empty() {
        let text = format!("it cannot leave {host}: libvirt there keeps snapshots of it ({})", snapshots.join(", "));
        return Err(Failure::refused(text).hint(format!(
            "on {host}: `virsh snapshot-delete {uuid} {} --metadata` forgets one and keeps its data",
            snapshots[0]
        )));
    }
    qemu_answers(&hypervisor, uuid).await?;
    Ok(xml)
}

/// Sizes of a disk come from QEMU itself; which disk does not matter, nor whether there is one of this name.
async fn qemu_answers(hypervisor: &Arc<dyn Hypervisor>, uuid: Uuid) -> Result<(), Failure> {
    match timeout(QEMU, hypervisor.block_info(uuid, "vda")).await {
        Ok(Err(error)) if error.unknown() => Err(error.into()),
        Ok(_) => Ok(()),
        Err(_) => Err(hangs(hypervisor.host(), uuid)),
    }
}

fn hangs(host: &str, uuid: Uuid) -> Failure {
    Failure::failed(format!("its QEMU on {host} does not answer within {} s; nothing was sent to it", QEMU.as_secs()))
        .hint(format!("on {host}: look at the process (`pgrep -af {uuid}`) and at the storage"))
}
