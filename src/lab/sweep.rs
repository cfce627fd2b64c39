//! Taking a lab away: what it made is found by name, so that it does not matter how far it got or how it died.

use super::cgroup::{self, Cgroup};
use super::disk;
use super::mounts::unmount;
use super::names::{LabName, Plan};
use super::network;
use super::store::{self, LabDir};
use crate::error::{Failure, ResultExt};
use std::fs;

/// Removes everything of one lab: processes, mounts, links, loop devices, files. What is not there is no error.
pub(super) async fn lab(lab: &LabDir) -> Result<(), Failure> {
    let doing = || format!("cannot remove lab `{}`", lab.name);
    let cgroup = Cgroup::of_lab(&lab.name)?;
    cgroup.kill().await.while_doing(doing)?;
    // Files must not be removed through a mount; a supervisor mounts where nobody else sees it, but who knows.
    unmount(&lab.path).while_doing(doing)?;
    disk::detach_below(&lab.path).await.while_doing(doing)?;
    if let Ok(record) = lab.record() {
        network::remove_all(record.plan()).await.while_doing(doing)?;
    }
    if lab.path.exists() {
        fs::remove_dir_all(&lab.path).while_doing(doing)?;
    }
    // Last: as long as anything is left of the lab, its name is.
    cgroup.kill_and_remove().await.while_doing(doing)
}

/// Whether any process of the lab lives.
pub(super) fn lives(name: &LabName) -> Result<bool, Failure> {
    Ok(Cgroup::of_lab(name)?.populated())
}

/// Whether there is anything to remove of a lab.
pub(super) fn exists(lab: &LabDir) -> Result<bool, Failure> {
    Ok(lab.path.exists() || Cgroup::of_lab(&lab.name)?.exists())
}

/// Removes what belongs to no lab that has a record: links of unknown numbers, control groups without processes.
pub(super) async fn orphans() -> Result<(), Failure> {
    // Where a lab does not say which number is its own, any link may be that lab's.
    if let Some(numbers) = numbers_in_use()? {
        for number in network::numbers_with_links()? {
            if !numbers.contains(&number) {
                network::remove_all(Plan::new(number)).await?;
            }
        }
    }
    for name in cgroup::labs()? {
        let cgroup = Cgroup::of_lab(&name)?;
        if !LabDir::of(&name).path.exists() && !cgroup.populated() {
            cgroup.kill_and_remove().await?;
        }
    }
    Ok(())
}

/// Numbers of all labs; nothing where one of them does not say: its record cannot be read, or it runs without one, as
/// when its directory is out of this process's sight.
fn numbers_in_use() -> Result<Option<Vec<u8>>, Failure> {
    let mut numbers = Vec::new();
    for lab in store::all()? {
        match lab.find_record() {
            Ok(record) => numbers.extend(record.map(|record| record.number)),
            Err(_) => return Ok(None),
        }
    }
    for name in cgroup::labs()? {
        if lives(&name)? && !LabDir::of(&name).record_file().exists() {
            return Ok(None);
        }
    }
    Ok(Some(numbers))
}
