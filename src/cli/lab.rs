//! `rackhand lab`.

use super::{Context, lab_image};
use crate::error::{Failure, ResultExt};
use crate::inventory::Size;
use crate::lab::{self, HostKind, HostView, LabName, LabView, MAX_DISKS, MAX_HOSTS, Network, NewLab, PowerAction};
use crate::ui::Table;
use clap::{Args, Subcommand};
use serde::Serialize;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

/// A rack on this machine: hosts that boot, two networks, disks and BMCs.
#[derive(Debug, Args)]
pub struct LabArgs {
    /// Name of the lab [default: rack]; `lab list` shows all where none is named.
    #[arg(long, global = true)]
    name: Option<LabName>,
    #[command(subcommand)]
    command: LabCommand,
}

#[derive(Debug, Subcommand)]
enum LabCommand {
    Up(UpArgs),
    /// Remove a lab and everything it made, however far it got.
    Down,
    /// Show all labs and saved racks, and what the hosts are doing.
    List,
    Ssh(SshArgs),
    Power(PowerArgs),
    /// Pull a host's cords: links down, SIGKILL, BMC dead. `lab power on` puts them back.
    Cut(HostArgs),
    Partition(PartitionArgs),
    /// Put all of a host's cables back.
    Heal(HostArgs),
    Save(SaveArgs),
    /// Delete a saved rack; labs that came up from it stay.
    Forget(ForgetArgs),
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
            LabCommand::Forget(forget) => Some(format!("delete the saved rack {}", forget.saved)),
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

#[derive(Debug, Args)]
struct ForgetArgs {
    /// Name of the saved rack.
    saved: LabName,
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
    #[arg(value_enum)]
    action: PowerAction,
    /// The host.
    host: String,
}

/// Take a host's cables out of their switch. Its BMC keeps its own.
#[derive(Debug, Args)]
struct PartitionArgs {
    /// The host.
    host: String,
    /// The network it is cut off from.
    #[arg(long, value_enum, value_name = "NETWORK")]
    from: Network,
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
    let asked_for = args.name;
    let name = match &asked_for {
        Some(name) => name.clone(),
        None => DEFAULT.parse().map_err(Failure::usage)?,
    };
    if context.global.dry_run
        && let Some(change) = args.command.change(&name)
    {
        return context.ui.print(&format!("would {change}"));
    }
    let deadline = context.global.deadline;
    match args.command {
        LabCommand::Up(up) => {
            let UpArgs { hosts, disks, disk_size, kind, from } = up;
            let new = NewLab { name: name.clone(), hosts, disks, disk_size, kind, from };
            lab::up(&new, deadline, &context.ui).await?;
            show(Some(&name), context).await
        }
        LabCommand::Down => {
            let found = lab::down(&name).await?;
            context.ui.note(if found { format!("lab {name} is gone") } else { format!("there is no lab {name}") });
            Ok(())
        }
        LabCommand::List => show(asked_for.as_ref(), context).await,
        LabCommand::Ssh(ssh) => {
            let mut argv = lab::ssh_command(&name, &ssh.host)?.into_iter();
            let program = argv.next().unwrap_or_default();
            let error = std::process::Command::new(program).args(argv).args(ssh.command).exec();
            Err(error).while_doing(|| "cannot run ssh".to_owned())
        }
        LabCommand::Power(power) => lab::power(&name, &power.host, power.action).await,
        LabCommand::Cut(host) => lab::cut(&name, &host.host).await,
        LabCommand::Partition(partition) => lab::partition(&name, &partition.host, partition.from).await,
        LabCommand::Save(save) => {
            let path = lab::save(&name, &save.saved, save.replace, deadline, &context.ui).await?;
            context.ui.print(&path.display().to_string())
        }
        LabCommand::Forget(forget) => {
            context.confirm(&format!("delete the saved rack {}?", forget.saved)).await?;
            lab::forget(&forget.saved)?;
            context.ui.note(format!("the saved rack {} is gone", forget.saved));
            Ok(())
        }
        LabCommand::Heal(host) => lab::heal(&name, &host.host).await,
        LabCommand::Image(args) => lab_image::run(args, context).await,
        LabCommand::Chassis(call) => context.ui.print(&lab::chassis(&name, &call.host, &call.words).await?),
        LabCommand::Supervise(host) => lab::supervise(&name, &host.host).await,
    }
}

/// The lab that is meant where none is named.
const DEFAULT: &str = "rack";

/// The lab that is meant at the top, so that a script with one lab need not search; all of them below.
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
    /// Where there is one lab alone, that one is meant, whatever its name.
    fn new(labs: Vec<LabView>, saved: Vec<String>) -> Self {
        let alone = if labs.len() == 1 { labs.first() } else { None };
        let meant = labs.iter().find(|l| l.name == DEFAULT).or(alone);
        Labs {
            name: meant.map(|l| l.name.clone()),
            inventory: meant.map(|l| l.inventory.clone()),
            key: meant.map(|l| l.key.clone()),
            known_hosts: meant.map(|l| l.known_hosts.clone()),
            hosts: meant.map(|l| l.hosts.clone()).unwrap_or_default(),
            saved,
            racks: labs,
        }
    }
}

/// Shows one lab, or all.
async fn show(name: Option<&LabName>, context: &Context) -> Result<(), Failure> {
    let labs = Labs::new(lab::list(name).await?, lab::saved()?);
    context.ui.result("rackhand.lab-list/1", &labs, text)
}

fn text(labs: &Labs) -> String {
    let mut table = Table::new(["lab", "host", "power", "management", "storage", "bmc", "disks", "cut off from"]);
    for lab in &labs.racks {
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
    let mut parts = vec![table.render()];
    if labs.racks.is_empty() {
        parts = vec!["there is no lab; `rackhand lab up` makes one".to_owned()];
    }
    for LabView { name, inventory, whole, .. } in &labs.racks {
        parts.push(if *whole {
            format!("lab {name}: export RACKHAND_INVENTORY={}", inventory.display())
        } else {
            format!("lab {name} is not whole: `rackhand lab down --name {name}` sweeps what is left of it")
        });
    }
    if !labs.saved.is_empty() {
        parts.push(format!("saved racks, for `lab up --from`: {}", labs.saved.join(", ")));
    }
    parts.join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lab(name: &str, whole: bool) -> LabView {
        let file = |file: &str| PathBuf::from(format!("/lab/{name}/{file}"));
        let (inventory, key, known_hosts) = (file("inventory.yaml"), file("id_ed25519"), file("known_hosts"));
        LabView { name: name.to_owned(), inventory, key, known_hosts, whole, hosts: Vec::new() }
    }

    #[test]
    fn the_lab_at_the_top_is_never_one_of_several_others() {
        let top = |names: &[&str]| Labs::new(names.iter().map(|n| lab(n, true)).collect(), Vec::new()).name;
        assert_eq!(top(&["a", "rack"]).as_deref(), Some("rack"));
        assert_eq!(top(&["a"]).as_deref(), Some("a"));
        assert_eq!(top(&["a", "b"]), None);
        assert_eq!(top(&[]), None);
    }

    #[test]
    fn the_list_says_what_can_be_done_next() {
        let labs = Labs::new(vec![lab("a", true), lab("b", false)], vec!["good".to_owned()]);
        insta::assert_snapshot!(text(&labs), @"
        LAB  HOST  POWER  MANAGEMENT  STORAGE  BMC  DISKS  CUT OFF FROM

        lab a: export RACKHAND_INVENTORY=/lab/a/inventory.yaml

        lab b is not whole: `rackhand lab down --name b` sweeps what is left of it

        saved racks, for `lab up --from`: good
        ");
        insta::assert_snapshot!(text(&Labs::new(Vec::new(), Vec::new())), @"there is no lab; `rackhand lab up` makes one");
    }
}
