//! A control group for each host: how all its processes are found and killed at once, whatever they became.

use super::names::LabName;
use super::store::entries;
use crate::error::{Failure, Kind, ResultExt};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// Joins a control group before becoming the program, so that no process of it is ever outside.
/// Descriptors that the caller left open are closed: a rack must not hold on to the lock it was brought up under.
pub(super) const JOIN: &str = r#"echo $$ > "$0" && exec "$@" 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-"#;
/// What the name of a lab's group begins with.
const PREFIX: &str = "rackhand-lab-";
/// A killed host ends when its file systems and loop devices have been written back, which takes as long as the
/// machine's disk does; less than what a supervisor is granted for its answer.
const KILL: Duration = Duration::from_secs(90);

/// A directory of the unified hierarchy.
#[derive(Clone, Debug)]
pub(super) struct Cgroup(PathBuf);

impl Cgroup {
    /// The group of a lab; it need not exist.
    pub(super) fn of_lab(name: &LabName) -> Result<Self, Failure> {
        Ok(Cgroup(root()?.join(format!("{PREFIX}{name}"))))
    }

    /// The group of what builds images in one place.
    pub(super) fn of_builds(place: &str) -> Result<Self, Failure> {
        Ok(Cgroup(root()?.join(format!("rackhand-build-{place}"))))
    }

    /// The group of tools that work on a lab for long.
    pub(super) fn tools(&self) -> Self {
        Cgroup(self.0.join("tools"))
    }

    /// The group of one host's supervisor, and below it of the host itself.
    pub(super) fn host(&self, host: &str) -> Self {
        Cgroup(self.0.join(host))
    }

    /// The group of the running machine, below its supervisor's.
    pub(super) fn machine(&self) -> Self {
        Cgroup(self.0.join("machine"))
    }

    /// The file a process writes its id to, to join.
    pub(super) fn procs(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }

    pub(super) fn create(&self) -> Result<(), Failure> {
        fs::create_dir_all(&self.0).while_doing(|| format!("cannot make control group {}", self.0.display()))
    }

    pub(super) fn exists(&self) -> bool {
        self.0.is_dir()
    }

    /// Whether any process is in it or below.
    pub(super) fn populated(&self) -> bool {
        let events = fs::read_to_string(self.0.join("cgroup.events")).unwrap_or_default();
        is_populated(&events)
    }

    /// Its processes and those below, as `name (id) state`.
    fn members(&self) -> Vec<String> {
        let ids = fs::read_to_string(self.procs()).unwrap_or_default();
        let mut all: Vec<String> = ids.lines().map(describe).collect();
        for name in entries(&self.0).unwrap_or_default() {
            let below = self.0.join(name);
            if below.is_dir() {
                all.extend(Cgroup(below).members());
            }
        }
        all
    }

    /// SIGKILLs every process in it and below, and waits until they are gone.
    pub(super) async fn kill(&self) -> Result<(), Failure> {
        if !self.exists() {
            return Ok(());
        }
        let doing = || format!("cannot kill control group {}", self.0.display());
        fs::write(self.0.join("cgroup.kill"), "1").while_doing(doing)?;
        let began = Instant::now();
        while self.populated() {
            if began.elapsed() > KILL {
                let left = self.members().join(", ");
                let message = format!("after {} s there still are: {left}", KILL.as_secs());
                return Err(Failure::failed(message)
                    .context(doing())
                    .hint("they were killed and wait for the machine's disks; run the same command again"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Kills what is in it and removes it with all below.
    pub(super) async fn kill_and_remove(&self) -> Result<(), Failure> {
        let began = Instant::now();
        loop {
            self.kill().await?;
            match remove_tree(&self.0) {
                // A process may have joined in between.
                Err(_) if began.elapsed() < KILL => tokio::time::sleep(Duration::from_millis(10)).await,
                done => return done,
            }
        }
    }
}

/// Names of labs that have a control group.
pub(super) fn labs() -> Result<Vec<LabName>, Failure> {
    let names = entries(&root()?)?;
    Ok(names.iter().filter_map(|n| n.strip_prefix(PREFIX)?.parse().ok()).collect())
}

fn remove_tree(dir: &Path) -> Result<(), Failure> {
    if !dir.exists() {
        return Ok(());
    }
    for name in entries(dir)? {
        let path = dir.join(name);
        if path.is_dir() {
            remove_tree(&path)?;
        }
    }
    fs::remove_dir(dir).while_doing(|| format!("cannot remove control group {}", dir.display()))
}

/// A process for people: `ceph-osd (812) D`.
fn describe(id: &str) -> String {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let (name, state) = name_and_state(&stat).unwrap_or(("?", "?"));
    format!("{name} ({id}) {state}")
}

fn name_and_state(stat: &str) -> Option<(&str, &str)> {
    let (left, right) = stat.rsplit_once(") ")?;
    Some((left.split_once('(')?.1, right.split(' ').next()?))
}

fn is_populated(events: &str) -> bool {
    events.lines().any(|l| l == "populated 1")
}

/// Where the unified hierarchy is mounted.
pub(super) fn root() -> Result<PathBuf, Failure> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    find_root(&mounts).ok_or_else(|| {
        Failure::msg(Kind::Usage, "this machine has no unified control group hierarchy (cgroup2) mounted")
            .hint("mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified")
    })
}

fn find_root(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        if right.starts_with("cgroup2 ") { left.split(' ').nth(4).map(PathBuf::from) } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_hierarchy_is_found_beside_the_old_ones() {
        let mounts = "31 21 0:27 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                      32 31 0:28 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(find_root(mounts).unwrap(), Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(find_root("1 2 0:3 / / rw - ext4 /dev/vda rw"), None);
    }

    #[test]
    fn a_process_that_does_not_die_is_named() {
        assert_eq!(name_and_state("812 (tmux: (a) b) D 1 812 0"), Some(("tmux: (a) b", "D")));
        assert!(describe(&std::process::id().to_string()).contains(&format!("({}) ", std::process::id())));
    }

    #[test]
    fn populated_is_read_from_events() {
        assert!(is_populated("populated 1\nfrozen 0\n"));
        assert!(!is_populated("populated 0\nfrozen 0\n"));
        assert!(!is_populated(""));
    }
}
