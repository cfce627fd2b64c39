//! `rackhand guest console` and `rackhand guest exec`.

use super::Context;
use crate::error::{Failure, Kind};
use crate::guest::{DomainInventory, agent};
use crate::ssh::{interactive, quote};
use clap::Args;
use std::time::Duration;

/// Open the serial console of a guest; Ctrl-] leaves it.
#[derive(Debug, Args)]
pub struct ConsoleArgs {
    /// Name or UUID of the guest.
    guest: String,
    /// Print the command instead of running it.
    #[arg(long)]
    show_command: bool,
}

/// Run a command in a guest through its guest agent.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Name or UUID of the guest.
    guest: String,
    /// How long it may run.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "60s", value_name = "DURATION")]
    timeout: Duration,
    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs `rackhand guest console`.
///
/// # Errors
/// When the guest does not run or its host cannot be reached.
pub async fn console(args: ConsoleArgs, context: &Context) -> Result<(), Failure> {
    let rack = context.rack().await?;
    let guest = rack.guest(&args.guest).await?;
    let domain_inventory = DomainInventory::take(&rack, false).await?;
    let host = domain_inventory.host_of(&rack, &guest).await?;
    let Some(spec) = rack.inventory.host(&host) else {
        return Err(Failure::failed(format!("host {host} is not in the inventory")));
    };
    let mut command = interactive(&rack.inventory, spec);
    let root = if spec.user.as_deref().or(rack.inventory.ssh.user.as_deref()).unwrap_or("root") == "root" {
        ""
    } else {
        "sudo -n "
    };
    command.arg(format!("{root}virsh -c qemu:///system console --force {}", guest.uuid));
    if args.show_command {
        let words: Vec<String> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| quote(&word.to_string_lossy()))
            .collect();
        return context.ui.print(&words.join(" "));
    }
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(Failure::failed(format!("the console ended with {status}"))) }
}

/// Runs `rackhand guest exec`.
///
/// # Errors
/// When the guest has no agent, or the command fails.
pub async fn exec(args: ExecArgs, context: &Context) -> Result<(), Failure> {
    let rack = context.rack().await?;
    let guest = rack.guest(&args.guest).await?;
    if context.would(&format!("run `{}` in", args.command.join(" ")), &[&guest.name])? {
        return Ok(());
    }
    let ended = agent::exec(&rack, &guest, &args.command, args.timeout).await?;
    if !context.ui.wants_json() {
        context.ui.complain(&ended.stderr);
    }
    context.ui.result("rackhand.guest-exec/1", &ended, |ended| ended.stdout.clone())?;
    match ended.status {
        0 => Ok(()),
        status => {
            let program = args.command.first().map(String::as_str).unwrap_or_default();
            Err(Failure::msg(Kind::Failed, format!("`{program}` in guest {} exited with {status}", guest.name)))
        }
    }
}
