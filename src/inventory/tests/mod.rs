//! Tables of mistakes and the exact words for each; what is printed reads back; nothing panics.

mod form;
mod meaning;
mod mutations;
mod roundtrip;

use super::parse;

/// Three hosts in two racks, correct.
pub(super) const GOOD: &str = "\
cluster:
  name: rack
  fsid: 2f1e5c1a-55a8-4a4e-9d0b-6d2b8f1f0c11
networks:
  management: {cidr: 10.0.0.0/24}
  storage:
    cidr: 10.1.0.0/24
    mtu: 9000
  guests:
    lan:
      bridge: br-lan
      cidr: 10.0.0.0/24
      gateway: 10.0.0.1
      ranges: [10.0.0.100-10.0.0.199]
ceph:
  size: 3
  min_size: 2
  osd_memory: 2G
hosts:
  - name: h1
    address: 10.0.0.11
    storage_address: 10.1.0.11
    osds: [/dev/disk/by-id/wwn-0x1]
    bmc: {kind: redfish, address: 10.0.0.21, user: root, password: {env: BMC}}
  - name: h2
    address: 10.0.0.12
    storage_address: 10.1.0.12
    osds: [/dev/disk/by-id/wwn-0x2]
  - name: h3
    address: 10.0.0.13
    storage_address: 10.1.0.13
    roles: [mon, mgr, osd, guests]
    osds: [/dev/disk/by-id/wwn-0x3]
";

/// What is said about the good file after these replacements.
pub(super) fn said(replacements: &[(&str, &str)]) -> String {
    let mut text = GOOD.to_owned();
    for (from, to) in replacements {
        assert!(text.contains(from), "`{from}` is not in the file");
        text = text.replacen(from, to, 1);
    }
    match parse("f.yaml", &text) {
        Ok(_) => "nothing".to_owned(),
        Err(diagnostics) => diagnostics.to_string(),
    }
}

#[test]
fn the_good_file_is_good() {
    assert_eq!(said(&[]), "nothing");
    let inventory = parse("f.yaml", GOOD).unwrap();
    assert_eq!(inventory.hosts.len(), 3);
    assert_eq!(inventory.networks.storage.mtu, 9000);
}

#[test]
fn the_example_is_good() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("inventory.example.yaml");
    let inventory = super::load(&path).map_err(|f| f.to_string()).unwrap();
    assert_eq!(inventory.hosts.len(), 5);
    assert_eq!(inventory.reserve(&inventory.hosts[4]), super::Size::gib(48));
    let bmc = inventory.hosts[1].bmc.as_ref().unwrap();
    assert_eq!((bmc.address.to_string(), &*bmc.user), ("10.20.1.12".to_owned(), "rackhand"));
}

/// Every key that an inventory can have.
fn keys(schema: &serde_json::Value, found: &mut std::collections::BTreeSet<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        found.extend(properties.keys().cloned());
    }
    match schema {
        serde_json::Value::Object(map) => map.values().for_each(|v| keys(v, found)),
        serde_json::Value::Array(list) => list.iter().for_each(|v| keys(v, found)),
        _ => {}
    }
}

#[test]
fn the_example_and_the_manual_show_every_key() {
    let mut all = std::collections::BTreeSet::new();
    keys(&super::schema(), &mut all);
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
    let (example, manual) = (read("inventory.example.yaml"), read("docs/inventory.md"));
    let unshown = all.iter().filter(|key| *key != "inline" && !example.contains(&format!("{key}:")));
    assert_eq!(unshown.collect::<Vec<_>>(), Vec::<&String>::new());
    let written = |key: &str| {
        [format!("`{key}`"), format!("{{{key}: "), format!(" {key}: "), format!("### {key}")]
            .iter()
            .any(|w| manual.contains(w))
    };
    assert_eq!(all.iter().filter(|key| !written(key)).collect::<Vec<_>>(), Vec::<&String>::new());
}
