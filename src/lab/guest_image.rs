//! Disk images of guests to try things with, built from the machine's own package archive.
//!
//! An image is cached under the digest of its recipe (what is in this directory), so a lab needs the archive once;
//! a newer kernel in the archive does not make a cached image stale.

mod counter;
mod debian;
mod mbr;
mod tiny;

pub use counter::{Fault, RING_LENGTH, RING_START, Record, history};

use super::stop::Stop;
use super::{archive, preflight, site, store, tool};
use crate::error::{Failure, ResultExt};
use crate::ui::Ui;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A guest image this crate knows how to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ImageKind {
    /// Kernel and busybox: boots in two seconds under emulation, counts on its disk, answers on the network.
    Tiny,
    /// Debian with cloud-init and the QEMU guest agent.
    Debian,
}

impl ImageKind {
    /// The name on the command line and in file names.
    pub fn name(self) -> &'static str {
        match self {
            ImageKind::Tiny => "tiny",
            ImageKind::Debian => "debian",
        }
    }

    /// Everything the image's content follows from, apart from the archive.
    fn recipe(self) -> Vec<&'static [u8]> {
        match self {
            ImageKind::Tiny => tiny::recipe(),
            ImageKind::Debian => debian::recipe(),
        }
    }

    fn tools(self) -> &'static [&'static str] {
        match self {
            ImageKind::Tiny => tiny::TOOLS,
            ImageKind::Debian => debian::TOOLS,
        }
    }
}

/// The image's file; built first where the cache does not have it, within `deadline`.
///
/// # Errors
/// When a tool is missing or the package archive cannot be reached; the cache is left as it was.
pub async fn build(kind: ImageKind, deadline: Option<Duration>, ui: &Ui) -> Result<PathBuf, Failure> {
    preflight::root()?;
    let (directory, name) = (&store::cache().join("guest-images"), kind.name());
    let file = directory.join(format!("{name}-{}.img", digest(kind, &archive::own_suite()?)));
    if file.is_file() {
        return Ok(file);
    }
    tool::require(kind.tools())?;
    site::build(&format!("guest image {name}"), &Stop::new(deadline, ui), async |site| {
        if file.is_file() {
            return Ok(());
        }
        let job = ui.job(format!("build guest image {name}"));
        let made = match kind {
            ImageKind::Tiny => tiny::build(site, &job).await,
            ImageKind::Debian => debian::build(site, &job).await,
        };
        let made = made.while_doing(|| format!("cannot build guest image {name}"))?;
        store::make_dir(directory)?;
        fs::rename(&made, &file).while_doing(|| format!("cannot write {}", file.display()))?;
        remove_superseded(directory, name, &file);
        job.done(file.display().to_string());
        Ok(())
    })
    .await?;
    Ok(file)
}

fn digest(kind: ImageKind, suite: &str) -> String {
    site::digest(kind.recipe().into_iter().chain([suite.as_bytes()]))
}

/// Images of older recipes are of no more use; one in the way of nothing may stay if it cannot be removed.
fn remove_superseded(directory: &Path, name: &str, current: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let same_kind = entry.file_name().to_string_lossy().starts_with(&format!("{name}-"));
        if same_kind && entry.path() != current {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// What building any of the images takes from the machine.
#[cfg(test)]
pub(super) fn tools() -> Vec<&'static str> {
    [ImageKind::Tiny, ImageKind::Debian].iter().flat_map(|kind| kind.tools()).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_stable_and_short() {
        let digest = |suite| super::digest(ImageKind::Tiny, suite);
        assert_eq!(digest("bookworm"), digest("bookworm"));
        assert_ne!(digest("bookworm"), digest("trixie"));
        assert_eq!(digest("bookworm").len(), 12);
    }
}
