//! The tiny guest: a distribution kernel, busybox and one small program in an initramfs, started by SYSLINUX.
//!
//! The disk: boot sector, a FAT partition with kernel and initramfs, and a partition that is the counter's ring.
//! Nothing is mounted and no loop device is needed to build it.

use super::mbr::{self, Partition, SECTOR};
use crate::error::{Failure, ResultExt};
use crate::lab::site::Site;
use crate::lab::tool::Tool;
use crate::lab::{initramfs, packages};
use crate::ui::Job;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What building it takes from the machine.
pub(super) const TOOLS: &[&str] = &["apt-cache", "apt-get", "dpkg-deb", "gcc", "mcopy", "mformat", "syslinux", "xz"];

/// Debian's kernel for virtual machines: few drivers, and packed with LZ4, which saves two seconds under emulation.
const KERNEL: &str = "linux-image-cloud-amd64";
/// Part of the recipe's digest: raise it when the code below changes what it builds.
const EDITION: &[u8] = b"1";

/// Sectors of the disk.
const DISK_SECTORS: u32 = 32 << 11;
/// Where the FAT partition begins; the usual 1 MiB.
const BOOT_START: u32 = 1 << 11;
const BOOT_SECTORS: u32 = 26 << 11;
/// Where the ring begins.
pub(super) const RING_START: u32 = BOOT_START + BOOT_SECTORS;
/// Sectors of the ring: 27 minutes of records, read whole in well under a second at boot.
pub(super) const RING_SECTORS: u32 = 4 << 11;

/// FAT of any size (LBA).
const KIND_FAT: u8 = 0x0e;
/// Data without a file system.
const KIND_DATA: u8 = 0xda;

/// Self-tests and processor mitigations cost a tenth of a second and guard nothing here.
const COMMAND_LINE: &str = "console=ttyS0 quiet mitigations=off cryptomgr.notests panic=10";

/// Boot code that starts the active partition.
const BOOT_CODE: &str = "/usr/lib/syslinux/mbr/mbr.bin";

const INIT: &str = include_str!("tiny/init");
const INITTAB: &str = include_str!("tiny/inittab");
const NETWORK_CONFIG: &str = include_str!("tiny/network-config.awk");
const SERVICE: &str = include_str!("tiny/tinyd.c");

/// Everything the image follows from.
pub(super) fn recipe() -> Vec<&'static [u8]> {
    vec![
        EDITION,
        KERNEL.as_bytes(),
        COMMAND_LINE.as_bytes(),
        INIT.as_bytes(),
        INITTAB.as_bytes(),
        NETWORK_CONFIG.as_bytes(),
        SERVICE.as_bytes(),
    ]
}

/// Builds the disk image.
pub(super) async fn build(site: &Site, job: &Job) -> Result<PathBuf, Failure> {
    let work = &site.work;
    job.step("fetching kernel and busybox");
    let kernel = packages::behind(KERNEL, "linux-image-").await?;
    let root = packages::unpack(site, work, &[&kernel, initramfs::BUSYBOX]).await?;
    job.step("compiling the service");
    let service = compile(work).await?;
    job.step("packing the initramfs");
    let files = packages::files(&root)?;
    fs::write(work.join("initrd"), initramfs(&files, &service).await?)?;
    fs::rename(initramfs::kernel(&files)?, work.join("kernel"))?;
    job.step("writing the disk");
    disk(work).await
}

async fn compile(work: &Path) -> Result<Vec<u8>, Failure> {
    let (source, program) = (work.join("tinyd.c"), work.join("tinyd"));
    fs::write(&source, SERVICE)?;
    let options = ["-static", "-O2", "-s", "-Wall", "-o"];
    Tool::new("gcc").args(options).arg(&program).arg(&source).deadline(Duration::from_secs(120)).run().await?;
    Ok(fs::read(program)?)
}

async fn initramfs(files: &[PathBuf], service: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut archive = initramfs::begin(files, INIT).await?;
    archive.directory("seed");
    archive.file("etc/inittab", 0o644, INITTAB.as_bytes());
    archive.file("etc/network-config.awk", 0o644, NETWORK_CONFIG.as_bytes());
    archive.file("bin/tinyd", 0o755, service);
    Ok(archive.finish())
}

/// Puts boot sector, FAT partition and an empty ring together from `kernel` and `initrd` in `work`.
async fn disk(work: &Path) -> Result<PathBuf, Failure> {
    let image = work.join("disk.img");
    let config = format!("DEFAULT tiny\nLABEL tiny\n  LINUX kernel\n  INITRD initrd\n  APPEND {COMMAND_LINE}\n");
    let code = fs::read(BOOT_CODE).while_doing(|| format!("cannot read {BOOT_CODE}"));
    let code = code.or_hint("apt-get install syslinux-common")?;
    let boot = Partition { start: BOOT_START, sectors: BOOT_SECTORS, kind: KIND_FAT, active: true };
    let ring = Partition { start: RING_START, sectors: RING_SECTORS, kind: KIND_DATA, active: false };
    let first = mbr::sector(&code, &[boot, ring]);
    let first = first.ok_or_else(|| Failure::failed(format!("{BOOT_CODE} does not fit into a boot sector")))?;
    let file = File::create_new(&image)?;
    file.set_len(u64::from(DISK_SECTORS) * SECTOR)?;
    file.write_all_at(&first, 0)?;
    drop(file);

    let offset = u64::from(BOOT_START) * SECTOR;
    let partition = format!("{}@@{offset}", image.display());
    // Clusters of 8 KiB: the boot loader asks the firmware for long runs.
    let geometry = ["-h", "16", "-s", "63", "-c", "16"];
    let size = [BOOT_SECTORS.to_string(), BOOT_START.to_string()];
    let format = Tool::new("mformat").args(["-i", &partition]).args(geometry);
    format.args(["-T", &size[0], "-H", &size[1], "::"]).run().await?;
    Tool::new("syslinux").args(["--install", "--offset", &offset.to_string()]).arg(&image).run().await?;
    let copy = Tool::new("mcopy").args(["-i", &partition]);
    copy.args(["kernel", "initrd"].map(|f| work.join(f))).arg("::").run().await?;
    let configure = Tool::new("mcopy").args(["-i", &partition, "-", "::syslinux.cfg"]);
    configure.stdin(config).run().await?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_holds_its_partitions() {
        const { assert!(RING_START + RING_SECTORS <= DISK_SECTORS) };
        const { assert!(DISK_SECTORS as u64 * SECTOR <= 64 << 20) };
    }

    #[test]
    fn modules_are_those_that_init_loads() {
        let modules = initramfs::modules(INIT);
        for name in ["virtio_blk", "net_failover", "vfat", "isofs", "button", "evdev"] {
            assert!(modules.iter().any(|m| m == name), "{name} in {modules:?}");
        }
    }

    #[test]
    fn init_counts_on_the_ring_partition() {
        assert!(INITTAB.contains("tinyd /dev/vda2 7777"));
    }
}
