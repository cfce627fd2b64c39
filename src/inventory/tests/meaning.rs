//! Mistakes of meaning: what cannot be true together.

use super::said;

#[test]
fn a_host_name_given_twice() {
    insta::assert_snapshot!(said(&[("name: h2", "name: h1")]), @"
    f.yaml has 2 mistakes

    f.yaml:16:9: 2 hosts with OSDs cannot hold 3 copies, one a host
      16 |   size: 3
         |         ^
      fix: give the osd role to 3 hosts or more

    f.yaml:25:11: host name h1 is given twice, first on line 20
      25 |   - name: h1
         |           ^^
      fix: give each host a name of its own
    ");
}

#[test]
fn host_names_that_are_none() {
    insta::assert_snapshot!(said(&[("name: h1", "name: H1"), ("name: h2", "name: h2.example.org"), ("name: h3", "name: -h3-")]), @"
    f.yaml has 3 mistakes

    f.yaml:20:11: `H1` is not a host name
      20 |   - name: H1
         |           ^^
      fix: use at most 63 lower-case letters, digits and inner `-`: h1

    f.yaml:25:11: `h2.example.org` is not a host name
      25 |   - name: h2.example.org
         |           ^^^^^^^^^^^^^^
      fix: write the short name h2, without its domain

    f.yaml:29:11: `-h3-` is not a host name
      29 |   - name: -h3-
         |           ^^^^
      fix: use at most 63 lower-case letters, digits and inner `-`
    ");
}

#[test]
fn a_name_that_ceph_has_already() {
    insta::assert_snapshot!(said(&[("    address: 10.0.0.11", "    location: {datacenter: default, rack: r1}\n    address: 10.0.0.11")]), @"
    f.yaml has 1 mistake

    f.yaml:21:28: `default` is the name of the CRUSH map's own root
      21 |     location: {datacenter: default, rack: r1}
         |                            ^^^^^^^
      fix: Ceph tells places apart by name only: choose another
    ");
}

#[test]
fn an_address_given_twice() {
    insta::assert_snapshot!(said(&[("10.0.0.12", "10.0.0.11")]), @"
    f.yaml has 1 mistake

    f.yaml:26:14: host h2: address 10.0.0.11 is taken by host h1 on line 21
      26 |     address: 10.0.0.11
         |              ^^^^^^^^^
      fix: give each host an address of its own
    ");
}

#[test]
fn an_address_outside_its_network() {
    insta::assert_snapshot!(said(&[("storage_address: 10.1.0.12", "storage_address: 10.9.0.12")]), @"
    f.yaml has 1 mistake

    f.yaml:27:22: host h2: storage_address 10.9.0.12 is outside the storage network 10.1.0.0/24
      27 |     storage_address: 10.9.0.12
         |                      ^^^^^^^^^
      fix: give an address in 10.1.0.0/24, or correct networks.storage.cidr on line 7
    ");
}

#[test]
fn the_broadcast_address() {
    insta::assert_snapshot!(said(&[("10.0.0.12", "10.0.0.255")]), @"
    f.yaml has 1 mistake

    f.yaml:26:14: host h2: address 10.0.0.255 is the management network's own or broadcast address
      26 |     address: 10.0.0.255
         |              ^^^^^^^^^^
      fix: give another address in 10.0.0.0/24
    ");
}

#[test]
fn an_even_number_of_mons() {
    insta::assert_snapshot!(said(&[("    osds: [/dev/disk/by-id/wwn-0x2]", "    roles: [mgr, osd, guests]\n    osds: [/dev/disk/by-id/wwn-0x2]")]), @"
    f.yaml has 1 mistake

    f.yaml:33:12: 2 mons, on h1 and h3: an even number survives no more losses than one mon less
      33 |     roles: [mon, mgr, osd, guests]
         |            ^^^^^^^^^^^^^^^^^^^^^^^
      fix: take the role from one, for example host h3: `roles: [mgr, osd, guests]`
    ");
}

#[test]
fn forty_hosts_are_not_forty_mons() {
    let more: String = (4..=40)
        .map(|n| {
            format!(
                "\n  - {{name: h{n}, address: 10.0.0.{}, storage_address: 10.1.0.{}, roles: ROLES}}",
                n + 10,
                n + 10
            )
        })
        .collect();
    let with = |roles: &str| said(&[("hosts:", &format!("hosts:{}", more.replace("ROLES", roles)))]);
    let text = with("[mon, mgr, guests]");
    assert!(text.contains("40 mons: more than 7 only make every change of the cluster slower"), "{text}");
    let fix = "fix: keep mon and mgr on three hosts, or five, in different racks, and write `roles: [osd, guests]`";
    assert!(text.contains(fix), "{text}");
    assert!(!text.contains("even number"), "{text}");
}

#[test]
fn no_mon_and_no_mgr() {
    insta::assert_snapshot!(said(&[("    osds: [/dev/disk/by-id/wwn-0x1]", "    roles: [osd]\n    osds: [/dev/disk/by-id/wwn-0x1]"), ("    osds: [/dev/disk/by-id/wwn-0x2]", "    roles: [osd]\n    osds: [/dev/disk/by-id/wwn-0x2]"), ("[mon, mgr, osd, guests]", "[osd]")]), @"
    f.yaml has 2 mistakes

    f.yaml:23:12: no host has the mgr role
      23 |     roles: [osd]
         |            ^^^^^
      fix: give it to the hosts that are mons

    f.yaml:23:12: no host has the mon role
      23 |     roles: [osd]
         |            ^^^^^
      fix: give it to three hosts, or five
    ");
}

#[test]
fn too_few_hosts_for_the_copies() {
    insta::assert_snapshot!(said(&[("    osds: [/dev/disk/by-id/wwn-0x2]", "    roles: [mon, mgr, guests]")]), @"
    f.yaml has 1 mistake

    f.yaml:16:9: 2 hosts with OSDs cannot hold 3 copies, one a host
      16 |   size: 3
         |         ^
      fix: give the osd role to 3 hosts or more
    ");
}

#[test]
fn too_few_racks_for_the_copies() {
    insta::assert_snapshot!(said(&[("  size: 3", "  size: 3\n  failure_domain: rack"), ("    address: 10.0.0.11", "    location: {rack: r1}\n    address: 10.0.0.11"), ("    address: 10.0.0.12", "    location: {rack: r1}\n    address: 10.0.0.12")]), @"
    f.yaml has 2 mistakes

    f.yaml:16:9: 1 rack with OSDs cannot hold 3 copies, one a rack
      16 |   size: 3
         |         ^
      fix: give the osd role to hosts in 3 racks or more, or use `failure_domain: host`

    f.yaml:32:11: host h3 has OSDs but no rack, and the failure domain is rack
      32 |   - name: h3
         |           ^^
      fix: add `location: {rack: NAME}`
    ");
}

#[test]
fn min_size_above_size() {
    insta::assert_snapshot!(said(&[("min_size: 2", "min_size: 4")]), @"
    f.yaml has 1 mistake

    f.yaml:17:13: ceph.min_size 4 is more than size 3: nothing could ever be written
      17 |   min_size: 4
         |             ^
      fix: write size: 3 and min_size: 2, or at most 3
    ");
}

#[test]
fn two_copies_of_which_one_takes_writes() {
    insta::assert_snapshot!(said(&[("size: 3", "size: 2"), ("min_size: 2", "min_size: 1")]), @"
    f.yaml has 1 mistake

    f.yaml:17:13: ceph.size 2 with min_size 1 loses data: one copy takes writes alone
      17 |   min_size: 1
         |             ^
      fix: write size: 3 and min_size: 2
    ");
}

#[test]
fn one_copy() {
    insta::assert_snapshot!(said(&[("size: 3", "size: 1"), ("min_size: 2", "min_size: 1")]), @"
    f.yaml has 1 mistake

    f.yaml:16:9: ceph.size 1 with min_size 1 loses data: one copy takes writes alone
      16 |   size: 1
         |         ^
      fix: write size: 3 and min_size: 2
    ");
}

#[test]
fn a_bmc_shared_by_two_hosts() {
    insta::assert_snapshot!(said(&[("    osds: [/dev/disk/by-id/wwn-0x2]", "    osds: [/dev/disk/by-id/wwn-0x2]\n    bmc: {kind: ipmi, address: 10.0.0.21, user: root, password: {file: bmc}}")]), @"
    f.yaml has 1 mistake

    f.yaml:29:32: host h2: its BMC 10.0.0.21 is that of host h1 on line 24
      29 |     bmc: {kind: ipmi, address: 10.0.0.21, user: root, password: {file: bmc}}
         |                                ^^^^^^^^^
      fix: a BMC switches one machine: fencing one host would kill the other; give each its own
    ");
}

#[test]
fn a_bmc_with_a_hosts_address() {
    insta::assert_snapshot!(said(&[("address: 10.0.0.21", "address: 10.0.0.12")]), @"
    f.yaml has 1 mistake

    f.yaml:24:35: host h1: its BMC has the address of host h2 on line 26
      24 |     bmc: {kind: redfish, address: 10.0.0.12, user: root, password: {env: BMC}}
         |                                   ^^^^^^^^^
      fix: give the address of the BMC itself (iDRAC), not of the system
    ");
}

#[test]
fn a_range_outside_its_network() {
    insta::assert_snapshot!(said(&[("10.0.0.100-10.0.0.199", "10.0.5.100-10.0.5.199")]), @"
    f.yaml has 1 mistake

    f.yaml:14:16: networks.guests.lan: range 10.0.5.100-10.0.5.199 is outside 10.0.0.0/24
      14 |       ranges: [10.0.5.100-10.0.5.199]
         |                ^^^^^^^^^^^^^^^^^^^^^
      fix: give addresses in 10.0.0.0/24
    ");
}

#[test]
fn a_range_over_hosts() {
    insta::assert_snapshot!(said(&[("10.0.0.100-10.0.0.199", "10.0.0.12-10.0.0.99")]), @"
    f.yaml has 1 mistake

    f.yaml:14:16: networks.guests.lan: range 10.0.0.12-10.0.0.99 holds addresses in use: 10.0.0.12 (host h2), 10.0.0.13 (host h3), 10.0.0.21 (the BMC of host h1)
      14 |       ranges: [10.0.0.12-10.0.0.99]
         |                ^^^^^^^^^^^^^^^^^^^
      fix: write ranges around them: guests would take addresses that others answer to
    ");
}

#[test]
fn ranges_that_overlap() {
    insta::assert_snapshot!(said(&[("[10.0.0.100-10.0.0.199]", "[10.0.0.100-10.0.0.199, 10.0.0.150-10.0.0.220]")]), @"
    f.yaml has 1 mistake

    f.yaml:14:39: networks.guests.lan: range 10.0.0.150-10.0.0.220 overlaps 10.0.0.100-10.0.0.199 of lan on line 14
      14 |       ranges: [10.0.0.100-10.0.0.199, 10.0.0.150-10.0.0.220]
         |                                       ^^^^^^^^^^^^^^^^^^^^^
      fix: two guests would get one address: keep ranges apart
    ");
}

#[test]
fn a_role_without_what_it_needs() {
    insta::assert_snapshot!(said(&[("    osds: [/dev/disk/by-id/wwn-0x2]\n", "")]), @"
    f.yaml has 1 mistake

    f.yaml:25:11: host h2 has the osd role, but no device
      25 |   - name: h2
         |           ^^
      fix: list its disks under `osds:`, or write `roles: [mon, mgr, guests]`
    ");
}

#[test]
fn devices_without_the_role() {
    insta::assert_snapshot!(said(&[("roles: [mon, mgr, osd, guests]", "roles: [mon, mgr, guests]")]), @"
    f.yaml has 2 mistakes

    f.yaml:16:9: 2 hosts with OSDs cannot hold 3 copies, one a host
      16 |   size: 3
         |         ^
      fix: give the osd role to 3 hosts or more

    f.yaml:32:12: host h3 has devices for OSDs, but not the osd role
      32 |     roles: [mon, mgr, guests]
         |            ^^^^^^^^^^^^^^^^^^
      fix: add osd to its roles, or remove `osds`
    ");
}

#[test]
fn a_device_by_an_unstable_name() {
    insta::assert_snapshot!(said(&[("/dev/disk/by-id/wwn-0x1", "/dev/sdb"), ("/dev/disk/by-id/wwn-0x2", "/dev/nvme0n1"), ("/dev/disk/by-id/wwn-0x3", "wwn-0x3")]), @"
    f.yaml has 3 mistakes

    f.yaml:23:12: host h1: /dev/sdb can be another disk after the next boot
      23 |     osds: [/dev/sdb]
         |            ^^^^^^^^
      fix: use the name in /dev/disk/by-id or /dev/disk/by-path; `rackhand facts --disks` lists them

    f.yaml:28:12: host h2: /dev/nvme0n1 can be another disk after the next boot
      28 |     osds: [/dev/nvme0n1]
         |            ^^^^^^^^^^^^
      fix: use the name in /dev/disk/by-id or /dev/disk/by-path; `rackhand facts --disks` lists them

    f.yaml:33:12: host h3: wwn-0x3 is not a device
      33 |     osds: [wwn-0x3]
         |            ^^^^^^^
      fix: use the name in /dev/disk/by-id or /dev/disk/by-path; `rackhand facts --disks` lists them
    ");
}

#[test]
fn a_device_given_twice() {
    insta::assert_snapshot!(said(&[("[/dev/disk/by-id/wwn-0x2]", "[/dev/disk/by-id/wwn-0x2, /dev/disk/by-id/wwn-0x2]"), ("wwn-0x3", "wwn-0x1")]), @"
    f.yaml has 2 mistakes

    f.yaml:28:37: host h2: device /dev/disk/by-id/wwn-0x2 is given twice, first on line 28
      28 |     osds: [/dev/disk/by-id/wwn-0x2, /dev/disk/by-id/wwn-0x2]
         |                                     ^^^^^^^^^^^^^^^^^^^^^^^
      fix: remove one of the two

    f.yaml:33:12: host h3: device /dev/disk/by-id/wwn-0x1 is that of host h1 on line 23
      33 |     osds: [/dev/disk/by-id/wwn-0x1]
         |            ^^^^^^^^^^^^^^^^^^^^^^^
      fix: a disk is in one host: give each its own
    ");
}

#[test]
fn an_mtu_beyond_ethernet() {
    insta::assert_snapshot!(said(&[("mtu: 9000", "mtu: 65520")]), @"
    f.yaml has 1 mistake

    f.yaml:8:10: networks.storage: MTU 65520 is out of range for Ethernet
      8 |     mtu: 65520
        |          ^^^^^
      fix: write 1280 to 9216
    ");
}

#[test]
fn an_mtu_beyond_datagram_mode() {
    insta::assert_snapshot!(said(&[("mtu: 9000", "mtu: 65520\n    link: infiniband\n    ipoib: datagram")]), @"
    f.yaml has 1 mistake

    f.yaml:8:10: networks.storage: MTU 65520 is out of range for IPoIB in datagram mode
      8 |     mtu: 65520
        |          ^^^^^
      fix: write 1280 to 4092, or `ipoib: connected`
    ");
}

#[test]
fn an_mtu_that_needs_connected_mode() {
    insta::assert_snapshot!(said(&[("mtu: 9000", "mtu: 65520\n    link: infiniband")]), @"
    f.yaml has 1 mistake

    f.yaml:8:10: networks.storage: MTU 65520 needs IPoIB in connected mode
      8 |     mtu: 65520
        |          ^^^^^
      fix: add `ipoib: connected`, or write at most 4092
    ");
}

#[test]
fn ipoib_on_ethernet() {
    insta::assert_snapshot!(said(&[("mtu: 9000", "mtu: 9000\n    ipoib: connected")]), @"
    f.yaml has 1 mistake

    f.yaml:9:12: networks.storage: `ipoib` is for InfiniBand, the link is ethernet
      9 |     ipoib: connected
        |            ^^^^^^^^^
      fix: remove it, or write `link: infiniband`
    ");
}

#[test]
fn an_infiniband_uplink() {
    insta::assert_snapshot!(said(&[("bridge: br-lan", "bridge: br-lan\n      uplink: ib0")]), @"
    f.yaml has 1 mistake

    f.yaml:12:15: networks.guests.lan.uplink: ib0 is an InfiniBand port, which no bridge can take
      12 |       uplink: ib0
         |               ^^^
      fix: name an Ethernet port
    ");
}

#[test]
fn a_guest_mtu_beyond_the_nic() {
    insta::assert_snapshot!(said(&[("bridge: br-lan", "bridge: br-lan\n      mtu: 9000")]), @"
    f.yaml has 1 mistake

    f.yaml:12:12: networks.guests.lan: MTU 9000 does not fit the management network's NIC below it (1500)
      12 |       mtu: 9000
         |            ^^^^
      fix: write at most 1500, raise networks.management.mtu, or name an `uplink`
    ");
}

#[test]
fn a_gateway_outside() {
    insta::assert_snapshot!(said(&[("gateway: 10.0.0.1", "gateway: 10.4.0.1")]), @"
    f.yaml has 1 mistake

    f.yaml:13:16: networks.guests.lan: gateway 10.4.0.1 is outside 10.0.0.0/24
      13 |       gateway: 10.4.0.1
         |                ^^^^^^^^
      fix: give an address in 10.0.0.0/24
    ");
}

#[test]
fn networks_that_overlap() {
    insta::assert_snapshot!(said(&[("cidr: 10.1.0.0/24", "cidr: 10.0.0.0/16")]), @"
    f.yaml has 5 mistakes

    f.yaml:7:11: networks.storage: 10.0.0.0/16 overlaps networks.management 10.0.0.0/24 on line 5
      7 |     cidr: 10.0.0.0/16
        |           ^^^^^^^^^^^
      fix: write the same network twice, or two that do not overlap

    f.yaml:12:13: networks.guests.lan: 10.0.0.0/24 overlaps networks.storage 10.0.0.0/16 on line 7
      12 |       cidr: 10.0.0.0/24
         |             ^^^^^^^^^^^
      fix: write the same network twice, or two that do not overlap

    f.yaml:22:22: host h1: storage_address 10.1.0.11 is outside the storage network 10.0.0.0/16
      22 |     storage_address: 10.1.0.11
         |                      ^^^^^^^^^
      fix: give an address in 10.0.0.0/16, or correct networks.storage.cidr on line 7

    f.yaml:27:22: host h2: storage_address 10.1.0.12 is outside the storage network 10.0.0.0/16
      27 |     storage_address: 10.1.0.12
         |                      ^^^^^^^^^
      fix: give an address in 10.0.0.0/16, or correct networks.storage.cidr on line 7

    f.yaml:31:22: host h3: storage_address 10.1.0.13 is outside the storage network 10.0.0.0/16
      31 |     storage_address: 10.1.0.13
         |                      ^^^^^^^^^
      fix: give an address in 10.0.0.0/16, or correct networks.storage.cidr on line 7
    ");
}

#[test]
fn one_bridge_for_two_networks() {
    insta::assert_snapshot!(said(&[("    lan:\n", "    dmz: {bridge: br-lan, cidr: 10.7.0.0/24}\n    lan:\n")]), @"
    f.yaml has 2 mistakes

    f.yaml:11:5: networks.guests.lan: the management network's NIC, without a VLAN, is taken by dmz on line 10
      11 |     lan:
         |     ^^^
      fix: give one of them another `vlan` or `uplink`

    f.yaml:12:15: networks.guests.lan: bridge br-lan is that of dmz on line 10
      12 |       bridge: br-lan
         |               ^^^^^^
      fix: give each network a bridge of its own
    ");
}

#[test]
fn a_bridge_name_too_long() {
    insta::assert_snapshot!(said(&[("br-lan", "bridge-of-the-lan")]), @"
    f.yaml has 1 mistake

    f.yaml:11:15: networks.guests.lan.bridge: `bridge-of-the-lan` is not a name of a network interface
      11 |       bridge: bridge-of-the-lan
         |               ^^^^^^^^^^^^^^^^^
      fix: use at most 15 letters, digits, `-`, `_` and `.`, for example br-lan or eno1
    ");
}

#[test]
fn an_unknown_guest_network() {
    insta::assert_snapshot!(said(&[("ceph:", "guests: {network: lna}\nceph:"), ("    address: 10.0.0.12", "    uplinks: {wan: eno2}\n    address: 10.0.0.12")]), @"
    f.yaml has 2 mistakes

    f.yaml:15:19: guests.network: there is no guest network `lna`
      15 | guests: {network: lna}
         |                   ^^^
      fix: did you mean `lan`?

    f.yaml:27:15: host h2: uplinks: there is no guest network `wan`
      27 |     uplinks: {wan: eno2}
         |               ^^^
      fix: did you mean `lan`?
    ");
}

#[test]
fn a_rack_named_like_a_host() {
    insta::assert_snapshot!(said(&[("    address: 10.0.0.12", "    location: {rack: h1}\n    address: 10.0.0.12")]), @"
    f.yaml has 1 mistake

    f.yaml:26:22: h1 is a rack here and a host on line 20
      26 |     location: {rack: h1}
         |                      ^^
      fix: Ceph tells them apart by name only: call the rack for example rack-h1
    ");
}

#[test]
fn a_rack_in_two_places() {
    insta::assert_snapshot!(said(&[("    address: 10.0.0.11", "    location: {rack: r1, datacenter: north}\n    address: 10.0.0.11"), ("    address: 10.0.0.12", "    location: {rack: r1, datacenter: south}\n    address: 10.0.0.12")]), @"
    f.yaml has 1 mistake

    f.yaml:27:22: rack r1 is in datacenter south here and in datacenter north on line 21
      27 |     location: {rack: r1, datacenter: south}
         |                      ^^
      fix: a rack stands in one place: give two racks two names
    ");
}

#[test]
fn a_pool_of_the_tool() {
    insta::assert_snapshot!(said(&[("ceph:\n", "ceph:\n  pool: .rackhand\n")]), @"
    f.yaml has 1 mistake

    f.yaml:16:9: ceph.pool: `.rackhand` is not a name for a pool
      16 |   pool: .rackhand
         |         ^^^^^^^^^
      fix: use letters, digits, `-`, `_` and `.`, not first
    ");
}

#[test]
fn too_little_memory_for_an_osd() {
    insta::assert_snapshot!(said(&[("osd_memory: 2G", "osd_memory: 256M")]), @"
    f.yaml has 1 mistake

    f.yaml:18:15: ceph.osd_memory: 256M is less than an OSD can live on
      18 |   osd_memory: 256M
         |               ^^^^
      fix: write 896M or more; 4G is usual
    ");
}

#[test]
fn zero_memory_for_guests() {
    insta::assert_snapshot!(said(&[("ceph:", "guests: {memory: 0M, cpu_overcommit: 0}\nceph:")]), @"
    f.yaml has 2 mistakes

    f.yaml:15:18: guests.memory is zero
      15 | guests: {memory: 0M, cpu_overcommit: 0}
         |                  ^^
      fix: write for example 1G

    f.yaml:15:38: guests.cpu_overcommit: 0 is not a sensible factor
      15 | guests: {memory: 0M, cpu_overcommit: 0}
         |                                      ^
      fix: write 1.0 for none, 4.0 for four guests' CPUs a thread
    ");
}

#[test]
fn a_backup_inside_the_cluster() {
    insta::assert_snapshot!(said(&[("ceph:", "backup: {storage: {vault: {address: 10.1.0.12, path: backup}}}\nceph:")]), @"
    f.yaml has 2 mistakes

    f.yaml:15:37: backup.storage.vault: 10.1.0.12 is host h2
      15 | backup: {storage: {vault: {address: 10.1.0.12, path: backup}}}
         |                                     ^^^^^^^^^
      fix: keep backups on a machine outside the cluster: they are for the day the cluster is gone

    f.yaml:15:54: backup.storage.vault: path backup is not absolute
      15 | backup: {storage: {vault: {address: 10.1.0.12, path: backup}}}
         |                                                      ^^^^^^
      fix: begin it with `/`
    ");
}
