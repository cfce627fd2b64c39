//! What the storage refuses at the moment.

use super::proof::{StorageProof, address_of};
use crate::cluster::{ClusterError, ClusterPort, Target};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

/// How long a monitor may take to answer, elections included.
pub(super) const MON: Duration = Duration::from_secs(12);

/// An OSD, as the map has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Osd {
    /// Its number.
    pub(super) id: u32,
    /// Whether it is up.
    pub(super) up: bool,
    /// Where it listens.
    pub(super) address: Option<IpAddr>,
}

/// The blocklist, with the OSD map it is part of.
#[derive(Clone, Debug, Default)]
pub(super) struct Blocklist {
    /// The map's epoch.
    pub(super) epoch: u64,
    /// Whole addresses.
    addresses: BTreeSet<IpAddr>,
    /// All OSDs.
    pub(super) osds: Vec<Osd>,
}

impl Blocklist {
    /// Asks the monitors for the newest map.
    pub(super) async fn read(port: &dyn ClusterPort) -> Result<Self, ClusterError> {
        Ok(Self::parse(&port.command(&Target::Mon, json!({"prefix": "osd dump"}), MON).await?))
    }

    /// The same, asked of the monitor on one host.
    pub(super) async fn read_at(port: &dyn ClusterPort, mon: &str) -> Result<Self, ClusterError> {
        let target = Target::MonAt(mon.to_owned());
        Ok(Self::parse(&port.command(&target, json!({"prefix": "osd dump"}), MON).await?))
    }

    /// From the answer to `osd dump`.
    fn parse(dump: &Value) -> Self {
        let ranges = dump["range_blocklist"].as_object().cloned().unwrap_or_default();
        let osds = dump["osds"].as_array().cloned().unwrap_or_default();
        let osd = |osd: &Value| {
            let address = osd["public_addr"].as_str().and_then(address_of);
            let id = u32::try_from(osd["osd"].as_u64()?).ok()?;
            Some(Osd { id, up: osd["up"].as_u64() == Some(1), address })
        };
        Blocklist {
            epoch: dump["epoch"].as_u64().unwrap_or_default(),
            addresses: ranges.iter().filter(|(_, end)| lasts(end)).filter_map(|(range, _)| single(range)).collect(),
            osds: osds.iter().filter_map(osd).collect(),
        }
    }

    /// Whether it refuses everything that this proof says.
    pub(super) fn refuses(&self, proof: &StorageProof) -> bool {
        proof.addresses.iter().all(|address| self.addresses.contains(address))
    }

    /// Whether it refuses this address as a whole.
    pub(super) fn has_address(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }
}

/// Whether an entry ends so late that it can be relied on: the fences made here last for ten years, and clocks differ.
fn lasts(end: &Value) -> bool {
    let end = end.as_str().and_then(|end| jiff::Timestamp::strptime("%Y-%m-%dT%H:%M:%S%.f%z", end).ok());
    end.is_some_and(|end| end.duration_since(jiff::Timestamp::now()) > jiff::SignedDuration::from_hours(24 * 30))
}

/// The address of a range of one: `cidr:10.0.0.1:0/32`, `10.0.0.1:0/32`, `10.0.0.1/32`, `[fd00::1]:0/128`.
fn single(range: &str) -> Option<IpAddr> {
    let range = range.strip_prefix("cidr:").unwrap_or(range);
    let (address, bits) = range.rsplit_once('/')?;
    let address: IpAddr = match address.parse() {
        Ok(address) => address,
        Err(_) => address_of(&format!("{address}/0"))?,
    };
    let whole = if address.is_ipv4() { "32" } else { "128" };
    (bits == whole).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_ends_soon_is_not_relied_on() {
        assert!(lasts(&json!("2036-11-25T03:25:55.049425+0000")));
        assert!(!lasts(&json!("2026-01-01T03:25:55.049425+0000")));
        assert!(!lasts(&json!("for ever")));
    }

    #[test]
    fn only_a_range_of_one_address_is_that_address() {
        for (range, address) in [
            ("cidr:10.0.0.1:0/32", Some("10.0.0.1")),
            ("10.0.0.1:0/32", Some("10.0.0.1")),
            ("10.0.0.1/32", Some("10.0.0.1")),
            ("10.0.0.0:0/24", None),
            ("[fd00::1]:0/128", Some("fd00::1")),
            ("fd00::1/128", Some("fd00::1")),
            ("fd00::/64", None),
            ("", None),
        ] {
            assert_eq!(single(range), address.map(|a| a.parse().unwrap()), "{range}");
        }
    }
}
