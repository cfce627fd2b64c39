//! `lab up`: from nothing to hosts one can log in to.

use super::cgroup::Cgroup;
use super::control::{self, Request};
use super::image::Recipe;
use super::login::wait_for_login;
use super::names::{HostPlan, LabName};
use super::stop::Stop;
use super::store::{self, HostKind, LabDir, Record, write};
use super::tool::{require, tail};
use super::vm_image::{self, VmImage};
use super::{bmc, disk, image, inventory_file, network, preflight, rootfs, save, supervisor, sweep};
use crate::error::{Failure, ResultExt};
use crate::inventory::Size;
use crate::ui::Ui;
use futures::future::try_join_all;
use std::fs::File;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// A supervisor listens within a second; a loaded machine is granted more.
const SUPERVISOR: Duration = Duration::from_secs(30);

/// What a new lab is to be like.
#[derive(Clone, Debug)]
pub struct NewLab {
    /// Its name.
    pub name: LabName,
    /// How many hosts.
    pub hosts: u8,
    /// Disks of each host.
    pub disks: u8,
    /// Size of each disk.
    pub disk_size: Size,
    /// What its hosts are made of.
    pub kind: HostKind,
    /// The saved rack it is to be; hosts, disks and number are that one's.
    pub from: Option<LabName>,
}

/// Builds a lab and waits until its hosts can be logged in to. When it fails, is interrupted or takes longer than
/// `deadline`, nothing of it is left.
///
/// # Errors
/// When the machine is not fit for it, the name is in use, or something cannot be made.
pub async fn up(new: &NewLab, deadline: Option<Duration>, ui: &Ui) -> Result<(), Failure> {
    preflight::machine()?;
    let stop = Stop::new(deadline, ui);
    let lab = LabDir::of(&new.name);
    refuse_if_in_use(&lab)?;
    let wanted = match &new.from {
        Some(saved) => Record { ready: false, ..save::record_of(saved)? },
        None => fresh_record(new, &stop, ui).await?,
    };
    preflight::space(wanted.hosts)?;
    preflight::raise_limits()?;
    let _unhurried = stop.guard("removing what was made of the lab");
    let (record, _lock) = claim(&lab, wanted, new.from.is_some()).await?;
    let job = ui.job(format!("lab {}", new.name));
    job.step(format!("booting {} hosts", record.hosts));
    if let Err(failure) = stop.bound(build(&lab, &record, new.from.as_ref())).await {
        job.fail("removing what was made of it");
        let again = format!("rackhand lab down --name {}", new.name);
        return Err(swept(failure, sweep::lab(&lab).await, &again));
    }
    let hosts = record.hosts;
    lab.write_record(&Record { ready: true, ..record })?;
    job.done(format!("{hosts} hosts"));
    Ok(())
}

/// A failure after which everything was removed, or could not be.
fn swept(failure: Failure, swept: Result<(), Failure>, again: &str) -> Failure {
    match swept {
        Ok(()) => failure,
        Err(second) => failure.hint(format!("{second}; try `{again}`")),
    }
}

/// The record of a lab made anew, with its image built.
async fn fresh_record(new: &NewLab, stop: &Stop, ui: &Ui) -> Result<Record, Failure> {
    let recipe = Recipe::of_this_machine().await?;
    let mut space = if recipe.is_built() { 0 } else { image::SPACE };
    if new.kind == HostKind::Vm {
        require(&["qemu-img", "qemu-system-x86_64"])?;
        require(vm_image::TOOLS)?;
        space += vm_image::SPACE;
    }
    preflight::space(new.hosts)?;
    preflight::space_for_images(space)?;
    let root = recipe.ensure(stop, ui).await?;
    let image = match new.kind {
        HostKind::Container => root,
        HostKind::Vm => vm_image::ensure(&root, stop, ui).await?.0,
    };
    Ok(Record {
        schema: Record::SCHEMA.to_owned(),
        number: 0,
        hosts: new.hosts,
        disks: new.disks,
        disk_size: new.disk_size,
        image,
        fsid: Uuid::new_v4(),
        kind: new.kind,
        ready: false,
    })
}

/// A lab that was built to its end and lives is not replaced.
fn refuse_if_in_use(lab: &LabDir) -> Result<(), Failure> {
    let ready = lab.record().is_ok_and(|r| r.ready);
    if ready && sweep::lives(&lab.name)? {
        return Err(Failure::usage(format!("there is a lab `{}` already", lab.name)).hint(format!(
            "`rackhand lab down --name {0}` removes it; --name gives the new one another name",
            lab.name
        )));
    }
    Ok(())
}

/// Takes the name and a number (its own where `fixed`): from here on other commands see the lab.
async fn claim(lab: &LabDir, wanted: Record, fixed: bool) -> Result<(Record, File), Failure> {
    let _all = store::lock_dir_waiting(&store::labs_root()?).await?;
    if sweep::exists(lab)? {
        // Someone may be building it right now.
        let _lock = if lab.path.exists() { Some(lab.lock()?) } else { None };
        refuse_if_in_use(lab)?;
        sweep::lab(lab).await?;
    }
    sweep::orphans().await?;
    let taken: Vec<u8> = store::all()?.iter().filter_map(|other| Some(other.record().ok()?.number)).collect();
    let candidates = if fixed { wanted.number..=wanted.number } else { 0..=254 };
    let number = network::free_number(candidates, &taken, &network::occupied().await?).ok_or_else(|| {
        if fixed {
            let networks = format!("{} or {}", wanted.plan().management_cidr(), wanted.plan().storage_cidr());
            Failure::usage(format!("the saved rack's networks are in use on this machine: {networks}")).hint(
                "its addresses are written inside its hosts: take down the lab that has them (`rackhand lab list`)",
            )
        } else {
            Failure::failed("no free network is left in 10.77.0.0/16 and 10.78.0.0/16")
        }
    })?;
    let record = Record { number, ..wanted };
    store::make_dir(&lab.path)?;
    let lock = lab.lock()?;
    let taken = lab.write_record(&record).and_then(|()| Cgroup::of_lab(&lab.name)?.tools().create());
    if let Err(failure) = taken {
        let again = format!("rackhand lab down --name {}", lab.name);
        return Err(swept(failure, sweep::lab(lab).await, &again));
    }
    Ok((record, lock))
}

async fn build(lab: &LabDir, record: &Record, from: Option<&LabName>) -> Result<(), Failure> {
    let plan = record.plan();
    network::build_bridges(plan, &Cgroup::of_lab(&lab.name)?.tools()).await?;
    match from {
        Some(saved) => save::copy_in(saved, lab, record).await?,
        None => make_files(lab, record).await?,
    }
    try_join_all(plan.hosts(record.hosts).map(|host| start_host(lab, host))).await?;
    Ok(())
}

/// Makes keys, hosts and the inventory of a new lab.
async fn make_files(lab: &LabDir, record: &Record) -> Result<(), Failure> {
    let plan = record.plan();
    let tools = &Cgroup::of_lab(&lab.name)?.tools();
    rootfs::keygen(tools, &lab.key(), &format!("rackhand-lab-{}", lab.name)).await?;
    let key = std::fs::read_to_string(lab.key().with_extension("pub"))?;
    bmc::make_password(lab)?;
    try_join_all(plan.hosts(record.hosts).map(|host| make_host(tools, lab, record, host, &key))).await?;
    let mut known_hosts = String::new();
    for host in plan.hosts(record.hosts) {
        known_hosts += &rootfs::known_host(lab, host)?;
    }
    write(&lab.known_hosts(), known_hosts.as_bytes(), 0o644)?;
    let inventory = inventory_file::render(lab.name.as_str(), record, preflight::memory_mib()?);
    write(&lab.inventory(), inventory.as_bytes(), 0o644)
}

async fn make_host(tools: &Cgroup, lab: &LabDir, record: &Record, host: HostPlan, key: &str) -> Result<(), Failure> {
    let doing = || format!("cannot make host {}", host.name());
    rootfs::prepare(tools, lab, host, key).await.while_doing(doing)?;
    let dir = lab.host(&host.name());
    for disk in 0..record.disks {
        disk::create(&dir, disk, record.disk_size.bytes()).while_doing(doing)?;
    }
    if record.kind == HostKind::Vm {
        vm_image::prepare(tools, &VmImage(record.image.clone()), host, &dir).await.while_doing(doing)?;
    }
    Ok(())
}

/// Starts a host's supervisor, powers the host on and waits until it can be logged in to.
async fn start_host(lab: &LabDir, host: HostPlan) -> Result<(), Failure> {
    let dir = lab.host(&host.name());
    let mut supervisor = supervisor::start(lab, host)?;
    let began = Instant::now();
    while control::ask(&host.name(), &dir, Request::Status).await.is_err() {
        if began.elapsed() > SUPERVISOR || supervisor.try_wait()?.is_some() {
            let said = std::fs::read_to_string(dir.log()).unwrap_or_default();
            return Err(Failure::failed(format!(
                "host {}: its supervisor did not start: {}",
                host.name(),
                tail(&said)
            )));
        }
        sleep(Duration::from_millis(30)).await;
    }
    control::ask(&host.name(), &dir, Request::On).await?;
    wait_for_login(lab, host).await
}
