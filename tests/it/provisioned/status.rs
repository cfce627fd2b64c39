//! `status` and `doctor` on a provisioned rack.

use crate::rack::Rack;
use crate::terminal::eventually;
use std::time::Duration;

#[test]
fn status_shows_hosts_guests_and_ceph() {
    let rack = Rack::provisioned();
    let guest = rack.tiny_guest("status-1", &[]);
    guest.answers();
    let status = rack.json(&["status"]);
    assert_eq!(status["schema"], "rackhand.status/1");
    assert_eq!(status["ceph"]["health"], "HEALTH_OK");
    let hosts = status["hosts"].as_array().unwrap();
    assert_eq!(hosts.len(), 3);
    for host in hosts {
        assert_eq!(host["reachable"], true, "{host}");
        assert_eq!(host["mon"], "in quorum", "{host}");
        assert_eq!(host["osds_up"], 1, "{host}");
    }
    let shown = status["guests"].as_array().unwrap().iter().find(|g| g["name"] == "status-1").unwrap();
    assert_eq!(shown["state"], "running");
    assert_eq!(shown["host"], guest.host());
    assert_eq!(shown["protection"], "protected");
    let table = String::from_utf8(rack.ok(&["status"]).stdout).unwrap();
    assert!(table.contains("status-1") && table.contains("HEALTH_OK"), "{table}");
}

#[test]
fn a_host_without_power_is_shown_as_such() {
    let rack = Rack::provisioned();
    rack.lab(&["power", "off", "h3"]);
    let status = rack.json(&["status"]);
    let host = status["hosts"].as_array().unwrap().iter().find(|h| h["name"] == "h3").unwrap().clone();
    assert_eq!((&host["reachable"], &host["power"]), (&false.into(), &"off".into()), "its BMC says so: {host}");
    assert!(host["error"].as_str().unwrap().contains("h3"), "{host}");
    rack.exits(4, &["doctor"]);
    rack.lab(&["power", "on", "h3"]);
    eventually("HEALTH_OK with all hosts", Duration::from_secs(120), || {
        let status = rack.json(&["status"]);
        let all = status["hosts"].as_array().unwrap().iter().all(|h| h["reachable"] == true && h["osds_up"] == 1);
        (all && status["ceph"]["health"] == "HEALTH_OK").then_some(())
    });
}

#[test]
fn an_inventory_of_another_cluster_is_refused() {
    let rack = Rack::provisioned();
    let own = std::fs::read_to_string(&rack.inventory).unwrap();
    let fsid = rack.json(&["inventory", "show"])["cluster"]["fsid"].as_str().unwrap().to_owned();
    let other = std::path::Path::new(&rack.inventory).with_file_name("other.yaml");
    std::fs::write(&other, own.replace(&fsid, "11111111-2222-4333-8444-555555555555")).unwrap();
    let said = rack.exits(5, &["guest", "list", "-i", other.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&said.stderr).contains(&format!("belongs to the Ceph cluster {fsid}")));
    let status = rack.json(&["status", "-i", other.to_str().unwrap()]);
    assert!(status["ceph"].is_null() && status["guests"].as_array().unwrap().is_empty(), "{status}");
    std::fs::remove_file(other).unwrap();
}
