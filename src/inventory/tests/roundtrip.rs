//! What is printed reads back as it was; no text makes the reader panic.

use super::GOOD;
use crate::inventory::*;
use ipnet::IpNet;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;
use uuid::Uuid;

fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    Ipv4Addr::new(a, b, c, d).into()
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z][a-z0-9-]{0,8}[a-z]", Just("true".to_owned()), Just("123".to_owned()), Just("null".to_owned())]
}

fn secret() -> impl Strategy<Value = SecretRef> {
    prop_oneof![
        word().prop_map(SecretRef::Env),
        word().prop_map(|w| SecretRef::File(PathBuf::from(w))),
        prop::collection::vec("[ -~]{1,12}", 1..4).prop_map(SecretRef::Command),
    ]
}

prop_compose! {
    fn bmc(number: u8)(redfish in any::<bool>(), port in proptest::option::of(1u16..), user in word(), password in secret(), pin in proptest::option::of(any::<[u8; 32]>())) -> BmcSpec {
        let kind = if redfish { BmcKind::Redfish } else { BmcKind::Ipmi };
        // Only HTTPS has a certificate.
        let fingerprint = pin.filter(|_| redfish).map(KeyPin::new);
        BmcSpec { kind, address: v4(10, 2, 0, number + 1), port, user, password, fingerprint }
    }
}

prop_compose! {
    fn host(number: u8, mon: bool)(
        user in proptest::option::of(word()),
        port in proptest::option::of(1u16..),
        rack in proptest::option::of(0u8..3),
        disks in prop::collection::vec("[a-zA-Z0-9_.:-]{4,20}", 1..4),
        bmc in proptest::option::of(bmc(number)),
        uplink in proptest::option::of("e[a-z0-9]{2,10}"),
        reserve in proptest::option::of((0u64..1 << 20).prop_map(|n| Size(n << 10))),
        guests in any::<bool>(),
    ) -> HostSpec {
        let mut roles = vec![Role::Osd, Role::Mgr];
        roles.extend(mon.then_some(Role::Mon));
        roles.extend(guests.then_some(Role::Guests));
        let osds = disks.iter().enumerate().map(|(i, d)| PathBuf::from(format!("/dev/disk/by-id/{number}-{i}-{d}")));
        HostSpec {
            name: format!("host-{number}"),
            address: v4(10, 0, 0, number + 1),
            storage_address: v4(10, 1, 0, number + 1),
            user,
            port,
            location: Location { datacenter: None, rack: rack.map(|n| format!("rack {n}").replace(' ', "-")) },
            roles,
            osds: osds.collect(),
            bmc,
            uplinks: uplink.map(|u| ("lan".to_owned(), u)).into_iter().collect(),
            reserve,
        }
    }
}

fn hosts() -> impl Strategy<Value = Vec<HostSpec>> {
    (1u8..20).prop_flat_map(|count| {
        let mons = if count < 3 { 1 } else { 3 };
        (0..count).map(|n| host(n, n < mons)).collect::<Vec<_>>()
    })
}

fn networks() -> impl Strategy<Value = Networks> {
    (1280u32..9216, 0u8..3, any::<bool>(), proptest::option::of(1u16..4095), proptest::option::of(1u64..400_000))
        .prop_map(|(mtu, wire, management, vlan, speed)| {
            let net = |text: &str| text.parse::<IpNet>().unwrap();
            let ethernet = HostNetwork {
                cidr: net("10.0.0.0/24"),
                mtu,
                link: LinkKind::Ethernet,
                ipoib: None,
                speed: speed.map(LinkSpeed),
            };
            let (link, ipoib, storage_mtu) = match wire {
                0 => (LinkKind::Ethernet, None, mtu),
                1 => (LinkKind::Infiniband, Some(IpoibMode::Connected), 65520),
                _ => (LinkKind::Infiniband, Some(IpoibMode::Datagram), mtu.min(4092)),
            };
            let lan = GuestNetwork {
                bridge: "br-lan".to_owned(),
                uplink: vlan.map(|_| "eno1".to_owned()),
                vlan,
                cidr: net("fd00:1::/64"),
                gateway: Some("fd00:1::1".parse().unwrap()),
                dns: vec![v4(9, 9, 9, 9)],
                ranges: vec!["fd00:1::100-fd00:1::1ff".parse().unwrap()],
                mtu: 1280,
            };
            Networks {
                storage: HostNetwork { cidr: net("10.1.0.0/24"), mtu: storage_mtu, link, ipoib, ..ethernet.clone() },
                management: ethernet,
                migration: if management { MigrationNetwork::Management } else { MigrationNetwork::Storage },
                guests: BTreeMap::from([("lan".to_owned(), lan)]),
            }
        })
}

prop_compose! {
    fn inventory()(
        name in "[ -~]{1,20}",
        id in 1u128..,
        user in proptest::option::of("[ -~]{1,10}"),
        networks in networks(),
        overcommit in 0.25f64..50.0,
        memory in 1u64..1 << 30,
        hosts in hosts(),
        path in "/[a-z/ ]{0,20}",
        patience in proptest::option::of(300u64..60_000),
        hooks in prop::collection::vec(prop::collection::vec("[ -~]{1,12}", 1..4), 0..3),
        webhook in proptest::option::of(proptest::option::of(secret())),
        token in proptest::option::of(secret()),
    ) -> Inventory {
        let size = u8::try_from(hosts.len()).unwrap().min(3);
        let storage = BackupStorage { address: Some(v4(10, 3, 0, 1)), user: None, port: None, path: path.into() };
        Inventory {
            cluster: ClusterIdentity { name, fsid: Uuid::from_u128(id) },
            ssh: SshDefaults { user, ..SshDefaults::default() },
            networks,
            ceph: CephSpec { size, min_size: size.min(2), ..CephSpec::default() },
            guests: GuestDefaults { memory: Size(memory << 10), cpu_overcommit: overcommit, ..GuestDefaults::default() },
            hosts,
            backup: BackupSpec { storage: BTreeMap::from([("vault".to_owned(), storage)]) },
            watch: WatchSpec {
                patience: patience.map(|millis| Patience(Duration::from_millis(millis))),
                hooks,
                webhook: webhook.map(|secret| {
                    WebhookSpec { url: "https://page.example/x".to_owned(), header: "X-Token".to_owned(), secret }
                }),
                token,
            },
            base: PathBuf::new(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_printed_reads_back(inventory in inventory()) {
        let text = serde_saphyr::to_string(&inventory).unwrap();
        match parse("f.yaml", &text) {
            Ok(read) => prop_assert_eq!(read, inventory),
            Err(diagnostics) => prop_assert!(false, "{}\n{}", diagnostics, text),
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "[-a-c:,{}\\[\\]&*!|>'\"#%@ \\t\\n\u{e9}]{0,80}") {
        let _ = parse("f.yaml", &text).map_err(|m| m.to_string());
    }

    #[test]
    fn no_damage_makes_the_reader_panic(at in 0usize..GOOD.len(), length in 0usize..40, put in "[-:{}\\[\\]&*a \\n\\t\"]{0,6}") {
        let mut text = GOOD.to_owned();
        text.replace_range(at..(at + length).min(GOOD.len()), &put);
        if let Err(diagnostics) = parse("f.yaml", &text) {
            prop_assert!(!diagnostics.list().is_empty());
            prop_assert!(diagnostics.to_string().contains("fix: "));
        }
    }
}

#[test]
fn bombs_are_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let row = vec![format!("*a{}", n - 1); 10].join(", ");
        text.push_str(&format!("a{n}: &a{n} [{row}]\n"));
    }
    assert!(parse("f.yaml", &text).unwrap_err().to_string().contains("too many values"));
    let deep = "[".repeat(100_000);
    assert!(parse("f.yaml", &deep).is_err());
    let mut chain = "a0: &a0 [x]\n".to_owned();
    for n in 1..2000 {
        chain.push_str(&format!("a{n}: &a{n} [*a{}]\n", n - 1));
    }
    assert!(parse("f.yaml", &chain).unwrap_err().to_string().contains("nested too deeply"));
    assert!(parse("f.yaml", "a: &a {b: *a}").is_err());
}
