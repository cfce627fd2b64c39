//! `rackhand lab`.
#![allow(clippy::disallowed_methods, reason = "becomes the login to a host of the lab")]

use super::{Context, lab_image};
use crate::error::{Failure, ResultExt};
use crate::inventory::Size;
use crate::lab::{self, HostKind, HostView, LabName, LabView, MAX_DISKS, MAX_HOSTS, Network, NewLab, PowerAction};
use crate::ui::{Table, counted};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

/// Run a rack on this machine: hosts that boot, two networks, disks and BMCs.
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
    /// List labs and saved racks, with the state of their hosts.
    List,
    Ssh(SshArgs),
    Power(PowerArgs),
    /// Cut a host and its BMC off from power and networks at once; `lab power on` undoes it.
    Cut(HostArgs),
    Partition(PartitionArgs),
    /// Connect a host to all its networks again.
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
    /// What it changes on this machine, as an action and its object; nothing where it only looks.
    fn change(&self, name: &LabName) -> Option<(String, String)> {
        let lab = format!("lab {name}");
        let host = |host: &str| format!("host {host} of {lab}");
        Some(match self {
            LabCommand::Up(UpArgs { from: Some(saved), .. }) => (format!("bring up from {saved}"), lab),
            LabCommand::Up(up) => {
                let (hosts, disks) = (counted(up.hosts.into(), "host"), counted(up.disks.into(), "disk"));
                (format!("build with {hosts} and {disks} of {} each", up.disk_size), lab)
            }
            LabCommand::Down => ("remove".to_owned(), lab),
            LabCommand::Power(power) => (format!("power {}", word(power.action)), host(&power.host)),
            LabCommand::Cut(cut) => ("cut".to_owned(), host(&cut.host)),
            LabCommand::Partition(cut) => (format!("partition from {}", word(cut.from)), host(&cut.host)),
            LabCommand::Heal(heal) => ("heal".to_owned(), host(&heal.host)),
            LabCommand::Save(save) => (format!("save as {}", save.saved), lab),
            LabCommand::Forget(forget) => ("delete".to_owned(), format!("saved rack {}", forget.saved)),
            LabCommand::Image(image) => ("build".to_owned(), format!("guest image {}", image.kind().name())),
            LabCommand::List | LabCommand::Ssh(_) | LabCommand::Supervise(_) | LabCommand::Chassis(_) => return None,
        })
    }

    /// The host it is for.
    fn host(&self) -> Option<&str> {
        match self {
            LabCommand::Power(power) => Some(&power.host),
            LabCommand::Partition(cut) => Some(&cut.host),
            LabCommand::Cut(host) | LabCommand::Heal(host) => Some(&host.host),
            _ => None,
        }
    }
}

/// The word of a value on the command line.
fn word(value: impl ValueEnum) -> String {
    value.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default()
}

/// Create a lab and wait until its hosts accept logins.
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
    /// Kind of the hosts: containers, or virtual machines with a kernel of their own.
    #[arg(long, value_enum, default_value_t)]
    kind: HostKind,
    /// Saved rack to bring up again; hosts and disks are as they were.
    #[arg(long, value_name = "SAVED", conflicts_with_all = ["hosts", "disks", "disk_size", "kind"])]
    from: Option<LabName>,
}

/// Save the rack as it is, for `lab up --from`: its hosts are shut down, copied and booted again.
#[derive(Debug, Args)]
struct SaveArgs {
    /// Name of the saved rack.
    saved: LabName,
    /// Replace a saved rack of the same name.
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
    #[arg(trailing_var_arg = true, value_name = "CMD")]
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

/// Disconnect a host from a network; its BMC stays connected.
#[derive(Debug, Args)]
struct PartitionArgs {
    /// The host.
    host: String,
    /// The network to disconnect it from.
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
    if let Some(host) = args.command.host() {
        lab::find(&name, host)?;
    }
    let change = args.command.change(&name);
    if let Some((action, object)) = &change
        && context.would(action, &[object])?
    {
        return Ok(());
    }
    let deadline = context.global.deadline;
    let changed = match args.command {
        LabCommand::Up(up) => {
            let UpArgs { hosts, disks, disk_size, kind, from } = up;
            let new = NewLab { name: name.clone(), hosts, disks, disk_size, kind, from };
            lab::up(&new, deadline, &context.ui).await?;
            return show(Some(&name), context).await;
        }
        LabCommand::Down => {
            let found = lab::down(&name).await?;
            context.ui.note(if found { format!("lab {name} is gone") } else { format!("there is no lab {name}") });
            found
        }
        LabCommand::List => return show(asked_for.as_ref(), context).await,
        LabCommand::Ssh(ssh) => {
            let mut argv = lab::ssh_command(&name, &ssh.host)?.into_iter();
            let program = argv.next().unwrap_or_default();
            let error = std::process::Command::new(program).args(argv).args(ssh.command).exec();
            return Err(error).while_doing(|| "cannot run ssh".to_owned());
        }
        LabCommand::Power(power) => lab::power(&name, &power.host, power.action).await.map(|()| true)?,
        LabCommand::Cut(host) => lab::cut(&name, &host.host).await.map(|()| true)?,
        LabCommand::Partition(cut) => lab::partition(&name, &cut.host, cut.from).await.map(|()| true)?,
        LabCommand::Save(save) => {
            let directory = lab::save(&name, &save.saved, save.replace, deadline, &context.ui).await?;
            let saved = Saved { name: save.saved.to_string(), directory };
            return context.ui.result("rackhand.lab-save/1", &saved, |saved| saved.directory.display().to_string());
        }
        LabCommand::Forget(forget) => {
            context.confirm(&format!("delete the saved rack {}?", forget.saved)).await?;
            lab::forget(&forget.saved)?;
            context.ui.note(format!("the saved rack {} is gone", forget.saved));
            true
        }
        LabCommand::Heal(host) => lab::heal(&name, &host.host).await.map(|()| true)?,
        LabCommand::Image(args) => return lab_image::run(args, context).await,
        LabCommand::Chassis(call) => return context.ui.print(&lab::chassis(&name, &call.host, &call.words).await?),
        LabCommand::Supervise(host) => return lab::supervise(&name, &host.host).await,
    };
    let (action, object) = change.unwrap_or_default();
    context.did(&action, &object, changed)
}

#[derive(Serialize)]
struct Saved {
    name: String,
    directory: PathBuf,
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
    fn a_change_is_said_in_the_words_of_the_command_line() {
        let said = |words: &[&str]| {
            let lab = LabArgs::augment_args(clap::Command::new("lab"));
            let matches = lab.try_get_matches_from([&["lab"], words].concat()).unwrap();
            let args = <LabArgs as clap::FromArgMatches>::from_arg_matches(&matches).unwrap();
            let (action, object) = args.command.change(&"rack".parse().unwrap()).unwrap();
            format!("{action}: {object}")
        };
        assert_eq!(said(&["power", "soft", "h1"]), "power soft: host h1 of lab rack");
        assert_eq!(said(&["partition", "h2", "--from", "storage"]), "partition from storage: host h2 of lab rack");
        assert_eq!(said(&["up"]), "build with 3 hosts and 1 disk of 12G each: lab rack");
        assert_eq!(said(&["image", "build", "tiny"]), "build: guest image tiny");
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
