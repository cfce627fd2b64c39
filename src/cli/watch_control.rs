//! `rackhand watch status`, `disarm` and `arm`.

use super::Context;
use super::watch_words::{phase, short};
use crate::cluster::{ClusterPort, Lease, fetch};
use crate::error::{Failure, Kind};
use crate::watch::driver::{Disarmed, LEASE, WatchStatus};
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Time between two looks at a lease.
const LOOK: Duration = Duration::from_millis(200);
/// A leader renews its lease nine times a term; three of these are long enough to see it.
const PART_OF_TERM: u32 = 3;

/// Show who leads the watch, since when, and whether it may act; exit 4 when no watcher leads.
#[derive(Debug, Args)]
pub struct StatusArgs {}

/// Let the watch look and tell, and not act, for a time.
///
/// The time counts while watchers run, by their own clocks: a machine whose clock is wrong neither arms nor disarms.
#[derive(Debug, Args)]
pub struct DisarmArgs {
    /// For how long.
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    length: Duration,
    /// Reason, told by all watchers and shown by `rackhand watch status`.
    #[arg(long)]
    reason: String,
}

/// Let the watch act again.
#[derive(Debug, Args)]
pub struct ArmArgs {}

/// Who holds the watchers' lease.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Leader {
    /// Its name.
    pub(super) holder: String,
    /// How often the lease went to another one so far.
    pub(super) generation: u64,
    /// Whether it was seen renewing the lease just now.
    pub(super) alive: bool,
}

/// Who leads; waits until it was seen to renew its lease, or should have.
pub(super) async fn leader(port: &dyn ClusterPort) -> Result<Option<Leader>, Failure> {
    let Some((first, _)) = fetch::<Lease>(port, LEASE).await?.filter(|(lease, _)| lease.is_held()) else {
        return Ok(None);
    };
    let began = Instant::now();
    while began.elapsed() < first.term() / PART_OF_TERM {
        sleep(LOOK).await;
        match fetch::<Lease>(port, LEASE).await?.filter(|(lease, _)| lease.is_held()) {
            Some((lease, _)) if lease != first => {
                return Ok(Some(Leader { holder: lease.holder, generation: lease.generation, alive: true }));
            }
            Some(_) => {}
            None => return Ok(None),
        }
    }
    Ok(Some(Leader { holder: first.holder, generation: first.generation, alive: false }))
}

/// How the watch stands.
#[derive(Debug, Serialize)]
struct Standing {
    /// Who leads.
    leader: Option<Leader>,
    /// Since when, by its own clock.
    since: Option<Timestamp>,
    /// Whether the watch may act.
    armed: bool,
    /// What holds it back.
    disarmed: Option<DisarmedView>,
    /// How long a host may be silent, in milliseconds.
    patience_ms: Option<u64>,
    /// Hosts whose hearts beat, as the leader sees it.
    healthy: Option<usize>,
    /// Hosts in all.
    hosts: Option<usize>,
    /// Incidents that are open, by host.
    incidents: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct DisarmedView {
    reason: String,
    by: String,
    since: Timestamp,
    left_s: u64,
}

impl Standing {
    fn lines(&self) -> String {
        let mut lines = Vec::new();
        let since = self.since.map_or(String::new(), |since| format!(", since {since:.0}"));
        lines.push(match &self.leader {
            Some(leader) if leader.alive => format!("{} leads{since}", short(&leader.holder)),
            Some(leader) => format!("NO watcher leads: {} has stopped renewing its lease", short(&leader.holder)),
            None => "NO watcher leads".to_owned(),
        });
        lines.push(match &self.disarmed {
            Some(view) => {
                let left = humantime::format_duration(Duration::from_secs(view.left_s));
                format!("DISARMED by {} for {left} more: {}", view.by, view.reason)
            }
            None => "armed".to_owned(),
        });
        if let (Some(healthy), Some(hosts), Some(patience)) = (self.healthy, self.hosts, self.patience_ms) {
            lines.push(format!("{healthy} of {hosts} hosts beat, with a patience of {patience} ms"));
        }
        lines.extend(self.incidents.iter().map(|(host, phase)| format!("{host}: {phase}")));
        lines.join("\n")
    }
}

/// Runs `rackhand watch status`.
///
/// # Errors
/// Exit 4 when no watcher leads.
pub async fn status(_: &StatusArgs, context: &Context) -> Result<(), Failure> {
    let rack = context.cluster().await?;
    let port = rack.port();
    let leader = leader(port).await?;
    let said = WatchStatus::read(port).await?;
    let said = said.filter(|said| leader.as_ref().is_some_and(|leader| leader.holder == said.holder));
    let disarmed = Disarmed::read(port).await?;
    let alive = leader.as_ref().is_some_and(|leader| leader.alive);
    let standing = Standing {
        since: said.as_ref().map(|said| said.since),
        armed: disarmed.is_none(),
        disarmed: disarmed.map(|d| DisarmedView {
            left_s: d.left().as_secs(),
            reason: d.reason,
            by: d.by,
            since: d.since,
        }),
        patience_ms: said.as_ref().map(|said| said.patience_ms),
        healthy: said.as_ref().map(|said| said.healthy),
        hosts: said.as_ref().map(|said| said.hosts),
        incidents: said.into_iter().flat_map(|said| said.incidents).map(|(host, at)| (host, phase(at))).collect(),
        leader,
    };
    context.ui.result("rackhand.watch/1", &standing, Standing::lines)?;
    match alive {
        true => Ok(()),
        false => Err(Failure::msg(Kind::Problem, "no watcher leads: a host that dies is not recovered")
            .hint("run `rackhand watch` on a machine that stays up")),
    }
}

/// Runs `rackhand watch disarm`.
///
/// # Errors
/// When the time is zero or the cluster cannot be asked.
pub async fn disarm(args: DisarmArgs, context: &Context) -> Result<(), Failure> {
    if args.length.is_zero() {
        return Err(Failure::usage("--for 0s disarms nothing").hint("write for example --for 2h"));
    }
    if context.would("disarm", &["watch"])? {
        return Ok(());
    }
    let rack = context.cluster().await?;
    let length = humantime::format_duration(args.length);
    let disarmed = Disarmed::new(args.length, args.reason, rack.run.by.clone());
    disarmed.write(rack.port()).await?;
    context.ui.note(format!("the watch tells and does not act for {length}; end it with `rackhand watch arm`"));
    context.did("disarm", "watch", true)
}

/// Runs `rackhand watch arm`.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn arm(_: &ArmArgs, context: &Context) -> Result<(), Failure> {
    if context.would("arm", &["watch"])? {
        return Ok(());
    }
    let rack = context.cluster().await?;
    let changed = Disarmed::arm(rack.port(), None).await?;
    let already = if changed { "" } else { " already" };
    context.ui.note(format!("the watch may act{already}"));
    context.did("arm", "watch", changed)
}
