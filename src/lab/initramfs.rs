//! What a kernel starts from: busybox, the modules that a script loads, and that script.

use super::cpio::Archive;
use super::tool::Tool;
use crate::error::Failure;
use std::fs;
use std::path::{Path, PathBuf};

/// Packages an initramfs is made of, beside the kernel's.
pub(super) const BUSYBOX: &str = "busybox-static";

/// An archive with busybox, all its applets, the script `init`, and of `files` (unpacked packages) the kernel modules
/// that the script's calls of `insmod_all` name; those a kernel has built in are left out.
pub(super) async fn begin(files: &[PathBuf], init: &str) -> Result<Archive, Failure> {
    let busybox = files.iter().find(|f| f.ends_with("bin/busybox"));
    let busybox = busybox.ok_or_else(|| Failure::failed(format!("package {BUSYBOX} holds no bin/busybox")))?;
    let applets = Tool::new("env").arg(busybox).arg("--list").run().await?;
    let mut archive = Archive::default();
    for directory in ["bin", "dev", "etc", "modules", "proc", "run", "sys", "tmp"] {
        archive.directory(directory);
    }
    archive.device("dev/console", 0o600, (5, 1));
    archive.file("init", 0o755, init.as_bytes());
    archive.file("bin/busybox", 0o755, &fs::read(busybox)?);
    for applet in applets.lines().filter(|a| *a != "busybox") {
        archive.symlink(&format!("bin/{applet}"), "busybox");
    }
    for name in modules(init) {
        if let Some(content) = module(files, &name).await? {
            archive.file(&format!("modules/{name}.ko"), 0o644, &content);
        }
    }
    Ok(archive)
}

/// The kernel in an unpacked package.
pub(super) fn kernel(files: &[PathBuf]) -> Result<&Path, Failure> {
    let kernel = files.iter().find(|f| file_name(f).starts_with("vmlinuz-"));
    kernel.map(PathBuf::as_path).ok_or_else(|| Failure::failed("the kernel's package holds no vmlinuz"))
}

/// The kernel modules that a script loads.
pub(super) fn modules(script: &str) -> Vec<String> {
    let script = script.replace("\\\n", " ");
    let calls = script.lines().filter_map(|line| line.trim().strip_prefix("insmod_all "));
    calls.flat_map(str::split_whitespace).map(str::to_owned).collect()
}

/// A module's content; `None` where this kernel has it built in.
async fn module(files: &[PathBuf], name: &str) -> Result<Option<Vec<u8>>, Failure> {
    let (plain, packed) = (format!("{name}.ko"), format!("{name}.ko.xz"));
    if let Some(file) = files.iter().find(|f| file_name(f) == plain) {
        return Ok(Some(fs::read(file)?));
    }
    let Some(file) = files.iter().find(|f| file_name(f) == packed) else { return Ok(None) };
    // The packed one stays: the tree may be used as a whole.
    Tool::new("xz").args(["-d", "-k"]).arg(file).run().await?;
    let unpacked = file.with_extension("");
    let content = fs::read(&unpacked)?;
    fs::remove_file(unpacked)?;
    Ok(Some(content))
}

fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_those_that_a_script_loads() {
        let script =
            "insmod_all() {\n    true\n}\ninsmod_all virtio \\\n    ext4\nif x; then\n    insmod_all isofs\nfi\n";
        assert_eq!(modules(script), ["virtio", "ext4", "isofs"]);
    }
}
