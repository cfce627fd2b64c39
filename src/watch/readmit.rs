//! Letting a fenced host in again, once nothing is left of what it ran (rule R12).

use super::recovery::{HostLoss, storage_addresses};
use crate::cluster::readable;
use crate::error::{Failure, Kind};
use crate::fence;
use crate::guest::claim::{self, Claim, Phase, Swap};
use crate::guest::{Courtesy, Guest, GuestContext, Settlement};
use crate::libvirt::{Hypervisor, VirtError};
use futures::{StreamExt, TryStreamExt, stream};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Guests that are looked at on the host at once.
const AT_ONCE: usize = 8;
/// How long a copy may take to end.
const END: Duration = Duration::from_secs(40);
/// Time between two looks at one that ends.
const POLL: Duration = Duration::from_millis(300);

/// What came of letting a host in.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Readmitted {
    /// The host.
    pub host: String,
    /// Guests whose left-over copies were ended there.
    pub ended: Vec<String>,
    /// Guests that were nowhere else yet, and are stopped now.
    pub freed: Vec<String>,
}

/// Lets a fenced host in again. The order is what keeps it safe:
///  1. the record says that the fence is about to be lifted: nothing is started on the strength of it any more;
///  2. no claim names the host (what it may have run cannot write: the claim is freed);
///  3. on the host, requests older than each guest's claim are refused from now on, and copies that are left are ended and
///     seen gone; 4. only then the storage takes its clients again.
///
/// Clients that were shut out by themselves stay so. Safe to repeat.
///
/// # Errors
/// When the host is not fenced, does not answer, or has a copy that does not end: it stays fenced then.
pub async fn readmit(rack: &GuestContext, host: &str) -> Result<Readmitted, Failure> {
    let hypervisor = rack.hypervisors.get(host)?;
    let spec = rack.inventory.host(host);
    let addresses = spec.map(storage_addresses).unwrap_or_default();
    if !fence::was_begun(rack.port(), host, &addresses).await? {
        return Err(Failure::refused(format!("{host} is not fenced")));
    }
    hypervisor.domains().await.map_err(|error| {
        Failure::new(Kind::Refused, error)
            .context(format!("{host} stays fenced: it does not tell what it runs"))
            .hint("bring its libvirt back, then run the same command again")
    })?;
    let (guests, unread) = readable::<Guest>(rack.port(), "guest.").await?;
    if let Some(object) = unread.first() {
        return Err(Failure::refused(format!(
            "{host} stays fenced: what it may have of a guest cannot be told, for {}",
            object.why
        ))
        .hint("use the version of rackhand that wrote it, or mend it; `rackhand doctor` lists them all"));
    }
    let mut done = Readmitted { host: host.to_owned(), ..Readmitted::default() };
    // While the fence still counts: what is on its way there can be settled.
    for guest in &guests {
        settle_pending(rack, guest, host).await?;
    }
    let Some(record) = fence::begin_to_lift(rack.port(), host, &addresses, &rack.run.by).await? else {
        return Err(Failure::refused(format!("{host} is not fenced any more")));
    };
    let cleared: Vec<Cleared> =
        stream::iter(&guests).map(|guest| clear(rack, guest, &hypervisor)).buffered(AT_ONCE).try_collect().await?;
    for (guest, cleared) in guests.iter().zip(cleared) {
        if cleared.ended {
            done.ended.push(guest.name.clone());
        }
        if cleared.freed {
            done.freed.push(guest.name.clone());
        }
    }
    fence::lift(rack.port(), &record).await?;
    let loss = HostLoss { rack, host, why: "" };
    for (name, failure) in loss.open_gates(&record).await {
        rack.ui.warn(format!(
            "{name} still takes no migration from {host}: {failure}; open it there with `nft delete table inet \
             rackhand_fence` and remove /var/lib/rackhand/gate.nft"
        ));
    }
    Ok(done)
}

/// Settles a start or a move that names the host.
async fn settle_pending(rack: &GuestContext, guest: &Guest, host: &str) -> Result<(), Failure> {
    let seen = claim::read(rack.port(), guest.uuid).await?;
    if !matches!(seen.phase, Phase::Starting | Phase::Moving) || !seen.places().any(|place| place == host) {
        return Ok(());
    }
    let (run, job) = (rack.run.operation(), rack.ui.job(format!("settle {}", guest.name)));
    let settlement = Settlement {
        rack,
        guest: guest.uuid,
        name: &guest.name,
        run: &run,
        job: &job,
        cancel_level: rack.ui.cancel_level(),
    };
    let settled = settlement.settle(&seen, Courtesy::None).await;
    job.conclude(&settled, |settled| (crate::ui::Outcome::Done, format!("{settled:?}").to_lowercase()));
    settled.map(drop)
}

/// What was left of a guest.
#[derive(Clone, Copy, Debug, Default)]
struct Cleared {
    ended: bool,
    freed: bool,
}

/// Makes sure that nothing is left of a guest on the host, and that its claim does not name the host.
async fn clear(rack: &GuestContext, guest: &Guest, hypervisor: &Arc<dyn Hypervisor>) -> Result<Cleared, Failure> {
    let (uuid, host) = (guest.uuid, hypervisor.host());
    let mut cleared = Cleared::default();
    let mut claim = claim::read(rack.port(), uuid).await?;
    if claim.places().any(|place| place == host) {
        // It was never started elsewhere, and whatever runs here cannot write.
        let freed = claim.freed();
        if !matches!(claim.phase, Phase::Running) || claim::swap(rack.port(), uuid, &claim, &freed).await? != Swap::Ours
        {
            return Err(Failure::msg(Kind::Busy, format!("guest {} is being started or moved", guest.name))
                .hint("run the same command again"));
        }
        (claim, cleared.freed) = (freed, true);
    }
    if claim == Claim::default() {
        return Ok(cleared);
    }
    let began = Instant::now();
    loop {
        match hypervisor.revoke(uuid, claim.token()).await {
            Ok(Some(domain)) if domain.state.has_process() => cleared.ended = true,
            Ok(_) => return Ok(cleared),
            // Newer than what was read: another run works on it, and what is there now was not looked at.
            Err(error) if error.stale() => {
                return Err(Failure::msg(
                    Kind::Busy,
                    format!("{host} stays fenced: guest {} is worked on", guest.name),
                )
                .hint("run the same command again"));
            }
            Err(error) => return Err(stays(host, &guest.name, error)),
        }
        if began.elapsed() > END {
            return Err(Failure::failed(format!("{host} stays fenced: its copy of guest {} does not end", guest.name))
                .hint(format!("end its QEMU on {host}, or reboot {host}; then run the same command again")));
        }
        match hypervisor.destroy(uuid, claim.token()).await {
            Ok(()) => {}
            Err(error) if error.no_domain() => {}
            Err(error) => tracing::info!(%error, guest = guest.name, "ending a left-over copy"),
        }
        sleep(POLL).await;
    }
}

fn stays(host: &str, guest: &str, error: VirtError) -> Failure {
    Failure::new(Kind::Failed, error).context(format!("{host} stays fenced: it cannot be asked about guest {guest}"))
}
