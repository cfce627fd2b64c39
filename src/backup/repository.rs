//! A repository of the inventory, and what it is asked.

use super::mark;
use super::stream::{Drain, Feed};
use crate::cluster::{ClusterError, ClusterPort, Document, fetch, update};
use crate::error::{Failure, Kind};
use crate::inventory::Inventory;
use crate::ui::Job;
use indicatif::HumanBytes;
use rackhand_repository::{Done, Error, ErrorKind, Listed, PointSummary, Progress, Request, Selection, answer};
use serde::{Deserialize, Serialize};
use std::io::BufReader;
use std::path::PathBuf;
use tokio::sync::mpsc::{Receiver, Sender, channel};

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

/// What the cluster knows of a repository that its guests are backed up to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
struct Known {
    /// The id that its directory carries.
    id: String,
}

impl Document for Known {
    const SCHEMA: &'static str = "rackhand.backup-repository/1";
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

    /// The state object of what the cluster knows of it.
    fn object(&self) -> String {
        format!("backup-repository.{}", self.name)
    }

    /// Makes sure that the directory is the repository that the cluster's guests are backed up to. A mount point without its
    /// file system looks like a repository without points, and would cost all bases.
    ///
    /// # Errors
    /// [`Kind::Refused`] where it is another one, or none.
    pub async fn known(&self, port: &dyn ClusterPort) -> Result<(), Failure> {
        let id = self.id()?;
        let begin = format!("begin to use it with `rackhand backup init --to {}`", self.name);
        match fetch::<Known>(port, &self.object()).await? {
            Some((known, _)) if Some(&known.id) == id.as_ref() => Ok(()),
            Some(_) => Err(Failure::refused(format!(
                "{} is another repository than the one that the cluster knows as {}",
                self.path.display(),
                self.name
            ))
            .hint(format!("mount that one; or {begin}: all guests are stored anew then"))),
            None => {
                Err(Failure::refused(format!("the cluster does not know backup repository {} yet", self.name))
                    .hint(begin))
            }
        }
    }

    /// Whether the cluster knows another repository by this name, which a begun one would take the place of.
    ///
    /// # Errors
    /// When the cluster cannot be asked, or the directory cannot be read.
    pub async fn replaces(&self, port: &dyn ClusterPort) -> Result<bool, Failure> {
        let known = fetch::<Known>(port, &self.object()).await?;
        let id = mark::read(&self.path)?.and_then(|mark| mark.id);
        Ok(known.is_some_and(|(known, _)| Some(known.id) != id))
    }

    /// Begins to use it: makes a repository of the directory, unless it is one, and lets the cluster know it.
    ///
    /// # Errors
    /// When the directory has something else in it, or the cluster cannot be asked.
    pub async fn begin(&self, port: &dyn ClusterPort) -> Result<(), Failure> {
        let id = mark::write(&self.path)?;
        let object = self.object();
        let written =
            update(port, &object, |_: Option<Known>| Ok::<_, ClusterError>((Some(Known { id: id.clone() }), ())));
        Ok(written.await?)
    }

    /// The id of the repository in the directory.
    fn id(&self) -> Result<Option<String>, Failure> {
        match mark::read(&self.path)? {
            Some(mark) => Ok(mark.id),
            None => {
                Err(Failure::refused(format!("{} is no repository: it has no {}", self.path.display(), mark::FILE))
                    .hint(format!(
                        "mount the file system that it is on; a new one is begun with `rackhand backup init --to {}`",
                        self.name
                    )))
            }
        }
    }

    /// Its points, oldest first for each guest.
    ///
    /// # Errors
    /// [`Kind::Refused`] where there is no repository; or when it cannot be read.
    pub async fn points(&self, target: &Target) -> Result<Vec<PointSummary>, Failure> {
        self.id()?;
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
