//! How old what could be restored of each guest is.

use super::point::{ahead, begun};
use jiff::Timestamp;
use rackhand_repository::PointSummary;
use serde::Serialize;
use std::time::Duration;
use uuid::Uuid;

/// What is to be thought of a guest's backups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Its newest restorable point is young enough.
    Ok,
    /// Its newest restorable point is too old.
    Old,
    /// It has no restorable point.
    Missing,
}

/// The newest restorable point of a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Age {
    /// The guest's name.
    pub guest: String,
    /// The point, if there is one.
    pub point: Option<String>,
    /// Its age in seconds.
    pub age_seconds: Option<u64>,
    /// What is to be thought of it.
    pub verdict: Verdict,
    /// What is wrong with points that are newer than it.
    pub problem: Option<String>,
}

/// Looks at the points of each guest. A point that lies more than an hour in the future says nothing about its age: it is told
/// as a problem, and does not count.
pub fn ages<'a>(
    guests: impl IntoIterator<Item = (&'a str, Uuid)>,
    points: &[PointSummary],
    now: Timestamp,
    limit: Duration,
) -> Vec<Age> {
    let one = |(name, uuid): (&str, Uuid)| {
        let uuid = uuid.to_string();
        let mut own: Vec<&PointSummary> = points.iter().filter(|point| point.guest == uuid).collect();
        own.sort_by(|a, b| b.point.cmp(&a.point));
        let future = own.iter().find(|point| ahead(&point.point, now));
        let future = future.map(|point| format!("point {} lies in the future: a clock was wrong", point.point));
        own.retain(|point| !ahead(&point.point, now));
        let found = own.iter().position(|point| point.problem.is_none());
        let problem = own.first().and_then(|newest| newest.problem.clone()).or(future);
        let point = found.map(|at| own[at].point.clone());
        let at = point.as_deref().and_then(begun);
        let age = at.map(|at| u64::try_from(now.duration_since(at).as_secs()).unwrap_or(0));
        let verdict = match age {
            None => Verdict::Missing,
            Some(age) if age > limit.as_secs() => Verdict::Old,
            Some(_) => Verdict::Ok,
        };
        Age { guest: name.to_owned(), point, age_seconds: age, verdict, problem }
    };
    guests.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackhand_repository::{Consistency, PointKind};

    fn point(guest: Uuid, name: &str, problem: Option<&str>) -> PointSummary {
        PointSummary {
            cluster: "c".into(),
            guest: guest.to_string(),
            name: "web".into(),
            point: name.into(),
            parent: None,
            taken_at: None,
            kind: PointKind::Full,
            consistency: Consistency::Crash,
            disks: 1,
            image_bytes: 0,
            stored_bytes: 0,
            chain: 1,
            problem: problem.map(str::to_owned),
        }
    }

    #[test]
    fn a_guest_is_as_old_as_its_newest_point_that_can_be_restored() {
        let (a, b, c) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
        let points = [
            point(a, "20261127T010000Z", None),
            point(a, "20261128T010000Z", None),
            point(b, "20261126T010000Z", None),
            point(b, "20261128T010000Z", Some("a file is missing")),
        ];
        let now = "2026-11-28T02:00:00Z".parse().unwrap();
        let found = ages([("a", a), ("b", b), ("c", c)], &points, now, Duration::from_secs(26 * 3600));
        assert_eq!(
            found.iter().map(|age| age.verdict).collect::<Vec<_>>(),
            [Verdict::Ok, Verdict::Old, Verdict::Missing]
        );
        assert_eq!((found[0].age_seconds, found[0].problem.clone()), (Some(3600), None));
        assert_eq!(found[1].point.as_deref(), Some("20261126T010000Z"));
        assert_eq!(found[1].problem.as_deref(), Some("a file is missing"));
    }

    #[test]
    fn a_point_from_the_future_does_not_hide_that_nothing_was_made_since() {
        let a = Uuid::from_u128(1);
        let points = [point(a, "20261120T010000Z", None), point(a, "20270101T010000Z", None)];
        let now = "2026-11-28T02:00:00Z".parse().unwrap();
        let found = ages([("a", a)], &points, now, Duration::from_secs(26 * 3600)).remove(0);
        assert_eq!((found.verdict, found.point.as_deref()), (Verdict::Old, Some("20261120T010000Z")));
        let problem = "point 20270101T010000Z lies in the future: a clock was wrong";
        assert_eq!(found.problem.as_deref(), Some(problem));
    }
}
