//! `rackhand completions` and `rackhand man`.

use super::Context;
use crate::error::Failure;
use clap::Args;
use clap_complete::Shell;
use clap_complete::env::Shells;
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
    context.ui.print(&script(&args.shell.to_string())?)
}

/// The completion script of a shell. It asks `rackhand` itself, which knows the names of hosts, guests, images and
/// networks as well.
///
/// # Errors
/// When there is no such shell.
pub fn script(shell: &str) -> Result<String, Failure> {
    let shells = Shells::builtins();
    let unknown = || Failure::usage(format!("no completion for the shell `{shell}`"));
    let completer = shells.completer(shell).ok_or_else(unknown)?;
    let mut script = Vec::new();
    completer.write_registration("COMPLETE", "rackhand", "rackhand", "rackhand", &mut script)?;
    Ok(String::from_utf8(script)?)
}

/// Runs `rackhand man DIR`.
///
/// # Errors
/// When the pages cannot be written.
pub fn man(args: &ManArgs, command: clap::Command, context: &Context) -> Result<(), Failure> {
    std::fs::create_dir_all(&args.directory)?;
    clap_mangen::generate_to(command, &args.directory)?;
    context.ui.note(format!("manual pages written to {}", args.directory.display()));
    Ok(())
}
