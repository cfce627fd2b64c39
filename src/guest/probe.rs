//! Whether a machine on the network has an address that the pool holds for free.

use crate::error::Failure;
use crate::ssh::{Exec, Remote, RemoteExt};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

const SCRIPT: &str = include_str!("probe.py");
/// How long answers are waited for; on one segment they come within a few milliseconds, a sleeping NIC may take more. The
/// longest wait in making a guest: its disk and seed take half of that.
const WAIT_MS: u64 = 200;

/// The word of the script for an address of the host it runs on.
const OWN: &str = "own";

/// Who has an address that the pool has no entry for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Occupant {
    /// What answers on the network, by its hardware address.
    Mac(String),
    /// The host that asks, which does not answer itself.
    Host(String),
}

impl fmt::Display for Occupant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Occupant::Mac(mac) => write!(f, "a machine with MAC {mac}"),
            Occupant::Host(name) => write!(f, "host {name}"),
        }
    }
}

/// Asks the segment of a bridge, and the host itself, who has these addresses; one round trip for all of them.
///
/// # Errors
/// When the host cannot be asked.
pub async fn conflicts(
    remote: &dyn Remote,
    bridge: &str,
    addresses: &[IpAddr],
) -> Result<BTreeMap<IpAddr, Occupant>, Failure> {
    if addresses.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut argv: Vec<String> = ["python3", "-I", "-S", "-", bridge].map(str::to_owned).into();
    argv.push(WAIT_MS.to_string());
    argv.extend(addresses.iter().map(ToString::to_string));
    let exec = Exec::argv(argv).stdin(SCRIPT).deadline(Duration::from_secs(10));
    Ok(parse(remote.name(), &remote.check(exec).await?.text()))
}

fn parse(host: &str, text: &str) -> BTreeMap<IpAddr, Occupant> {
    text.lines()
        .filter_map(|line| {
            let (address, mac) = line.split_once(' ')?;
            let who = match mac.trim() {
                OWN => Occupant::Host(host.to_owned()),
                mac => Occupant::Mac(mac.to_owned()),
            };
            Some((address.parse().ok()?, who))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::FakeRemote;

    #[tokio::test]
    async fn all_addresses_are_asked_for_in_one_round_trip() {
        let host = FakeRemote::new("h1").on("br-lan", "10.77.1.3 52:54:00:00:00:01\n10.77.1.2 own\n");
        let asked = [IpAddr::from([10, 77, 1, 2]), IpAddr::from([10, 77, 1, 3])];
        let found = conflicts(&host, "br-lan", &asked).await.unwrap();
        assert_eq!(found[&asked[0]].to_string(), "host h1");
        assert_eq!(found[&asked[1]].to_string(), "a machine with MAC 52:54:00:00:00:01");
        assert_eq!(host.asked().len(), 1);
        assert_eq!(&host.asked()[0].argv[6..], ["10.77.1.2", "10.77.1.3"]);
    }
}
