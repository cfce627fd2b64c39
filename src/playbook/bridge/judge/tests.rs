//! Networks as hosts have them, for each of the three that configure them.

use super::*;
use crate::playbook::state::BridgeState;
use serde_json::{Value, json};

const BOND: &str = include_str!("../testdata/interfaces-bond");
const VLAN: &str = include_str!("../testdata/interfaces-vlan");
const IPV6: &str = include_str!("../testdata/interfaces-ipv6");
const HOOKS: &str = include_str!("../testdata/interfaces-hooks");
const INTERFACES: &str = "/etc/network/interfaces";

fn bridge(uplink: &str) -> Bridge {
    Bridge { name: "br-lan".into(), uplink: uplink.into(), vlan: None, mtu: 1500 }
}

fn nic(name: &str, mtu: u32) -> Value {
    json!({ "ifname": name, "link_type": "ether", "address": "02:00:00:00:00:01", "mtu": mtu })
}

fn with(mut link: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        link[key] = value.clone();
    }
    link
}

fn kind(name: &str, kind: &str) -> Value {
    with(nic(name, 1500), &json!({ "linkinfo": { "info_kind": kind } }))
}

fn address(link: Value) -> Value {
    with(link, &json!({ "addr_info": [{ "local": "10.9.0.11", "prefixlen": 24, "scope": "global" }] }))
}

/// A host with these links and files.
fn host(links: Vec<Value>, files: &[(&str, &str)]) -> State {
    let network_files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    State { links, network_files, ..State::default() }
}

/// A host of systemd-networkd whose port is configured by this file.
fn networkd(links: Vec<Value>, path: &str, text: &str) -> State {
    let found = BridgeState { origin: (path.into(), text.into()), ..BridgeState::default() };
    State { networkd: true, bridges: [("br-lan".to_owned(), found)].into(), ..host(links, &[(path, text)]) }
}

fn refused(bridge: &Bridge, state: &State, words: &[&str]) {
    let said = refusal(bridge, state).map(|r| r.to_string()).unwrap_or_default();
    for word in words {
        assert!(said.contains(word), "{word} is not in: {said}");
    }
}

#[test]
fn a_bond_or_vlan_below_a_bridge_is_refused_with_file_and_line() {
    let bond = || address(kind("bond0", "bond"));
    let words = ["uplink bond0", "is a bond", "next boot", "give that network a `vlan` on bond0"];
    let ifupdown = host(vec![bond()], &[(INTERFACES, BOND)]);
    refused(&bridge("bond0"), &ifupdown, &[&words[..], &["/etc/network/interfaces line 7"]].concat());
    let yaml = "network:\n  version: 2\n  bonds:\n    bond0:\n      interfaces: [eno1, eno3]\n      addresses: [10.9.0.11/24]\n";
    let mut netplan = networkd(vec![bond()], "/run/systemd/network/10-netplan-bond0.network", "[Match]\nName=bond0\n");
    netplan.network_files.insert("/etc/netplan/50-cloud-init.yaml".into(), yaml.into());
    refused(&bridge("bond0"), &netplan, &[&words[..], &["/etc/netplan/50-cloud-init.yaml line 4"]].concat());
    let mut plain = networkd(vec![bond()], "/etc/systemd/network/20-bond0.network", "[Match]\nName=bond0\n");
    plain
        .network_files
        .insert("/etc/systemd/network/10-bond0.netdev".into(), "[NetDev]\nName=bond0\nKind=bond\n".into());
    refused(&bridge("bond0"), &plain, &[&words[..], &["/etc/systemd/network/10-bond0.netdev line 2"]].concat());
    let vlan = host(vec![address(kind("mgmt20", "vlan"))], &[(INTERFACES, VLAN)]);
    refused(&bridge("mgmt20"), &vlan, &["mgmt20", "is a VLAN", "interfaces line 7", "with the tag as `vlan`"]);
    for other in ["team", "macvlan", "bridge", "vxlan", "ipvlan"] {
        refused(&bridge("x0"), &host(vec![address(kind("x0", other))], &[]), &[other]);
    }
    let infiniband = with(nic("ib0", 2044), &json!({ "link_type": "infiniband" }));
    refused(&bridge("ib0"), &host(vec![infiniband], &[]), &["carries infiniband"]);
}

#[test]
fn a_tag_on_a_bond_moves_nothing_and_is_made() {
    let tagged = Bridge { vlan: Some(42), ..bridge("bond0") };
    let state = host(vec![address(kind("bond0", "bond"))], &[(INTERFACES, BOND)]);
    assert_eq!(refusal(&tagged, &state), None);
    let taken = format!("{BOND}\nauto bond0.42\niface bond0.42 inet static\n    address 10.42.0.1/24\n");
    refused(&tagged, &host(vec![kind("bond0", "bond")], &[(INTERFACES, &taken)]), &["line 16: bond0.42", "already"]);
    let ours = format!(
        "{BOND}\niface bond0.42 inet manual\n    pre-up ip link add link bond0 name bond0.42 type vlan id 42\n"
    );
    assert_eq!(refusal(&tagged, &host(vec![kind("bond0", "bond")], &[(INTERFACES, &ours)])), None);
    let carries = address(kind("bond0.42", "vlan"));
    refused(&tagged, &host(vec![kind("bond0", "bond"), carries], &[]), &["bond0.42", "10.9.0.11/24"]);
}

#[test]
fn a_port_that_belongs_to_another_is_refused_now_and_for_the_next_boot() {
    let slave = with(nic("eno1", 1500), &json!({ "master": "bond0" }));
    let state = host(vec![slave.clone(), kind("bond0", "bond")], &[(INTERFACES, BOND)]);
    refused(&bridge("eno1"), &state, &["eno1 is a port of bond bond0 (/etc/network/interfaces line 7)"]);
    let advice = "name bond0 as `uplink` of its network, with a `vlan`";
    refused(&Bridge { vlan: Some(4), ..bridge("eno1") }, &state, &["port of bond bond0", advice]);
    assert_eq!(refusal(&Bridge { vlan: Some(4), ..bridge("bond0") }, &state), None, "and the advice is taken");
    // Only in the file: the running port is free.
    let state = host(vec![address(nic("eno1", 1500))], &[(INTERFACES, BOND)]);
    refused(&bridge("eno1"), &state, &["/etc/network/interfaces line 7", "bond0 makes uplink eno1 a port of its own"]);
    let bridged = with(nic("eno1", 1500), &json!({ "master": "br0" }));
    let state = host(vec![bridged, kind("br0", "bridge")], &[]);
    refused(&bridge("eno1"), &state, &["eno1 is a port of bridge br0", "take it out of br0"]);
    assert_eq!(refusal(&Bridge { vlan: Some(4), ..bridge("eno1") }, &state), None, "a tag passes beside a bridge");
}

#[test]
fn an_existing_bridge_is_left_alone() {
    let br0 = Bridge { name: "br0".into(), ..bridge("eno1") };
    let links = || {
        let port = with(nic("eno1", 1500), &json!({ "master": "br0" }));
        vec![port, address(kind("br0", "bridge"))]
    };
    let words = ["br0", "was not made by rackhand", "move the addresses of br0 back to eno1"];
    let netdev = [("/etc/systemd/network/10-br0.netdev", "[NetDev]\nName=br0\nKind=bridge\n")];
    refused(
        &br0,
        &State { networkd: true, ..host(links(), &netdev) },
        &[&words[..], &["10-br0.netdev line 2"]].concat(),
    );
    let netplan = [("/etc/netplan/01.yaml", "network:\n  bridges:\n    br0:\n      interfaces: [eno1]\n")];
    refused(&br0, &host(links(), &netplan), &[&words[..], &["/etc/netplan/01.yaml line 3"]].concat());
    let stanza = "auto br0\niface br0 inet static\n    bridge_ports eno1\n    address 10.9.0.11/24\n";
    refused(&br0, &host(links(), &[(INTERFACES, stanza)]), &[&words[..], &["interfaces line 2"]].concat());
    refused(&br0, &host(links(), &[]), &words);
    // One of ours, and one whose edit waits to be confirmed.
    let ours = [("/etc/systemd/network/05-rackhand-br0.netdev", "[NetDev]\nName=br0\nKind=bridge\n")];
    assert_eq!(refusal(&br0, &host(links(), &ours)), None);
    let begun = State { begun: ["br0".to_owned()].into(), ..host(links(), &[]) };
    assert_eq!(refusal(&br0, &begun), None);
}

#[test]
fn an_mtu_does_not_sink_under_what_needs_it() {
    let state = host(vec![address(nic("eno1", 9000))], &[]);
    refused(&bridge("eno1"), &state, &["eno1 has an MTU of 9000, and would sink to 1500", "write `mtu: 9000`"]);
    assert_eq!(refusal(&Bridge { mtu: 9000, ..bridge("eno1") }, &state), None);
    let free = host(vec![nic("eno2", 9000)], &[]);
    assert_eq!(refusal(&bridge("eno2"), &free), None, "nothing needs it there");
    let storage = with(kind("eno2.20", "vlan"), &json!({ "link": "eno2", "mtu": 9000 }));
    refused(&bridge("eno2"), &host(vec![nic("eno2", 9000), storage], &[]), &["eno2.20 on uplink eno2", "9000"]);
}

#[test]
fn options_that_would_stand_in_the_wrong_stanza_are_refused() {
    let links = || vec![address(nic("eno1", 1500))];
    let judged = |text: &str| refusal(&bridge("eno1"), &host(links(), &[(INTERFACES, text)])).map(|r| r.to_string());
    let said = judged(HOOKS).unwrap();
    assert!(said.starts_with("/etc/network/interfaces line 8: `ethtool-offload-tso` of eno1"), "{said}");
    assert!(said.contains("next boot") && said.contains("take `ethtool-offload-tso` out"), "{said}");
    let said = judged(IPV6).unwrap();
    assert!(said.starts_with("/etc/network/interfaces line 11: `up` of eno1"), "{said}");
    let stanza = |line: &str| format!("iface eno1 inet static\n    address 10.9.0.11/24\n    {line}\n");
    for line in [
        "bond-master bond0",
        "vlan-raw-device eno3",
        "mtu 9000",
        "up ip route add 10.0.0.0/8 via 10.9.0.1",
        "post-up /sbin/ethtool -K eno1 gro off",
        "pre-up modprobe x",
        "down x",
        "hwaddress ether 02:00:00:00:00:09",
        "wpa-ssid x",
        "gateway 10.9.0.1 \\",
        "tunnel-mode gre",
        "offload-gro off",
    ] {
        let said = judged(&stanza(line)).unwrap_or_default();
        assert!(said.starts_with("/etc/network/interfaces line 3: "), "{line}: {said}");
    }
    for line in ["gateway 10.9.0.1", "dns-nameservers 10.9.0.1", "mtu 1500", "metric 10", "# up x", ""] {
        assert_eq!(judged(&stanza(line)), None, "{line}");
    }
    // Both families, each static: both move.
    let both = stanza("") + "iface eno1 inet6 static\n    address 2001:db8::1/64\n    gateway 2001:db8::2\n";
    assert_eq!(judged(&both), None);
    let auto = stanza("") + "iface eno1 inet6 auto\n";
    let said = judged(&auto).unwrap();
    assert!(
        said.starts_with("/etc/network/interfaces line 4: eno1 has its inet6 addresses from the network"),
        "{said}"
    );
    let twice =
        [(INTERFACES, "iface eno1 inet static\n"), ("/etc/network/interfaces.d/v6", "iface eno1 inet6 static\n")];
    refused(&bridge("eno1"), &host(links(), &twice), &["two files", "interfaces.d/v6 line 1"]);
    // The port's own stanza keeps what is in it.
    let manual = "iface eno1 inet manual\n    ethtool-offload-tso off\n    up ip link set dev eno1 up\n";
    assert_eq!(judged(manual), None);
}

#[test]
fn settings_of_networkd_that_would_be_lost_or_move_wrongly_are_refused() {
    let links = || vec![address(nic("eno1", 1500))];
    let path = "/etc/systemd/network/20-eno1.network";
    let judged =
        |path: &str, text: &str| refusal(&bridge("eno1"), &networkd(links(), path, text)).map(|r| r.to_string());
    let file = |more: &str| format!("[Match]\nName=eno1\n\n[Network]\nAddress=10.9.0.11/24\n{more}");
    for more in [
        "Gateway=10.9.0.1\nDNS=10.9.0.1\n",
        "\n[Route]\nDestination=10.0.0.0/8\nGateway=10.9.0.2\n",
        "IPv6AcceptRA=no\n",
        "\n[Link]\nMTUBytes=1500\nRequiredForOnline=no\n",
        "\n[DHCP]\nRouteMetric=100\n",
        "; VLAN=x\n",
    ] {
        assert_eq!(judged(path, &file(more)), None, "{more}");
    }
    for more in ["VLAN=eno1.20\n", "Bond=bond0\n", "MACVLAN=m\n", "VXLAN=v\n", "Bridge=br9\n", "Tunnel=t\n"] {
        let said = judged(path, &file(more)).unwrap_or_default();
        assert!(said.starts_with(&format!("{path} line 6: `{}` of eno1 in [Network]", more.trim())), "{said}");
    }
    for more in ["\n[Link]\nMACAddress=02:00:00:00:00:09\n", "\n[BridgeVLAN]\nVLAN=4\n", "\n[Link]\nUnmanaged=yes\n"] {
        assert!(judged(path, &file(more)).unwrap_or_default().starts_with(&format!("{path} line 8: ")), "{more}");
    }
    let netplan = "/run/systemd/network/10-netplan-eno1.network";
    assert!(judged(netplan, &file("VLAN=vlan20\n")).unwrap().contains("written by netplan from /etc/netplan"));
    assert_eq!(judged(netplan, &file("Gateway=10.9.0.1\n")), None);
    let mut state = networkd(links(), path, &file(""));
    state.network_files.insert(format!("{path}.d/rackhand-mtu.conf"), "[Link]\nMTUBytes=1500\n".into());
    assert_eq!(refusal(&bridge("eno1"), &state), None, "our own");
    state.network_files.insert(format!("{path}.d/10-local.conf"), "[Route]\nGateway=10.9.0.2\n".into());
    refused(&bridge("eno1"), &state, &["20-eno1.network.d/10-local.conf", "adds to"]);
    let mut state = networkd(links(), path, &file(""));
    state.network_files.insert(INTERFACES.into(), "iface eno1 inet static\n    address 10.9.0.11/24\n".into());
    refused(&bridge("eno1"), &state, &["configured twice", "interfaces line 1"]);
}

#[test]
fn what_the_owners_add_once_a_bridge_is_ours_is_theirs() {
    let text = "iface eno1 inet manual\n\niface br-lan inet static\n    pre-up ip link add name br-lan address 02:00:00:00:00:01 type bridge\n    address 10.9.0.11/24\n    up ip route add 10.0.0.0/8 via 10.9.0.2\n    mtu 9000\n";
    let port = with(nic("eno1", 1500), &json!({ "master": "br-lan" }));
    assert_eq!(
        refusal(&bridge("eno1"), &host(vec![port, address(kind("br-lan", "bridge"))], &[(INTERFACES, text)])),
        None
    );
}
