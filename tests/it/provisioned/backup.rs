//! A guest is backed up, lost, and brought back with exactly the bytes of its point.

use crate::rack::Rack;
use serde_json::Value;
use std::path::Path;

/// The rack with a repository of its own in a directory of this machine.
fn with_repository(directory: &Path) -> Rack {
    let rack = Rack::provisioned();
    let text = std::fs::read_to_string(&rack.inventory).unwrap();
    let section = format!("backup:\n  storage:\n    vault:\n      path: {}\n", directory.join("vault").display());
    // Beside the rack's own, whose relative paths it shares.
    let inventory = format!("{}.backup-test.yaml", rack.inventory);
    std::fs::write(&inventory, text + &section).unwrap();
    Rack { inventory, ..rack }
}

/// SHA-256 of a disk image, or of a snapshot of it.
fn hash(rack: &Rack, image: &str) -> String {
    rack.ssh("h1", &format!("rbd export --no-progress {image} - | sha256sum"))
}

fn snapshots(rack: &Rack, image: &str) -> Vec<String> {
    let list: Value = serde_json::from_str(&rack.ssh("h1", &format!("rbd snap ls --format json {image}"))).unwrap();
    list.as_array().unwrap().iter().map(|snapshot| snapshot["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_guest_comes_back_with_the_bytes_of_its_point() {
    let directory = tempfile::tempdir().unwrap();
    let rack = with_repository(directory.path());
    let guest = rack.tiny_guest("saved", &[]);
    guest.counts();
    rack.exits(5, &["backup", "run", "saved"]);
    rack.ok(&["backup", "init"]);
    rack.exits(4, &["backup", "verify"]);
    let first = rack.json(&["backup", "run", "saved"]);
    assert_eq!(first["guests"][0]["point"]["kind"], "full", "{first}");
    guest.counts();
    let second = rack.json(&["backup", "run", "saved"]);
    let point = &second["guests"][0]["point"];
    assert_eq!((&point["kind"], &point["parent"]), (&"incremental".into(), &first["guests"][0]["point"]["point"]));
    rack.ok(&["backup", "check", "--max-age", "1h"]);
    rack.ok(&["backup", "verify", "--all"]);
    let (disk, point) = (rack.disk("saved"), point["point"].as_str().unwrap());
    let base = format!("rackhand-backup.vault.{point}");
    assert_eq!(snapshots(&rack, &disk), [base.as_str()], "one base is left");
    let saved = hash(&rack, &format!("{disk}@{base}"));
    rack.ok(&["backup", "restore", "saved", "--as", "saved-copy"]);
    assert_eq!(hash(&rack, &rack.disk("saved-copy")), saved);
    assert_eq!(snapshots(&rack, &rack.disk("saved-copy")), Vec::<String>::new());
    rack.ok(&["guest", "delete", "saved-copy", "--yes"]);
    // Lost, and back under its own name; what it wrote goes on where the point has it.
    let (_, counter) = guest.counts();
    rack.exits(5, &["backup", "restore", "saved"]);
    rack.ok(&["guest", "delete", "saved", "--yes"]);
    rack.ok(&["backup", "restore", "saved"]);
    assert_eq!(hash(&rack, &rack.disk("saved")), saved);
    rack.ok(&["guest", "start", "saved"]);
    let (_, again) = guest.counts();
    assert!(counter > 0 && again > 0);
    assert!(!guest.stopped_history().is_empty());
}
