//! Where a lab keeps its files, and the record that says what it is.

use super::names::{LabName, Plan};
use crate::error::{Failure, Kind, ResultExt};
use crate::inventory::Size;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;

/// Labs, a directory each.
const LABS: &str = "/var/lib/rackhand/lab";
/// Saved racks, a directory each.
const SAVES: &str = "/var/lib/rackhand/saved";
/// Images; can be built again at any time.
const CACHE: &str = "/var/cache/rackhand";

/// What a lab's hosts are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum HostKind {
    /// Containers: quick, without device-mapper and kernel modules of their own.
    #[default]
    Container,
    /// QEMU machines with a kernel of their own: slow where the processor cannot help.
    Vm,
}

/// What a lab is; written before anything else of it is made.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Record {
    /// Format of this file.
    pub(super) schema: String,
    /// Its number.
    pub(super) number: u8,
    /// How many hosts.
    pub(super) hosts: u8,
    /// Disks of each host.
    pub(super) disks: u8,
    /// Size of each disk.
    pub(super) disk_size: Size,
    /// The image under every host.
    pub(super) image: PathBuf,
    /// Identity of the cluster in its inventory.
    pub(super) fsid: Uuid,
    /// What its hosts are made of; containers where an older record does not say.
    #[serde(default)]
    pub(super) kind: HostKind,
    /// Whether it was built to its end.
    pub(super) ready: bool,
}

impl Record {
    pub(super) const SCHEMA: &str = "rackhand.lab/1";

    pub(super) fn plan(&self) -> Plan {
        Plan::new(self.number)
    }
}

/// The files of one lab.
#[derive(Clone, Debug)]
pub(super) struct LabDir {
    /// The lab's name.
    pub(super) name: LabName,
    /// Its directory.
    pub(super) path: PathBuf,
}

impl LabDir {
    pub(super) fn of(name: &LabName) -> Self {
        LabDir { name: name.clone(), path: Path::new(LABS).join(name.as_str()) }
    }

    pub(super) fn record_file(&self) -> PathBuf {
        self.path.join("lab.json")
    }

    pub(super) fn inventory(&self) -> PathBuf {
        self.path.join("inventory.yaml")
    }

    pub(super) fn key(&self) -> PathBuf {
        self.path.join("id_ed25519")
    }

    pub(super) fn known_hosts(&self) -> PathBuf {
        self.path.join("known_hosts")
    }

    pub(super) fn bmc_password(&self) -> PathBuf {
        self.path.join("bmc-password")
    }

    pub(super) fn host(&self, name: &str) -> HostDir {
        HostDir { path: self.path.join("hosts").join(name) }
    }

    /// What the lab is.
    pub(super) fn record(&self) -> Result<Record, Failure> {
        self.find_record()?.ok_or_else(|| {
            Failure::usage(format!("there is no lab `{}`", self.name))
                .hint("`rackhand lab list` shows all; `rackhand lab up` makes one")
        })
    }

    /// What the lab is; nothing where there is none, or no more of it than its directory.
    pub(super) fn find_record(&self) -> Result<Option<Record>, Failure> {
        if !self.record_file().exists() {
            return Ok(None);
        }
        let hint = format!("`rackhand lab down --name {}` removes the lab", self.name);
        read_record(&self.path).map(Some).or_hint(hint)
    }

    pub(super) fn write_record(&self, record: &Record) -> Result<(), Failure> {
        write(&self.record_file(), &serde_json::to_vec_pretty(record)?, 0o644)
    }

    /// Keeps other commands from changing this lab until the answer is dropped.
    pub(super) fn lock(&self) -> Result<File, Failure> {
        lock_dir(&self.path, &format!("lab `{}`", self.name))
    }
}

/// The files of one host.
#[derive(Clone, Debug)]
pub(super) struct HostDir {
    /// Its directory.
    pub(super) path: PathBuf,
}

impl HostDir {
    /// What the host has written over the image.
    pub(super) fn upper(&self) -> PathBuf {
        self.path.join("upper")
    }

    /// The overlay's scratch directory.
    pub(super) fn work(&self) -> PathBuf {
        self.path.join("work")
    }

    /// What the host had written when it was saved, a directory each time; between the image and `upper`.
    pub(super) fn layers(&self) -> PathBuf {
        self.path.join("layers")
    }

    /// One of these layers, counted from the lowest.
    pub(super) fn layer(&self, i: usize) -> PathBuf {
        self.layers().join(i.to_string())
    }

    /// How many of them there are.
    pub(super) fn count_layers(&self) -> Result<usize, Failure> {
        Ok(entries(&self.layers())?.len())
    }

    /// Where its root is mounted, seen by its supervisor alone.
    pub(super) fn root(&self) -> PathBuf {
        self.path.join("root")
    }

    /// Where its view of /sys is mounted, seen by its supervisor alone.
    pub(super) fn sys(&self) -> PathBuf {
        self.path.join("sys")
    }

    /// What it shows of its NUMA node's memory.
    pub(super) fn node_memory(&self) -> PathBuf {
        self.path.join("node-memory")
    }

    /// The layer over /sys/class that holds its DMI strings.
    pub(super) fn dmi(&self) -> PathBuf {
        self.path.join("dmi")
    }

    pub(super) fn disk(&self, disk: u8) -> PathBuf {
        self.path.join(format!("disk{disk}.img"))
    }

    /// The supervisor's socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    /// What the supervisor said.
    pub(super) fn log(&self) -> PathBuf {
        self.path.join("supervisor.log")
    }

    /// What the host's console showed.
    pub(super) fn console(&self) -> PathBuf {
        self.path.join("console.log")
    }

    /// The disk a virtual host's system is on.
    pub(super) fn root_disk(&self) -> PathBuf {
        self.path.join("root.qcow2")
    }

    /// What a virtual host's kernel starts from.
    pub(super) fn initrd(&self) -> PathBuf {
        self.path.join("initrd")
    }

    /// How a virtual host's QEMU is spoken to.
    pub(super) fn monitor(&self) -> PathBuf {
        self.path.join("monitor.sock")
    }

    /// The BMC's directory.
    pub(super) fn bmc(&self) -> PathBuf {
        self.path.join("bmc")
    }
}

/// All labs that have a directory, sorted by name.
pub(super) fn all() -> Result<Vec<LabDir>, Failure> {
    let mut labs = Vec::new();
    for name in entries(Path::new(LABS))? {
        if let Ok(name) = name.parse::<LabName>() {
            labs.push(LabDir::of(&name));
        }
    }
    labs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(labs)
}

/// Names in a directory; none where it does not exist.
pub(super) fn entries(dir: &Path) -> Result<Vec<String>, Failure> {
    let listing = match fs::read_dir(dir) {
        Ok(listing) => listing,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Failure::from(e).context(format!("cannot read {}", dir.display()))),
    };
    let mut names = Vec::new();
    for entry in listing {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

/// The directory of a saved rack; it need not exist.
pub(super) fn save_dir(name: &LabName) -> PathBuf {
    Path::new(SAVES).join(name.as_str())
}

/// Names of all saved racks, sorted.
pub(super) fn saved() -> Result<Vec<LabName>, Failure> {
    let mut names: Vec<LabName> = entries(Path::new(SAVES))?.iter().filter_map(|n| n.parse().ok()).collect();
    names.sort();
    Ok(names)
}

/// The record in the directory of a lab or a saved rack.
pub(super) fn read_record(dir: &Path) -> Result<Record, Failure> {
    let file = dir.join("lab.json");
    let doing = || format!("cannot read {}", file.display());
    let text = fs::read_to_string(&file).while_doing(doing)?;
    parse_record(&text).while_doing(doing)
}

fn parse_record(text: &str) -> Result<Record, Failure> {
    let document: serde_json::Value = serde_json::from_str(text)?;
    match document["schema"].as_str() {
        Some(Record::SCHEMA) => Ok(serde_json::from_value(document)?),
        other => Err(Failure::usage(format!("another version of rackhand made it ({})", other.unwrap_or("?")))),
    }
}

/// Images that labs and saved racks stand on.
///
/// # Errors
/// When one of them does not say: it may stand on any.
pub(super) fn images_in_use() -> Result<Vec<PathBuf>, Failure> {
    let mut images = Vec::new();
    for lab in all()? {
        images.extend(lab.find_record()?.map(|record| record.image));
    }
    for name in saved()? {
        images.push(read_record(&save_dir(&name))?.image);
    }
    Ok(images)
}

/// The directory all labs are in, made if need be.
pub(super) fn labs_root() -> Result<PathBuf, Failure> {
    make_dir(Path::new(LABS))
}

/// The directory of images; it need not exist.
pub(super) fn cache() -> PathBuf {
    PathBuf::from(CACHE)
}

/// The directory of images, made if need be.
pub(super) fn cache_root() -> Result<PathBuf, Failure> {
    make_dir(&cache())
}

/// Removes a directory with all in it, if it is there.
pub(super) fn remove_dir(path: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::from(e).context(format!("cannot remove {}", path.display())))
        }
        _ => Ok(()),
    }
}

/// Makes a directory and those above it.
pub(super) fn make_dir(path: &Path) -> Result<PathBuf, Failure> {
    fs::create_dir_all(path).while_doing(|| format!("cannot make {}", path.display()))?;
    Ok(path.to_owned())
}

/// Writes a file whole or not at all.
pub(super) fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), Failure> {
    let doing = || format!("cannot write {}", path.display());
    if let Some(parent) = path.parent() {
        make_dir(parent)?;
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    // A left-over of a killed run may have another mode.
    let _ = fs::remove_file(&beside);
    let mut file = File::options().write(true).create_new(true).mode(mode).open(&beside).while_doing(doing)?;
    file.write_all(content).while_doing(doing)?;
    fs::rename(&beside, path).while_doing(doing)
}

/// An exclusive lock on a directory; whoever comes second is told so.
pub(super) fn lock_dir(path: &Path, what: &str) -> Result<File, Failure> {
    let dir = File::open(path).while_doing(|| format!("cannot lock {}", path.display()))?;
    match dir.try_lock() {
        Ok(()) => Ok(dir),
        Err(TryLockError::WouldBlock) => {
            Err(Failure::msg(Kind::Busy, format!("another rackhand is working on {what}")).hint("try again later"))
        }
        Err(TryLockError::Error(e)) => Err(Failure::from(e).context(format!("cannot lock {}", path.display()))),
    }
}

/// An exclusive lock on a directory, held by others for moments only.
pub(super) async fn lock_dir_waiting(path: &Path) -> Result<File, Failure> {
    for _ in 0..600 {
        match lock_dir(path, "the labs of this machine") {
            Err(failure) if failure.kind == Kind::Busy => tokio::time::sleep(Duration::from_millis(50)).await,
            other => return other,
        }
    }
    lock_dir(path, "the labs of this machine")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_written_with_its_mode_and_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a/secret");
        write(&file, b"one", 0o600).unwrap();
        write(&file, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(entries(&dir.path().join("a")).unwrap(), ["secret"]);
    }

    #[test]
    fn a_directory_is_locked_once() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock_dir(dir.path(), "it").unwrap();
        assert_eq!(lock_dir(dir.path(), "it").unwrap_err().kind, Kind::Busy);
        drop(held);
        assert!(lock_dir(dir.path(), "it").is_ok());
    }

    #[test]
    fn a_record_of_another_version_is_not_guessed_at() {
        let record = r#"{"schema":"rackhand.lab/1","number":3,"hosts":1,"disks":1,"disk_size":"1G","image":"/i",
            "fsid":"00000000-0000-0000-0000-000000000001","ready":true}"#;
        assert_eq!(parse_record(record).unwrap().number, 3);
        let later = parse_record(&record.replace("lab/1", "lab/2")).unwrap_err();
        assert_eq!(later.to_string(), "another version of rackhand made it (rackhand.lab/2)");
        assert!(parse_record("{\"schema\":\"rackhand.lab/1\"").is_err());
    }

    #[test]
    fn a_missing_lab_is_a_usage_failure() {
        let lab = LabDir::of(&"no-such-lab-here".parse().unwrap());
        assert_eq!(lab.record().unwrap_err().kind, Kind::Usage);
    }
}
