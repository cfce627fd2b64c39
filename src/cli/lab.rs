//! `rackhand lab`.

use super::{Context, lab_image};
use crate::error::{Failure, ResultExt};
use crate::inventory::Size;
use crate::lab::{self, HostKind, HostView, LabName, LabView, MAX_DISKS, MAX_HOSTS, Network, NewLab, PowerAction};
use crate::ui::Table;
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

/// A rack on this machine: hosts that boot, two networks, disks and BMCs.
#[derive(Debug, Args)]
pub struct LabArgs {
    /// Name of the lab.
    #[arg(long, global = true, default_value = "rack")]
    name: LabName,
    #[command(subcommand)]
    command: LabCommand,
}

#[derive(Debug, Subcommand)]
enum LabCommand {
    Up(UpArgs),
    /// Remove a lab and everything it made, however far it got.
    Down,
    /// Show all labs and what their hosts are doing.
    List,
    Ssh(SshArgs),
    Power(PowerArgs),
    /// Pull a host's cords: links down, SIGKILL, BMC dead. `lab power on` puts them back.
    Cut(HostArgs),
    Partition(PartitionArgs),
    /// Put all of a host's cables back.
    Heal(HostArgs),
    Save(SaveArgs),
    Image(lab_image::ImageArgs),
    /// Look after one host; started by `lab up`.
    #[command(hide = true)]
    Supervise(HostArgs),
    #[command(hide = true)]
    Chassis(ChassisArgs),
}

impl LabCommand {
    /// What it changes on this machine, in words; nothing where it only looks.
    fn change(&self, name: &LabName) -> Option<String> {
        match self {
            LabCommand::Up(UpArgs { from: Some(saved), .. }) => Some(format!("bring up lab {name} from {saved}")),
            LabCommand::Up(up) => {
                Some(format!("build lab {name}: {} hosts with {} disks of {} each", up.hosts, up.disks, up.disk_size))
            }
            LabCommand::Down => Some(format!("remove lab {name} and everything in it")),
            LabCommand::Power(power) => Some(format!("switch {} of lab {name}: {:?}", power.host, power.action)),
            LabCommand::Cut(host) => Some(format!("pull both cords of {} of lab {name}", host.host)),
            LabCommand::Partition(cut) => Some(format!("cut {} of lab {name} off from {:?}", cut.host, cut.from)),
            LabCommand::Heal(host) => Some(format!("put the cables of {} of lab {name} back", host.host)),
            LabCommand::Save(save) => Some(format!("save lab {name} as {}", save.saved)),
            LabCommand::Image(_) => Some("build the guest image, unless it is in the cache".to_owned()),
            LabCommand::List | LabCommand::Ssh(_) | LabCommand::Supervise(_) | LabCommand::Chassis(_) => None,
        }
    }
}

/// Build a lab and wait until its hosts can be logged in to.
#[derive(Debug, Args)]
struct UpArgs {
    /// How many hosts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_HOSTS)))]
    hosts: u8,
    /// Disks of each host.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=i64::from(MAX_DISKS)))]
    disks: u8,
    /// Size of each disk; it takes no space until it is written to.
    #[arg(long, default_value = "12G", value_name = "SIZE")]
    disk_size: Size,
    /// What the hosts are: containers, or virtual machines with a kernel of their own.
    #[arg(long, value_enum, default_value_t)]
    kind: HostKind,
    /// Bring this saved rack up again; hosts and disks are as they were.
    #[arg(long, value_name = "SAVED", conflicts_with_all = ["hosts", "disks", "disk_size", "kind"])]
    from: Option<LabName>,
}

/// Save the rack as it is, for `lab up --from`: its hosts are shut down, copied and booted again.
#[derive(Debug, Args)]
struct SaveArgs {
    /// Name of the saved rack.
    saved: LabName,
    /// Put it in the place of one that has the name already.
    #[arg(long)]
    replace: bool,
}

/// Log in to a host, or run a command there.
#[derive(Debug, Args)]
struct SshArgs {
    /// The host.
    host: String,
    /// The command and its arguments.
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Switch a host on or off, as its BMC would.
#[derive(Debug, Args)]
struct PowerArgs {
    /// What to do.
    action: PowerWord,
    /// The host.
    host: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PowerWord {
    /// Boot it; puts pulled cords back.
    On,
    /// SIGKILL, at once.
    Off,
    /// Ask it to shut down; SIGKILL after 30 s.
    Soft,
    /// SIGKILL and boot it again.
    Reset,
}

/// Take a host's cables out of their switch. Its BMC keeps its own.
#[derive(Debug, Args)]
struct PartitionArgs {
    /// The host.
    host: String,
    /// The network it is cut off from.
    #[arg(long, value_name = "NETWORK")]
    from: NetworkWord,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum NetworkWord {
    /// The storage network.
    Storage,
    /// The management network.
    Management,
    /// Both.
    All,
}

#[derive(Debug, Args)]
struct HostArgs {
    /// The host.
    host: String,
}

/// Called by the IPMI simulator to look at and switch the power.
#[derive(Debug, Args)]
struct ChassisArgs {
    /// The host.
    host: String,
    /// The simulator's own words.
    #[arg(last = true)]
    words: Vec<String>,
}

/// Runs `rackhand lab ...`.
///
/// # Errors
/// As the lab's own.
pub async fn run(args: LabArgs, context: &Context) -> Result<(), Failure> {
    let name = args.name;
    if context.global.dry_run
        && let Some(change) = args.command.change(&name)
    {
        return context.ui.print(&format!("would {change}"));
    }
    match args.command {
        LabCommand::Up(up) => {
            let UpArgs { hosts, disks, disk_size, kind, from } = up;
            lab::up(&NewLab { name: name.clone(), hosts, disks, disk_size, kind, from }, &context.ui).await?;
            show(lab::list(Some(&name)).await?, &name, context)
        }
        LabCommand::Down => {
            let found = lab::down(&name).await?;
            context.ui.note(if found { format!("lab {name} is gone") } else { format!("there is no lab {name}") });
            Ok(())
        }
        LabCommand::List => show(lab::list(None).await?, &name, context),
        LabCommand::Ssh(ssh) => {
            let mut argv = lab::ssh_command(&name, &ssh.host)?.into_iter();
            let program = argv.next().unwrap_or_default();
            let error = std::process::Command::new(program).args(argv).args(ssh.command).exec();
            Err(error).while_doing(|| "cannot run ssh".to_owned())
        }
        LabCommand::Power(power) => {
            let action = match power.action {
                PowerWord::On => PowerAction::On,
                PowerWord::Off => PowerAction::Off,
                PowerWord::Soft => PowerAction::Soft,
                PowerWord::Reset => PowerAction::Reset,
            };
            lab::power(&name, &power.host, action).await
        }
        LabCommand::Cut(host) => lab::cut(&name, &host.host).await,
        LabCommand::Partition(partition) => {
            let from = match partition.from {
                NetworkWord::Storage => Network::Storage,
                NetworkWord::Management => Network::Management,
                NetworkWord::All => Network::All,
            };
            lab::partition(&name, &partition.host, from).await
        }
        LabCommand::Save(save) => {
            let path = lab::save(&name, &save.saved, save.replace, &context.ui).await?;
            context.ui.print(&path.display().to_string())
        }
        LabCommand::Heal(host) => lab::heal(&name, &host.host).await,
        LabCommand::Image(args) => lab_image::run(args, context).await,
        LabCommand::Chassis(call) => context.ui.print(&lab::chassis(&name, &call.host, &call.words).await?),
        LabCommand::Supervise(host) => lab::supervise(&name, &host.host).await,
    }
}

/// The lab of the name asked for at the top, so that a script with one lab need not search; all of them below.
#[derive(Serialize)]
struct Labs {
    name: Option<String>,
    inventory: Option<PathBuf>,
    key: Option<PathBuf>,
    known_hosts: Option<PathBuf>,
    hosts: Vec<HostView>,
    saved: Vec<String>,
    racks: Vec<LabView>,
}

impl Labs {
    fn new(labs: Vec<LabView>, saved: Vec<String>, name: &LabName) -> Self {
        let chosen = labs.iter().find(|l| l.name == name.as_str()).or(labs.first());
        Labs {
            name: chosen.map(|l| l.name.clone()),
            inventory: chosen.map(|l| l.inventory.clone()),
            key: chosen.map(|l| l.key.clone()),
            known_hosts: chosen.map(|l| l.known_hosts.clone()),
            hosts: chosen.map(|l| l.hosts.clone()).unwrap_or_default(),
            saved,
            racks: labs,
        }
    }
}

fn show(labs: Vec<LabView>, name: &LabName, context: &Context) -> Result<(), Failure> {
    context.ui.result("rackhand.lab-list/1", &Labs::new(labs, lab::saved()?, name), |shown| {
        let mut table = Table::new(["lab", "host", "power", "management", "storage", "bmc", "disks", "cut off from"]);
        for lab in &shown.racks {
            for host in &lab.hosts {
                table.row([
                    lab.name.clone(),
                    host.name.clone(),
                    host.power.word().to_owned(),
                    host.management.clone(),
                    host.storage.clone(),
                    host.bmc.clone(),
                    host.disks.len().to_string(),
                    host.partitioned.join(","),
                ]);
            }
        }
        let mut text = table.render();
        for lab in &shown.racks {
            text += &format!("\n\nlab {}: export RACKHAND_INVENTORY={}", lab.name, lab.inventory.display());
        }
        text
    })
}
