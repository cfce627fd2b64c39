//! Before a move: do the two hosts see each other, and can the target take the guest?

use crate::error::{Failure, Kind};
use crate::guest::Rack;
use crate::inventory::{HostSpec, Inventory};
use crate::ssh::{Exec, RemoteExt};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, OnceCell};
use uuid::Uuid;

const SCRIPT: &str = include_str!("preflight.sh");
/// The script's own waits are 5 s at most, and run side by side.
const DEADLINE: Duration = Duration::from_secs(12);
/// Headers of an ICMP echo: 20 (IPv4) or 40 (IPv6) and 8.
const ECHO_V4: u32 = 28;
const ECHO_V6: u32 = 48;

/// The libvirt of a host, as other hosts reach it.
pub fn libvirt_uri(inventory: &Inventory, host: &HostSpec) -> String {
    format!("qemu+tls://{}/system", bracketed(inventory.migration_address(host)))
}

/// Where the QEMU of a host takes in guests.
pub fn data_uri(inventory: &Inventory, host: &HostSpec) -> String {
    format!("tcp://{}", bracketed(inventory.migration_address(host)))
}

fn bracketed(address: IpAddr) -> String {
    if address.is_ipv6() { format!("[{address}]") } else { address.to_string() }
}

type Seen = Arc<OnceCell<Result<(), String>>>;

/// Pairs of hosts that were looked at in this run; each pair is looked at once.
#[derive(Debug, Default)]
pub struct Pairs(Mutex<BTreeMap<(String, String), Seen>>);

impl Pairs {
    /// Whether both hosts reach each other, both ways, with everything a move needs.
    ///
    /// # Errors
    /// What stands in the way; nothing was changed.
    pub async fn see_each_other(&self, rack: &Rack, from: &str, to: &str) -> Result<(), Failure> {
        let (here, there) = tokio::join!(self.sees(rack, from, to), self.sees(rack, to, from));
        here.and(there).map_err(|why| {
            Failure::failed(why).hint(format!(
                "nothing was changed; `rackhand check` looks at all pairs of hosts, {from} and {to} among them"
            ))
        })
    }

    async fn sees(&self, rack: &Rack, from: &str, to: &str) -> Result<(), String> {
        let cell = Arc::clone(self.0.lock().await.entry((from.to_owned(), to.to_owned())).or_default());
        cell.get_or_init(|| look(rack, from, to)).await.clone()
    }
}

async fn look(rack: &Rack, from: &str, to: &str) -> Result<(), String> {
    let inventory = &rack.inventory;
    let target = inventory.host(to).ok_or_else(|| format!("the inventory has no host {to}"))?;
    let address = inventory.migration_address(target);
    let echo = if address.is_ipv6() { ECHO_V6 } else { ECHO_V4 };
    let size = inventory.migration_network().mtu.saturating_sub(echo);
    let args = [
        address.to_string(),
        libvirt_uri(inventory, target),
        size.to_string(),
        target.address.to_string(),
        target.storage_address.to_string(),
    ];
    let remote = rack.fleet.get(from).map_err(|e| e.to_string())?;
    let output = remote.check(Exec::script(SCRIPT, args).deadline(DEADLINE)).await.map_err(|e| e.to_string())?;
    let text = output.text();
    let wrong: Vec<&str> = text.lines().filter(|l| !l.is_empty()).collect();
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(format!("host {from} cannot move guests to or from {to}: {}", wrong.join("; ")))
    }
}

/// Whether the target can give the guest the processor it has.
///
/// # Errors
/// A refusal when it cannot; nothing was changed.
pub async fn fits_cpu(rack: &Rack, from: &str, to: &str, uuid: Uuid) -> Result<(), Failure> {
    let xml = rack.hypervisors.get(from)?.xml(uuid).await?;
    let Some((virttype, cpu)) = processor(&xml) else { return Ok(()) };
    match rack.hypervisors.get(to)?.can_give_cpu(&virttype, &cpu).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::refused(format!("host {to} cannot give the guest the processor it has on {from}"))
            .hint("stop it and start it there, or move it to a host with the same processor")),
        Err(error) if error.unknown() || error.nothing_ran() => Err(error.into()),
        // The target's libvirt compares again when the guest arrives, and refuses before anything is sent.
        Err(error) => {
            tracing::info!(%error, "the processors cannot be compared beforehand");
            Ok(())
        }
    }
}

/// Virtualisation type and `<cpu>` element of a live domain.
fn processor(xml: &str) -> Option<(String, String)> {
    let document = roxmltree::Document::parse(xml).ok()?;
    let root = document.root_element();
    let cpu = root.children().find(|n| n.has_tag_name("cpu"))?;
    Some((root.attribute("type")?.to_owned(), xml.get(cpu.range())?.to_owned()))
}

/// A failure whose move never began: nothing was changed.
pub fn before_it_began(failure: Failure) -> Failure {
    match failure.kind {
        Kind::Unknown => Failure { kind: Kind::Failed, ..failure },
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_of_a_live_domain() {
        let xml =
            "<domain type='kvm'><name>a</name><cpu mode='custom' match='exact'><model>Haswell</model></cpu></domain>";
        let (virttype, cpu) = processor(xml).unwrap();
        assert_eq!(
            (virttype.as_str(), cpu.as_str()),
            ("kvm", "<cpu mode='custom' match='exact'><model>Haswell</model></cpu>")
        );
        assert_eq!(processor("<domain type='qemu'/>"), None);
    }

    #[test]
    fn addresses_of_version_six_are_bracketed() {
        assert_eq!(bracketed(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])), "[::1]");
    }
}
