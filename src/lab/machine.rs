//! One boot of a host: from cables and mounts to a running container, and back to nothing.
#![allow(clippy::disallowed_methods, reason = "starts what is to outlive the command")]

use super::cgroup::JOIN;
use super::hardware::Hardware;
use super::mounts::unmount;
use super::names::Wire;
use super::network::{self, Namespace};
use super::rootfs;
use super::store::HostKind;
use super::tool::spawn_failure;
use super::vm;
use crate::error::{Failure, ResultExt};
use nix::mount::{MsFlags, mount};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use tokio::process::{Child, Command};

/// What systemd-nspawn exits with when the system inside asked for a reboot.
const REBOOT: i32 = 133;
/// A node's `meminfo` of which 256 MiB are initialised.
const COLD_NODE: &str =
    "Node 0 MemTotal:         262144 kB\nNode 0 MemFree:          131072 kB\nNode 0 MemUsed:          131072 kB\n";
/// How a boot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The system inside wants to start again.
    Reboot,
    /// It shut down or was killed.
    Off,
}

/// A running host.
#[derive(Debug)]
pub(super) struct Machine {
    child: Child,
    tie: Tie,
}

/// What else a running host is tied to.
#[derive(Debug)]
enum Tie {
    /// Keeps a container's network alive.
    Container { _namespace: Namespace },
    /// The socket of a virtual machine's monitor.
    Vm { monitor: PathBuf },
}

impl Hardware {
    /// Boots the host; `partitioned` wires are laid but not plugged into their switch.
    pub(super) async fn boot(&self, partitioned: &[Wire]) -> Result<Machine, Failure> {
        match self.try_boot(partitioned).await {
            Ok(machine) => Ok(machine),
            Err(failure) => {
                // What was half made would be in the way of the next boot.
                let _ = self.clear().await;
                Err(failure)
            }
        }
    }

    async fn try_boot(&self, partitioned: &[Wire]) -> Result<Machine, Failure> {
        self.clear().await?;
        self.cgroup.create()?;
        if self.kind == HostKind::Vm {
            let child = vm::boot(self, partitioned).await?;
            return Ok(Machine { child, tie: Tie::Vm { monitor: self.dir.monitor() } });
        }
        let sys = self.dir.sys();
        // A sysfs shows the network devices of the namespace it was mounted in.
        let (namespace, ()) =
            Namespace::create(|| Ok(mount(Some("sysfs"), &sys, Some("sysfs"), MsFlags::empty(), None::<&str>)?))?;
        self.mount_dmi()?;
        self.mount_node_memory()?;
        self.mount_root()?;
        for wire in [Wire::Management, Wire::Storage] {
            network::lay_cable(self.host, wire, &namespace).await?;
            if partitioned.contains(&wire) {
                network::plug(self.host, wire, false).await?;
            }
        }
        let links = self.dir.root().join("etc/tmpfiles.d/lab-disks.conf");
        super::store::write(&links, rootfs::disk_links(self.host, &self.loops).as_bytes(), 0o644)?;
        let child = self.spawn(&namespace)?;
        Ok(Machine { child, tie: Tie::Container { _namespace: namespace } })
    }

    /// A layer over /sys/class, because where the machine has no DMI there is nothing to mount its strings on.
    fn mount_dmi(&self) -> Result<(), Failure> {
        let class = self.dir.sys().join("class");
        let layers = format!("lowerdir={}:{}", self.dir.dmi().display(), class.display());
        mount(Some("overlay"), &class, Some("overlay"), MsFlags::MS_RDONLY, Some(layers.as_str()))
            .while_doing(|| format!("cannot mount {}", class.display()))
    }

    /// A NUMA node that counts only the memory it has initialised so far, as a machine does that was just booted or
    /// has hot-added memory: whoever takes a host's size from there has no room for guests in any test.
    fn mount_node_memory(&self) -> Result<(), Failure> {
        let cold = self.dir.node_memory();
        super::store::write(&cold, COLD_NODE.as_bytes(), 0o644)?;
        let meminfo = self.dir.sys().join("devices/system/node/node0/meminfo");
        if !meminfo.exists() {
            return Ok(());
        }
        mount(Some(&cold), &meminfo, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .while_doing(|| format!("cannot mount {}", meminfo.display()))
    }

    fn mount_root(&self) -> Result<(), Failure> {
        let root = self.dir.root();
        let mut lower = self.image.display().to_string();
        for layer in 0..self.dir.count_layers()? {
            lower = format!("{}:{lower}", self.dir.layer(layer).display());
        }
        let (upper, work) = (self.dir.upper(), self.dir.work());
        // Index and metacopy would tie a layer to the very files it was made over; a saved one lies over copies.
        let layers =
            format!("index=off,metacopy=off,lowerdir={lower},upperdir={},workdir={}", upper.display(), work.display());
        mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(layers.as_str()))
            .while_doing(|| format!("cannot mount {}", root.display()))
    }

    fn spawn(&self, namespace: &Namespace) -> Result<Child, Failure> {
        let console = fs::File::options().create(true).append(true).open(self.dir.console())?;
        let errors = console.try_clone()?;
        let mut command = Command::new("sh");
        command.args(["-c", JOIN]).arg(self.cgroup.procs()).arg("systemd-nspawn");
        command.args(["--quiet", "--boot", "--keep-unit", "--register=no", "--settings=no", "--capability=all"]);
        command.args(["--link-journal=no", "--resolv-conf=off", "--timezone=off", "--console=read-only"]);
        // SIGTERM to nspawn becomes a power-off inside.
        command.arg("--kill-signal=SIGRTMIN+4");
        command.arg(format!("--machine={}", self.host.name()));
        command.arg(format!("--directory={}", self.dir.root().display()));
        command.arg(format!("--network-namespace-path={}", namespace.path().display()));
        command.arg(format!("--bind-ro={}:/sys", self.dir.sys().display()));
        for node in self.loops.iter().cloned().chain(extra_devices()) {
            command.arg(format!("--bind={node}"));
        }
        // Otherwise scopes of dead guests are never released where the machine mounts the old hierarchies too.
        command.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
        // The host's own network settings are its own to change; those of the machine stay out of reach.
        command.env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "network");
        command.stdin(Stdio::null()).stdout(console).stderr(errors);
        command.spawn().map_err(|e| spawn_failure("sh", e))
    }

    /// Kills whatever runs of the host and takes its mounts and cables away.
    pub(super) async fn clear(&self) -> Result<(), Failure> {
        self.cgroup.kill_and_remove().await?;
        for path in [self.dir.root(), self.dir.sys()] {
            unmount(&path)?;
        }
        for wire in [Wire::Management, Wire::Storage] {
            network::remove_link(&self.host.link(wire)).await?;
        }
        Ok(())
    }
}

impl Machine {
    /// Waits until it stops by itself or was killed.
    pub(super) async fn ended(&mut self) -> End {
        match self.child.wait().await {
            Ok(status) => end_of(status),
            Err(_) => End::Off,
        }
    }

    /// Asks the system inside to shut down.
    pub(super) fn press_power_button(&self) -> Result<(), Failure> {
        let Some(id) = self.child.id() else { return Ok(()) };
        if let Tie::Vm { monitor } = &self.tie {
            return vm::press_power_button(monitor);
        }
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(id)?), nix::sys::signal::Signal::SIGTERM)?;
        Ok(())
    }
}

fn end_of(status: ExitStatus) -> End {
    if status.code() == Some(REBOOT) && status.signal().is_none() { End::Reboot } else { End::Off }
}

/// Devices a host gets where the machine has them and they are of use.
fn extra_devices() -> Vec<String> {
    let wanted: &[&str] = if vm::kvm_usable() { &["/dev/kvm", "/dev/vhost-net"] } else { &["/dev/vhost-net"] };
    wanted.iter().filter(|d| Path::new(d).exists()).map(|d| (*d).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_133_alone_is_a_reboot() {
        assert_eq!(end_of(ExitStatus::from_raw(133 << 8)), End::Reboot);
        for raw in [0, 1 << 8, 9, 134 << 8] {
            assert_eq!(end_of(ExitStatus::from_raw(raw)), End::Off, "{raw}");
        }
    }
}
