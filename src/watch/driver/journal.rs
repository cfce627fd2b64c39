//! Write-ahead: what is about to be done is on disk here before it is done, and in the cluster as soon as that answers.

use super::documents::OpenIncidents;
use crate::cluster::ClusterPort;
use crate::watch::brain::Entry;
use jiff::Timestamp;
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

/// Pause before the cluster is asked again to take an entry.
const AGAIN: Duration = Duration::from_millis(500);
/// A file of this size is begun anew; the one before it is kept.
const LARGEST: u64 = 4 << 20;

/// An entry that waits to be written.
#[derive(Debug)]
struct Waiting {
    entry: Entry,
    written: oneshot::Sender<()>,
}

/// A line of the local file.
#[derive(Serialize)]
struct Line<'a> {
    at: Timestamp,
    entry: &'a Entry,
}

/// Takes entries in their order.
#[derive(Clone, Debug)]
pub(super) struct Journal {
    queue: mpsc::UnboundedSender<Waiting>,
}

impl Journal {
    /// A journal in the cluster, and in a file where one is given.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn open(port: Arc<dyn ClusterPort>, file: Option<&Path>) -> std::io::Result<Self> {
        let file = match file {
            Some(path) => {
                if let Some(directory) = path.parent() {
                    std::fs::create_dir_all(directory)?;
                }
                if std::fs::metadata(path).is_ok_and(|found| found.len() > LARGEST) {
                    std::fs::rename(path, path.with_extension("old"))?;
                }
                Some(OpenOptions::new().create(true).append(true).open(path)?)
            }
            None => None,
        };
        let (queue, waiting) = mpsc::unbounded_channel();
        tokio::spawn(write(port, file, waiting));
        Ok(Journal { queue })
    }

    /// Writes an entry down; what it announces may be done once the answer is here.
    pub(super) fn record(&self, entry: Entry) -> oneshot::Receiver<()> {
        let (written, answer) = oneshot::channel();
        // The writer lives as long as this does.
        let _ = self.queue.send(Waiting { entry, written });
        answer
    }
}

async fn write(port: Arc<dyn ClusterPort>, mut file: Option<File>, mut waiting: mpsc::UnboundedReceiver<Waiting>) {
    let (stored, to_store) = mpsc::unbounded_channel();
    tokio::spawn(store(port, to_store));
    while let Some(Waiting { entry, written }) = waiting.recv().await {
        if let Some(file) = file.as_mut()
            && let Err(error) = append(file, &entry)
        {
            // The cluster has it in a moment; a full disk here must not keep guests down.
            tracing::warn!(%error, "cannot write the local journal");
        }
        let _ = written.send(());
        let _ = stored.send(entry);
    }
}

fn append(file: &mut File, entry: &Entry) -> std::io::Result<()> {
    let mut line = serde_json::to_string(&Line { at: Timestamp::now(), entry })?;
    line.push('\n');
    file.write_all(line.as_bytes())?;
    file.sync_data()
}

async fn store(port: Arc<dyn ClusterPort>, mut entries: mpsc::UnboundedReceiver<Entry>) {
    while let Some(entry) = entries.recv().await {
        while let Err(error) = OpenIncidents::record(port.as_ref(), &entry).await {
            tracing::debug!(%error, host = entry.host, "the cluster does not take the journal's entry yet");
            sleep(AGAIN).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{ClusterError, FakeCluster};
    use crate::watch::brain::Phase;

    fn entry(host: &str, phase: Phase) -> Entry {
        Entry { host: host.to_owned(), phase, verdict: None }
    }

    #[tokio::test(start_paused = true)]
    async fn an_entry_is_on_disk_at_once_and_in_the_cluster_when_that_answers() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("watch/journal");
        let fake = Arc::new(FakeCluster::new());
        fake.breaks(Some(ClusterError::NoQuorum("an election".into())));
        let journal = Journal::open(Arc::clone(&fake) as Arc<dyn ClusterPort>, Some(&path)).unwrap();
        journal.record(entry("h1", Phase::Fencing)).await.unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("\"phase\":\"fencing\""));
        fake.breaks(None);
        journal.record(entry("h1", Phase::Recovering)).await.unwrap();
        sleep(AGAIN * 3).await;
        let open = OpenIncidents::read(fake.as_ref()).await.unwrap();
        assert_eq!(open.hosts["h1"].phase, Phase::Recovering);
        journal.record(entry("h1", Phase::Watched)).await.unwrap();
        sleep(AGAIN).await;
        assert!(OpenIncidents::read(fake.as_ref()).await.unwrap().hosts.is_empty());
    }
}
