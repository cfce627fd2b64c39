//! What only a machine with a kernel of its own can show: LVM, the watchdog, modules and kernel settings, the network
//! that takes back a wrong edit, and restarts. One host, from bare to mended; `make test-vm` makes it.

use crate::rack::{Pinger, Rack, say};
use crate::run::{RACKHAND, hermetic};
use crate::terminal::eventually;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

const HOST: &str = "h1";
/// A boot takes half a minute on an idle machine without KVM.
const BOOT: Duration = Duration::from_secs(400);
/// Monitor, manager and OSD after a boot, one after the other.
const CLUSTER: Duration = Duration::from_secs(300);
/// Far longer than any command may take; a session to a host that dies would never end.
const COMMAND: &str = "60";

/// A disk of the host that is not in the inventory used here.
const SPARE: &str = "disk1";

/// A network of guests with a tag, on the port that is in a bridge of its own already.
const TAGGED: &str = "    dmz: {bridge: br-dmz, uplink: eno1, vlan: 20, cidr: 10.99.20.0/24, ranges: [10.99.20.100-10.99.20.120]}\nceph:";

/// What provisioning has to have made of the host, now and after each start. It stops at the first line that fails.
const STANDS: &str = r#"
set -ex
test "$(ip -o link show br-lan | grep -o 'link/ether [^ ]*')" = "$(ip -o link show eno1 | grep -o 'link/ether [^ ]*')"
ip -o -4 addr show br-lan | grep -qwF ADDRESS
ip -o -4 addr show eno2 | grep -qwF STORAGE
test -z "$(ip -o -4 addr show eno1)"
bridge link show dev eno1.20 | grep -w 'master br-dmz'
ip -d link show dev eno1.20 | grep -w 'vlan protocol 802.1Q id 20'
for module in tun vhost_net 8021q; do test -d /sys/module/$module; done
test "$(cat /proc/sys/vm/swappiness /proc/sys/kernel/panic /proc/sys/net/ipv4/conf/all/arp_ignore | xargs)" = "10 20 1"
test "$(cat /proc/sys/fs/aio-max-nr)" = 1048576
test "$(systemctl show -p RuntimeWatchdogUSec --value)" = 30s
test "$(cat /sys/class/watchdog/watchdog0/state)" = active
test "$(cat /sys/class/watchdog/watchdog0/timeout)" = 30
lvmconfig devices/global_filter | grep -q /dev/rbd
lvs --noheadings -o lv_tags | grep -q ceph.osd_id=0
test ! -e /etc/systemd/system/ceph-osd@0.service.d/rackhand-raw.conf
for unit in ceph-mon@h1 ceph-mgr@h1 ceph-osd@0 chrony libvirtd-tls.socket; do systemctl is-active $unit; done
systemctl show -p After --value ceph-osd@0 | grep -qw ceph-mon@h1.service
test -z "$(systemctl --failed --no-legend)"
"#;

/// Whether the cluster works. A monitor that has just started repeats what it knew before: each daemon is asked itself.
const WELL: &str = r#"
set -e
ceph daemon osd.0 status | grep -q '"active"'
timeout 20 ceph osd df >/dev/null
echo rackhand | timeout 20 rados --pool guests put probe -
timeout 20 rados --pool guests rm probe
ceph --connect-timeout 20 health | grep -x HEALTH_OK
"#;

/// What an edit of the port and its bridge leaves while it is in force. The tagged bridge came before, and stays.
const LEFT: &str = r#"
ip -br link show dev br-lan
cd /; ls -d {run,etc}/systemd/network/*br-lan* {run,etc}/systemd/network/*rackhand-{,try-}eno1.network
true
"#;

/// A careless hand, in the parts that containers do not have.
const DRIFT: &str = r#"
rm /etc/sysctl.d/90-rackhand.conf /etc/modules-load.d/rackhand.conf /etc/systemd/system.conf.d/90-rackhand.conf
echo 60 >/proc/sys/vm/swappiness
modprobe -r 8021q vhost_net
systemctl daemon-reexec
sed -i /rbd/d /etc/lvm/lvmlocal.conf
systemctl stop ceph-osd@0
"#;

struct Host {
    rack: Rack,
    address: String,
    stands: String,
    began: Instant,
}

impl Host {
    fn new() -> Host {
        let mut rack = Rack::up();
        let text = std::fs::read_to_string(&rack.inventory).unwrap();
        let host = &rack.json(&["inventory", "show"])["hosts"][0];
        let address = host["address"].as_str().unwrap().to_owned();
        let storage = host["storage_address"].as_str().unwrap();
        let stands = STANDS.replace("ADDRESS", &address).replace("STORAGE", storage);
        // Beside the lab's own, which lists both disks: paths in it are relative to it.
        let one_disk: Vec<&str> = text.lines().filter(|l| !l.ends_with(SPARE)).collect();
        let text = (one_disk.join("\n") + "\n").replacen("ceph:", TAGGED, 1);
        let file = rack.inventory.replace("inventory.yaml", "one-disk.yaml");
        std::fs::write(&file, text).unwrap();
        rack.inventory = file;
        Host { rack, address, stands, began: Instant::now() }
    }

    /// Says what begins now.
    fn step(&self, what: &str) {
        say(&format!("{:4} s  {what}", self.began.elapsed().as_secs()));
    }

    /// Runs a command on the host; it may not answer.
    fn try_run(&self, script: &str) -> Output {
        let mut command = hermetic("timeout");
        command.args([COMMAND, RACKHAND, "lab", "ssh", "--name", &self.rack.name, HOST, "--", script]);
        command.output().unwrap()
    }

    fn run(&self, script: &str) -> String {
        let output = self.try_run(script);
        assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn boot_id(&self) -> Option<String> {
        let output = self.try_run("cat /proc/sys/kernel/random/boot_id");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Waits for another boot than that one.
    fn boots_after(&self, old: &str) {
        eventually("the host to have started again", BOOT, || self.boot_id().filter(|id| id != old));
        self.step("it has started");
    }

    /// Waits until the cluster is well by itself, and proves that the host is as it was made.
    fn stands(&self) {
        eventually("the cluster to be well", CLUSTER, || self.try_run(WELL).status.success().then_some(()));
        self.run(&self.stands);
        self.step("the cluster is well, the host as it was made");
    }

    /// The steps in which something is to do.
    fn plan(&self) -> Vec<String> {
        let plan = self.rack.json(&["provision", "--dry-run"]);
        let steps = plan["steps"].as_array().unwrap().iter();
        let busy = steps.filter(|s| s["changes"].as_array().is_some_and(|c| !c.is_empty()));
        busy.map(|s| s["step"].as_str().unwrap().to_owned()).collect()
    }

    /// A run that must end with `code`; what it said.
    fn provision(&self, code: i32) -> String {
        let output = self.rack.exits(code, &["provision", "--yes"]);
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

/// The disk `name` of the host, by the path that its inventory has.
fn disk(name: &str) -> String {
    format!("$(ls /dev/disk/by-id/rackhand-*-{name})")
}

#[test]
fn one_host_from_bare_to_restarted_and_mended() {
    let host = Host::new();
    a_disk_with_data_is_refused(&host);
    an_edit_that_cuts_the_host_off_undoes_itself(&host);
    a_restart_in_the_middle_is_made_up_for(&host);
    host.step("a second run");
    assert_eq!(host.plan(), <[String; 0]>::default());
    host.stands();
    a_guest_runs(&host);
    drift_is_mended(&host);
    a_restart_brings_everything_back(&host);
    the_watchdog_restarts_a_host_whose_kernel_has_died(&host);
    assert_eq!(host.plan(), <[String; 0]>::default());
    a_volume_group_is_refused(&host);
    it_shuts_down_when_asked_to(&host);
}

fn a_disk_with_data_is_refused(host: &Host) {
    let name = "disk0";
    host.step("a disk with data");
    host.run(&format!("mkfs.ext4 -q {}", disk(name)));
    let said = host.provision(5);
    assert!(said.contains(name) && said.contains("ext4"), "{said}");
    host.run(&format!(
        "d={}; wipefs -q -a $d; dd if=/dev/zero of=$d bs=1M count=10 conv=fsync status=none",
        disk(name)
    ));
}

/// A file that somebody left behind and that claims the bridge by its name: the port's address would vanish.
fn an_edit_that_cuts_the_host_off_undoes_itself(host: &Host) {
    let file = "/etc/systemd/network/00-left-behind.network";
    host.step("a network edit that cuts the host off");
    host.run(&format!("printf '[Match]\\nName=br-lan\\n\\n[Network]\\nLinkLocalAddressing=no\\n' >{file}"));
    let pings = Pinger::start(&host.address);
    let said = host.provision(3);
    assert!(said.contains("not reachable after the edit"), "{said}");
    let left = eventually("the host to be back", Duration::from_secs(60), || {
        let output = host.try_run(LEFT);
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    });
    assert_eq!(left, "", "nothing of the edit is left");
    let gap = pings.longest_gap();
    host.step(&format!("it was cut off for {:.1} s", gap.as_secs_f64()));
    assert!(gap > Duration::from_secs(10), "the edit has cut it off");
    assert!(gap < Duration::from_secs(40), "25 s, and the slowness of this machine");
    host.run(&format!("rm {file}"));
}

fn a_restart_in_the_middle_is_made_up_for(host: &Host) {
    host.step("a host that restarts in the middle of provisioning");
    let boot = host.boot_id().unwrap();
    let mut run =
        host.rack.command(&["provision", "--yes"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let unpacks = "grep -q ^Unpacking /run/rackhand/jobs/packages-packages.log";
    eventually("packages to be unpacked", Duration::from_secs(300), || {
        host.try_run(unpacks).status.success().then_some(())
    });
    host.rack.lab(&["power", "reset", HOST]);
    host.boots_after(&boot);
    let ended = eventually("the run to see it", Duration::from_secs(120), || run.try_wait().unwrap());
    assert!(matches!(ended.code(), Some(3 | 6)), "it does not claim to have done it: {ended}");
    host.step("provisioning, to its end");
    host.provision(0);
}

/// With libvirt as it comes: cgroups, namespaces and a security module, which containers do without.
fn a_guest_runs(host: &Host) {
    host.step("a guest");
    let guest = host.rack.tiny_guest("probe", &[]);
    guest.answers();
    host.step("it answers");
}

fn drift_is_mended(host: &Host) {
    host.step("drift");
    host.run(DRIFT);
    let found = host.plan();
    for step in ["os", "packages", "ceph-osds"] {
        assert!(found.iter().any(|s| s == step), "{step} finds its drift: {found:?}");
    }
    host.provision(0);
    host.stands();
}

fn a_restart_brings_everything_back(host: &Host) {
    host.step("systemctl reboot");
    let boot = host.boot_id().unwrap();
    host.try_run("systemctl reboot");
    host.boots_after(&boot);
    host.stands();
}

/// Nothing but the hardware can end this: the kernel is told to stay dead.
fn the_watchdog_restarts_a_host_whose_kernel_has_died(host: &Host) {
    host.step("the kernel dies");
    let boot = host.boot_id().unwrap();
    host.run("echo 0 >/proc/sys/kernel/panic; (sleep 1; echo c >/proc/sysrq-trigger) >/dev/null 2>&1 & true");
    host.boots_after(&boot);
    host.stands();
}

fn a_volume_group_is_refused(host: &Host) {
    host.step("a disk in a volume group");
    host.run(&format!("d={}; pvcreate -q $d && vgcreate -q somebodys $d", disk(SPARE)));
    let both = host.rack.inventory.replace("one-disk.yaml", "inventory.yaml");
    let said = host.rack.exits(5, &["provision", "--yes", "--inventory", &both]);
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains(SPARE) && said.contains("volume group somebodys"), "{said}");
    assert!(host.run("vgs --noheadings -o vg_name").contains("somebodys"), "it is left alone");
}

fn it_shuts_down_when_asked_to(host: &Host) {
    host.step("the power button");
    host.rack.lab(&["power", "soft", HOST]);
    eventually("the host to be off", Duration::from_secs(170), || {
        let list = host.rack.json(&["lab", "list", "--name", &host.rack.name]);
        (list["hosts"][0]["power"] == "off").then_some(())
    });
    host.step("it is off");
}
