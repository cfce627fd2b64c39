//! Inventories with random mistakes in them.

use crate::fuzz::{Fuzzer, kind_of};
use crate::inventory::parse;

#[test]
fn fuzz_inventories() {
    let small = "cluster: {name: r, fsid: 96f6d643-da93-4f34-83ea-d8d4895a3d63}\nnetworks:\n  management: {cidr: 10.0.0.0/24}\n  \
                 storage: {cidr: 10.1.0.0/24, speed: 10G}\n  guests:\n    lan: {bridge: br0, cidr: 10.2.0.0/24, ranges: [10.2.0.9-10.2.0.99]}\n\
                 hosts:\n  - {name: h1, address: 10.0.0.1, storage_address: 10.1.0.1, osds: [/dev/sdb]}\n";
    let corpus = [include_str!("../../../inventory.example.yaml"), small, "a: &a [*a]\n", "? {a: b}\n: |2-\n  x\n"];
    Fuzzer::run(&corpus, |input| {
        let text = String::from_utf8_lossy(input);
        match parse("f.yaml", &text) {
            Ok(inventory) => format!("good, {} hosts", inventory.hosts.len()),
            Err(mistakes) => {
                let told = mistakes.to_string();
                assert!(told.starts_with("f.yaml has "), "{told}");
                assert!(!told.contains(['\u{1b}', '\u{7}', '\0']), "it controls the terminal: {told:?}");
                assert_eq!(told, parse("f.yaml", &text).unwrap_err().to_string(), "it is the same each time");
                kind_of(&told)
            }
        }
    });
}
