//! Flags that every command takes.

use crate::ui::{ColorChoice, EventStyle, OutputFormat};
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// The variable that names the inventory.
pub(super) const INVENTORY: &str = "RACKHAND_INVENTORY";

/// Flags every command takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Inventory file.
    #[arg(
        short,
        long,
        global = true, hide_short_help = true,
        env = INVENTORY,
        hide_env_values = true,
        value_name = "FILE",
        default_value = "inventory.yaml"
    )]
    pub inventory: PathBuf,
    /// Format of the result on stdout.
    #[arg(short, long, global = true, hide_short_help = true, value_enum, default_value_t)]
    pub output: OutputFormat,
    /// Format of events on stderr [default: bars on a terminal, else plain].
    #[arg(long, global = true, hide_short_help = true, value_enum, value_name = "STYLE")]
    pub events: Option<EventStyle>,
    /// Show warnings and errors only.
    #[arg(short, long, global = true, hide_short_help = true)]
    pub quiet: bool,
    /// Show more; twice for a transcript of remote commands.
    #[arg(short, long, global = true, hide_short_help = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Do not ask for confirmation.
    #[arg(short, long, global = true, hide_short_help = true)]
    pub yes: bool,
    /// Show what would be done; change nothing.
    #[arg(long, global = true, hide_short_help = true)]
    pub dry_run: bool,
    /// Time limit of the whole command, for example 90s or 10m.
    #[arg(long, global = true, hide_short_help = true, value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub deadline: Option<Duration>,
    /// When to use colour.
    #[arg(long, global = true, hide_short_help = true, value_enum, default_value_t)]
    pub color: ColorChoice,
}
