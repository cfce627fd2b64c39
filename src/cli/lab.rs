//! `rackhand lab`.

use super::{Context, lab_image};
use crate::error::Failure;
use clap::{Args, Subcommand};

/// A rack on this machine, to try everything with.
#[derive(Debug, Args)]
pub struct LabArgs {
    #[command(subcommand)]
    command: LabCommand,
}

#[derive(Debug, Subcommand)]
enum LabCommand {
    Image(lab_image::ImageArgs),
}

/// Runs `rackhand lab ...`.
///
/// # Errors
/// Those of the command.
pub async fn run(args: LabArgs, context: &Context) -> Result<(), Failure> {
    match args.command {
        LabCommand::Image(args) => lab_image::run(args, context).await,
    }
}
