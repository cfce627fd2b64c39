//! `rackhand readmit`.

use super::Context;
use crate::error::Failure;
use crate::fence;
use crate::watch::{Readmitted, readmit};
use clap::Args;

/// Let a fenced host in again, once nothing is left of what it ran.
///
/// Copies of guests that are left on it are ended there and seen gone; only then the storage takes its clients again, and it
/// takes guests again.
#[derive(Debug, Args)]
pub struct ReadmitArgs {
    /// The host.
    #[arg(value_name = "HOST")]
    host: String,
}

/// Runs `rackhand readmit`.
///
/// # Errors
/// Exit 5 when the host is not fenced or does not tell what it runs, 1 when a copy there does not end.
pub async fn run(args: ReadmitArgs, context: &Context) -> Result<(), Failure> {
    let rack = context.cluster().await?;
    let records = fence::records(rack.port()).await?;
    let Some(record) = records.get(&args.host) else {
        return Err(Failure::refused(format!("{} is not fenced", args.host)));
    };
    let why = format!("{} is fenced since {} by {}: {}", args.host, record.since, record.by, record.why);
    if context.would("readmit", &[&args.host])? {
        context.ui.note(why);
        return Ok(());
    }
    context.agree(&why, &format!("end what is left of its guests there, and let {} in again?", args.host)).await?;
    let done = readmit(&rack, &args.host).await?;
    context.ui.result("rackhand.readmitted/1", &done, render)
}

fn render(done: &Readmitted) -> String {
    let mut lines = vec![format!("{} takes part again", done.host)];
    if !done.ended.is_empty() {
        lines.push(format!("copies ended there: {}", done.ended.join(", ")));
    }
    if !done.freed.is_empty() {
        lines.push(format!("guests that run nowhere now: {}", done.freed.join(", ")));
    }
    lines.join("\n") + "\n"
}
