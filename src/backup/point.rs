//! Names: of points, and of the snapshots that are their base in the cluster.

use crate::guest::snapshots::BACKUP_BASE;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use rackhand_repository::PointSummary;

/// How a point is named: the second it was begun, in UTC.
const FORMAT: &str = "%Y%m%dT%H%M%SZ";

/// When a point was begun, by its name.
pub(super) fn begun(point: &str) -> Option<Timestamp> {
    let plain = point.get(..16)?;
    jiff::civil::DateTime::strptime(FORMAT, plain).ok()?.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp())
}

/// The name of a new point: now, or a second after the newest one where the clock was set back.
pub(super) fn name(now: Timestamp, newest: Option<&str>) -> String {
    let after = newest.and_then(begun).and_then(|at| at.checked_add(Span::new().seconds(1)).ok());
    let at = after.map_or(now, |after| after.max(now));
    at.to_zoned(TimeZone::UTC).strftime(FORMAT).to_string()
}

/// What the names of a repository's bases begin with.
pub(super) fn prefix(repository: &str) -> String {
    format!("{BACKUP_BASE}{repository}.")
}

/// The snapshot that is kept in the cluster as the base of what follows a point.
pub(super) fn snapshot(repository: &str, point: &str) -> String {
    format!("{}{point}", prefix(repository))
}

/// The newest point that may carry another (whole, its chain not too long) and whose snapshot every disk still has.
pub(super) fn base<'a>(
    points: &'a [PointSummary],
    repository: &str,
    on_every_disk: impl Fn(&str) -> bool,
) -> Option<&'a PointSummary> {
    let whole = points.iter().filter(|point| point.may_carry());
    whole.max_by(|a, b| a.point.cmp(&b.point)).filter(|point| on_every_disk(&snapshot(repository, &point.point)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_point_is_later_than_the_newest_one_whatever_the_clock_says() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let now = at("2026-11-28T01:30:00.7Z");
        assert_eq!(name(now, None), "20261128T013000Z");
        assert_eq!(name(now, Some("20261127T013000Z")), "20261128T013000Z");
        assert_eq!(name(now, Some("20261128T013000Z")), "20261128T013001Z");
        assert_eq!(name(now, Some("20270101T000000Z-2")), "20270101T000001Z");
        assert_eq!(begun("20261128T013000Z"), Some(at("2026-11-28T01:30:00Z")));
        assert_eq!((begun("debian-12@3"), begun("20261328T013000Z")), (None, None));
    }
}
