//! Logging in to a host of a lab, and waiting for it.

use super::cgroup::Cgroup;
use super::control::{self, Power, Request};
use super::names::HostPlan;
use super::store::{HostKind, LabDir};
use super::tool::{Tool, tail};
use crate::error::{Failure, Kind};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A host answers on SSH within five seconds of its boot; a loaded machine is granted more.
const BOOT: Duration = Duration::from_secs(90);
/// A virtual host takes a minute or two where the processor cannot help; a loaded machine is granted more.
const VM_BOOT: Duration = Duration::from_secs(600);

/// Waits until a host takes SSH logins with the lab's key.
pub(super) async fn wait_for_login(lab: &LabDir, host: HostPlan) -> Result<(), Failure> {
    let patience = if lab.record()?.kind == HostKind::Vm { VM_BOOT } else { BOOT };
    let began = Instant::now();
    let tools = Cgroup::of_lab(&lab.name)?.tools();
    loop {
        let tried = Tool::new("ssh").args(ssh_args(lab, host)).arg("true").within(&tools).run().await;
        let Err(failure) = tried else { return Ok(()) };
        if power_of(lab, host).await? == Power::Off {
            let console = std::fs::read(lab.host(&host.name()).console()).unwrap_or_default();
            let said = tail(&String::from_utf8_lossy(&console));
            return Err(Failure::failed(format!("host {} went off while booting; its console: {said}", host.name())));
        }
        if began.elapsed() > patience {
            return Err(failure.context(format!("host {} does not come up", host.name())));
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Whether a host runs, as far as its supervisor says: one that is busy says nothing, which is no failure yet.
pub(super) async fn power_of(lab: &LabDir, host: HostPlan) -> Result<Power, Failure> {
    match control::ask(&host.name(), &lab.host(&host.name()), Request::Status).await {
        Ok(state) => Ok(state.power),
        Err(failure) if failure.kind == Kind::Unknown => Ok(Power::Unknown),
        Err(failure) => Err(failure),
    }
}

/// Arguments for ssh to a host of the lab, up to and with the destination.
pub(super) fn ssh_args(lab: &LabDir, host: HostPlan) -> Vec<String> {
    let known_hosts = format!("UserKnownHostsFile={}", lab.known_hosts().display());
    let options = ["StrictHostKeyChecking=yes", "BatchMode=yes", "ConnectTimeout=5", "LogLevel=ERROR", &known_hosts];
    let mut args = vec!["-F".to_owned(), "none".to_owned()];
    for option in options {
        args.extend(["-o".to_owned(), option.to_owned()]);
    }
    args.extend(["-o".to_owned(), "IdentitiesOnly=yes".to_owned(), "-i".to_owned()]);
    args.push(lab.key().display().to_string());
    args.push(format!("root@{}", host.management()));
    args
}
