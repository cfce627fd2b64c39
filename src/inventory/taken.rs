//! Addresses that the rack itself uses: no guest may have one of them.

use super::view::View;
use super::{AddressRange, Inventory};
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// Who uses an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// A host, on the management or the storage network.
    Host(String),
    /// The BMC of a host.
    Bmc(String),
    /// The gateway of a guest network.
    Gateway,
    /// A name server of a guest network.
    NameServer,
    /// Backup storage.
    Backup(String),
    /// Nothing in particular: it is a network's own or broadcast address.
    Edge(IpNet),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Host(name) => write!(f, "host {name}"),
            Owner::Bmc(name) => write!(f, "the BMC of host {name}"),
            Owner::Gateway => f.write_str("the gateway"),
            Owner::NameServer => f.write_str("a name server"),
            Owner::Backup(name) => write!(f, "backup storage {name}"),
            Owner::Edge(net) => write!(f, "the network's own or broadcast address of {net}"),
        }
    }
}

/// The addresses that are in use, and by what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken(BTreeMap<IpAddr, Owner>);

impl Taken {
    /// The addresses of a checked inventory.
    pub fn of(inventory: &Inventory) -> Self {
        let mut taken = Taken::default();
        for host in &inventory.hosts {
            taken.add(host.address, Owner::Host(host.name.clone()));
            taken.add(host.storage_address, Owner::Host(host.name.clone()));
            if let Some(bmc) = &host.bmc {
                taken.add(bmc.address, Owner::Bmc(host.name.clone()));
            }
        }
        for network in inventory.networks.guests.values() {
            network.gateway.iter().for_each(|address| taken.add(*address, Owner::Gateway));
            network.dns.iter().for_each(|address| taken.add(*address, Owner::NameServer));
        }
        for (name, backup) in &inventory.backup.storage {
            backup.address.iter().for_each(|address| taken.add(*address, Owner::Backup(name.clone())));
        }
        let guests = inventory.networks.guests.values().map(|n| n.cidr);
        let cidrs = [inventory.networks.management.cidr, inventory.networks.storage.cidr].into_iter().chain(guests);
        cidrs.for_each(|cidr| taken.add_edges(cidr));
        taken
    }

    /// The addresses of a file that is still being checked.
    pub(super) fn of_view(view: &View) -> Self {
        let mut taken = Taken::default();
        for host in &view.hosts {
            let name = host.name.as_ref().map_or_else(|| host.label.clone(), |name| name.value.clone());
            for address in host.address.iter().chain(&host.storage_address) {
                taken.add(address.value, Owner::Host(name.clone()));
            }
            if let Some(bmc) = &host.bmc {
                taken.add(bmc.address.value, Owner::Bmc(name.clone()));
            }
        }
        for network in &view.guest_networks {
            network.gateway.iter().for_each(|address| taken.add(address.value, Owner::Gateway));
            network.dns.iter().for_each(|address| taken.add(address.value, Owner::NameServer));
        }
        for backup in &view.backups {
            backup.address.iter().for_each(|a| taken.add(a.value, Owner::Backup(backup.name.value.clone())));
        }
        let guests = view.guest_networks.iter().filter_map(|n| n.cidr.as_ref());
        let cidrs = view.management.cidr.iter().chain(&view.storage.cidr).chain(guests);
        cidrs.for_each(|cidr| taken.add_edges(cidr.value));
        taken
    }

    /// The first who has an address stays its owner.
    fn add(&mut self, address: IpAddr, owner: Owner) {
        self.0.entry(address).or_insert(owner);
    }

    fn add_edges(&mut self, net: IpNet) {
        for edge in [net.network(), net.broadcast()].into_iter().filter(|address| is_edge(&net, *address)) {
            self.add(edge, Owner::Edge(net));
        }
    }

    /// Who has an address, if it is in use.
    pub fn owner(&self, address: &IpAddr) -> Option<&Owner> {
        self.0.get(address)
    }

    /// The addresses of a range that are in use.
    pub fn within<'a>(&'a self, range: &'a AddressRange) -> impl Iterator<Item = (&'a IpAddr, &'a Owner)> {
        self.0.iter().filter(|(address, _)| range.contains(address))
    }
}

/// Whether an address stands for the network or for all of its members.
pub fn is_edge(net: &IpNet, address: IpAddr) -> bool {
    let wide = net.max_prefix_len() - net.prefix_len() >= 2;
    wide && (address == net.network() || (net.network().is_ipv4() && address == net.broadcast()))
}

#[cfg(test)]
mod tests {
    use super::super::{diagnostic, parse, spanned_yaml};
    use super::*;

    const EXAMPLE: &str = include_str!("../../inventory.example.yaml");

    #[test]
    fn the_file_and_the_inventory_made_of_it_have_the_same_addresses() {
        let mut none: Vec<diagnostic::Diagnostic> = Vec::new();
        let view = View::new(&spanned_yaml::parse(EXAMPLE, &mut none).unwrap());
        let taken = Taken::of_view(&view);
        assert_eq!(taken, Taken::of(&parse("example", EXAMPLE).unwrap()));
        assert!(taken.0.len() > 10, "{taken:?}");
        let kinds = |want: fn(&Owner) -> bool| taken.0.values().any(want);
        assert!(kinds(|o| matches!(o, Owner::Host(_))) && kinds(|o| matches!(o, Owner::Bmc(_))));
        assert!(kinds(|o| matches!(o, Owner::Gateway)) && kinds(|o| matches!(o, Owner::Edge(_))));
    }
}
