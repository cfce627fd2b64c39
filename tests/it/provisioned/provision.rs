//! Provisioning of a real rack: nothing to do, drift, a second run at the same time, killed runs, a team's playbook.

use crate::rack::Rack;
use crate::terminal::eventually;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::{Child, Stdio};
use std::time::Duration;

const HOST: &str = "h2";

/// What a careless hand does to a host's network; it does not survive a reboot in this state.
const NETWORK_DRIFT: &str = "
rm -f /etc/systemd/network/05-rackhand-br-lan.network
ip link set br-lan address 02:00:00:00:00:99
";

/// What a careless hand does to a host, in every other stage of provisioning.
const DRIFT: &str = "
while systemctl list-units --plain --no-legend --state=active,activating 'rackhand-*.service' | grep -q .; do sleep 0.2; done
rm -f /etc/sysctl.d/90-rackhand.conf /etc/pki/qemu/server-key.pem /etc/libvirt/secrets/*
sed -i s/migration_host/x_host/ /etc/libvirt/qemu.conf
chmod 644 /etc/ceph/ceph.client.admin.keyring
rm -f /etc/systemd/system/ceph-osd@.service.d/rackhand-order.conf
systemctl stop ceph-mgr@h2 libvirtd.socket libvirtd-ro.socket libvirtd-admin.socket libvirtd
dpkg --remove --force-depends curl >/dev/null 2>&1 || true
";

/// Proves that all of it was mended.
const MENDED: &str = "
set -e
test -s /etc/sysctl.d/90-rackhand.conf
grep -q '^migration_host' /etc/libvirt/qemu.conf
test \"$(ip -o link show br-lan | grep -o 'link/ether [^ ]*')\" = \"$(ip -o link show eno1 | grep -o 'link/ether [^ ]*')\"
systemctl is-active -q ceph-mgr@h2 libvirtd libvirtd-tls.socket
test -s /etc/pki/qemu/server-key.pem
test \"$(stat -c %a /etc/ceph/ceph.client.admin.keyring)\" = 600
systemctl show -p After --value \"$(systemctl list-units --plain --no-legend 'ceph-osd@*' | cut -d' ' -f1)\" | grep -qw ceph-mon@h2.service
command -v curl >/dev/null
virsh -q secret-list | grep -q ceph
echo mended
";

/// Does all of it to the host.
fn drift(rack: &Rack) {
    rack.ssh(HOST, &format!("{DRIFT}{NETWORK_DRIFT}"));
}

fn spawn(rack: &Rack) -> Child {
    rack.command(&["provision", "--yes"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn can_be_reached_again(rack: &Rack) {
    eventually("ssh to be back", Duration::from_secs(60), || {
        rack.run(&["lab", "ssh", "--name", &rack.name, HOST, "--", "true"]).status.success().then_some(())
    });
}

/// The rack, with nothing to do on it whatever a test before has left.
fn at_rest() -> Rack {
    let rack = Rack::provisioned();
    rack.ok(&["provision", "--yes"]);
    assert_eq!(plan(&rack), []);
    rack
}

/// The plan of a dry run: `(step, object)` of each change.
fn plan(rack: &Rack) -> Vec<(String, String)> {
    let plan = rack.json(&["provision", "--dry-run"]);
    let steps = plan["steps"].as_array().unwrap();
    let changes = steps.iter().flat_map(|s| s["changes"].as_array().unwrap());
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    changes.map(|c| (text(&c["step"]), text(&c["object"]))).collect()
}

#[test]
fn drift_is_shown_mended_and_gone() {
    let rack = at_rest();
    drift(&rack);
    let found = plan(&rack);
    for step in ["os", "network", "packages", "tls", "libvirt", "secret"] {
        assert!(found.iter().any(|(s, _)| s == step), "{step} finds its drift: {found:?}");
    }
    assert!(
        !rack.ssh(HOST, "test -e /etc/sysctl.d/90-rackhand.conf || echo gone").is_empty(),
        "a dry run changes nothing"
    );
    rack.ok(&["provision", "--yes"]);
    assert_eq!(rack.ssh(HOST, MENDED).trim(), "mended");
    let again = rack.json(&["provision", "--yes"]);
    assert_eq!(again["changed"], false);
}

#[test]
fn without_yes_and_without_a_terminal_nothing_is_changed() {
    let rack = at_rest();
    rack.ssh(HOST, "rm /etc/sysctl.d/90-rackhand.conf");
    rack.exits(5, &["provision"]);
    assert_eq!(rack.ssh(HOST, "test -e /etc/sysctl.d/90-rackhand.conf || echo gone").trim(), "gone");
    rack.ok(&["provision", "--yes"]);
}

#[test]
fn a_saved_plan_is_applied_while_it_holds_and_refused_when_more_is_to_do() {
    let rack = at_rest();
    let sysctl = "test -e /etc/sysctl.d/90-rackhand.conf && echo there || echo gone";
    rack.ssh(HOST, "rm /etc/sysctl.d/90-rackhand.conf");
    let saved = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(saved.path(), rack.ok(&["provision", "--dry-run", "-o", "json"]).stdout).unwrap();
    let apply = ["provision", "--plan", saved.path().to_str().unwrap()];

    rack.ssh("h3", "mv /etc/modules-load.d/rackhand.conf /root/");
    let refused = rack.exits(5, &apply);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(message.contains("host h3: os: modules /etc/modules-load.d/rackhand.conf is not in the plan"), "{message}");
    assert_eq!(rack.ssh(HOST, sysctl).trim(), "gone", "nothing was changed");

    rack.ssh("h3", "mv /root/rackhand.conf /etc/modules-load.d/");
    rack.ok(&apply);
    assert_eq!(rack.ssh(HOST, sysctl).trim(), "there");
    assert_eq!(plan(&rack), []);
    assert_eq!(rack.json(&apply)["changed"], false, "what is done by now does not make it stale");
    std::fs::write(saved.path(), "{}").unwrap();
    rack.exits(2, &apply);
}

#[test]
fn an_interrupted_run_finishes_its_step_begins_no_more_and_says_what_is_left() {
    let rack = at_rest();
    drift(&rack);
    let run = rack.command(&["provision", "--yes"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("the run to change the host", Duration::from_secs(60), || {
        (rack.ssh(HOST, "test -s /etc/sysctl.d/90-rackhand.conf && echo yes || true").trim() == "yes").then_some(())
    });
    kill(Pid::from_raw(i32::try_from(run.id()).unwrap()), Signal::SIGINT).unwrap();
    let output = run.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.lines().any(|l| l.contains("not begun: ") && l.contains("libvirt")), "{said}");
    rack.ok(&["provision", "--yes"]);
    assert_eq!(plan(&rack), []);
    assert_eq!(rack.ssh(HOST, MENDED).trim(), "mended");
}

#[test]
fn hosts_that_cannot_be_reached_are_all_named_and_nothing_is_changed() {
    let rack = at_rest();
    rack.ssh("h1", "rm /etc/sysctl.d/90-rackhand.conf");
    for host in ["h2", "h3"] {
        rack.lab(&["partition", host, "--from", "management"]);
    }
    let output = rack.run(&["provision", "--yes"]);
    for host in ["h2", "h3"] {
        rack.lab(&["heal", host]);
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for host in ["h2", "h3"] {
        assert!(said.contains(&format!("host {host}: cannot connect")), "{said}");
    }
    assert_eq!(rack.ssh("h1", "test -e /etc/sysctl.d/90-rackhand.conf || echo gone").trim(), "gone");
    eventually("a run that mends it", Duration::from_secs(60), || {
        rack.run(&["provision", "--yes"]).status.success().then_some(())
    });
    assert_eq!(plan(&rack), []);
}

#[test]
fn a_second_run_is_told_who_holds_the_hosts_and_a_killed_one_holds_nothing() {
    let rack = at_rest();
    drift(&rack);
    let mut first = spawn(&rack);
    eventually("the first run to hold its lock", Duration::from_secs(20), || {
        assert_eq!(first.try_wait().unwrap(), None, "the first run has ended");
        // Not by trying the lock: that takes it for a moment, and can itself refuse the run.
        let owner = rack.ssh("h3", "cat /run/rackhand/provision.owner");
        owner.contains(&format!("process {},", first.id())).then_some(())
    });
    let second = rack.exits(75, &["provision", "--yes"]);
    let message = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(message.contains(&format!("process {}", first.id())), "{message}");
    first.kill().unwrap();
    first.wait().unwrap();
    eventually("the lock of the killed run to be free", Duration::from_secs(20), || {
        (rack.run(&["provision", "--yes"]).status.code() != Some(75)).then_some(())
    });
    assert_eq!(plan(&rack), []);
}

#[test]
fn killed_at_random_moments_the_next_run_finishes_it() {
    let rack = Rack::provisioned();
    for round in 0..6 {
        drift(&rack);
        let mut run = spawn(&rack);
        // Any moment will do; it is said, so that a failure can be repeated.
        let after = Duration::from_millis(u64::from(rand::random::<u16>() % 9000) + 300);
        eprintln!("round {round}: killed after {after:?}");
        std::thread::sleep(after);
        run.kill().unwrap();
        run.wait().unwrap();
    }
    eventually("the last killed run's locks to be free", Duration::from_secs(20), || {
        (rack.run(&["provision", "--yes"]).status.code() != Some(75)).then_some(())
    });
    assert_eq!(plan(&rack), []);
    assert_eq!(rack.ssh(HOST, MENDED).trim(), "mended");
}

#[test]
fn a_host_that_reboots_in_the_middle_is_finished_by_the_next_run() {
    let rack = at_rest();
    rack.ssh(HOST, DRIFT);
    let mut run = spawn(&rack);
    eventually("the run to change the host", Duration::from_secs(60), || {
        (rack.ssh(HOST, "test -s /etc/sysctl.d/90-rackhand.conf && echo yes || true").trim() == "yes").then_some(())
    });
    rack.lab(&["power", "reset", HOST]);
    // It ends by itself, whatever it reached.
    run.wait().unwrap();
    eventually("a run that finishes it", Duration::from_secs(180), || {
        rack.run(&["provision", "--yes"]).status.success().then_some(())
    });
    assert_eq!(plan(&rack), []);
    assert_eq!(rack.ssh(HOST, MENDED).trim(), "mended");
}

#[test]
fn a_full_disk_is_named_with_its_host_and_the_others_go_on() {
    let rack = at_rest();
    for host in [HOST, "h3"] {
        rack.ssh(host, "rm /etc/sysctl.d/90-rackhand.conf");
    }
    rack.ssh(HOST, "mount -t tmpfs -o size=4k full /etc/sysctl.d && ! cat /dev/zero >/etc/sysctl.d/full 2>/dev/null");
    let output = rack.run(&["provision", "--yes"]);
    rack.ssh(HOST, "umount /etc/sysctl.d");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.lines().any(|l| l.contains("No space left on device") && l.contains(HOST)), "{said}");
    assert!(rack.ssh("h3", "ls /etc/sysctl.d").contains("90-rackhand.conf"), "the others go on");
    rack.ok(&["provision", "--yes"]);
    assert_eq!(plan(&rack), []);
}

#[test]
fn a_teams_playbook_is_planned_applied_and_then_at_rest() {
    let rack = Rack::provisioned();
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("templates")).unwrap();
    std::fs::write(directory.path().join("templates/motd.j2"), "this is {{ host.name }}\n").unwrap();
    let book = directory.path().join("team.yaml");
    let text = "resources:\n  - file: {path: /etc/rackhand-test, template: motd.j2, mode: '0600'}\n  - user: {name: probe, system: true}\n";
    std::fs::write(&book, text).unwrap();
    let book = book.to_str().unwrap();
    let changed = rack.json(&["run", book, "--host", "h[12]", "--yes"]);
    assert_eq!(changed["changed"], true);
    assert_eq!(
        rack.ssh("h1", "cat /etc/rackhand-test; stat -c %a /etc/rackhand-test; id -u probe >/dev/null && echo user"),
        "this is h1\n600\nuser\n"
    );
    assert_eq!(rack.ssh("h3", "ls /etc/rackhand-test 2>/dev/null || echo none").trim(), "none");
    assert_eq!(rack.json(&["run", book, "--host", "h[12]", "--yes"])["changed"], false);
    for host in ["h1", "h2"] {
        rack.ssh(host, "rm /etc/rackhand-test; userdel probe");
    }
    rack.exits(2, &["run", book, "--host", "nobody"]);

    // What must not be done is in the plan, and so is the exit code.
    std::fs::write(book, "resources:\n  - bridge: {name: br-test, uplink: nowhere}\n").unwrap();
    let refused = rack.exits(5, &["run", book, "--host", "h1", "--dry-run", "-o", "json"]);
    let plan: serde_json::Value = serde_json::from_slice(&refused.stdout).unwrap();
    let reason = plan["steps"][0]["refused"][0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("there is no link nowhere; name another port"), "{reason}");
}

#[test]
fn a_teams_edit_that_cuts_the_tool_off_is_undone_and_one_that_fails_too() {
    let rack = at_rest();
    let directory = tempfile::tempdir().unwrap();
    let book = directory.path().join("edit.yaml");
    let run = ["run", book.to_str().unwrap(), "--host", HOST, "--yes"];
    let edit = |apply: &str| {
        let text = format!(
            "resources:\n  - command:\n      name: edit\n      probe: test -e /run/rackhand-kept\n      apply: {apply}\n      \
             guard: {{undo: 'systemctl start ssh; touch /run/rackhand-undone', keep: touch /run/rackhand-kept}}\n"
        );
        std::fs::write(&book, text).unwrap();
    };
    let traces = "ls /run | grep -E 'rackhand-(kept|undone)'; rm -f /run/rackhand-kept /run/rackhand-undone";
    edit("systemctl stop ssh.socket ssh");
    let output = rack.exits(3, &run);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("not reachable after the edit and has undone it"), "{message}");
    can_be_reached_again(&rack);
    assert_eq!(rack.ssh(HOST, traces), "rackhand-undone\n");
    edit("'echo no such port >&2; false'");
    let output = rack.exits(3, &run);
    assert!(String::from_utf8_lossy(&output.stderr).contains("no such port"));
    assert_eq!(rack.ssh(HOST, traces), "rackhand-undone\n");
    edit("'true'");
    rack.ok(&run);
    assert_eq!(rack.json(&run)["changed"], false);
    // While an edit waits to be taken back, what its probe sees is not what will be.
    rack.ssh(HOST, "systemd-run --quiet --unit=rackhand-revert-edit --on-active=600 true");
    assert_eq!(rack.json(&run)["changed"], true);
    assert_eq!(rack.json(&run)["changed"], false);
    assert_eq!(rack.ssh(HOST, traces), "rackhand-kept\n");
}

/// A port that leads nowhere, configured as the host's others are.
const PORT: &str = "
printf '[Match]\\nName=tst0\\n\\n[Network]\\nAddress=192.0.2.1/24\\nConfigureWithoutCarrier=yes\\n' >/etc/systemd/network/60-tst0.network
ip link add tst0 type veth peer name tst1 && ip link set tst1 up
networkctl reload
until ip -o addr show tst0 | grep -q 192.0.2.1; do sleep 0.1; done
";
const LEFT: &str = "ip -br link show | grep br-test; find /etc/systemd/network /run/systemd/network | grep -E 'br-test|-tst0.network' | grep -v 60-; true";
const NO_PORT: &str = "
find /etc/systemd/network /run/systemd/network | grep -E 'br-test|tst0' | xargs rm -f
ip link del br-test 2>/dev/null; ip link del tst0 2>/dev/null; rm -f /run/rackhand-test; networkctl reload
";

/// A bridge over that port; `before` is run on the host just before the edit.
fn bridge(before: &str) -> String {
    format!(
        "resources:\n  - command: {{name: before, probe: 'test -e /run/rackhand-test', apply: '{before}; touch /run/rackhand-test'}}\n  \
         - bridge: {{name: br-test, uplink: tst0}}\n"
    )
}

#[test]
fn a_network_edit_that_cuts_the_tool_off_undoes_itself() {
    let rack = Rack::provisioned();
    rack.ssh(HOST, NO_PORT);
    rack.ssh(HOST, PORT);
    let directory = tempfile::tempdir().unwrap();
    let book = directory.path().join("cut.yaml");
    let run = ["run", book.to_str().unwrap(), "--host", HOST, "--yes"];
    // No new connection can be made for a while: what a wrong uplink looks like from here.
    let closed =
        "systemd-run --on-active=40 --timer-property=AccuracySec=1s systemctl start ssh; systemctl stop ssh.socket ssh";
    std::fs::write(&book, bridge(closed)).unwrap();
    let output = rack.exits(3, &run);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("not reachable after the edit"), "{message}");
    can_be_reached_again(&rack);
    assert_eq!(rack.ssh(HOST, LEFT), "");
    assert!(rack.ssh(HOST, "ip -o addr show tst0").contains("192.0.2.1/24"), "the port has its address back");
    // The same edit with nothing in its way stays.
    rack.ok(&run);
    assert_eq!(rack.json(&run)["changed"], false);
    assert!(rack.ssh(HOST, "ip -o addr show br-test").contains("192.0.2.1/24"), "the address has moved");
    let address = |link: &str| rack.ssh(HOST, &format!("ip -o link show {link} | grep -o 'link/ether [^ ]*'"));
    assert_eq!(address("br-test"), address("tst0"));
    // A lost file is written, and nothing is tried: what runs is right.
    let (file, tried) =
        ("/etc/systemd/network/05-rackhand-br-test.network", "/run/systemd/network/04-rackhand-try-br-test.network");
    rack.ssh(HOST, &format!("rm {file} {tried}"));
    assert_eq!(rack.json(&run)["changed"], true);
    assert_eq!(rack.ssh(HOST, &format!("test -s {file} && ! test -e {tried} && echo written")), "written\n");
    rack.ssh(HOST, NO_PORT);
    assert_eq!(plan(&rack), []);
}
