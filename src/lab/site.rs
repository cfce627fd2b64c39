//! Where images are built: one builder on a machine, its processes in a control group and its files in a directory of
//! their own, so that what a killed one left is found and swept.

use super::cgroup::Cgroup;
use super::mounts::unmount;
use super::stop::Stop;
use super::store::{self, cache_root, lock_dir, make_dir, remove_dir};
use crate::error::{Failure, Kind};
use sha2::{Digest, Sha256};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The directory of what is being built, beside the images: a finished one is renamed to its place.
const WORK: &str = ".building";

/// A place to build in.
#[derive(Debug)]
pub(super) struct Site {
    /// The group that every tool running for long has to be in.
    pub(super) group: Cgroup,
    /// An empty directory on the file system of the images.
    pub(super) work: PathBuf,
}

impl Site {
    fn of_this_machine() -> Result<Self, Failure> {
        let cache = cache_root()?;
        // Groups are the whole machine's, the directory may be that of one mount namespace: to each its own group.
        let meta = std::fs::metadata(&cache)?;
        let group = Cgroup::of_builds(&format!("{:x}-{:x}", meta.dev(), meta.ino()))?;
        Ok(Site { group, work: cache.join(WORK) })
    }

    async fn clear(&self) -> Result<(), Failure> {
        // First: the tools of a killed builder would still be writing.
        self.group.kill_and_remove().await?;
        // mmdebstrap mounts the machine's /proc and /sys in what it installs.
        unmount(&self.work)?;
        remove_dir(&self.work)
    }
}

/// Builds `what` on the machine's one site, and leaves that empty; a second builder is told to try later.
pub(super) async fn build<T>(
    what: &str,
    stop: &Stop,
    work: impl AsyncFnOnce(&Site) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let _lock = lock_dir(&cache_root()?, what)?;
    let _unhurried = stop.guard("removing what was built of the image");
    let site = Site::of_this_machine()?;
    site.clear().await?;
    site.group.create()?;
    make_dir(&site.work)?;
    let built = stop.bound(work(&site)).await;
    let cleared = site.clear().await;
    let built = built?;
    cleared.map(|()| built)
}

/// Ends and removes what a builder that is no more has left.
pub(super) async fn sweep() -> Result<(), Failure> {
    if !store::cache().exists() {
        return Ok(());
    }
    match lock_dir(&store::cache(), "an image") {
        Err(failure) if failure.kind == Kind::Busy => Ok(()),
        Err(failure) => Err(failure),
        Ok(_lock) => Site::of_this_machine()?.clear().await,
    }
}

/// The short name of what follows from these parts.
pub(super) fn digest<P: AsRef<[u8]>>(parts: impl IntoIterator<Item = P>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.as_ref().len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// Removes images of a kind that no lab and no saved rack stands on, but for the current one.
pub(super) fn remove_older(prefix: &str, current: &Path) -> Result<(), Failure> {
    let root = cache_root()?;
    let used = store::images_in_use()?;
    for name in store::entries(&root)?.iter().filter(|n| n.starts_with(prefix)) {
        let path = root.join(name);
        if path != current && !used.iter().any(|image| image.starts_with(&path)) {
            remove_dir(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::digest;

    #[test]
    fn the_digest_tells_parts_apart() {
        assert_eq!(digest(["ab", "c"]), digest(["ab", "c"]));
        assert_ne!(digest(["ab", "c"]), digest(["a", "bc"]));
        assert_eq!(digest(["ab"]).len(), 12);
    }
}
