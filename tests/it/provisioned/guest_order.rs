//! What can be ordered with a guest, and strangers on its network, on a real rack.

use crate::rack::Rack;
use crate::run::stderr;
use std::process::Command;

/// Whether a guest's seed says this.
fn seed_says(rack: &Rack, name: &str, text: &str) -> bool {
    let uuid = rack.guest(name)["uuid"].as_str().unwrap().to_owned();
    let host = rack.hosts().remove(0);
    let count = format!("rbd export --no-progress guests/vm.{uuid}.seed - | grep -a -c '{text}' || true");
    rack.ssh(&host, &count).trim() != "0"
}

#[test]
fn what_is_ordered_is_what_is_shown_and_what_the_guest_is_told() {
    let rack = Rack::provisioned();
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let key = file("id.pub", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKeyOfATest somebody@somewhere\n");
    let data = file("data.yaml", "#cloud-config\nruncmd: [echo, told-by-user-data]\n");
    let host = rack.hosts().remove(1);
    // Left by a run that was killed.
    rack.run(&["guest", "protect", "off", "ordered"]);
    let options = ["--tag", "stage=test", "--tag", "tier=web", "--host", &host, "--priority", "7", "--protected"];
    let ordered = rack.tiny_guest("ordered", &[options.as_slice(), &["--user-data", &data, "--no-start"]].concat());
    let keyed = rack.tiny_guest("keyed", &["--ssh-key", &key, "--no-start"]);
    // The contract of `guest show -o json`.
    let seen = rack.guest("ordered");
    assert_eq!(
        (&seen["schema"], &seen["name"], &seen["state"]),
        (&"rackhand.guest/1".into(), &"ordered".into(), &"stopped".into())
    );
    assert!(seen["host"].is_null(), "{seen}");
    assert!(uuid::Uuid::parse_str(seen["uuid"].as_str().unwrap()).is_ok());
    assert!(seen["addresses"][0].as_str().unwrap().parse::<std::net::IpAddr>().is_ok());
    assert!(seen["disks"][0]["image"].as_str().unwrap().contains(seen["uuid"].as_str().unwrap()));
    assert_eq!((&seen["tags"]["stage"], &seen["tags"]["tier"]), (&"test".into(), &"web".into()));
    assert_eq!(
        (&seen["priority"], &seen["pinned"], &seen["protected"]),
        (&7.into(), &host.as_str().into(), &true.into())
    );
    // Found by its id, its tags, a glob; and by those alone.
    assert_eq!(rack.guest(seen["uuid"].as_str().unwrap()), seen);
    let names = |args: &[&str]| {
        let list = rack.json(&[&["guest", "list"], args].concat());
        let names = list["guests"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap().to_owned());
        names.collect::<Vec<String>>()
    };
    assert_eq!(names(&["--tag", "tier=web"]), ["ordered"]);
    assert_eq!(names(&["*ed"]), ["keyed", "ordered"]);
    // What the guests are told.
    assert!(seed_says(&rack, "ordered", "told-by-user-data"));
    assert!(seed_says(&rack, "keyed", "AAAAC3NzaC1lZDI1NTE5AAAAIKeyOfATest"));
    // Bound to its host, wherever it is asked to.
    let other = rack.hosts().remove(0);
    let text = stderr(&rack.exits(5, &["guest", "delete", "ordered", "--yes"]));
    assert!(text.contains("it is protected"), "{text}");
    rack.ok(&["guest", "start", "ordered"]);
    assert_eq!(ordered.host(), host);
    assert_eq!(names(&["--host", &host, "--tag", "tier"]), ["ordered"]);
    assert!(names(&["--host", &other, "--tag", "tier"]).is_empty());
    rack.ok(&["guest", "protect", "off", "ordered"]);
    drop((ordered, keyed));
}

#[test]
fn what_cannot_be_ordered_is_a_usage_error_and_makes_nothing() {
    let rack = Rack::provisioned();
    rack.tiny();
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("id");
    std::fs::write(&secret, "-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();
    let base = ["guest", "create", "wrong", "--image", "tiny", "--network", "lan"];
    for (args, says) in [
        (vec!["--ssh-key", secret.to_str().unwrap()], "is a private key"),
        (vec!["--tag", "novalue"], "KEY=VALUE"),
        (vec!["--host", "h99"], "no host `h99`"),
        (vec!["--address", "192.0.2.1"], "is outside network lan"),
        (vec!["--user-data", "/nonexistent"], "/nonexistent"),
        (vec!["--disk", "1M"], "smaller than image tiny"),
    ] {
        let text = stderr(&rack.exits(2, &[base.as_slice(), &args].concat()));
        assert!(text.contains(says), "{args:?}: {text}");
    }
    rack.exits(2, &["guest", "show", "wrong"]);
    // Not even its name is taken.
    let list = stderr(&rack.ok(&["guest", "list"]));
    assert!(!list.contains("wrong"), "{list}");
    assert!(!rack.json(&["network", "pool", "lan"]).to_string().contains("wrong"));
}

/// Somebody on the guests' network who is no guest: a network namespace of this machine.
struct Stranger(String);

impl Stranger {
    fn at(rack: &Rack, address: &str) -> Stranger {
        // An interface's name has 15 bytes at most.
        let name = format!("who{}", std::process::id());
        let stranger = Stranger(name.clone());
        for line in [
            format!("netns add {name}"),
            format!("link add {name}v type veth peer name nic netns {name}"),
            format!("link set {name}v master {} up", rack.bridge()),
            format!("-n {name} address add {address}/24 dev nic"),
            format!("-n {name} link set nic up"),
        ] {
            let status = Command::new("ip").args(line.split(' ')).status().unwrap();
            assert!(status.success(), "ip {line}");
        }
        stranger
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

#[test]
fn a_strangers_address_is_passed_over_remembered_and_forgotten_on_request() {
    let rack = Rack::provisioned();
    rack.tiny();
    // The address the next guest would get.
    let first = rack.tiny_guest("first", &["--no-start"]);
    let address = first.address.clone();
    drop(first);
    let stranger = Stranger::at(&rack, &address);
    let guest = rack.tiny_guest("second", &["--no-start"]);
    assert_ne!(guest.address, address);
    assert!(seed_says(&rack, "second", &guest.address) && !seed_says(&rack, "second", &format!("{address}/")));
    let pool = rack.json(&["network", "pool", "lan"]).to_string();
    assert!(pool.contains("conflict"), "{pool}");
    // Asked for by name, it fails the guest.
    let text = stderr(&rack.exits(
        1,
        &[
            "guest",
            "create",
            "third",
            "--image",
            "tiny",
            "--memory",
            "128M",
            "--cpus",
            "1",
            "--disk",
            "1G",
            "--network",
            "lan",
            "--address",
            &address,
        ],
    ));
    assert!(text.contains(&format!("address {address} of network lan is taken by")), "{text}");
    drop((guest, stranger));
    rack.ok(&["network", "pool", "lan", "--forget-conflicts"]);
    assert_eq!(rack.tiny_guest("second", &["--no-start"]).address, address);
}
