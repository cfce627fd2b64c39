//! The bare image under every host: a fresh Debian, and a package repository inside it so that a lab needs no network.

use super::archive::{Archive, packages};
use super::site::{self, Site};
use super::stop::Stop;
use super::store::cache_root;
use super::tool::require;
use crate::error::{Failure, ResultExt};
use crate::ui::Ui;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

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
        let digest = site::digest([archive.suite.as_str(), &archive.sources, BASE, OFFLINE, CUSTOMIZE]);
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

    /// Builds it unless it is there; a second builder is told to try later.
    pub(super) async fn ensure(&self, stop: &Stop, ui: &Ui) -> Result<PathBuf, Failure> {
        if self.is_built() {
            return Ok(self.root());
        }
        require(&["mmdebstrap", "dpkg-deb"])?;
        site::build("the host image", stop, async |site| {
            // Another one may have built it just now.
            if !self.is_built() {
                let job = ui.job("build the host image");
                job.step(format!("Debian {}, once", self.archive.suite));
                self.build(site).await.while_doing(|| "cannot build the host image".to_owned())?;
                job.done(self.root().display().to_string());
            }
            Ok(self.root())
        })
        .await
    }

    async fn build(&self, site: &Site) -> Result<(), Failure> {
        let work = &site.work;
        fs::write(work.join("offline-packages.list"), OFFLINE)?;
        let hook = work.join("customize.sh");
        fs::write(&hook, CUSTOMIZE)?;
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
        self.archive.install(site, &packages(BASE), &hook, &work.join("root")).await?;
        fs::rename(work, &self.directory)?;
        site::remove_older("host-", &self.directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_name_one_package_a_line() {
        assert!(packages(OFFLINE).iter().chain(&packages(BASE)).all(|p| !p.contains(' ')));
    }
}
