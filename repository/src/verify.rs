//! Reads points back, names what is wrong, and says what can still be restored.

use crate::check::{Checked, check_point};
use crate::error::{Error, Result};
use crate::list::Points;
use crate::receive::Report;
use crate::request::{Damage, Progress, Restorable, TEMPLATES, Verified, Verify};
use crate::store::{At, Store, check_name};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// A point by cluster, guest and name.
type Place = (String, String, String);

/// Verifies the points of a selection, and the templates that they stand on.
///
/// # Errors
/// There is no repository, or it cannot be read at all. What is damaged is in the result.
pub fn verify(request: &Verify, report: Report<'_>) -> Result<Verified> {
    let selection = &request.selection;
    for name in [&selection.cluster, &selection.guest, &request.point].into_iter().flatten() {
        check_name("name", name)?;
    }
    let store = Store::open(&selection.repository)?;
    let mut needs: BTreeMap<Place, Option<Vec<Place>>> = BTreeMap::new();
    for (cluster, guest) in store.guests(selection.cluster.as_deref(), selection.guest.as_deref())? {
        let points = Points::read(&store, At { cluster: &cluster, guest: &guest })?;
        let wanted = |point: &&String| request.point.as_ref().is_none_or(|p| p == *point);
        for point in points.manifests.keys().filter(wanted) {
            let place = |point: &str| (cluster.clone(), guest.clone(), point.to_owned());
            let templates = |key: &String| (cluster.clone(), TEMPLATES.to_owned(), key.clone());
            let chain = points.chain(point).ok().map(|chain| {
                let own = chain.iter().map(|m| place(&m.point));
                let below = chain.iter().flat_map(|m| &m.disks).filter_map(|d| d.template.as_ref()).map(templates);
                own.chain(below).collect()
            });
            needs.insert(place(point), chain);
        }
    }
    if let Some(point) = request.point.as_ref().filter(|_| needs.is_empty()) {
        return Err(Error::new(crate::error::ErrorKind::NotFound, format!("there is no point {point}")).at(point));
    }
    let places: BTreeSet<Place> = needs.keys().cloned().chain(needs.values().flatten().flatten().cloned()).collect();
    let places: Vec<Place> = places.into_iter().collect();
    let seed = request.seed.unwrap_or_else(|| {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| u64::try_from(age.as_nanos()).unwrap_or(0))
    });
    let checked = check_all(&store, &places, request, seed, report)?;
    let damaged: BTreeSet<Place> =
        checked.damages.iter().map(|d| (d.cluster.clone(), d.guest.clone(), d.point.clone())).collect();
    let restorable = needs.iter().filter(|((_, guest, _), _)| guest != TEMPLATES).map(|(place, needs)| {
        let (cluster, guest, point) = place.clone();
        let whole = needs.as_ref().is_some_and(|needs| needs.iter().all(|need| !damaged.contains(need)));
        Restorable { cluster, guest, point, restorable: whole && !damaged.contains(place) }
    });
    let restorable = restorable.collect();
    let Checked { frames, bytes, damages } = checked;
    Ok(Verified { points: places.len(), frames, bytes, damages, restorable })
}

/// Checks points on as many threads as the machine has processors.
fn check_all(store: &Store, places: &[Place], request: &Verify, seed: u64, report: Report<'_>) -> Result<Checked> {
    let next = AtomicUsize::new(0);
    let all = Mutex::new((Checked::default(), None::<Error>));
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(places.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let Some((cluster, guest, point)) = places.get(n) else { return };
                    let checked = check_point(store, At { cluster, guest }, point, request.depth, seed);
                    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                    all.0.add(checked);
                    let told = report(Progress {
                        guest: Some(guest.clone()),
                        bytes: all.0.bytes,
                        position: n as u64 + 1,
                        of: places.len() as u64,
                        ..Progress::default()
                    });
                    if let Err(error) = told {
                        all.1.get_or_insert(error);
                        next.store(places.len(), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let (mut checked, failure) = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    checked.damages.sort_by(|a: &Damage, b| (&a.cluster, &a.guest, &a.point).cmp(&(&b.cluster, &b.guest, &b.point)));
    match failure {
        Some(error) => Err(error),
        None => Ok(checked),
    }
}
