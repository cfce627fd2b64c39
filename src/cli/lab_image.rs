//! `rackhand lab image`.

use super::Context;
use crate::error::Failure;
use crate::lab::guest_image::{self, ImageKind};
use clap::{Args, Subcommand};
use serde_json::json;

/// Build disk images of guests for the lab.
#[derive(Debug, Args)]
pub struct ImageArgs {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Build an image, unless it is there already, and print its file.
    Build {
        /// Which image.
        #[arg(value_enum)]
        kind: ImageKind,
    },
}

impl ImageArgs {
    /// The image it is for.
    pub(super) fn kind(&self) -> ImageKind {
        let ImageCommand::Build { kind } = self.command;
        kind
    }
}

/// Runs `rackhand lab image ...`.
///
/// # Errors
/// When a tool is missing or the package archive cannot be reached.
pub async fn run(args: ImageArgs, context: &Context) -> Result<(), Failure> {
    match args.command {
        ImageCommand::Build { kind } => {
            let file = guest_image::build(kind, context.global.deadline, &context.ui).await?;
            let document = json!({ "name": kind.name(), "file": file });
            context.ui.result("rackhand.lab-image/1", &document, |_| file.display().to_string())
        }
    }
}
