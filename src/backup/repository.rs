//! A repository of the inventory, and what it is asked.

use super::stream::{Drain, Feed};
use crate::error::{Failure, Kind};
use crate::inventory::Inventory;
use crate::ui::Job;
use indicatif::HumanBytes;
use rackhand_repository::{Done, Error, ErrorKind, Listed, PointSummary, Progress, Request, Selection, answer};
use std::io::BufReader;
use std::path::PathBuf;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// The file that makes a directory a repository.
const MARK: &str = "rackhand-repository.json";
/// Reports of progress that may wait to be shown; more are dropped.
const REPORTS: usize = 16;

/// Where the bytes of a request come from and go to, beside its answer.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    /// The streams of `receive`.
    pub(super) input: Option<Receiver<Vec<u8>>>,
    /// The stream of `read`.
    pub(super) output: Option<Sender<Vec<u8>>>,
}

/// Which points a request is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Only this cluster.
    pub cluster: Option<String>,
    /// Only this guest's UUID.
    pub guest: Option<String>,
}

/// A repository in a directory of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// Its name in the inventory.
    pub name: String,
    /// Its directory.
    pub path: PathBuf,
}

impl Repository {
    /// The repository of this name; the only one where none is named.
    ///
    /// # Errors
    /// When there is none, when several could be meant, or when it is on another machine.
    pub fn of(inventory: &Inventory, name: Option<&str>) -> Result<Self, Failure> {
        let all = &inventory.backup.storage;
        let names = || all.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let (name, spec) = match name {
            Some(name) => all.get_key_value(name).ok_or_else(|| {
                Failure::usage(format!("the inventory has no backup repository `{name}`")).hint(format!(
                    "it has under backup.storage: {}",
                    if all.is_empty() { "none".into() } else { names() }
                ))
            })?,
            None if all.len() > 1 => {
                return Err(Failure::usage("the inventory has several backup repositories")
                    .hint(format!("name one with --to or --from: {}", names())));
            }
            None => all.iter().next().ok_or_else(|| {
                Failure::usage("the inventory has no backup repository").hint(
                    "describe one under backup.storage, for example `backup: {storage: {vault: {path: /srv/backup}}}`",
                )
            })?,
        };
        if let Some(address) = spec.address {
            let text =
                format!("backup repository {name} is on the machine {address}, which rackhand cannot send to yet");
            return Err(
                Failure::usage(text).hint("run rackhand on that machine, with `path` alone under backup.storage")
            );
        }
        Ok(Repository { name: name.clone(), path: spec.path.clone() })
    }

    /// A selection of its points.
    pub fn selection(&self, target: &Target) -> Selection {
        Selection { repository: self.path.clone(), cluster: target.cluster.clone(), guest: target.guest.clone() }
    }

    /// Asks it, and shows how far it is.
    ///
    /// # Errors
    /// What it answers instead: [`Kind::Busy`] when another run is at it, [`Kind::Problem`] when something is damaged.
    pub async fn ask(&self, request: Request, job: Option<&Job>) -> Result<Done, Failure> {
        self.exchange(request, Pipes::default(), job).await
    }

    pub(super) async fn exchange(&self, request: Request, pipes: Pipes, job: Option<&Job>) -> Result<Done, Failure> {
        let (tell, mut told) = channel::<Progress>(REPORTS);
        let work = tokio::task::spawn_blocking(move || {
            let mut input = BufReader::new(pipes.input.map(Feed::of).unwrap_or_default());
            let mut output = Drain::of(pipes.output);
            // One report more or less does not matter.
            answer(&request, &mut input, &mut output, &|progress| {
                let _ = tell.try_send(progress);
                Ok(())
            })
        });
        while let Some(progress) = told.recv().await {
            if let Some(job) = job {
                job.progress(progress.position, progress.of, format!("{} read", HumanBytes(progress.bytes)));
            }
        }
        work.await?.map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &Error) -> Failure {
        let kind = match error.kind {
            ErrorKind::Locked => Kind::Busy,
            ErrorKind::Damaged => Kind::Problem,
            ErrorKind::NewerFormat => Kind::Refused,
            ErrorKind::Request => Kind::Usage,
            _ => Kind::Failed,
        };
        Failure::msg(kind, format!("repository {}: {error}", self.name))
    }

    /// Its points, oldest first for each guest; none where nothing was ever stored.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn points(&self, target: &Target) -> Result<Vec<PointSummary>, Failure> {
        if !tokio::fs::try_exists(self.path.join(MARK)).await? {
            return Ok(Vec::new());
        }
        match self.ask(Request::List(self.selection(target)), None).await? {
            Done::List(Listed { mut points, .. }) => {
                points.sort_by(|a, b| (&a.name, &a.guest, &a.point).cmp(&(&b.name, &b.guest, &b.point)));
                Ok(points)
            }
            other => Err(unexpected(&other)),
        }
    }
}

/// An answer to another question.
pub(super) fn unexpected(done: &Done) -> Failure {
    Failure::failed(format!("the repository answered something else: {done:?}"))
}
