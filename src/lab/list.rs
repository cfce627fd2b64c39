//! What labs there are and what their hosts are doing.

use super::control::{self, Power, Request};
use super::names::{HostPlan, LabName};
use super::store::{self, LabDir, Record};
use super::{preflight, sweep};
use crate::error::Failure;
use futures::future::join_all;
use serde::Serialize;
use std::path::PathBuf;

/// A lab as `lab list` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct LabView {
    /// Its name.
    pub name: String,
    /// Its inventory file.
    pub inventory: PathBuf,
    /// The private key its hosts take.
    pub key: PathBuf,
    /// Its hosts' keys.
    pub known_hosts: PathBuf,
    /// Whether it was built to its end and lives; one that was not is removed by `lab up` and `lab down`.
    pub whole: bool,
    /// Its hosts.
    pub hosts: Vec<HostView>,
}

/// A host as `lab list` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct HostView {
    /// Its name.
    pub name: String,
    /// Whether it runs.
    pub power: Power,
    /// Networks it is cut off from.
    pub partitioned: Vec<String>,
    /// Its address on the management network.
    pub management: String,
    /// Its address on the storage network.
    pub storage: String,
    /// Its BMC's address, for Redfish (443) and IPMI (623) alike.
    pub bmc: String,
    /// Its service tag.
    pub serial: String,
    /// Its OSD devices, by stable path.
    pub disks: Vec<String>,
}

/// Names of all saved racks.
///
/// # Errors
/// When their directory cannot be read.
pub fn saved() -> Result<Vec<String>, Failure> {
    Ok(store::saved()?.iter().map(ToString::to_string).collect())
}

/// All labs of this machine, or the one of this name.
///
/// # Errors
/// When a name is given and there is no such lab.
pub async fn list(name: Option<&LabName>) -> Result<Vec<LabView>, Failure> {
    preflight::root()?;
    let labs = match name {
        Some(name) => vec![LabDir::of(name)],
        None => store::all()?,
    };
    let mut views = Vec::new();
    for lab in &labs {
        match lab.record() {
            Ok(record) => views.push(view(lab, &record).await?),
            Err(failure) if name.is_some() => return Err(failure),
            // Being made or taken away right now.
            Err(_) => {}
        }
    }
    Ok(views)
}

async fn view(lab: &LabDir, record: &Record) -> Result<LabView, Failure> {
    let hosts = join_all(record.plan().hosts(record.hosts).map(|host| host_view(lab, record, host))).await;
    Ok(LabView {
        name: lab.name.to_string(),
        inventory: lab.inventory(),
        key: lab.key(),
        known_hosts: lab.known_hosts(),
        whole: record.ready && sweep::lives(&lab.name)?,
        hosts,
    })
}

async fn host_view(lab: &LabDir, record: &Record, host: HostPlan) -> HostView {
    let state = control::ask(&host.name(), &lab.host(&host.name()), Request::Status).await;
    let (power, partitioned) = state.map_or((Power::Lost, Vec::new()), |s| (s.power, s.partitioned));
    HostView {
        name: host.name(),
        power,
        partitioned,
        management: host.management().to_string(),
        storage: host.storage().to_string(),
        bmc: host.bmc().to_string(),
        serial: host.serial(),
        disks: (0..record.disks).map(|d| host.disk_path(d)).collect(),
    }
}
