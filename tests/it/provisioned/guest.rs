//! Guests on a real rack: made, found, stopped, refused; never twice.

use crate::rack::Rack;
use crate::run::stderr;
use crate::terminal::eventually;
use std::process::Stdio;
use std::time::{Duration, Instant};

const CREATE: [&str; 8] = ["--image", "tiny", "--memory", "128M", "--cpus", "1", "--disk", "1G"];

fn create<'a>(name: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [["guest", "create", name, "--network", "lan"].as_slice(), &CREATE, more].concat()
}

/// Hosts on which libvirt has a domain of this name.
#[test]
fn a_guest_lives_and_leaves_nothing() {
    let rack = Rack::provisioned();
    let guest = rack.tiny_guest("life", &["--tag", "stage=test"]);
    let (boot, _) = eventually("life answers", Duration::from_secs(120), || guest.answer());
    let seen = rack.guest("life");
    assert_eq!(seen["schema"], "rackhand.guest/1");
    assert_eq!((&seen["name"], &seen["state"]), (&"life".into(), &"running".into()));
    assert_eq!(rack.places("life"), [seen["host"].as_str().unwrap()]);
    let disk = seen["disks"][0]["image"].as_str().unwrap().to_owned();
    // Its name is taken, its template in use.
    assert!(stderr(&rack.exits(1, &create("life", &[]))).contains("guest life exists already"));
    assert!(stderr(&rack.exits(5, &["image", "remove", "tiny", "--yes"])).contains(&disk));
    // Down by its power button, up again as another boot with the same address.
    rack.ok(&["guest", "stop", "life"]);
    assert!(rack.places("life").is_empty());
    assert_eq!(rack.guest("life")["state"], "stopped");
    let told = rack.json(&["guest", "start", "life"]);
    assert_eq!(
        (&told["schema"], &told["guests"][0]["outcome"]),
        (&"rackhand.guest-outcomes/1".into(), &"started".into())
    );
    let (again, _) = eventually("life answers again", Duration::from_secs(120), || guest.answer());
    assert_ne!(boot, again);
    // Protected, then gone with its disks.
    rack.ok(&["guest", "protect", "on", "life"]);
    assert!(stderr(&rack.exits(5, &["guest", "delete", "life", "--yes"])).contains("protected"));
    rack.ok(&["guest", "protect", "off", "life"]);
    rack.exits(5, &["guest", "delete", "life"]);
    rack.ok(&["guest", "delete", "--tag", "stage=test", "--yes"]);
    assert!(rack.places("life").is_empty());
    let host = &rack.hosts()[0];
    assert!(!rack.ssh(host, "rbd ls guests").contains(&disk));
    rack.exits(2, &["guest", "show", "life"]);
    // It is gone already.
    std::mem::forget(guest);
}

#[test]
fn two_starts_at_once_are_one_guest() {
    let rack = Rack::provisioned();
    let _guest = rack.tiny_guest("twice", &["--no-start"]);
    let hosts = rack.hosts();
    let start = |host: &str| {
        let mut command = rack.command(&["guest", "start", "twice", "--host", host]);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let (a, b) = (start(&hosts[0]), start(&hosts[1]));
    let (a, b) = (a.wait_with_output().unwrap(), b.wait_with_output().unwrap());
    assert!(a.status.success() || b.status.success(), "{}\n{}", stderr(&a), stderr(&b));
    assert_eq!(rack.places("twice").len(), 1);
    let processes =
        |host: &String| rack.ssh(host, "pgrep -c -f '[g]uest=twice,' || true").trim().parse::<u32>().unwrap();
    assert_eq!(hosts.iter().map(processes).sum::<u32>(), 1);
}

#[test]
fn a_killed_create_is_finished_by_the_next() {
    let rack = Rack::provisioned();
    rack.tiny();
    rack.run(&["guest", "delete", "killed-*", "--yes"]);
    for delay in [600, 1200, 1800] {
        let mut child = rack
            .command(&create("killed", &["--count", "2"]))
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        child.kill().unwrap();
        child.wait().unwrap();
        // All done before the kill is the one case in which nothing is left to do.
        let output = rack.run(&create("killed", &["--count", "2"]));
        assert!(output.status.success() || stderr(&output).contains("already"), "{}", stderr(&output));
        // One whose request was under way when its run was killed is libvirt's to finish; all others run by now.
        for name in ["killed-1", "killed-2"] {
            eventually("the guest to run", Duration::from_secs(20), || {
                (rack.guest(name)["state"] == "running").then_some(())
            });
            assert_eq!(rack.places(name).len(), 1);
        }
        rack.ok(&["guest", "delete", "killed-*", "--yes"]);
    }
    let host = &rack.hosts()[0];
    let left = rack.ssh(host, "rbd ls guests; rados -p .rackhand ls");
    assert!(
        !left.lines().any(|l| l.starts_with("vm.") || l.starts_with("guest.") || l.starts_with("claim.")),
        "{left}"
    );
}

#[test]
fn an_interrupted_create_finishes_what_it_began() {
    let rack = Rack::provisioned();
    rack.tiny();
    rack.run(&["guest", "delete", "cut-*", "--yes"]);
    for delay in [400, 800, 1300] {
        let mut command = rack.command(&create("cut", &["--count", "2"]));
        let child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        let interrupt = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
        let output = child.wait_with_output().unwrap();
        assert!(interrupt.is_ok() && matches!(output.status.code(), Some(0 | 130)), "{}", stderr(&output));
        let list = rack.json(&["guest", "list"]);
        let ours =
            list["guests"].as_array().unwrap().iter().filter(|g| g["name"].as_str().unwrap().starts_with("cut-"));
        let states: Vec<&str> = ours.map(|guest| guest["state"].as_str().unwrap()).collect();
        assert!(states.iter().all(|state| ["running", "stopped"].contains(state)), "{delay} ms: {states:?}");
        // The same command does the rest, guests that were made and not started included.
        let output = rack.run(&create("cut", &["--count", "2"]));
        assert!(output.status.success() || stderr(&output).contains("already"), "{}", stderr(&output));
        for name in ["cut-1", "cut-2"] {
            assert_eq!(rack.guest(name)["state"], "running", "{delay} ms");
            assert_eq!(rack.places(name).len(), 1);
        }
        rack.ok(&["guest", "delete", "cut-*", "--yes"]);
    }
}

#[test]
fn what_cannot_be_made_is_refused_and_says_why() {
    let rack = Rack::provisioned();
    rack.tiny();
    let text = stderr(&rack.exits(1, &["guest", "create", "big", "--image", "tiny", "--memory", "4000G"]));
    for host in rack.hosts() {
        assert!(text.contains(&format!("{host}: ")), "{text}");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(stderr(&rack.exits(2, &["image", "import", "bad", file.path().to_str().unwrap()])).contains("it is empty"));
    std::fs::write(file.path(), "<!DOCTYPE html><title>404</title>").unwrap();
    assert!(stderr(&rack.exits(2, &["image", "import", "bad", file.path().to_str().unwrap()])).contains("web page"));
    assert!(!rack.json(&["image", "list"]).to_string().contains("\"bad\""));
    // A host in maintenance takes no guest.
    let host = rack.hosts().remove(0);
    rack.ok(&["host", "maintenance", &host, "on", "--why", "test"]);
    let refused = rack.run(&create("nowhere", &["--host", &host]));
    rack.ok(&["host", "maintenance", &host, "off"]);
    assert!(stderr(&refused).contains("in maintenance: test"), "{}", stderr(&refused));
    // A stranger on the network keeps its address.
    let address = rack.free_address();
    rack.ssh(&host, &format!("ip address add {address}/32 dev br-lan"));
    let other = rack.hosts().remove(1);
    let taken = rack.run(&create("stranger", &["--address", &address, "--host", &other]));
    rack.ssh(&host, &format!("ip address del {address}/32 dev br-lan"));
    assert_eq!(taken.status.code(), Some(1));
    assert!(stderr(&taken).contains("taken by a machine"), "{}", stderr(&taken));
    rack.exits(2, &["guest", "show", "stranger"]);
}

#[test]
fn without_quorum_every_command_says_so_in_time() {
    let rack = Rack::provisioned();
    let hosts = rack.hosts();
    for host in &hosts[1..] {
        rack.ssh(host, "systemctl stop ceph-mon.target");
    }
    // The monitor that is left takes a lease's time to notice.
    let mut slowest = Duration::ZERO;
    let output = eventually("no quorum", Duration::from_secs(60), || {
        let began = Instant::now();
        let output = rack.run(&["guest", "list"]);
        slowest = slowest.max(began.elapsed());
        (!output.status.success()).then_some(output)
    });
    let image = rack.ok(&["lab", "image", "build", "tiny"]).stdout;
    let image = String::from_utf8_lossy(&image).trim().to_owned();
    let create = create("nobody", &[]);
    let commands: [&[&str]; 12] = [
        &["guest", "show", "nobody"],
        &create,
        &["guest", "start", "nobody"],
        &["guest", "stop", "nobody"],
        &["guest", "delete", "nobody", "--yes"],
        &["image", "list"],
        &["image", "import", "nothing", &image],
        &["network", "pool", "lan"],
        &["migrate", "nobody", "--yes"],
        &["evacuate", &hosts[1], "--yes"],
        &["return", &hosts[1], "--yes"],
        &["host", "maintenance", &hosts[1], "on"],
    ];
    // At once: each waits for the monitors, not for this machine.
    let outcomes = std::thread::scope(|scope| {
        let one = |args: &&[&str]| {
            let began = Instant::now();
            (rack.run(args), began.elapsed())
        };
        let running = commands.each_ref().map(|args| scope.spawn(move || one(args)));
        running.map(|command| command.join().unwrap())
    });
    for host in &hosts[1..] {
        rack.ssh(host, "systemctl reset-failed; systemctl start ceph-mon.target");
    }
    let all = commands.iter().zip(&outcomes).map(|(args, (output, took))| (*args, output, *took));
    for (args, output, took) in all.chain([(["guest", "list"].as_slice(), &output, slowest)]) {
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", stderr(output));
        assert!(stderr(output).contains("Ceph has no quorum"), "{args:?}: {}", stderr(output));
        assert!(took < Duration::from_secs(30), "{args:?}: {took:?}");
    }
    eventually("quorum again", Duration::from_secs(60), || rack.run(&["guest", "list"]).status.success().then_some(()));
}
