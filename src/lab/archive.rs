//! The package archive that this machine's own apt is set up for, as a source of new Debian roots.

use super::site::Site;
use super::tool::Tool;
use crate::error::{Failure, Kind};
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// A slow mirror is waited for; measured with a near one: 20 s.
const BUILD: Duration = Duration::from_secs(30 * 60);

/// Suite, sources and proxies of this machine.
#[derive(Debug)]
pub(super) struct Archive {
    /// The release, for example `bookworm`.
    pub(super) suite: String,
    /// One `deb` line a source.
    pub(super) sources: String,
    proxies: Vec<String>,
}

impl Archive {
    /// What this machine's own apt configuration says.
    pub(super) async fn of_this_machine() -> Result<Self, Failure> {
        let suite = own_suite()?;
        let format = "deb $(REPO_URI) $(CODENAME) $(COMPONENT)";
        let targets = ["indextargets", "--format", format, "Created-By: Packages", "Origin: Debian"];
        let targets = Tool::new("apt-get").args(targets).run().await?;
        let sources = sources(&targets, &suite);
        if sources.is_empty() {
            return Err(Failure::msg(Kind::Usage, format!("apt of this machine knows no Debian source for {suite}"))
                .hint("the lab's hosts are Debian like this machine; run `apt-get update` once"));
        }
        let settings = Tool::new("apt-config").args(["dump", "--format", "%f \"%v\";%n"]).run().await?;
        Ok(Archive { suite, sources, proxies: proxies(&settings) })
    }

    /// Installs a root with `packages` into the directory `root` and runs `hook` on it.
    pub(super) async fn install(
        &self,
        site: &Site,
        packages: &[&str],
        hook: &Path,
        root: &Path,
    ) -> Result<(), Failure> {
        let mut call = Tool::new("mmdebstrap")
            .args(["--quiet", "--mode=root", "--variant=minbase", "--format=directory"])
            .arg(format!("--include={}", packages.join(",")))
            .arg(format!("--customize-hook={}", hook.display()));
        for proxy in &self.proxies {
            call = call.arg(format!("--aptopt={proxy}"));
        }
        call = call.arg(&self.suite).arg(root).arg("-").within(&site.group);
        call.stdin(self.sources.clone()).deadline(BUILD).run().await.map(drop)
    }
}

/// The release this machine runs.
pub(super) fn own_suite() -> Result<String, Failure> {
    suite(&fs::read_to_string("/etc/os-release").unwrap_or_default())
}

/// The package names in a list with comments.
pub(super) fn packages(list: &str) -> Vec<&str> {
    list.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).collect()
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
    }

    #[test]
    fn proxies_are_taken_over_where_set() {
        let dump = "Acquire \"\";\nAcquire::http::Proxy \"http://p:3128\";\nAcquire::https::Proxy \"\";\n";
        assert_eq!(proxies(dump), ["Acquire::http::Proxy \"http://p:3128\";"]);
    }
}
