//! `rackhand fence run`.

use super::Context;
use super::failover::unless_it_lives;
use crate::error::Failure;
use crate::fence;
use crate::watch::HostLoss;
use clap::Args;
use std::time::Duration;

/// How long switching a host off may take; the slowest BMCs take half of it.
const OFF: Duration = Duration::from_secs(40);

/// Shut a lost host out of the storage, and switch it off; its guests stay where they are.
///
/// The storage is enough to make sure that it writes no more. Its BMC is ordered at the same time, if it has the service
/// tag that the host told at the last `rackhand fence test`. `rackhand failover` starts the guests elsewhere.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The host.
    #[arg(value_name = "HOST")]
    host: String,
    /// Why, for the record.
    #[arg(long, value_name = "TEXT", default_value = "declared lost by an operator")]
    reason: String,
    /// Do it although the host answers: its guests lose their disks at once.
    #[arg(long)]
    even_if_it_answers: bool,
    /// Leave its power alone.
    #[arg(long)]
    storage_only: bool,
}

/// Runs `rackhand fence run`.
///
/// # Errors
/// Exit 5 when the host answers, 6 when it cannot be told whether it is shut out.
pub async fn run(args: RunArgs, context: &Context) -> Result<(), Failure> {
    let rack = context.rack_as_it_is()?;
    let host = &args.host;
    if rack.inventory.host(host).is_none() {
        return Err(Failure::usage(format!("the inventory has no host `{host}`")));
    }
    rack.port().avoid(host).await;
    if !args.even_if_it_answers {
        unless_it_lives(&rack, host).await?;
    }
    if context.would("fence", &[host])? {
        return Ok(());
    }
    context.confirm(&format!("shut {host} out of the storage and switch it off?")).await?;
    let loss = HostLoss { rack: &rack, host, why: &args.reason };
    let storage = async {
        let job = context.ui.job(format!("shut {host} out of the storage"));
        loss.nudge().await?;
        let fenced = loss.fence(None, |_| ()).await;
        job.conclude(&fenced, |record| {
            (crate::ui::Outcome::Done, format!("refused since map {}", record.proof.epoch()))
        });
        fenced
    };
    let power = async {
        if args.storage_only {
            return None;
        }
        let job = context.ui.job(format!("switch {host} off"));
        let proof = loss.switch_off(OFF).await;
        job.conclude(&proof, |proof| (crate::ui::Outcome::Done, proof.by().to_owned()));
        proof.ok()
    };
    let (record, power) = tokio::join!(storage, power);
    let record = record?;
    if let Some(power) = power
        && !fence::add_power(rack.port(), &record, &power).await?
    {
        context
            .ui
            .warn(format!("that {host} is off was not written down: its fence was lifted or made anew meanwhile"));
    }
    loss.close_gates(&record).await;
    context.did("fence", host, true)
}
