//! What a host is: the types.

use serde::Serialize;
use std::net::IpAddr;

/// Everything one look at a host shows. What the host does not say is empty, zero or `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Facts {
    /// Its own host name.
    pub hostname: String,
    /// Identity of this boot.
    pub boot_id: String,
    /// Seconds since it booted.
    pub uptime: f64,
    /// Run queue over the last minute.
    pub load: f64,
    /// The machine.
    pub machine: Machine,
    /// The operating system.
    pub os: Os,
    /// The processors.
    pub cpu: Cpu,
    /// The memory.
    pub memory: Memory,
    /// NUMA nodes.
    pub numa: Vec<NumaNode>,
    /// Network interfaces but the loopback.
    pub nics: Vec<Nic>,
    /// Ports of InfiniBand adapters.
    pub infiniband: Vec<IbPort>,
    /// Whole disks.
    pub disks: Vec<Disk>,
    /// Ceph on it that rackhand did not set up, as far as it shows.
    pub ceph: CephTraces,
    /// Running guests on it.
    pub virtualization: Virtualization,
    /// Its clock.
    pub clock: Clock,
    /// Versions of what matters here.
    pub software: Software,
    /// What its system is run by; only where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Units of Ceph, libvirt and rackhand; only where they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<Unit>,
    /// File systems of / and /var/lib.
    pub space: Vec<Space>,
    /// Seconds from asking for a command to the first byte of its output, at best.
    pub exec_latency: Option<f64>,
}

/// The machine, as its firmware describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Maker.
    pub vendor: String,
    /// Model.
    pub model: String,
    /// Serial number; on Dell machines the service tag.
    pub serial: String,
    /// UUID.
    pub uuid: String,
    /// Firmware version.
    pub bios: String,
}

/// The operating system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Os {
    /// `debian`, `ubuntu`, ...
    pub id: String,
    /// `12`, `24.04`, ...
    pub version: String,
    /// Its full name.
    pub name: String,
    /// Kernel release.
    pub kernel: String,
    /// Machine architecture.
    pub arch: String,
}

/// The processors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cpu {
    /// Model name of the first.
    pub model: String,
    /// Sockets in use.
    pub sockets: u32,
    /// Cores in all.
    pub cores: u32,
    /// Hardware threads in all.
    pub threads: u32,
}

/// The memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Usable by the system.
    pub total: u64,
    /// Free for new programs.
    pub available: u64,
    /// Swap.
    pub swap: u64,
    /// In huge pages.
    pub huge: u64,
}

/// A NUMA node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NumaNode {
    /// Its number.
    pub node: u32,
    /// Its hardware threads, as a list of ranges.
    pub cpus: String,
    /// Its memory in bytes.
    pub memory: u64,
}

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Nic {
    /// Name.
    pub name: String,
    /// `ethernet`, `infiniband`, or what the kernel calls a virtual one: `bridge`, `vlan`, `bond`, `veth`...
    pub kind: String,
    /// Driver of a physical one.
    pub driver: Option<String>,
    /// Hardware address.
    pub mac: String,
    /// Maximum transmission unit.
    pub mtu: u32,
    /// Whether it is up with a link.
    pub link: bool,
    /// Speed in Mbit/s, where there is a link that says.
    pub speed: Option<u64>,
    /// Addresses with prefix length, link-local ones left out.
    pub addresses: Vec<String>,
    /// Those among them that the network gave and may take back: by DHCP, or made from a router's announcement.
    pub dynamic: Vec<String>,
    /// Those among them that are made up for a while (privacy extensions, RFC 8981).
    pub temporary: Vec<String>,
    /// The bridge or bond it is a port of.
    pub master: Option<String>,
    /// NUMA node of a physical one.
    pub numa: Option<u32>,
}

impl Nic {
    /// Its addresses that other hosts may be told: not temporary, and not made from an announced IPv6 prefix.
    pub fn lasting(&self) -> impl Iterator<Item = &str> {
        let passes = |address: &&String| {
            let announced = self.dynamic.contains(*address) && address.contains(':');
            !announced && !self.temporary.contains(*address)
        };
        self.addresses.iter().filter(passes).map(String::as_str)
    }

    /// Whether the interface has this address.
    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().filter_map(|a| a.split('/').next()).any(|a| a.parse() == Ok(address))
    }
}

/// A port of an InfiniBand adapter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IbPort {
    /// Adapter.
    pub device: String,
    /// Number of the port.
    pub port: String,
    /// `ACTIVE`, `DOWN`, ...
    pub state: String,
    /// Speed in Mbit/s.
    pub speed: u64,
    /// `InfiniBand` or `Ethernet`.
    pub link_layer: String,
    /// Network interfaces of the adapter.
    pub nics: Vec<String>,
}

/// A whole disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// Device node.
    pub path: String,
    /// Stable names: by-id and by-path.
    pub ids: Vec<String>,
    /// World wide name.
    pub wwn: String,
    /// The ways to it, where there are several: nodes and their names of paths.
    pub paths: Vec<String>,
    /// Whether multipath joins those ways into one device.
    pub multipath: bool,
    /// Size in bytes.
    pub size: u64,
    /// Whether it spins.
    pub rotational: bool,
    /// Model.
    pub model: String,
    /// Serial number.
    pub serial: String,
    /// `sas`, `sata`, `nvme`, ...
    pub transport: String,
    /// Whether it cannot be written.
    pub read_only: bool,
    /// What is on it, each as `name: what`; empty for an empty disk.
    pub content: Vec<String>,
    /// Where it or a part of it is mounted.
    pub mounted: Vec<String>,
    /// Ceph storage on it.
    pub osd: Option<Osd>,
}

impl Disk {
    /// Whether nothing is on it, nothing uses it.
    pub fn is_empty(&self) -> bool {
        self.content.is_empty() && self.mounted.is_empty()
    }

    /// The name to write into an inventory: that of the disk itself, or else of its slot.
    pub fn stable_name(&self) -> Option<&str> {
        let rank = |id: &str| match id.strip_prefix("/dev/disk/") {
            Some(name) if name.starts_with("by-id/wwn-") => Some(0),
            Some(name) if name.starts_with("by-id/") => Some(1),
            Some(name) if name.starts_with("by-path/") => Some(2),
            _ => None,
        };
        let ranked = self.ids.iter().filter_map(|id| Some((rank(id)?, id.as_str())));
        ranked.min().map(|(_, id)| id)
    }

    /// Whether this path names it.
    pub fn is_named(&self, path: &str) -> bool {
        self.path == path || self.ids.iter().any(|id| id == path)
    }
}

/// A Ceph OSD's label on a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Osd {
    /// The cluster it belongs to.
    pub fsid: String,
    /// Its number, once its making got that far.
    pub id: Option<u32>,
}

/// What shows that Ceph is, or was, on a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CephTraces {
    /// Clusters whose daemons cephadm (or another tool that keeps them below `/var/lib/ceph/FSID`) runs here.
    pub containers: Vec<String>,
    /// Other tools whose Ceph is there (Rook, MicroCeph, Proxmox), each with a place that shows it.
    pub foreign: Vec<String>,
    /// The cluster of `/etc/ceph/ceph.conf`.
    pub conf: Option<String>,
    /// Whether something listens on a port of monitors, 3300 or 6789.
    pub mon_listens: bool,
    /// Names of monitors whose stores are in their plain place.
    pub mons: Vec<String>,
}

/// Running guests on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Virtualization {
    /// Whether the processor and the kernel let guests run at full speed.
    pub kvm: bool,
    /// What it itself runs in, where it is no bare machine.
    pub inside: Option<String>,
}

/// Its clock.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Clock {
    /// Seconds since 1970 when it was asked.
    pub now: f64,
    /// Seconds it differs from this machine's clock, as far as the round trip allows to tell.
    pub difference: f64,
    /// Half the round trip: how far `difference` may be off.
    pub precision: f64,
    /// What sets it: `chrony`, `timesyncd`.
    pub source: Option<String>,
    /// Seconds it is off its source, where that is known.
    pub offset: Option<f64>,
}

/// Versions of what matters here; `None` where it is not installed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Software {
    /// Ceph's clients.
    pub ceph: Option<String>,
    /// Ceph's OSD daemon.
    pub ceph_osd: Option<String>,
    /// libvirt.
    pub libvirt: Option<String>,
    /// QEMU.
    pub qemu: Option<String>,
}

/// What its system is run by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Platform {
    /// What configures the network: `networkd`, `netplan`, `ifupdown`, `networkmanager`, `unknown`.
    pub network: String,
    /// Whether there is a hardware watchdog.
    pub watchdog: bool,
    /// The kind of container it is; empty on a machine.
    pub container: String,
}

/// A unit of its systemd.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// `active`, `inactive`, `failed`...
    pub state: String,
}

/// A file system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Space {
    /// Where it is mounted.
    pub mount: String,
    /// Size in bytes.
    pub size: u64,
    /// Free for programs, in bytes.
    pub free: u64,
}

impl Facts {
    /// The disk a path of the inventory names.
    pub fn disk(&self, path: &str) -> Option<&Disk> {
        self.disks.iter().find(|disk| disk.is_named(path))
    }

    /// The interface that has an address.
    pub fn nic_with(&self, address: IpAddr) -> Option<&Nic> {
        self.nics.iter().find(|nic| nic.has(address))
    }
}
