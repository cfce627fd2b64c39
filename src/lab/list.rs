//! What labs there are and what their hosts are doing.

use super::control::{self, Power, Request};
use super::names::{HostPlan, LabName};
use super::store::{self, LabDir, Record};
use super::{preflight, sweep};
use crate::error::{Failure, Kind};
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
    if let Some(name) = name {
        let lab = LabDir::of(name);
        return Ok(vec![view(&lab, Some(&lab.record()?)).await?]);
    }
    let mut views = Vec::new();
    for lab in &store::all()? {
        match lab.find_record() {
            Ok(Some(record)) => views.push(view(lab, Some(&record)).await?),
            // Being made or taken away right now.
            Ok(None) => {}
            Err(_) => views.push(view(lab, None).await?),
        }
    }
    Ok(views)
}

/// A lab whose record cannot be read has no hosts that could be named.
async fn view(lab: &LabDir, record: Option<&Record>) -> Result<LabView, Failure> {
    let hosts = match record {
        Some(record) => join_all(record.plan().hosts(record.hosts).map(|host| host_view(lab, record, host))).await,
        None => Vec::new(),
    };
    Ok(LabView {
        name: lab.name.to_string(),
        inventory: lab.inventory(),
        key: lab.key(),
        known_hosts: lab.known_hosts(),
        whole: record.is_some_and(|r| r.ready) && sweep::lives(&lab.name)?,
        hosts,
    })
}

async fn host_view(lab: &LabDir, record: &Record, host: HostPlan) -> HostView {
    let (power, partitioned) = match control::ask(&host.name(), &lab.host(&host.name()), Request::Status).await {
        Ok(state) => (state.power, state.partitioned),
        // It may be killing the host, or waiting for the machine's disk.
        Err(failure) if failure.kind == Kind::Unknown => (Power::Unknown, Vec::new()),
        Err(_) => (Power::Lost, Vec::new()),
    };
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
