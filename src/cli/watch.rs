//! `rackhand watch`.

use super::watch_screen::{Glance, Screen};
use super::watch_words::short;
use super::{Context, watch_control};
use crate::cluster::ClusterPort;
use crate::error::{Failure, Kind};
use crate::guest::GuestContext;
use crate::inventory::{Inventory, secret};
use crate::ssh::{LocalHost, Remote};
use crate::ui::{CancelLevel, ShutdownPolicy, counted};
use crate::watch::brain::Settings;
use crate::watch::driver::{Ports, Setup, watch, watched_hosts};
use crate::watch::incident::Scribe;
use crate::watch::telling::{self, Listener, Sinks, Snapshot, Teller};
use crate::watch::{RackHands, follow_rehearsals};
use clap::{Args, Subcommand};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch::Receiver;

/// Watch over the rack: shut out a host that dies, and start its guests elsewhere.
///
/// Stays in the foreground: a live screen on a terminal, one line an event elsewhere, JSON lines with `--events json`.
/// Several may watch; one leads, and the others take over when it is gone. With `--dry-run` it looks and tells, and
/// neither leads nor acts.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct WatchArgs {
    /// Look once at everything, and end: exit 4 where anything is wrong. Nothing is done about it.
    #[arg(long)]
    once: bool,
    /// Show on this address how it is: a page, JSON, and figures for Prometheus. Other machines need `watch.token`.
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "once")]
    listen: Option<SocketAddr>,
    #[command(subcommand)]
    command: Option<WatchCommand>,
}

#[derive(Debug, Subcommand)]
enum WatchCommand {
    Status(watch_control::StatusArgs),
    Disarm(watch_control::DisarmArgs),
    Arm(watch_control::ArmArgs),
}

impl WatchArgs {
    /// Whether it changes nothing.
    pub(super) fn only_looks(&self) -> bool {
        match &self.command {
            None => self.once,
            Some(WatchCommand::Status(_)) => true,
            Some(WatchCommand::Disarm(_) | WatchCommand::Arm(_)) => false,
        }
    }

    /// Whether it ends by itself at the deadline.
    pub(super) fn keeps_the_deadline(&self) -> bool {
        self.command.is_none() && !self.once
    }
}

/// How the watch takes interruptions.
const ENDS: ShutdownPolicy = ShutdownPolicy {
    once: "the watch ends here; what it had begun is finished by the next one",
    twice: "ending at once",
    aborts_itself: false,
};

/// Runs `rackhand watch ...`.
///
/// # Errors
/// When the inventory is wrong; what the subcommand reports.
pub async fn run(args: WatchArgs, context: &Context) -> Result<(), Failure> {
    match args.command {
        Some(WatchCommand::Status(args)) => watch_control::status(&args, context).await,
        Some(WatchCommand::Disarm(args)) => watch_control::disarm(args, context).await,
        Some(WatchCommand::Arm(args)) => watch_control::arm(&args, context).await,
        None if args.once => once(context).await,
        None => stay(args.listen, context).await,
    }
}

/// What a watcher begins with.
fn begin(context: &Context, acts: bool) -> Result<(Setup, Ports), Failure> {
    let inventory = context.inventory()?;
    // Nothing but heartbeats uses these connections: what is busy or broken on the others does not hold them up.
    let hearts = context.fleet(&inventory)?;
    let rack = GuestContext::over(context.fleet(&inventory)?, inventory, context.ui.clone());
    let setup = Setup {
        me: format!("{}, {}", rack.run.by, rack.run.id),
        settings: Settings::with_patience(rack.inventory.patience()),
        hosts: watched_hosts(&rack.inventory),
        journal: acts.then(|| state_file(&rack.inventory, "watch")),
        acts,
    };
    let port = Arc::clone(&rack.port) as Arc<dyn ClusterPort>;
    if acts {
        // Ends with this process.
        let (inventory, fleet) = (Arc::clone(&rack.inventory), rack.fleet.clone());
        tokio::spawn(follow_rehearsals(Arc::clone(&port), inventory, fleet, setup.me.clone()));
    }
    Ok((setup, Ports { hearts, port, hands: Arc::new(RackHands::new(rack)) }))
}

/// Where something is kept until the cluster takes it.
fn state_file(inventory: &Inventory, what: &str) -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // systemd names the directory of a service.
    let directory = variable("STATE_DIRECTORY")
        .or_else(|| variable("XDG_STATE_HOME").map(|home| home.join("rackhand")))
        .or_else(|| variable("HOME").map(|home| home.join(".local/state/rackhand")))
        .unwrap_or_else(|| PathBuf::from("/var/lib/rackhand"));
    directory.join(format!("{what}-{}.journal", inventory.cluster.fsid))
}

async fn stay(listen: Option<SocketAddr>, context: &Context) -> Result<(), Failure> {
    let inventory = context.inventory()?;
    let (setup, ports) = begin(context, !context.global.dry_run)?;
    let (patience, hosts) = (setup.settings.patience, counted(setup.hosts.len(), "host"));
    context.ui.tell("begun", None, format!("watching {hosts} with a patience of {} s", patience.as_secs_f64()));
    let _guard = context.ui.completion_guard(ENDS);
    let (mut cancel_level, deadline) = (context.ui.cancel_level(), context.global.deadline);
    let stop = async move {
        let over = async {
            match deadline {
                Some(deadline) => tokio::time::sleep(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // An error means that nobody can interrupt any more.
            _ = cancel_level.wait_for(|level| *level != CancelLevel::None) => {}
            () = over => {}
        }
    };
    let scribe = setup.acts.then(|| {
        let file = setup
            .journal
            .as_ref()
            .map(|file| file.with_file_name(format!("incidents-{}.jsonl", inventory.cluster.fsid)));
        Scribe::new(Arc::clone(&ports.port), file, short(&setup.me))
    });
    let here = Arc::new(LocalHost) as Arc<dyn Remote>;
    let (screen, sinks) = (Screen::new(context.ui.clone()), Sinks::of(&inventory, &here));
    let mut teller = Teller::new(screen, &inventory.cluster.name, sinks, scribe);
    let _listener = match listen {
        Some(address) => Some(show_on(address, &inventory, teller.snapshots(), context).await?),
        None => None,
    };
    watch(setup, ports, &mut teller, stop).await
}

async fn show_on(
    address: SocketAddr,
    inventory: &Inventory,
    snapshots: Receiver<Snapshot>,
    context: &Context,
) -> Result<Listener, Failure> {
    let token = match &inventory.watch.token {
        Some(from) => Some(secret::resolve(from, &inventory.base).await?),
        None => None,
    };
    let listener = telling::bind(address, token, snapshots).await?;
    context.ui.tell("listening", None, format!("shown on http://{}/", listener.address));
    Ok(listener)
}

async fn once(context: &Context) -> Result<(), Failure> {
    let (setup, ports) = begin(context, false)?;
    let port = Arc::clone(&ports.port);
    let mut glance = Glance::new(&setup.settings);
    watch(setup, ports, &mut glance, std::future::pending()).await?;
    let leads = watch_control::leader(port.as_ref()).await;
    let look = glance.look(leads);
    context.ui.result("rackhand.watch-look/1", &look, |look| look.table())?;
    match look.findings.len() {
        0 => Ok(()),
        n => Err(Failure::msg(Kind::Problem, counted(n, "finding"))),
    }
}
