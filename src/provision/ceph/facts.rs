//! What the hosts and the cluster are right now, as far as the Ceph steps depend on it.

use super::cluster::{ClusterFacts, Silence};
use crate::cluster::BuildPort;
use crate::error::Failure;
use crate::inventory::{HostSpec, Inventory, Role};
use crate::provision::together;
use crate::ssh::{Exec, Fleet, RemoteExt};
use base64::Engine;
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

const SCRIPT: &str = include_str!("host.sh");
/// A host with a hung disk answers late; everything else takes 0.1 s.
const DEADLINE: Duration = Duration::from_secs(60);

/// Hosts and cluster at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// Every host of the inventory.
    pub hosts: BTreeMap<String, HostFacts>,
    /// The cluster, where it answers.
    pub cluster: Option<ClusterFacts>,
    /// Why it does not.
    pub silence: Silence,
}

/// What a host is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct HostFacts {
    /// What it calls itself.
    pub hostname: String,
    /// Whether device-mapper works, so that LVM does.
    pub lvm: bool,
    /// Content of our files, by path.
    pub files: BTreeMap<String, String>,
    /// SHA-256 of the key of each entity whose keyring is in its place.
    pub keys: BTreeMap<String, String>,
    /// Keys and monitor map that wait for the first quorum.
    pub seed: Option<Seed>,
    /// Monitor stores by name, with the cluster each belongs to.
    pub stores: BTreeMap<String, Option<Uuid>>,
    /// Clusters whose daemons another tool runs there.
    pub cephadm: Vec<String>,
    /// Other tools whose Ceph is there (Rook, MicroCeph, Proxmox), each with a place that shows it.
    pub foreign: Vec<String>,
    /// Whether something listens on a port of monitors.
    pub mon_port: bool,
    /// Numbers of the OSDs that have a directory here, each with its device and those below it.
    pub osd_dirs: Vec<(u32, Vec<String>)>,
    /// Whether an OSD is being made or started right now.
    pub making: bool,
    /// Size of the file system under the monitor's store in KiB.
    pub var_kib: u64,
    /// The listed disks, in the inventory's order.
    pub disks: Vec<DiskFacts>,
    /// Units, by name without `.service`.
    pub units: BTreeMap<String, UnitState>,
}

/// Keys and first monitor map of a cluster that has no quorum yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seed {
    /// SHA-256 of the keyring.
    pub hash: String,
    /// The cluster id of the map.
    pub fsid: Option<Uuid>,
    /// Monitors of the map with their addresses.
    pub mons: BTreeMap<String, String>,
}

/// Whether a unit runs now and after a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct UnitState {
    /// It runs, or is being started.
    pub active: bool,
    /// It starts with the host.
    pub enabled: bool,
}

impl UnitState {
    /// Whether nothing is to do.
    pub fn good(self) -> bool {
        self.active && self.enabled
    }
}

/// What a listed disk is and what is on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct DiskFacts {
    /// Path in the inventory.
    pub path: String,
    /// Whether there is no such block device.
    pub missing: bool,
    /// The device behind the path.
    pub real: String,
    /// Bytes.
    pub size: u64,
    /// Where it or a part of it is mounted.
    pub mounts: Vec<String>,
    /// Partitions and mapped devices on it.
    pub children: Vec<String>,
    /// Kernel devices that hold it.
    pub holders: Vec<String>,
    /// Signatures of file systems, partition tables, RAID, LVM.
    pub signatures: Vec<String>,
    /// Whether its first MiB is zero.
    pub clean: bool,
    /// Whether it could not be looked through for signatures.
    pub unreadable: bool,
    /// Label of a BlueStore OSD, on the disk or on its logical volume.
    pub label: Option<Label>,
    /// Its LVM volume group.
    pub group: Option<String>,
    /// Whether LVM says that nothing in that group is given to any volume.
    pub unused: bool,
    /// The group's logical volumes with their tags.
    pub volumes: Vec<(String, String)>,
}

/// The harmless fields of a BlueStore label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Label {
    /// Unique id of the OSD; written first.
    pub uuid: Option<Uuid>,
    /// The cluster; written near the end.
    pub fsid: Option<Uuid>,
    /// Number of the OSD; written near the end.
    pub id: Option<u32>,
    /// Whether the OSD was made completely; written last.
    pub ready: bool,
}

impl Facts {
    /// Looks at all hosts and, through a monitor host, at the cluster.
    pub async fn gather(fleet: &Fleet, port: &dyn BuildPort, inventory: &Inventory) -> Result<Self, Failure> {
        let names: Vec<&str> = inventory.hosts.iter().map(|h| h.name.as_str()).collect();
        let look = |remote: std::sync::Arc<dyn crate::ssh::Remote>| async move {
            let Some(spec) = inventory.host(remote.name()) else {
                return Ok(HostFacts::default());
            };
            let output = remote.check(Exec::script(SCRIPT, arguments(spec)).deadline(DEADLINE)).await?;
            Ok::<_, Failure>(parse(&output.text()))
        };
        let (answers, cluster) = tokio::join!(fleet.each(names, look), ClusterFacts::gather(port, inventory));
        let hosts = together(answers)?;
        let (cluster, silence) = match cluster {
            Ok(facts) => (Some(facts), Silence::default()),
            Err(silence) => (None, silence),
        };
        Ok(Facts { hosts, cluster, silence })
    }

    /// A host's facts; of one that was not looked at, those of a bare one.
    pub fn host(&self, name: &str) -> &HostFacts {
        static BARE: std::sync::LazyLock<HostFacts> = std::sync::LazyLock::new(HostFacts::default);
        self.hosts.get(name).unwrap_or(&BARE)
    }
}

impl HostFacts {
    /// State of a unit; one nobody has heard of is off.
    pub fn unit(&self, name: &str) -> UnitState {
        self.units.get(name).copied().unwrap_or_default()
    }
}

fn arguments(spec: &HostSpec) -> Vec<String> {
    let mut arguments = vec![spec.name.clone()];
    if spec.has(Role::Osd) {
        arguments.extend(spec.osds.iter().map(|d| d.display().to_string()));
    }
    arguments
}

/// Reads what the script prints.
pub(super) fn parse(text: &str) -> HostFacts {
    let mut facts = HostFacts::default();
    for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
        let value = value.trim();
        let (first, rest) = value.split_once(' ').unwrap_or((value, ""));
        match key {
            "hostname" => facts.hostname = value.to_owned(),
            "lvm" => facts.lvm = true,
            "file" => {
                facts.files.insert(first.to_owned(), decode(rest));
            }
            "key" => {
                facts.keys.insert(first.to_owned(), rest.to_owned());
            }
            "seed" => facts.seed = Some(Seed { hash: value.to_owned(), ..Seed::default() }),
            "seed_fsid" => edit(facts.seed.as_mut(), |s| s.fsid = value.parse().ok()),
            "seed_mon" => edit(facts.seed.as_mut(), |s| {
                s.mons.insert(first.to_owned(), rest.replace("/0", ""));
            }),
            "store" => {
                facts.stores.insert(first.to_owned(), rest.trim().parse().ok());
            }
            "cephadm" => facts.cephadm.push(value.to_owned()),
            "foreign" => facts.foreign.push(value.to_owned()),
            "mon_port" => facts.mon_port = true,
            "osd_dir" => {
                let devices = rest.split_whitespace().map(str::to_owned).collect();
                facts.osd_dirs.extend(first.parse::<u32>().ok().map(|id| (id, devices)));
            }
            "making" => facts.making = true,
            "var_kib" => facts.var_kib = value.parse().unwrap_or(0),
            "disk" => facts.disks.push(DiskFacts { path: value.to_owned(), ..DiskFacts::default() }),
            "unit" => {
                let (active, enabled) = rest.split_once(' ').unwrap_or((rest, ""));
                let state = UnitState {
                    active: matches!(active, "active" | "activating" | "reloading"),
                    enabled: enabled.starts_with("enabled"),
                };
                facts.units.insert(first.to_owned(), state);
            }
            _ => edit(facts.disks.last_mut(), |disk| disk_field(disk, key, value)),
        }
    }
    facts
}

fn disk_field(disk: &mut DiskFacts, key: &str, value: &str) {
    let label = |disk: &mut DiskFacts, change: &dyn Fn(&mut Label)| change(disk.label.get_or_insert_default());
    match key {
        "missing" => disk.missing = true,
        "real" => disk.real = value.to_owned(),
        "size" => disk.size = value.parse().unwrap_or(0),
        "mount" => disk.mounts.push(value.replace("\\x0a", " ")),
        "child" => disk.children.push(value.to_owned()),
        "holder" => disk.holders.push(value.to_owned()),
        "sig" => disk.signatures.push(value.to_owned()),
        "clean" => disk.clean = true,
        "unreadable" => disk.unreadable = true,
        "unused" => disk.unused = true,
        "vg" => disk.group = Some(value.to_owned()),
        "lv" => {
            let (name, tags) = value.split_once(' ').unwrap_or((value, ""));
            disk.volumes.push((name.to_owned(), tags.to_owned()));
        }
        // Only the first line that looks like an id is the label's; nothing after it may replace it.
        "label_uuid" => label(disk, &|l| l.uuid = l.uuid.or(value.parse().ok())),
        "label_fsid" => label(disk, &|l| l.fsid = value.parse().ok()),
        "label_id" => label(disk, &|l| l.id = value.parse().ok()),
        "label_ready" => label(disk, &|l| l.ready = true),
        _ => {}
    }
}

fn edit<T>(place: Option<T>, change: impl FnOnce(T)) {
    if let Some(value) = place {
        change(value);
    }
}

fn decode(text: &str) -> String {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_answer_is_read() {
        let facts = parse(include_str!("testdata/host.txt"));
        assert_eq!(facts.hostname, "c1");
        assert!(!facts.lvm);
        assert!(facts.files["/etc/ceph/ceph.conf"].starts_with("[global]\nfsid = 5a2f6f7e"));
        assert_eq!(facts.keys.len(), 3);
        let seed = facts.seed.unwrap();
        assert_eq!(seed.mons["c2"], "[v2:10.88.0.12:3300,v1:10.88.0.12:6789]");
        assert!(facts.units["ceph-mon@c1"].good());
        let disk = &facts.disks[0];
        let label = disk.label.as_ref().unwrap();
        assert_eq!((label.id, label.ready), (Some(0), true));
        assert_eq!(label.fsid, seed.fsid);
        assert_eq!(disk.signatures, ["ceph_bluestore"]);
        assert_eq!((disk.size, disk.clean), (12 << 30, false));
    }

    #[test]
    fn a_bare_host_answers_almost_nothing() {
        let facts = parse(
            "hostname=h9\nforeign=MicroCeph /var/snap/microceph/common/data/mon\nvar_kib=1000\ndisk=/dev/x\nmissing=yes\nunit=ceph-mon@h9 inactive absent\n",
        );
        assert_eq!(facts.foreign, ["MicroCeph /var/snap/microceph/common/data/mon"]);
        assert!(facts.seed.is_none() && facts.stores.is_empty() && facts.disks[0].missing);
        assert_eq!(facts.unit("ceph-mon@h9"), UnitState::default());
        assert_eq!(facts.unit("ceph-mgr@h9"), UnitState::default());
    }

    /// Two block devices, and in place of what looks at them programs that answer as a host with an encrypted OSD on LVM
    /// (`one`) and a multipath device (`two`) does.
    #[cfg(feature = "lab-tests")]
    #[test]
    fn an_encrypted_osd_and_a_multipath_device_are_seen_in_two_calls_of_lvm() {
        use nix::sys::stat::{Mode, SFlag, makedev, mknod};
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let disks = ["one", "two"].map(|name| at(name).display().to_string());
        for (disk, minor) in disks.iter().zip([198, 199]) {
            mknod(disk.as_str(), SFlag::S_IFBLK, Mode::S_IRUSR, makedev(7, minor)).unwrap();
        }
        let log = at("calls").display().to_string();
        let tags = "ceph.cluster_fsid=5a2f6f7e-2c1b-4f5e-9c39-0d4f0a3c7b11,ceph.encrypted=1,ceph.osd_id=4";
        for (program, body) in [
            (
                "lsblk",
                "case $* in\n*MAJ:MIN*/one) echo sdb 8:16 ;;\n*MAJ:MIN*/two) echo dm-3 254:3 ;;\n\
                 */one) printf 'sdb sdb disk \\ndm-0 ceph--a-osd--block--b lvm \\ndm-1 crypted crypt \\n' ;;\n\
                 */two) echo dm-3 mpatha mpath ;;\nesac",
            ),
            ("pvs", "echo '  8 16 ceph-a 1000 1'"),
            ("lvs", &format!("echo '  ceph-a osd-block-b {tags}'; echo '  vg0 root'")),
            (
                "systemctl",
                "case $* in *ceph-osd@4*) printf 'ActiveState=active\\nUnitFileState=enabled-runtime\\n' ;; esac",
            ),
            ("wipefs", "true"),
            ("blockdev", "echo 4398046511104"),
            ("cmp", "case $* in */two*) exit 0 ;; *) exit 1 ;; esac"),
            ("dd", "true"),
        ] {
            std::fs::write(at(program), format!("#!/bin/sh\necho {program} >>{log}\n{body}\n")).unwrap();
            std::fs::set_permissions(at(program), std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
        let mut command = std::process::Command::new("sh");
        let output = command.args(["-c", SCRIPT, "sh", "h1"]).args(&disks).env("PATH", path).output().unwrap();
        let facts = parse(&String::from_utf8_lossy(&output.stdout));
        let [one, two] = &facts.disks[..] else { panic!("{:?}", facts.disks) };
        assert_eq!((one.group.as_deref(), one.volumes.len()), (Some("ceph-a"), 1));
        assert_eq!(one.volumes[0], ("osd-block-b".to_owned(), tags.to_owned()));
        assert!(facts.units["ceph-osd@4"].good(), "it runs, though its label cannot be read: {:?}", facts.units);
        assert!(two.children.is_empty() && two.clean && two.group.is_none(), "{two:?}");
        let calls = std::fs::read_to_string(&log).unwrap();
        let count = |program: &str| calls.lines().filter(|line| *line == program).count();
        assert_eq!((count("pvs"), count("lvs")), (1, 1));
    }
}
