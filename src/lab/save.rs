//! Saving a rack and making a lab of it again, so that nobody provisions twice to try the same thing twice.
//!
//! A saved host is what it had written over the image, as layers to be put under a new overlay, and its disks.

use super::cgroup::Cgroup;
use super::control::{self, Power, Request};
use super::names::{HostPlan, LabName};
use super::store::{self, HostDir, HostKind, LabDir, Record, make_dir};
use super::tool::Tool;
use super::{preflight, rootfs, up};
use crate::error::{Failure, ResultExt};
use crate::ui::Ui;
use futures::future::try_join_all;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Guests get 20 s to shut down; then they are destroyed.
const GUESTS: Duration = Duration::from_secs(45);
/// A host asked to shut down is killed by its supervisor after 30 s.
const HOSTS: Duration = Duration::from_secs(60);
/// A rack of some tens of GiB on a slow disk.
const COPY: Duration = Duration::from_secs(30 * 60);
/// Ends the guests of a host in order.
const STOP_GUESTS: &str = include_str!("save/stop-guests.sh");

/// Files of a lab that a saved rack keeps, beside its hosts.
const FILES: [&str; 6] = ["lab.json", "inventory.yaml", "id_ed25519", "id_ed25519.pub", "known_hosts", "bmc-password"];

/// Saves a rack: its hosts are shut down in order, copied, and those that ran are booted again.
///
/// # Errors
/// When there is no such lab, the save exists and is not to be replaced, or something cannot be copied.
pub async fn save(name: &LabName, saved: &LabName, replace: bool, ui: &Ui) -> Result<PathBuf, Failure> {
    preflight::machine()?;
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
    job.step("shutting down its guests and hosts");
    let running = shut_down(&lab, &record).await?;
    job.step("copying");
    let copied = copy_out(&lab, &record, &target).await;
    job.step("booting its hosts");
    let booted = try_join_all(running.iter().map(|host| boot(&lab, *host))).await;
    copied.while_doing(|| format!("cannot save lab `{name}`"))?;
    booted?;
    job.done(target.display().to_string());
    Ok(target)
}

/// The record of a saved rack.
pub(super) fn record_of(saved: &LabName) -> Result<Record, Failure> {
    let dir = store::save_dir(saved);
    if !dir.is_dir() {
        return Err(Failure::usage(format!("there is no saved rack `{saved}`"))
            .hint("`rackhand lab save NAME` saves the lab as it is"));
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
    remove(&fresh)?;
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
    remove(target)?;
    fs::rename(&fresh, target).while_doing(|| format!("cannot rename {}", fresh.display()))
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

fn remove(dir: &Path) -> Result<(), Failure> {
    if dir.exists() {
        fs::remove_dir_all(dir).while_doing(|| format!("cannot remove {}", dir.display()))?;
    }
    Ok(())
}

/// Ends all guests, then all hosts; those that ran are the answer.
async fn shut_down(lab: &LabDir, record: &Record) -> Result<Vec<HostPlan>, Failure> {
    let mut running = Vec::new();
    for host in record.plan().hosts(record.hosts) {
        let state = control::ask(&host.name(), &lab.host(&host.name()), Request::Status).await?;
        if state.power == Power::On {
            running.push(host);
        }
    }
    try_join_all(running.iter().map(|host| stop_guests(lab, *host))).await?;
    try_join_all(running.iter().map(|host| power_off(lab, *host))).await?;
    Ok(running)
}

async fn stop_guests(lab: &LabDir, host: HostPlan) -> Result<(), Failure> {
    let call = Tool::new("ssh").args(up::ssh_args(lab, host)).args(["timeout", "-k", "5", "40", "sh", "-s"]);
    let stopped = call.stdin(STOP_GUESTS).deadline(GUESTS).run().await;
    stopped.map(drop).while_doing(|| format!("cannot stop the guests of host {}", host.name()))
}

async fn power_off(lab: &LabDir, host: HostPlan) -> Result<(), Failure> {
    let dir = lab.host(&host.name());
    control::ask(&host.name(), &dir, Request::Soft).await?;
    let began = Instant::now();
    while control::ask(&host.name(), &dir, Request::Status).await?.power == Power::On {
        if began.elapsed() > HOSTS {
            return Err(Failure::failed(format!("host {} does not go off", host.name())));
        }
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn boot(lab: &LabDir, host: HostPlan) -> Result<(), Failure> {
    control::ask(&host.name(), &lab.host(&host.name()), Request::On).await?;
    up::wait_for_login(lab, host).await
}
