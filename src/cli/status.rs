//! `rackhand status` and `rackhand doctor`.

use super::Context;
use crate::error::{Failure, Kind};
use crate::report::{Finding, assemble, collect_status, examine, findings_table, look_closely, status_table};
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

/// Show the health of the cluster, the hosts and the guests on one screen.
#[derive(Debug, Args)]
pub struct StatusArgs {}

/// List what is wrong or risky, with a fix for each; exit 4 when there is anything.
#[derive(Debug, Args)]
pub struct DoctorArgs {}

#[derive(Serialize)]
struct Findings {
    findings: Vec<Finding>,
}

/// Runs `rackhand status`.
///
/// # Errors
/// When the inventory is wrong. Hosts that do not answer are part of the picture.
pub async fn status(_: &StatusArgs, context: &Context) -> Result<(), Failure> {
    let inventory = context.inventory()?;
    let fleet = context.fleet(&inventory)?;
    let seen = collect_status(&inventory, &fleet).await;
    let status = assemble(&inventory, &seen, Timestamp::now());
    context.ui.result("rackhand.status/1", &status, status_table)
}

/// Runs `rackhand doctor`.
///
/// # Errors
/// Exit 4 when anything is wrong or risky.
pub async fn doctor(_: &DoctorArgs, context: &Context) -> Result<(), Failure> {
    let inventory = context.inventory()?;
    let fleet = context.fleet(&inventory)?;
    let seen = look_closely(&inventory, &fleet).await;
    let status = assemble(&inventory, &seen, Timestamp::now());
    let findings = Findings { findings: examine(&status, &seen) };
    context.ui.result("rackhand.doctor/1", &findings, |f| findings_table(&f.findings))?;
    match findings.findings.len() {
        0 => Ok(()),
        1 => Err(Failure::msg(Kind::Problem, "1 finding")),
        n => Err(Failure::msg(Kind::Problem, format!("{n} findings"))),
    }
}
