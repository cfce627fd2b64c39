//! Before a move: do the two hosts see each other, and can the target take the guest?

use super::leave::leave;
use super::plan::{Move, Plan};
use crate::error::{Failure, Kind};
use crate::guest::GuestContext;
use crate::inventory::{HostSpec, Inventory};
use crate::ssh::{Exec, RemoteExt};
use futures::future::join_all;
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

/// What stands between two hosts, with what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Obstacle {
    why: String,
    hints: Vec<String>,
}

impl From<String> for Obstacle {
    fn from(why: String) -> Self {
        Obstacle { why, hints: Vec::new() }
    }
}

type Seen = Arc<OnceCell<Result<(), Obstacle>>>;

/// Pairs of hosts that were looked at in this run; each pair is looked at once.
#[derive(Debug, Default)]
pub struct Pairs(Mutex<BTreeMap<(String, String), Seen>>);

impl Pairs {
    /// Whether both hosts reach each other, both ways, with everything a move needs.
    ///
    /// # Errors
    /// What stands in the way; nothing was changed.
    pub async fn see_each_other(&self, rack: &GuestContext, from: &str, to: &str) -> Result<(), Failure> {
        let (here, there) = tokio::join!(self.sees(rack, from, to), self.sees(rack, to, from));
        here.and(there).map_err(|obstacle| {
            obstacle.hints.iter().fold(Failure::failed(obstacle.why), |failure, hint| failure.hint(hint))
        })
    }

    async fn sees(&self, rack: &GuestContext, from: &str, to: &str) -> Result<(), Obstacle> {
        let cell = Arc::clone(self.0.lock().await.entry((from.to_owned(), to.to_owned())).or_default());
        cell.get_or_init(|| look(rack, from, to)).await.clone()
    }
}

async fn look(rack: &GuestContext, from: &str, to: &str) -> Result<(), Obstacle> {
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
    read(from, to, &output.text()).map_or(Ok(()), Err)
}

/// What a host says of the way to another one.
fn read(from: &str, to: &str, text: &str) -> Option<Obstacle> {
    let (mut wrong, mut hints) = (Vec::new(), Vec::new());
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (kind, what) = line.split_once(' ').unwrap_or(("", line));
        let (what, hint) = match kind {
            "net" => (
                format!("it does not reach {to}: {what}"),
                format!(
                    "nothing was changed; `rackhand check` looks at all pairs of hosts, {from} and {to} among them"
                ),
            ),
            "tls" => (what.to_owned(), format!("`rackhand provision` issues the certificates of {from} anew")),
            "room" => (what.to_owned(), format!("make room on {from}: `du -xs /run/* | sort -n`")),
            _ => (line.to_owned(), "nothing was changed".to_owned()),
        };
        wrong.push(what);
        if !hints.contains(&hint) {
            hints.push(hint);
        }
    }
    let why = format!("host {from} is not ready to move guests to or from {to}: {}", wrong.join("; "));
    (!wrong.is_empty()).then_some(Obstacle { why, hints })
}

/// Whether a move may begin: the hosts see each other, the guest can leave the one, and the other can take it.
///
/// # Errors
/// What stands in the way; nothing was changed.
pub async fn ready(rack: &GuestContext, pairs: &Pairs, a_move: &Move) -> Result<(), Failure> {
    let Move { from, to, uuid, .. } = a_move;
    let guest_fits = async {
        let xml = leave(rack, from, *uuid).await?;
        fits_cpu(rack, from, to, &xml).await
    };
    tokio::try_join!(no_copy(rack, to, *uuid), pairs.see_each_other(rack, from, to), guest_fits).map(drop)
}

/// Tries every move of a plan as far as nothing is changed by it: those that could not begin are refused in it.
pub async fn rehearse(rack: &GuestContext, plan: &mut Plan, link: Option<u64>) {
    let pairs = Pairs::default();
    let tries = plan.moves.iter().map(|a_move| async { (a_move.uuid, ready(rack, &pairs, a_move).await) });
    let tried = join_all(tries).await;
    let refused: BTreeMap<Uuid, String> =
        tried.into_iter().filter_map(|(uuid, ready)| Some((uuid, ready.err()?.to_string()))).collect();
    plan.refuse(&refused, link);
}

async fn no_copy(rack: &GuestContext, to: &str, uuid: Uuid) -> Result<(), Failure> {
    match rack.hypervisors.get(to)?.domain(uuid).await? {
        Some(domain) if domain.state.has_process() => {
            Err(Failure::refused(format!("host {to} has another copy of it"))
                .hint(format!("find out what that is, and end it on {to} with `virsh destroy {uuid}`")))
        }
        _ => Ok(()),
    }
}

/// Whether the target can give the guest the processor it has.
async fn fits_cpu(rack: &GuestContext, from: &str, to: &str, xml: &str) -> Result<(), Failure> {
    let Some((virttype, cpu)) = processor(xml) else { return Ok(()) };
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
    fn a_host_says_what_is_wrong_with_it_and_what_cures_that() {
        let told = |text: &str| read("h2", "h1", text).map(|o| format!("{}\n  {}", o.why, o.hints.join("\n  ")));
        assert_eq!(told("\n"), None);
        insta::assert_snapshot!(
            told("net packets of full size do not reach 10.1.0.1\nnet port 49152 of 10.1.0.1 is filtered\n").unwrap(),
            @r"
        host h2 is not ready to move guests to or from h1: it does not reach h1: packets of full size do not reach 10.1.0.1; it does not reach h1: port 49152 of 10.1.0.1 is filtered
          nothing was changed; `rackhand check` looks at all pairs of hosts, h2 and h1 among them
        "
        );
        insta::assert_snapshot!(
            told("tls QEMU's certificate /etc/pki/qemu/server-cert.pem is not the one that was issued to this host\n\
                  room /run is full: 0 KiB left, QEMU needs 1024 KiB for its sockets and state\n").unwrap(),
            @r"
        host h2 is not ready to move guests to or from h1: QEMU's certificate /etc/pki/qemu/server-cert.pem is not the one that was issued to this host; /run is full: 0 KiB left, QEMU needs 1024 KiB for its sockets and state
          `rackhand provision` issues the certificates of h2 anew
          make room on h2: `du -xs /run/* | sort -n`
        "
        );
    }

    #[test]
    fn addresses_of_version_six_are_bracketed() {
        assert_eq!(bracketed(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])), "[::1]");
    }
}
