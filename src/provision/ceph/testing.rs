//! An inventory and facts for the tests of the plans: one host built, two bare, and a recorded cluster.

use super::cluster::ClusterFacts;
use super::cluster::Silence;
use super::facts::{DiskFacts, Facts, HostFacts, parse};
use crate::inventory::Inventory;

const INVENTORY: &str = "
cluster: { name: test, fsid: 5a2f6f7e-2c1b-4f5e-9c39-0d4f0a3c7b11 }
networks:
  management: { cidr: 10.87.0.0/24 }
  storage: { cidr: 10.88.0.0/24 }
hosts:
  - { name: c1, address: 10.87.0.11, storage_address: 10.88.0.11, osds: [/dev/disk/by-id/lab-c1-disk0] }
  - { name: c2, address: 10.87.0.12, storage_address: 10.88.0.12, osds: [/dev/disk/by-id/lab-c2-disk0] }
  - { name: c3, address: 10.87.0.13, storage_address: 10.88.0.13, osds: [/dev/disk/by-id/lab-c3-disk0] }
";

pub(super) fn inventory() -> Inventory {
    serde_saphyr::from_str(INVENTORY).unwrap()
}

pub(super) fn bare(name: &str) -> HostFacts {
    let disk = DiskFacts {
        path: format!("/dev/disk/by-id/lab-{name}-disk0"),
        real: format!("/dev/sda-{name}"),
        size: 12 << 30,
        clean: true,
        ..DiskFacts::default()
    };
    HostFacts { hostname: name.to_owned(), disks: vec![disk], ..HostFacts::default() }
}

pub(super) fn facts() -> Facts {
    let mut facts = Facts {
        cluster: Some(ClusterFacts::recorded(include_str!("testdata/cluster.json"))),
        silence: Silence::default(),
        ..Facts::default()
    };
    facts.hosts.insert("c1".to_owned(), parse(include_str!("testdata/host.txt")));
    facts.hosts.insert("c2".to_owned(), bare("c2"));
    facts.hosts.insert("c3".to_owned(), bare("c3"));
    facts
}
