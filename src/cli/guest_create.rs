//! `rackhand guest create`.

use super::Context;
use crate::error::{Failure, Kind, LocalExt, ResultExt};
use crate::guest::address::Wish;
use crate::guest::create::{self, Order, Plan};
use crate::guest::image::TemplateName;
use crate::guest::{
    Desired, FailoverPolicy, Guest, Made, Started, check_user_data, conclude, make, names, user_data_for_keys,
};
use crate::inventory::{Inventory, Size};
use crate::ui::Table;
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Create guests from an image and start them.
///
/// The same command, run again, finishes one that was killed. Two tags steer where guests run: guests with the same
/// `apart=VALUE` never share a host; guests with the same `spread=VALUE` share a rack or a host only when there is no
/// other choice.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Name of the guest; with --count, NAME-1, NAME-2 and so on.
    name: String,
    /// Image, as NAME or NAME@VERSION.
    #[arg(long)]
    image: TemplateName,
    /// Memory [default: the inventory's].
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,
    /// Virtual processors [default: the inventory's].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=128))]
    cpus: Option<u32>,
    /// Size of the disk [default: the inventory's].
    #[arg(long, value_name = "SIZE")]
    disk: Option<Size>,
    /// Guest network [default: the inventory's, or the only one].
    #[arg(long)]
    network: Option<String>,
    /// Address of the guest; `auto` takes a free one.
    #[arg(long, default_value = "auto")]
    address: Wish,
    /// File of cloud-init user data, passed to the guest unchanged.
    #[arg(long, value_name = "FILE")]
    user_data: Option<PathBuf>,
    /// File of a public SSH key that may log in; may be repeated.
    #[arg(long, value_name = "FILE", conflicts_with = "user_data")]
    ssh_key: Vec<PathBuf>,
    /// Number of guests to create.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    count: Option<u32>,
    /// Tag; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = tag)]
    tag: Vec<(String, String)>,
    /// Pin the guest to this host.
    #[arg(long)]
    host: Option<String>,
    /// Guests of a higher priority go first when there is not room for all.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    priority: i32,
    /// Protect the guest against deletion.
    #[arg(long)]
    protected: bool,
    /// What is proven of a lost host before the guest starts elsewhere: that the storage refuses it (data-safe), or that it is
    /// off as well (strict).
    #[arg(long, value_enum, default_value_t = FailoverPolicy::DataSafe, value_name = "POLICY")]
    failover: FailoverPolicy,
    /// Create the guest without starting it.
    #[arg(long)]
    no_start: bool,
}

fn tag(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is no tag; write KEY=VALUE")),
    }
}

#[derive(Serialize)]
struct Planned<'a> {
    guests: &'a [create::Planned],
}

#[derive(Serialize)]
struct Created {
    guests: Vec<CreatedGuest>,
}

#[derive(Serialize)]
struct CreatedGuest {
    name: String,
    uuid: Option<uuid::Uuid>,
    state: &'static str,
    host: Option<String>,
    addresses: Vec<IpAddr>,
    reason: Option<String>,
}

/// Runs `rackhand guest create`.
///
/// # Errors
/// When a guest cannot be made or started; those that can are.
pub async fn run(args: CreateArgs, context: &Context) -> Result<(), Failure> {
    let no_start = args.no_start;
    let inventory = context.inventory()?;
    let order = order(args, &inventory)?;
    let rack = context.rack().await?;
    let plan = create::plan(&rack, order).await?;
    if context.global.dry_run {
        return show_plan(context, &plan);
    }
    let made = make(&rack, &plan).await?;
    let ready: Vec<Guest> = made.iter().filter_map(|(_, result)| result.as_ref().ok().cloned()).collect();
    let started = if no_start { Vec::new() } else { create::start(&rack, &plan, &ready).await };
    let result = show(context, &Created { guests: created(&made, &started) });
    conclude("create", outcome(made, started))?;
    result
}

/// What each guest is now, as far as this run can tell.
fn created(made: &Made, started: &[(String, Result<Started, Failure>)]) -> Vec<CreatedGuest> {
    let started: BTreeMap<&str, &Result<Started, Failure>> =
        started.iter().map(|(name, r)| (name.as_str(), r)).collect();
    let one = |(name, made): &(String, Result<Guest, Failure>)| {
        let guest = made.as_ref().ok();
        let started = started.get(name.as_str()).copied();
        let (state, failure) = match (made, started) {
            (Err(failure), _) if failure.kind == Kind::Unknown => ("unknown", Some(failure)),
            (Err(failure), _) => ("failed", Some(failure)),
            (Ok(_), None) => ("stopped", None),
            (Ok(_), Some(Ok(_))) => ("running", None),
            (Ok(_), Some(Err(failure))) if matches!(failure.kind, Kind::Failed | Kind::Interrupted) => {
                ("stopped", Some(failure))
            }
            (Ok(_), Some(Err(failure))) => ("unknown", Some(failure)),
        };
        CreatedGuest {
            name: name.clone(),
            uuid: guest.map(|guest| guest.uuid),
            state,
            host: started.and_then(|started| started.as_ref().ok()).map(|started| started.host.clone()),
            addresses: guest.map(|guest| guest.nics.iter().map(|nic| nic.address).collect()).unwrap_or_default(),
            reason: failure.map(ToString::to_string),
        }
    };
    made.iter().map(one).collect()
}

/// What became of each guest: made and, where it was asked for, started.
fn outcome(
    made: Vec<(String, Result<Guest, Failure>)>,
    started: Vec<(String, Result<Started, Failure>)>,
) -> Vec<(String, Result<(), Failure>)> {
    let mut started: BTreeMap<String, Result<Started, Failure>> = started.into_iter().collect();
    let one = |(name, made): (String, Result<Guest, Failure>)| {
        let started = started.remove(&name).map_or(Ok(()), |r| r.map(drop));
        (name, made.and(started))
    };
    made.into_iter().map(one).collect()
}

fn order(args: CreateArgs, inventory: &Inventory) -> Result<Order, Failure> {
    let defaults = &inventory.guests;
    let network = match args.network.or_else(|| defaults.network.clone()) {
        Some(network) => network,
        None if inventory.networks.guests.len() == 1 => {
            inventory.networks.guests.keys().next().cloned().unwrap_or_default()
        }
        None if inventory.networks.guests.is_empty() => {
            return Err(Failure::usage("the inventory has no guest network")
                .hint("describe one under networks.guests, and provision"));
        }
        None => {
            return Err(
                Failure::usage("no network named").hint("pass --network, or set guests.network in the inventory")
            );
        }
    };
    let user_data = match &args.user_data {
        Some(file) => {
            let data = read(file)?;
            check_user_data(&data, &file.display().to_string())?;
            data
        }
        None => {
            let keys = args.ssh_key.iter().map(|file| key(file)).collect::<Result<Vec<_>, _>>()?;
            user_data_for_keys(&keys).into_bytes()
        }
    };
    Ok(Order {
        names: names(&args.name, args.count)?,
        image: args.image,
        memory: args.memory.unwrap_or(defaults.memory),
        cpus: args.cpus.unwrap_or(defaults.cpus),
        disk: args.disk.unwrap_or(defaults.disk),
        network,
        address: args.address,
        user_data,
        tags: args.tag.into_iter().collect(),
        priority: args.priority,
        protected: args.protected,
        failover: args.failover,
        host: args.host,
        desired: if args.no_start { Desired::Stopped } else { Desired::Running },
    })
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).or_kind(Kind::Usage).while_doing(|| format!("cannot read {}", file.display()))
}

/// A public key; a private one is refused before it gets anywhere.
fn key(file: &Path) -> Result<String, Failure> {
    let text = String::from_utf8_lossy(&read(file)?).into_owned();
    if text.contains("PRIVATE KEY") {
        return Err(Failure::usage(format!("{} is a private key", file.display())).hint("name the .pub file beside it"));
    }
    if !["ssh-", "ecdsa-", "sk-"].iter().any(|start| text.starts_with(start)) {
        return Err(Failure::usage(format!("{} is no public SSH key", file.display())));
    }
    Ok(text.trim().to_owned())
}

fn show_plan(context: &Context, plan: &Plan) -> Result<(), Failure> {
    context.ui.result("rackhand.guest-plan/1", &Planned { guests: &plan.guests }, |planned| {
        let mut table = Table::new(["guest", "host", ""]);
        for guest in planned.guests {
            table.row([
                guest.name.clone(),
                guest.host.clone(),
                if guest.resumed { "finish" } else { "make" }.to_owned(),
            ]);
        }
        table.render()
    })
}

fn show(context: &Context, created: &Created) -> Result<(), Failure> {
    context.ui.result("rackhand.guest-create/1", created, |created| {
        let mut table = Table::new(["guest", "state", "host", "address"]);
        for guest in &created.guests {
            let addresses: Vec<String> = guest.addresses.iter().map(ToString::to_string).collect();
            let host = guest.host.clone().unwrap_or_default();
            table.row([guest.name.clone(), guest.state.to_owned(), host, addresses.join(",")]);
        }
        table.render()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::sample_guest;

    #[test]
    fn a_guest_is_said_to_be_down_only_where_that_is_known() {
        let kinds = [Kind::Failed, Kind::Interrupted, Kind::Unknown, Kind::Busy, Kind::Refused];
        let mut made: Made = Vec::new();
        let mut started = Vec::new();
        for kind in kinds {
            let name = format!("{kind:?}").to_lowercase();
            made.push((name.clone(), Ok(sample_guest(&name))));
            started.push((name, Err(Failure::msg(kind, "why"))));
        }
        made.push(("up".into(), Ok(sample_guest("up"))));
        started.push(("up".into(), Ok(Started { name: "up".into(), host: "h1".into(), already: false })));
        made.push(("down".into(), Ok(sample_guest("down"))));
        made.push(("lost".into(), Err(Failure::msg(Kind::Unknown, "why"))));
        made.push(("none".into(), Err(Failure::failed("why"))));
        let created = created(&made, &started);
        let states: Vec<&str> = created.iter().map(|guest| guest.state).collect();
        let wanted = ["stopped", "stopped", "unknown", "unknown", "unknown", "running", "stopped", "unknown", "failed"];
        assert_eq!(states, wanted);
        assert_eq!((created[5].host.as_deref(), &created[5].reason), (Some("h1"), &None));
        assert_eq!((created[8].uuid, created[8].reason.as_deref()), (None, Some("why")));
    }
}
