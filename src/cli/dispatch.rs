//! The command line as a whole: parses it, runs the command, turns its outcome into an exit code.

use super::context::Context;
use super::global::{Global, INVENTORY};
use super::trace::Trace;
use super::{
    backup, check, completions, evacuate, facts, failover, fence, guest, help, history, host_add, image, incident,
    init, init_args, inventory, lab, migrate, network, provision, readmit, return_, run, status, watch,
};
use crate::error::{Failure, Kind};
use crate::ui::Ui;
use clap::builder::Resettable;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::CompleteEnv;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::Instant;

/// A hand for the rack: Ceph, KVM guests, migration and evacuation over SSH, without agents.
#[derive(Debug, Parser)]
#[command(name = "rackhand", version = env!("RACKHAND_VERSION"), about, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// In the order of a rack's life.
#[derive(Debug, Subcommand)]
enum Command {
    Init(init_args::InitArgs),
    Inventory(inventory::InventoryArgs),
    Host(host_add::HostArgs),
    Facts(facts::FactsArgs),
    Check(check::CheckArgs),
    Provision(provision::ProvisionArgs),
    Run(run::RunArgs),
    Image(image::ImageArgs),
    Network(network::NetworkArgs),
    Guest(guest::GuestArgs),
    Migrate(migrate::MigrateArgs),
    Evacuate(evacuate::EvacuateArgs),
    Return(return_::ReturnArgs),
    Backup(backup::BackupArgs),
    Fence(fence::FenceArgs),
    Incident(incident::IncidentArgs),
    Failover(failover::FailoverArgs),
    Readmit(readmit::ReadmitArgs),
    History(history::HistoryArgs),
    Status(status::StatusArgs),
    Doctor(status::DoctorArgs),
    Watch(watch::WatchArgs),
    Lab(lab::LabArgs),
    Completions(completions::CompletionsArgs),
    Man(completions::ManArgs),
}

/// The command line as it is parsed, completed and documented.
pub fn command() -> clap::Command {
    help::dressed(Cli::command())
}

/// Parses the command line, runs it, and turns the outcome into an exit code.
pub fn main() -> ExitCode {
    // Answers a shell that completes a line, and exits.
    CompleteEnv::with_factory(command).complete();
    let (cli, trace) = match parse() {
        Ok(parsed) => parsed,
        Err(error) => {
            let code = if error.use_stderr() { Kind::Usage.code() } else { 0 };
            // Nothing can be done when the terminal is gone.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let global = cli.global;
    let ui = Ui::new(global.output, global.color, global.quiet, global.events);
    init_logging(global.verbose, global.color.on(std::io::stderr().is_terminal()));
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            ui.failure(&Failure::new(Kind::Failed, error).context("cannot start"));
            return ExitCode::FAILURE;
        }
    };
    let context = Context::new(global, ui.clone());
    let outcome = runtime.block_on(async {
        let kept = cli.command.is_kept(&context.global);
        let began = Instant::now();
        let outcome = bounded(cli.command, &context).await;
        if kept {
            context.remember(trace, began.elapsed(), &outcome).await;
        }
        outcome
    });
    // Blocking threads that hang must not hold the exit.
    runtime.shutdown_timeout(Duration::from_millis(200));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            ui.failure(&failure);
            failure.exit_code()
        }
    }
}

/// The command line, and what of it may be kept. An empty variable is as good as none, as everywhere in the shell.
fn parse() -> Result<(Cli, Trace), clap::Error> {
    let mut command = command();
    if std::env::var_os(INVENTORY).is_some_and(|path| path.is_empty()) {
        command = command.mut_arg("inventory", |arg| arg.env(Resettable::Reset));
    }
    let matches = command.try_get_matches_from_mut(std::env::args_os())?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    Ok((cli, Trace::of(&command, &matches)))
}

impl Command {
    /// Whether it only looks, so that nothing has to be finished or looked after when it is broken off.
    fn only_looks(&self, global: &Global) -> bool {
        global.dry_run
            || match self {
                Command::Facts(_) | Command::Check(_) | Command::Status(_) | Command::Doctor(_) => true,
                // They write in one step, at their end.
                Command::Init(_) | Command::Completions(_) | Command::Man(_) => true,
                Command::Inventory(_) | Command::Incident(_) | Command::History(_) => true,
                Command::Backup(backup) => backup.only_looks(),
                Command::Fence(fence) => fence.only_looks(),
                Command::Guest(guest) => guest.only_looks(),
                Command::Image(image) => image.only_looks(),
                Command::Network(network) => network.only_looks(),
                Command::Watch(watch) => watch.only_looks(),
                Command::Host(_) | Command::Provision(_) | Command::Run(_) | Command::Lab(_) => false,
                Command::Migrate(_) | Command::Evacuate(_) | Command::Return(_) => false,
                Command::Failover(_) | Command::Readmit(_) => false,
            }
    }

    /// Whether the history has an entry of it: it may change the rack.
    fn is_kept(&self, global: &Global) -> bool {
        !self.only_looks(global) && !matches!(self, Command::Lab(_))
    }

    /// Whether it follows `--deadline` itself: what is under way must not be dropped there.
    fn keeps_the_deadline(&self) -> bool {
        match self {
            Command::Migrate(_) | Command::Evacuate(_) | Command::Return(_) | Command::Lab(_) => true,
            Command::Watch(watch) => watch.keeps_the_deadline(),
            _ => false,
        }
    }
}

/// Runs a command until it ends, its deadline passes or the operator interrupts it. What it had begun on hosts ends by
/// its own deadline there; the same command run again looks before it acts.
async fn bounded(command: Command, context: &Context) -> Result<(), Failure> {
    let only_looks = command.only_looks(&context.global);
    let deadline = context.global.deadline.filter(|_| !command.keeps_the_deadline());
    let passed = async {
        match deadline {
            Some(deadline) => tokio::time::sleep(deadline).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        outcome = run(command, context) => outcome,
        signals = context.ui.interrupted() => {
            signals?;
            Err(broken_off(Kind::Interrupted, "interrupted".to_owned(), only_looks || context.ui.is_asking()))
        }
        () = passed => {
            let limit = humantime::format_duration(deadline.unwrap_or_default());
            Err(broken_off(Kind::Unknown, format!("not done within {limit}"), only_looks || context.ui.is_asking()))
        }
    }
}

/// What has only looked leaves nothing behind that anybody would have to know.
fn broken_off(kind: Kind, message: String, only_looked: bool) -> Failure {
    match (kind, only_looked) {
        (Kind::Unknown, true) => Failure::failed(message),
        (_, true) => Failure::msg(kind, message),
        (_, false) => Failure::msg(kind, message).hint("the same command run again finishes what was begun"),
    }
}

async fn run(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Backup(args) => backup::run(args, context).await,
        Command::Check(args) => check::run(args, context).await,
        Command::Facts(args) => facts::run(args, context).await,
        Command::Doctor(args) => status::doctor(&args, context).await,
        Command::Status(args) => status::status(&args, context).await,
        Command::Watch(args) => watch::run(args, context).await,
        Command::Host(args) => host_add::run(args, context).await,
        Command::Completions(args) => completions::run(&args, context),
        Command::Man(args) => completions::man(&args, self::command(), context),
        Command::Init(args) => init::run(args, context).await,
        Command::Inventory(args) => inventory::run(&args, context),
        Command::Lab(args) => lab::run(args, context).await,
        Command::Migrate(args) => migrate::run(args, context).await,
        Command::Evacuate(args) => evacuate::run(args, context).await,
        Command::Failover(args) => failover::run(args, context).await,
        Command::Readmit(args) => readmit::run(args, context).await,
        Command::Return(args) => return_::run(args, context).await,
        Command::History(args) => history::run(&args, context).await,
        Command::Incident(args) => incident::run(args, context).await,
        Command::Fence(args) => fence::run(args, context).await,
        Command::Guest(args) => guest::run(args, context).await,
        Command::Image(args) => image::run(args, context).await,
        Command::Network(args) => network::run(args, context).await,
        Command::Provision(args) => provision::run(args, context).await,
        Command::Run(args) => run::run(args, context).await,
    }
}

fn init_logging(verbose: u8, color: bool) {
    let level = match verbose {
        0 => "warn,openssh=off",
        1 => "info",
        _ => "rackhand=debug,info",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("RACKHAND_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(color).with_writer(std::io::stderr);
    if verbose > 1 {
        log.with_timer(tracing_subscriber::fmt::time::uptime()).init();
    } else {
        log.without_time().init();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Names and flags are a contract: what goes from this list breaks scripts.
    #[test]
    fn commands_and_flags_are_those_of_the_contract() {
        fn list(command: &clap::Command, path: &str, lines: &mut Vec<String>) {
            let words = command.get_arguments().filter(|a| !a.is_global_set() && !a.is_hide_set()).map(|argument| {
                let name = argument.get_id().as_str();
                match argument.get_long() {
                    Some(long) => format!("--{long}"),
                    None => name.to_uppercase(),
                }
            });
            let words: Vec<String> = words.filter(|w| w != "--help" && w != "--version").collect();
            lines.push(format!("{path} {}", words.join(" ")).trim_end().to_owned());
            for below in command.get_subcommands().filter(|c| !c.is_hide_set()) {
                list(below, &format!("{path} {}", below.get_name()), lines);
            }
        }
        let mut lines = Vec::new();
        list(&Cli::command(), "rackhand", &mut lines);
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn a_look_that_is_broken_off_leaves_nothing_unknown() {
        let looks = |words: &[&str]| {
            let cli = Cli::try_parse_from([&["rackhand"], words].concat()).unwrap();
            cli.command.only_looks(&cli.global)
        };
        for words in [
            &["status"][..],
            &["guest", "list"],
            &["image", "show", "x"],
            &["network", "pool", "lan"],
            &["guest", "stop", "web", "--dry-run"],
        ] {
            assert!(looks(words), "{words:?}");
        }
        for words in [
            &["provision"][..],
            &["guest", "stop", "web"],
            &["guest", "exec", "web", "true"],
            &["image", "remove", "x"],
            &["network", "pool", "lan", "--forget-conflicts"],
        ] {
            assert!(!looks(words), "{words:?}");
        }
        let late = |only_looked| broken_off(Kind::Unknown, "late".to_owned(), only_looked);
        assert_eq!((late(true).kind, late(true).hints.len()), (Kind::Failed, 0));
        assert_eq!((late(false).kind, late(false).hints.len()), (Kind::Unknown, 1));
    }
}
