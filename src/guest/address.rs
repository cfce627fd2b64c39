//! Addresses of guests: a pool in the cluster, changed in one step, and hardware addresses that are unique in it.

use crate::cluster::{ClusterError, ClusterPort, Keys, KeysChange};
use crate::error::{Failure, Kind};
use crate::inventory::GuestNetwork;
use ipnet::IpNet;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::net::IpAddr;
use uuid::Uuid;

/// Tries when others take addresses at the same time; each lost race means that somebody else got one.
const TRIES: usize = 50;
/// Owner of an address that answered although the pool knows nothing of it.
const STRANGER: &str = "stranger";

/// What a guest wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Any free address of the ranges.
    Auto,
    /// This one.
    Exactly(IpAddr),
}

impl std::str::FromStr for Wish {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "auto" => Ok(Wish::Auto),
            other => {
                other.parse().map(Wish::Exactly).map_err(|_| format!("`{other}` is no address; write one, or auto"))
            }
        }
    }
}

/// An address of a guest, with the hardware address that goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: IpAddr,
    /// The hardware address.
    pub mac: String,
}

/// The state object of a network's addresses: `ADDRESS -> OWNER` and `mac/MAC -> OWNER`.
pub fn object(network: &str) -> String {
    format!("network.{network}")
}

/// A hardware address from a guest's id: locally administered, unicast; `salt` gives another one.
fn mac(guest: Uuid, nic: usize, salt: u32) -> String {
    let hash =
        Sha256::new().chain_update(guest.as_bytes()).chain_update(nic.to_be_bytes()).chain_update(salt.to_be_bytes());
    let hash = hash.finalize();
    // 52:54 is QEMU's own beginning: bit 1 of the first byte set (locally administered), bit 0 clear (unicast).
    format!("52:54:{:02x}:{:02x}:{:02x}:{:02x}", hash[0], hash[1], hash[2], hash[3])
}

/// The addresses a network can give, in order.
fn candidates(network: &GuestNetwork) -> Box<dyn Iterator<Item = IpAddr> + '_> {
    let usable = move |a: &IpAddr| network.cidr.contains(a) && Some(*a) != network.gateway && !network.dns.contains(a);
    if network.ranges.is_empty() {
        return Box::new(network.cidr.hosts().filter(usable));
    }
    Box::new(network.ranges.iter().flat_map(|r| range(r.first, r.last)).filter(usable))
}

fn range(first: IpAddr, last: IpAddr) -> Box<dyn Iterator<Item = IpAddr>> {
    match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) => Box::new(ipnet::Ipv4AddrRange::new(a, b).map(IpAddr::V4)),
        (IpAddr::V6(a), IpAddr::V6(b)) => Box::new(ipnet::Ipv6AddrRange::new(a, b).map(IpAddr::V6)),
        _ => Box::new(std::iter::empty()),
    }
}

/// Checks that a guest may have exactly this address.
///
/// # Errors
/// When it is not one of the network, or not for guests.
pub fn check(name: &str, network: &GuestNetwork, address: IpAddr) -> Result<(), Failure> {
    let outside = !network.cidr.contains(&address);
    let edge = address == network.cidr.network() || matches!(network.cidr, IpNet::V4(v4) if address == v4.broadcast());
    if outside || edge {
        return Err(Failure::usage(format!("{address} is no guest address of network {name} ({})", network.cidr)));
    }
    if Some(address) == network.gateway || network.dns.contains(&address) {
        return Err(Failure::usage(format!("{address} belongs to the gateway or name server of network {name}")));
    }
    Ok(())
}

/// Takes an address for a guest; an owner that has one already keeps it, unless another one is asked for.
///
/// # Errors
/// When the wanted one is taken, none is free, or the cluster cannot be asked.
pub async fn take(
    port: &dyn ClusterPort,
    name: &str,
    network: &GuestNetwork,
    owner: Uuid,
    nic: usize,
    wish: Wish,
) -> Result<Lease, Failure> {
    let mut leases = take_each(port, name, network, &[owner], nic, wish).await?;
    leases.pop().unwrap_or_else(|| Err(Failure::failed("no address was asked for")))
}

/// Takes an address for each of these guests, all in one step; an owner that has one already keeps it.
///
/// # Errors
/// When the wanted one is no address of the network, or the cluster cannot be asked.
pub async fn take_each(
    port: &dyn ClusterPort,
    name: &str,
    network: &GuestNetwork,
    owners: &[Uuid],
    nic: usize,
    wish: Wish,
) -> Result<Vec<Result<Lease, Failure>>, Failure> {
    if let Wish::Exactly(address) = wish {
        check(name, network, address)?;
    }
    if owners.is_empty() {
        return Ok(Vec::new());
    }
    let object = object(name);
    for _ in 0..TRIES {
        let mut keys = port.keys(&object).await?;
        let mut change = KeysChange::default();
        let mut leases = Vec::new();
        for owner in owners {
            let me = format!("{owner}/{nic}");
            let has = owned(&keys, &me);
            let asked_for = |lease: &Lease| wish == Wish::Auto || wish == Wish::Exactly(lease.address);
            if let Some(lease) = has.clone().filter(asked_for) {
                leases.push(Ok(lease));
                continue;
            }
            leases.push(pick(name, network, &keys, wish).map(|address| {
                let mut add = vec![address.to_string()];
                let mac = match has {
                    // Taken by a killed run that was to have another one.
                    Some(had) => {
                        change = std::mem::take(&mut change).take(had.address.to_string(), &me);
                        had.mac
                    }
                    None => {
                        let mac = unused_mac(&keys, *owner, nic);
                        add.push(format!("mac/{mac}"));
                        mac
                    }
                };
                for key in add {
                    keys.insert(key.clone(), me.clone());
                    change = std::mem::take(&mut change).add(key, &me);
                }
                Lease { address, mac }
            }));
        }
        if change.set.is_empty() {
            return Ok(leases);
        }
        match port.change_keys(&object, &change).await {
            Ok(()) => return Ok(leases),
            Err(ClusterError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failure::msg(Kind::Busy, format!("addresses of network {name} are taken by others all the time")))
}

/// What an owner has already.
fn owned(keys: &Keys, me: &str) -> Option<Lease> {
    let mine = || keys.iter().filter(|(_, owner)| *owner == me).map(|(key, _)| key);
    let mac = mine().find_map(|key| key.strip_prefix("mac/"))?.to_owned();
    mine().find_map(|key| key.parse().ok()).map(|address| Lease { address, mac })
}

fn pick(name: &str, network: &GuestNetwork, keys: &Keys, wish: Wish) -> Result<IpAddr, Failure> {
    let taken: BTreeSet<IpAddr> = keys.keys().filter_map(|k| k.parse().ok()).collect();
    match wish {
        Wish::Exactly(address) if !taken.contains(&address) => Ok(address),
        Wish::Exactly(address) => {
            let owner = keys.get(&address.to_string()).map_or("somebody", String::as_str);
            Err(Failure::failed(format!("address {address} of network {name} is taken by {owner}"))
                .hint("see who it is with `rackhand guest list`, or leave --address out"))
        }
        Wish::Auto => candidates(network).find(|a| !taken.contains(a)).ok_or_else(|| {
            Failure::failed(format!("network {name} has no free address left"))
                .hint("widen its `ranges` in the inventory, or delete guests")
        }),
    }
}

fn unused_mac(keys: &Keys, owner: Uuid, nic: usize) -> String {
    (0..).map(|salt| mac(owner, nic, salt)).find(|mac| !keys.contains_key(&format!("mac/{mac}"))).unwrap_or_default()
}

/// Gives back all addresses of a guest.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn give_back(port: &dyn ClusterPort, name: &str, owner: Uuid) -> Result<(), ClusterError> {
    let keys = port.keys(&object(name)).await?;
    let prefix = format!("{owner}/");
    let mine = keys.iter().filter(|(_, by)| by.starts_with(&prefix));
    let change = mine.fold(KeysChange::default(), |change, (key, by)| change.take(key, by));
    if change.remove.is_empty() {
        return Ok(());
    }
    match port.change_keys(&object(name), &change).await {
        // Somebody else gave them back meanwhile.
        Err(ClusterError::Conflict(_)) => Ok(()),
        other => other,
    }
}

/// Notes that an address answers although nobody of ours has it; the guest's own entry goes.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn mark_stranger(
    port: &dyn ClusterPort,
    name: &str,
    owner: Uuid,
    nic: usize,
    address: IpAddr,
    at: &str,
) -> Result<(), ClusterError> {
    let change = KeysChange::default().swap(address.to_string(), format!("{owner}/{nic}"), format!("{STRANGER} {at}"));
    port.change_keys(&object(name), &change).await
}

/// Forgets strangers, so that their addresses are probed anew when nothing else is free.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn forget_strangers(port: &dyn ClusterPort, name: &str) -> Result<usize, ClusterError> {
    let keys = port.keys(&object(name)).await?;
    let strangers = keys.iter().filter(|(_, by)| by.starts_with(STRANGER));
    let change = strangers.fold(KeysChange::default(), |change, (key, by)| change.take(key, by));
    if change.remove.is_empty() {
        return Ok(0);
    }
    port.change_keys(&object(name), &change).await.map(|()| change.remove.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::FakeCluster;
    use proptest::prelude::*;

    fn network() -> GuestNetwork {
        serde_json::from_value(serde_json::json!({
            "bridge": "br-lan", "cidr": "10.77.1.0/24", "gateway": "10.77.1.1", "ranges": ["10.77.1.1-10.77.1.5"],
        }))
        .unwrap()
    }

    async fn auto(port: &FakeCluster, n: u128) -> Result<Lease, Failure> {
        take(port, "lan", &network(), Uuid::from_u128(n), 0, Wish::Auto).await
    }

    #[tokio::test]
    async fn an_owner_keeps_what_it_has_and_the_gateway_is_nobodys() {
        let port = FakeCluster::new();
        let first = auto(&port, 1).await.unwrap();
        assert_eq!(first.address, IpAddr::from([10, 77, 1, 2]));
        assert_eq!(auto(&port, 1).await.unwrap(), first);
        assert_ne!(auto(&port, 2).await.unwrap().mac, first.mac);
    }

    #[tokio::test]
    async fn an_owner_that_insists_on_another_one_gets_that_in_place_of_what_it_has() {
        let port = FakeCluster::new();
        let first = auto(&port, 1).await.unwrap();
        let wanted = IpAddr::from([10, 77, 1, 9]);
        let next = take(&port, "lan", &network(), Uuid::from_u128(1), 0, Wish::Exactly(wanted)).await.unwrap();
        assert_eq!(next, Lease { address: wanted, mac: first.mac });
        assert_eq!(take(&port, "lan", &network(), Uuid::from_u128(1), 0, Wish::Exactly(wanted)).await.unwrap(), next);
        assert_eq!(auto(&port, 2).await.unwrap().address, first.address, "it was given back");
    }

    #[tokio::test]
    async fn a_full_range_and_a_taken_address_are_refused() {
        let port = FakeCluster::new();
        for n in 1..=4 {
            auto(&port, n).await.unwrap();
        }
        assert!(auto(&port, 5).await.unwrap_err().to_string().contains("no free address"));
        let wish = Wish::Exactly(IpAddr::from([10, 77, 1, 2]));
        let error = take(&port, "lan", &network(), Uuid::from_u128(9), 0, wish).await.unwrap_err();
        assert!(error.to_string().starts_with("address 10.77.1.2 of network lan is taken by"), "{error}");
        give_back(&port, "lan", Uuid::from_u128(1)).await.unwrap();
        take(&port, "lan", &network(), Uuid::from_u128(9), 0, wish).await.unwrap();
    }

    #[tokio::test]
    async fn a_strangers_address_is_passed_over_until_forgotten() {
        let port = FakeCluster::new();
        let owner = Uuid::from_u128(1);
        let lease = auto(&port, 1).await.unwrap();
        mark_stranger(&port, "lan", owner, 0, lease.address, "52:00:00:00:00:01").await.unwrap();
        give_back(&port, "lan", owner).await.unwrap();
        assert_ne!(auto(&port, 1).await.unwrap().address, lease.address);
        assert_eq!(forget_strangers(&port, "lan").await.unwrap(), 1);
        assert_eq!(auto(&port, 2).await.unwrap().address, lease.address);
    }

    #[tokio::test]
    async fn addresses_outside_are_a_usage_error() {
        let port = FakeCluster::new();
        for bad in [[10, 77, 1, 0], [10, 77, 1, 255], [10, 77, 1, 1], [10, 9, 9, 9]] {
            let wish = Wish::Exactly(IpAddr::from(bad));
            let error = take(&port, "lan", &network(), Uuid::nil(), 0, wish).await.unwrap_err();
            assert_eq!(error.kind, Kind::Usage, "{error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn no_two_guests_get_the_same(owners in prop::collection::btree_set(any::<u128>(), 1..5)) {
            let leases = tokio::runtime::Runtime::new().unwrap().block_on(async {
                let port = FakeCluster::new();
                futures::future::join_all(owners.iter().map(|n| auto(&port, *n))).await
            });
            let leases: Vec<Lease> = leases.into_iter().map(Result::unwrap).collect();
            let addresses: BTreeSet<IpAddr> = leases.iter().map(|l| l.address).collect();
            let macs: BTreeSet<&str> = leases.iter().map(|l| l.mac.as_str()).collect();
            prop_assert_eq!((addresses.len(), macs.len()), (owners.len(), owners.len()));
            for mac in macs {
                let first = u8::from_str_radix(&mac[..2], 16).unwrap();
                prop_assert_eq!(first & 3, 2, "locally administered unicast");
            }
        }
    }
}
