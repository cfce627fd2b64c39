//! `rackhand readmit`.

use super::Context;
use crate::error::Failure;
use crate::fence;
use crate::watch::{Readmitted, readmit, storage_addresses};
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
    let host = &args.host;
    let Some(spec) = rack.inventory.host(host) else {
        return Err(Failure::usage(format!("the inventory has no host `{host}`")));
    };
    let why = match fence::records(rack.port()).await?.get(host) {
        Some(record) => format!("{host} is fenced since {} by {}: {}", record.since, record.by, record.why),
        None if fence::was_begun(rack.port(), host, &storage_addresses(spec)).await? => {
            format!("the storage refuses {host}: a fence of it was begun and not finished")
        }
        None => return Err(Failure::refused(format!("{host} is not fenced"))),
    };
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
