//! Packages fetched with the machine's own apt configuration and unpacked beside it, not installed.

use super::site::Site;
use super::tool::{Tool, tail};
use crate::error::{Failure, ResultExt};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A slow mirror and 30 MB of kernel.
const DOWNLOAD: Duration = Duration::from_secs(600);
const UNPACK: Duration = Duration::from_secs(120);

/// The package that a metapackage stands for: its first dependency that begins with `prefix`.
pub(super) async fn behind(metapackage: &str, prefix: &str) -> Result<String, Failure> {
    let listing = Tool::new("apt-cache").args(["depends", metapackage]).run().await;
    let listing = listing.or_hint("run `apt-get update` first; the image needs a Debian package archive")?;
    first_dependency(&listing, prefix).ok_or_else(|| {
        Failure::failed(format!("package {metapackage} depends on no {prefix}... in this archive: {}", tail(&listing)))
    })
}

fn first_dependency(listing: &str, prefix: &str) -> Option<String> {
    let mut names = listing.lines().filter_map(|l| l.trim().strip_prefix("Depends: "));
    names.find(|n| n.starts_with(prefix)).map(str::to_owned)
}

/// Downloads `packages` and unpacks them into a directory under `work`.
pub(super) async fn unpack(site: &Site, work: &Path, packages: &[&str]) -> Result<PathBuf, Failure> {
    let (debs, root) = (work.join("debs"), work.join("packages"));
    fs::create_dir(&debs)?;
    fs::create_dir(&root)?;
    // apt-get downloads into its working directory; its sandbox user cannot enter a private one.
    Tool::new("env")
        .arg("-C")
        .arg(&debs)
        .args(["apt-get", "-q", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3", "download"])
        .args(packages)
        .deadline(DOWNLOAD)
        .within(&site.group)
        .run()
        .await
        .or_hint("the image needs the package archive once: check `apt-get update`")?;
    for entry in fs::read_dir(&debs)? {
        let call = Tool::new("dpkg-deb").arg("-x").arg(entry?.path()).arg(&root);
        call.deadline(UNPACK).within(&site.group).run().await?;
    }
    Ok(root)
}

/// The files below `directory`, sorted.
pub(super) fn files(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        let listing = fs::read_dir(&directory).while_doing(|| format!("cannot read {}", directory.display()))?;
        for entry in listing {
            let entry = entry?;
            if entry.file_type()?.is_dir() { left.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_behind_the_metapackage_is_found() {
        let listing = "linux-image-cloud-amd64\n  PreDepends: x\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        let kernel = first_dependency(listing, "linux-image-");
        assert_eq!(kernel.as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(first_dependency(listing, "busybox"), None);
    }
}
