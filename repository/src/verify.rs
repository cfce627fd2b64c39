//! Reads points back, names what is wrong, and says what can still be restored.

use crate::check::{Checked, check_point};
use crate::error::{Error, Result};
use crate::list::Points;
use crate::mark;
use crate::receive::Report;
use crate::request::{Damage, DamageKind, Depth, Progress, Restorable, TEMPLATES, Verified, Verify};
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
    let guests = store.guests(selection.cluster.as_deref(), selection.guest.as_deref())?;
    let print = |(cluster, guest): &(String, String)| store.print(At { cluster, guest });
    let before: Vec<_> = guests.iter().map(print).collect();
    let seed = request.seed.unwrap_or_else(|| {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| u64::try_from(age.as_nanos()).unwrap_or(0))
    });
    let mut found = Pass::over(&store, &guests, request, seed, report)?;
    if let Some(point) = request.point.as_ref().filter(|_| found.needs.is_empty()) {
        return Err(Error::new(crate::error::ErrorKind::NotFound, format!("there is no point {point}")).at(point));
    }
    // A merge or a prune may have been at work where something seems to be missing.
    let changed = guests.iter().zip(&before).filter(|(guest, before)| found.doubts(guest) && print(guest) != **before);
    let changed: Vec<_> = changed.map(|(guest, _)| guest.clone()).collect();
    if !changed.is_empty() {
        let again = Pass::over(&store, &changed, request, seed, report)?;
        found.replace(&changed, again);
    }
    found.note(&store, request.depth);
    let damaged: BTreeSet<Place> = found.checked.damages.iter().map(place_of).collect();
    let points = found.needs.iter().filter(|((_, guest, _), _)| guest != TEMPLATES);
    let restorable = points.map(|(place, needs)| {
        let (cluster, guest, point) = place.clone();
        let whole = needs.as_ref().is_some_and(|needs| needs.iter().all(|need| !damaged.contains(need)));
        Restorable { cluster, guest, point, restorable: whole && !damaged.contains(place) }
    });
    let restorable = restorable.collect();
    let Checked { frames, bytes, damages } = found.checked;
    Ok(Verified { points: found.places.len(), frames, bytes, damages, restorable })
}

fn place_of(damage: &Damage) -> Place {
    (damage.cluster.clone(), damage.guest.clone(), damage.point.clone())
}

/// The points of some guests as they were looked at once.
struct Pass {
    /// What each point that was asked for reads; none where its chain is broken.
    needs: BTreeMap<Place, Option<Vec<Place>>>,
    /// All that was looked at, and what tells it from a successor of the same name.
    places: BTreeMap<Place, String>,
    checked: Checked,
}

impl Pass {
    fn over(
        store: &Store,
        guests: &[(String, String)],
        request: &Verify,
        seed: u64,
        report: Report<'_>,
    ) -> Result<Self> {
        let mut needs: BTreeMap<Place, Option<Vec<Place>>> = BTreeMap::new();
        for (cluster, guest) in guests {
            let points = Points::read(store, At { cluster, guest })?;
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
        let all: BTreeSet<Place> = needs.keys().cloned().chain(needs.values().flatten().flatten().cloned()).collect();
        let sums = |(cluster, guest, point): &Place| mark::sums(&store.directory(At { cluster, guest }, point));
        let places: BTreeMap<Place, String> = all.into_iter().map(|place| (place.clone(), sums(&place))).collect();
        let list: Vec<Place> = places.keys().cloned().collect();
        let checked = check_all(store, &list, request, seed, report)?;
        Ok(Self { needs, places, checked })
    }

    /// Whether something seems to be wrong with a guest.
    fn doubts(&self, (cluster, guest): &(String, String)) -> bool {
        self.checked.damages.iter().any(|d| d.cluster == *cluster && d.guest == *guest)
            || self.needs.iter().any(|((c, g, _), needs)| needs.is_none() && c == cluster && g == guest)
    }

    /// What a later look at some guests has found counts in place of the earlier one.
    fn replace(&mut self, guests: &[(String, String)], again: Self) {
        let of = |place: &Place| guests.iter().any(|(cluster, guest)| place.0 == *cluster && place.1 == *guest);
        self.needs.retain(|place, _| !of(place));
        self.places.retain(|place, _| !of(place));
        let stale = |damage: &Damage| {
            let place = place_of(damage);
            of(&place) || again.places.contains_key(&place)
        };
        self.checked.damages.retain(|damage| !stale(damage));
        self.needs.extend(again.needs);
        self.places.extend(again.places);
        self.checked.add(again.checked);
        sort(&mut self.checked.damages);
    }

    /// Leaves a note beside what is damaged, and takes it away from what was read whole.
    fn note(&self, store: &Store, depth: Depth) {
        for (place, sums) in &self.places {
            let own = self.checked.damages.iter().filter(|damage| place_of(damage) == *place);
            // The other kinds show without a verification.
            let noted = own.clone().filter(|d| matches!(d.kind, DamageKind::Changed | DamageKind::MissingFile));
            let noted: Vec<&str> = noted.map(|damage| damage.message.as_str()).collect();
            let (cluster, guest, point) = place;
            let at = At { cluster, guest };
            // A repository that is read alone cannot be written to; what was found is in the answer.
            let _ = match (noted.is_empty(), own.count(), depth) {
                (false, _, _) => mark::set(store, at, point, sums.clone(), &noted),
                (true, 0, Depth::All) => mark::clear(store, at, point),
                _ => Ok(()),
            };
        }
    }
}

fn sort(damages: &mut [Damage]) {
    damages.sort_by(|a, b| (&a.cluster, &a.guest, &a.point).cmp(&(&b.cluster, &b.guest, &b.point)));
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
    sort(&mut checked.damages);
    match failure {
        Some(error) => Err(error),
        None => Ok(checked),
    }
}
