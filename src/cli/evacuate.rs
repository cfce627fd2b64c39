//! `rackhand evacuate`.

use super::Context;
use super::moving::{self, MoveArgs};
use crate::error::Failure;
use crate::movement::{Evacuation, execute};
use crate::ui::counted;
use clap::Args;

/// Move all guests off a host without stopping them.
///
/// The host is put into maintenance first, and stays there until `rackhand return`. With --deadline, no more moves start
/// after that time.
#[derive(Debug, Args)]
pub struct EvacuateArgs {
    /// The host.
    #[arg(value_name = "HOST")]
    host: String,
    /// Remember which guests left, for `rackhand return`.
    #[arg(long)]
    return_later: bool,
    #[command(flatten)]
    how: MoveArgs,
}

/// Runs `rackhand evacuate`.
///
/// # Errors
/// Exit 3 when some guests could not be moved, 5 when none may be, 6 when nobody can tell where one is.
pub async fn run(args: EvacuateArgs, context: &Context) -> Result<(), Failure> {
    let (rack, options, cancel_level) = args.how.begin(context).await?;
    let change = !context.global.dry_run;
    let evacuation = Evacuation::plan(&rack, &args.host, &options, &cancel_level, change).await?;
    if !change {
        return moving::show(context, &rack, evacuation.plan).await;
    }
    let plan = &evacuation.plan;
    let question = format!("put {} into maintenance and move {}?", args.host, counted(plan.moves.len(), "guest"));
    moving::confirm(context, plan, &question).await?;
    let evacuation = evacuation.begin(&rack, args.return_later, &options, &cancel_level).await?;
    let report = execute(&rack, &evacuation.plan, &options, cancel_level).await;
    moving::conclude(context, &evacuation.plan, &report)
}
