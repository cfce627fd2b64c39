use super::super::paths::{Net, Way};
use super::super::{Disk, Nic, Osd, Severity};
use super::*;
use std::net::IpAddr;

const FSID: &str = "6c9a2a6e-5d6c-4d2b-9d59-0d6f7a1b2c3d";

fn inventory() -> Inventory {
    let host = |n: u8| {
        serde_json::json!({
            "name": format!("h{n}"), "address": format!("10.0.0.{n}"), "storage_address": format!("10.1.0.{n}"),
            "osds": ["/dev/disk/by-id/d0"], "reserve": "6G",
        })
    };
    serde_json::from_value(serde_json::json!({
        "cluster": { "name": "t", "fsid": FSID },
        "networks": {
            "management": { "cidr": "10.0.0.0/24" },
            "storage": { "cidr": "10.1.0.0/24", "mtu": 9000, "speed": "10G" },
        },
        "hosts": [host(1), host(2), host(3)],
    }))
    .unwrap()
}

fn good(n: u8) -> Facts {
    let nic = |name: &str, address: String, mtu| Nic {
        name: name.into(),
        kind: "ethernet".into(),
        mtu,
        link: true,
        speed: Some(10_000),
        addresses: vec![format!("{address}/24")],
        ..Nic::default()
    };
    let mut facts = Facts { hostname: format!("h{n}"), boot_id: format!("boot {n}"), ..Facts::default() };
    facts.machine.serial = format!("TAG{n}");
    facts.os.id = "debian".into();
    facts.os.version = "12".into();
    facts.memory.total = 64 << 30;
    facts.nics = vec![nic("eno1", format!("10.0.0.{n}"), 1500), nic("eno2", format!("10.1.0.{n}"), 9000)];
    let ids = vec!["/dev/disk/by-id/d0".to_owned()];
    facts.disks = vec![Disk { path: "/dev/sdb".into(), ids, size: 1 << 40, ..Disk::default() }];
    facts.virtualization.kvm = true;
    facts.clock.source = Some("chrony".into());
    facts.clock.offset = Some(0.0001);
    facts.exec_latency = Some(0.004);
    facts
}

fn rack() -> BTreeMap<String, Seen> {
    let names = ["h1", "h2", "h3"];
    let one = |n: u8| {
        let mut paths = Paths::default();
        for (other, m) in names.iter().zip(1..).filter(|(_, m)| *m != n) {
            for net in Net::ALL {
                paths.ways.insert((net, (*other).to_owned()), Way::Whole);
            }
            paths.names.insert((*other).to_owned(), vec![format!("10.0.0.{m}").parse().unwrap()]);
        }
        let clock = Some(Clock { difference: 3.0, precision: 0.002, ..Clock::default() });
        let bmc = Some(BmcSeen::Answered { on: true, serials: vec![format!("tag{n}")] });
        (
            format!("h{n}"),
            Seen { facts: Ok(good(n)), paths: Some(paths), clock, sshd: Some(SshdLimits::default()), bmc },
        )
    };
    (1..=3).map(one).collect()
}

/// `host check` of each finding after a change to h2.
fn after(change: impl FnOnce(&mut Seen)) -> Vec<String> {
    let mut rack = rack();
    change(rack.get_mut("h2").unwrap());
    let found = evaluate(&inventory(), &rack);
    found.iter().map(|f| format!("{} {} {}", f.severity, f.host, f.check)).collect()
}

fn with_facts(change: impl FnOnce(&mut Facts)) -> Vec<String> {
    after(|seen| change(seen.facts.as_mut().unwrap()))
}

#[test]
fn a_rack_as_the_inventory_says_has_no_findings() {
    // All clocks differ from this machine's by the same 3 s: the hosts agree among themselves.
    assert_eq!(after(|_| {}), Vec::<String>::new());
}

#[test]
fn each_way_not_to_be_reached_has_its_name() {
    let (host, reason) = (|| "h2".to_owned(), || "x".to_owned());
    for (error, check) in [
        (RemoteError::Unreachable { host: host(), reason: reason() }, "ssh"),
        (RemoteError::HostKey { host: host(), reason: reason() }, "host-key"),
        (RemoteError::Login { host: host(), reason: reason() }, "login"),
        (RemoteError::Sudo { host: host(), reason: reason() }, "sudo"),
        (RemoteError::LoginShell { host: host(), command: "sh".to_owned(), reason: reason() }, "login-shell"),
    ] {
        // The others cannot reach it either: that is said once.
        let mut rack = rack();
        for paths in rack.values_mut().filter_map(|s| s.paths.as_mut()) {
            paths.ways.iter_mut().filter(|((_, other), _)| other == "h2").for_each(|(_, way)| *way = Way::None);
        }
        *rack.get_mut("h2").unwrap() = Seen { facts: Err(error), paths: None, clock: None, sshd: None, bmc: None };
        let found: Vec<_> = evaluate(&inventory(), &rack).into_iter().map(|f| (f.host, f.check)).collect();
        assert_eq!(found, [("h2".to_owned(), check)]);
    }
}

#[test]
fn an_sshd_that_forbids_what_is_needed_is_found() {
    let with = |limits| after(|seen| seen.sshd = Some(limits));
    let forbids = SshdLimits { forwarding: "its sshd forbids forwarding".to_owned(), max_sessions: Some(10) };
    assert_eq!(with(forbids), ["error h2 forwarding"]);
    let few = SshdLimits { forwarding: String::new(), max_sessions: Some(2) };
    assert_eq!(with(few), ["warning h2 max-sessions"]);
}

#[test]
fn what_is_wrong_with_the_system_is_found() {
    assert_eq!(with_facts(|f| f.os.version = "11".into()), ["error h2 os"]);
    assert_eq!(with_facts(|f| f.hostname = "localhost".into()), ["error h2 hostname"]);
    assert_eq!(with_facts(|f| f.hostname = "h2.example.org".into()), Vec::<String>::new());
    assert_eq!(with_facts(|f| f.exec_latency = Some(0.126)), ["warning h2 exec-latency"]);
    assert_eq!(with_facts(|f| f.virtualization.kvm = false), ["warning h2 kvm"]);
    assert_eq!(with_facts(|f| f.boot_id = "boot 1".into()), ["error h2 twin"]);
    assert_eq!(with_facts(|f| f.memory.total = 6 << 30), ["error h2 memory"]);
    let little = crate::host::Space { mount: "/".into(), size: 1 << 40, free: 1 << 20 };
    assert_eq!(with_facts(|f| f.space = vec![little]), ["error h2 space"]);
}

#[test]
fn clocks_that_disagree_are_found() {
    assert_eq!(after(|s| s.clock.as_mut().unwrap().difference = 3.2), ["error h2 time-skew"]);
    // A slow answer proves nothing.
    assert_eq!(
        after(|s| s.clock = Some(Clock { difference: 3.2, precision: 0.3, ..Clock::default() })),
        Vec::<String>::new()
    );
    assert_eq!(with_facts(|f| f.clock.offset = Some(-0.4)), ["error h2 time-source"]);
    for source in [None, Some("chrony".to_owned())] {
        // Nothing sets it, or what should has no source itself.
        assert_eq!(with_facts(|f| (f.clock.source, f.clock.offset) = (source, None)), ["warning h2 time-source"]);
    }
    let mut rack = rack();
    for clock in rack.values_mut().filter_map(|s| s.clock.as_mut()) {
        clock.difference = -3600.0;
    }
    let found = evaluate(&inventory(), &rack);
    assert_eq!(found.len(), 3);
    assert_eq!(found[0].what, "its clock is 3600 s behind this machine's", "all agree, and all are wrong");
    assert!(found.iter().all(|f| f.check == "time-skew" && f.severity == Severity::Warning));
}

#[test]
fn a_disk_must_be_there_and_empty_or_ours() {
    let osd = |fsid: &str| Some(Osd { fsid: fsid.into(), id: None });
    let used = || vec!["sdb: ceph_bluestore".to_owned()];
    assert_eq!(with_facts(|f| (f.disks[0].content, f.disks[0].osd) = (used(), osd(FSID))), Vec::<String>::new());
    assert_eq!(with_facts(|f| (f.disks[0].content, f.disks[0].osd) = (used(), osd("another"))), ["error h2 disk-used"]);
    assert_eq!(with_facts(|f| f.disks[0].content = vec!["sdb1: ext4".into()]), ["error h2 disk-used"]);
    assert_eq!(with_facts(|f| f.disks[0].mounted = vec!["/srv".into()]), ["error h2 disk-used"]);
    assert_eq!(with_facts(|f| f.disks[0].ids.clear()), ["error h2 disk-missing"]);
    let mut twice = inventory();
    twice.hosts[1].osds.push("/dev/sdb".into());
    let found = evaluate(&twice, &rack());
    assert!(found.iter().any(|f| (f.host.as_str(), f.check) == ("h2", "disk-twice")), "{found:?}");
    assert_eq!(with_facts(|f| f.disks[0].read_only = true), ["error h2 disk-read-only"]);
    assert_eq!(with_facts(|f| f.disks[0].size = 1 << 30), ["error h2 disk-small"]);
}

#[test]
fn networks_must_be_as_the_inventory_says() {
    assert_eq!(with_facts(|f| f.nics[1].mtu = 1500), ["error h2 mtu"]);
    assert_eq!(with_facts(|f| f.nics[1].speed = Some(1000)), ["error h2 link-speed"]);
    assert_eq!(with_facts(|f| f.nics[1].speed = None), Vec::<String>::new());
    assert_eq!(with_facts(|f| f.nics[1].link = false), ["error h2 link"]);
    assert_eq!(with_facts(|f| f.nics[1].kind = "infiniband".into()), ["error h2 link-kind"]);
    assert_eq!(with_facts(|f| f.nics[1].addresses.clear()), ["error h2 address"]);
    // A bridge is as fast as its port.
    let bridge = |f: &mut Facts| {
        f.nics[1].addresses.clear();
        (f.nics[1].master, f.nics[1].speed) = (Some("br0".into()), Some(1000));
        let mut br0 = f.nics[1].clone();
        (br0.name, br0.kind, br0.master, br0.speed) = ("br0".into(), "bridge".into(), None, None);
        br0.addresses = vec!["10.1.0.2/24".into()];
        f.nics.push(br0);
    };
    assert_eq!(with_facts(bridge), ["error h2 link-speed"]);
}

#[test]
fn every_way_between_hosts_counts() {
    let way = |net, way| {
        move |s: &mut Seen| {
            s.paths.as_mut().unwrap().ways.insert((net, "h3".to_owned()), way);
        }
    };
    assert_eq!(after(way(Net::Storage, Way::Small)), ["error h2 path-mtu"]);
    assert_eq!(after(way(Net::Management, Way::None)), ["error h2 path"]);
    assert_eq!(after(way(Net::Storage, Way::Untried)), ["warning h2 path"]);
    // No word about a way is none that it is whole.
    assert_eq!(after(|s| s.paths.as_mut().unwrap().ways.retain(|(net, _), _| *net == Net::Storage)).len(), 2);
    let name = |to: Vec<IpAddr>| {
        move |s: &mut Seen| {
            s.paths.as_mut().unwrap().names.insert("h3".to_owned(), to);
        }
    };
    assert_eq!(after(name(vec![])), ["warning h2 name"]);
    assert_eq!(after(name(vec!["127.0.1.1".parse().unwrap()])), ["error h2 name"]);
}

#[test]
fn a_bmc_must_answer_and_be_this_hosts() {
    let answered = |on, serial: &str| Some(BmcSeen::Answered { on, serials: vec![serial.to_owned()] });
    let failed = |login| Some(BmcSeen::Failed { why: "x".into(), login, fix: "y" });
    assert_eq!(after(|s| s.bmc = None), Vec::<String>::new());
    assert_eq!(after(|s| s.bmc = answered(true, "TAG3")), ["error h2 bmc-owner"]);
    assert_eq!(after(|s| s.bmc = answered(false, "TAG2")), ["error h2 bmc-power"]);
    assert_eq!(after(|s| s.bmc = Some(BmcSeen::Answered { on: true, serials: vec![] })), ["warning h2 bmc-owner"]);
    assert_eq!(after(|s| s.bmc = failed(true)), ["error h2 bmc-login"]);
    assert_eq!(after(|s| s.bmc = failed(false)), ["error h2 bmc"]);
    assert_eq!(after(|s| s.bmc = Some(BmcSeen::Untried { why: "x".into() })), ["warning h2 bmc"]);
}

#[test]
fn a_host_with_another_tools_ceph_is_no_host_for_ours() {
    for fsid in [FSID, "11111111-5d6c-4d2b-9d59-0d6f7a1b2c3d"] {
        assert_eq!(with_facts(|f| f.ceph.containers = vec![fsid.to_owned()]), ["error h2 ceph"]);
        assert_eq!(with_facts(|f| f.ceph.foreign = vec!["Rook /var/lib/rook/mon-a".to_owned()]), ["error h2 ceph"]);
    }
    assert_eq!(with_facts(|f| f.ceph.conf = Some("11111111-5d6c-4d2b-9d59-0d6f7a1b2c3d".into())), ["error h2 ceph"]);
    assert_eq!(with_facts(|f| f.ceph.mon_listens = true), ["error h2 ceph"]);
    // Our own monitor.
    let ours = |f: &mut Facts| {
        f.ceph.mon_listens = true;
        f.ceph.conf = Some(FSID.into());
        f.ceph.mons = vec!["h2".into()];
    };
    assert_eq!(with_facts(ours), Vec::<String>::new());
}

#[test]
fn a_disk_seen_over_two_ways_is_told() {
    let both = |multipath| {
        move |f: &mut Facts| {
            f.disks[0].paths = vec!["/dev/sdb".into(), "/dev/disk/by-path/x".into(), "/dev/sdc".into()];
            f.disks[0].multipath = multipath;
        }
    };
    assert_eq!(with_facts(both(true)), Vec::<String>::new());
    assert_eq!(with_facts(both(false)), ["warning h2 disk-paths"]);
    let member = |f: &mut Facts| {
        f.disks[0].paths = vec!["/dev/disk/by-id/d0".into(), "/dev/sdc".into()];
        f.disks[0].ids = vec!["/dev/disk/by-id/wwn-1".into()];
    };
    assert_eq!(with_facts(member), ["error h2 disk-path"]);
}

#[test]
fn the_way_to_clear_a_disk_reaches_every_copy_of_a_label_and_is_not_offered_for_another_cluster() {
    let fix = |change: &dyn Fn(&mut Disk)| {
        let mut rack = rack();
        change(&mut rack.get_mut("h2").unwrap().facts.as_mut().unwrap().disks[0]);
        evaluate(&inventory(), &rack).remove(0).fix
    };
    let own = fix(&|disk| disk.content = vec!["sdb: ceph_bluestore-label-at-10GiB".into()]);
    assert!(own.contains("wipefs -af /dev/sdb") && own.contains("0 1 10 100 1000"), "{own}");
    let other = fix(&|disk| {
        disk.content = vec!["sdb: ceph_bluestore".into()];
        disk.osd = Some(Osd { fsid: "11111111-5d6c-4d2b-9d59-0d6f7a1b2c3d".into(), id: None });
    });
    assert!(!other.contains("wipefs") && !other.contains("dd "), "{other}");
}
