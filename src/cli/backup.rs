//! `rackhand backup`.

use super::Context;
use super::backup_restore::{self, RestoreArgs};
use super::guest_selection::GuestNames;
use crate::backup::{Age, Backed, Repository, Target, Verdict, ages, plan, run as run_backups, several};
use crate::error::{Failure, Kind};
use crate::guest::{Guest, GuestContext, conclude};
use crate::inventory::Inventory;
use crate::ui::Table;
use clap::{Args, Subcommand};
use indicatif::HumanBytes;
use jiff::Timestamp;
use rackhand_repository::{
    Damage, Depth, Done, Keep, PointKind, PointPath, PointSummary, Prune, Pruned, Request, Restorable, Verify,
};
use serde::Serialize;
use std::collections::BTreeSet;
use std::time::Duration;

/// Back guests up to a repository outside the cluster, check and prune it, and restore guests from it.
#[derive(Debug, Args)]
pub struct BackupArgs {
    #[command(subcommand)]
    command: BackupCommand,
}

#[derive(Debug, Subcommand)]
enum BackupCommand {
    Init(InitArgs),
    Run(RunArgs),
    List(ListArgs),
    Show(ShowArgs),
    Check(CheckArgs),
    Verify(VerifyArgs),
    Prune(PruneArgs),
    Restore(RestoreArgs),
}

/// Begin to use a repository: its directory is made one, and the cluster knows it from then on.
///
/// A directory that is another repository than the one the cluster knows, or none because its file system is not mounted, is
/// refused by the other commands.
#[derive(Debug, Args)]
struct InitArgs {
    /// Repository of the inventory; the only one where none is named.
    #[arg(long, value_name = "REPOSITORY")]
    to: Option<String>,
}

/// Back guests up: what changed since the last time, or everything the first time.
///
/// A point is complete in the repository, or it is not there. Its disks are as after a power cut; the guest goes on running. It
/// is neither moved nor deleted meanwhile.
#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    selection: GuestNames,
    /// Repository of the inventory; the only one where none is named.
    #[arg(long, value_name = "REPOSITORY")]
    to: Option<String>,
    /// Store everything, not only what changed.
    #[arg(long)]
    full: bool,
    /// How many guests are backed up at a time.
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    parallel: u16,
}

/// A repository to look at.
#[derive(Debug, Args)]
struct From {
    /// Repository of the inventory; the only one where none is named.
    #[arg(long, value_name = "REPOSITORY")]
    from: Option<String>,
}

/// List the restore points of guests, also of those that the cluster does not know any more.
#[derive(Debug, Args)]
struct ListArgs {
    /// Name or UUID of the guest; all guests where none is named.
    guest: Option<String>,
    #[command(flatten)]
    from: From,
}

/// Show a restore point: its disks, its chain, and the guest's definition.
#[derive(Debug, Args)]
struct ShowArgs {
    /// Name or UUID of the guest, with the point as GUEST@POINT; else its newest.
    guest: String,
    #[command(flatten)]
    from: From,
}

/// Check that every guest has a restorable point that is young enough; exit 4 and a table where not.
#[derive(Debug, Args)]
struct CheckArgs {
    /// How old the newest restorable point may be.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "26h", value_name = "DURATION")]
    max_age: Duration,
    #[command(flatten)]
    from: From,
}

/// Read points back and compare them with their checksums; exit 4 where something is damaged.
#[derive(Debug, Args)]
struct VerifyArgs {
    /// Name or UUID of the guest; all guests where none is named.
    guest: Option<String>,
    /// Share of the data to read, in percent.
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = percent, conflicts_with = "all")]
    sample: f64,
    /// Read everything.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    from: From,
}

/// Remove the points that are not to be kept; what newer points need of them is merged into those first.
///
/// The newest point of a guest always stays.
#[derive(Debug, Args)]
struct PruneArgs {
    /// Name or UUID of the guest; all guests where none is named.
    guest: Option<String>,
    /// Keep so many of the newest points.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    keep_last: u32,
    /// Keep the newest point of so many hours.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    keep_hourly: u32,
    /// Keep the newest point of so many days.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    keep_daily: u32,
    /// Keep the newest point of so many weeks.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    keep_weekly: u32,
    /// Keep the newest point of so many months.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    keep_monthly: u32,
    /// Keep the newest point of so many years.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    keep_yearly: u32,
    /// Remove no point that is younger than this.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "0s", value_name = "DURATION")]
    min_age: Duration,
    #[command(flatten)]
    from: From,
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse().ok();
    number.filter(|n| *n > 0.0 && *n <= 100.0).ok_or_else(|| format!("`{text}` is not a share; write for example 5%"))
}

impl BackupArgs {
    /// Whether it changes nothing.
    pub(super) fn only_looks(&self) -> bool {
        matches!(
            self.command,
            BackupCommand::List(_) | BackupCommand::Show(_) | BackupCommand::Check(_) | BackupCommand::Verify(_)
        )
    }
}

/// Runs `rackhand backup ...`.
///
/// # Errors
/// What the command itself reports.
pub async fn run(args: BackupArgs, context: &Context) -> Result<(), Failure> {
    match args.command {
        BackupCommand::Init(args) => init(args, context).await,
        BackupCommand::Run(args) => back_up(args, context).await,
        BackupCommand::List(args) => list(args, context).await,
        BackupCommand::Show(args) => show(args, context).await,
        BackupCommand::Check(args) => check(args, context).await,
        BackupCommand::Verify(args) => verify(args, context).await,
        BackupCommand::Prune(args) => prune(args, context).await,
        BackupCommand::Restore(args) => backup_restore::run(args, context).await,
    }
}

async fn init(args: InitArgs, context: &Context) -> Result<(), Failure> {
    let rack = context.cluster().await?;
    let repository = Repository::of(&rack.inventory, args.to.as_deref())?;
    let (name, path) = (&repository.name, repository.path.display());
    if context.would("begin to use", &[format!("{path} as backup repository {name}")])? {
        return Ok(());
    }
    if repository.replaces(rack.port()).await? {
        let plan = format!(
            "The cluster knows another repository as {name}. It may only not be mounted. With {path} in its place all guests \
             are stored anew."
        );
        context.agree(&plan, &format!("use {path} in its place?")).await?;
    }
    repository.begin(rack.port()).await?;
    context.ui.note(format!("{path} is backup repository {name} of this cluster"));
    Ok(())
}

/// What came of a guest's backup.
#[derive(Serialize)]
struct Outcome {
    guest: String,
    outcome: &'static str,
    point: Option<Backed>,
    reason: Option<String>,
}

#[derive(Serialize)]
struct Outcomes {
    guests: Vec<Outcome>,
}

async fn back_up(args: RunArgs, context: &Context) -> Result<(), Failure> {
    let rack = context.cluster().await?;
    let repository = Repository::of(&rack.inventory, args.to.as_deref())?;
    let guests = args.selection.resolve(&rack).await?;
    if context.global.dry_run {
        return would_back_up(context, &rack, &repository, &guests, args.full).await;
    }
    repository.known(rack.port()).await?;
    let made = run_backups(&rack, &repository, &guests, args.full, args.parallel.into()).await;
    let outcome = |(guest, result): &(String, Result<Backed, Failure>)| Outcome {
        guest: guest.clone(),
        outcome: if result.is_ok() { "done" } else { "failed" },
        point: result.as_ref().ok().cloned(),
        reason: result.as_ref().err().map(ToString::to_string),
    };
    let outcomes = Outcomes { guests: made.iter().map(outcome).collect() };
    if context.ui.wants_json() {
        context.ui.result("rackhand.backup-run/1", &outcomes, |_| String::new())?;
    }
    conclude("back up", made).map(drop)
}

async fn would_back_up(
    context: &Context,
    rack: &GuestContext,
    repository: &Repository,
    guests: &[Guest],
    full: bool,
) -> Result<(), Failure> {
    let mut names = Vec::new();
    for guest in guests {
        let base = plan(rack, repository, guest).await?.filter(|_| !full);
        names.push(match base {
            Some(base) => format!("{} to {}, what changed since {base}", guest.name, repository.name),
            None => format!("{} to {}, everything", guest.name, repository.name),
        });
    }
    context.would("back up", &names).map(drop)
}

#[derive(Serialize)]
struct Points {
    repository: String,
    points: Vec<PointSummary>,
}

impl Points {
    /// The UUID of the guest that is named, if one is.
    fn the_guest(&self, name: Option<&str>) -> Result<Option<String>, Failure> {
        let Some(name) = name else { return Ok(None) };
        let guests: BTreeSet<&String> = self.points.iter().map(|point| &point.guest).collect();
        match guests.len() {
            0 | 1 => Ok(guests.into_iter().next().cloned()),
            _ => Err(several(name, guests)),
        }
    }

    fn table(&self) -> String {
        let mut table = Table::new(["guest", "point", "kind", "consistency", "size", "stored", "chain", "problem"]);
        for point in &self.points {
            let consistency = format!("{:?}", point.consistency).to_lowercase();
            table.row([
                point.name.clone(),
                point.point.clone(),
                kind(point.kind).to_owned(),
                consistency,
                HumanBytes(point.image_bytes).to_string(),
                HumanBytes(point.stored_bytes).to_string(),
                point.chain.to_string(),
                point.problem.clone().unwrap_or_default(),
            ]);
        }
        table.render()
    }
}

fn kind(kind: PointKind) -> &'static str {
    match kind {
        PointKind::Full => "full",
        PointKind::Incremental => "incremental",
        PointKind::Synthetic => "synthetic",
    }
}

/// The inventory's repository and the points of one guest, or of all.
async fn points_of(inventory: &Inventory, from: &From, guest: Option<&str>) -> Result<(Repository, Points), Failure> {
    let repository = Repository::of(inventory, from.from.as_deref())?;
    let mut points = repository.points(&Target::default()).await?;
    if let Some(guest) = guest {
        points.retain(|point| point.name == guest || point.guest == guest);
        if points.is_empty() {
            return Err(Failure::usage(format!("repository {} has no point of guest {guest}", repository.name))
                .hint("see what it has with `rackhand backup list`"));
        }
    }
    let points = Points { repository: repository.name.clone(), points };
    Ok((repository, points))
}

async fn list(args: ListArgs, context: &Context) -> Result<(), Failure> {
    let (_, points) = points_of(&context.inventory()?, &args.from, args.guest.as_deref()).await?;
    context.ui.result("rackhand.backup-list/1", &points, Points::table)
}

async fn show(args: ShowArgs, context: &Context) -> Result<(), Failure> {
    let (guest, wanted) = match args.guest.split_once('@') {
        Some((guest, point)) => (guest, Some(point)),
        None => (args.guest.as_str(), None),
    };
    let (repository, points) = points_of(&context.inventory()?, &args.from, Some(guest)).await?;
    points.the_guest(Some(guest))?;
    let mut points = points.points.into_iter().filter(|p| wanted.is_none_or(|wanted| p.point == wanted));
    let found = points.next().map(|first| points.fold(first, |a, b| if b.point > a.point { b } else { a }));
    let found = found.ok_or_else(|| {
        Failure::usage(format!("guest {guest} has no such point"))
            .hint(format!("see its points with `rackhand backup list {guest}`"))
    })?;
    let at = PointPath {
        repository: repository.path.clone(),
        cluster: found.cluster,
        guest: found.guest,
        point: found.point,
    };
    match repository.ask(Request::Show(at), None).await? {
        Done::Show(shown) => context.ui.result("rackhand.backup-point/1", &shown, |shown| {
            let mut text = format!("point      {}\nguest      {}\n", shown.point.point, shown.point.name);
            text += &format!("kind       {}\nchain      {}\n", kind(shown.point.kind), shown.chain.join(", "));
            for disk in &shown.manifest.disks {
                let (size, stored) = (HumanBytes(disk.size), HumanBytes(disk.file_bytes));
                text += &format!("disk {}     {} of {size}, {stored} stored\n", disk.index, disk.image);
            }
            text + &format!("directory  {}", shown.directory.display())
        }),
        _ => Err(Failure::failed("the repository answered something else")),
    }
}

#[derive(Serialize)]
struct Checked {
    repository: String,
    max_age_seconds: u64,
    guests: Vec<Age>,
}

async fn check(args: CheckArgs, context: &Context) -> Result<(), Failure> {
    let rack = context.cluster().await?;
    let repository = Repository::of(&rack.inventory, args.from.from.as_deref())?;
    let guests = rack.guests().await?;
    repository.known(rack.port()).await?;
    let cluster = Some(rack.inventory.cluster.fsid.to_string());
    let points = repository.points(&Target { cluster, guest: None }).await?;
    let named = guests.iter().map(|guest| (guest.name.as_str(), guest.uuid));
    let guests = ages(named, &points, Timestamp::now(), args.max_age);
    let late = guests.iter().filter(|age| age.verdict != Verdict::Ok).count();
    let (all, max_age_seconds) = (guests.len(), args.max_age.as_secs());
    let checked = Checked { repository: repository.name, max_age_seconds, guests };
    if late > 0 || !context.global.quiet || context.ui.wants_json() {
        context.ui.result("rackhand.backup-check/1", &checked, |checked| {
            let mut table = Table::new(["guest", "verdict", "point", "age", "problem"]);
            for age in &checked.guests {
                let seconds = age.age_seconds.map(|s| humantime::format_duration(Duration::from_secs(s)).to_string());
                table.row([
                    age.guest.clone(),
                    format!("{:?}", age.verdict).to_lowercase(),
                    age.point.clone().unwrap_or_default(),
                    seconds.unwrap_or_default(),
                    age.problem.clone().unwrap_or_default(),
                ]);
            }
            table.render()
        })?;
    }
    if late == 0 {
        return Ok(());
    }
    let limit = humantime::format_duration(args.max_age);
    Err(Failure::msg(Kind::Problem, format!("{late} of {all} guests have no restorable point younger than {limit}"))
        .hint("back them up with `rackhand backup run`"))
}

#[derive(Serialize)]
struct Found {
    repository: String,
    points: usize,
    frames: u64,
    bytes: u64,
    damages: Vec<Damage>,
    restorable: Vec<Restorable>,
}

async fn verify(args: VerifyArgs, context: &Context) -> Result<(), Failure> {
    let (repository, points) = points_of(&context.inventory()?, &args.from, args.guest.as_deref()).await?;
    if points.points.is_empty() {
        let text = format!("repository {} has no points: there is nothing to verify", repository.name);
        return Err(Failure::msg(Kind::Problem, text).hint("back guests up with `rackhand backup run`"));
    }
    let guest = points.the_guest(args.guest.as_deref())?;
    let selection = repository.selection(&Target { cluster: None, guest });
    let depth = if args.all { Depth::All } else { Depth::Sample(args.sample) };
    let job = context.ui.job(format!("verify repository {}", repository.name));
    let request = Request::Verify(Verify { selection, point: None, depth, seed: None });
    let verified = match repository.ask(request, Some(&job)).await {
        Ok(Done::Verify(verified)) => verified,
        Ok(_) => return Err(Failure::failed("the repository answered something else")),
        Err(failure) => {
            job.fail(failure.to_string());
            return Err(failure);
        }
    };
    let (damaged, points) = (verified.damages.len(), verified.points);
    job.done(format!("{points} points, {} read", HumanBytes(verified.bytes)));
    let found = Found {
        repository: repository.name,
        points,
        frames: verified.frames,
        bytes: verified.bytes,
        damages: verified.damages,
        restorable: verified.restorable,
    };
    if damaged > 0 || context.ui.wants_json() {
        context.ui.result("rackhand.backup-verify/1", &found, |found| {
            let mut table = Table::new(["guest", "point", "damage"]);
            for damage in &found.damages {
                table.row([damage.guest.clone(), damage.point.clone(), damage.message.clone()]);
            }
            table.render()
        })?;
    }
    match damaged {
        0 => Ok(()),
        _ => Err(Failure::msg(Kind::Problem, format!("{damaged} damages in {points} points"))
            .hint("store the guests' disks anew with `rackhand backup run --full`")),
    }
}

async fn prune(args: PruneArgs, context: &Context) -> Result<(), Failure> {
    let (repository, points) = points_of(&context.inventory()?, &args.from, args.guest.as_deref()).await?;
    let keep = Keep {
        last: args.keep_last,
        hourly: args.keep_hourly,
        daily: args.keep_daily,
        weekly: args.keep_weekly,
        monthly: args.keep_monthly,
        yearly: args.keep_yearly,
    };
    if keep == Keep::default() {
        return Err(Failure::usage("nothing says what to keep").hint("for example: --keep-daily 7 --keep-weekly 5"));
    }
    if points.points.is_empty() {
        context.ui.note(format!("repository {} has no points", repository.name));
        return Ok(());
    }
    let guest = points.the_guest(args.guest.as_deref())?;
    let request = |dry_run| {
        let selection = repository.selection(&Target { cluster: None, guest: guest.clone() });
        let (minimum_age, owner) = (args.min_age.as_secs(), Some("a prune".to_owned()));
        Request::Prune(Prune { selection, keep, minimum_age, merge_after: None, dry_run, owner })
    };
    let planned = pruned(repository.ask(request(true), None).await?)?;
    let removed: usize = planned.guests.iter().map(|guest| guest.removed.len()).sum();
    if context.global.dry_run || removed == 0 {
        return context.ui.result("rackhand.backup-prune/1", &planned, prune_table);
    }
    context.agree(&prune_table(&planned), &format!("remove {removed} points?")).await?;
    let job = context.ui.job(format!("prune repository {}", repository.name));
    let result = repository.ask(request(false), Some(&job)).await.and_then(pruned);
    job.conclude(&result, |_| (crate::ui::Outcome::Done, format!("{removed} points removed")));
    let done = result?;
    if context.ui.wants_json() {
        context.ui.result("rackhand.backup-prune/1", &done, |_| String::new())?;
    }
    let skipped: Vec<String> =
        done.guests.iter().filter_map(|g| Some(format!("{}: {}", g.name, g.skipped.as_ref()?))).collect();
    match skipped.is_empty() {
        true => Ok(()),
        false => Err(Failure::msg(Kind::Partial, format!("not pruned: {}", skipped.join("; ")))),
    }
}

fn pruned(done: Done) -> Result<Pruned, Failure> {
    match done {
        Done::Prune(pruned) => Ok(pruned),
        _ => Err(Failure::failed("the repository answered something else")),
    }
}

/// What stays and why, and what goes.
fn prune_table(pruned: &Pruned) -> String {
    let mut table = Table::new(["guest", "point", "", "why"]);
    for guest in &pruned.guests {
        for kept in &guest.kept {
            table.row([guest.name.clone(), kept.point.clone(), "keep".to_owned(), kept.reasons.join(", ")]);
        }
        for point in &guest.removed {
            table.row([guest.name.clone(), point.clone(), "remove".to_owned(), String::new()]);
        }
    }
    table.render()
}
