//! The lab's two networks: a bridge each on this machine, a cable from it to each host.

use super::cgroup::Cgroup;
use super::names::{HostPlan, MANAGEMENT_NIC, Plan, STORAGE_NIC, Wire, number_of_link};
use super::tool::Tool;
use crate::error::{Failure, ResultExt};
use std::fs::{self, File};
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

/// The NIC of a BMC, inside its own namespace.
pub(super) const BMC_NIC: &str = "bmc0";

/// Builds the two bridges. The machine has an address on the management network only, as an operator's laptop would.
pub(super) async fn build_bridges(plan: Plan, tools: &Cgroup) -> Result<(), Failure> {
    let mut batch = String::new();
    for (bridge, wire) in [(plan.management_bridge(), Wire::Management), (plan.storage_bridge(), Wire::Storage)] {
        let mac = plan.bridge_mac(wire);
        batch += &format!("link add name {bridge} address {mac} type bridge stp_state 0 mcast_snooping 0\n");
        batch += &format!("link set dev {bridge} up\n");
    }
    batch += &format!("address add {}/24 dev {}\n", plan.machine(), plan.management_bridge());
    let call = Tool::new("ip").args(["-batch", "-"]).stdin(batch).within(tools);
    call.run().await.map(drop).while_doing(|| "cannot build the lab's bridges".to_owned())
}

/// A network namespace; it lives as long as this value and the processes in it.
#[derive(Debug)]
pub(super) struct Namespace(File);

impl Namespace {
    /// A new namespace. `inside` runs in it first, on a thread of its own.
    pub(super) fn create<T: Send>(inside: impl FnOnce() -> std::io::Result<T> + Send) -> Result<(Self, T), Failure> {
        let made = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
                let file = File::open("/proc/thread-self/ns/net")?;
                Ok::<_, std::io::Error>((Namespace(file), inside()?))
            });
            thread.join()
        });
        match made {
            Ok(result) => result.while_doing(|| "cannot make a network namespace".to_owned()),
            Err(_) => Err(Failure::failed("cannot make a network namespace: its thread panicked")),
        }
    }

    /// A path other processes can enter it by.
    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()))
    }
}

/// Lays a cable from a bridge into a namespace.
pub(super) async fn lay_cable(host: HostPlan, wire: Wire, into: &Namespace) -> Result<(), Failure> {
    let link = host.link(wire);
    let (bridge, nic) = end_points(host, wire);
    // A namespace dies some time after its last process; its cable may still be there.
    remove_link(&link).await?;
    let mac = host.mac(wire);
    let batch = format!(
        "link add name {link} type veth peer name {nic} address {mac} netns {}\nlink set dev {link} master {bridge} up\n",
        into.path().display()
    );
    ip_batch(batch).await.while_doing(|| format!("cannot lay cable {link}"))
}

/// Lays a cable from a bridge to a virtual machine.
pub(super) async fn lay_tap(host: HostPlan, wire: Wire) -> Result<(), Failure> {
    let link = host.link(wire);
    let (bridge, _) = end_points(host, wire);
    remove_link(&link).await?;
    let batch = format!("tuntap add dev {link} mode tap\nlink set dev {link} master {bridge} up\n");
    ip_batch(batch).await.while_doing(|| format!("cannot lay cable {link}"))
}

/// Gives the NIC at the far end of a cable its address and brings it up; for those that do not boot by themselves.
pub(super) async fn configure(into: &Namespace, nic: &str, address: &str) -> Result<(), Failure> {
    let batch = format!("address add {address} dev {nic}\nlink set dev lo up\nlink set dev {nic} up\n");
    let net = format!("--net={}", into.path().display());
    Tool::new("nsenter").args([&net, "ip", "-batch", "-"]).stdin(batch).run().await?;
    Ok(())
}

/// Takes a cable out of its switch (the host's end keeps its carrier), or puts it back.
pub(super) async fn plug(host: HostPlan, wire: Wire, in_switch: bool) -> Result<(), Failure> {
    let (bridge, _) = end_points(host, wire);
    let port = if in_switch { format!("master {bridge}") } else { "nomaster".to_owned() };
    ip_batch(format!("link set dev {} {port}\n", host.link(wire))).await
}

/// Takes a cable's light away, as when it is pulled.
pub(super) async fn darken(host: HostPlan, wires: &[Wire]) -> Result<(), Failure> {
    let mut batch = String::new();
    for wire in wires {
        let link = host.link(*wire);
        if link_exists(&link) {
            batch += &format!("link set dev {link} down\n");
        }
    }
    ip_batch(batch).await
}

fn end_points(host: HostPlan, wire: Wire) -> (String, &'static str) {
    match wire {
        Wire::Management => (host.plan.management_bridge(), MANAGEMENT_NIC),
        Wire::Storage => (host.plan.storage_bridge(), STORAGE_NIC),
        Wire::Bmc => (host.plan.management_bridge(), BMC_NIC),
    }
}

/// Removes a link of this machine if it is there.
pub(super) async fn remove_link(link: &str) -> Result<(), Failure> {
    if !link_exists(link) {
        return Ok(());
    }
    match Tool::new("ip").args(["link", "delete", "dev", link]).run().await {
        // It may have gone with its namespace in between.
        Err(_) if !link_exists(link) => Ok(()),
        other => other.map(drop),
    }
}

/// Removes every link whose name begins with the lab's prefix.
pub(super) async fn remove_all(plan: Plan) -> Result<(), Failure> {
    let prefix = plan.link_prefix();
    for link in links()?.iter().filter(|l| l.starts_with(&prefix)) {
        remove_link(link).await?;
    }
    Ok(())
}

/// Numbers of labs that have links on this machine.
pub(super) fn numbers_with_links() -> Result<Vec<u8>, Failure> {
    let mut numbers: Vec<u8> = links()?.iter().filter_map(|l| number_of_link(l)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

fn links() -> Result<Vec<String>, Failure> {
    super::store::entries(std::path::Path::new("/sys/class/net"))
}

fn link_exists(link: &str) -> bool {
    fs::symlink_metadata(format!("/sys/class/net/{link}")).is_ok()
}

/// Every IPv4 address and route of this machine, as text to look for a free network in.
pub(super) async fn occupied() -> Result<String, Failure> {
    let addresses = Tool::new("ip").args(["-4", "-oneline", "address", "show"]).run().await?;
    let routes = Tool::new("ip").args(["-4", "route", "show", "table", "all"]).run().await?;
    Ok(addresses + &routes)
}

/// The first of these numbers whose two networks nobody uses.
pub(super) fn free_number(mut candidates: RangeInclusive<u8>, taken: &[u8], occupied: &str) -> Option<u8> {
    candidates.find(|n| {
        let nets = [format!(" 10.77.{n}."), format!(" 10.78.{n}.")];
        let text = format!(" {}", occupied.replace('\n', " \n "));
        !taken.contains(n) && !nets.iter().any(|net| text.contains(net))
    })
}

async fn ip_batch(batch: String) -> Result<(), Failure> {
    if batch.is_empty() {
        return Ok(());
    }
    Tool::new("ip").args(["-batch", "-"]).stdin(batch).run().await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_free_when_no_lab_address_or_route_has_it() {
        let occupied = "2: eth0    inet 172.16.0.2/24 brd 172.16.0.255 scope global eth0\n\
                        7: rh1-m    inet 10.77.1.1/24 scope global rh1-m\n\
                        10.78.2.0/24 dev tun0 scope link\n\
                        default via 172.16.0.1 dev eth0\n";
        assert_eq!(free_number(0..=254, &[], occupied), Some(0));
        assert_eq!(free_number(0..=254, &[0], occupied), Some(3));
        assert_eq!(free_number(7..=7, &[7], ""), None);
    }
}
