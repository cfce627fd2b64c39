//! The bare image under every host: a fresh Debian, and a package repository inside it so that a lab needs no network.

use super::store::{cache_root, lock_dir};
use super::tool::{Tool, require};
use crate::error::{Failure, Kind, ResultExt};
use crate::ui::Ui;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a host can install offline.
const OFFLINE: &str = include_str!("image/offline-packages.list");
/// What a host has from the start.
const BASE: &str = include_str!("image/base-packages.list");
/// What is done to the image once its packages are in.
const CUSTOMIZE: &str = include_str!("image/customize.sh");
/// A slow mirror is waited for; measured with a near one: 20 s.
const BUILD: Duration = Duration::from_secs(30 * 60);
/// Space an image takes while it is built, with the downloads: measured 0.7 GiB.
pub(super) const SPACE: u64 = 2 << 30;

/// Where the image comes from and what its content is called.
#[derive(Debug)]
pub(super) struct Recipe {
    suite: String,
    sources: String,
    proxies: Vec<String>,
    /// Where it is once built.
    directory: PathBuf,
}

impl Recipe {
    /// The recipe that fits this machine's own apt configuration.
    pub(super) async fn of_this_machine() -> Result<Self, Failure> {
        let suite = suite(&fs::read_to_string("/etc/os-release").unwrap_or_default())?;
        let format = "deb $(REPO_URI) $(CODENAME) $(COMPONENT)";
        let targets = ["indextargets", "--format", format, "Created-By: Packages", "Origin: Debian"];
        let targets = Tool::new("apt-get").args(targets).run().await?;
        let sources = sources(&targets, &suite);
        if sources.is_empty() {
            return Err(Failure::msg(Kind::Usage, format!("apt of this machine knows no Debian source for {suite}"))
                .hint("the lab's hosts are Debian like this machine; run `apt-get update` once"));
        }
        let settings = Tool::new("apt-config").args(["dump", "--format", "%f \"%v\";%n"]).run().await?;
        let digest = digest(&[&suite, &sources, BASE, OFFLINE, CUSTOMIZE]);
        let directory = cache_root()?.join(format!("host-{digest}"));
        Ok(Recipe { suite, sources, proxies: proxies(&settings), directory })
    }

    /// Whether it is built already.
    pub(super) fn is_built(&self) -> bool {
        self.root().is_dir()
    }

    /// The image's root directory.
    pub(super) fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// Builds it unless it is there; a second builder is told to wait.
    pub(super) async fn ensure(&self, ui: &Ui) -> Result<PathBuf, Failure> {
        if self.is_built() {
            return Ok(self.root());
        }
        require(&["mmdebstrap", "dpkg-deb"])?;
        let _lock = lock_dir(&cache_root()?, "the host image")?;
        if self.is_built() {
            return Ok(self.root());
        }
        let job = ui.job("build the host image");
        job.step(format!("Debian {}, once", self.suite));
        self.build().await.while_doing(|| "cannot build the host image".to_owned())?;
        job.done(self.root().display().to_string());
        Ok(self.root())
    }

    async fn build(&self) -> Result<(), Failure> {
        // Built beside and renamed: an image that is there is whole.
        let fresh = cache_root()?.join("building");
        if fresh.exists() {
            fs::remove_dir_all(&fresh).while_doing(|| format!("cannot remove {}", fresh.display()))?;
        }
        fs::create_dir_all(&fresh)?;
        fs::write(fresh.join("offline-packages.list"), OFFLINE)?;
        let hook = fresh.join("customize.sh");
        fs::write(&hook, CUSTOMIZE)?;
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
        let mut call = Tool::new("mmdebstrap")
            .args(["--quiet", "--mode=root", "--variant=minbase", "--format=directory"])
            .arg(format!("--include={}", packages(BASE).join(",")))
            .arg(format!("--customize-hook={}", hook.display()));
        for proxy in &self.proxies {
            call = call.arg(format!("--aptopt={proxy}"));
        }
        call = call.arg(&self.suite).arg(fresh.join("root")).arg("-");
        call.stdin(self.sources.clone()).deadline(BUILD).run().await?;
        fs::rename(&fresh, &self.directory)?;
        remove_older(&self.directory)
    }
}

/// Images no lab stands on any more.
fn remove_older(current: &Path) -> Result<(), Failure> {
    let root = cache_root()?;
    let used: Vec<PathBuf> = super::store::images_in_use()?;
    for name in super::store::entries(&root)? {
        let path = root.join(&name);
        let stale = name.starts_with("host-") && path != current && !used.iter().any(|u| u.starts_with(&path));
        if stale {
            fs::remove_dir_all(&path).while_doing(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

fn suite(os_release: &str) -> Result<String, Failure> {
    let field = |key: &str| {
        let line = os_release.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='));
        line.map(|v| v.trim_matches('"').to_owned())
    };
    match (field("ID").as_deref(), field("VERSION_CODENAME")) {
        (Some("debian"), Some(suite)) => Ok(suite),
        (id, _) => Err(Failure::msg(Kind::Usage, format!("the lab runs on Debian, not on `{}`", id.unwrap_or("?")))),
    }
}

/// The sources of the suite and its updates, each once.
fn sources(targets: &str, suite: &str) -> String {
    let suites = [suite.to_owned(), format!("{suite}-updates"), format!("{suite}-security")];
    let mut lines: Vec<&str> =
        targets.lines().filter(|l| l.split(' ').nth(2).is_some_and(|s| suites.iter().any(|x| x == s))).collect();
    lines.sort_unstable();
    lines.dedup();
    lines.iter().fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "{line}");
        text
    })
}

/// The machine's proxy settings, which the new root's apt does not read by itself.
fn proxies(settings: &str) -> Vec<String> {
    let wanted = ["Acquire::http::Proxy", "Acquire::https::Proxy"];
    let set = |l: &&str| wanted.iter().any(|w| l.starts_with(w)) && !l.ends_with("\"\";");
    settings.lines().filter(set).map(str::to_owned).collect()
}

fn packages(list: &str) -> Vec<&str> {
    list.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).collect()
}

fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(6).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_suite_and_its_updates_are_taken_from_apt() {
        let targets = "deb http://a/debian/ bookworm main\n\
                       deb http://a/debian/ bookworm-updates main\n\
                       deb http://a/debian/ bookworm main\n\
                       deb http://a/debian/ trixie main\n\
                       deb http://a/debian/ bookworm-backports main\n";
        assert_eq!(
            sources(targets, "bookworm"),
            "deb http://a/debian/ bookworm main\ndeb http://a/debian/ bookworm-updates main\n"
        );
    }

    #[test]
    fn the_suite_is_this_machines_own() {
        assert_eq!(suite("ID=debian\nVERSION_CODENAME=bookworm\n").unwrap(), "bookworm");
        assert_eq!(suite("ID=arch\n").unwrap_err().kind, Kind::Usage);
    }

    #[test]
    fn lists_have_comments_and_one_package_a_line() {
        assert_eq!(packages("# why\nceph-mon\n\nlvm2\n"), ["ceph-mon", "lvm2"]);
        assert!(packages(OFFLINE).iter().chain(&packages(BASE)).all(|p| !p.contains(' ')));
    }

    #[test]
    fn proxies_are_taken_over_where_set() {
        let dump = "Acquire \"\";\nAcquire::http::Proxy \"http://p:3128\";\nAcquire::https::Proxy \"\";\n";
        assert_eq!(proxies(dump), ["Acquire::http::Proxy \"http://p:3128\";"]);
    }

    #[test]
    fn the_digest_tells_parts_apart() {
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
    }
}
