//! What `rackhand-store` is asked, and what it answers: one JSON request on the first line of its input, JSON lines on its output.

use crate::error::ErrorKind;
use crate::manifest::{Consistency, Manifest};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The directory below a cluster's that holds templates: a guest of this name, whose points are the templates' keys.
pub const TEMPLATES: &str = "templates";

/// How many points a chain may have. What reads it opens all of them at once, and a damage in one is a damage in all later ones.
pub const CHAIN_LIMIT: usize = 100;

/// One request. The repository's directory is made by the first `receive`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Stores a new restore point.
    Receive(Receive),
    /// Lists the restore points.
    List(Selection),
    /// Shows the manifest of one point and the chain that it stands on.
    Show(PointPath),
    /// Reads points back and compares them with their digests.
    Verify(Verify),
    /// Writes the state of one disk at a point as a diff stream.
    Read(ReadDisk),
    /// Folds the points before a point into it.
    Merge(Merge),
    /// Removes the points that a retention does not keep.
    Prune(Prune),
}

/// Stores a new restore point: all disks of a guest, each as a Ceph diff v1 stream.
///
/// A template is stored the same way, with `guest` "templates" and its key as `point`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Receive {
    /// The repository's directory.
    pub repository: PathBuf,
    /// The cluster's fsid.
    pub cluster: String,
    /// The guest's UUID, or "templates".
    pub guest: String,
    /// The guest's name at the time.
    pub name: String,
    /// The point's name: its start in UTC, `20261128T013000Z`, with a suffix such as `-2` where that is taken.
    pub point: String,
    /// The point that the disks' streams are differences to; none: a full.
    #[serde(default)]
    pub parent: Option<String>,
    /// The guest's definition, stored as it is.
    pub definition: serde_json::Value,
    /// How the disks were brought to one instant.
    pub consistency: Consistency,
    /// The disks. A disk that the parent lacks is stored full: it has no `from_snapshot`.
    pub disks: Vec<ReceiveDisk>,
    /// What reads a disk; none: the streams follow the request on the input, disk after disk in this order, each in chunks of
    /// a length (u32, big endian) and its bytes; length 0 ends a disk.
    #[serde(default)]
    pub reader: Option<Reader>,
    /// How many disks are read at a time; none: four.
    #[serde(default)]
    pub parallel: Option<usize>,
    /// Who holds the guest's lock, for the message of another run.
    #[serde(default)]
    pub owner: Option<String>,
}

/// A disk to be received.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReceiveDisk {
    /// Its number in the guest.
    pub index: u32,
    /// The name of its RBD image.
    pub image: String,
    /// The image's size in bytes; the stream must say the same.
    pub size: u64,
    /// The snapshot that the stream is a difference to; none: everything since the image's creation.
    #[serde(default)]
    pub from_snapshot: Option<String>,
    /// The snapshot that is stored.
    pub to_snapshot: String,
    /// The template that a full of a clone lies upon: its key below "templates". Only with a full.
    #[serde(default)]
    pub template: Option<String>,
}

/// A program that writes a disk's diff stream to its output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reader {
    /// Its words; `{image}`, `{from}` (empty for a full), `{to}` and `{index}` are replaced in each.
    pub argv: Vec<String>,
    /// What is added to its environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// Which points are meant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Selection {
    /// The repository's directory.
    pub repository: PathBuf,
    /// Only this cluster.
    #[serde(default)]
    pub cluster: Option<String>,
    /// Only this guest's UUID.
    #[serde(default)]
    pub guest: Option<String>,
}

/// One point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PointPath {
    /// The repository's directory.
    pub repository: PathBuf,
    /// The cluster's fsid.
    pub cluster: String,
    /// The guest's UUID, or "templates".
    pub guest: String,
    /// The point.
    pub point: String,
}

/// How much is read back.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Depth {
    /// Names, sizes, small files and chains; no data.
    Structure,
    /// That, and this share of the frames in percent, at least one a disk, chosen anew by `seed`.
    Sample(f64),
    /// Every byte.
    All,
}

/// Reads points back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Verify {
    /// Which points.
    #[serde(flatten)]
    pub selection: Selection,
    /// Only this point, with the chain that it stands on; needs cluster and guest.
    #[serde(default)]
    pub point: Option<String>,
    /// How much is read.
    pub depth: Depth,
    /// Chooses the sample; none: the time.
    #[serde(default)]
    pub seed: Option<u64>,
}

/// Reads a disk as a diff v1 stream from nothing to the point: the chain and the template merged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReadDisk {
    /// Which point.
    #[serde(flatten)]
    pub at: PointPath,
    /// The disk's number.
    pub disk: u32,
    /// A file or FIFO; none: the output. Then the JSON lines go to the error output instead.
    #[serde(default)]
    pub to: Option<PathBuf>,
    /// Without the `t` record, so that `rbd import-diff` leaves no snapshot.
    #[serde(default)]
    pub without_snapshot: bool,
}

/// Folds the points before a point into it, so that they can be removed; what it restores to stays the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Merge {
    /// Which point.
    #[serde(flatten)]
    pub at: PointPath,
    /// The ancestor that it is a difference to afterwards; none: it becomes a full (over the template, where there is one).
    #[serde(default)]
    pub onto: Option<String>,
    /// Who holds the guest's lock, for the message of another run.
    #[serde(default)]
    pub owner: Option<String>,
}

/// How many points of each kind are kept, the newest of each hour, day, ISO week, month and year (UTC).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Keep {
    /// The newest points.
    pub last: u32,
    /// Hours.
    pub hourly: u32,
    /// Days.
    pub daily: u32,
    /// ISO weeks.
    pub weekly: u32,
    /// Months.
    pub monthly: u32,
    /// Years.
    pub yearly: u32,
}

/// Removes points.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Prune {
    /// Which guests.
    #[serde(flatten)]
    pub selection: Selection,
    /// What is kept. One that keeps nothing is refused; the newest point of a guest always stays.
    pub keep: Keep,
    /// No point younger than this is removed, in seconds.
    #[serde(default)]
    pub minimum_age: u64,
    /// A chain is merged only once this many of its points are superfluous; until then they stay. None: one.
    #[serde(default)]
    pub merge_after: Option<usize>,
    /// Says what would happen and changes nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Who holds the guest's lock, for the message of another run.
    #[serde(default)]
    pub owner: Option<String>,
}

/// A line of the answer. The last one is `done` or `error`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// How far it is.
    Progress(Progress),
    /// The result.
    Done(Box<Done>),
    /// Why there is none. Nothing was left half done.
    Error(ErrorAnswer),
}

/// How far a request is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Progress {
    /// What is worked on: a guest, where the request has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<String>,
    /// And its point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<String>,
    /// And its disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<u32>,
    /// Bytes of diff streams so far.
    pub bytes: u64,
    /// Bytes written to the repository so far.
    pub stored: u64,
    /// The image offset that was reached; with the image's size, a share.
    pub position: u64,
    /// Of how much `position` is a part; zero: not known.
    pub of: u64,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorAnswer {
    /// What a caller branches on.
    pub kind: ErrorKind,
    /// For people.
    pub message: String,
    /// The point that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point: Option<String>,
}

/// A result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "op", rename_all = "snake_case")]
#[allow(clippy::large_enum_variant, reason = "there is one a run")]
pub enum Done {
    /// Of `receive`: the point as it is stored.
    Receive(Received),
    /// Of `list`.
    List(Listed),
    /// Of `show`.
    Show(Box<Shown>),
    /// Of `verify`.
    Verify(Verified),
    /// Of `read`.
    Read(ReadDone),
    /// Of `merge`.
    Merge(Merged),
    /// Of `prune`.
    Prune(Pruned),
}

/// A point was stored: it is complete, synced and renamed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Received {
    /// Its summary.
    pub point: PointSummary,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its directory.
    pub directory: PathBuf,
    /// Directories of dead runs that were removed.
    #[serde(default)]
    pub swept: Vec<String>,
}

/// What a point consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PointKind {
    /// Everything (over its template, where it has one).
    Full,
    /// The difference to its parent.
    Incremental,
    /// A full that was merged here from others.
    Synthetic,
}

/// One line of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PointSummary {
    /// The cluster's fsid.
    pub cluster: String,
    /// The guest's UUID, or "templates".
    pub guest: String,
    /// The guest's name at the time; empty where the manifest cannot be read.
    pub name: String,
    /// The point.
    pub point: String,
    /// What it is a difference to.
    pub parent: Option<String>,
    /// When it was taken (RFC 3339, UTC), from its name; none for a template.
    pub taken_at: Option<String>,
    /// What it consists of.
    pub kind: PointKind,
    /// How the disks were brought to one instant.
    pub consistency: Consistency,
    /// How many disks it has.
    pub disks: usize,
    /// The sizes of its images together, in bytes.
    pub image_bytes: u64,
    /// What its own files take, in bytes.
    pub stored_bytes: u64,
    /// How many points, itself included, a restore reads (templates apart).
    pub chain: usize,
    /// Why it cannot be restored, as far as names and sizes tell; none: it can.
    pub problem: Option<String>,
}

impl PointSummary {
    /// Whether the next point may be a difference to this one: it is whole, and its chain has room. Otherwise the next one is a full.
    #[must_use]
    pub fn may_carry(&self) -> bool {
        self.problem.is_none() && self.chain < CHAIN_LIMIT
    }
}

/// The points of a selection, by cluster, guest and point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Listed {
    /// The points, templates left out.
    pub points: Vec<PointSummary>,
    /// The templates.
    pub templates: Vec<PointSummary>,
}

/// One point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Shown {
    /// Its summary.
    pub point: PointSummary,
    /// Its manifest.
    pub manifest: Manifest,
    /// The guest's definition as it was given.
    pub definition: serde_json::Value,
    /// The points that a restore reads, oldest first, itself last.
    pub chain: Vec<String>,
    /// Its directory.
    pub directory: PathBuf,
}

/// What is wrong with a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DamageKind {
    /// A file is not there.
    MissingFile,
    /// A file is shorter or longer than it was.
    WrongLength,
    /// Bytes of a file are not those that were written.
    Changed,
    /// A point that it stands on is not there.
    MissingParent,
    /// A template that it stands on is not there.
    MissingTemplate,
    /// Its snapshots do not join with those of its parent.
    BrokenChain,
    /// The manifest is that of another guest, cluster or point.
    Foreign,
    /// Written by a newer version; not read.
    NewerFormat,
    /// The manifest cannot be read.
    Manifest,
}

/// One damage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Damage {
    /// The cluster's fsid.
    pub cluster: String,
    /// The guest's UUID, or "templates".
    pub guest: String,
    /// The point.
    pub point: String,
    /// The file, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// What a caller branches on.
    pub kind: DamageKind,
    /// For people: what is wrong, and where.
    pub message: String,
}

/// A point and whether it can be restored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Restorable {
    /// The cluster's fsid.
    pub cluster: String,
    /// The guest's UUID.
    pub guest: String,
    /// The point.
    pub point: String,
    /// Whether all that a restore reads was found whole, as far as it was read.
    pub restorable: bool,
}

/// The result of a verification.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Verified {
    /// How many points were looked at, templates included.
    pub points: usize,
    /// How many frames were read.
    pub frames: u64,
    /// How many bytes of files were read.
    pub bytes: u64,
    /// What is wrong; empty: nothing.
    pub damages: Vec<Damage>,
    /// Every guest's point that was looked at, and whether it can be restored.
    pub restorable: Vec<Restorable>,
}

/// A disk was written in full.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReadDone {
    /// The image's size in bytes.
    pub size: u64,
    /// Bytes of the stream.
    pub bytes: u64,
    /// BLAKE3 of the stream, hexadecimal.
    pub blake3: String,
}

/// Points were folded into one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Merged {
    /// The point as it is now.
    pub point: PointSummary,
    /// The points that were folded into it; they are still there.
    pub folded: Vec<String>,
}

/// What became of the points of one guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PrunedGuest {
    /// The cluster's fsid.
    pub cluster: String,
    /// The guest's UUID.
    pub guest: String,
    /// The guest's name at its newest point.
    pub name: String,
    /// What stays, oldest first, each with the reasons.
    pub kept: Vec<Kept>,
    /// What is removed, oldest first.
    pub removed: Vec<String>,
    /// Points into which removed ones are folded.
    pub merged: Vec<Folded>,
    /// Bytes that the removed points take.
    pub removed_bytes: u64,
    /// Why not all was done that was to be done with this guest: damage, a full file system, or another run's lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
}

/// A point that stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Kept {
    /// The point.
    pub point: String,
    /// Why, such as "last 1" or "daily 2026-11-28".
    pub reasons: Vec<String>,
}

/// A point that others are folded into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Folded {
    /// The point.
    pub point: String,
    /// What goes into it, oldest first.
    pub folds: Vec<String>,
    /// What it is a difference to afterwards.
    pub onto: Option<String>,
}

/// The result of a prune.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pruned {
    /// Whether nothing was changed because that was asked.
    pub dry_run: bool,
    /// Guest by guest.
    pub guests: Vec<PrunedGuest>,
    /// Templates that no point needs; they stay. Of a cluster with a manifest that cannot be read, none is named.
    pub unused_templates: Vec<String>,
}
