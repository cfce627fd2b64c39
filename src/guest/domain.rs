//! A guest's definition as libvirt takes it. Nothing in it lives on a host: any host can start it.

use super::spec::Guest;
use crate::error::Failure;
use crate::inventory::{Inventory, Role};
use crate::quote::xml as xml_text;
use std::fmt::Write as _;
use uuid::Uuid;

/// The Ceph user the guests' disks are opened as.
pub const CEPH_USER: &str = "rackhand-guests";
/// Memory and processors a running guest may grow to, as a multiple of what it has.
const HEADROOM: u64 = 4;
/// Most processors a guest may grow to; q35 takes 255 without an interrupt remapper.
const MAX_CPUS: u64 = 128;
/// Slots for memory added while it runs.
const MEMORY_SLOTS: u32 = 16;
/// Guests smaller than this (in KiB) get no room for more memory: it lies above 4 GiB, for which a Linux guest sets
/// 64 MiB of bounce buffers aside at boot. One with 128 MiB was seen to die of it.
const GROWS_FROM: u64 = 512 << 10;
/// PCI ports in all: the devices below take six, the others are for disks and NICs added while it runs.
const PORTS: u32 = 12;

/// The id of the libvirt secret that opens the guests' disks, the same on every host.
pub fn secret_uuid(fsid: Uuid) -> Uuid {
    Uuid::new_v5(&fsid, format!("client.{CEPH_USER}").as_bytes())
}

/// The domain XML of a guest.
///
/// # Errors
/// When a NIC's network is not in the inventory any more.
pub fn xml(guest: &Guest, inventory: &Inventory) -> Result<String, Failure> {
    let mut x = String::new();
    let memory = guest.memory.bytes() >> 10;
    let (cpus, max_cpus) = (guest.cpus, (u64::from(guest.cpus) * HEADROOM).clamp(u64::from(guest.cpus), MAX_CPUS));
    let virt = xml_text(&guest.machine.virt);
    let room = match memory {
        GROWS_FROM.. => format!("  <maxMemory slots='{MEMORY_SLOTS}' unit='KiB'>{}</maxMemory>\n", memory * HEADROOM),
        _ => String::new(),
    };
    let _ = write!(
        x,
        "<domain type='{virt}'>\n  <name>{}</name>\n  <uuid>{}</uuid>\n{room}  <memory unit='KiB'>{memory}</memory>\n  <vcpu current='{cpus}'>{max_cpus}</vcpu>\n  \
         <iothreads>1</iothreads>\n  <os>\n    <type arch='x86_64' machine='{}'>hvm</type>\n  </os>\n  \
         <features>\n    <acpi/>\n    <apic/>\n  </features>\n",
        xml_text(&guest.name),
        guest.uuid,
        xml_text(&guest.machine.machine),
    );
    let _ = writeln!(x, "  {}", cpu(&guest.machine.cpu, max_cpus, memory));
    x.push_str(
        "  <clock offset='utc'>\n    <timer name='rtc' tickpolicy='catchup'/>\n    <timer name='pit' tickpolicy='delay'/>\n    \
         <timer name='hpet' present='no'/>\n  </clock>\n  <on_poweroff>destroy</on_poweroff>\n  \
         <on_reboot>restart</on_reboot>\n  <on_crash>destroy</on_crash>\n  <devices>\n",
    );
    // No display, hence no USB tablet: firmware has that much less to look for.
    x.push_str("    <controller type='usb' model='none'/>\n");
    // Where ports are named, the root has to be named too, and first.
    x.push_str("    <controller type='pci' index='0' model='pcie-root'/>\n");
    for _ in 0..PORTS {
        x.push_str("    <controller type='pci' model='pcie-root-port'/>\n");
    }
    for (n, disk) in guest.disks.iter().enumerate() {
        x.push_str(&rbd_disk(inventory, &disk.image, &target(n), (n == 0).then_some(1), false));
    }
    x.push_str(&rbd_disk(inventory, &guest.seed_image(), &target(guest.disks.len()), None, true));
    for nic in &guest.nics {
        let Some(network) = inventory.networks.guests.get(&nic.network) else {
            return Err(Failure::usage(format!("the inventory has no guest network `{}`", nic.network)));
        };
        let mtu = if network.mtu == 1500 { String::new() } else { format!("      <mtu size='{}'/>\n", network.mtu) };
        let _ = write!(
            x,
            "    <interface type='bridge'>\n      <mac address='{}'/>\n      <source bridge='{}'/>\n      \
             <model type='virtio'/>\n{mtu}      <rom enabled='no'/>\n    </interface>\n",
            xml_text(&nic.mac),
            xml_text(&network.bridge),
        );
    }
    x.push_str(
        "    <serial type='pty'>\n      <target port='0'/>\n    </serial>\n    <console type='pty'>\n      \
         <target type='serial' port='0'/>\n    </console>\n    <channel type='unix'>\n      \
         <target type='virtio' name='org.qemu.guest_agent.0'/>\n    </channel>\n    <rng model='virtio'>\n      \
         <backend model='random'>/dev/urandom</backend>\n    </rng>\n    <memballoon model='virtio'>\n      \
         <stats period='10'/>\n    </memballoon>\n    <panic model='isa'/>\n  </devices>\n</domain>\n",
    );
    Ok(x)
}

/// `vda`, `vdb`, ... Guests with more than 26 disks are refused long before.
fn target(n: usize) -> String {
    let letter = u8::try_from(n).map_or(b'z', |n| b'a' + n.min(25));
    format!("vd{}", char::from(letter))
}

/// The `<cpu>` element with the one NUMA node that memory added later needs.
fn cpu(model: &str, max_cpus: u64, memory_kib: u64) -> String {
    let numa = format!("<numa><cell id='0' cpus='0-{}' memory='{memory_kib}' unit='KiB'/></numa>", max_cpus - 1);
    let body = model.trim();
    match body.strip_suffix("</cpu>") {
        Some(open) => format!("{}{numa}</cpu>", open.trim_end()),
        None => format!("{}>{numa}</cpu>", body.trim_end_matches("/>")),
    }
}

fn rbd_disk(inventory: &Inventory, image: &str, target: &str, boot: Option<u32>, read_only: bool) -> String {
    let mut x = String::new();
    // `stop`: a guest whose storage refuses it stands still, instead of going on without its disk.
    let stop = if read_only { "rerror_policy='stop'" } else { "error_policy='stop' rerror_policy='stop'" };
    let how = if read_only { "" } else { " cache='writeback' discard='unmap' iothread='1'" };
    let _ = write!(
        x,
        "    <disk type='network' device='disk'>\n      <driver name='qemu' type='raw'{how} {stop}/>\n      \
         <auth username='{CEPH_USER}'>\n        <secret type='ceph' uuid='{}'/>\n      </auth>\n      \
         <source protocol='rbd' name='{}/{}'>\n",
        secret_uuid(inventory.cluster.fsid),
        xml_text(&inventory.ceph.pool),
        xml_text(image),
    );
    for mon in inventory.with_role(Role::Mon) {
        let _ = writeln!(x, "        <host name='{}'/>", mon.storage_address);
    }
    let _ = write!(x, "      </source>\n      <target dev='{target}' bus='virtio'/>\n");
    if let Some(order) = boot {
        let _ = writeln!(x, "      <boot order='{order}'/>");
    }
    if read_only {
        x.push_str("      <readonly/>\n");
    }
    x.push_str("    </disk>\n");
    x
}

/// An inventory of three hosts for tests.
#[cfg(test)]
pub(crate) fn sample_inventory() -> Inventory {
    let host = |n: u8| {
        serde_json::json!({
            "name": format!("h{n}"), "address": format!("10.77.1.1{n}"), "storage_address": format!("10.77.2.1{n}"),
        })
    };
    serde_json::from_value(serde_json::json!({
        "cluster": {"name": "test", "fsid": "11111111-2222-4333-8444-555555555555"},
        "networks": {
            "management": {"cidr": "10.77.1.0/24"},
            "storage": {"cidr": "10.77.2.0/24"},
            "guests": {"lan": {"bridge": "br-lan", "cidr": "10.77.1.0/24", "gateway": "10.77.1.1",
                               "ranges": ["10.77.1.100-10.77.1.199"]}},
        },
        "hosts": [host(1), host(2), host(3)],
    }))
    .unwrap()
}

#[cfg(test)]
mod tests {
    use super::super::spec::sample;
    use super::*;

    #[test]
    fn the_whole_definition() {
        let text = xml(&sample("web1"), &sample_inventory()).unwrap();
        let ports = "    <controller type='pci' model='pcie-root-port'/>\n";
        insta::assert_snapshot!(text.replacen(ports, "", 11));
        roxmltree::Document::parse(&text).unwrap();
    }

    #[test]
    fn nothing_of_it_lives_on_a_host() {
        let text = xml(&sample("web1"), &sample_inventory()).unwrap();
        let document = roxmltree::Document::parse(&text).unwrap();
        for disk in document.descendants().filter(|n| n.has_tag_name("disk")) {
            assert_eq!(disk.attribute("type"), Some("network"));
        }
        assert!(!text.contains("file=") && !text.contains("nvram") && !text.contains("kernel"));
    }

    #[test]
    fn the_numa_node_goes_into_any_cpu_element() {
        assert_eq!(
            cpu("<cpu mode='host-passthrough'/>", 4, 1024),
            "<cpu mode='host-passthrough'><numa><cell id='0' cpus='0-3' memory='1024' unit='KiB'/></numa></cpu>"
        );
        assert!(cpu("<cpu>\n  <model>x</model>\n</cpu>\n", 4, 1).ends_with("</numa></cpu>"));
    }

    #[test]
    fn a_network_that_is_gone_is_a_usage_error() {
        let mut guest = sample("web1");
        guest.nics[0].network = "gone".into();
        assert!(xml(&guest, &sample_inventory()).is_err());
    }
}
