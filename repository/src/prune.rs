//! Removes the points that a retention does not keep. A chain is never broken: what stands on a removed point is merged first.

use crate::error::{Error, ErrorKind, Result};
use crate::list::{Points, stored, taken_at};
use crate::lock::Lock;
use crate::merge::merge_locked;
use crate::receive::Report;
use crate::request::{Keep, Progress, Prune, Pruned, PrunedGuest, TEMPLATES};
use crate::retention::{Candidate, Plan, plan};
use crate::store::{At, Store};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::collections::BTreeSet;

/// Prunes the guests of a selection. A guest that is damaged or locked is skipped, and says why.
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
        let keys = store.points(At { cluster, guest })?;
        unused.extend(
            keys.into_iter().filter(|key| !used.contains(key)).map(|key| format!("{cluster}/{TEMPLATES}/{key}")),
        );
    }
    Ok(Pruned { dry_run: request.dry_run, guests, unused_templates: unused })
}

fn used_templates(store: &Store, cluster: &str, all: &[(String, String)]) -> Result<BTreeSet<String>> {
    let mut used = BTreeSet::new();
    for (_, guest) in all.iter().filter(|(of, guest)| of == cluster && guest != TEMPLATES) {
        let points = Points::read(store, At { cluster, guest })?;
        used.extend(points.manifests.into_values().flatten().flat_map(|m| m.disks).filter_map(|d| d.template));
    }
    Ok(used)
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

fn decide(store: &Store, at: At<'_>, request: &Prune, pruned: &mut PrunedGuest) -> Result<Plan> {
    let points = Points::read(store, at)?;
    let mut candidates = Vec::new();
    for (point, manifest) in &points.manifests {
        let manifest = manifest.as_ref().map_err(Clone::clone)?;
        if let Some(problem) = points.summary(point)?.problem {
            return Err(Error::damaged(problem));
        }
        pruned.name.clone_from(&manifest.name);
        let parent = manifest.parent_point.clone();
        candidates.push(Candidate { point: point.clone(), parent, taken_at: taken_at(point) });
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
    store.sweep(&directory, &lock)?;
    let plan = decide(store, at, request, pruned)?;
    let undone = std::mem::take(&mut pruned.removed);
    for folded in &plan.merged {
        merge_locked(store, at, &folded.point, folded.onto.as_deref(), &lock, report)?;
    }
    // What is on the disk decides, not the plan: nothing that stays may stand on what goes.
    for kept in &plan.kept {
        let chain = store.chain(at, &kept.point)?;
        if let Some(lost) = chain.iter().find(|m| undone.contains(&m.point)) {
            return Err(Error::damaged(format!("point {} still stands on point {}", kept.point, lost.point)));
        }
    }
    // The newest first: what is left has what it stands on, wherever this ends.
    for point in undone.iter().rev() {
        store.remove(at, point, &lock)?;
        pruned.removed.insert(0, point.clone());
    }
    Ok(())
}
