//! What hosts that are virtual machines start from: the bare image as a disk, with a distribution kernel in it.
//!
//! QEMU starts the kernel itself, so the disk needs no boot loader. It is made around its content: nothing is mounted
//! outside a mount namespace of the tool's own, and no loop device is needed.

use super::cgroup::Cgroup;
use super::names::HostPlan;
use super::site::{self, Site};
use super::stop::Stop;
use super::store::{self, HostDir, cache_root, make_dir};
use super::tool::Tool;
use super::{cpio, initramfs, packages};
use crate::error::{Failure, ResultExt};
use crate::ui::{Job, Ui};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Debian's kernel for any machine: the one for virtual machines has no watchdog driver.
const KERNEL: &str = "linux-image-amd64";
/// What building it takes from the machine.
pub(super) const TOOLS: &[&str] = &["apt-cache", "apt-get", "chroot", "depmod", "dpkg-deb", "mke2fs", "unshare", "xz"];
/// Part of the image's name: raise it when the code below changes what it builds.
const EDITION: &str = "2";
const INIT: &str = include_str!("vm/init");
/// Size of a host's own disk; it takes no space until it is written to.
const DISK: &str = "20G";
/// A root of 1 GiB on a slow disk.
const COPY: Duration = Duration::from_secs(15 * 60);
/// Space the image takes while it is built: 1.1 GiB itself, and the tree it is made of.
pub(super) const SPACE: u64 = 3 << 30;

const MAKE_DISK: &str = include_str!("vm/make-disk.sh");

/// The files of the image, in one directory.
#[derive(Clone, Debug)]
pub(super) struct VmImage(pub(super) PathBuf);

impl VmImage {
    pub(super) fn kernel(&self) -> PathBuf {
        self.0.join("kernel")
    }

    fn initrd(&self) -> PathBuf {
        self.0.join("initrd")
    }

    fn disk(&self) -> PathBuf {
        self.0.join("root.img")
    }
}

/// The image made of the bare root `root`; built unless it is there.
pub(super) async fn ensure(root: &Path, stop: &Stop, ui: &Ui) -> Result<VmImage, Failure> {
    let image = VmImage(cache_root()?.join(format!("vm-{}", digest(root))));
    if image.0.is_dir() {
        return Ok(image);
    }
    site::build("the image of virtual hosts", stop, async |site| {
        if !image.0.is_dir() {
            let job = ui.job("build the image of virtual hosts");
            build(root, site, &job).await.while_doing(|| "cannot build the image of virtual hosts".to_owned())?;
            fs::rename(&site.work, &image.0)?;
            site::remove_older("vm-", &image.0)?;
            job.done(image.0.display().to_string());
        }
        Ok(())
    })
    .await?;
    Ok(image)
}

fn digest(root: &Path) -> String {
    // The root's own path holds the digest of its content.
    site::digest([root.to_string_lossy().as_ref(), KERNEL, EDITION, INIT, MAKE_DISK, DISK])
}

async fn build(root: &Path, site: &Site, job: &Job) -> Result<(), Failure> {
    job.step("fetching kernel and busybox");
    let into = &site.work;
    let work = into.join("work");
    fs::create_dir(&work)?;
    let kernel = packages::behind(KERNEL, "linux-image-").await?;
    let tree = packages::unpack(site, &work, &[&kernel, initramfs::BUSYBOX]).await?;
    let files = packages::files(&tree)?;
    let image = VmImage(into.to_owned());
    let mut initrd = initramfs::begin(&files, INIT).await?;
    initrd.directory("host");
    fs::write(image.initrd(), initrd.finish())?;
    fs::rename(initramfs::kernel(&files)?, image.kernel())?;
    job.step("making the disk");
    let version = kernel.trim_start_matches("linux-image-").to_owned();
    let modules = modules_tree(&work, &tree, &version).await?;
    let space = work.join("space");
    fs::create_dir(&space)?;
    let call = Tool::new("unshare").args(["--mount", "sh", "-c", MAKE_DISK, "sh"]).arg(modules).arg(root).arg(space);
    call.arg(image.disk()).arg(DISK).deadline(COPY).within(&site.group).run().await?;
    fs::remove_dir_all(&work)?;
    Ok(())
}

/// A tree with the kernel's modules alone, to be laid over the bare root.
async fn modules_tree(work: &Path, tree: &Path, version: &str) -> Result<PathBuf, Failure> {
    let over = work.join("over");
    make_dir(&over.join("usr/lib/modules"))?;
    // As in the root: a directory here would hide its link.
    symlink("usr/lib", over.join("lib"))?;
    fs::rename(tree.join("lib/modules").join(version), over.join("usr/lib/modules").join(version))
        .while_doing(|| format!("the kernel's package has no modules for {version}"))?;
    Tool::new("depmod").arg("-b").arg(&over).arg(version).deadline(COPY).run().await?;
    Ok(over)
}

/// Makes a host's own disk over the image's, and an initramfs with what makes the host its own.
pub(super) async fn prepare(tools: &Cgroup, image: &VmImage, host: HostPlan, dir: &HostDir) -> Result<(), Failure> {
    let create = Tool::new("qemu-img").args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]);
    create.arg(image.disk()).arg(dir.root_disk()).within(tools).run().await?;
    for (nic, mac) in host.nics() {
        let link = format!("[Match]\nMACAddress={mac}\n\n[Link]\nName={nic}\n");
        store::write(&dir.upper().join(format!("etc/systemd/network/10-{nic}.link")), link.as_bytes(), 0o644)?;
    }
    // The names that a container's disks have; udev itself makes virtio-SERIAL.
    let rule = format!(
        "SUBSYSTEM==\"block\", ENV{{DEVTYPE}}==\"disk\", ATTR{{serial}}==\"{}-disk*\", \
         SYMLINK+=\"disk/by-id/rackhand-$attr{{serial}}\"\n",
        host.serial()
    );
    store::write(&dir.upper().join("etc/udev/rules.d/90-lab-disks.rules"), rule.as_bytes(), 0o644)?;
    let mut initrd = fs::read(image.initrd())?;
    // The kernel unpacks one archive after another.
    initrd.extend(host_files(&dir.upper())?);
    store::write(&dir.initrd(), &initrd, 0o600)
}

/// The tree `from` as an archive of `host/`.
fn host_files(from: &Path) -> Result<Vec<u8>, Failure> {
    let mut archive = cpio::Archive::default();
    let mut left = vec![from.to_owned()];
    while let Some(directory) = left.pop() {
        for name in store::entries(&directory)? {
            let path = directory.join(name);
            let inside = format!("host/{}", path.strip_prefix(from)?.display());
            let mode = fs::metadata(&path)?.permissions().mode() & 0o7777;
            if path.is_dir() {
                archive.directory_with(&inside, mode);
                left.push(path);
            } else {
                archive.file(&inside, mode, &fs::read(&path)?);
            }
        }
    }
    Ok(archive.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_files_keep_their_modes() {
        let dir = tempfile::tempdir().unwrap();
        store::write(&dir.path().join("etc/ssh/key"), b"secret", 0o600).unwrap();
        let archive = host_files(dir.path()).unwrap();
        let text = String::from_utf8_lossy(&archive).into_owned();
        let at = |name: &str| text.find(name).unwrap();
        assert!(at("host/etc\0") < at("host/etc/ssh\0") && at("host/etc/ssh\0") < at("host/etc/ssh/key\0"));
        // The mode is the second field of a header, which ends 110 bytes after its beginning.
        let mode = &text[at("host/etc/ssh/key\0") - 110 + 14..][..8];
        assert_eq!(u32::from_str_radix(mode, 16).unwrap(), 0o100_600);
    }

    #[test]
    fn init_loads_what_it_takes_to_find_the_disk() {
        let modules = initramfs::modules(INIT);
        assert!(["virtio_pci", "virtio_blk", "ext4"].iter().all(|m| modules.iter().any(|x| x == m)));
    }
}
