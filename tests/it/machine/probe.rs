//! Who answers on a network: the script that looks for strangers, between two network namespaces. Needs root.

use crate::run::tool;
use std::process::Command;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/guest/probe.py");

/// A host with a bridge and a stranger beside it, each a network namespace; gone with the value.
struct Segment {
    host: String,
    stranger: String,
}

fn ip(line: &str) {
    tool("ip", &line.split(' ').collect::<Vec<_>>());
}

impl Segment {
    fn new() -> Segment {
        let name = |role: &str| format!("rh-{role}-{}", std::process::id());
        let segment = Segment { host: name("host"), stranger: name("who") };
        let (host, stranger) = (&segment.host, &segment.stranger);
        for line in [
            format!("netns add {host}"),
            format!("netns add {stranger}"),
            format!("-n {host} link add br-lan type bridge"),
            format!("-n {host} link add port type veth peer name nic netns {stranger}"),
            format!("-n {host} link set port master br-lan up"),
            format!("-n {host} link set br-lan up"),
            format!("-n {stranger} link set nic address 52:54:00:00:00:99 up"),
            format!("-n {stranger} address add 10.77.9.5/24 dev nic"),
            format!("-n {stranger} address add fd00:77::5/64 dev nic nodad"),
        ] {
            ip(&line);
        }
        segment
    }

    fn probe(&self, addresses: &[&str]) -> Vec<String> {
        let output = Command::new("ip")
            .args(["netns", "exec", &self.host, "python3", "-I", "-S", SCRIPT, "br-lan", "1000"])
            .args(addresses)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut lines: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        for namespace in [&self.host, &self.stranger] {
            let _ = Command::new("ip").args(["netns", "delete", namespace]).status();
        }
    }
}

#[test]
fn a_stranger_is_found_by_both_kinds_of_address_and_a_free_address_is_nobodys() {
    let segment = Segment::new();
    assert_eq!(segment.probe(&["10.77.9.5", "10.77.9.6"]), ["10.77.9.5 52:54:00:00:00:99"]);
    assert_eq!(segment.probe(&["fd00:77::5", "fd00:77::6"]), ["fd00:77::5 52:54:00:00:00:99"]);
    assert_eq!(segment.probe(&["10.77.9.5", "fd00:77::5"]).len(), 2);
    // The host that asks does not answer itself.
    for address in ["10.77.9.1/24", "fd00:77::1/64 nodad"] {
        ip(&format!("-n {} address add dev br-lan {address}", segment.host));
    }
    assert_eq!(segment.probe(&["10.77.9.1", "fd00:77::1", "10.77.9.6"]), ["10.77.9.1 own", "fd00:77::1 own"]);
}
