//! What can be done to the hosts of a lab that runs: power, cords, cables, logins.

use super::control::{self, Request};
use super::names::{HostPlan, LabName, find_host};
use super::store::LabDir;
use super::{login, preflight};
use crate::error::Failure;

/// What can be done to a host's power.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PowerAction {
    /// Boot it; puts pulled cords back.
    On,
    /// SIGKILL, at once.
    Off,
    /// Ask it to shut down; SIGKILL after a grace of 30 s, or 3 minutes for a virtual machine.
    Soft,
    /// SIGKILL and boot it again.
    Reset,
}

/// Networks a host can be cut off from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Network {
    /// The storage network.
    Storage,
    /// The management network; the BMC keeps its own cable.
    Management,
    /// Both.
    All,
}

/// Changes a host's power.
///
/// # Errors
/// When there is no such host, or it does not obey.
pub async fn power(name: &LabName, host: &str, action: PowerAction) -> Result<(), Failure> {
    let request = match action {
        PowerAction::On => Request::On,
        PowerAction::Off => Request::Off,
        PowerAction::Soft => Request::Soft,
        PowerAction::Reset => Request::Reset,
    };
    ask(name, host, request).await
}

/// Pulls a host's cords: links down, SIGKILL, BMC dead.
///
/// # Errors
/// When there is no such host, or its supervisor is gone.
pub async fn cut(name: &LabName, host: &str) -> Result<(), Failure> {
    ask(name, host, Request::Cut).await
}

/// Takes a host's cables out of their switch.
///
/// # Errors
/// When there is no such host, or its supervisor is gone.
pub async fn partition(name: &LabName, host: &str, from: Network) -> Result<(), Failure> {
    let request = match from {
        Network::Storage => Request::PartitionStorage,
        Network::Management => Request::PartitionManagement,
        Network::All => Request::PartitionAll,
    };
    ask(name, host, request).await
}

/// Puts all of a host's cables back; a cut host stays off, its BMC lives again.
///
/// # Errors
/// When there is no such host, or its supervisor is gone.
pub async fn heal(name: &LabName, host: &str) -> Result<(), Failure> {
    ask(name, host, Request::Heal).await
}

/// Checks that there is such a lab with such a host.
///
/// # Errors
/// When there is not.
pub fn find(name: &LabName, host: &str) -> Result<(), Failure> {
    find_in(&LabDir::of(name), host).map(drop)
}

fn find_in(lab: &LabDir, host: &str) -> Result<HostPlan, Failure> {
    let record = lab.record()?;
    find_host(record.plan(), record.hosts, host)
}

async fn ask(name: &LabName, host: &str, request: Request) -> Result<(), Failure> {
    preflight::root()?;
    let lab = LabDir::of(name);
    let host = find_in(&lab, host)?;
    control::ask(&host.name(), &lab.host(&host.name()), request).await.map(drop)
}

/// The ssh command that logs in to a host of a lab, without a remote command.
///
/// # Errors
/// When there is no such host.
pub fn ssh_command(name: &LabName, host: &str) -> Result<Vec<String>, Failure> {
    let lab = LabDir::of(name);
    let host = find_in(&lab, host)?;
    let mut argv = vec!["ssh".to_owned()];
    argv.extend(login::ssh_args(&lab, host));
    Ok(argv)
}
