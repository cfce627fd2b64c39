//! Folds the points before a point into it, in one pass over their files.

use crate::diff::Head;
use crate::error::{Error, ErrorKind, Result};
use crate::files::create_directory;
use crate::frame::{Framer, Pool};
use crate::list::Points;
use crate::lock::Lock;
use crate::manifest::{Disk, Manifest};
use crate::overlay::{Merged as Part, Overlay};
use crate::payload::Payload;
use crate::receive::Report;
use crate::request::{Merge, Merged, PointPath, Progress};
use crate::store::{At, DEFINITION, PARTIAL, Store, WRITTEN_BY, check_name, read_small, write_small_files};
use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// How many frames are on their way: with a frame of every stage, below 32 MiB.
const AHEAD: usize = 1;

/// Merges a point with those before it. They stay: `prune` removes them.
///
/// # Errors
/// The point or what it stands on is not there or damaged, or the repository cannot be written. The point is as before then.
pub fn merge(request: &Merge, report: Report<'_>) -> Result<Merged> {
    let PointPath { repository, cluster, guest, point } = &request.at;
    for (what, name) in [("cluster", cluster), ("guest", guest), ("point", point)] {
        check_name(what, name)?;
    }
    let store = Store::open(repository)?;
    let at = At { cluster, guest };
    store.manifest(at, point)?;
    let directory = store.guest_directory(at);
    let lock = Lock::take(&directory, request.owner.as_deref().unwrap_or("a backup merge"))?;
    store.sweep(at, &lock)?;
    merge_locked(&store, at, point, request.onto.as_deref(), &lock, report).map_err(|error| error.at(point))
}

/// The same, with the lock held.
pub(crate) fn merge_locked(
    store: &Store,
    at: At<'_>,
    point: &str,
    onto: Option<&str>,
    lock: &Lock,
    report: Report<'_>,
) -> Result<Merged> {
    let chain = store.chain(at, point)?;
    let Some((last, before)) = chain.split_last() else { return Err(Error::damaged("the chain is empty")) };
    let from = match onto {
        None => 0,
        Some(onto) => {
            let place = before.iter().position(|m| m.point == onto);
            let refused = || Error::new(ErrorKind::Request, format!("point {point} does not stand on point {onto}"));
            place.ok_or_else(refused)? + 1
        }
    };
    let folded: Vec<String> = before[from..].iter().map(|m| m.point.clone()).collect();
    if !folded.is_empty() {
        let partial = store.guest_directory(at).join(format!("{PARTIAL}{point}"));
        create_directory(&partial)?;
        let written = write(store, at, &chain, onto, last, &folded, &partial, report);
        let replaced = written.and_then(|()| store.replace(&partial, at, point, lock));
        if let Err(error) = replaced {
            // What cannot be removed now goes with the next run.
            let _ = fs::remove_dir_all(&partial);
            return Err(error);
        }
    }
    Ok(Merged { point: Points::read(store, at)?.summary(point)?, folded })
}

#[allow(clippy::too_many_arguments)]
fn write(
    store: &Store,
    at: At<'_>,
    chain: &[Manifest],
    onto: Option<&str>,
    last: &Manifest,
    folded: &[String],
    partial: &Path,
    report: Report<'_>,
) -> Result<()> {
    let pool = Arc::new(Pool::of_this_machine());
    let mut disks = Vec::new();
    for disk in &last.disks {
        let (overlay, disk) = Overlay::difference(store, at, chain, onto, disk.index)?;
        let progress = Progress { point: Some(last.point.clone()), disk: Some(disk.index), ..Progress::default() };
        disks.push(write_disk(overlay, disk, &pool, partial, progress, report)?);
    }
    let definition = read_small(&store.directory(at, &last.point).join(DEFINITION))?;
    let parent_point = onto.map(str::to_owned);
    let (folded, written_by) = (folded.to_owned(), WRITTEN_BY.to_owned());
    write_small_files(partial, &Manifest { parent_point, disks, folded, written_by, ..last.clone() }, &definition)
}

fn write_disk(
    mut overlay: Overlay,
    disk: Disk,
    pool: &Arc<Pool>,
    partial: &Path,
    mut progress: Progress,
    report: Report<'_>,
) -> Result<Disk> {
    let payload = Payload::create(pool, &partial.join(&disk.file), &partial.join(&disk.index_file), AHEAD)?;
    let payload = RefCell::new(payload);
    let mut framer = Framer::new(|frame| payload.borrow_mut().push(frame));
    framer.head(&Head {
        from: disk.from_snapshot.clone(),
        to: Some(disk.to_snapshot.clone()),
        size: Some(overlay.size()),
    })?;
    progress.of = overlay.size();
    while let Some(part) = overlay.next()? {
        progress.position = match part {
            Part::Data(extent) => {
                framer.data(extent, |buffer| overlay.read(buffer))?;
                extent.end()
            }
            Part::Zero(extent) => {
                framer.zero(extent)?;
                extent.end()
            }
            Part::Frame(packed) => {
                framer.flush()?;
                let end = packed.entry.end;
                payload.borrow_mut().pass(packed)?;
                end
            }
        };
        progress.stored = payload.borrow().stored();
        report(progress.clone())?;
    }
    framer.end()?;
    drop(framer);
    let written = payload.into_inner().finish()?;
    Ok(written.describe(disk))
}
