//! Saving a rack and making a lab of it again, so that nobody provisions twice to try the same thing twice.
//!
//! A saved host is what it had written over the image, as layers to be put under a new overlay, and its disks.

use super::cgroup::Cgroup;
use super::control::{self, Power, Request};
use super::names::{HostPlan, LabName};
use super::stop::Stop;
use super::store::{self, HostDir, HostKind, LabDir, Record, make_dir, remove_dir};
use super::tool::Tool;
use super::{login, preflight, rootfs};
use crate::error::{Failure, ResultExt};
use crate::ui::Ui;
use futures::future::{join_all, try_join_all};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Guests get 20 s to shut down; then they are destroyed.
const GUESTS: Duration = Duration::from_secs(45);
/// A host asked to shut down is killed by its supervisor after 30 s, and ends when the machine's disk has followed.
const HOSTS: Duration = Duration::from_secs(150);
/// A rack of some tens of GiB on a slow disk.
const COPY: Duration = Duration::from_secs(30 * 60);
/// Ends the guests of a host in order.
const STOP_GUESTS: &str = include_str!("save/stop-guests.sh");

/// Files of a lab that a saved rack keeps, beside its hosts.
const FILES: [&str; 6] = ["lab.json", "inventory.yaml", "id_ed25519", "id_ed25519.pub", "known_hosts", "bmc-password"];

/// Saves a rack: its hosts are shut down in order, copied, and those that ran are booted again, whatever happens.
///
/// # Errors
/// When there is no such lab, the save exists and is not to be replaced, or something cannot be copied.
pub async fn save(
    name: &LabName,
    saved: &LabName,
    replace: bool,
    deadline: Option<Duration>,
    ui: &Ui,
) -> Result<PathBuf, Failure> {
    preflight::machine()?;
    let stop = Stop::new(deadline, ui);
    let lab = LabDir::of(name);
    let record = lab.record()?;
    if record.kind == HostKind::Vm {
        return Err(Failure::usage(format!("lab `{name}` is made of virtual machines; only containers can be saved")));
    }
    let _lock = lab.lock()?;
    let target = store::save_dir(saved);
    if target.exists() && !replace {
        return Err(Failure::usage(format!("there is a saved rack `{saved}` already"))
            .hint("--replace puts this one in its place"));
    }
    let job = ui.job(format!("save lab {name}"));
    let running = running(&lab, &record).await?;
    let _unhurried = stop.guard("booting the hosts again");
    let copied = stop
        .bound(async {
            job.step("shutting down its guests and hosts");
            shut_down(&lab, &running).await?;
            job.step("copying");
            copy_out(&lab, &record, &target).await
        })
        .await;
    job.step("booting its hosts");
    // Each of them, whatever becomes of the others.
    let booted = join_all(running.iter().map(|host| boot(&lab, *host))).await;
    let booted: Result<Vec<()>, Failure> = booted.into_iter().collect();
    if let Err(failure) = copied {
        job.fail("not saved");
        let failure = failure.context(format!("cannot save lab `{name}`"));
        return Err(match booted {
            Ok(_) => failure,
            Err(second) => failure.hint(format!("{second}; `rackhand lab list --name {name}` shows which hosts run")),
        });
    }
    booted?;
    job.done(target.display().to_string());
    Ok(target)
}

/// Deletes a saved rack; labs that were brought up from it have copies of their own.
///
/// # Errors
/// When there is none of that name, or a lab is being brought up from it.
pub fn forget(saved: &LabName) -> Result<(), Failure> {
    preflight::root()?;
    let target = store::save_dir(saved);
    // What a killed save left may be all there is.
    let unfinished = [target.with_extension("new"), target.with_extension("old")];
    if !target.is_dir() && !unfinished.iter().any(|dir| dir.exists()) {
        return Err(unknown(saved));
    }
    let _lock = if target.is_dir() { Some(lock(saved)?) } else { None };
    for dir in unfinished.iter().chain([&target]) {
        remove_dir(dir)?;
    }
    Ok(())
}

fn unknown(saved: &LabName) -> Failure {
    let all: Vec<String> = store::saved().unwrap_or_default().iter().map(ToString::to_string).collect();
    let failure = Failure::usage(format!("there is no saved rack `{saved}`"));
    if all.is_empty() {
        failure.hint("`rackhand lab save NAME` saves the lab as it is")
    } else {
        failure.hint(format!("saved are {}", all.join(", ")))
    }
}

/// Keeps a saved rack from being replaced or deleted while it is copied.
fn lock(saved: &LabName) -> Result<File, Failure> {
    store::lock_dir(&store::save_dir(saved), &format!("the saved rack `{saved}`"))
}

/// The record of a saved rack.
pub(super) fn record_of(saved: &LabName) -> Result<Record, Failure> {
    let dir = store::save_dir(saved);
    if !dir.is_dir() {
        return Err(unknown(saved));
    }
    let record = store::read_record(&dir)?;
    if record.image.is_dir() {
        return Ok(record);
    }
    Err(Failure::usage(format!("the image the saved rack `{saved}` stands on is gone: {}", record.image.display()))
        .hint("save one from a lab made today"))
}

/// Makes the hosts of a saved rack those of a new lab.
pub(super) async fn copy_in(saved: &LabName, lab: &LabDir, record: &Record) -> Result<(), Failure> {
    let source = store::save_dir(saved);
    let _lock = lock(saved)?;
    let tools = &Cgroup::of_lab(&lab.name)?.tools();
    for file in FILES.iter().filter(|f| **f != "lab.json") {
        copy(tools, &[], &source.join(file), &lab.path.join(file)).await?;
    }
    try_join_all(record.plan().hosts(record.hosts).map(|host| async move {
        let (from, to) = (saved_host(&store::save_dir(saved), host), lab.host(&host.name()));
        make_dir(&to.path)?;
        // Nobody writes to what lies under an overlay: a second name for the same files is enough.
        copy(tools, &["--link"], &from.layers(), &to.layers()).await?;
        copy_disks(tools, record, &from, &to).await?;
        make_dir(&to.upper())?;
        rootfs::prepare_directories(&to, host)
    }))
    .await?;
    Ok(())
}

fn saved_host(save: &Path, host: HostPlan) -> HostDir {
    HostDir { path: save.join("hosts").join(host.name()) }
}

async fn copy_out(lab: &LabDir, record: &Record, target: &Path) -> Result<(), Failure> {
    let tools = &Cgroup::of_lab(&lab.name)?.tools();
    // What a killed run left at work would still be writing.
    tools.kill().await?;
    // Copied beside and renamed: a saved rack that is there is whole.
    let fresh = target.with_extension("new");
    remove_dir(&fresh)?;
    make_dir(&fresh)?;
    for file in FILES {
        copy(tools, &[], &lab.path.join(file), &fresh.join(file)).await?;
    }
    for host in record.plan().hosts(record.hosts) {
        let (from, to) = (lab.host(&host.name()), saved_host(&fresh, host));
        make_dir(&to.layers())?;
        let below = from.count_layers()?;
        for layer in 0..below {
            copy(tools, &["--link"], &from.layer(layer), &to.layer(layer)).await?;
        }
        copy(tools, &[], &from.upper(), &to.layer(below)).await?;
        copy_disks(tools, record, &from, &to).await?;
    }
    put_in_place(&fresh, target)
}

/// The one that is replaced goes last.
fn put_in_place(fresh: &Path, target: &Path) -> Result<(), Failure> {
    let old = target.with_extension("old");
    remove_dir(&old)?;
    let _lock = if target.exists() {
        let lock = store::lock_dir(target, "the saved rack that is to be replaced")?;
        fs::rename(target, &old).while_doing(|| format!("cannot rename {}", target.display()))?;
        Some(lock)
    } else {
        None
    };
    fs::rename(fresh, target).while_doing(|| format!("cannot rename {}", fresh.display()))?;
    remove_dir(&old)
}

async fn copy_disks(tools: &Cgroup, record: &Record, from: &HostDir, to: &HostDir) -> Result<(), Failure> {
    for disk in 0..record.disks {
        copy(tools, &["--sparse=always"], &from.disk(disk), &to.disk(disk)).await?;
    }
    Ok(())
}

/// Copies with owners, modes, extended attributes (an overlay keeps its marks there) and holes.
async fn copy(tools: &Cgroup, options: &[&str], from: &Path, to: &Path) -> Result<(), Failure> {
    let call = Tool::new("cp").args(["--archive", "--no-target-directory"]).args(options);
    call.arg(from).arg(to).deadline(COPY).within(tools).run().await.map(drop)
}

/// The hosts that run.
async fn running(lab: &LabDir, record: &Record) -> Result<Vec<HostPlan>, Failure> {
    let mut running = Vec::new();
    for host in record.plan().hosts(record.hosts) {
        let state = control::ask(&host.name(), &lab.host(&host.name()), Request::Status).await?;
        if state.power == Power::On {
            running.push(host);
        }
    }
    Ok(running)
}

/// Ends all guests, then all hosts.
async fn shut_down(lab: &LabDir, running: &[HostPlan]) -> Result<(), Failure> {
    try_join_all(running.iter().map(|host| stop_guests(lab, *host))).await?;
    try_join_all(running.iter().map(|host| power_off(lab, *host))).await?;
    Ok(())
}

async fn stop_guests(lab: &LabDir, host: HostPlan) -> Result<(), Failure> {
    let call = Tool::new("ssh").args(login::ssh_args(lab, host)).args(["timeout", "-k", "5", "40", "sh", "-s"]);
    let stopped = call.stdin(STOP_GUESTS).deadline(GUESTS).run().await;
    stopped.map(drop).while_doing(|| format!("cannot stop the guests of host {}", host.name()))
}

async fn power_off(lab: &LabDir, host: HostPlan) -> Result<(), Failure> {
    let dir = lab.host(&host.name());
    control::ask(&host.name(), &dir, Request::Soft).await?;
    let began = Instant::now();
    while login::power_of(lab, host).await? != Power::Off {
        if began.elapsed() > HOSTS {
            return Err(Failure::failed(format!("host {} does not go off", host.name())));
        }
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn boot(lab: &LabDir, host: HostPlan) -> Result<(), Failure> {
    control::ask(&host.name(), &lab.host(&host.name()), Request::On).await?;
    login::wait_for_login(lab, host).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_rack_is_replaced_whole_unless_somebody_copies_it() {
        let dir = tempfile::tempdir().unwrap();
        let (fresh, target) = (dir.path().join("a.new"), dir.path().join("a"));
        let make = |text: &str| {
            make_dir(&fresh).unwrap();
            fs::write(fresh.join("file"), text).unwrap();
        };
        let content = || fs::read_to_string(target.join("file")).unwrap();
        for text in ["one", "two"] {
            make(text);
            put_in_place(&fresh, &target).unwrap();
            assert_eq!(content(), text);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
        make("three");
        let copying = store::lock_dir(&target, "it").unwrap();
        assert!(put_in_place(&fresh, &target).is_err());
        assert_eq!(content(), "two");
        drop(copying);
    }
}
