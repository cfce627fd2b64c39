//! The file that makes a directory a repository, and the id in it.

use crate::error::Failure;
use rackhand_repository::FORMAT;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use uuid::Uuid;

/// Its name.
pub(super) const FILE: &str = "rackhand-repository.json";

/// What is in it.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Mark {
    format: u32,
    written_by: String,
    /// The id; one that was made without `backup init` has none.
    #[serde(default)]
    pub(super) id: Option<String>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// The mark of a repository, if the directory is one.
pub(super) fn read(directory: &Path) -> Result<Option<Mark>, Failure> {
    let path = directory.join(FILE);
    match fs::read(&path) {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(mark) => Ok(Some(mark)),
            Err(error) => Err(Failure::failed(format!("{} cannot be read: {error}", path.display()))),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::failed(format!("{}: {error}", path.display()))),
    }
}

/// Makes a repository of a directory that is empty, unless it is one; tells its id.
pub(super) fn write(directory: &Path) -> Result<String, Failure> {
    let failed = |error: io::Error| Failure::failed(format!("{}: {error}", directory.display()));
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    let mark = match read(directory)? {
        Some(Mark { id: Some(id), .. }) => return Ok(id),
        Some(mark) => mark,
        None => {
            for entry in fs::read_dir(directory).map_err(failed)? {
                let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
                if !name.starts_with('.') && name != "lost+found" {
                    return Err(Failure::refused(format!(
                        "{} is no repository and is not empty: it has {name}",
                        directory.display()
                    )));
                }
            }
            let written_by = concat!("rackhand ", env!("CARGO_PKG_VERSION")).to_owned();
            Mark { format: FORMAT, written_by, id: None, other: Map::new() }
        }
    };
    let id = Uuid::new_v4().to_string();
    let text = serde_json::to_vec_pretty(&Mark { id: Some(id.clone()), ..mark })?;
    replace(directory, &text).map_err(failed)?;
    Ok(id)
}

/// Durable, whole or not at all.
fn replace(directory: &Path, text: &[u8]) -> io::Result<()> {
    let temporary = directory.join(format!(".{FILE}.{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&temporary, directory.join(FILE))?;
    File::open(directory)?.sync_all()
}
