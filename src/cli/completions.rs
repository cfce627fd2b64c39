//! `rackhand completions` and `rackhand man`.

use super::{Cli, Context};
use crate::error::Failure;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::path::PathBuf;

/// Print the completion script of a shell.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Write the manual pages, one a command, into a directory.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The directory; made where it is missing.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Runs `rackhand completions SHELL`.
///
/// # Errors
/// When stdout cannot be written.
pub fn run(args: &CompletionsArgs, context: &Context) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "rackhand", &mut script);
    context.ui.print(&String::from_utf8(script)?)
}

/// Runs `rackhand man DIR`.
///
/// # Errors
/// When the pages cannot be written.
pub fn man(args: &ManArgs, context: &Context) -> Result<(), Failure> {
    std::fs::create_dir_all(&args.directory)?;
    clap_mangen::generate_to(Cli::command(), &args.directory)?;
    context.ui.note(format!("manual pages written to {}", args.directory.display()));
    Ok(())
}
