//! The directories of a repository: where things are, what they say about themselves, how they come and go.

use crate::error::{Error, ErrorKind, Named, Result};
use crate::files::{close_to_others, create_directories, write_synced};
use crate::index::hex;
use crate::lock::Lock;
use crate::manifest::{Disk, FORMAT, Manifest};
use crate::mark;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// The file that makes a directory a repository.
pub(crate) const MARK: &str = "rackhand-repository.json";
pub(crate) const MANIFEST: &str = "MANIFEST.json";
pub(crate) const DEFINITION: &str = "guest.json";
pub(crate) const SUMS: &str = "SHA256SUMS";
/// What `restore.sh` reads.
pub(crate) const PLAIN: &str = "point.txt";
/// Directories of runs that have not ended, or never will.
pub(crate) const PARTIAL: &str = ".partial-";
/// A point while its successor takes its name, on file systems that cannot exchange two names.
const REPLACED: &str = ".replaced-";
/// No small file is longer; what is, is not ours.
const SMALL_LIMIT: u64 = 16 << 20;
/// How often what takes no lock is done again.
const RETRIES: usize = 2;

/// What wrote this.
pub(crate) const WRITTEN_BY: &str = concat!("rackhand-store ", env!("CARGO_PKG_VERSION"));

#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    format: u32,
    written_by: String,
}

/// A repository that is there and of a version that is known.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    root: PathBuf,
}

/// Names one point without its repository.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) cluster: &'a str,
    pub(crate) guest: &'a str,
}

/// Refuses what could leave the repository or hide in it.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    let sound = !name.is_empty()
        && name.len() <= 200
        && !name.starts_with(['.', '-'])
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._@-+".contains(&b));
    match sound {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::Request,
            format!(
                "{what} {name:?} cannot name a directory: letters, digits and ._@-+ can, and a dot or dash does not begin it"
            ),
        )),
    }
}

impl Store {
    /// Opens a repository.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let path = root.join(MARK);
        let text = read_small(&path).map_err(|error| match error.kind {
            ErrorKind::NotFound => {
                Error::new(ErrorKind::NotFound, format!("{} is no repository: it has no {MARK}", root.display()))
            }
            _ => error,
        })?;
        let mark: Mark = parse(&path, &text)?;
        check_format(mark.format, &mark.written_by, root)?;
        Ok(Self { root: root.to_owned() })
    }

    /// Opens a repository, or makes one of an empty or missing directory.
    pub(crate) fn open_or_create(root: &Path) -> Result<Self> {
        match Self::open(root) {
            Err(error) if error.kind == ErrorKind::NotFound => {}
            other => return other,
        }
        create_directories(root)?;
        // Another run may be making the same one: its mark is as good.
        let strangers =
            names(root)?.into_iter().find(|name| !name.starts_with('.') && name != "lost+found" && name != MARK);
        if let Some(stranger) = strangers {
            let message = format!("{} is no repository and is not empty: it has {stranger}", root.display());
            return Err(Error::new(ErrorKind::Request, message));
        }
        let mark = Mark { format: FORMAT, written_by: WRITTEN_BY.to_owned() };
        let temporary = root.join(format!(".{MARK}.{}", std::process::id()));
        write_synced(&temporary, &json(&mark)?)?;
        fs::rename(&temporary, root.join(MARK)).named(root)?;
        sync_directory(root)?;
        Self::open(root)
    }

    pub(crate) fn guest_directory(&self, at: At<'_>) -> PathBuf {
        self.root.join(at.cluster).join(at.guest)
    }

    /// Where a point is, or would be.
    pub(crate) fn directory(&self, at: At<'_>, point: &str) -> PathBuf {
        let place = self.place(at, point);
        let aside = self.aside(at, point);
        // Between the two renames of a replacement, it has its other name.
        if !is_directory(&place) && is_directory(&aside) { aside } else { place }
    }

    fn place(&self, at: At<'_>, point: &str) -> PathBuf {
        self.guest_directory(at).join(point)
    }

    fn aside(&self, at: At<'_>, point: &str) -> PathBuf {
        self.guest_directory(at).join(format!("{REPLACED}{point}"))
    }

    /// Makes a guest's directory, and those above it.
    pub(crate) fn create_guest(&self, at: At<'_>) -> Result<PathBuf> {
        let directory = self.guest_directory(at);
        let cluster = self.root.join(at.cluster);
        if !directory.is_dir() {
            create_directories(&directory)?;
            sync_directory(&self.root)?;
            sync_directory(&cluster)?;
        }
        close_to_others(&cluster)?;
        close_to_others(&directory)?;
        Ok(directory)
    }

    /// The guests of a selection, templates among them, by cluster.
    pub(crate) fn guests(&self, cluster: Option<&str>, guest: Option<&str>) -> Result<Vec<(String, String)>> {
        let mut found = Vec::new();
        for one in directories(&self.root)?.into_iter().filter(|name| cluster.is_none_or(|c| c == name)) {
            let below = directories(&self.root.join(&one))?;
            found.extend(below.into_iter().filter(|name| guest.is_none_or(|g| g == name)).map(|g| (one.clone(), g)));
        }
        Ok(found)
    }

    /// The points of a guest, oldest first.
    pub(crate) fn points(&self, at: At<'_>) -> Result<Vec<String>> {
        let directory = self.guest_directory(at);
        let all = match names(&directory) {
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let found = all.into_iter().filter(|name| is_directory(&directory.join(name)));
        // A replaced point has only its other name for a moment, or for longer where the program died then.
        let point = |name: String| name.strip_prefix(REPLACED).map(str::to_owned).unwrap_or(name);
        let points: BTreeSet<String> = found.map(point).filter(|name| could_be_ours(name)).collect();
        Ok(points.into_iter().collect())
    }

    /// What tells whether the points of a guest have changed: the digest of each manifest.
    pub(crate) fn print(&self, at: At<'_>) -> BTreeMap<String, Option<String>> {
        let digest = |point: &str| Some(sha256(&read_small(&self.directory(at, point).join(MANIFEST)).ok()?));
        let points = self.points(at).unwrap_or_default();
        points.into_iter().map(|point| (point.clone(), digest(&point))).collect()
    }

    /// Does what takes no lock; does it again where it fails and a merge or a prune has changed the guest's points meanwhile.
    pub(crate) fn settled<T>(&self, at: At<'_>, mut work: impl FnMut() -> Result<T>) -> Result<T> {
        let mut before = self.print(at);
        for _ in 0..RETRIES {
            let result = work();
            if result.is_ok() {
                return result;
            }
            let now = self.print(at);
            if now == before {
                return result;
            }
            before = now;
        }
        work()
    }

    /// What a point says about itself, where it is what its place and its sums say.
    pub(crate) fn manifest(&self, at: At<'_>, point: &str) -> Result<Manifest> {
        let directory = self.directory(at, point);
        if !directory.is_dir() {
            let message = format!("guest {}: there is no point {point}", at.guest);
            return Err(Error::new(ErrorKind::NotFound, message).at(point));
        }
        let load = || {
            let path = directory.join(MANIFEST);
            let text = read_small(&path)?;
            // The version first: a newer one may have other fields.
            let version: Version = parse(&path, &text)?;
            check_format(version.format, version.written_by.as_deref().unwrap_or("another program"), &directory)?;
            let sums = read_sums(&directory)?;
            if sums.get(MANIFEST).map(String::as_str) != Some(sha256(&text).as_str()) {
                return Err(Error::damaged(format!("{}: is not what {SUMS} says", path.display())));
            }
            let manifest: Manifest = parse(&path, &text)?;
            check_identity(&manifest, at, point, &path)?;
            Ok(manifest)
        };
        load().map_err(|error: Error| {
            let kind = if error.kind == ErrorKind::NotFound { ErrorKind::Damaged } else { error.kind };
            Error { kind, ..error }.at(point)
        })
    }

    /// The manifests that a point stands on, oldest first, itself last.
    pub(crate) fn chain(&self, at: At<'_>, point: &str) -> Result<Vec<Manifest>> {
        let mut chain = vec![self.manifest(at, point)?];
        while let Some(parent) = chain.last().and_then(|m| m.parent_point.clone()) {
            let child = chain.last().map_or(String::new(), |m| m.point.clone());
            if chain.iter().any(|m| m.point == parent) {
                return Err(Error::damaged(format!("point {child}: its chain runs in a circle")).at(point));
            }
            let manifest = self.manifest(at, &parent).map_err(|error| match error.kind {
                ErrorKind::NotFound => {
                    Error::damaged(format!("point {child} is a difference to {parent}, which is not there")).at(point)
                }
                _ => error,
            })?;
            if let Some(child) = chain.last() {
                check_joint(&manifest, child)?;
            }
            chain.push(manifest);
        }
        chain.reverse();
        Ok(chain)
    }

    /// Removes what dead runs have left in a guest's directory; its lock must be held. Returns what it removed.
    pub(crate) fn sweep(&self, at: At<'_>, lock: &Lock) -> Result<Vec<String>> {
        lock.check()?;
        let directory = &self.guest_directory(at);
        let mut swept = Vec::new();
        for name in names(directory)? {
            let path = directory.join(&name);
            if let Some(point) = name.strip_prefix(REPLACED)
                && !directory.join(point).exists()
            {
                fs::rename(&path, directory.join(point)).named(&path)?;
                sync_directory(directory)?;
            } else if (name.starts_with(PARTIAL) || name.starts_with(REPLACED)) && is_directory(&path) {
                fs::remove_dir_all(&path).named(&path)?;
                swept.push(name);
            } else if let Some(point) = name.strip_prefix(mark::DAMAGED)
                && !self.directory(at, point).exists()
            {
                mark::clear(self, at, point)?;
            }
        }
        Ok(swept)
    }

    /// Puts a complete new directory where a point is, at one instant where the file system can.
    pub(crate) fn replace(&self, partial: &Path, at: At<'_>, point: &str, lock: &Lock) -> Result<()> {
        use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
        let (directory, place) = (self.guest_directory(at), self.place(at, point));
        sync_directory(partial)?;
        lock.check()?;
        match renameat2(AT_FDCWD, partial, AT_FDCWD, &place, RenameFlags::RENAME_EXCHANGE) {
            Ok(()) => {
                sync_directory(&directory)?;
                mark::clear(self, at, point)?;
                fs::remove_dir_all(partial).named(partial)
            }
            Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOSYS | nix::errno::Errno::EOPNOTSUPP) => {
                self.replace_in_two_steps(partial, at, point)?;
                mark::clear(self, at, point)
            }
            Err(error) => Err(Error::io(&place, &error.into())),
        }
    }

    /// The same where the file system cannot exchange two names.
    fn replace_in_two_steps(&self, partial: &Path, at: At<'_>, point: &str) -> Result<()> {
        let (place, aside) = (self.place(at, point), self.aside(at, point));
        fs::rename(&place, &aside).named(&place)?;
        if let Err(error) = fs::rename(partial, &place) {
            // Readers know the other name, and the next run puts it back where this cannot.
            let _ = fs::rename(&aside, &place);
            return Err(Error::io(&place, &error));
        }
        sync_directory(&self.guest_directory(at))?;
        fs::remove_dir_all(&aside).named(&aside)
    }

    /// Removes a point: first its name, then its files.
    pub(crate) fn remove(&self, at: At<'_>, point: &str, lock: &Lock) -> Result<()> {
        lock.check()?;
        let (directory, place) = (self.guest_directory(at), self.place(at, point));
        let aside = directory.join(format!("{PARTIAL}removed-{point}"));
        fs::rename(&place, &aside).named(&place)?;
        sync_directory(&directory)?;
        mark::clear(self, at, point)?;
        fs::remove_dir_all(&aside).named(&aside)
    }
}

#[derive(Deserialize)]
struct Version {
    format: u32,
    written_by: Option<String>,
}

fn check_format(format: u32, written_by: &str, path: &Path) -> Result<()> {
    match format {
        FORMAT => Ok(()),
        newer if newer > FORMAT => Err(Error::new(
            ErrorKind::NewerFormat,
            format!(
                "{}: has format {newer}, written by {written_by}; this program reads format {FORMAT}",
                path.display()
            ),
        )),
        other => Err(Error::damaged(format!("{}: there is no format {other}", path.display()))),
    }
}

fn check_identity(manifest: &Manifest, at: At<'_>, point: &str, path: &Path) -> Result<()> {
    let (cluster, guest) = (&manifest.cluster, &manifest.guest);
    if cluster != at.cluster || guest != at.guest || manifest.point != point {
        let message = format!(
            "{}: is the manifest of point {} of guest {guest} ({}) of cluster {cluster}",
            path.display(),
            manifest.point,
            manifest.name
        );
        return Err(Error::damaged(message));
    }
    let damaged = |message: String| Err(Error::damaged(format!("{}: {message}", path.display())));
    if let Some(parent) = &manifest.parent_point {
        check_name("parent", parent)?;
    }
    for disk in &manifest.disks {
        if disk.file != data_file(disk.index) || disk.index_file != index_file(disk.index) {
            return damaged(format!("disk {} has the files {} and {}", disk.index, disk.file, disk.index_file));
        }
        if let Some(template) = &disk.template {
            check_name("template", template)?;
        }
        if disk.from_snapshot.is_some() && (manifest.parent_point.is_none() || disk.template.is_some()) {
            return damaged(format!("disk {} is a difference without a parent", disk.index));
        }
    }
    Ok(())
}

/// Refuses a child whose disks do not begin where those of its parent end.
pub(crate) fn check_joint(parent: &Manifest, child: &Manifest) -> Result<()> {
    for disk in child.disks.iter().filter(|d| d.from_snapshot.is_some()) {
        let before = parent.disks.iter().find(|d| d.index == disk.index);
        // All disks of a point have snapshots of one name: the images tell them apart.
        if let Some(other) = before.map(|d| &d.image).filter(|image| **image != disk.image) {
            let (index, image) = (disk.index, &disk.image);
            return Err(Error::damaged(format!(
                "point {}: disk {index} is a difference of image {image}, and in its parent {} it is image {other}",
                child.point, parent.point
            ))
            .at(&child.point));
        }
        let before = before.map(|d| &d.to_snapshot);
        if before != disk.from_snapshot.as_ref() {
            return Err(Error::damaged(format!(
                "point {}: disk {} begins at snapshot {}, and its parent {} ends at {}",
                child.point,
                disk.index,
                disk.from_snapshot.as_deref().unwrap_or("-"),
                parent.point,
                before.map_or("none of that disk", String::as_str)
            ))
            .at(&child.point));
        }
    }
    Ok(())
}

/// The name of a disk's data file.
pub(crate) fn data_file(index: u32) -> String {
    format!("disk-{index}.rbdiff.zst")
}

/// The name of a disk's index.
pub(crate) fn index_file(index: u32) -> String {
    format!("disk-{index}.index")
}

/// Writes the small files of a point and syncs its directory; the data files are there.
pub(crate) fn write_small_files(directory: &Path, manifest: &Manifest, definition: &[u8]) -> Result<()> {
    let files = [
        (MANIFEST, json(manifest)?),
        (DEFINITION, definition.to_owned()),
        (PLAIN, plain(manifest).into_bytes()),
        ("RESTORE.md", crate::restore::readme(manifest).into_bytes()),
        (crate::restore::SCRIPT_NAME, crate::restore::SCRIPT.as_bytes().to_owned()),
    ];
    let mut sums = BTreeMap::new();
    for (name, bytes) in &files {
        write_synced(&directory.join(name), bytes)?;
        sums.insert((*name).to_owned(), sha256(bytes));
    }
    for disk in &manifest.disks {
        sums.insert(disk.file.clone(), disk.sha256.clone());
        sums.insert(disk.index_file.clone(), disk.index_sha256.clone());
    }
    let text: String = sums.iter().map(|(name, sum)| format!("{sum}  {name}\n")).collect();
    write_synced(&directory.join(SUMS), text.as_bytes())?;
    sync_directory(directory)
}

/// What a shell reads of a manifest: `parent POINT`, and `disk INDEX SIZE FROM TO TEMPLATE IMAGE` for each; `-` is none.
fn plain(manifest: &Manifest) -> String {
    let none = || "-".to_owned();
    let mut text = format!("parent {}\n", manifest.parent_point.clone().unwrap_or_else(none));
    for Disk { index, size, from_snapshot, to_snapshot, template, image, .. } in &manifest.disks {
        let from = from_snapshot.clone().unwrap_or_else(none);
        let template = template.clone().unwrap_or_else(none);
        text.push_str(&format!("disk {index} {size} {from} {to_snapshot} {template} {image}\n"));
    }
    text
}

impl Store {
    /// The parent of a point as its plain text has it, which may be readable where the manifest is not.
    pub(crate) fn plain_parent(&self, at: At<'_>, point: &str) -> Option<Option<String>> {
        let text = String::from_utf8(read_small(&self.directory(at, point).join(PLAIN)).ok()?).ok()?;
        let parent = text.lines().next()?.strip_prefix("parent ")?;
        Some((parent != "-").then(|| parent.to_owned()))
    }
}

/// The sums of a point's files by name.
pub(crate) fn read_sums(directory: &Path) -> Result<BTreeMap<String, String>> {
    let path = directory.join(SUMS);
    let text = read_small(&path)?;
    let text = String::from_utf8_lossy(&text);
    let line = |line: &str| line.split_once("  ").map(|(sum, name)| (name.to_owned(), sum.to_owned()));
    text.lines()
        .map(line)
        .collect::<Option<_>>()
        .ok_or_else(|| Error::damaged(format!("{}: cannot be read", path.display())))
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// A whole file of a few kilobytes.
pub(crate) fn read_small(path: &Path) -> Result<Vec<u8>> {
    let length = fs::metadata(path).named(path)?.len();
    match length > SMALL_LIMIT {
        true => Err(Error::damaged(format!("{}: is {length} bytes long", path.display()))),
        false => fs::read(path).named(path),
    }
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T> {
    serde_json::from_slice(text).map_err(|error| Error::damaged(format!("{}: {error}", path.display())))
}

/// A document for a file.
pub(crate) fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|error| Error::new(ErrorKind::Io, error.to_string()))?;
    text.push(b'\n');
    Ok(text)
}

/// Makes names in a directory last.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    File::open(path).and_then(|directory| directory.sync_all()).named(path)
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).named(directory)? {
        if let Ok(name) = entry.named(directory)?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The directories that could be ours, by name.
fn directories(directory: &Path) -> Result<Vec<String>> {
    let ours = |name: &String| could_be_ours(name) && is_directory(&directory.join(name));
    Ok(names(directory)?.into_iter().filter(ours).collect())
}

fn could_be_ours(name: &str) -> bool {
    check_name("", name).is_ok() && name != "lost+found"
}

fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

/// SHA-256 of a file, hexadecimal, whatever its length.
pub(crate) fn digest_file(path: &Path) -> Result<String> {
    let (mut file, mut digest) = (File::open(path).named(path)?, Sha256::new());
    let mut buffer = vec![0; 256 << 10];
    loop {
        match std::io::Read::read(&mut file, &mut buffer).named(path)? {
            0 => return Ok(hex(&digest.finalize())),
            count => digest.update(&buffer[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_no_lock_is_done_again_only_where_a_manifest_has_changed() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open_or_create(root.path()).unwrap();
        let at = At { cluster: "c", guest: "g" };
        let point = store.create_guest(at).unwrap().join("20261128T010000Z");
        fs::create_dir(&point).unwrap();
        let mut calls = 0;
        let done = store.settled(at, || {
            calls += 1;
            fs::write(point.join(MANIFEST), calls.to_string()).unwrap();
            if calls == 2 { Ok(calls) } else { Err(Error::damaged("gone")) }
        });
        assert_eq!(done.unwrap(), 2);
        calls = 0;
        let failed = store.settled(at, || -> Result<()> {
            calls += 1;
            Err(Error::damaged("really"))
        });
        assert_eq!((failed.unwrap_err().message.as_str(), calls), ("really", 1));
    }

    #[test]
    fn a_point_is_replaced_in_two_steps_and_keeps_its_name_where_the_second_fails() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open_or_create(root.path()).unwrap();
        let at = At { cluster: "c", guest: "g" };
        let guest = store.create_guest(at).unwrap();
        fs::create_dir(guest.join("p")).unwrap();
        fs::write(guest.join("p/old"), "").unwrap();
        store.replace_in_two_steps(&guest.join("missing"), at, "p").unwrap_err();
        assert!(guest.join("p/old").exists());
        fs::create_dir(guest.join("new")).unwrap();
        store.replace_in_two_steps(&guest.join("new"), at, "p").unwrap();
        assert_eq!(names(&guest).unwrap(), ["p"]);
        assert!(!guest.join("p/old").exists());
    }
}
