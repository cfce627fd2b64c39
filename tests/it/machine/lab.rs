//! The lab itself, by the built binary: what it makes, what obeys, and that nothing of it stays. Needs root and the
//! tools of the lab; the first test builds the host image where there is none.

use crate::run::{RACKHAND, binary, stderr, stdout, tool};
use crate::terminal::eventually;
use serde_json::Value;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// Far more than a loaded machine needs for a boot.
const PATIENCE: Duration = Duration::from_secs(60);

/// A lab of this test; taken down with the value.
struct Lab {
    name: &'static str,
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = binary(&["lab", "down", "--name", self.name, "-q"]).status();
    }
}

impl Lab {
    /// A lab that is not there yet, whatever an earlier run left.
    fn named(name: &'static str) -> Self {
        let lab = Lab { name };
        lab.ok(&["down"]);
        lab
    }

    fn up(name: &'static str, hosts: &str) -> Self {
        let lab = Lab::named(name);
        lab.ok(&["up", "--hosts", hosts, "--disk-size", "1G"]);
        lab
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = binary(&["lab", args[0], "--name", self.name, "-q"]);
        command.args(&args[1..]);
        command
    }

    fn exits(&self, code: i32, args: &[&str]) -> Output {
        let output = self.command(args).output().unwrap();
        let (out, err) = (stdout(&output), stderr(&output));
        assert_eq!(output.status.code(), Some(code), "lab {args:?}\nstdout: {out}\nstderr: {err}");
        output
    }

    fn ok(&self, args: &[&str]) -> String {
        stdout(&self.exits(0, args))
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.ok(&["list", "-o", "json"])).unwrap()
    }

    fn host(&self, i: usize) -> Value {
        let list = self.json();
        assert_eq!(list["name"], self.name);
        list["hosts"][i - 1].clone()
    }

    fn field(&self, i: usize, field: &str) -> String {
        self.host(i)[field].as_str().unwrap().to_owned()
    }

    fn ssh(&self, host: &str, script: &str) -> String {
        self.ok(&["ssh", host, "--", script])
    }

    fn dir(&self) -> PathBuf {
        Path::new("/var/lib/rackhand/lab").join(self.name)
    }

    /// What its links begin with, as long as it has a record.
    fn link_prefix(&self) -> Option<String> {
        let record: Value = serde_json::from_slice(&fs::read(self.dir().join("lab.json")).ok()?).ok()?;
        Some(format!("rh{}-", record["number"]))
    }

    /// Everything on the machine that belongs to it.
    fn traces(&self, link_prefix: &str) -> Vec<String> {
        let mut traces = Vec::new();
        if self.dir().exists() {
            traces.push(self.dir().display().to_string());
        }
        let mine = |text: &str, needle: &str| text.lines().filter(|l| l.contains(needle)).map(str::to_owned).collect();
        let files = format!("/lab/{}/", self.name);
        let lists: [Vec<String>; 3] = [
            mine(&fs::read_to_string("/proc/self/mountinfo").unwrap(), &files),
            mine(&tool("losetup", &["--list"]), &files),
            mine(&tool("ip", &["-oneline", "link"]), &format!(" {link_prefix}")),
        ];
        traces.extend(lists.into_iter().flatten());
        traces.extend(self.cgroup().map(|c| c.display().to_string()));
        traces.extend(processes_with(&files));
        traces.extend(processes_with(&format!("--name {}", self.name)));
        traces
    }

    fn cgroup(&self) -> Option<PathBuf> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts.lines().find(|l| l.split(' ').nth(2) == Some("cgroup2")).unwrap();
        let group = Path::new(root.split(' ').nth(1).unwrap()).join(format!("rackhand-lab-{}", self.name));
        group.is_dir().then_some(group)
    }

    fn redfish(&self, i: usize, path: &str, body: Option<&str>, password: &str) -> (u16, String) {
        let script = "import base64, ssl, sys, urllib.request, urllib.error
url, password, body = sys.argv[1:]
login = base64.b64encode(('root:' + password).encode()).decode()
request = urllib.request.Request(url, data=body.encode() or None, headers={'Authorization': 'Basic ' + login})
try:
    answer = urllib.request.urlopen(request, context=ssl._create_unverified_context(), timeout=10)
except urllib.error.HTTPError as error:
    answer = error
print(answer.status)
print(answer.read().decode())";
        let url = format!("https://{}/redfish/v1/Systems/System.Embedded.1{path}", self.field(i, "bmc"));
        let answer = tool("python3", &["-c", script, &url, password, body.unwrap_or_default()]);
        let (status, text) = answer.split_once('\n').unwrap();
        (status.parse().unwrap(), text.to_owned())
    }

    fn password_file(&self) -> String {
        self.dir().join("bmc-password").display().to_string()
    }

    fn ipmi(&self, i: usize, words: &[&str]) -> Output {
        let (bmc, file) = (self.field(i, "bmc"), self.password_file());
        let mut command = Command::new("ipmitool");
        command.args(["-I", "lanplus", "-C", "3", "-N", "1", "-R", "2", "-H", &bmc, "-U", "root", "-f", &file]);
        command.args(words).output().unwrap()
    }

    fn wait_for_power(&self, i: usize, power: &str) {
        eventually(&format!("h{i} {power}"), PATIENCE, || (self.field(i, "power") == power).then_some(()));
    }
}

/// Command lines of running processes that contain this.
fn processes_with(needle: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let cmdline = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let cmdline = String::from_utf8_lossy(&cmdline).replace('\0', " ");
        if cmdline.contains(needle) {
            found.push(cmdline);
        }
    }
    found
}

fn pings(address: &str) -> bool {
    Command::new("ping").args(["-c", "1", "-W", "1", address]).stdout(Stdio::null()).status().unwrap().success()
}

#[test]
fn a_rack_comes_up_is_an_inventory_and_goes_without_a_trace() {
    let lab = Lab::up("t-trace", "3");
    let prefix = lab.link_prefix().unwrap();
    let list = lab.json();
    assert_eq!(list["schema"], "rackhand.lab-list/1");
    assert_eq!(list["hosts"].as_array().unwrap().len(), 3);
    let inventory = list["inventory"].as_str().unwrap();
    let shown = binary(&["-i", inventory, "inventory", "show"]).output().unwrap();
    assert!(shown.status.success(), "{}", stderr(&shown));
    for (host, i) in [("h1", 1), ("h3", 3)] {
        assert_eq!(lab.field(i, "power"), "on");
        assert_eq!(lab.ssh(host, "hostname").trim(), host);
        // As on hardware: its own NICs, its serial number where the BMC has the same, its disk by a stable path.
        assert_eq!(lab.ssh(host, "ls /sys/class/net"), "eno1\neno2\nlo\n");
        assert_eq!(lab.ssh(host, "cat /sys/class/dmi/id/product_serial").trim(), lab.field(i, "serial"));
        let disk = lab.host(i)["disks"][0].as_str().unwrap().to_owned();
        assert_eq!(lab.ssh(host, &format!("blockdev --getsize64 {disk}")).trim(), (1u64 << 30).to_string());
        assert_eq!(lab.ssh(host, "systemctl --failed --no-legend"), "");
    }
    // Packages install without a network.
    lab.ssh("h2", "apt-get update -qq && apt-get install -qq --no-install-recommends ethtool >/dev/null 2>&1");
    // No image is built twice, nothing is taken from another lab's name.
    let again = lab.exits(2, &["up"]);
    assert!(stderr(&again).contains("there is a lab `t-trace` already"), "{}", stderr(&again));
    assert!(!lab.traces(&prefix).is_empty());
    lab.ok(&["down"]);
    assert_eq!(lab.traces(&prefix), Vec::<String>::new());
}

#[test]
fn both_faces_of_a_bmc_switch_the_power() {
    let lab = Lab::up("t-bmc", "2");
    let password = fs::read_to_string(lab.password_file()).unwrap();
    let password = password.trim();
    let reset = |kind: &str| {
        let body = format!("{{\"ResetType\": \"{kind}\"}}");
        lab.redfish(1, "/Actions/ComputerSystem.Reset", Some(&body), password).0
    };
    let (status, system) = lab.redfish(1, "", None, password);
    let system: Value = serde_json::from_str(&system).unwrap();
    assert_eq!((status, &system["PowerState"]), (200, &Value::from("On")));
    assert_eq!(system["SerialNumber"], lab.field(1, "serial"));
    assert_eq!(lab.redfish(1, "", None, "wrong").0, 401);
    assert_eq!(reset("ForceOff"), 204);
    lab.wait_for_power(1, "off");
    assert_eq!(reset("ForceOff"), 409);
    assert!(!pings(&lab.field(1, "management")));
    assert_eq!(reset("On"), 204);
    lab.wait_for_power(1, "on");
    let boot = || {
        let asked =
            lab.command(&["ssh", "h1", "--", "cat /proc/sys/kernel/random/boot_id; ls /root"]).output().unwrap();
        asked.status.success().then(|| stdout(&asked))
    };
    let before = eventually("h1 logs in", PATIENCE, boot);
    // It shuts down in order, and comes back.
    let unit = "[Service]\\nExecStop=/usr/bin/touch /root/ended\\n";
    let directory = "/etc/systemd/system/ssh.service.d";
    lab.ssh("h1", &format!("mkdir {directory}; printf '{unit}' > {directory}/end.conf; systemctl daemon-reload"));
    assert_eq!(reset("GracefulRestart"), 204);
    let after = eventually("h1 has restarted", PATIENCE, || boot().filter(|after| *after != before));
    assert!(after.ends_with("ended\n"), "{after}");

    assert!(stdout(&lab.ipmi(2, &["chassis", "power", "status"])).contains("is on"));
    assert!(stdout(&lab.ipmi(2, &["fru"])).contains(&lab.field(2, "serial")));
    assert!(lab.ipmi(2, &["chassis", "power", "off"]).status.success());
    lab.wait_for_power(2, "off");
    assert!(!lab.ipmi(2, &["chassis", "power", "reset"]).status.success());
    assert!(lab.ipmi(2, &["chassis", "power", "on"]).status.success());
    lab.wait_for_power(2, "on");
    eventually("h2 logs in", PATIENCE, || {
        lab.command(&["ssh", "h2", "--", "true"]).output().unwrap().status.success().then_some(())
    });
}

#[test]
fn cords_and_cables_can_be_pulled_and_put_back() {
    let lab = Lab::up("t-cords", "2");
    let (bmc, storage) = (lab.field(2, "bmc"), lab.field(2, "storage"));
    let sees = |address: &str| lab.command(&["ssh", "h1", "--", "ping", "-c1", "-W1", address]).output().unwrap();
    assert!(sees(&storage).status.success() && pings(&bmc));

    lab.ok(&["partition", "h2", "--from", "storage"]);
    assert_eq!(lab.host(2)["partitioned"][0], "storage");
    assert!(!sees(&storage).status.success());
    assert_eq!(lab.ssh("h2", "cat /sys/class/net/eno2/carrier").trim(), "1");
    lab.ok(&["partition", "h2", "--from", "all"]);
    assert!(!pings(&lab.field(2, "management")) && pings(&bmc));
    // A partition survives a reboot of its host.
    lab.ok(&["power", "reset", "h2"]);
    assert!(!sees(&storage).status.success());
    lab.ok(&["heal", "h2"]);
    eventually("h2 is back", PATIENCE, || sees(&storage).status.success().then_some(()));

    // A dry run pulls nothing, and looks whether there is something to pull.
    lab.exits(2, &["cut", "h9", "--dry-run"]);
    assert_eq!(lab.ok(&["cut", "h2", "--dry-run"]), "would cut: host h2 of lab t-cords\n");
    assert_eq!(lab.field(2, "power"), "on");
    let cut: Value = serde_json::from_str(&lab.ok(&["cut", "h2", "-o", "json"])).unwrap();
    assert_eq!((&cut["schema"], &cut["objects"][0]["outcome"]), (&"rackhand.change/1".into(), &"done".into()));
    assert_eq!(lab.field(2, "power"), "cut");
    assert!(!pings(&bmc) && !sees(&storage).status.success());
    lab.exits(1, &["power", "reset", "h2"]);
    lab.ok(&["power", "on", "h2"]);
    eventually("h2 is back", PATIENCE, || sees(&storage).status.success().then_some(()));
    assert!(pings(&bmc));
}

#[test]
fn a_host_reboots_and_powers_off_from_inside() {
    let lab = Lab::up("t-inside", "1");
    let boot = lab.ssh("h1", "cat /proc/sys/kernel/random/boot_id; touch /root/kept /run/gone");
    lab.command(&["ssh", "h1", "--", "systemctl reboot"]).output().unwrap();
    eventually("h1 is back", PATIENCE, || {
        let now = lab.command(&["ssh", "h1", "--", "cat /proc/sys/kernel/random/boot_id"]).output().unwrap();
        (now.status.success() && stdout(&now) != boot).then_some(())
    });
    assert_eq!(lab.ssh("h1", "ls /root/kept; test -e /run/gone || echo gone"), "/root/kept\ngone\n");
    lab.command(&["ssh", "h1", "--", "systemctl poweroff"]).output().unwrap();
    lab.wait_for_power(1, "off");
    lab.ok(&["power", "on", "h1"]);
    lab.wait_for_power(1, "on");
    lab.ok(&["power", "soft", "h1"]);
    lab.wait_for_power(1, "off");
}

#[test]
fn a_killed_up_leaves_nothing_that_the_next_command_does_not_sweep() {
    let lab = Lab::named("t-kill");
    for stage in ["lab.json", "hosts/h1", "hosts/h1/console.log"] {
        let mut up = lab.command(&["up", "--hosts", "2"]).spawn().unwrap();
        eventually(stage, PATIENCE, || lab.dir().join(stage).exists().then_some(()));
        up.kill().unwrap();
        up.wait().unwrap();
        let prefix = eventually("its record", PATIENCE, || lab.link_prefix());
        lab.ok(&["down"]);
        assert_eq!(lab.traces(&prefix), Vec::<String>::new(), "after {stage}");
    }
    // The next `up` sweeps as well.
    let mut up = lab.command(&["up", "--hosts", "2"]).spawn().unwrap();
    eventually("a host that boots", PATIENCE, || lab.dir().join("hosts/h1/console.log").exists().then_some(()));
    up.kill().unwrap();
    up.wait().unwrap();
    lab.ok(&["up", "--hosts", "1"]);
    assert_eq!(lab.json()["hosts"].as_array().unwrap().len(), 1);
}

#[test]
fn a_rack_whose_processes_were_killed_is_recognised_and_swept() {
    let lab = Lab::up("t-dead", "2");
    let prefix = lab.link_prefix().unwrap();
    fs::write(lab.cgroup().unwrap().join("cgroup.kill"), "1").unwrap();
    // Its processes die one after the other.
    eventually("the rack is seen to be dead", PATIENCE, || {
        let list = lab.json();
        let rack = list["racks"].as_array().unwrap().iter().find(|r| r["name"] == lab.name).unwrap();
        (rack["whole"] == false).then_some(())
    });
    assert_eq!(lab.field(1, "power"), "lost");
    lab.exits(1, &["power", "on", "h1"]);
    // Also what the lab itself would not have left: a mount, and a loop device that does not free itself.
    let file = lab.dir().join("hosts/h1/disk0.img").display().to_string();
    tool("losetup", &["--find", &file]);
    tool("mount", &["-t", "tmpfs", "tmpfs", &lab.dir().join("hosts/h1/root").display().to_string()]);
    lab.ok(&["down"]);
    assert_eq!(lab.traces(&prefix), Vec::<String>::new());
}

#[test]
fn two_labs_live_side_by_side() {
    let (one, two) = (Lab::up("t-one", "1"), Lab::up("t-two", "1"));
    assert_ne!(one.link_prefix(), two.link_prefix());
    assert_ne!(one.field(1, "management"), two.field(1, "management"));
    assert_ne!(one.ssh("h1", "cat /etc/machine-id"), two.ssh("h1", "cat /etc/machine-id"));
    let across = one.command(&["ssh", "h1", "--", "ping", "-c1", "-W1", &two.field(1, "storage")]).output().unwrap();
    assert!(!across.status.success());
    // What is asked of one says nothing of the other.
    assert_eq!(one.json()["racks"].as_array().unwrap().len(), 1);
    binary(&["lab", "list", "--name", "t-three"]).output().map(|o| assert_eq!(o.status.code(), Some(2))).unwrap();
    // A lab whose record cannot be read is left alone by commands on others, and can be taken away.
    let prefix = one.link_prefix().unwrap();
    fs::write(one.dir().join("lab.json"), r#"{"schema": "rackhand.lab/99"}"#).unwrap();
    two.ok(&["down"]);
    let list: Value = serde_json::from_slice(&binary(&["lab", "list", "-o", "json"]).output().unwrap().stdout).unwrap();
    let broken = list["racks"].as_array().unwrap().iter().find(|rack| rack["name"] == "t-one").unwrap();
    assert_eq!(broken["whole"], false);
    assert!(tool("ip", &["-oneline", "link"]).contains(&format!(" {prefix}m1")), "its links are gone");
    // The same where its files are out of sight: here, in a mount namespace with none.
    let blind = "mount -t tmpfs none /var/lib/rackhand && exec \"$@\"";
    let down = [RACKHAND, "lab", "down", "--name", "t-two"];
    tool("unshare", &[&["--mount", "sh", "-c", blind, "sh"], &down[..]].concat());
    assert!(tool("ip", &["-oneline", "link"]).contains(&format!(" {prefix}m1")), "its links are gone");
    one.ok(&["down"]);
    assert_eq!(one.traces(&prefix), Vec::<String>::new());
}

#[test]
fn a_saved_rack_comes_up_as_it_was() {
    let lab = Lab::up("t-save", "2");
    let saved = Path::new("/var/lib/rackhand/saved/t-saved");
    let disk = lab.host(2)["disks"][0].as_str().unwrap().to_owned();
    lab.ssh("h2", &format!("rm -r /etc/cron.daily; echo kept > /root/file; echo disk | dd of={disk} conv=fsync"));
    lab.ok(&["save", "t-saved", "--replace"]);
    lab.exits(2, &["save", "t-saved"]);
    assert_eq!(lab.ssh("h2", "cat /root/file").trim(), "kept");
    let (address, fsid) = (lab.field(2, "management"), fsid(&lab));
    // Its networks are taken.
    let other = Lab::named("t-save2");
    other.exits(2, &["up", "--from", "t-saved"]);
    lab.ok(&["down"]);
    other.ok(&["up", "--from", "t-saved"]);
    assert_eq!((other.field(2, "management"), self::fsid(&other)), (address, fsid));
    let seen = other.ssh("h2", &format!("ls /etc/cron.daily 2>/dev/null; cat /root/file; head -c 4 {disk}"));
    assert_eq!(seen, "kept\ndisk");
    // Nobody deletes it by accident; the lab that came up from it lives on.
    assert_eq!(binary(&["lab", "forget", "t-saved"]).output().unwrap().status.code(), Some(5));
    assert!(saved.is_dir());
    assert!(binary(&["lab", "forget", "t-saved", "--yes"]).status().unwrap().success());
    assert!(!saved.exists());
    assert_eq!(other.ssh("h2", "cat /root/file").trim(), "kept");
    let gone = binary(&["lab", "forget", "t-saved", "--yes"]).output().unwrap();
    assert_eq!(gone.status.code(), Some(2), "{}", stderr(&gone));
    other.ok(&["down"]);
    other.exits(2, &["up", "--from", "t-saved"]);
}

#[test]
fn a_save_that_is_broken_off_boots_the_hosts_again() {
    let lab = Lab::up("t-halfsave", "2");
    lab.ssh("h1", "head -c 300M /dev/urandom > /root/file");
    let mut save = lab.command(&["save", "t-halfsaved"]).process_group(0).spawn().unwrap();
    let unfinished = Path::new("/var/lib/rackhand/saved/t-halfsaved.new");
    eventually("it copies", PATIENCE, || unfinished.join("hosts/h1").exists().then_some(()));
    // As a terminal does it: to the command and to whatever it started there.
    let group = nix::unistd::Pid::from_raw(save.id().cast_signed());
    nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(save.wait().unwrap().code(), Some(130));
    for host in ["h1", "h2"] {
        assert_eq!(lab.ssh(host, "hostname").trim(), host);
    }
    assert!(!Path::new("/var/lib/rackhand/saved/t-halfsaved").exists());
    binary(&["lab", "forget", "t-halfsaved", "--yes"]).status().unwrap();
    assert!(!unfinished.exists());
}

fn fsid(lab: &Lab) -> String {
    let inventory = fs::read_to_string(lab.dir().join("inventory.yaml")).unwrap();
    inventory.lines().find(|l| l.contains("fsid:")).unwrap().to_owned()
}

#[test]
fn mistakes_are_said_before_anything_is_made() {
    let lab = Lab::named("t-wrong");
    for args in [&["up", "--hosts", "0"][..], &["up", "--hosts", "41"], &["up", "--disk-size", "big"]] {
        lab.exits(2, args);
    }
    let name = binary(&["lab", "up", "--name", "No/Name"]).output().unwrap();
    assert_eq!(name.status.code(), Some(2));
    let unknown = lab.exits(2, &["power", "off", "h1"]);
    assert!(stderr(&unknown).contains("there is no lab `t-wrong`"));
    let tools = lab.command(&["up"]).env("PATH", "/nonexistent").output().unwrap();
    assert_eq!(tools.status.code(), Some(2));
    assert!(stderr(&tools).contains("systemd-container"), "{}", stderr(&tools));
    let stranger = Command::new("setpriv")
        .args(["--reuid=65534", "--clear-groups", RACKHAND, "lab", "up", "--name", "t-wrong"])
        .output()
        .unwrap();
    assert_eq!(stranger.status.code(), Some(2));
    assert!(stderr(&stranger).contains("needs root"), "{}", stderr(&stranger));
    assert!(!lab.dir().exists());
    // Too little time: what was made is gone again.
    let late = lab.exits(1, &["up", "--hosts", "1", "--deadline", "300ms"]);
    assert!(stderr(&late).contains("not done within 300ms"), "{}", stderr(&late));
    assert!(!lab.dir().exists() && lab.cgroup().is_none());
}

#[test]
fn a_lab_somebody_works_on_is_left_alone() {
    let lab = Lab::named("t-busy");
    // A rack does not hold on to what the command that made it had open.
    let script = "exec 9<\"$0\"; flock 9; \"$@\"";
    let up = [RACKHAND, "lab", "up", "--name", lab.name, "--hosts", "1", "-q"];
    tool("bash", &[&["-c", script, "/etc/hostname"], &up[..]].concat());
    tool("flock", &["--nonblock", "/etc/hostname", "true"]);
    let held = fs::File::open(lab.dir()).unwrap();
    held.lock().unwrap();
    lab.exits(75, &["down"]);
    lab.exits(75, &["save", "t-busy-saved"]);
    drop(held);
    assert_eq!(lab.field(1, "power"), "on");
    let unknown = lab.exits(2, &["power", "off", "h7"]);
    assert!(stderr(&unknown).contains("its hosts are h1"));
}
