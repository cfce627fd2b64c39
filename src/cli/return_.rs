//! `rackhand return`.

use super::Context;
use super::moving::{self, MoveArgs};
use crate::error::Failure;
use crate::movement::{ReturnPlan, execute};
use crate::ui::counted;
use clap::Args;
use uuid::Uuid;

/// Take a host out of maintenance, and move back the guests that `evacuate --return-later` moved away.
///
/// No other guests are moved. A guest that has been stopped since then stays stopped.
#[derive(Debug, Args)]
pub struct ReturnArgs {
    /// The host.
    #[arg(value_name = "HOST")]
    host: String,
    #[command(flatten)]
    how: MoveArgs,
}

/// Runs `rackhand return`.
///
/// # Errors
/// Exit 3 when some guests could not be moved, 5 when none may be, 6 when nobody can tell where one is.
pub async fn run(args: ReturnArgs, context: &Context) -> Result<(), Failure> {
    let (rack, options, cancel_level) = args.how.begin(context).await?;
    let change = !context.global.dry_run;
    let home = ReturnPlan::plan(&rack, &args.host, &options, &cancel_level, change).await?;
    if !change {
        return moving::show(context, &rack, home.plan).await;
    }
    let plan = &home.plan;
    let question =
        format!("take {} out of maintenance and move {} back?", args.host, counted(plan.moves.len(), "guest"));
    if !home.over {
        moving::confirm(context, plan, &question).await?;
    }
    home.begin(&rack).await?;
    let report = execute(&rack, plan, &options, cancel_level).await;
    let missing: Vec<Uuid> =
        report.guests.iter().filter(|g| !matches!(g.outcome, "moved" | "gone")).map(|g| g.uuid).collect();
    let remembered = home.end(&rack, &missing).await;
    // What came of the guests is told in any case.
    moving::conclude(context, plan, &report).and(remembered)
}
