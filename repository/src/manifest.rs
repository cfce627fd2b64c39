//! What a point says about itself: `MANIFEST.json`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of the format that is written, and the newest that is read.
pub const FORMAT: u32 = 1;

/// How the disks of a point were brought to one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// The guest's agent had its file systems frozen.
    Agent,
    /// The guest's processors stood still.
    Paused,
    /// As after a power cut.
    Crash,
    /// Each disk as after a power cut, but not all at the same instant: what spans several disks may not fit together.
    Apart,
}

/// `MANIFEST.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Manifest {
    /// The version of the format.
    pub format: u32,
    /// The cluster's fsid.
    pub cluster: String,
    /// The guest's UUID, or "templates".
    pub guest: String,
    /// The guest's name at the time.
    pub name: String,
    /// The point: the name of its directory.
    pub point: String,
    /// The point that it is a difference to; none: a full.
    pub parent_point: Option<String>,
    /// How the disks were brought to one instant.
    pub consistency: Consistency,
    /// The disks, by index.
    pub disks: Vec<Disk>,
    /// Points that were folded into this one, oldest first.
    #[serde(default)]
    pub folded: Vec<String>,
    /// The program that wrote it, with its version.
    pub written_by: String,
}

/// A disk of a point.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Disk {
    /// Its number in the guest.
    pub index: u32,
    /// The name of its RBD image at the time.
    pub image: String,
    /// The image's size in bytes.
    pub size: u64,
    /// The snapshot that it is a difference to; none: a full.
    pub from_snapshot: Option<String>,
    /// The snapshot that it holds.
    pub to_snapshot: String,
    /// The template that a full lies upon.
    pub template: Option<String>,
    /// The name of the data file.
    pub file: String,
    /// The length of the data file in bytes.
    pub file_bytes: u64,
    /// SHA-256 of the data file, hexadecimal.
    pub sha256: String,
    /// The name of the index.
    pub index_file: String,
    /// SHA-256 of the index, hexadecimal.
    pub index_sha256: String,
    /// How many frames the data file has.
    pub frames: u64,
    /// The length of the diff stream in bytes.
    pub stream_bytes: u64,
    /// How many bytes of the image it writes.
    pub data_bytes: u64,
    /// How many bytes of the image it sets to zero.
    pub zero_bytes: u64,
}
