//! Removes the points that a retention does not keep. A chain is never broken: what stands on a superfluous point is merged before that
//! is removed. What nothing stands on is removed first, and makes room.

use crate::error::{Error, ErrorKind, Result};
use crate::list::{Points, stored, taken_at};
use crate::lock::Lock;
use crate::merge::merge_locked;
use crate::receive::Report;
use crate::request::{Keep, Kept, Progress, Prune, Pruned, PrunedGuest, TEMPLATES};
use crate::retention::{Candidate, Plan, plan};
use crate::store::{At, Store};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, BTreeSet};

/// Prunes the guests of a selection. A guest that is locked or of which no point is whole is skipped, and says why; damaged
/// points take no other point's place.
///
/// # Errors
/// The request keeps nothing, or there is no repository.
pub fn prune(request: &Prune, report: Report<'_>) -> Result<Pruned> {
    if request.keep == Keep::default() {
        return Err(Error::new(ErrorKind::Request, "the retention keeps nothing; say how many points stay"));
    }
    let store = Store::open(&request.selection.repository)?;
    let selection = &request.selection;
    let all = store.guests(selection.cluster.as_deref(), None)?;
    let chosen = |guest: &String| guest != TEMPLATES && selection.guest.as_ref().is_none_or(|g| g == guest);
    let mut guests = Vec::new();
    for (cluster, guest) in all.iter().filter(|(_, guest)| chosen(guest)) {
        report(Progress { guest: Some(guest.clone()), ..Progress::default() })?;
        guests.push(one(&store, At { cluster, guest }, request, report)?);
    }
    let mut unused = Vec::new();
    for (cluster, guest) in all.iter().filter(|(_, guest)| guest == TEMPLATES) {
        let used = used_templates(&store, cluster, &all)?;
        let Some(used) = used else { continue };
        let keys = store.points(At { cluster, guest })?;
        unused.extend(
            keys.into_iter().filter(|key| !used.contains(key)).map(|key| format!("{cluster}/{TEMPLATES}/{key}")),
        );
    }
    Ok(Pruned { dry_run: request.dry_run, guests, unused_templates: unused })
}

/// The templates that the points of a cluster name; none where one of the manifests cannot be read: then any may be needed.
fn used_templates(store: &Store, cluster: &str, all: &[(String, String)]) -> Result<Option<BTreeSet<String>>> {
    let mut used = BTreeSet::new();
    for (_, guest) in all.iter().filter(|(of, guest)| of == cluster && guest != TEMPLATES) {
        for manifest in Points::read(store, At { cluster, guest })?.manifests.into_values() {
            let Ok(manifest) = manifest else { return Ok(None) };
            used.extend(manifest.disks.into_iter().filter_map(|d| d.template));
        }
    }
    Ok(Some(used))
}

fn one(store: &Store, at: At<'_>, request: &Prune, report: Report<'_>) -> Result<PrunedGuest> {
    let mut pruned = PrunedGuest {
        cluster: at.cluster.to_owned(),
        guest: at.guest.to_owned(),
        name: String::new(),
        kept: Vec::new(),
        removed: Vec::new(),
        merged: Vec::new(),
        removed_bytes: 0,
        skipped: None,
    };
    let result = match request.dry_run {
        true => decide(store, at, request, &mut pruned).map(|_| ()),
        false => carry_out(store, at, request, &mut pruned, report),
    };
    // What is wrong with one guest does not concern the others.
    match result {
        Err(error) => Ok(PrunedGuest { skipped: Some(error.message), ..pruned }),
        Ok(()) => Ok(pruned),
    }
}

/// The points of a guest as far as retention is concerned, oldest first.
fn candidates(store: &Store, at: At<'_>) -> Result<Vec<Candidate>> {
    let points = Points::read(store, at)?;
    let mut candidates: Vec<Candidate> = Vec::new();
    for (point, manifest) in &points.manifests {
        let (parent, damaged) = match manifest {
            Ok(manifest) => (manifest.parent_point.clone(), points.summary(point)?.problem.is_some()),
            // What it stands on is not known for certain: what its plain text says, or else the point before it.
            Err(error) if error.kind == ErrorKind::Damaged => {
                let before = candidates.last().map(|before| before.point.clone());
                (store.plain_parent(at, point).unwrap_or(before), true)
            }
            Err(error) => return Err(error.clone()),
        };
        candidates.push(Candidate { point: point.clone(), parent, taken_at: taken_at(point), damaged });
    }
    match candidates.iter().all(|candidate| candidate.damaged) && !candidates.is_empty() {
        true => Err(Error::damaged("none of its points is whole, so none is removed")),
        false => Ok(candidates),
    }
}

fn decide(store: &Store, at: At<'_>, request: &Prune, pruned: &mut PrunedGuest) -> Result<Plan> {
    let candidates = candidates(store, at)?;
    if let Some(newest) = candidates.iter().rfind(|candidate| !candidate.damaged) {
        pruned.name = store.manifest(at, &newest.point)?.name;
    }
    let now = Timestamp::now().to_zoned(TimeZone::UTC).datetime();
    let plan = plan(&candidates, request.keep, request.minimum_age, request.merge_after.unwrap_or(1), now);
    pruned.kept.clone_from(&plan.kept);
    pruned.merged.clone_from(&plan.merged);
    pruned.removed.clone_from(&plan.removed);
    pruned.removed_bytes = plan.removed.iter().map(|point| stored(&store.directory(at, point))).sum();
    Ok(plan)
}

fn carry_out(store: &Store, at: At<'_>, request: &Prune, pruned: &mut PrunedGuest, report: Report<'_>) -> Result<()> {
    let directory = store.guest_directory(at);
    let lock = Lock::take(&directory, request.owner.as_deref().unwrap_or("a backup prune"))?;
    store.sweep(at, &lock)?;
    let plan = decide(store, at, request, pruned)?;
    let mut doomed = std::mem::take(&mut pruned.removed);
    pruned.merged.clear();
    pruned.removed_bytes = 0;
    // What nothing stands on goes first: a merge needs room.
    let mut failure = remove_free(store, at, &mut doomed, pruned, &lock).err();
    for folded in &plan.merged {
        let merged = merge_locked(store, at, &folded.point, folded.onto.as_deref(), &lock, report);
        let freed = merged.and_then(|_| {
            pruned.merged.push(folded.clone());
            remove_free(store, at, &mut doomed, pruned, &lock)
        });
        // What is wrong with one point does not concern those that do not stand on it.
        match freed {
            Err(error) if error.kind == ErrorKind::Locked => return Err(error),
            Err(error) => drop(failure.get_or_insert(error)),
            Ok(()) => {}
        }
    }
    pruned.removed.sort();
    let stays = doomed.iter().map(|point| Kept {
        point: point.clone(),
        reasons: vec!["a later point is a difference to it and could not be merged".to_owned()],
    });
    pruned.kept.extend(stays);
    pruned.kept.sort_by(|a, b| a.point.cmp(&b.point));
    match (failure, doomed.last()) {
        (Some(error), _) => Err(error),
        (None, Some(point)) => Err(Error::damaged(format!("point {point} stays: another still stands on it"))),
        (None, None) => Ok(()),
    }
}

/// Removes those of the superfluous points that nothing stands on, the newest first. What is on the disk decides, not the plan.
fn remove_free(
    store: &Store,
    at: At<'_>,
    doomed: &mut Vec<String>,
    pruned: &mut PrunedGuest,
    lock: &Lock,
) -> Result<()> {
    let mut parents: BTreeMap<String, Option<String>> =
        candidates(store, at)?.into_iter().map(|candidate| (candidate.point, candidate.parent)).collect();
    let free = |point: &String, parents: &BTreeMap<String, Option<String>>| {
        !parents.values().flatten().any(|parent| parent == point)
    };
    while let Some(n) = doomed.iter().rposition(|point| free(point, &parents)) {
        let bytes = stored(&store.directory(at, &doomed[n]));
        store.remove(at, &doomed[n], lock)?;
        let point = doomed.remove(n);
        parents.remove(&point);
        pruned.removed_bytes += bytes;
        pruned.removed.push(point);
    }
    Ok(())
}
