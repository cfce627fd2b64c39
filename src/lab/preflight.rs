//! What must be true before anything of a lab is made.

use super::cgroup;
use super::store;
use super::tool::require;
use crate::error::{Failure, Kind, ResultExt};
use crate::inventory::Size;
use std::path::Path;

/// Every tool a running lab needs; the image's own are asked for when it is built.
pub(super) const TOOLS: &[&str] =
    &["cp", "ip", "losetup", "nsenter", "setsid", "ssh", "ssh-keygen", "systemd-nspawn", "unshare", "ipmi_sim"];
/// What a provisioned host takes over the image and on a fresh disk: measured 1.2 GiB and 0.3 GiB.
const SPACE_A_HOST: u64 = 3 << 29;

/// Settings of the machine's kernel that all hosts share and cannot change themselves, and the least they need.
const LIMITS: &[(&str, u64)] = &[
    // A host's systemd and its services hold nine; the kernel's 128 are used up by the fourteenth host, which then
    // does not boot.
    ("/proc/sys/fs/inotify/max_user_instances", 4096),
    // What the package of ceph-osd asks for.
    ("/proc/sys/fs/aio-max-nr", 1_048_576),
];

/// Raises limits of the kernel that are too low for a rack, until the machine's next boot.
pub(super) fn raise_limits() -> Result<(), Failure> {
    for (file, least) in LIMITS {
        let doing = || format!("cannot raise {file}");
        let now = std::fs::read_to_string(file).while_doing(doing)?;
        if now.trim().parse::<u64>().is_ok_and(|now| now < *least) {
            std::fs::write(file, least.to_string()).while_doing(doing)?;
        }
    }
    Ok(())
}

/// Checks user and tools.
pub(super) fn machine() -> Result<(), Failure> {
    root()?;
    require(TOOLS)?;
    cgroup::root().map(drop)
}

/// Checks user and tools for taking a lab away: what only a running lab needs may be gone.
pub(super) fn sweeping() -> Result<(), Failure> {
    root()?;
    require(&["ip", "losetup"])?;
    cgroup::root().map(drop)
}

/// Checks that this is root.
pub(super) fn root() -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::usage("a lab needs root: it makes network namespaces, mounts and loop devices").hint("use sudo"))
}

/// Checks that there is room for so many hosts.
pub(super) fn space(hosts: u8) -> Result<(), Failure> {
    let labs = store::labs_root()?;
    enough(&labs, free(&labs)?, u64::from(hosts) * SPACE_A_HOST)
}

/// Checks that there is room for building images of so many bytes.
pub(super) fn space_for_images(bytes: u64) -> Result<(), Failure> {
    let images = store::cache_root()?;
    enough(&images, free(&images)?, bytes)
}

fn free(path: &Path) -> Result<u64, Failure> {
    let stat = nix::sys::statvfs::statvfs(path).while_doing(|| format!("cannot look at {}", path.display()))?;
    Ok(stat.blocks_available() * stat.fragment_size())
}

fn enough(path: &Path, free: u64, needed: u64) -> Result<(), Failure> {
    if free >= needed {
        return Ok(());
    }
    let mib = |bytes: u64| Size::mib(bytes >> 20);
    Err(Failure::msg(
        Kind::Usage,
        format!("no space for the lab: {} has {} free, {} may be needed", path.display(), mib(free), mib(needed)),
    )
    .hint("free some space, or ask for fewer hosts with --hosts"))
}

/// The machine's memory in MiB.
pub(super) fn memory_mib() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    parse_memory(&text).ok_or_else(|| Failure::failed("cannot read the machine's memory from /proc/meminfo"))
}

fn parse_memory(meminfo: &str) -> Option<u64> {
    let kib = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"))?.trim().strip_suffix(" kB")?;
    Some(kib.parse::<u64>().ok()? / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_space_says_how_much_is_missing() {
        assert!(enough(Path::new("/x"), 5 << 30, 4 << 30).is_ok());
        let failure = enough(Path::new("/x"), 1 << 30, 4 << 30).unwrap_err();
        assert_eq!(failure.to_string(), "no space for the lab: /x has 1G free, 4G may be needed");
        assert_eq!(failure.kind, Kind::Usage);
    }

    #[test]
    fn memory_is_read_in_mib() {
        assert_eq!(parse_memory("MemTotal:       24574976 kB\nMemFree: 1 kB\n"), Some(23_999));
    }
}
