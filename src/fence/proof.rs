//! Proof that a host can do no more harm: the only thing that lets its guests start elsewhere.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The storage accepts nothing from a host any more: its addresses and every client known to have run there are blocklisted,
/// and every OSD that is up has seen the map that says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageProof {
    pub(super) host: String,
    pub(super) addresses: BTreeSet<IpAddr>,
    pub(super) clients: BTreeSet<String>,
    pub(super) epoch: u64,
}

impl StorageProof {
    /// The host that is shut out.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its addresses on the storage network.
    pub fn addresses(&self) -> &BTreeSet<IpAddr> {
        &self.addresses
    }

    /// Clients that are shut out by themselves, as `ADDRESS:PORT/NONCE`: they stay so when the host is let in again.
    pub fn clients(&self) -> &BTreeSet<String> {
        &self.clients
    }

    /// The OSD map that every OSD which is up had seen at least.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether a client (`ADDRESS:PORT/NONCE`, or `[ADDRESS]:PORT/NONCE`) is of this host.
    pub fn covers(&self, client: &str) -> bool {
        address_of(client).is_some_and(|address| self.addresses.contains(&address))
    }
}

/// The address in `ADDRESS:PORT/NONCE`; a prefix like `v1:` may stand before it.
pub fn address_of(client: &str) -> Option<IpAddr> {
    let client = client.strip_prefix("v1:").or_else(|| client.strip_prefix("v2:")).unwrap_or(client);
    let (address, _) = client.rsplit_once(':')?;
    address.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// A BMC that is proven to be this host's said twice in a row that the machine is off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PowerProof {
    pub(super) host: String,
    pub(super) serial: String,
    pub(super) by: String,
}

impl PowerProof {
    /// The host that is off.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The service tag by which the BMC was known to be this host's.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// Who said so, in words: the protocol, the BMC's address, and where it was asked from.
    pub fn by(&self) -> &str {
        &self.by
    }
}

impl PowerProof {
    /// The word of a person who looked at the machine; `typed` is the host's name as that person typed it. It stands for the
    /// power alone, and never for the storage.
    pub fn by_eye(host: &str, typed: &str, who: &str) -> Option<PowerProof> {
        (typed == host).then(|| PowerProof {
            host: host.to_owned(),
            serial: String::new(),
            by: format!("{who}, who says to have seen it off"),
        })
    }

    /// Whether a BMC says so, and not a person.
    pub fn is_by_bmc(&self) -> bool {
        !self.serial.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_of_a_person_counts_for_the_host_that_was_typed() {
        let proof = PowerProof::by_eye("h1", "h1", "ann@desk").unwrap();
        assert_eq!((proof.host(), proof.is_by_bmc()), ("h1", false));
        assert!(proof.by().contains("ann@desk"));
        for typed in ["", "h2", "H1", "h1 "] {
            assert_eq!(PowerProof::by_eye("h1", typed, "ann@desk"), None, "{typed:?}");
        }
    }

    #[test]
    fn a_client_is_known_by_its_address() {
        let proof = StorageProof {
            host: "h1".into(),
            addresses: ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()].into(),
            clients: BTreeSet::new(),
            epoch: 7,
        };
        for (client, covered) in [
            ("10.0.0.1:0/3", true),
            ("v1:10.0.0.1:6800/3", true),
            ("10.0.0.11:0/3", false),
            ("[fd00::1]:0/3", true),
            ("fd00::2:0/3", false),
            ("", false),
            ("nonsense", false),
        ] {
            assert_eq!(proof.covers(client), covered, "{client}");
        }
    }
}
