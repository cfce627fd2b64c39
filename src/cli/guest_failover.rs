//! `rackhand guest failover`.

use super::Context;
use super::guest_run::{dry, end};
use super::guest_selection::GuestSelection;
use crate::error::Failure;
use crate::guest::{self, FailoverPolicy};
use clap::Args;

/// Set what is proven of a lost host before a guest starts elsewhere.
///
/// With `data-safe` the storage refuses the lost host, which makes the guest's disks safe. With `strict` the host is proven to
/// be off as well, so that nothing of the guest is left in the network either: it stays down for as long as its host's BMC
/// does not answer.
#[derive(Debug, Args)]
pub struct FailoverPolicyArgs {
    /// `data-safe` or `strict`.
    #[arg(value_enum, value_name = "POLICY")]
    policy: FailoverPolicy,
    #[command(flatten)]
    selection: GuestSelection,
}

/// Runs `rackhand guest failover`.
///
/// # Errors
/// When a guest cannot be changed.
pub async fn run(args: FailoverPolicyArgs, context: &Context) -> Result<(), Failure> {
    let rack = context.cluster().await?;
    let guests = args.selection.resolve(&rack).await?;
    let strict = args.policy == FailoverPolicy::Strict;
    if dry(context, if strict { "make strict" } else { "make data-safe" }, &guests)? {
        return Ok(());
    }
    let set = guest::set_failover(&rack, &guests, args.policy).await;
    end(context, "change", set, |guest| {
        (if guest.failover == FailoverPolicy::Strict { "strict" } else { "data-safe" }, None)
    })
}
