//! Mistakes of form: keys, types, units.

use super::said;

#[test]
fn an_unknown_key_names_the_nearest() {
    insta::assert_snapshot!(said(&[("    address: 10.0.0.12", "    adress: 10.0.0.12")]), @"
    f.yaml has 1 mistake

    f.yaml:26:5: host h2: unknown key `adress`
      26 |     adress: 10.0.0.12
         |     ^^^^^^
      fix: did you mean `address`?
    ");
}

#[test]
fn an_unknown_key_without_a_neighbour_lists_the_known() {
    insta::assert_snapshot!(said(&[("  name: rack\n", "  name: rack\n  colour: blue\n")]), @"
    f.yaml has 1 mistake

    f.yaml:3:3: cluster: unknown key `colour`
      3 |   colour: blue
        |   ^^^^^^
      fix: remove it; known here: name, fsid
    ");
}

#[test]
fn a_key_given_twice() {
    insta::assert_snapshot!(said(&[("    mtu: 9000\n", "    mtu: 9000\n    mtu: 1500\n")]), @"
    f.yaml has 1 mistake

    f.yaml:9:5: key `mtu` is given twice, first on line 8
      9 |     mtu: 1500
        |     ^^^
      fix: remove one of the two
    ");
}

#[test]
fn a_key_that_is_missing() {
    insta::assert_snapshot!(said(&[("    storage_address: 10.1.0.12\n", "")]), @"
    f.yaml has 1 mistake

    f.yaml:25:5: host h2 has no `storage_address`
      25 |   - name: h2
         |     ^^^^
      fix: add `storage_address:` (address on the storage network)
    ");
}

#[test]
fn a_section_that_is_missing() {
    insta::assert_snapshot!(said(&[("cluster:\n  name: rack\n  fsid: 2f1e5c1a-55a8-4a4e-9d0b-6d2b8f1f0c11\n", "")]), @"
    f.yaml has 1 mistake

    f.yaml:1:1: the inventory has no `cluster`
      1 | networks:
        | ^^^^^^^^
      fix: add `cluster:` (identity of the cluster)
    ");
}

#[test]
fn a_wrong_unit() {
    insta::assert_snapshot!(said(&[("osd_memory: 2G", "osd_memory: 2GB")]), @"
    f.yaml has 1 mistake

    f.yaml:18:15: ceph.osd_memory: `2GB` is not a size
      18 |   osd_memory: 2GB
         |               ^^^
      fix: write 2G, a power of 1024
    ");
}

#[test]
fn a_unit_that_is_missing() {
    insta::assert_snapshot!(said(&[("osd_memory: 2G", "osd_memory: 4096")]), @"
    f.yaml has 1 mistake

    f.yaml:18:15: ceph.osd_memory: `4096` is not a size: its unit is missing
      18 |   osd_memory: 4096
         |               ^^^^
      fix: write 4096G or 4096M
    ");
}

#[test]
fn a_number_out_of_range() {
    insta::assert_snapshot!(said(&[("size: 3", "size: 300")]), @"
    f.yaml has 1 mistake

    f.yaml:16:9: ceph.size: 300 is out of range
      16 |   size: 300
         |         ^^^
      fix: write a number from 1 to 10
    ");
}

#[test]
fn a_number_with_a_unit() {
    insta::assert_snapshot!(said(&[("mtu: 9000", "mtu: 9000B")]), @"
    f.yaml has 1 mistake

    f.yaml:8:10: networks.storage.mtu: `9000B` is not a whole number
      8 |     mtu: 9000B
        |          ^^^^^
      fix: write the digits alone, for example 9000
    ");
}

/// Whatever is proposed for a number can be written there.
#[test]
fn a_fix_for_a_number_passes_in_its_turn() {
    for (written, proposed) in [
        ("9_000", Some("9000")),
        ("0x2328", Some("9000")),
        ("9000B", Some("9000")),
        ("\"9,000\"", Some("9000")),
        ("0b1", None),
        ("9e3", None),
        ("1500.5", None),
        ("99999B", None),
        ("-1", None),
        ("9", None),
        ("0x", None),
    ] {
        let text = said(&[("mtu: 9000", &format!("mtu: {written}"))]);
        let fix = text.lines().find_map(|l| l.trim().strip_prefix("fix: ")).unwrap();
        match proposed {
            Some(number) => assert!(fix.ends_with(number), "{written}: {fix}"),
            None => assert_eq!(fix, "write a number from 1280 to 65520", "{written}"),
        }
    }
}

#[test]
fn a_text_that_reads_as_a_number() {
    insta::assert_snapshot!(said(&[("name: h2", "name: 2")]), @r#"
    f.yaml has 1 mistake

    f.yaml:25:11: host 2: name: a text is expected, but 2 reads as a number or a truth value
      25 |   - name: 2
         |           ^
      fix: quote it: "2"
    "#);
}

#[test]
fn a_list_that_is_a_text() {
    insta::assert_snapshot!(said(&[("osds: [/dev/disk/by-id/wwn-0x2]", "osds: /dev/disk/by-id/wwn-0x2")]), @"
    f.yaml has 1 mistake

    f.yaml:28:11: host h2: osds: a list is expected, found a single value
      28 |     osds: /dev/disk/by-id/wwn-0x2
         |           ^^^^^^^^^^^^^^^^^^^^^^^
      fix: write `[a, b]`, or one `- item` a line
    ");
}

#[test]
fn a_misspelt_list_is_one_mistake() {
    insta::assert_snapshot!(said(&[("osds: [/dev/disk/by-id/wwn-0x2]", "disks: [/dev/disk/by-id/wwn-0x2]")]), @"
    f.yaml has 1 mistake

    f.yaml:28:5: host h2: unknown key `disks`
      28 |     disks: [/dev/disk/by-id/wwn-0x2]
         |     ^^^^^
      fix: did you mean `osds`?
    ");
}

#[test]
fn an_unknown_role() {
    insta::assert_snapshot!(said(&[("roles: [mon, mgr, osd, guests]", "roles: [mon, mgr, ods, guests]")]), @"
    f.yaml has 1 mistake

    f.yaml:32:23: host h3: roles[2]: unknown word `ods`
      32 |     roles: [mon, mgr, ods, guests]
         |                       ^^^
      fix: did you mean `osd`? Known are mon, mgr, osd, guests
    ");
}

#[test]
fn an_unknown_migration_network() {
    insta::assert_snapshot!(said(&[("  guests:\n    lan", "  migration: fabric\n  guests:\n    lan")]), @"
    f.yaml has 1 mistake

    f.yaml:9:14: networks.migration: unknown word `fabric`
      9 |   migration: fabric
        |              ^^^^^^
      fix: write one of storage, management
    ");
}

#[test]
fn an_address_that_is_none() {
    insta::assert_snapshot!(said(&[("10.0.0.12", "10.0.0.312")]), @"
    f.yaml has 1 mistake

    f.yaml:26:14: host h2: address: `10.0.0.312` is not an IP address
      26 |     address: 10.0.0.312
         |              ^^^^^^^^^^
      fix: write for example 10.0.0.11
    ");
}

#[test]
fn a_network_with_host_bits() {
    insta::assert_snapshot!(said(&[("cidr: 10.1.0.0/24", "cidr: 10.1.0.5/24")]), @"
    f.yaml has 1 mistake

    f.yaml:7:11: networks.storage.cidr: `10.1.0.5/24` is not a network: bits beyond the prefix are set
      7 |     cidr: 10.1.0.5/24
        |           ^^^^^^^^^^^
      fix: write 10.1.0.0/24
    ");
}

#[test]
fn a_range_that_is_reversed() {
    insta::assert_snapshot!(said(&[("10.0.0.100-10.0.0.199", "10.0.0.199-10.0.0.100")]), @"
    f.yaml has 1 mistake

    f.yaml:14:16: networks.guests.lan.ranges[0]: `10.0.0.199-10.0.0.100` is not a range: its end comes before its start
      14 |       ranges: [10.0.0.199-10.0.0.100]
         |                ^^^^^^^^^^^^^^^^^^^^^
      fix: write 10.0.0.100-10.0.0.199
    ");
}

#[test]
fn an_fsid_that_is_none() {
    insta::assert_snapshot!(said(&[("2f1e5c1a-55a8-4a4e-9d0b-6d2b8f1f0c11", "rack-1")]), @"
    f.yaml has 1 mistake

    f.yaml:3:9: cluster.fsid: `rack-1` is not a UUID
      3 |   fsid: rack-1
        |         ^^^^^^
      fix: make one with `uuidgen`, or take the fsid of the cluster that exists
    ");
}

#[test]
fn no_hosts() {
    insta::assert_snapshot!(said(&[("hosts:\n", "backup: {}\nhosts: []\nx:\n")]), @"
    f.yaml has 2 mistakes

    f.yaml:20:8: hosts: the list is empty
      20 | hosts: []
         |        ^^
      fix: list at least 1

    f.yaml:21:1: unknown key `x`
      21 | x:
         | ^
      fix: remove it; known here: cluster, ssh, networks, ceph, guests, hosts, backup, watch
    ");
}

#[test]
fn a_tab() {
    insta::assert_snapshot!(said(&[("    mtu: 9000", "\tmtu: 9000")]), @"
    f.yaml has 1 mistake

    f.yaml:8:1: this is not valid YAML: while scanning a plain scalar, found a tab
      8 |  mtu: 9000
        | ^
      fix: indent with blanks; YAML allows no tabs there
    ");
}

#[test]
fn an_open_quote() {
    insta::assert_snapshot!(said(&[("name: rack", "name: \"rack")]), @r#"
    f.yaml has 1 mistake

    f.yaml:2:9: this is not valid YAML: unclosed quote
      2 |   name: "rack
        |         ^
      fix: close what was opened: a quote, a `[` or a `{`
    "#);
}

#[test]
fn a_second_document() {
    insta::assert_snapshot!(said(&[("ceph:", "---\nceph:")]), @"
    f.yaml has 1 mistake

    f.yaml:15:1: a second document begins here
      15 | ---
         | ^^^
      fix: remove the line `---` and what follows, or put it into a file of its own
    ");
}

#[test]
fn a_password_in_the_file() {
    insta::assert_snapshot!(said(&[("password: {env: BMC}", "password: hunter2")]), @"
    f.yaml has 1 mistake

    f.yaml:24:58: host h1: bmc.password: a secret does not stand in the inventory, only where it comes from
      24 |     bmc: {kind: redfish, address: 10.0.0.21, user: root, password: ********}
         |                                                          ^^^^^^^^
      fix: write {env: NAME}, {file: PATH} or {command: [WORD, ...]}; {inline: ...} keeps it here all the same
    ");
}

#[test]
fn a_password_on_a_line_of_its_own() {
    insta::assert_snapshot!(said(&[("    bmc: {kind: redfish, address: 10.0.0.21, user: root, password: {env: BMC}}", "    bmc:\n      kind: redfish\n      address: 10.0.0.21\n      user: root\n      password:\n        hunter2")]), @"
    f.yaml has 1 mistake

    f.yaml:28:7: host h1: bmc.password: a secret does not stand in the inventory, only where it comes from
      28 |       password:
         |       ^^^^^^^^
      fix: write {env: NAME}, {file: PATH} or {command: [WORD, ...]}; {inline: ...} keeps it here all the same
    ");
}

#[test]
fn a_secret_from_two_places() {
    insta::assert_snapshot!(said(&[("{env: BMC}", "{env: BMC, inline: hunter2}")]), @"
    f.yaml has 1 mistake

    f.yaml:24:58: host h1: bmc.password: exactly one of env, file, command, inline is expected, found 2
      24 |     bmc: {kind: redfish, address: 10.0.0.21, user: root, password: {env: BMC, inline: ********}}
         |                                                          ^^^^^^^^
      fix: keep one of them
    ");
}

#[test]
fn a_secret_from_nowhere() {
    insta::assert_snapshot!(said(&[("{env: BMC}", "{enviroment: BMC}")]), @"
    f.yaml has 1 mistake

    f.yaml:24:69: host h1: bmc.password: unknown key `enviroment`
      24 |     bmc: {kind: redfish, address: 10.0.0.21, user: root, password: {enviroment: BMC}}
         |                                                                     ^^^^^^^^^^
      fix: one of env, file, command, inline
    ");
}

#[test]
fn an_inline_secret_that_reads_as_a_number() {
    insta::assert_snapshot!(said(&[("{env: BMC}", "{inline: 12345}")]), @r#"
    f.yaml has 1 mistake

    f.yaml:24:77: host h1: bmc.password.inline: a text is expected, but this reads as a number or a truth value
      24 |     bmc: {kind: redfish, address: 10.0.0.21, user: root, password: {inline: ********}}
         |                                                                             ^^^^^
      fix: quote it: "..."
    "#);
}

#[test]
fn an_inline_secret_asked_for_is_allowed() {
    insta::assert_snapshot!(said(&[("{env: BMC}", "{inline: hunter2}")]), @"nothing");
}

#[test]
fn an_alias_to_nothing() {
    insta::assert_snapshot!(said(&[("osds: [/dev/disk/by-id/wwn-0x2]", "bmc: *idrac")]), @"
    f.yaml has 1 mistake

    f.yaml:28:10: this is not valid YAML: while parsing node, found unknown anchor
      28 |     bmc: *idrac
         |          ^
      fix: put `&name` before the value that `*name` stands for, further up
    ");
}

#[test]
fn mistakes_of_all_kinds_at_once() {
    insta::assert_snapshot!(said(&[("mtu: 9000", "mtu: nine"), ("name: h2", "name: H2"), ("10.0.0.13", "10.0.9.13"), ("wwn-0x3", "wwn-0x1"), ("bridge:", "brigde:")]), @"
    f.yaml has 5 mistakes

    f.yaml:8:10: networks.storage.mtu: `nine` is not a whole number
      8 |     mtu: nine
        |          ^^^^
      fix: write a number from 1280 to 65520

    f.yaml:11:7: networks.guests.lan: unknown key `brigde`
      11 |       brigde: br-lan
         |       ^^^^^^
      fix: did you mean `bridge`?

    f.yaml:25:11: `H2` is not a host name
      25 |   - name: H2
         |           ^^
      fix: use at most 63 lower-case letters, digits and inner `-`: h2

    f.yaml:30:14: host h3: address 10.0.9.13 is outside the management network 10.0.0.0/24
      30 |     address: 10.0.9.13
         |              ^^^^^^^^^
      fix: give an address in 10.0.0.0/24, or correct networks.management.cidr on line 5

    f.yaml:33:12: host h3: device /dev/disk/by-id/wwn-0x1 is that of host h1 on line 23
      33 |     osds: [/dev/disk/by-id/wwn-0x1]
         |            ^^^^^^^^^^^^^^^^^^^^^^^
      fix: a disk is in one host: give each its own
    ");
}
