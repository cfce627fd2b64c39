//! A repository of backups: every restore point is a directory of plain files, which `zstd`, `sha256sum` and `rbd` can read
//! without this program. docs/backup-format.md describes every byte.
//!
//! It knows nothing of connections to Ceph, of SSH or of an inventory: it reads diff streams, stores, merges and checks them.

mod error;
mod manifest;
mod request;

pub use error::{Error, ErrorKind, Result};
pub use manifest::{Consistency, Disk, FORMAT, Manifest};
pub use request::{
    Damage, DamageKind, Depth, Done, ErrorAnswer, Folded, Keep, Kept, Line, Listed, Merge, Merged, PointKind,
    PointPath, PointSummary, Progress, Prune, Pruned, PrunedGuest, ReadDisk, ReadDone, Reader, Receive, ReceiveDisk,
    Received, Request, Restorable, Selection, Shown, TEMPLATES, Verified, Verify,
};
