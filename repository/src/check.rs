//! Compares one point with what it says about itself.

use crate::diff::{Head, Record, Rules, read_banner, read_record};
use crate::error::{Error, ErrorKind, Result};
use crate::index::{Entry, IndexReader, Part, hex};
use crate::manifest::{Disk, Manifest};
use crate::request::{Damage, DamageKind, Depth, TEMPLATES};
use crate::store::{At, DEFINITION, MANIFEST, PLAIN, SUMS, Store};
use crate::store::{check_joint, digest_file, read_small, read_sums, sha256};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// How many damages of one file are named.
const NAMED: usize = 8;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    pub(crate) damages: Vec<Damage>,
}

impl Checked {
    pub(crate) fn add(&mut self, other: Self) {
        self.frames += other.frames;
        self.bytes += other.bytes;
        self.damages.extend(other.damages);
    }
}

struct Check<'a> {
    at: At<'a>,
    point: &'a str,
    directory: PathBuf,
    found: Checked,
}

/// Checks a point by itself, and that what it stands on is there.
pub(crate) fn check_point(store: &Store, at: At<'_>, point: &str, depth: Depth, seed: u64) -> Checked {
    let mut check = Check { at, point, directory: store.directory(at, point), found: Checked::default() };
    match store.manifest(at, point) {
        Err(error) => check.unreadable(&error),
        Ok(manifest) => {
            check.small_files(&manifest);
            check.parents(store, &manifest);
            for disk in &manifest.disks {
                check.disk(disk, depth, seed);
            }
        }
    }
    check.found
}

impl Check<'_> {
    fn damage(&mut self, kind: DamageKind, file: Option<&str>, message: impl Into<String>) {
        self.found.damages.push(Damage {
            cluster: self.at.cluster.to_owned(),
            guest: self.at.guest.to_owned(),
            point: self.point.to_owned(),
            file: file.map(str::to_owned),
            kind,
            message: message.into(),
        });
    }

    fn unreadable(&mut self, error: &Error) {
        let path = self.directory.join(MANIFEST);
        let foreign = || -> Option<bool> {
            let manifest: Manifest = serde_json::from_slice(&read_small(&path).ok()?).ok()?;
            let same = manifest.cluster == self.at.cluster && manifest.guest == self.at.guest;
            Some(!same || manifest.point != self.point)
        };
        let kind = match error.kind {
            ErrorKind::NewerFormat => DamageKind::NewerFormat,
            _ if !path.exists() || !self.directory.join(SUMS).exists() => DamageKind::MissingFile,
            _ if foreign() == Some(true) => DamageKind::Foreign,
            _ => DamageKind::Manifest,
        };
        self.damage(kind, Some(MANIFEST), error.message.clone());
    }

    /// The files that are read whole, and what the sums say of the others.
    fn small_files(&mut self, manifest: &Manifest) {
        let sums = match read_sums(&self.directory) {
            Ok(sums) => sums,
            Err(error) => return self.damage(DamageKind::Changed, Some(SUMS), error.message),
        };
        for name in [DEFINITION, PLAIN, "RESTORE.md", crate::restore::SCRIPT_NAME] {
            match read_small(&self.directory.join(name)) {
                Err(error) if error.kind == ErrorKind::NotFound => {
                    self.damage(DamageKind::MissingFile, Some(name), format!("{name} is not there"));
                }
                Err(error) => self.damage(DamageKind::Changed, Some(name), error.message),
                Ok(bytes) if sums.get(name) != Some(&sha256(&bytes)) => {
                    self.damage(DamageKind::Changed, Some(name), format!("{name} is not what {SUMS} says"));
                }
                Ok(bytes) => self.found.bytes += bytes.len() as u64,
            }
        }
        for disk in &manifest.disks {
            for (name, sum) in [(&disk.file, &disk.sha256), (&disk.index_file, &disk.index_sha256)] {
                if sums.get(name) != Some(sum) {
                    self.damage(DamageKind::Changed, Some(SUMS), format!("{SUMS} and {MANIFEST} differ about {name}"));
                }
            }
        }
    }

    fn parents(&mut self, store: &Store, manifest: &Manifest) {
        if let Some(parent) = &manifest.parent_point {
            match store.manifest(self.at, parent) {
                Err(error) if error.kind == ErrorKind::NotFound => {
                    self.damage(
                        DamageKind::MissingParent,
                        None,
                        format!("it is a difference to {parent}, which is not there"),
                    );
                }
                // What is wrong with the parent is said of the parent.
                Err(_) => {}
                Ok(parent) => {
                    if let Err(error) = check_joint(&parent, manifest) {
                        self.damage(DamageKind::BrokenChain, None, error.message);
                    }
                }
            }
        }
        for key in manifest.disks.iter().filter_map(|d| d.template.as_deref()) {
            let template = store.manifest(At { guest: TEMPLATES, ..self.at }, key);
            if template.is_err_and(|error| error.kind == ErrorKind::NotFound) {
                self.damage(DamageKind::MissingTemplate, None, format!("the template {key} is not there"));
            }
        }
    }

    fn disk(&mut self, disk: &Disk, depth: Depth, seed: u64) {
        let (path, index_path) = (self.directory.join(&disk.file), self.directory.join(&disk.index_file));
        let mut sound = true;
        match path.metadata() {
            Err(_) => {
                sound = false;
                self.damage(DamageKind::MissingFile, Some(&disk.file), format!("{} is not there", disk.file));
            }
            Ok(found) if found.len() != disk.file_bytes => {
                sound = false;
                let message = format!("{} has {} of {} bytes", disk.file, found.len(), disk.file_bytes);
                self.damage(DamageKind::WrongLength, Some(&disk.file), message);
            }
            Ok(_) => {}
        }
        match digest_file(&index_path) {
            Ok(sum) if sum == disk.index_sha256 => {}
            Ok(_) => {
                sound = false;
                let message = format!("{} is not what was written", disk.index_file);
                self.damage(DamageKind::Changed, Some(&disk.index_file), message);
            }
            Err(error) => {
                sound = false;
                self.damage(DamageKind::MissingFile, Some(&disk.index_file), error.message);
            }
        }
        if sound && depth != Depth::Structure {
            let mut data =
                Data { path: &path, disk, rules: Rules::default(), damages: Vec::new(), frames: 0, bytes: 0 };
            if let Err(error) = data.read(&index_path, depth, seed) {
                data.damages.push(error.message);
            }
            self.found.frames += data.frames;
            self.found.bytes += data.bytes;
            for message in data.damages.into_iter().take(NAMED) {
                self.damage(DamageKind::Changed, Some(&disk.file), message);
            }
        }
    }
}

/// A data file that is read back.
struct Data<'a> {
    path: &'a Path,
    disk: &'a Disk,
    /// Of the whole stream, where all of it is read.
    rules: Rules,
    damages: Vec<String>,
    frames: u64,
    bytes: u64,
}

impl Data<'_> {
    fn read(&mut self, index: &Path, depth: Depth, seed: u64) -> Result<()> {
        let open = |path: &Path| File::open(path).map_err(|error| Error::io(path, &error));
        let file = open(self.path)?;
        let mut index = IndexReader::new(BufReader::new(open(index)?))?;
        let mut digest = Sha256::new();
        let certain = seed.checked_rem(self.disk.frames).unwrap_or(0);
        let (mut number, mut totals) = (0, [0_u64; 4]);
        while let Some(entry) = index.next()? {
            let chosen = match depth {
                Depth::All => true,
                Depth::Sample(percent) => number == certain || share(seed, self.path, number) < percent / 100.0,
                Depth::Structure => false,
            };
            if chosen {
                let mut bytes = vec![0; usize::try_from(entry.file_bytes).unwrap_or(0)];
                file.read_exact_at(&mut bytes, entry.file_offset).map_err(|error| Error::io(self.path, &error))?;
                digest.update(&bytes);
                self.frames += 1;
                self.bytes += entry.file_bytes;
                if let Err(error) = self.frame(&entry, &bytes, depth) {
                    let (from, to) = (entry.file_offset, entry.file_offset + entry.file_bytes);
                    self.damages.push(format!(
                        "{}: bytes {from} to {to} (image offset {} to {}): {}",
                        self.disk.file, entry.first, entry.end, error.message
                    ));
                }
            }
            number += 1;
            for (total, part) in
                totals.iter_mut().zip([entry.file_bytes, entry.stream_bytes, entry.data_bytes, entry.zero_bytes])
            {
                *total += part;
            }
        }
        let Disk { file_bytes, stream_bytes, data_bytes, zero_bytes, .. } = *self.disk;
        if number != self.disk.frames || totals != [file_bytes, stream_bytes, data_bytes, zero_bytes] {
            return Err(Error::damaged(format!("{} and {MANIFEST} differ", self.disk.index_file)));
        }
        if depth == Depth::All && self.damages.is_empty() && hex(&digest.finalize()) != self.disk.sha256 {
            return Err(Error::damaged(format!("{} is not what was written", self.disk.file)));
        }
        Ok(())
    }

    fn frame(&mut self, entry: &Entry, bytes: &[u8], depth: Depth) -> Result<()> {
        if *blake3::hash(bytes).as_bytes() != entry.blake3 {
            return Err(Error::damaged("not what was written"));
        }
        let length = usize::try_from(entry.stream_bytes).unwrap_or(0);
        let text = zstd::bulk::decompress(bytes, length).map_err(|error| Error::damaged(error.to_string()))?;
        if text.len() != length {
            return Err(Error::damaged("another length than the index says"));
        }
        if depth != Depth::All {
            return Ok(());
        }
        let mut input = text.as_slice();
        if entry.part == Part::Head {
            read_banner(&mut input)?;
        }
        while !input.is_empty() {
            let record = read_record(&mut input)?;
            self.rules.accept(&record)?;
            if let Record::Data(extent) = &record {
                let length = usize::try_from(extent.length).unwrap_or(usize::MAX);
                input = input.get(length..).ok_or_else(|| Error::stream("a record is longer than its frame"))?;
            }
            let fits = match (&record, entry.part) {
                (Record::Data(e) | Record::Zero(e), Part::Data) => e.offset >= entry.first && e.end() <= entry.end,
                (Record::From(_) | Record::To(_) | Record::Size(_), Part::Head) => true,
                (record, part) => *record == Record::End && part == Part::End,
            };
            if !fits {
                return Err(Error::damaged("a record that its index does not have"));
            }
        }
        let Disk { from_snapshot, to_snapshot, size, .. } = self.disk;
        let head = Head { from: from_snapshot.clone(), to: Some(to_snapshot.clone()), size: Some(*size) };
        match self.rules.head == head {
            true => Ok(()),
            false => Err(Error::damaged("other snapshots or another size than the manifest says")),
        }
    }
}

/// Where a frame lies between 0 and 1, by chance that repeats with its seed.
fn share(seed: u64, path: &Path, number: u64) -> f64 {
    let mut digest = blake3::Hasher::new();
    digest.update(&seed.to_le_bytes()).update(path.as_os_str().as_encoded_bytes()).update(&number.to_le_bytes());
    let mut bytes = [0; 4];
    let mut output = digest.finalize_xof();
    let _ = output.read(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}
