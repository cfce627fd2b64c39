//! `rackhand check`.

use super::Context;
use crate::error::{Failure, Kind};
use crate::fence::{self, BmcError, Power};
use crate::host::{self, BmcSeen, Finding, Seen, Severity};
use crate::inventory::{HostSpec, Inventory, secret};
use crate::ssh::{Fleet, LocalHost, Remote};
use crate::ui::Table;
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Peers a BMC is asked from, should this machine have no way to it.
const PEERS: usize = 3;

/// Compare the inventory with reality, before anything is changed.
///
/// Looks at all hosts at once: SSH and sudo, system, clocks, disks, interfaces, every pair of hosts on every network at
/// full packet size, names, memory, and BMCs. Exits with 4 when something would not work; warnings alone exit with 0.
#[derive(Debug, Args)]
pub struct CheckArgs {}

#[derive(Serialize)]
struct Document {
    /// Hosts looked at.
    hosts: usize,
    findings: Vec<Finding>,
}

/// Runs `rackhand check`.
///
/// # Errors
/// When something is wrong (exit 4), or the inventory has no OSD (exit 2).
pub async fn run(_: CheckArgs, context: &Context) -> Result<(), Failure> {
    let inventory = context.inventory()?;
    inventory.require_osds()?;
    let fleet = context.fleet(&inventory)?;
    let job = context.ui.job(format!("check {} hosts", inventory.hosts.len()));
    let seen = look(&inventory, &fleet).await;
    let document = Document { hosts: seen.len(), findings: host::evaluate(&inventory, &seen) };
    let errors = document.findings.iter().filter(|f| f.severity == Severity::Error).count();
    let warnings = document.findings.len() - errors;
    job.done(format!("{errors} problems, {warnings} warnings"));
    context.ui.result("rackhand.check/1", &document, table)?;
    if errors > 0 {
        return Err(Failure::msg(Kind::Problem, format!("{errors} problems found")));
    }
    Ok(())
}

async fn look(inventory: &Inventory, fleet: &Fleet) -> BTreeMap<String, Seen> {
    let one = |remote: Arc<dyn Remote>| async move {
        let spec = inventory.host(remote.name());
        let ((facts, clock, paths), bmc) =
            tokio::join!(of_host(remote.as_ref(), inventory), async { bmc(spec?, inventory, fleet).await });
        Seen { facts, paths, clock, bmc }
    };
    fleet.each(inventory.hosts.iter().map(|h| h.name.as_str()), one).await
}

type OfHost = (Result<host::Facts, crate::ssh::RemoteError>, Option<host::Clock>, Option<host::Paths>);

async fn of_host(remote: &dyn Remote, inventory: &Inventory) -> OfHost {
    let facts = host::gather(remote).await;
    if facts.is_err() {
        return (facts, None, None);
    }
    let clock = host::clock(remote).await.ok();
    // One that answered a moment ago and no longer does is worth an error, not silence.
    match host::probe(remote, inventory).await {
        Ok(paths) => (facts, clock, Some(paths)),
        Err(error) => (Err(error), clock, None),
    }
}

/// Asks a host's BMC from here, else from peers.
async fn bmc(host: &HostSpec, inventory: &Inventory, fleet: &Fleet) -> Option<BmcSeen> {
    let spec = host.bmc.as_ref()?;
    let password = match secret::resolve(&spec.password, &inventory.base).await {
        Ok(password) => password,
        Err(failure) => return Some(BmcSeen::Failed { why: failure.to_string(), login: true }),
    };
    let peers = fleet.all().filter(|peer| peer.name() != host.name).take(PEERS).map(Arc::clone);
    let places = std::iter::once(Arc::new(LocalHost) as Arc<dyn Remote>).chain(peers);
    let mut failures: Vec<BmcError> = Vec::new();
    for place in places {
        match fence::look(place.as_ref(), spec, &password).await {
            Ok(state) => return Some(BmcSeen::Answered { on: state.power == Power::On, serials: state.serials }),
            Err(error) if error.is_about_the_place() => failures.push(error),
            Err(error) => {
                let login = matches!(error, BmcError::Login { .. });
                return Some(BmcSeen::Failed { why: format!("BMC {error} (asked from {})", place.name()), login });
            }
        }
    }
    let why = failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    if failures.iter().all(|e| matches!(e, BmcError::NoTool { .. })) {
        return Some(BmcSeen::Untried { why });
    }
    let tried = failures.into_iter().filter(|e| !matches!(e, BmcError::NoTool { .. }));
    let why = tried.map(|e| e.to_string()).collect::<Vec<_>>().join("; ");
    Some(BmcSeen::Failed { why: format!("BMC: {why}"), login: false })
}

fn table(document: &Document) -> String {
    if document.findings.is_empty() {
        return format!("{} hosts checked, nothing wrong", document.hosts);
    }
    let mut table = Table::new(["host", "check", "severity", "what", "fix"]);
    for f in &document.findings {
        table.row([f.host.clone(), f.check.to_owned(), f.severity.to_string(), f.what.clone(), f.fix.clone()]);
    }
    table.render()
}
