//! Files and directories that hold the disks of guests: only their owner reads them.

use crate::error::{Named, Result};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Of every file.
pub(crate) const FILE_MODE: u32 = 0o600;
/// Of every directory.
const DIRECTORY_MODE: u32 = 0o700;
/// What people outside the owner's group may do.
const OTHERS: u32 = 0o007;

/// Makes a file that is not there yet.
pub(crate) fn create_new(path: &Path) -> Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path).named(path)
}

/// Writes a whole file and waits until it lasts.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(FILE_MODE).open(path).named(path)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).named(path)
}

/// Makes a directory that is not there yet.
pub(crate) fn create_directory(path: &Path) -> Result<()> {
    DirBuilder::new().mode(DIRECTORY_MODE).create(path).named(path)
}

/// Makes a directory and those above it, as far as they are not there.
pub(crate) fn create_directories(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path).named(path)
}

/// Closes a directory to all but its owner and its group: earlier versions left it open.
pub(crate) fn close_to_others(path: &Path) -> Result<()> {
    let mode = fs::metadata(path).named(path)?.permissions().mode() & 0o7777;
    if mode & OTHERS != 0 {
        // Where the directory is someone else's, it is theirs to decide.
        let _ = fs::set_permissions(path, Permissions::from_mode(mode & !OTHERS));
    }
    Ok(())
}
