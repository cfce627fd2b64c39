//! Disks of a host: sparse files on loop devices that free themselves.

use super::store::HostDir;
use super::tool::Tool;
use crate::error::{Failure, ResultExt};
use serde::Deserialize;
use std::fs::File;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

/// A loop device, held open; the kernel frees it when its last user is gone, however that came.
#[derive(Debug)]
pub(super) struct Loop {
    /// Its device node.
    pub(super) node: String,
    _held: File,
}

/// Makes an empty disk. It takes no space until it is written to.
pub(super) fn create(dir: &HostDir, disk: u8, bytes: u64) -> Result<(), Failure> {
    let path = dir.disk(disk);
    let file = File::create_new(&path).while_doing(|| format!("cannot make {}", path.display()))?;
    Ok(file.set_len(bytes)?)
}

/// Puts a disk on a loop device.
pub(super) async fn attach(file: &Path) -> Result<Loop, Failure> {
    let node = Tool::new("losetup").args(["--find", "--show"]).arg(file).run().await?.trim().to_owned();
    let held = File::options().read(true).write(true).open(&node).while_doing(|| format!("cannot open {node}"));
    // Detaching a device in use marks it to be freed with its last user.
    Tool::new("losetup").args(["--detach", &node]).run().await?;
    Ok(Loop { node, _held: held? })
}

#[derive(Deserialize)]
struct Listing {
    #[serde(default)]
    loopdevices: Vec<Device>,
}

#[derive(Deserialize)]
struct Device {
    name: String,
    #[serde(rename = "back-file")]
    back_file: Option<String>,
}

/// How long a loop device may take to go: its last user may be looking at it just now, as udev does.
const RELEASE: Duration = Duration::from_secs(20);

/// Frees loop devices on files below a directory, should any be left, and waits until they are gone.
pub(super) async fn detach_below(dir: &Path) -> Result<(), Failure> {
    let began = Instant::now();
    loop {
        let listing = Tool::new("losetup").args(["--list", "--json"]).run().await?;
        let left = on_files_below(&listing, dir)?;
        let mut last = Ok(());
        for node in &left {
            // One that frees itself may have gone since it was listed: the next list says.
            last = Tool::new("losetup").args(["--detach", node]).run().await.map(drop);
        }
        if left.is_empty() {
            return Ok(());
        }
        if began.elapsed() > RELEASE {
            let still = || format!("{} is still in use", left.join(", "));
            return last
                .and_then(|()| Err(Failure::failed("another program has it open or mounted")))
                .while_doing(still);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn on_files_below(listing: &str, dir: &Path) -> Result<Vec<String>, Failure> {
    // Nothing at all is printed where there is no loop device.
    if listing.trim().is_empty() {
        return Ok(Vec::new());
    }
    let listing: Listing = serde_json::from_str(listing).while_doing(|| "cannot read losetup's list".to_owned())?;
    let below = |d: &Device| d.back_file.as_ref().is_some_and(|f| Path::new(f).starts_with(dir));
    Ok(listing.loopdevices.into_iter().filter(below).map(|d| d.name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_devices_on_files_below_the_directory_are_ours() {
        let listing = r#"{"loopdevices": [
            {"name":"/dev/loop1", "back-file":"/lab/rack/hosts/h1/disk0.img"},
            {"name":"/dev/loop2", "back-file":"/lab/rack2/hosts/h1/disk0.img (deleted)"},
            {"name":"/dev/loop3", "back-file":null}]}"#;
        assert_eq!(on_files_below(listing, Path::new("/lab/rack")).unwrap(), ["/dev/loop1"]);
        assert!(on_files_below("", Path::new("/lab")).unwrap().is_empty());
    }

    #[test]
    fn a_new_disk_is_sparse_and_never_overwrites() {
        let dir = tempfile::tempdir().unwrap();
        let host = HostDir { path: dir.path().to_owned() };
        create(&host, 0, 1 << 40).unwrap();
        assert_eq!(std::fs::metadata(host.disk(0)).unwrap().len(), 1 << 40);
        assert!(create(&host, 0, 1).is_err());
    }
}
