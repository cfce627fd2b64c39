//! `rackhand incident`.

use super::Context;
use crate::error::Failure;
use crate::watch::incident::{self, Incident};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

/// Look at what happened when hosts were lost: the timeline, what it stood on, how long guests were down.
#[derive(Debug, Args)]
pub struct IncidentArgs {
    #[command(subcommand)]
    command: IncidentCommand,
}

#[derive(Debug, Subcommand)]
enum IncidentCommand {
    /// List incidents, the latest first.
    List,
    /// Show an incident with all that was written down; `-o json` for programs.
    Show(NumberArgs),
    /// Tell an incident: what happened when, on which evidence and with which proof.
    Explain(NumberArgs),
    Report(ReportArgs),
}

#[derive(Debug, Args)]
struct NumberArgs {
    /// Number of the incident.
    #[arg(value_name = "NUMBER")]
    number: u64,
}

/// Show how much of a year each guest was there.
///
/// A guest counts as down from the first sign that its host was lost until it runs elsewhere.
#[derive(Debug, Args)]
struct ReportArgs {
    /// The year; this one where none is given.
    #[arg(long, value_parser = clap::value_parser!(i16).range(1970..=9000))]
    year: Option<i16>,
}

#[derive(Serialize)]
struct Listing {
    incidents: Vec<Incident>,
}

/// Runs `rackhand incident ...`.
///
/// # Errors
/// What the command itself reports.
pub async fn run(args: IncidentArgs, context: &Context) -> Result<(), Failure> {
    match args.command {
        IncidentCommand::List => {
            let mut incidents = all(context).await?;
            incidents.reverse();
            let listing = Listing { incidents };
            context.ui.result("rackhand.incident-list/1", &listing, |l| incident::incident_table(&l.incidents))
        }
        IncidentCommand::Show(args) | IncidentCommand::Explain(args) => {
            let rack = context.cluster().await?;
            let found = incident::one(rack.port(), args.number).await?;
            let found = found.ok_or_else(|| {
                Failure::usage(format!("no incident {}", args.number))
                    .hint("see the incidents with `rackhand incident list`")
            })?;
            context.ui.result("rackhand.incident/1", &found, incident::explain)
        }
        IncidentCommand::Report(args) => {
            let now = Timestamp::now();
            let year = args.year.unwrap_or_else(|| now.to_zoned(TimeZone::UTC).year());
            let report = incident::availability(&all(context).await?, year, now);
            context.ui.result("rackhand.incident-report/1", &report, incident::Availability::table)
        }
    }
}

async fn all(context: &Context) -> Result<Vec<Incident>, Failure> {
    let rack = context.cluster().await?;
    let (incidents, unread) = incident::all(rack.port()).await?;
    for object in unread {
        context.ui.warn(format!("{}; see `rackhand doctor`", object.why));
    }
    Ok(incidents)
}
