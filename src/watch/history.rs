//! What was done to the rack, by whom and from where: an entry for every command that changes something.

use crate::cluster::{ClusterError, ClusterPort, Keys, KeysChange};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// The state object with the entries, a key each.
const OBJECT: &str = "history";
/// Entries that are kept; the oldest go.
const ENTRIES: usize = 10_000;
/// Of how many entries one looks whether some have to go: all of them are read for that.
const TRIM_EVERY: u128 = 256;
/// How long writing an entry may hold a command up.
const WRITE: Duration = Duration::from_secs(1);
/// Longest entry; a list of objects is cut at it.
const OBJECTS: usize = 50;

/// A command that changed something, or tried to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Entry {
    /// When it ended.
    pub at: Timestamp,
    /// Who gave it, on which machine.
    pub by: String,
    /// Where that person was logged in from, if over SSH.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The command, in the words of the command line.
    pub command: String,
    /// What it was about, as it was written: names and globs. Nothing else of the command line is kept.
    pub objects: Vec<String>,
    /// Names of the flags that were given, without their values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// `done`, or how it failed.
    pub outcome: String,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// Writes an entry. It takes a second at most, and whether it worked is nobody's concern but the log's.
pub async fn write(port: &dyn ClusterPort, mut entry: Entry) {
    entry.objects.truncate(OBJECTS);
    match tokio::time::timeout(WRITE, add(port, &entry)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::info!(%error, "the history has no entry of this command"),
        Err(_) => tracing::info!("the history has no entry of this command: the cluster was too slow"),
    }
}

async fn add(port: &dyn ClusterPort, entry: &Entry) -> Result<(), ClusterError> {
    let id = Uuid::new_v4();
    let text = serde_json::to_string(entry).map_err(|error| ClusterError::Malformed(error.to_string()))?;
    // Sorted by time; two of the same moment differ in the rest.
    let key = format!("{:015} {id}", entry.at.as_millisecond().max(0));
    port.change_keys(OBJECT, &KeysChange::default().add(key, text)).await?;
    if id.as_u128().is_multiple_of(TRIM_EVERY) {
        trim(port, port.keys(OBJECT).await?).await?;
    }
    Ok(())
}

/// Removes the oldest entries above the bound.
async fn trim(port: &dyn ClusterPort, keys: Keys) -> Result<(), ClusterError> {
    let surplus = keys.len().saturating_sub(ENTRIES);
    if surplus == 0 {
        return Ok(());
    }
    let remove = keys.into_keys().take(surplus).collect();
    port.change_keys(OBJECT, &KeysChange { remove, ..KeysChange::default() }).await
}

/// The entries, the oldest first; of one object where `object` names one. An entry that cannot be read is left out.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn read(port: &dyn ClusterPort, object: Option<&str>) -> Result<Vec<Entry>, ClusterError> {
    let keys = port.keys(OBJECT).await?;
    let entries = keys.into_values().filter_map(|text| serde_json::from_str::<Entry>(&text).ok());
    Ok(entries.filter(|entry| object.is_none_or(|object| concerns(entry, object))).collect())
}

/// Whether an entry is about an object, by its name or by a glob that means it.
fn concerns(entry: &Entry, object: &str) -> bool {
    let means = |pattern: &String| {
        pattern == object || globset::Glob::new(pattern).is_ok_and(|glob| glob.compile_matcher().is_match(object))
    };
    entry.objects.iter().any(means)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::FakeCluster;
    use tokio::time::Instant;

    fn entry(second: i64, objects: &[&str]) -> Entry {
        Entry {
            at: Timestamp::from_second(second).unwrap(),
            by: "ann@desk".into(),
            from: None,
            command: "guest stop".into(),
            objects: objects.iter().map(|name| (*name).to_owned()).collect(),
            flags: Vec::new(),
            outcome: "done".into(),
            took_ms: 5,
        }
    }

    #[tokio::test]
    async fn entries_are_read_in_their_order_and_by_what_they_are_about() {
        let port = FakeCluster::new();
        for entry in [entry(30, &["db"]), entry(10, &["web-1", "web-2"]), entry(20, &["web-*"])] {
            write(&port, entry).await;
        }
        let seconds = async |object| -> Vec<i64> {
            read(&port, object).await.unwrap().iter().map(|entry| entry.at.as_second()).collect()
        };
        assert_eq!(seconds(None).await, [10, 20, 30]);
        assert_eq!(seconds(Some("web-2")).await, [10, 20]);
        assert_eq!(seconds(Some("web-9")).await, [20]);
        assert_eq!(seconds(Some("w")).await, Vec::<i64>::new());
    }

    #[tokio::test]
    async fn the_oldest_go() {
        let port = FakeCluster::new();
        let set = (0..ENTRIES + 30).map(|n| (format!("{n:015} x"), "{}".to_owned())).collect();
        port.change_keys(OBJECT, &KeysChange { set, ..KeysChange::default() }).await.unwrap();
        trim(&port, port.keys(OBJECT).await.unwrap()).await.unwrap();
        let keys = port.keys(OBJECT).await.unwrap();
        assert_eq!((keys.len(), keys.keys().next().map(String::as_str)), (ENTRIES, Some("000000000000030 x")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_cluster_that_does_not_answer_costs_a_second_and_no_failure() {
        let port = FakeCluster::new();
        port.slow(Duration::from_secs(30));
        let began = Instant::now();
        write(&port, entry(1, &[])).await;
        assert_eq!(began.elapsed(), WRITE);
        port.slow(Duration::ZERO);
        port.breaks(Some(ClusterError::NoQuorum("x".into())));
        write(&port, entry(1, &[])).await;
    }
}
