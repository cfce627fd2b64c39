//! Mounts that this process sees.

use crate::error::{Failure, ResultExt};
use nix::mount::{MntFlags, umount2};
use std::fs;
use std::path::{Path, PathBuf};

/// Unmounts everything at and below a path that this process sees.
pub(super) fn unmount(path: &Path) -> Result<(), Failure> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    for point in mounts_below(&mounts, path).iter().rev() {
        umount2(point, MntFlags::MNT_DETACH).while_doing(|| format!("cannot unmount {}", point.display()))?;
    }
    Ok(())
}

/// Mount points at and below a path, in the order they were mounted.
fn mounts_below(mountinfo: &str, path: &Path) -> Vec<PathBuf> {
    let points = mountinfo.lines().filter_map(|l| l.split(' ').nth(4)).map(PathBuf::from);
    points.filter(|p| p.starts_with(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_a_path_are_found_and_their_neighbours_are_not() {
        let mounts = "1 0 8:1 / / rw - ext4 a rw\n2 1 0:5 / /x/h1/sys rw - sysfs s rw\n\
                      3 2 0:6 / /x/h1/sys/class ro - overlay o ro\n4 1 0:7 / /x/h10/sys rw - sysfs s rw\n";
        assert_eq!(
            mounts_below(mounts, Path::new("/x/h1")),
            [PathBuf::from("/x/h1/sys"), PathBuf::from("/x/h1/sys/class")]
        );
    }
}
