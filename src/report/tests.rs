//! The picture and the findings of a rack of three with something wrong everywhere.

use super::collect::{CephSeen, LiveSeen, NoCeph, Osd, Seen, Silent};
use super::metrics::HostMetrics;
use super::{assemble, examine, findings_table, status_table};
use crate::cluster::{CephStatus, Unread};
use crate::error::Failure;
use crate::fence::{PathTested, Rehearsal};
use crate::guest::claim::{Claim, Phase};
use crate::guest::{
    Desired, Disk, DomainInventory, Guest, HostState, ImageRef, Live, Machine, Maintenance, Nic, Reservation, Stage,
};
use crate::host::Severity;
use crate::inventory::{self, Inventory, Size};
use crate::libvirt::{Domain, DomainState, Node};
use jiff::Timestamp;
use std::collections::BTreeMap;
use uuid::Uuid;

fn rack() -> Inventory {
    let mut text = "cluster: {name: rack, fsid: 11111111-2222-4333-8444-555555555555}\n\
        networks:\n  management: {cidr: 10.0.0.0/24}\n  storage: {cidr: 10.0.1.0/24}\n\
        guests: {host_reserve: 4G}\nhosts:\n"
        .to_owned();
    for n in 1..=3 {
        text += &format!(
            "  - {{name: h{n}, address: 10.0.0.1{n}, storage_address: 10.0.1.1{n}, osds: [/dev/disk/by-id/d{n}]}}\n"
        );
    }
    inventory::parse("inventory.yaml", &text).expect("a right inventory")
}

fn guest(number: u128, name: &str, desired: Desired) -> Guest {
    Guest {
        name: name.into(),
        uuid: Uuid::from_u128(number),
        stage: Stage::Ready,
        desired,
        image: ImageRef { name: "tiny".into(), version: 1 },
        memory: Size::gib(6),
        cpus: 1,
        disks: vec![Disk { name: "disk0".into(), image: "vm.x.disk0".into(), size: Size::gib(1) }],
        nics: vec![Nic { network: "lan".into(), mac: "52:54:00:00:00:01".into(), address: [10, 0, 0, 100].into() }],
        machine: Machine { machine: "pc-q35-7.2".into(), virt: "kvm".into(), cpu: "<cpu/>".into() },
        tags: BTreeMap::new(),
        priority: 0,
        protected: false,
        failover: crate::guest::FailoverPolicy::DataSafe,
        pinned: None,
        created: Timestamp::UNIX_EPOCH,
        restore: None,
    }
}

fn domain(guest: &Guest) -> Domain {
    Domain {
        name: guest.name.clone(),
        uuid: guest.uuid,
        state: DomainState::Running,
        reason: "booted".into(),
        memory: guest.memory.bytes(),
        cpus: 1,
    }
}

/// h3 is silent; each of h1 and h2 has room for two such guests, and one has a third where it must not be.
fn seen() -> Seen {
    let guests = vec![
        guest(1, "db", Desired::Running),
        guest(2, "gone", Desired::Running),
        guest(3, "idle", Desired::Stopped),
        guest(4, "twice", Desired::Running),
    ];
    let node = Node { memory: 16 << 30, cpus: 8, sockets: 1, cores: 8, threads: 1 };
    let (db, twice) = (&guests[0], &guests[3]);
    let domain_inventory = DomainInventory {
        seen: BTreeMap::from([
            (db.uuid, vec![("h1".into(), domain(db))]),
            (twice.uuid, vec![("h1".into(), domain(twice)), ("h2".into(), domain(twice))]),
        ]),
        hosts: BTreeMap::from([("h1".into(), Some(node.clone())), ("h2".into(), Some(node))]),
        silent: BTreeMap::from([("h3".into(), "no answer".into())]),
        ..DomainInventory::default()
    };
    let claim = Claim {
        phase: Phase::Running,
        host: Some("h1".into()),
        started: Some(Timestamp::UNIX_EPOCH),
        ..Claim::default()
    };
    let metrics = HostMetrics { uptime: 7300.0, load: 0.5, cpus: 8, clock_offset: Some(0.2), ..HostMetrics::default() };
    let status = CephStatus {
        health: "HEALTH_WARN".into(),
        quorum: vec!["h1".into()],
        mons: 3,
        osds: 3,
        osds_up: 2,
        ..CephStatus::default()
    };
    let osd = |id, host: &str, up| Osd {
        id,
        host: host.into(),
        up,
        disk: Some(format!("sd{} (SN{id})", ["a", "b", "c"][id as usize])),
    };
    let ceph = CephSeen {
        unreadable: Vec::new(),
        status,
        osds: vec![osd(0, "h1", true), osd(1, "h2", true), osd(2, "h3", false)],
        claims: BTreeMap::from([(db.uuid, claim)]),
        guests,
        states: BTreeMap::new(),
        reservations: BTreeMap::new(),
        rehearsals: BTreeMap::new(),
        unread: None,
        ..CephSeen::default()
    };
    let silent = Err(Silent { error: "host h3: cannot connect: no route".to_owned(), power: Some(false) });
    let host_metrics = [("h1", Ok(metrics.clone())), ("h2", Ok(metrics)), ("h3", silent)];
    let host_metrics = host_metrics.map(|(n, p)| (n.to_owned(), p)).into();
    Seen { host_metrics, domain_inventory, ceph: Ok(ceph), pool: "guests".to_owned(), live: Vec::new() }
}

#[test]
fn status_fits_on_one_screen() {
    let status = assemble(&rack(), &seen(), Timestamp::from_second(90).expect("a time"));
    insta::assert_snapshot!(status_table(&status));
}

#[test]
fn a_fence_that_was_not_found_fit_for_an_hour_is_told_of() {
    let at = |seconds| Some(Timestamp::from_second(seconds).expect("a time"));
    let rehearsal = |storage, power, problem: Option<&str>| Rehearsal {
        storage: PathTested { succeeded: storage, problem: None },
        power: Some(PathTested { succeeded: power, problem: problem.map(str::to_owned) }),
        ..Rehearsal::default()
    };
    let mut seen = seen();
    seen.ceph.as_mut().expect("Ceph answers").rehearsals = BTreeMap::from([
        ("h1".to_owned(), rehearsal(at(9_900), at(9_990), None)),
        ("h2".to_owned(), rehearsal(at(9_990), at(5_000), Some("no answer from 10.0.0.112"))),
    ]);
    let status = assemble(&rack(), &seen, at(10_000).expect("a time"));
    let table = status_table(&status);
    assert!(
        table.contains("\n  host h2: its fence was last found fit 1h23m ago: no answer from 10.0.0.112\n"),
        "{table}"
    );
    assert!(table.contains("\n  fences found fit 1m40s ago\n"), "{table}");
    let found = examine(&status, &seen);
    let fences: Vec<&str> = found.iter().filter(|f| f.what.contains("fence")).map(|f| f.what.as_str()).collect();
    assert_eq!(fences, ["its fence was last found fit 83 min ago: no answer from 10.0.0.112"]);
}

#[test]
fn room_that_is_promised_is_not_free_and_its_guest_is_not_there_yet() {
    let mut seen = seen();
    let before = assemble(&rack(), &seen, Timestamp::UNIX_EPOCH);
    let reservation = Reservation { memory: 1 << 30, cpus: 1, ..Reservation::default() };
    let reserved = BTreeMap::from([("h2".to_owned(), BTreeMap::from([(Uuid::from_u128(9), reservation)]))]);
    seen.ceph.as_mut().expect("Ceph answers").reservations = reserved;
    let after = assemble(&rack(), &seen, Timestamp::UNIX_EPOCH);
    assert_eq!(after.hosts[1].memory_free, before.hosts[1].memory_free - (1 << 30));
    assert_eq!(after.hosts[1].guests, before.hosts[1].guests);
}

#[test]
fn what_the_monitors_say_is_shown_when_the_storage_stands_still() {
    let mut seen = seen();
    let ceph = seen.ceph.as_mut().expect("Ceph answers");
    ceph.guests.clear();
    ceph.unread = Some("its storage gave no answer within 6 s".to_owned());
    let status = assemble(&rack(), &seen, Timestamp::UNIX_EPOCH);
    let table = status_table(&status);
    assert!(table.starts_with("rack: HEALTH_WARN, 1 of 3 mons, 2 of 3 OSDs up"), "{table}");
    let (_, guests) = table.split_once("guests: not known: ").unwrap();
    insta::assert_snapshot!(guests, @r"
    its storage gave no answer within 6 s; the hosts that answer run:

    GUEST  STATE    HOST  ADDRESS  UP  PROTECTION
    db     running  h1    -         -  -
    twice  running  h1    -         -  -
    twice  running  h2    -         -  -
    ");
    let findings = examine(&status, &seen);
    assert!(findings[0].what.starts_with("guests' definitions cannot be read"), "{}", findings[0].what);
    assert!(findings.iter().all(|f| !f.what.contains("which is not a guest")), "nobody knows whose domains these are");
}

#[test]
fn an_object_that_cannot_be_read_is_named_and_its_guest_is_not_taken_for_a_stranger() {
    let mut seen = seen();
    let ceph = seen.ceph.as_mut().expect("Ceph answers");
    let lost = ceph.guests.remove(3);
    let unread = |object: String| Unread { why: format!("state object {object}: EOF"), object };
    ceph.unreadable = vec![unread("image.tiny".to_owned()), unread(Guest::object(lost.uuid))];
    let findings = examine(&assemble(&rack(), &seen, Timestamp::UNIX_EPOCH), &seen);
    let image = findings.iter().find(|f| f.object == "state object image.tiny").expect("it is named");
    assert!(image.fix.contains("`rackhand image remove tiny`"), "{}", image.fix);
    assert!(findings.iter().any(|f| f.object.ends_with(&lost.uuid.to_string())));
    let stranger = format!("`{}`, which is not a guest", lost.name);
    assert!(findings.iter().all(|f| !f.what.contains(&stranger)), "advice to destroy it");
}

#[test]
fn whoever_meets_a_host_in_maintenance_is_told_why() {
    let mut seen = seen();
    let since = Timestamp::UNIX_EPOCH;
    let maintenance =
        Maintenance { since, by: "anna@desk".into(), why: Some("new fans".into()), ..Maintenance::default() };
    let state = HostState { name: "h1".into(), maintenance: Some(maintenance), ..HostState::default() };
    seen.ceph.as_mut().expect("Ceph answers").states.insert("h1".into(), state);
    let status = assemble(&rack(), &seen, since);
    let why = "new fans (since 1970-01-01T00:00Z, by anna@desk)";
    assert!(status_table(&status).contains(&format!("\n  host h1: in maintenance: {why}\n")));
    assert!(examine(&status, &seen).iter().any(|f| f.object == "host h1" && f.what.ends_with(why)));
}

#[test]
fn doctor_names_what_is_wrong_the_worst_first() {
    let (rack, seen) = (rack(), seen());
    let findings = examine(&assemble(&rack, &seen, Timestamp::UNIX_EPOCH), &seen);
    assert_eq!(findings[0].severity, Severity::Critical);
    assert_eq!(findings[0].object, "guest twice");
    insta::assert_snapshot!(findings_table(&findings));
}

#[test]
fn without_ceph_the_hosts_are_still_shown() {
    let mut seen = seen();
    seen.ceph = Err(NoCeph::from(Failure::failed("Ceph has no quorum: 1 of 3").hint("bring mon hosts back")));
    let status = assemble(&rack(), &seen, Timestamp::UNIX_EPOCH);
    let table = status_table(&status);
    assert!(table.starts_with("rack: Ceph has no quorum: 1 of 3"));
    assert!(table.contains("guests: not known, since Ceph does not answer; the hosts that answer run:"), "{table}");
    assert_eq!(status.hosts[0].mon, "unknown");
    let findings = examine(&status, &seen);
    assert_eq!((findings[0].severity, findings[0].object.as_str()), (Severity::Critical, "ceph"));
    assert_eq!(findings[0].fix, "bring mon hosts back");
}

/// What doctor says of this object, by severity.
fn said(seen: &Seen, object: &str) -> Vec<String> {
    let findings = examine(&assemble(&rack(), seen, Timestamp::UNIX_EPOCH), seen);
    let of_it = findings.into_iter().filter(|f| f.object == object);
    of_it.map(|f| format!("{} {} -> {}", f.severity, f.what, f.fix)).collect()
}

#[test]
fn a_guest_that_stands_still_is_named_with_what_helps() {
    let mut seen = seen();
    let db = Uuid::from_u128(1);
    let domain = &mut seen.domain_inventory.seen.get_mut(&db).expect("it runs")[0].1;
    (domain.state, domain.reason) = (DomainState::Paused, "ioerror".into());
    let said = said(&seen, "guest db");
    assert_eq!(
        said[0],
        "error it stands still on h1 (ioerror) -> its storage refused it (`virsh domblkerror 00000000-0000-0000-0000-000000000001` there): look at Ceph first; then `virsh resume 00000000-0000-0000-0000-000000000001` on h1"
    );
}

#[test]
fn unmanaged_domains_are_named_by_what_they_do() {
    let mut seen = seen();
    let mut add = |n: u128, name: &str, state| {
        let uuid = Uuid::from_u128(n);
        let domain = Domain { name: name.into(), uuid, state, reason: String::new(), memory: 1 << 30, cpus: 1 };
        seen.domain_inventory.seen.insert(uuid, vec![("h2".into(), domain)]);
    };
    add(90, "old", DomainState::Off);
    add(91, "db", DomainState::Off);
    add(92, "test", DomainState::Running);
    insta::assert_snapshot!(said(&seen, "host h2").join("\n"), @r"
    error its monitor is not in the quorum -> on h2: `systemctl restart ceph-mon@h2`, then `rackhand provision`
    error has, shut off, the domain db, which is not a guest of this cluster; the guest db cannot run there beside it -> if it is not wanted, on h2: `virsh undefine 00000000-0000-0000-0000-00000000005b`
    warning its clock is off by 200 ms -> look at `chronyc sources` there
    warning has, shut off, the domain old, which is not a guest of this cluster -> if it is not wanted, on h2: `virsh undefine 00000000-0000-0000-0000-00000000005a`
    warning runs the domain test, which is not a guest of this cluster -> if it is not wanted, on h2: `virsh destroy 00000000-0000-0000-0000-00000000005c`; its memory counts as used
    ");
}

#[test]
fn what_a_guest_has_beside_its_definition_and_a_second_writer_are_named() {
    let mut seen = seen();
    let xml = |disk: &str| format!("<domain type='kvm'><vcpu>1</vcpu><devices>{disk}</devices></domain>");
    let own = "<source protocol='rbd' name='guests/vm.x.disk0'/>";
    let overlay = format!(
        "<disk type='file'><source file='/tmp/db.snap'/><backingStore type='network'>{own}</backingStore><target dev='vda'/></disk>"
    );
    let plain = format!("<disk type='network'>{own}<target dev='vda'/></disk>");
    let live = |host: &str, name: &str, n: u128, disk: &str| LiveSeen {
        host: host.into(),
        name: name.into(),
        uuid: Uuid::from_u128(n),
        live: Live::read(&xml(disk)).expect("a domain"),
    };
    for guest in &mut seen.ceph.as_mut().expect("Ceph answers").guests {
        guest.disks[0].image =
            if guest.name == "db" { "vm.x.disk0".into() } else { format!("vm.{}.disk0", guest.name) };
    }
    seen.live = vec![live("h1", "db", 1, &overlay), live("h2", "rescue", 99, &plain)];
    insta::assert_snapshot!(said(&seen, "guest db").join("\n"), @r"
    CRITICAL disk vda writes to /tmp/db.snap, which another tool has laid over its image; what the guest has written since is lost when it stops (h1) -> on h1: `virsh blockcommit 00000000-0000-0000-0000-000000000001 vda --active --pivot` merges it into the guest's image
    CRITICAL the domain rescue (00000000-0000-0000-0000-000000000063) on h2 has its disk guests/vm.x.disk0 open: two writers would destroy it -> on h2: `virsh destroy 00000000-0000-0000-0000-000000000063`, after a look at what it is
    ");
}
