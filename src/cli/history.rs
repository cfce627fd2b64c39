//! `rackhand history`.

use super::Context;
use crate::error::Failure;
use crate::ui::Table;
use crate::watch::history::{self, Entry};
use clap::Args;
use serde::Serialize;

/// Show which commands changed something: who gave them, from where, and what came of them.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// A host, a guest, an image or a network; all when none is given.
    object: Option<String>,
    /// At most so many, the latest ones.
    #[arg(long, default_value_t = 50, value_name = "COUNT")]
    last: usize,
}

#[derive(Serialize)]
struct History {
    entries: Vec<Entry>,
}

/// Runs `rackhand history`.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn run(args: &HistoryArgs, context: &Context) -> Result<(), Failure> {
    let rack = context.cluster().await?;
    let mut entries = history::read(rack.port(), args.object.as_deref()).await?;
    let surplus = entries.len().saturating_sub(args.last);
    entries.drain(..surplus);
    context.ui.result("rackhand.history/1", &History { entries }, |history| table(&history.entries))
}

fn table(entries: &[Entry]) -> String {
    if entries.is_empty() {
        return "no commands".to_owned();
    }
    let mut table = Table::new(["when", "who", "command", "took", "outcome"]).right(3);
    for entry in entries {
        let words = [std::slice::from_ref(&entry.command), &entry.objects, &entry.flags].concat();
        let from = entry.from.as_ref().map(|from| format!(" from {from}")).unwrap_or_default();
        table.row([
            entry.at.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
            format!("{}{from}", entry.by),
            words.join(" "),
            format!("{}.{} s", entry.took_ms / 1000, entry.took_ms % 1000 / 100),
            entry.outcome.clone(),
        ]);
    }
    table.render()
}
