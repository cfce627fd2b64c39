//! A repository of backups: every restore point is a directory of plain files, which `zstd`, `sha256sum` and `rbd` can read
//! without this program. docs/backup-format.md describes every byte.
//!
//! It knows nothing of connections to Ceph, of SSH or of an inventory: it reads diff streams, stores, merges and checks them.
#![allow(clippy::disallowed_methods, reason = "a program of its own, without tokio")]

mod answer;
mod check;
mod chunks;
mod diff;
mod error;
mod files;
mod frame;
mod index;
mod layer;
mod list;
mod lock;
mod manifest;
mod mark;
mod merge;
mod overlay;
mod payload;
mod prune;
mod read;
mod reader;
mod receive;
mod request;
mod restore;
mod retention;
mod store;
mod verify;

pub use answer::answer;
pub use list::{list, show};
pub use merge::merge;
pub use prune::prune;
pub use read::read_disk;
pub use receive::{Report, receive};

pub use error::{Error, ErrorKind, Result};
pub use manifest::{Consistency, Disk, FORMAT, Manifest};
pub use request::{
    CHAIN_LIMIT, Damage, DamageKind, Depth, Done, ErrorAnswer, Folded, Keep, Kept, Line, Listed, Merge, Merged,
    PointKind, PointPath, PointSummary, Progress, Prune, Pruned, PrunedGuest, ReadDisk, ReadDone, Reader, Receive,
    ReceiveDisk, Received, Request, Restorable, Selection, Shown, TEMPLATES, Verified, Verify,
};
pub use verify::verify;
