//! What `migrate`, `evacuate` and `return` have in common.

use super::Context;
use crate::error::{Failure, Kind};
use crate::guest::GuestContext;
use crate::movement::{GuestResult, Options, Plan, Report, link, rehearse};
use crate::ui::CancelLevel;
use clap::Args;
use serde::Serialize;
use std::time::Duration;
use tokio::sync::watch;

/// How guests are moved.
#[derive(Clone, Debug, Args)]
pub struct MoveArgs {
    /// Limit of the transfer of each guest, in MiB/s [default: what the link allows].
    #[arg(long, value_name = "MIB_PER_S", value_parser = clap::value_parser!(u64).range(1..))]
    bandwidth: Option<u64>,
    /// Longest pause of a guest; only guests that write faster than the link reach it.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    max_downtime: Duration,
}

const UNTOUCHED: &str = "nothing was done to these guests";

#[derive(Serialize)]
struct Outcome<'a> {
    plan: &'a Plan,
    guests: &'a [GuestResult],
    total_ms: u64,
}

impl MoveArgs {
    /// The rack, how guests are moved on it, and how much of a hurry the operator is in.
    ///
    /// # Errors
    /// When the inventory is wrong or the cluster cannot be asked.
    pub async fn begin(
        &self,
        context: &Context,
    ) -> Result<(GuestContext, Options, watch::Receiver<CancelLevel>), Failure> {
        let rack = context.rack().await?;
        let options = Options {
            bandwidth: self.bandwidth,
            max_downtime: self.max_downtime,
            link: link(&rack),
            deadline: context.global.deadline,
        };
        Ok((rack, options, context.ui.cancel_level()))
    }
}

/// Shows the plan as the result, for `--dry-run`: without the moves that could not begin.
pub async fn show(context: &Context, rack: &GuestContext, mut plan: Plan) -> Result<(), Failure> {
    rehearse(rack, &mut plan, link(rack)).await;
    let plan = &plan;
    context.ui.result("rackhand.movement-plan/1", plan, Plan::render)?;
    refusal(plan, 0).map_or(Ok(()), Err)
}

/// Shows the plan and asks.
pub async fn confirm(context: &Context, plan: &Plan, question: &str) -> Result<(), Failure> {
    context.agree(&plan.render(), question).await
}

/// Shows what came of it, and ends the command.
pub fn conclude(context: &Context, plan: &Plan, report: &Report) -> Result<(), Failure> {
    let outcome = Outcome { plan, guests: &report.guests, total_ms: report.total_ms };
    context.ui.result("rackhand.movement/1", &outcome, |_| {
        // Guests that are where they shall be are in nobody's report.
        std::iter::once(report.render())
            .chain(plan.unchanged.iter().map(ToString::to_string))
            .collect::<Vec<_>>()
            .join("\n")
    })?;
    match (report.failure(), refusal(plan, report.moved().count())) {
        (None, None) => Ok(()),
        (Some(failure), None) | (None, Some(failure)) => Err(failure),
        (Some(moves), Some(others)) => Err(both(moves, others)),
    }
}

/// Both failures in one; an unknown outcome outweighs all.
fn both(moves: Failure, others: Failure) -> Failure {
    let kind = if others.kind == Kind::Unknown { others.kind } else { moves.kind };
    let failure = Failure::msg(kind, format!("{moves}\n{others}"));
    moves.hints.iter().chain(&others.hints).fold(failure, Failure::hint)
}

/// The failure of guests that cannot move at all.
fn refusal(plan: &Plan, moved: usize) -> Option<Failure> {
    let lines: Vec<String> = plan.refused.iter().chain(&plan.unsettled).map(ToString::to_string).collect();
    let (kind, hint) = match (plan.unsettled.is_empty(), plan.refused.is_empty()) {
        (true, true) => return None,
        (true, false) if moved == 0 && plan.moves.is_empty() => (Kind::Refused, UNTOUCHED),
        (true, false) => (Kind::Partial, UNTOUCHED),
        (false, _) => {
            (Kind::Unknown, "bring the hosts named above back, or look there with `virsh list`; then run this again")
        }
    };
    Some(Failure::msg(kind, format!("cannot move {}", lines.join("; "))).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_can_tell_outweighs_what_is_partly_done() {
        let failure = both(
            Failure::msg(Kind::Partial, "1 of 2 guests did not move").hint("again"),
            Failure::msg(Kind::Unknown, "cannot move guest a").hint("look"),
        );
        assert_eq!((failure.kind, failure.hints.len()), (Kind::Unknown, 2));
        assert_eq!(failure.to_string(), "1 of 2 guests did not move\ncannot move guest a");
        let failure = both(Failure::failed("x"), Failure::refused("y"));
        assert_eq!(failure.kind, Kind::Failed);
    }
}
