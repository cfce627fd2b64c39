//! Ways from one host to the others: every pair on every network at full size, names, and clocks.

use super::facts::Clock;
use crate::inventory::{HostSpec, Inventory};
use crate::ssh::{Exec, Remote, RemoteError, RemoteExt};
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

const SCRIPT: &str = include_str!("paths.sh");
const DEADLINE: Duration = Duration::from_secs(30);

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
    let mut args = Vec::new();
    let others: Vec<&HostSpec> = inventory.hosts.iter().filter(|h| h.name != remote.name()).collect();
    for host in &others {
        args.push(format!("name:{}", host.name));
        for net in Net::ALL {
            args.push(format!("ping:{net}/{}:{}:{}", host.name, net.address(host), payload(net, host, inventory)));
        }
    }
    let output = remote.check(Exec::script(SCRIPT, args).deadline(DEADLINE).as_login()).await?;
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

/// Reads a connected host's clock, as exactly as a short round trip allows.
///
/// # Errors
/// When the host cannot be reached.
pub async fn clock(remote: &dyn Remote) -> Result<Clock, RemoteError> {
    remote.connect().await?;
    let mut best = Clock { precision: f64::MAX, ..Clock::default() };
    for _ in 0..3 {
        let began = super::facts::since_epoch();
        let output = remote.check(Exec::argv(["date", "+%s.%N"]).as_login()).await?;
        let ended = super::facts::since_epoch();
        let now: f64 = output.text().trim().parse().unwrap_or_default();
        let precision = (ended - began) / 2.0;
        if precision < best.precision {
            best = Clock { now, difference: now - f64::midpoint(began, ended), precision, ..Clock::default() };
        }
    }
    Ok(best)
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
}
