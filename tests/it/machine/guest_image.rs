//! The guest images, started under QEMU in a network namespace of their own. tiny: its address from the seed, its answers,
//! and a counter that goes on where it was when the power went. debian: cloud-init to its end, and the power button at
//! any time. Needs root, QEMU and the tools of the lab.

use crate::run::tool;
use crate::terminal::eventually;
use rackhand::lab::guest_image::{self, ImageKind, RING_LENGTH, RING_START};
use rackhand::ui::Ui;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const ADDRESS: &str = "10.77.1.10";
const MAC: &str = "52:54:00:12:34:56";
/// Far more than a loaded machine needs without hardware virtualisation.
const PATIENCE: Duration = Duration::from_secs(90);
/// The same for the first boot of a whole distribution; seen: 40 s on an idle machine, 280 s on a busy one.
const FIRST_BOOT: Duration = Duration::from_secs(600);

/// A network namespace with one tap device; gone with the value.
struct Net {
    name: String,
}

impl Net {
    fn new(tag: &str) -> Self {
        let net = Net { name: format!("rh-{tag}-{}", std::process::id()) };
        tool("ip", &["netns", "add", &net.name]);
        let inside = |args: &[&str]| tool("ip", &[&["-n", &net.name], args].concat());
        inside(&["tuntap", "add", "tap0", "mode", "tap"]);
        inside(&["address", "add", "10.77.1.1/24", "dev", "tap0"]);
        inside(&["link", "set", "tap0", "up"]);
        net
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    fn pings(&self) -> bool {
        let mut ping = self.command("ping");
        ping.args(["-c1", "-W1", ADDRESS]).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    }

    /// What the guest's service says: boot id and counter.
    fn ask(&self) -> Option<(String, u64)> {
        let namespace = File::open(format!("/run/netns/{}", self.name)).unwrap();
        // The namespace of one thread, which ends with the answer.
        let asking = thread::spawn(move || {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let to: SocketAddr = format!("{ADDRESS}:7777").parse().unwrap();
            let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(1)).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
            let mut line = String::new();
            stream.read_to_string(&mut line).ok()?;
            let (boot, counter) = line.trim().split_once(' ')?;
            Some((boot.to_owned(), counter.parse().ok()?))
        });
        asking.join().unwrap()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

/// A running QEMU; killed with the value.
struct Machine {
    process: Child,
    monitor: PathBuf,
}

impl Machine {
    fn start(net: &Net, machine: &str, disk: &Path, seed: &Path) -> Self {
        Self::with_memory("128", net, machine, disk, seed)
    }

    fn with_memory(mib: &str, net: &Net, machine: &str, disk: &Path, seed: &Path) -> Self {
        let monitor = disk.with_extension("monitor");
        let _ = std::fs::remove_file(&monitor);
        let drive = |file: &Path| format!("if=virtio,format=raw,file={}", file.display());
        let mut qemu = net.command("qemu-system-x86_64");
        qemu.args(["-machine", machine, "-accel", "tcg,thread=multi", "-m", mib, "-nodefaults", "-nographic"])
            .args(["-serial", &format!("file:{}", disk.with_extension("console").display())])
            .args(["-monitor", &format!("unix:{},server=on,wait=off", monitor.display())])
            .args(["-drive", &drive(disk), "-drive", &format!("{},readonly=on", drive(seed))])
            .args(["-netdev", "tap,id=net,ifname=tap0,script=no,downscript=no"])
            .args(["-device", &format!("virtio-net-pci,romfile=,netdev=net,mac={MAC}")]);
        Machine { process: qemu.stdin(Stdio::null()).spawn().unwrap(), monitor }
    }

    fn press_power_button(&self) -> std::io::Result<()> {
        let mut monitor = UnixStream::connect(&self.monitor)?;
        monitor.write_all(b"system_powerdown\n")?;
        // The monitor acts on a line before it closes: its echo says that it has it.
        monitor.set_read_timeout(Some(PATIENCE))?;
        let mut seen = Vec::new();
        let mut buffer = [0; 256];
        while !String::from_utf8_lossy(&seen).contains("powerdown") {
            let n = monitor.read(&mut buffer)?;
            assert_ne!(n, 0, "the monitor went away");
            seen.extend(&buffer[..n]);
        }
        Ok(())
    }

    /// Presses the power button, again every 5 s as `guest stop` does, until the machine is off.
    fn switch_off(&mut self) {
        let mut pressed = None::<Instant>;
        let status = eventually("power-off", FIRST_BOOT, || {
            if pressed.is_none_or(|at| at.elapsed() > Duration::from_secs(5)) {
                // It may have gone just now.
                let _ = self.press_power_button();
                pressed = Some(Instant::now());
            }
            self.process.try_wait().unwrap()
        });
        assert!(status.success());
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // `ip netns exec` replaces itself by QEMU, so this is its process.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const NO_WISHES: &str = "#cloud-config\n";

fn seed(directory: &Path, user_data: &str) -> PathBuf {
    let image = directory.join("seed.img");
    let network = format!(
        "version: 2\nethernets:\n  net0:\n    match:\n      macaddress: \"{MAC}\"\n    set-name: eth0\n    \
         dhcp4: false\n    addresses:\n      - {ADDRESS}/24\n    routes:\n      - to: 0.0.0.0/0\n        via: 10.77.1.1\n"
    );
    let files = [
        ("meta-data", "instance-id: i1\nlocal-hostname: web1\n"),
        ("user-data", user_data),
        ("network-config", &network),
    ];
    let image_name = image.to_str().unwrap();
    tool("mformat", &["-C", "-i", image_name, "-T", "2048", "-h", "16", "-s", "63", "-v", "cidata", "::"]);
    for (name, content) in files {
        let file = directory.join(name);
        std::fs::write(&file, content).unwrap();
        tool("mcopy", &["-i", image_name, file.to_str().unwrap(), &format!("::{name}")]);
    }
    image
}

async fn fresh_disk(kind: ImageKind, directory: &Path) -> PathBuf {
    let image = guest_image::build(kind, None, &Ui::hidden()).await.unwrap();
    let disk = directory.join("disk.img");
    tool("cp", &["--sparse=always", image.to_str().unwrap(), disk.to_str().unwrap()]);
    disk
}

fn history(disk: &Path) -> Vec<guest_image::Record> {
    let mut ring = vec![0; RING_LENGTH as usize];
    File::open(disk).unwrap().read_exact_at(&mut ring, RING_START).unwrap();
    guest_image::history(&ring).unwrap()
}

#[tokio::test]
async fn the_tiny_guest_counts_on_after_the_power_went() {
    let directory = tempfile::tempdir().unwrap();
    let (disk, seed) = (fresh_disk(ImageKind::Tiny, directory.path()).await, seed(directory.path(), NO_WISHES));
    let net = Net::new("power");

    let machine = Machine::start(&net, "pc", &disk, &seed);
    eventually("ping", PATIENCE, || net.pings().then_some(()));
    let (boot, first) = eventually("answer", PATIENCE, || net.ask());
    let (again, last) =
        eventually("a higher counter", PATIENCE, || net.ask().filter(|(_, counter)| *counter > first + 2));
    assert_eq!(boot, again);
    drop(machine);

    let records = history(&disk);
    assert!(records.last().unwrap().seq >= last, "acknowledged but not on the disk");
    assert!(records.iter().all(|r| r.boot == boot));

    let machine = Machine::start(&net, "q35", &disk, &seed);
    let (other, resumed) = eventually("answer after the restart", PATIENCE, || net.ask());
    assert_ne!(boot, other);
    assert!(resumed > last, "{resumed} after {last}");
    drop(machine);
    assert!(history(&disk).iter().any(|r| r.boot == other && r.seq > last));
}

#[tokio::test]
async fn the_tiny_guest_powers_off_at_the_button() {
    let directory = tempfile::tempdir().unwrap();
    let (disk, seed) = (fresh_disk(ImageKind::Tiny, directory.path()).await, seed(directory.path(), NO_WISHES));
    let net = Net::new("button");
    let mut machine = Machine::start(&net, "q35", &disk, &seed);
    eventually("answer", PATIENCE, || net.ask());
    machine.press_power_button().unwrap();
    let status = eventually("power-off", PATIENCE, || machine.process.try_wait().unwrap());
    assert!(status.success());
}

/// Says on the console what came of cloud-init, once that has ended.
const REPORT: &str = "#cloud-config
runcmd:
  - [sh, -c, \"(cloud-init status --wait --long; systemctl --failed --no-legend | wc -l; grep -c WARNING /var/log/cloud-init.log; \\
      echo END-OF-REPORT) >/dev/ttyS0 2>&1 &\"]
";

#[tokio::test]
async fn the_debian_guest_ends_cloud_init_and_obeys_its_button_at_any_time() {
    let directory = tempfile::tempdir().unwrap();
    let (disk, seed) = (fresh_disk(ImageKind::Debian, directory.path()).await, seed(directory.path(), REPORT));
    let net = Net::new("debian");
    let console =
        || String::from_utf8_lossy(&std::fs::read(disk.with_extension("console")).unwrap_or_default()).into_owned();
    // Long before the first boot is done.
    let mut machine = Machine::with_memory("512", &net, "q35", &disk, &seed);
    eventually("the button is listened to", FIRST_BOOT, || {
        console().contains("Started \u{1b}[0;1;39mpower-button").then_some(())
    });
    machine.switch_off();
    assert!(!console().contains("END-OF-REPORT"), "it booted to its end first");

    fresh_disk(ImageKind::Debian, directory.path()).await;
    let mut machine = Machine::with_memory("512", &net, "q35", &disk, &seed);
    eventually("cloud-init ends", FIRST_BOOT, || console().contains("END-OF-REPORT").then_some(()));
    let report = console();
    let lines: Vec<&str> = report.lines().map(str::trim).collect();
    assert!(lines.contains(&"status: done"), "{report}");
    let end = lines.iter().position(|line| *line == "END-OF-REPORT").unwrap();
    assert_eq!(lines[end - 2..end], ["0", "0"], "failed units, warnings of cloud-init: {report}");
    assert!(net.pings());
    machine.switch_off();
}
