//! `rackhand check`.

use super::Context;
use crate::error::{Failure, Kind};
use crate::fence;
use crate::host::{self, Finding, Seen, Severity};
use crate::inventory::Inventory;
use crate::provision::refused_bridges;
use crate::ssh::{Fleet, Remote, sshd_limits};
use crate::ui::Table;
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Compare the inventory with the hosts; nothing is changed.
///
/// Examines all hosts at once: SSH and sudo, system, clocks, disks, interfaces, every pair of hosts on every network at
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
    let mut findings = host::evaluate(&inventory, &seen);
    findings.extend(bridges(&inventory, &fleet, &seen).await);
    findings.sort();
    let document = Document { hosts: seen.len(), findings };
    let errors = document.findings.iter().filter(|f| f.severity == Severity::Error).count();
    let warnings = document.findings.len() - errors;
    job.done(format!("{errors} problems, {warnings} warnings"));
    context.ui.result("rackhand.check/1", &document, table)?;
    if errors > 0 {
        return Err(Failure::msg(Kind::Problem, format!("{errors} problems found")));
    }
    Ok(())
}

/// Guests' bridges that provisioning would refuse to make.
async fn bridges(inventory: &Inventory, fleet: &Fleet, seen: &BTreeMap<String, Seen>) -> Vec<Finding> {
    let answering = inventory.hosts.iter().map(|h| h.name.as_str()).filter(|name| seen[*name].facts.is_ok());
    let one = |remote: Arc<dyn Remote>| async move {
        match inventory.host(remote.name()) {
            Some(spec) => refused_bridges(inventory, spec, &*remote).await,
            None => Ok(Vec::new()),
        }
    };
    let finding = |host: &str, what: String, fix: String| Finding {
        severity: Severity::Error,
        host: host.to_owned(),
        check: "bridge",
        what,
        fix,
    };
    let mut findings = Vec::new();
    for (host, refused) in fleet.each(answering, one).await {
        match refused {
            Ok(refused) => findings.extend(
                refused
                    .into_iter()
                    .map(|(bridge, why)| finding(&host, format!("bridge {}: {}", bridge.name, why.what), why.fix)),
            ),
            Err(failure) => {
                let fix = failure.hints.first().cloned().unwrap_or_else(|| "run the check again".to_owned());
                findings.push(finding(&host, format!("its guests' bridges cannot be judged: {failure}"), fix));
            }
        }
    }
    findings
}

async fn look(inventory: &Inventory, fleet: &Fleet) -> BTreeMap<String, Seen> {
    let one = |remote: Arc<dyn Remote>| async move {
        let spec = inventory.host(remote.name());
        let (mut seen, bmc) =
            tokio::join!(of_host(remote.as_ref(), inventory), async { fence::ask(spec?, inventory, fleet).await });
        seen.bmc = bmc;
        seen
    };
    fleet.each(inventory.hosts.iter().map(|h| h.name.as_str()), one).await
}

async fn of_host(remote: &dyn Remote, inventory: &Inventory) -> Seen {
    let facts = host::gather(remote).await;
    let Ok(known) = &facts else { return Seen { facts, paths: None, clock: None, sshd: None, bmc: None } };
    // Less exact, but better than no word about its clock.
    let clock = Some(host::clock(remote).await.unwrap_or_else(|_| known.clock.clone()));
    // One that answered a moment ago and no longer does is worth an error, not silence.
    let (paths, sshd) = tokio::join!(host::probe(remote, inventory), sshd_limits(remote));
    match paths.and_then(|paths| Ok((paths, sshd?))) {
        Ok((paths, sshd)) => Seen { facts, paths: Some(paths), clock, sshd: Some(sshd), bmc: None },
        Err(error) => Seen { facts: Err(error), paths: None, clock, sshd: None, bmc: None },
    }
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
