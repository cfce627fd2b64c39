//! Addresses of guests: a pool in the cluster, changed in one step, and hardware addresses that are unique in it.

use crate::cluster::{ClusterError, ClusterPort, Keys, KeysChange};
use crate::error::{Failure, Kind};
use crate::inventory::{GuestNetwork, Inventory, Taken};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use uuid::Uuid;

/// Tries when others take addresses at the same time; each lost race means that another run got one.
const TRIES: usize = 50;
/// Owner of an address that answered although the pool has no entry for it.
const CONFLICT: &str = "conflict";

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
                other.parse().map(Wish::Exactly).map_err(|_| format!("`{other}` is not an address; write one, or auto"))
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

/// The addresses that guests of a network can have: what the inventory says of them.
#[derive(Debug)]
pub struct Pool<'a> {
    name: &'a str,
    /// The network.
    pub network: &'a GuestNetwork,
    taken: Taken,
}

impl<'a> Pool<'a> {
    /// The pool of a network of the inventory.
    ///
    /// # Errors
    /// When there is no such network.
    pub fn of(inventory: &'a Inventory, name: &'a str) -> Result<Self, Failure> {
        let networks = &inventory.networks.guests;
        let network = networks.get(name).ok_or_else(|| {
            let has: Vec<&str> = networks.keys().map(String::as_str).collect();
            let hint = match has.as_slice() {
                [] => "describe it under networks.guests, and provision".to_owned(),
                has => format!("it has: {}", has.join(", ")),
            };
            Failure::usage(format!("the inventory has no guest network `{name}`")).hint(hint)
        })?;
        Ok(Pool { name, network, taken: Taken::of(inventory) })
    }

    /// Checks that the network can ever grant a wish.
    ///
    /// # Errors
    /// When the address is not one of the network's or is in use in the rack, or the network hands out none.
    pub fn check(&self, wish: Wish) -> Result<(), Failure> {
        let (name, cidr) = (self.name, self.network.cidr);
        match wish {
            Wish::Auto if self.network.ranges.is_empty() => {
                let text = format!("network {name} has no `ranges`: there is no address to hand out");
                Err(Failure::usage(text).hint(format!(
                    "write those of {cidr} that guests may get as networks.guests.{name}.ranges in the inventory, \
                     or pass --address"
                )))
            }
            Wish::Auto => Ok(()),
            Wish::Exactly(address) if !cidr.contains(&address) => {
                Err(Failure::usage(format!("address {address} is outside network {name} ({cidr})"))
                    .hint(format!("ask for one in {cidr}, or leave --address out")))
            }
            Wish::Exactly(address) => match self.taken.owner(&address) {
                Some(owner) => Err(Failure::usage(format!("address {address} of network {name} is taken by {owner}"))
                    .hint("ask for another one, or leave --address out")),
                None => Ok(()),
            },
        }
    }

    /// The addresses that can be handed out, in order.
    fn candidates(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let usable = |address: &IpAddr| self.network.cidr.contains(address) && self.taken.owner(address).is_none();
        self.network.ranges.iter().flat_map(|r| range(r.first, r.last)).filter(usable)
    }
}

fn range(first: IpAddr, last: IpAddr) -> Box<dyn Iterator<Item = IpAddr>> {
    match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) => Box::new(ipnet::Ipv4AddrRange::new(a, b).map(IpAddr::V4)),
        (IpAddr::V6(a), IpAddr::V6(b)) => Box::new(ipnet::Ipv6AddrRange::new(a, b).map(IpAddr::V6)),
        _ => Box::new(std::iter::empty()),
    }
}

/// Takes an address for a guest; an owner that has one already keeps it, unless another one is asked for.
///
/// # Errors
/// When the wanted one is taken, none is free, or the cluster cannot be asked.
pub async fn take(
    port: &dyn ClusterPort,
    pool: &Pool<'_>,
    owner: Uuid,
    nic: usize,
    wish: Wish,
) -> Result<Lease, Failure> {
    let mut leases = take_each(port, pool, &[owner], nic, wish).await?;
    leases.pop().unwrap_or_else(|| Err(Failure::failed("no address was asked for")))
}

/// Takes an address for each of these guests, all in one step; an owner that has one already keeps it.
///
/// # Errors
/// When the network cannot grant the wish, or the cluster cannot be asked.
pub async fn take_each(
    port: &dyn ClusterPort,
    pool: &Pool<'_>,
    owners: &[Uuid],
    nic: usize,
    wish: Wish,
) -> Result<Vec<Result<Lease, Failure>>, Failure> {
    pool.check(wish)?;
    if owners.is_empty() {
        return Ok(Vec::new());
    }
    let object = object(pool.name);
    for _ in 0..TRIES {
        let mut book = Book::new(pool, port.keys(&object).await?);
        let leases = owners.iter().map(|owner| book.lease(*owner, nic, wish)).collect();
        if book.change.set.is_empty() {
            return Ok(leases);
        }
        match port.change_keys(&object, &book.change).await {
            Ok(()) => return Ok(leases),
            Err(ClusterError::Conflict(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failure::msg(Kind::Busy, format!("addresses of network {} are taken by other runs again and again", pool.name)))
}

/// The addresses of a network as they were read, and what shall become of them.
struct Book<'a> {
    pool: &'a Pool<'a>,
    keys: Keys,
    taken: HashSet<IpAddr>,
    /// What each owner has.
    has: HashMap<String, (Option<IpAddr>, Option<String>)>,
    /// Goes on where the last owner's address was found: what was passed over is taken.
    free: Box<dyn Iterator<Item = IpAddr> + 'a>,
    change: KeysChange,
}

impl<'a> Book<'a> {
    fn new(pool: &'a Pool<'a>, keys: Keys) -> Self {
        let mut taken = HashSet::new();
        let mut has: HashMap<String, (Option<IpAddr>, Option<String>)> = HashMap::new();
        for (key, owner) in &keys {
            let of_owner = has.entry(owner.clone()).or_default();
            if let Some(mac) = key.strip_prefix("mac/") {
                of_owner.1.get_or_insert_with(|| mac.to_owned());
            } else if let Ok(address) = key.parse() {
                taken.insert(address);
                of_owner.0.get_or_insert(address);
            }
        }
        Book { pool, keys, taken, has, free: Box::new(pool.candidates()), change: KeysChange::default() }
    }

    /// What an owner has already, or is to have from now on.
    fn lease(&mut self, owner: Uuid, nic: usize, wish: Wish) -> Result<Lease, Failure> {
        let me = format!("{owner}/{nic}");
        let (had, mac) = self.has.get(&me).cloned().unwrap_or_default();
        let fits = |address: &IpAddr| wish == Wish::Auto || wish == Wish::Exactly(*address);
        let address = match had.filter(|address| fits(address) && self.pool.taken.owner(address).is_none()) {
            Some(address) => address,
            None => {
                let address = self.pick(wish)?;
                if let Some(had) = had {
                    // Taken by a killed run that was to have another one, or the rack's own since.
                    self.change = std::mem::take(&mut self.change).take(had.to_string(), &me);
                }
                self.add(address.to_string(), &me);
                address
            }
        };
        let mac = match mac {
            Some(mac) => mac,
            None => {
                let mac = unused_mac(&self.keys, owner, nic);
                self.add(format!("mac/{mac}"), &me);
                mac
            }
        };
        self.taken.insert(address);
        Ok(Lease { address, mac })
    }

    fn add(&mut self, key: String, me: &str) {
        self.keys.insert(key.clone(), me.to_owned());
        self.change = std::mem::take(&mut self.change).add(key, me);
    }

    fn pick(&mut self, wish: Wish) -> Result<IpAddr, Failure> {
        let name = self.pool.name;
        match wish {
            Wish::Exactly(address) if !self.taken.contains(&address) => Ok(address),
            Wish::Exactly(address) => {
                let owner = self.keys.get(&address.to_string()).map_or("another guest", String::as_str);
                Err(Failure::failed(format!("address {address} of network {name} is taken by {owner}"))
                    .hint("see who it is with `rackhand guest list`, or leave --address out"))
            }
            Wish::Auto => self.free.find(|address| !self.taken.contains(address)).ok_or_else(|| {
                Failure::failed(format!("network {name} has no free address left"))
                    .hint("widen its `ranges` in the inventory, or delete guests")
            }),
        }
    }
}

fn unused_mac(keys: &Keys, owner: Uuid, nic: usize) -> String {
    (0..).map(|salt| mac(owner, nic, salt)).find(|mac| !keys.contains_key(&format!("mac/{mac}"))).unwrap_or_default()
}

/// Takes away the entries that `doomed` names, however often others change the network's entries meanwhile; tells how
/// many there were.
async fn take_away(
    port: &dyn ClusterPort,
    name: &str,
    doomed: impl Fn(&str) -> bool + Send + Sync,
) -> Result<usize, ClusterError> {
    let object = object(name);
    for _ in 0..TRIES {
        let keys = port.keys(&object).await?;
        let entries = keys.iter().filter(|(_, by)| doomed(by));
        let change = entries.fold(KeysChange::default(), |change, (key, by)| change.take(key, by));
        if change.remove.is_empty() {
            return Ok(0);
        }
        match port.change_keys(&object, &change).await {
            Ok(()) => return Ok(change.remove.len()),
            // One of them was changed meanwhile; the others are still there.
            Err(ClusterError::Conflict(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Err(ClusterError::Busy(format!("addresses of network {name} are changed by other runs again and again")))
}

/// Gives back all addresses of a guest.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn give_back(port: &dyn ClusterPort, name: &str, owner: Uuid) -> Result<(), ClusterError> {
    let prefix = format!("{owner}/");
    take_away(port, name, move |by| by.starts_with(&prefix)).await.map(drop)
}

/// Notes that an address answers although none of the cluster's guests has it; the guest's own entry goes.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn mark_conflict(
    port: &dyn ClusterPort,
    name: &str,
    owner: Uuid,
    nic: usize,
    address: IpAddr,
    at: &str,
) -> Result<(), ClusterError> {
    let change = KeysChange::default().swap(address.to_string(), format!("{owner}/{nic}"), format!("{CONFLICT} {at}"));
    port.change_keys(&object(name), &change).await
}

/// Forgets address conflicts, so that their addresses are probed anew when nothing else is free.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn forget_conflicts(port: &dyn ClusterPort, name: &str) -> Result<usize, ClusterError> {
    take_away(port, name, |by| by.starts_with(CONFLICT)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::FakeCluster;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn inventory(ranges: &[&str]) -> Inventory {
        let mut inventory = crate::guest::domain::sample_inventory();
        let network = inventory.networks.guests.get_mut("lan").unwrap();
        network.ranges = ranges.iter().map(|r| r.parse().unwrap()).collect();
        inventory
    }

    fn small() -> Inventory {
        inventory(&["10.77.1.1-10.77.1.5"])
    }

    async fn take_at(port: &FakeCluster, n: u128, wish: Wish) -> Result<Lease, Failure> {
        take(port, &Pool::of(&small(), "lan").unwrap(), Uuid::from_u128(n), 0, wish).await
    }

    async fn auto(port: &FakeCluster, n: u128) -> Result<Lease, Failure> {
        take_at(port, n, Wish::Auto).await
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
        let next = take_at(&port, 1, Wish::Exactly(wanted)).await.unwrap();
        assert_eq!(next, Lease { address: wanted, mac: first.mac });
        assert_eq!(take_at(&port, 1, Wish::Exactly(wanted)).await.unwrap(), next);
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
        let error = take_at(&port, 9, wish).await.unwrap_err();
        assert!(error.to_string().starts_with("address 10.77.1.2 of network lan is taken by"), "{error}");
        give_back(&port, "lan", Uuid::from_u128(1)).await.unwrap();
        take_at(&port, 9, wish).await.unwrap();
    }

    #[tokio::test]
    async fn a_strangers_address_is_passed_over_until_forgotten() {
        let port = FakeCluster::new();
        let owner = Uuid::from_u128(1);
        let lease = auto(&port, 1).await.unwrap();
        mark_conflict(&port, "lan", owner, 0, lease.address, "52:00:00:00:00:01").await.unwrap();
        give_back(&port, "lan", owner).await.unwrap();
        assert_ne!(auto(&port, 1).await.unwrap().address, lease.address);
        assert_eq!(forget_conflicts(&port, "lan").await.unwrap(), 1);
        assert_eq!(auto(&port, 2).await.unwrap().address, lease.address);
    }

    #[tokio::test]
    async fn addresses_outside_are_a_usage_error() {
        let port = FakeCluster::new();
        for bad in [[10, 77, 1, 0], [10, 77, 1, 255], [10, 77, 1, 1], [10, 9, 9, 9]] {
            let wish = Wish::Exactly(IpAddr::from(bad));
            let error = take_at(&port, 0, wish).await.unwrap_err();
            assert_eq!(error.kind, Kind::Usage, "{error}");
        }
    }

    #[tokio::test]
    async fn an_address_of_the_rack_itself_is_not_given_even_when_it_is_asked_for() {
        let port = FakeCluster::new();
        let error = take_at(&port, 1, Wish::Exactly([10, 77, 1, 12].into())).await.unwrap_err();
        assert_eq!(error.to_string(), "address 10.77.1.12 of network lan is taken by host h2");
        assert_eq!(error.kind, Kind::Usage);
        let mut inventory = small();
        inventory.hosts[0].bmc = serde_json::from_value(serde_json::json!({
            "kind": "redfish", "address": "10.77.1.40", "user": "root", "password": {"env": "X"},
        }))
        .unwrap();
        let pool = Pool::of(&inventory, "lan").unwrap();
        let error = pool.check(Wish::Exactly([10, 77, 1, 40].into())).unwrap_err();
        assert_eq!(error.to_string(), "address 10.77.1.40 of network lan is taken by the BMC of host h1");
    }

    #[tokio::test]
    async fn a_network_without_ranges_hands_out_nothing() {
        for cidr in ["10.77.1.0/24", "fd00:77::/64"] {
            let mut inventory = inventory(&[]);
            inventory.networks.guests.get_mut("lan").unwrap().cidr = cidr.parse().unwrap();
            let pool = Pool::of(&inventory, "lan").unwrap();
            let error = take(&FakeCluster::new(), &pool, Uuid::nil(), 0, Wish::Auto).await.unwrap_err();
            assert_eq!(error.to_string(), "network lan has no `ranges`: there is no address to hand out");
            assert_eq!((error.kind, error.hints.len()), (Kind::Usage, 1));
        }
    }

    #[tokio::test]
    async fn what_a_killed_run_took_is_exchanged_when_a_host_has_it_now() {
        let port = FakeCluster::new();
        let first = auto(&port, 1).await.unwrap();
        let mut inventory = small();
        inventory.hosts[0].address = first.address;
        let pool = Pool::of(&inventory, "lan").unwrap();
        let next = take(&port, &pool, Uuid::from_u128(1), 0, Wish::Auto).await.unwrap();
        assert_ne!(next.address, first.address);
        assert_eq!(next.mac, first.mac);
        assert_eq!(port.keys(&object("lan")).await.unwrap().len(), 2, "nothing leaks");
    }

    #[tokio::test]
    async fn whatever_changes_meanwhile_all_of_a_guests_entries_are_given_back() {
        for seed in 0..64 {
            let port = FakeCluster::seeded(seed);
            let owner = Uuid::from_u128(1);
            let lease = auto(&port, 1).await.unwrap();
            // Its address goes to another machine between the look and the change: one entry of the two is another one's then.
            let (marked, given) = tokio::join!(
                mark_conflict(&port, "lan", owner, 0, lease.address, "52:00:00:00:00:01"),
                give_back(&port, "lan", owner)
            );
            given.unwrap();
            let left = port.keys(&object("lan")).await.unwrap();
            assert!(left.values().all(|by| !by.starts_with(&owner.to_string())), "seed {seed}: {left:?}");
            assert_eq!(left.len(), usize::from(marked.is_ok()), "seed {seed}: {left:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn never_an_address_of_the_rack(
            v6 in any::<bool>(),
            ranges in prop::collection::vec((0u8..60, 0u8..30), 0..4),
            hosts in prop::collection::vec(0u8..60, 3),
            others in prop::collection::vec(0u8..60, 4),
            wanted in prop::option::of(0u8..60),
            owners in 1u128..40,
        ) {
            let at = |n: u8| -> IpAddr { if v6 { format!("fd00:77::{n:x}").parse().unwrap() } else { [10, 77, 1, n].into() } };
            let mut inventory = inventory(&[]);
            let cidr = if v6 { "fd00:77::/64" } else { "10.77.1.0/26" }.parse().unwrap();
            inventory.networks.management.cidr = cidr;
            for (host, n) in inventory.hosts.iter_mut().zip(&hosts) {
                host.address = at(*n);
            }
            inventory.hosts[0].storage_address = at(others[0]);
            inventory.hosts[1].bmc = serde_json::from_value(serde_json::json!({
                "kind": "ipmi", "address": at(others[1]), "user": "root", "password": {"env": "X"},
            })).unwrap();
            let network = inventory.networks.guests.get_mut("lan").unwrap();
            (network.cidr, network.gateway, network.dns) = (cidr, Some(at(others[2])), vec![at(others[3])]);
            network.ranges = ranges.iter().map(|(first, more)| format!("{}-{}", at(*first), at(first + more)).parse().unwrap()).collect();
            let allowed: Vec<_> = network.ranges.clone();
            let pool = Pool::of(&inventory, "lan").unwrap();
            let wish = wanted.map_or(Wish::Auto, |n| Wish::Exactly(at(n)));
            let owners: Vec<Uuid> = (0..owners).map(Uuid::from_u128).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let taken = runtime.block_on(async { take_each(&FakeCluster::new(), &pool, &owners, 0, wish).await });
            let forbidden: BTreeSet<IpAddr> =
                hosts.iter().chain(&others).map(|n| at(*n)).chain([cidr.network()]).collect();
            let got: Vec<IpAddr> = taken.into_iter().flatten().flatten().map(|lease| lease.address).collect();
            prop_assert!(got.iter().all(|a| !forbidden.contains(a)), "{got:?} {forbidden:?}");
            prop_assert_eq!(got.iter().collect::<BTreeSet<_>>().len(), got.len());
            if wish == Wish::Auto {
                prop_assert!(got.iter().all(|a| allowed.iter().any(|r| r.contains(a))));
            }
        }

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
