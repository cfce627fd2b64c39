//! Ways from one host to the others: every pair on every network at full size, and names.

use crate::inventory::{HostSpec, Inventory};
use crate::ssh::{Exec, Remote, RemoteError, RemoteExt};
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

const SCRIPT: &str = include_str!("paths.sh");
/// Ways tried at once by a host. Each is a process or two.
const AT_ONCE: usize = 64;
/// What a batch of ways takes when none of them answers, with room for a busy host.
const BATCH: Duration = Duration::from_secs(6);
/// What the rest takes.
const REST: Duration = Duration::from_secs(24);

/// A network that hosts have addresses in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Net {
    /// The management network.
    Management,
    /// The storage network.
    Storage,
}

impl Net {
    /// Both.
    pub const ALL: [Net; 2] = [Net::Management, Net::Storage];

    /// A host's address in it.
    pub fn address(self, host: &HostSpec) -> IpAddr {
        match self {
            Net::Management => host.address,
            Net::Storage => host.storage_address,
        }
    }

    /// What the inventory says about it.
    pub fn spec(self, inventory: &Inventory) -> &crate::inventory::HostNetwork {
        match self {
            Net::Management => &inventory.networks.management,
            Net::Storage => &inventory.networks.storage,
        }
    }
}

impl std::fmt::Display for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Net::Management => "management",
            Net::Storage => "storage",
        })
    }
}

/// How far packets get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// At full size.
    Whole,
    /// Small ones only: some MTU on the way is too small.
    Small,
    /// Not at all.
    None,
    /// The host has no ping.
    Untried,
}

/// What a host sees of the others.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Paths {
    /// To each other host on each network.
    pub ways: BTreeMap<(Net, String), Way>,
    /// What each other host's name means here.
    pub names: BTreeMap<String, Vec<IpAddr>>,
}

/// Tries every way from a host to the others.
///
/// # Errors
/// When the host cannot be reached.
pub async fn probe(remote: &dyn Remote, inventory: &Inventory) -> Result<Paths, RemoteError> {
    let mut args = vec![AT_ONCE.to_string()];
    let others: Vec<&HostSpec> = inventory.hosts.iter().filter(|h| h.name != remote.name()).collect();
    for host in &others {
        args.push(format!("name:{}", host.name));
        for net in Net::ALL {
            args.push(format!("ping:{net}/{}:{}:{}", host.name, net.address(host), payload(net, host, inventory)));
        }
    }
    let batches = u32::try_from(args.len() / AT_ONCE + 1).unwrap_or(u32::MAX);
    let deadline = REST + BATCH * batches;
    let output = remote.check(Exec::script(SCRIPT, args).deadline(deadline).as_login()).await?;
    Ok(parse(&output.text()))
}

/// Bytes of an echo request that fill the network's MTU: less the IP header (RFC 791, RFC 8200) and ICMP's 8.
fn payload(net: Net, host: &HostSpec, inventory: &Inventory) -> u32 {
    let header = if net.address(host).is_ipv4() { 20 } else { 40 };
    net.spec(inventory).mtu.saturating_sub(header + 8)
}

fn parse(text: &str) -> Paths {
    let mut paths = Paths::default();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["ping", id, way] => {
                let Some((net, host)) = id.split_once('/') else { continue };
                let net = if net == "storage" { Net::Storage } else { Net::Management };
                let way = match way {
                    "whole" => Way::Whole,
                    "small" => Way::Small,
                    "none" => Way::None,
                    _ => Way::Untried,
                };
                paths.ways.insert((net, host.to_owned()), way);
            }
            ["name", name, ref addresses @ ..] => {
                let addresses = addresses.iter().filter_map(|a| a.parse().ok()).collect();
                paths.names.insert(name.to_owned(), addresses);
            }
            _ => {}
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_of_the_script_are_read() {
        let paths = parse("ping storage/h2 whole\nping management/h2 small\nname h2 10.0.0.2 fd00::2\nname h3\nend\n");
        assert_eq!(paths.ways[&(Net::Storage, "h2".to_owned())], Way::Whole);
        assert_eq!(paths.ways[&(Net::Management, "h2".to_owned())], Way::Small);
        assert_eq!(paths.names["h2"].len(), 2);
        assert!(paths.names["h3"].is_empty());
    }

    /// A rack of a hundred hosts, and a `ping` that counts how many of it run.
    #[test]
    fn a_large_rack_is_tried_a_bounded_number_of_ways_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let ping = dir.path().join("ping");
        let count = "#!/bin/sh\ncd \"$(dirname \"$0\")\"\n: >run.$$\nls run.* | wc -l >>counts\nsleep 0.05\nrm run.$$\n\
                     echo '3 packets transmitted, 3 received'\n";
        std::fs::write(&ping, count).unwrap();
        std::fs::set_permissions(&ping, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let ways = (1..=100).map(|n| format!("ping:storage/h{n}:10.0.0.{n}:8972"));
        let args: Vec<String> = std::iter::once("16".to_owned()).chain(ways).collect();
        let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
        let mut command = std::process::Command::new("sh");
        command.arg("-c").arg(SCRIPT).arg("sh").args(args).env("PATH", path);
        let output = command.output().unwrap();
        let seen = parse(&String::from_utf8_lossy(&output.stdout));
        assert_eq!(seen.ways.len(), 100);
        assert!(seen.ways.values().all(|way| *way == Way::Whole));
        let counts = std::fs::read_to_string(dir.path().join("counts")).unwrap();
        let most = counts.lines().filter_map(|line| line.trim().parse::<u32>().ok()).max().unwrap();
        assert!((2..=16).contains(&most), "{most} at once");
    }
}
