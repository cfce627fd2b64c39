//! A host as a virtual machine: QEMU on the lab's bridges, with a watchdog and disks that have serial numbers.
#![allow(clippy::disallowed_methods, reason = "starts what is to outlive the command")]

use super::cgroup::JOIN;
use super::hardware::Hardware;
use super::names::{HostPlan, Wire};
use super::network;
use super::rootfs::VENDOR;
use super::tool::spawn_failure;
use super::vm_image::VmImage;
use crate::error::{Failure, ResultExt};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

/// What a host takes: a monitor, a manager and one OSD, with room for small guests.
pub(super) const MEMORY_MIB: u64 = 3072;
const MODEL: &str = "Lab Machine";
/// The kernel's watchdog driver resets the machine; everything else goes through the system's own shutdown.
const COMMAND_LINE: &str = "console=ttyS0 mitigations=off panic=10";
/// What is flushed reaches the machine's page cache and no further, as with the files of a container: it survives the
/// end of QEMU, however that comes, and an installation does not wait for the machine's disk thousands of times.
const CACHE: &str = "cache=unsafe,discard=unmap";
/// The monitor answers in milliseconds unless QEMU is stopped.
const MONITOR: Duration = Duration::from_secs(2);

/// Lays the host's cables and starts QEMU; `partitioned` wires are not plugged into their switch.
pub(super) async fn boot(hardware: &Hardware, partitioned: &[Wire]) -> Result<Child, Failure> {
    for wire in [Wire::Management, Wire::Storage] {
        network::lay_tap(hardware.host, wire).await?;
        if partitioned.contains(&wire) {
            network::plug(hardware.host, wire, false).await?;
        }
    }
    let _ = fs::remove_file(hardware.dir.monitor());
    let console = fs::File::options().create(true).append(true).open(hardware.dir.console())?;
    let mut command = Command::new("sh");
    command.args(["-c", JOIN]).arg(hardware.cgroup.procs()).arg("qemu-system-x86_64");
    command.args(arguments(hardware, kvm_usable()));
    command.stdin(Stdio::null()).stdout(console.try_clone()?).stderr(console);
    command.spawn().map_err(|e| spawn_failure("sh", e))
}

/// QEMU's arguments; none of them is a secret.
fn arguments(hardware: &Hardware, kvm: bool) -> Vec<String> {
    let (host, dir) = (hardware.host, &hardware.dir);
    let mut args = Args::default();
    args.add("-name", host.name());
    args.add("-machine", "q35");
    if kvm {
        args.add("-accel", "kvm").add("-cpu", "host");
    } else {
        args.add("-accel", "tcg,thread=multi").add("-cpu", "max");
    }
    args.add("-smp", "2").add("-m", MEMORY_MIB);
    args.0.extend(["-nodefaults", "-no-user-config", "-nographic"].map(str::to_owned));
    args.add("-smbios", smbios(host));
    args.add("-chardev", format!("file,id=console,append=on,path={}", dir.console().display()));
    args.add("-serial", "chardev:console");
    args.add("-monitor", format!("unix:{},server=on,wait=off", dir.monitor().display()));
    args.add("-kernel", VmImage(hardware.image.clone()).kernel().display());
    args.add("-initrd", dir.initrd().display()).add("-append", COMMAND_LINE);
    args.add("-device", "virtio-rng-pci");
    args.add("-device", "i6300esb").add("-action", "watchdog=reset");
    // The first disk is the host's own: its initramfs looks for it there.
    args.add("-drive", format!("if=none,id=root,format=qcow2,{CACHE},file={}", dir.root_disk().display()));
    args.add("-device", "virtio-blk-pci,drive=root");
    for disk in 0..hardware.disks {
        let file = dir.disk(disk);
        args.add("-drive", format!("if=none,id=disk{disk},format=raw,{CACHE},file={}", file.display()));
        args.add("-device", format!("virtio-blk-pci,drive=disk{disk},serial={}", host.disk_serial(disk)));
    }
    for wire in [Wire::Management, Wire::Storage] {
        let link = host.link(wire);
        args.add("-netdev", format!("tap,id={link},ifname={link},script=no,downscript=no"));
        args.add("-device", format!("virtio-net-pci,romfile=,netdev={link},mac={}", host.mac(wire)));
    }
    args.0
}

#[derive(Default)]
struct Args(Vec<String>);

impl Args {
    fn add(&mut self, flag: &str, value: impl ToString) -> &mut Self {
        self.0.extend([flag.to_owned(), value.to_string()]);
        self
    }
}

fn smbios(host: HostPlan) -> String {
    format!("type=1,manufacturer={VENDOR},product={MODEL},serial={}", host.serial())
}

/// Whether guests can run on the processor itself; the device can exist where they cannot.
pub(super) fn kvm_usable() -> bool {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let able = flags.split_whitespace().any(|f| f == "vmx" || f == "svm");
    able && fs::File::options().read(true).write(true).open("/dev/kvm").is_ok()
}

/// Presses the power button: the system inside shuts down.
pub(super) fn press_power_button(monitor: &Path) -> Result<(), Failure> {
    let doing = || "cannot speak to QEMU's monitor".to_owned();
    let mut stream = UnixStream::connect(monitor).while_doing(doing)?;
    stream.set_read_timeout(Some(MONITOR))?;
    stream.write_all(b"system_powerdown\n").while_doing(doing)?;
    // Its echo says that the monitor has read the line.
    let (mut seen, mut buffer) = (Vec::new(), [0; 256]);
    while !String::from_utf8_lossy(&seen).contains("powerdown") {
        match stream.read(&mut buffer).while_doing(doing)? {
            0 => return Err(Failure::failed("QEMU's monitor hung up")),
            n => seen.extend(&buffer[..n]),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::cgroup::Cgroup;
    use super::super::names::Plan;
    use super::super::store::HostDir;
    use super::*;

    #[test]
    fn disks_have_serial_numbers_and_the_hosts_own_disk_is_first() {
        let hardware = Hardware {
            host: Plan::new(3).host(2),
            dir: HostDir { path: "/lab/h2".into() },
            image: "/image".into(),
            kind: super::super::HostKind::Vm,
            loops: Vec::new(),
            disks: 2,
            cgroup: Cgroup::of_lab(&"rack".parse().unwrap()).unwrap(),
        };
        let args = arguments(&hardware, false);
        let drives: Vec<&String> = args.iter().filter(|a| a.starts_with("virtio-blk-pci")).collect();
        assert_eq!(
            drives,
            [
                "virtio-blk-pci,drive=root",
                "virtio-blk-pci,drive=disk0,serial=RH00302-disk0",
                "virtio-blk-pci,drive=disk1,serial=RH00302-disk1"
            ]
        );
        assert!(args.contains(&"tap,id=rh3-m2,ifname=rh3-m2,script=no,downscript=no".to_owned()));
        assert!(arguments(&hardware, true).contains(&"kvm".to_owned()));
    }

    #[test]
    fn serial_numbers_fit_into_virtios_twenty_characters() {
        assert!(Plan::new(254).host(40).disk_serial(7).len() <= 20);
    }
}
