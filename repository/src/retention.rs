//! Which points stay, decided from their names alone.

use crate::request::{Folded, Keep, Kept};
use jiff::civil::DateTime;
use std::collections::{BTreeMap, BTreeSet};

/// A point as far as retention is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) point: String,
    pub(crate) parent: Option<String>,
    /// When it was taken (UTC); none: it always stays.
    pub(crate) taken_at: Option<DateTime>,
    /// It cannot be restored as it is. It takes no other point's place, and is not merged.
    pub(crate) damaged: bool,
}

/// What is to be done with the points of one guest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// What stays, oldest first.
    pub(crate) kept: Vec<Kept>,
    /// What is merged first, oldest first.
    pub(crate) merged: Vec<Folded>,
    /// What is removed then, oldest first.
    pub(crate) removed: Vec<String>,
}

/// A point this far after now was named by a wrong clock.
const AHEAD: jiff::SignedDuration = jiff::SignedDuration::from_hours(-1);

/// The period that a moment belongs to, as text that people recognise.
type Period = fn(DateTime) -> String;

const PERIODS: [(&str, Period); 5] = [
    ("hourly", |time| format!("{} {:02}:00", time.date(), time.hour())),
    ("daily", |time| time.date().to_string()),
    ("weekly", |time| {
        let week = time.date().iso_week_date();
        format!("{}-W{:02}", week.year(), week.week())
    }),
    ("monthly", |time| format!("{}-{:02}", time.year(), time.month())),
    ("yearly", |time| time.year().to_string()),
];

/// Decides. `points` are in order, oldest first; their parents are among them.
pub(crate) fn plan(points: &[Candidate], keep: Keep, minimum_age: u64, merge_after: usize, now: DateTime) -> Plan {
    let whole: Vec<&Candidate> = points.iter().filter(|p| !p.damaged).collect();
    let mut reasons = reasons(&whole, keep, minimum_age, now);
    let parents: BTreeMap<&str, Option<&str>> =
        points.iter().map(|p| (p.point.as_str(), p.parent.as_deref())).collect();
    // A point that is whole never stands on a damaged one.
    let needed = needed(&parents, &reasons);
    if !needed.is_empty() && needed.len() < merge_after {
        for point in needed {
            reasons.entry(point).or_default().push("a later point is a difference to it".to_owned());
        }
    }
    damaged(points, keep, minimum_age, now, &parents, &mut reasons);
    let mut plan = Plan::default();
    for Candidate { point, damaged, .. } in points {
        let Some(why) = reasons.get(point) else {
            plan.removed.push(point.clone());
            continue;
        };
        plan.kept.push(Kept { point: point.clone(), reasons: why.clone() });
        if *damaged {
            continue;
        }
        let mut folds = Vec::new();
        let mut onto = parents.get(point.as_str()).copied().flatten();
        while let Some(parent) = onto.filter(|parent| !reasons.contains_key(*parent) && folds.len() < points.len()) {
            folds.insert(0, parent.to_owned());
            onto = parents.get(parent).copied().flatten();
        }
        if !folds.is_empty() {
            plan.merged.push(Folded { point: point.clone(), folds, onto: onto.map(str::to_owned) });
        }
    }
    plan
}

/// A damaged point stays as long as it would if it were whole, and so does all that it stands on: it may be mended.
fn damaged(
    points: &[Candidate],
    keep: Keep,
    minimum_age: u64,
    now: DateTime,
    parents: &BTreeMap<&str, Option<&str>>,
    kept: &mut BTreeMap<String, Vec<String>>,
) {
    let all: Vec<&Candidate> = points.iter().collect();
    let mut all = reasons(&all, keep, minimum_age, now);
    for Candidate { point, parent, .. } in points.iter().filter(|p| p.damaged) {
        let Some(mut why) = all.remove(point) else { continue };
        why.push("damaged".to_owned());
        kept.entry(point.clone()).or_default().append(&mut why);
        let mut at = parent.as_deref();
        for _ in points {
            let Some(below) = at.filter(|below| parents.contains_key(below)) else { break };
            kept.entry(below.to_owned()).or_insert_with(|| vec!["a damaged point is a difference to it".to_owned()]);
            at = parents.get(below).copied().flatten();
        }
    }
}

/// Why each point that stays does so.
fn reasons(points: &[&Candidate], keep: Keep, minimum_age: u64, now: DateTime) -> BTreeMap<String, Vec<String>> {
    let mut reasons: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let counts = [keep.hourly, keep.daily, keep.weekly, keep.monthly, keep.yearly];
    let mut seen: [BTreeSet<String>; 5] = Default::default();
    let minimum = i128::from(minimum_age);
    let ahead = |candidate: &Candidate| candidate.taken_at.is_some_and(|time| now.duration_since(time) < AHEAD);
    // A wrong clock made them: they stay, and take the place of none.
    for candidate in points.iter().filter(|candidate| ahead(candidate)) {
        reasons.insert(candidate.point.clone(), vec!["lies in the future".to_owned()]);
    }
    for (n, candidate) in points.iter().rev().filter(|candidate| !ahead(candidate)).enumerate() {
        let mut why = Vec::new();
        if n == 0 {
            why.push("newest".to_owned());
        }
        if n < keep.last as usize {
            why.push(format!("last {}", n + 1));
        }
        match candidate.taken_at {
            None => why.push("its name has no time".to_owned()),
            Some(time) => {
                // A point of the future was taken before the clock was set back: it is young.
                let age = now.duration_since(time).as_nanos() / 1_000_000_000;
                if age < minimum {
                    why.push("younger than the minimum age".to_owned());
                }
                for (((name, period), count), seen) in PERIODS.iter().zip(counts).zip(&mut seen) {
                    let period = period(time);
                    if seen.len() < count as usize && seen.insert(period.clone()) {
                        why.push(format!("{name} {period}"));
                    }
                }
            }
        }
        if !why.is_empty() {
            reasons.insert(candidate.point.clone(), why);
        }
    }
    reasons
}

/// The points that would go, and that one which stays is a difference to, directly or not.
fn needed(parents: &BTreeMap<&str, Option<&str>>, kept: &BTreeMap<String, Vec<String>>) -> BTreeSet<String> {
    let mut needed = BTreeSet::new();
    for point in kept.keys() {
        let mut at = parents.get(point.as_str()).copied().flatten();
        while let Some(parent) = at.filter(|parent| !kept.contains_key(*parent)) {
            if !needed.insert(parent.to_owned()) {
                break;
            }
            at = parents.get(parent).copied().flatten();
        }
    }
    needed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::list::taken_at;

    fn chain(points: &[&str]) -> Vec<Candidate> {
        let mut parent = None;
        let mut found = Vec::new();
        for point in points {
            let point = (*point).to_owned();
            let (parent, taken_at) = (parent.replace(point.clone()), taken_at(&point));
            found.push(Candidate { parent, taken_at, point, damaged: false });
        }
        found
    }

    fn now() -> DateTime {
        taken_at("20261201T000000Z").unwrap()
    }

    fn kept(plan: &Plan) -> Vec<&str> {
        plan.kept.iter().map(|k| k.point.as_str()).collect()
    }

    #[test]
    fn the_newest_of_each_period_stays_with_its_reasons() {
        let points = chain(&[
            "20261030T010000Z",
            "20261126T010000Z",
            "20261127T010000Z",
            "20261127T130000Z",
            "20261128T010000Z",
        ]);
        let keep = Keep { daily: 2, monthly: 2, ..Keep::default() };
        let plan = plan(&points, keep, 0, 1, now());
        assert_eq!(kept(&plan), ["20261030T010000Z", "20261127T130000Z", "20261128T010000Z"]);
        assert_eq!(plan.kept[0].reasons, ["monthly 2026-10"]);
        assert_eq!(plan.kept[2].reasons, ["newest", "daily 2026-11-28", "monthly 2026-11"]);
        assert_eq!(plan.removed, ["20261126T010000Z", "20261127T010000Z"]);
        let onto = Some("20261030T010000Z".to_owned());
        let folds = plan.removed.clone();
        assert_eq!(plan.merged, [Folded { point: "20261127T130000Z".into(), folds, onto }]);
    }

    #[test]
    fn a_point_without_a_kept_ancestor_becomes_a_full() {
        let points = chain(&["20261126T010000Z", "20261127T010000Z", "20261128T010000Z"]);
        let plan = plan(&points, Keep { last: 1, ..Keep::default() }, 0, 1, now());
        assert_eq!(plan.merged[0].onto, None);
        assert_eq!(plan.merged[0].folds.len(), 2);
    }

    #[test]
    fn few_superfluous_points_stay_until_a_merge_is_worth_it() {
        let points = chain(&["20261126T010000Z", "20261127T010000Z", "20261128T010000Z"]);
        let keep = Keep { last: 1, ..Keep::default() };
        let waits = plan(&points, keep, 0, 3, now());
        assert_eq!((waits.kept.len(), waits.merged.len(), waits.removed.len()), (3, 0, 0));
        assert_eq!(plan(&points, keep, 0, 2, now()).removed.len(), 2);
    }

    #[test]
    fn weeks_are_iso_weeks_and_young_points_and_those_of_the_future_stay() {
        let points = chain(&["20261228T010000Z", "20270101T010000Z", "20270103T010000Z", "20270104T010000Z"]);
        let keep = Keep { weekly: 2, ..Keep::default() };
        let all = taken_at("20270201T000000Z").unwrap();
        let weeks = plan(&points, keep, 0, 1, all);
        assert_eq!(kept(&weeks), ["20270103T010000Z", "20270104T010000Z"]);
        assert_eq!(weeks.kept[0].reasons, ["weekly 2026-W53"]);
        let back = taken_at("20261229T000000Z").unwrap();
        assert_eq!(plan(&points, keep, 2 * 86400, 1, back).removed, Vec::<String>::new());
    }

    #[test]
    fn a_point_of_the_future_takes_the_place_of_none() {
        let now = taken_at("20261128T020000Z").unwrap();
        let mut points = chain(&["20261126T010000Z", "20261127T010000Z", "20361127T010000Z"]);
        points[2].parent = None;
        let last = plan(&points, Keep { last: 1, ..Keep::default() }, 0, 1, now);
        assert_eq!(kept(&last), ["20261127T010000Z", "20361127T010000Z"]);
        assert_eq!(last.kept[1].reasons, ["lies in the future"]);
    }

    proptest::proptest! {
        /// Whatever is asked: nothing kept stands on anything removed, and more is kept where more is asked.
        #[test]
        fn a_chain_is_never_broken(
            hours in proptest::collection::btree_set(0_i64..20_000, 1..40),
            forks in proptest::collection::vec(0_usize..4, 40),
            counts in proptest::array::uniform6(0_u32..5),
            merge_after in 0_usize..6,
        ) {
            let start = taken_at("20240101T000000Z").unwrap();
            let mut points: Vec<Candidate> = Vec::new();
            for (hour, fork) in hours.iter().zip(forks) {
                let time = start + jiff::SignedDuration::from_hours(*hour);
                let point = time.strftime("%Y%m%dT%H%M%SZ").to_string();
                // Mostly a chain; now and then a full or a branch.
                let parent = match fork { 0 => None, back => points.len().checked_sub(back).map(|n| points[n].point.clone()) };
                let damaged = parent.as_ref().is_some_and(|p| points.iter().any(|c| c.point == *p && c.damaged)) || hour % 11 == 0;
                points.push(Candidate { point, parent, taken_at: Some(time), damaged });
            }
            let [last, hourly, daily, weekly, monthly, yearly] = counts;
            let keep = Keep { last, hourly, daily, weekly, monthly, yearly };
            let plan = plan(&points, keep, 0, merge_after, now());
            let kept: BTreeSet<&str> = kept(&plan).into_iter().collect();
            proptest::prop_assert_eq!(kept.len() + plan.removed.len(), points.len());
            proptest::prop_assert!(kept.contains(points.last().unwrap().point.as_str()));
            let whole = points.iter().rfind(|p| !p.damaged);
            proptest::prop_assert!(whole.is_none_or(|p| kept.contains(p.point.as_str())));
            proptest::prop_assert!(plan.merged.iter().all(|m| points.iter().all(|p| p.point != m.point || !p.damaged)));
            for point in points.iter().filter(|p| kept.contains(p.point.as_str())) {
                let merged = plan.merged.iter().find(|m| m.point == point.point);
                let parent = merged.map_or(point.parent.as_deref(), |m| m.onto.as_deref());
                proptest::prop_assert!(parent.is_none_or(|parent| kept.contains(parent)));
            }
        }
    }
}
