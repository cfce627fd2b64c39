//! The bare image under every host: a fresh Debian, and a package repository inside it so that a lab needs no network.

use super::archive::{Archive, packages};
use super::cgroup::Cgroup;
use super::store::{cache_root, lock_dir};
use super::tool::require;
use crate::error::{Failure, ResultExt};
use crate::ui::Ui;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What a host can install offline.
const OFFLINE: &str = include_str!("image/offline-packages.list");
/// What a host has from the start.
const BASE: &str = include_str!("image/base-packages.list");
/// What is done to the image once its packages are in.
const CUSTOMIZE: &str = include_str!("image/customize.sh");
/// Space an image takes while it is built, with the downloads: measured 0.7 GiB.
pub(super) const SPACE: u64 = 2 << 30;

/// Where the image comes from and what its content is called.
#[derive(Debug)]
pub(super) struct Recipe {
    archive: Archive,
    /// Where it is once built.
    directory: PathBuf,
}

impl Recipe {
    /// The recipe that fits this machine's own apt configuration.
    pub(super) async fn of_this_machine() -> Result<Self, Failure> {
        let archive = Archive::of_this_machine().await?;
        let digest = digest(&[&archive.suite, &archive.sources, BASE, OFFLINE, CUSTOMIZE]);
        let directory = cache_root()?.join(format!("host-{digest}"));
        Ok(Recipe { archive, directory })
    }

    /// Whether it is built already.
    pub(super) fn is_built(&self) -> bool {
        self.root().is_dir()
    }

    /// The image's root directory.
    pub(super) fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// Builds it unless it is there; a second builder is told to wait.
    pub(super) async fn ensure(&self, ui: &Ui) -> Result<PathBuf, Failure> {
        if self.is_built() {
            return Ok(self.root());
        }
        require(&["mmdebstrap", "dpkg-deb"])?;
        let _lock = lock_dir(&cache_root()?, "the host image")?;
        if self.is_built() {
            return Ok(self.root());
        }
        let job = ui.job("build the host image");
        job.step(format!("Debian {}, once", self.archive.suite));
        self.build().await.while_doing(|| "cannot build the host image".to_owned())?;
        job.done(self.root().display().to_string());
        Ok(self.root())
    }

    async fn build(&self) -> Result<(), Failure> {
        let group = Cgroup::of_build("host")?;
        // A killed builder's tools would still be writing.
        group.kill_and_remove().await?;
        group.create()?;
        // Built beside and renamed: an image that is there is whole.
        let fresh = cache_root()?.join("building");
        if fresh.exists() {
            fs::remove_dir_all(&fresh).while_doing(|| format!("cannot remove {}", fresh.display()))?;
        }
        fs::create_dir_all(&fresh)?;
        fs::write(fresh.join("offline-packages.list"), OFFLINE)?;
        let hook = fresh.join("customize.sh");
        fs::write(&hook, CUSTOMIZE)?;
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
        self.archive.install(Some(&group), &packages(BASE), &hook, &fresh.join("root")).await?;
        group.kill_and_remove().await?;
        fs::rename(&fresh, &self.directory)?;
        remove_older(&self.directory)
    }
}

/// Images no lab stands on any more.
fn remove_older(current: &Path) -> Result<(), Failure> {
    let root = cache_root()?;
    let used: Vec<PathBuf> = super::store::images_in_use()?;
    for name in super::store::entries(&root)? {
        let path = root.join(&name);
        let stale = name.starts_with("host-") && path != current && !used.iter().any(|u| u.starts_with(&path));
        if stale {
            fs::remove_dir_all(&path).while_doing(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(6).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_name_one_package_a_line() {
        assert!(packages(OFFLINE).iter().chain(&packages(BASE)).all(|p| !p.contains(' ')));
    }

    #[test]
    fn the_digest_tells_parts_apart() {
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
    }
}
