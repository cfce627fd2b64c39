//! Whether somebody on the network has an address that the pool thinks is free.

use crate::error::Failure;
use crate::ssh::{Exec, Remote, RemoteExt};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

const SCRIPT: &str = include_str!("probe.py");
/// How long answers are waited for; on one segment they come within a few milliseconds, a sleeping NIC may take more. The
/// longest wait in making a guest: its disk and seed take half of that.
const WAIT_MS: u64 = 200;

/// Asks the segment of a bridge who has these addresses; one round trip for all of them.
///
/// # Errors
/// When the host cannot be asked.
pub async fn strangers(
    remote: &dyn Remote,
    bridge: &str,
    addresses: &[IpAddr],
) -> Result<BTreeMap<IpAddr, String>, Failure> {
    if addresses.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut argv: Vec<String> = ["python3", "-I", "-S", "-", bridge].map(str::to_owned).into();
    argv.push(WAIT_MS.to_string());
    argv.extend(addresses.iter().map(ToString::to_string));
    let exec = Exec::argv(argv).stdin(SCRIPT).deadline(Duration::from_secs(10));
    Ok(parse(&remote.check(exec).await?.text()))
}

fn parse(text: &str) -> BTreeMap<IpAddr, String> {
    text.lines()
        .filter_map(|line| {
            let (address, mac) = line.split_once(' ')?;
            Some((address.parse().ok()?, mac.trim().to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::FakeRemote;

    #[tokio::test]
    async fn all_addresses_are_asked_for_in_one_round_trip() {
        let host = FakeRemote::new("h1").on("br-lan", "10.77.1.3 52:54:00:00:00:01\n");
        let asked = [IpAddr::from([10, 77, 1, 2]), IpAddr::from([10, 77, 1, 3])];
        let found = strangers(&host, "br-lan", &asked).await.unwrap();
        assert_eq!(found[&asked[1]], "52:54:00:00:00:01");
        assert_eq!(host.asked().len(), 1);
        assert_eq!(&host.asked()[0].argv[6..], ["10.77.1.2", "10.77.1.3"]);
    }
}
