//! `rackhand run`.

use super::provision::{self, Work};
use super::{Context, host_names};
use crate::error::Failure;
use crate::playbook::Library;
use crate::provision::Stage;
use clap::Args;
use std::path::PathBuf;

/// Apply a playbook of your own to hosts.
///
/// Shows what would change, asks, applies exactly that, and verifies it. A playbook has the same resources and templates
/// as those of `provision`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The playbook, a YAML file; its templates are in `templates/` beside it.
    playbook: PathBuf,
    /// Hosts to apply it to: names or globs [default: all].
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    host: Vec<String>,
    /// Apply this plan, saved by `--dry-run -o json`, and nothing else, without asking.
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
}

/// Runs `rackhand run`.
///
/// # Errors
/// As the command-line contract says.
pub async fn run(args: RunArgs, context: &Context) -> Result<(), Failure> {
    let inventory = context.inventory()?;
    let hosts = host_names::select(&inventory, &args.host)?;
    let stem = args.playbook.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    if !args.playbook.is_file() {
        return Err(Failure::usage(format!("there is no playbook {}", args.playbook.display())));
    }
    let library = Library::of(&stem, args.playbook);
    let stages = vec![Stage::Playbook(stem)];
    provision::carry_out(context, Work { inventory, stages, library, hosts, agreed: args.plan }).await
}
