//! The inventory a lab writes: an ordinary one, which every other command reads unaware.

use super::names::{BMC_USER, HostPlan, MANAGEMENT_NIC};
use super::store::{HostKind, Record};
use super::vm;
use std::fmt::Write;

/// Memory a container has is the machine's own: half of it is shared out among the hosts, for guests.
fn reserve_mib(machine_mib: u64, hosts: u8) -> u64 {
    machine_mib - machine_mib / 2 / u64::from(hosts.max(1))
}

/// The text of `inventory.yaml`.
pub(super) fn render(lab: &str, record: &Record, machine_mib: u64) -> String {
    let plan = record.plan();
    let size = record.hosts.min(3);
    let mut text = format!(
        "# Written by `rackhand lab up`. Paths are relative to this file.\n\
         cluster:\n  name: {lab}\n  fsid: {fsid}\n\
         ssh:\n  user: root\n  identity: id_ed25519\n  known_hosts: known_hosts\n\
         networks:\n  management:\n    cidr: {management}\n  storage:\n    cidr: {storage}\n  guests:\n    lan:\n      \
         bridge: br-lan\n      uplink: {MANAGEMENT_NIC}\n      cidr: {management}\n      ranges:\n        - {range}\n\
         ceph:\n  size: {size}\n  min_size: {min_size}\n  osd_memory: 1G\n\
         guests:\n  memory: 128M\n  cpus: 1\n  disk: 1G\n  network: lan\n  host_reserve: {reserve}M\n  cpu_overcommit: 16.0\n\
         hosts:\n",
        fsid = record.fsid,
        management = plan.management_cidr(),
        storage = plan.storage_cidr(),
        range = plan.guest_range(),
        min_size = size.min(2),
        reserve = match record.kind {
            HostKind::Container => reserve_mib(machine_mib, record.hosts),
            HostKind::Vm => reserve_mib(vm::MEMORY_MIB, 1),
        },
    );
    for host in plan.hosts(record.hosts) {
        render_host(&mut text, record, host);
    }
    text
}

/// Monitors: an odd number, so that one can be lost.
fn mons(hosts: u8) -> u8 {
    match hosts {
        0..=2 => 1,
        3 | 4 => 3,
        _ => 5,
    }
}

fn render_host(text: &mut String, record: &Record, host: HostPlan) {
    let mon = if host.i <= mons(record.hosts) { "mon, mgr, " } else { "" };
    let osd = if record.disks > 0 { "osd, " } else { "" };
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "  - name: {name}\n    address: {management}\n    storage_address: {storage}\n    \
         location:\n      datacenter: lab\n      rack: r1\n    roles: [{mon}{osd}guests]\n",
        name = host.name(),
        management = host.management(),
        storage = host.storage(),
    );
    let _ = write!(
        text,
        "    bmc:\n      kind: redfish\n      address: {}\n      user: {BMC_USER}\n      password:\n        file: bmc-password\n",
        host.bmc()
    );
    if record.disks > 0 {
        text.push_str("    osds:\n");
    }
    for disk in 0..record.disks {
        let _ = writeln!(text, "      - {}", host.disk_path(disk));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{self, Inventory, Role, Size};

    fn record(hosts: u8, disks: u8) -> Record {
        Record {
            schema: Record::SCHEMA.to_owned(),
            number: 4,
            hosts,
            disks,
            disk_size: Size::gib(12),
            image: "/image".into(),
            fsid: uuid::Uuid::from_u128(1),
            kind: HostKind::Container,
            ready: true,
        }
    }

    fn checked(record: &Record) -> Inventory {
        let text = render("rack", record, 24_000);
        inventory::parse("inventory.yaml", &text).unwrap()
    }

    #[test]
    fn it_reads_back_as_an_inventory() {
        let inventory = checked(&record(3, 2));
        assert_eq!(inventory.hosts.len(), 3);
        let host = inventory.host("h2").unwrap();
        assert_eq!(host.address.to_string(), "10.77.4.12");
        assert_eq!(host.osds[1].to_str().unwrap(), "/dev/disk/by-id/rackhand-RH00402-disk1");
        assert_eq!(inventory.guests.host_reserve, Size::mib(20_000));
    }

    #[test]
    fn sizes_fit_the_number_of_hosts() {
        for ((hosts, mons, size), disks) in
            [(1, 1, 1), (2, 1, 2), (3, 3, 3), (4, 3, 3), (5, 5, 3)].into_iter().flat_map(|row| [(row, 0), (row, 1)])
        {
            let inventory = checked(&record(hosts, disks));
            assert_eq!(inventory.with_role(Role::Osd).count(), usize::from(hosts * disks));
            assert_eq!(inventory.with_role(Role::Mon).count(), mons);
            assert_eq!(inventory.ceph.size, size);
            assert!(inventory.ceph.min_size <= size);
        }
    }
}
