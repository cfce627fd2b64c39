//! `rackhand migrate`.

use super::Context;
use super::moving::{self, MoveArgs};
use crate::error::Failure;
use crate::guest::{Guest, GuestContext, Selection};
use crate::movement::{Facts, Unmoved, Wanted, answers, execute, gather, plan};
use crate::ui::counted;
use clap::Args;
use uuid::Uuid;

/// Move running guests to other hosts without stopping them.
///
/// Each guest moves to --to, or to the host with the most room. The plan is shown first. The source host sends the guest
/// itself: a move goes on when this command dies, and the same command, run again, finishes it.
#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// Guests: names, quoted globs or UUIDs.
    #[arg(value_name = "GUEST")]
    guests: Vec<String>,
    /// Only guests with this tag.
    #[arg(long, value_name = "KEY[=VALUE]")]
    tag: Vec<String>,
    /// All guests; with --from, all guests of that host.
    #[arg(long)]
    all: bool,
    /// Only guests that run on this host.
    #[arg(long, value_name = "HOST")]
    from: Option<String>,
    /// Host to move them to.
    #[arg(long, value_name = "HOST")]
    to: Option<String>,
    #[command(flatten)]
    how: MoveArgs,
}

/// Runs `rackhand migrate`.
///
/// # Errors
/// Exit 3 when some guests could not be moved, 5 when none may be, 6 when nobody can tell where one is.
pub async fn run(args: MigrateArgs, context: &Context) -> Result<(), Failure> {
    let (rack, options, cancel_level) = args.how.begin(context).await?;
    for host in args.from.iter().chain(&args.to) {
        if rack.hypervisors.get(host).is_err() {
            return Err(Failure::usage(format!("the inventory has no host `{host}` that runs guests")));
        }
    }
    let chosen = choose(&args, &rack).await?;
    let wanted = Wanted::Guests(chosen.clone());
    let facts = gather(&rack, &wanted, &options, &cancel_level, !context.global.dry_run).await?;
    if let Some(from) = &args.from {
        answers(&facts, from)?;
    }
    let on_it = |g: &&Guest| args.from.as_ref().is_none_or(|from| place(&facts, g.uuid).is_some_and(|h| h == from));
    let chosen: Vec<&Guest> = chosen.iter().filter(on_it).collect();
    // Where any host will do, a guest that an earlier run of this command has moved is where it shall be.
    let anywhere = args.to.is_none() && args.from.is_none();
    let (done, ids): (Vec<Uuid>, Vec<Uuid>) =
        chosen.iter().map(|g| g.uuid).partition(|guest| anywhere && facts.arrived.contains_key(guest));
    let mut plan = plan(&facts, &ids, args.to.as_deref());
    plan.unchanged.extend(done.iter().filter_map(|guest| facts.arrived.get(guest).cloned()));
    // One that is down is in nobody's way when all were meant, and a mistake when it was named.
    let named = !args.guests.is_empty();
    let absent = |g: &&&Guest| place(&facts, g.uuid).is_none() && !facts.unsettled.contains_key(&g.uuid);
    for guest in chosen.iter().filter(|_| named).filter(absent) {
        let reason = facts.hidden.get(&guest.uuid).cloned().unwrap_or_else(|| "it does not run".to_owned());
        plan.refused.push(Unmoved { guest: guest.name.clone(), host: String::new(), reason });
    }
    if context.global.dry_run {
        return moving::show(context, &rack, plan).await;
    }
    if !plan.is_empty() {
        moving::confirm(context, &plan, &format!("move {}?", counted(plan.moves.len(), "guest"))).await?;
    }
    let report = execute(&rack, &plan, &options, cancel_level).await;
    moving::conclude(context, &plan, &report)
}

async fn choose(args: &MigrateArgs, rack: &GuestContext) -> Result<Vec<Guest>, Failure> {
    let selection = Selection { names: args.guests.clone(), tags: args.tag.clone(), all: args.all };
    selection.pick(rack.guests().await?, args.from.is_some())
}

fn place(facts: &Facts, uuid: Uuid) -> Option<&String> {
    facts.guests.iter().find(|g| g.uuid == uuid).map(|g| &g.host)
}
