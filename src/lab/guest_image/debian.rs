//! The debian guest: a general-purpose system with cloud-init and the guest agent, started by GRUB.
//!
//! The file system is made around its content and GRUB's image lies in the gap before it, so nothing is mounted and
//! no loop device is needed.

use super::mbr::{self, Partition, SECTOR};
use crate::error::{Failure, ResultExt};
use crate::lab::archive::{Archive, packages};
use crate::lab::site::Site;
use crate::lab::tool::Tool;
use crate::ui::Job;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What building it takes from the machine.
pub(super) const TOOLS: &[&str] = &["apt-config", "apt-get", "chroot", "mke2fs", "mmdebstrap"];

/// Part of the recipe's digest: raise it when the code below changes what it builds.
const EDITION: &[u8] = b"1";
const PACKAGES: &str = include_str!("debian/packages.list");
const CUSTOMIZE: &str = include_str!("debian/customize.sh");

/// Sectors of the disk: 2 GiB, of which a quarter is used; cloud-init grows the file system into a larger one.
const DISK_SECTORS: u32 = 2 << 21;
/// Where the only partition begins; GRUB lies in the gap before it.
const ROOT_START: u32 = 1 << 11;
const KIND_LINUX: u8 = 0x83;
/// As `customize.sh` writes it to fstab and to GRUB's menu.
const LABEL: &str = "rackhand-root";

/// What GRUB needs to find its menu and the kernel.
const GRUB_MODULES: [&str; 6] = ["biosdisk", "part_msdos", "ext2", "search_label", "linux", "normal"];
/// GRUB's first sector, up to the partition table.
const BOOT_CODE: usize = 440;

/// Everything the image follows from.
pub(super) fn recipe() -> Vec<&'static [u8]> {
    vec![EDITION, PACKAGES.as_bytes(), CUSTOMIZE.as_bytes()]
}

/// Builds the disk image.
pub(super) async fn build(site: &Site, job: &Job) -> Result<PathBuf, Failure> {
    let work = &site.work;
    let archive = Archive::of_this_machine().await?;
    job.step(format!("installing Debian {}", archive.suite));
    let (root, hook) = (work.join("root"), work.join("customize.sh"));
    fs::write(&hook, CUSTOMIZE)?;
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
    archive.install(site, &packages(PACKAGES), &hook, &root).await?;
    job.step("writing the disk");
    let image = work.join("disk.img");
    boot_loader(&root, &image).await?;
    file_system(site, &root, &image).await?;
    Ok(image)
}

/// Begins the disk with GRUB, which finds the rest of itself in the sectors that follow the first.
async fn boot_loader(root: &Path, image: &Path) -> Result<(), Failure> {
    let core = Tool::new("chroot").arg(root).args(["grub-mkimage", "--format=i386-pc", "--output=/tmp/core.img"]);
    core.arg("--prefix=(,msdos1)/boot/grub").args(GRUB_MODULES).run().await?;
    let core_file = root.join("tmp/core.img");
    let core = fs::read(&core_file)?;
    fs::remove_file(&core_file)?;
    let code = fs::read(root.join("usr/lib/grub/i386-pc/boot.img"))?;
    let sectors = DISK_SECTORS - ROOT_START;
    let partition = Partition { start: ROOT_START, sectors, kind: KIND_LINUX, active: true };
    let first = code.get(..BOOT_CODE).and_then(|code| mbr::sector(code, &[partition]));
    let first = first.ok_or_else(|| Failure::failed("GRUB's first sector is shorter than a boot sector"))?;
    if SECTOR + core.len() as u64 > u64::from(ROOT_START) * SECTOR {
        return Err(Failure::failed(format!("GRUB does not fit before the partition: {} bytes", core.len())));
    }
    let file = File::create_new(image)?;
    file.set_len(u64::from(DISK_SECTORS) * SECTOR)?;
    file.write_all_at(&first, 0)?;
    file.write_all_at(&core, SECTOR)?;
    Ok(())
}

async fn file_system(site: &Site, root: &Path, image: &Path) -> Result<(), Failure> {
    let blocks = format!("{}k", (DISK_SECTORS - ROOT_START) / 2);
    let offset = format!("offset={},lazy_itable_init=1", u64::from(ROOT_START) * SECTOR);
    Tool::new("mke2fs")
        // Features that GRUB of some releases cannot read.
        .args(["-q", "-F", "-t", "ext4", "-O", "^metadata_csum_seed,^orphan_file", "-m", "1", "-L", LABEL])
        .args(["-E", &offset, "-d"])
        .arg(root)
        .arg(image)
        .arg(blocks)
        .deadline(Duration::from_secs(300))
        .within(&site.group)
        .run()
        .await
        .while_doing(|| "cannot make the root file system".to_owned())
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_label_is_the_one_the_system_looks_for() {
        assert!(CUSTOMIZE.contains(&format!("LABEL={LABEL} / ext4")));
        assert!(CUSTOMIZE.contains(&format!("search --no-floppy --label {LABEL}")));
    }

    #[test]
    fn seed_and_agent_have_their_programs() {
        let packages = packages(PACKAGES);
        assert!(["cloud-init", "qemu-guest-agent", "grub-pc-bin"].iter().all(|p| packages.contains(p)));
    }
}
