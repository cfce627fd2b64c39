//! `rackhand guest`.

use super::{Context, guest_console, guest_create, guest_failover, guest_list, guest_run};
use crate::error::Failure;
use clap::{Args, Subcommand};

/// Create, start, stop and show guests.
#[derive(Debug, Args)]
pub struct GuestArgs {
    #[command(subcommand)]
    command: GuestCommand,
}

#[derive(Debug, Subcommand)]
enum GuestCommand {
    Create(guest_create::CreateArgs),
    List(guest_list::ListArgs),
    Show(guest_list::ShowArgs),
    Start(guest_run::StartArgs),
    Stop(guest_run::StopArgs),
    Reboot(guest_run::RebootArgs),
    Resume(guest_run::ResumeArgs),
    Delete(guest_run::DeleteArgs),
    Protect(guest_run::ProtectArgs),
    Failover(guest_failover::FailoverPolicyArgs),
    Console(guest_console::ConsoleArgs),
    Exec(guest_console::ExecArgs),
}

impl GuestArgs {
    /// Whether it changes nothing.
    pub(super) fn only_looks(&self) -> bool {
        matches!(self.command, GuestCommand::List(_) | GuestCommand::Show(_) | GuestCommand::Console(_))
    }
}

/// Runs `rackhand guest ...`.
///
/// # Errors
/// What the command itself reports.
pub async fn run(args: GuestArgs, context: &Context) -> Result<(), Failure> {
    match args.command {
        GuestCommand::Create(args) => guest_create::run(args, context).await,
        GuestCommand::List(args) => guest_list::list(args, context).await,
        GuestCommand::Show(args) => guest_list::show(args, context).await,
        GuestCommand::Start(args) => guest_run::start(args, context).await,
        GuestCommand::Stop(args) => guest_run::stop(args, context).await,
        GuestCommand::Reboot(args) => guest_run::reboot(args, context).await,
        GuestCommand::Resume(args) => guest_run::resume(args, context).await,
        GuestCommand::Delete(args) => guest_run::delete(args, context).await,
        GuestCommand::Protect(args) => guest_run::protect(args, context).await,
        GuestCommand::Failover(args) => guest_failover::run(args, context).await,
        GuestCommand::Console(args) => guest_console::console(args, context).await,
        GuestCommand::Exec(args) => guest_console::exec(args, context).await,
    }
}
