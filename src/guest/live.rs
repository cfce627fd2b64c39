//! What a running domain has beside its guest's definition: another tool's snapshot, a disk or an ISO attached by hand, more
//! processors. Pure.

use super::spec::Guest;
use roxmltree::{Document, Node};
use serde::Serialize;
use uuid::Uuid;

/// A disk of a running domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveDisk {
    /// Its target, for example `vda`.
    pub target: String,
    /// `disk`, `cdrom`, ...
    pub device: String,
    /// The file, device or image it reads and writes; none for an empty drive.
    pub source: Option<String>,
    /// Whether anything of it lies on the host.
    pub on_host: bool,
    /// What it is laid over, the nearest first.
    pub backing: Vec<String>,
    /// Where a block job copies it to.
    pub mirror: Option<String>,
}

impl LiveDisk {
    fn has(&self, image: &str) -> bool {
        self.source.iter().chain(&self.backing).any(|source| source == image)
    }
}

/// What a running domain has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Its disks.
    pub disks: Vec<LiveDisk>,
    /// Hardware addresses of its NICs.
    pub nics: Vec<String>,
    /// Virtual processors it has at the moment.
    pub cpus: Option<u32>,
    /// Devices of the host that it was given.
    pub passed_through: usize,
}

/// Something that a running domain has beside its guest's definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Foreign {
    /// A disk of the guest writes to something that is laid over its image: with the next stop that is gone.
    Overlay {
        /// Target of the disk.
        disk: String,
        /// What it writes to.
        source: String,
    },
    /// A block job copies a disk.
    Copied {
        /// Target of the disk.
        disk: String,
        /// Where to.
        to: String,
    },
    /// A disk or a drive that was attached by hand.
    Attached {
        /// Its target.
        disk: String,
        /// `disk`, `cdrom`, ...
        device: String,
        /// What it reads.
        source: String,
        /// Whether that lies on the host.
        on_host: bool,
    },
    /// A NIC that was attached by hand.
    Nic {
        /// Its hardware address.
        mac: String,
    },
    /// A device of the host.
    PassedThrough,
    /// Another number of processors.
    Processors {
        /// What it has.
        live: u32,
        /// What its definition says.
        defined: u32,
    },
}

impl std::fmt::Display for Foreign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Foreign::Overlay { disk, source } => write!(
                f,
                "disk {disk} writes to {source}, which another tool has laid over its image; what the guest has written \
                 since is lost when it stops"
            ),
            Foreign::Copied { disk, to } => write!(f, "a block job copies disk {disk} to {to}"),
            Foreign::Attached { disk, device, source, on_host } => {
                let on_host = if *on_host { ", which lies on the host" } else { "" };
                write!(f, "{device} {disk} was attached beside its definition: {source}{on_host}")
            }
            Foreign::Nic { mac } => write!(f, "the NIC {mac} was attached beside its definition"),
            Foreign::PassedThrough => f.write_str("it was given a device of its host"),
            Foreign::Processors { live, defined } => {
                write!(f, "it has {live} processors, its definition says {defined}")
            }
        }
    }
}

impl Foreign {
    /// Whether data is lost when the guest stops.
    pub fn is_lost_with_a_stop(&self) -> bool {
        matches!(self, Foreign::Overlay { .. })
    }

    /// What undoes it on the host. The domain is named by its UUID, since names may collide.
    pub fn cure(&self, guest: Uuid, host: &str) -> String {
        match self {
            Foreign::Overlay { disk, .. } => {
                format!(
                    "on {host}: `virsh blockcommit {guest} {disk} --active --pivot` merges it into the guest's image"
                )
            }
            Foreign::Copied { disk, .. } => {
                format!("let it end, or abort it on {host}: `virsh blockjob {guest} {disk} --abort`")
            }
            Foreign::Attached { disk, device, .. } if device == "cdrom" || device == "floppy" => {
                format!("on {host}: `virsh change-media {guest} {disk} --eject`")
            }
            Foreign::Attached { disk, .. } => format!("on {host}: `virsh detach-disk {guest} {disk}`"),
            Foreign::Nic { mac } => format!("on {host}: `virsh detach-interface {guest} bridge --mac {mac}`"),
            Foreign::PassedThrough => format!(
                "on {host}: `virsh detach-device {guest} FILE`, with its `<hostdev>` element of `virsh dumpxml {guest}`"
            ),
            Foreign::Processors { .. } => "its next start gives it what its definition says".to_owned(),
        }
    }
}

impl Live {
    /// Reads a live domain XML; none when it is none.
    pub fn read(xml: &str) -> Option<Self> {
        let document = Document::parse(xml).ok()?;
        let root = document.root_element();
        let devices = child(root, "devices")?;
        let all = |name: &'static str| devices.children().filter(move |node| node.has_tag_name(name));
        let vcpu = child(root, "vcpu");
        let cpus = vcpu.and_then(|node| node.attribute("current").or_else(|| node.text())?.trim().parse().ok());
        let mac = |nic: Node| Some(child(nic, "mac")?.attribute("address")?.to_owned());
        Some(Live {
            disks: all("disk").map(disk).collect(),
            nics: all("interface").filter_map(mac).collect(),
            cpus,
            passed_through: all("hostdev").count(),
        })
    }

    /// The files, devices and images it has open, down to what is laid over what.
    pub fn images(&self) -> impl Iterator<Item = &str> {
        self.disks.iter().flat_map(|disk| disk.source.iter().chain(&disk.backing)).map(String::as_str)
    }

    /// What keeps it on its host: disks that lie there, block jobs, devices of the host.
    pub fn holds_on_host(&self) -> Vec<Foreign> {
        let mut found = Vec::new();
        for disk in &self.disks {
            let Some(source) = disk.source.clone() else { continue };
            let (target, device) = (disk.target.clone(), disk.device.clone());
            if let Some(to) = &disk.mirror {
                found.push(Foreign::Copied { disk: target.clone(), to: to.clone() });
            }
            if disk.on_host {
                found.push(match disk.backing.is_empty() {
                    true => Foreign::Attached { disk: target, device, source, on_host: true },
                    false => Foreign::Overlay { disk: target, source },
                });
            }
        }
        found.extend((self.passed_through > 0).then_some(Foreign::PassedThrough));
        found
    }

    /// What it has beside a guest's definition; the images lie in this pool.
    pub fn foreign(&self, guest: &Guest, pool: &str) -> Vec<Foreign> {
        let image = |name: &str| format!("{pool}/{name}");
        let own: Vec<String> =
            guest.disks.iter().map(|d| image(&d.image)).chain([image(&guest.seed_image())]).collect();
        let mut found = Vec::new();
        for disk in &self.disks {
            let Some(source) = &disk.source else { continue };
            let target = disk.target.clone();
            if let Some(to) = &disk.mirror {
                found.push(Foreign::Copied { disk: target.clone(), to: to.clone() });
            }
            if own.contains(source) {
                continue;
            }
            found.push(match own.iter().any(|image| disk.has(image)) {
                true => Foreign::Overlay { disk: target, source: source.clone() },
                false => Foreign::Attached {
                    disk: target,
                    device: disk.device.clone(),
                    source: source.clone(),
                    on_host: disk.on_host,
                },
            });
        }
        let added = |mac: &&String| guest.nics.iter().all(|nic| !nic.mac.eq_ignore_ascii_case(mac));
        found.extend(self.nics.iter().filter(added).map(|mac| Foreign::Nic { mac: mac.clone() }));
        found.extend((self.passed_through > 0).then_some(Foreign::PassedThrough));
        let defined = guest.cpus;
        found.extend(self.cpus.filter(|n| *n != defined).map(|live| Foreign::Processors { live, defined }));
        found
    }
}

fn child<'a, 'i>(node: Node<'a, 'i>, name: &'static str) -> Option<Node<'a, 'i>> {
    node.children().find(|child| child.has_tag_name(name))
}

fn disk(node: Node) -> LiveDisk {
    let mut on_host = is_on_host(node);
    let mut backing = Vec::new();
    let mut layer = node.children().find(|child| child.has_tag_name("backingStore"));
    while let Some(below) = layer {
        if let Some(source) = source(below) {
            on_host |= is_on_host(below);
            backing.push(source);
        }
        layer = below.children().find(|child| child.has_tag_name("backingStore"));
    }
    let named = |name: &str, attribute: &str| {
        let element = node.children().find(|child| child.has_tag_name(name))?;
        element.attribute(attribute).map(str::to_owned)
    };
    let mirror = node.children().find(|child| child.has_tag_name("mirror"));
    LiveDisk {
        target: named("target", "dev").unwrap_or_default(),
        device: node.attribute("device").unwrap_or("disk").to_owned(),
        source: source(node),
        on_host,
        backing,
        mirror: mirror.map(|mirror| source(mirror).unwrap_or_else(|| "another place".to_owned())),
    }
}

/// Whether a disk or a layer of one lies on the host rather than on the network.
fn is_on_host(node: Node) -> bool {
    node.attribute("type").is_some_and(|kind| kind != "network") && source(node).is_some()
}

/// The file, device, directory or network name behind a disk or a layer of one.
fn source(node: Node) -> Option<String> {
    let source = node.children().find(|child| child.has_tag_name("source"))?;
    let names = ["file", "dev", "dir", "name", "volume"];
    let text = names.iter().find_map(|name| source.attribute(*name)).or_else(|| source.attribute("type"))?;
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::domain::{sample_inventory, xml};
    use super::super::spec::sample;
    use super::*;
    use crate::fuzz::{Fuzzer, kind_of};

    /// A guest's own domain XML with something put in before the end of its devices.
    fn live(guest: &Guest, more: &str) -> Live {
        let text = xml(guest, &sample_inventory()).unwrap().replace("</devices>", &format!("{more}</devices>"));
        Live::read(&text).unwrap()
    }

    fn told(guest: &Guest, live: &Live) -> Vec<String> {
        live.foreign(guest, &sample_inventory().ceph.pool).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_guest_as_it_was_defined_has_nothing_foreign() {
        let guest = sample("web1");
        assert_eq!(told(&guest, &live(&guest, "")), Vec::<String>::new());
        let empty = "<disk type='file' device='cdrom'><target dev='sda'/></disk>";
        assert_eq!(told(&guest, &live(&guest, empty)), Vec::<String>::new(), "an empty drive holds nothing");
    }

    #[test]
    fn another_tools_snapshot_is_an_overlay() {
        let guest = sample("web1");
        let text = xml(&guest, &sample_inventory()).unwrap();
        let own = format!("{}/{}", sample_inventory().ceph.pool, guest.disks[0].image);
        let (before, rest) = text.split_once("<disk type='network'").unwrap();
        let (_, after) = rest.split_once("</disk>").unwrap();
        let overlay = format!(
            "{before}<disk type='file' device='disk'><source file='/var/tmp/web1.snap'/><backingStore type='network'>\
             <format type='raw'/><source protocol='rbd' name='{own}'/></backingStore><target dev='vda'/></disk>{after}"
        );
        let live = Live::read(&overlay).unwrap();
        let found = live.foreign(&guest, &sample_inventory().ceph.pool);
        assert!(
            matches!(&found[..], [Foreign::Overlay { disk, source }] if disk == "vda" && source == "/var/tmp/web1.snap")
        );
        assert!(found[0].is_lost_with_a_stop());
        assert_eq!(live.holds_on_host(), found);
        assert!(
            found[0].cure(guest.uuid, "h1").contains(&format!("virsh blockcommit {} vda --active --pivot", guest.uuid))
        );
        assert!(live.images().any(|image| image == own));
    }

    #[test]
    fn what_was_attached_by_hand_is_named() {
        let mut guest = sample("web1");
        let iso = "<disk type='file' device='cdrom'><source file='/root/a.iso'/><target dev='sda'/><readonly/></disk>";
        let found = live(&guest, iso).foreign(&guest, &sample_inventory().ceph.pool);
        assert_eq!(found, live(&guest, iso).holds_on_host());
        assert!(
            found[0].cure(guest.uuid, "h1").contains(&format!("change-media {} sda --eject", guest.uuid)),
            "{found:?}"
        );
        let volume = "<disk type='network' device='disk'><source protocol='nbd' name='x'/><target dev='vdx'/></disk>";
        let found = live(&guest, volume).foreign(&guest, &sample_inventory().ceph.pool);
        assert!(matches!(&found[..], [Foreign::Attached { on_host: false, .. }]), "{found:?}");
        assert!(live(&guest, volume).holds_on_host().is_empty() && !found[0].is_lost_with_a_stop());
        let nic = "<interface type='bridge'><mac address='52:54:00:aa:bb:cc'/></interface><hostdev mode='subsystem'/>";
        insta::assert_snapshot!(told(&guest, &live(&guest, nic)).join("\n"), @r"
        the NIC 52:54:00:aa:bb:cc was attached beside its definition
        it was given a device of its host
        ");
        let grown = live(&guest, "");
        guest.cpus = 1;
        assert_eq!(told(&guest, &grown), ["it has 2 processors, its definition says 1"]);
    }

    #[test]
    fn a_disk_that_a_block_job_copies_is_named() {
        let guest = sample("web1");
        let text = xml(&guest, &sample_inventory()).unwrap();
        let mirror = "<mirror type='file'><source file='/var/tmp/copy'/></mirror><target dev='vda'";
        let live = Live::read(&text.replace("<target dev='vda'", mirror)).unwrap();
        assert_eq!(told(&guest, &live), ["a block job copies disk vda to /var/tmp/copy"]);
    }

    #[test]
    fn fuzz_domain_xml() {
        let own = xml(&sample("web1"), &sample_inventory()).unwrap();
        let by_hand = "<domain type='kvm'><vcpu current='2'>4</vcpu><devices><disk type='file' device='cdrom'><source file='/a'/>\
                       <backingStore type='network'><source name='p/i'/></backingStore><mirror><source dev='/b'/></mirror>\
                       <target dev='sda'/></disk><interface><mac address='52:54:00:00:00:01'/></interface><hostdev/></devices></domain>";
        Fuzzer::run(&[&own, by_hand, "<domain/>", "<!DOCTYPE d [<!ENTITY a 'b'>]><domain>&a;</domain>"], |input| {
            let text = String::from_utf8_lossy(input);
            let Some(live) = Live::read(&text) else { return "nothing".to_owned() };
            // Nothing of it is made up: each name is in the text, or an entity of it.
            let plain = !text.contains('&');
            for image in live.images() {
                assert!(!plain || text.contains(image) || image.contains(['\n', '\t', '\r', ' ']), "{image}");
            }
            let kinds = live.holds_on_host().into_iter().chain(live.foreign(&sample("web1"), "guests"));
            kinds.map(|foreign| kind_of(&foreign.cure(sample("web1").uuid, "h1"))).collect()
        });
    }
}
