//! Names: of points, and of the snapshots that are their base in the cluster.

use crate::guest::snapshots::BACKUP_BASE;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};
use rackhand_repository::PointSummary;

/// How a point is named: the second it was begun, in UTC.
const FORMAT: &str = "%Y%m%dT%H%M%SZ";
/// The length of that.
const LENGTH: usize = 16;
/// How far another machine's clock may be ahead.
const AHEAD: SignedDuration = SignedDuration::from_hours(1);

/// When a point was begun, by its name.
pub(super) fn begun(point: &str) -> Option<Timestamp> {
    let plain = point.get(..LENGTH)?;
    jiff::civil::DateTime::strptime(FORMAT, plain).ok()?.to_zoned(TimeZone::UTC).ok().map(|at| at.timestamp())
}

/// The name of a new point: now, or a second after the newest one where the clock was set back.
pub(super) fn name(now: Timestamp, newest: Option<&str>) -> String {
    let after = newest.and_then(begun).and_then(|at| at.checked_add(Span::new().seconds(1)).ok());
    let at = after.map_or(now, |after| after.max(now));
    at.to_zoned(TimeZone::UTC).strftime(FORMAT).to_string()
}

/// Whether a point lies in the future, so that the clock that named it was wrong.
pub(super) fn ahead(point: &str, now: Timestamp) -> bool {
    begun(point).is_some_and(|at| at.duration_since(now) > AHEAD)
}

/// What the names of a repository's bases begin with.
fn prefix(repository: &str) -> String {
    format!("{BACKUP_BASE}{repository}.")
}

/// The point that a snapshot is the base of, if it is one of this repository: the name of another repository may begin the
/// same way.
pub(super) fn of<'a>(repository: &str, snapshot: &'a str) -> Option<&'a str> {
    let point = snapshot.strip_prefix(&prefix(repository))?;
    let (_, suffix) = point.split_at_checked(LENGTH)?;
    let number = |suffix: &str| !suffix.is_empty() && suffix.bytes().all(|b| b.is_ascii_digit());
    let whole = suffix.is_empty() || suffix.strip_prefix('-').is_some_and(number);
    begun(point).filter(|_| whole).map(|_| point)
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
        assert!(ahead("20261128T023001Z", now) && !ahead("20261128T023000Z", now));
        assert_eq!((begun("debian-12@3"), begun("20261328T013000Z")), (None, None));
    }

    #[test]
    fn a_base_is_of_one_repository_also_where_the_name_of_another_begins_the_same() {
        let names = ["vault", "vault.b", "vault.20261128T013000Z"];
        for repository in names {
            for point in ["20261128T013000Z", "20261128T013000Z-2"] {
                let base = snapshot(repository, point);
                let owners: Vec<_> = names.into_iter().filter(|name| of(name, &base).is_some()).collect();
                assert_eq!((owners.as_slice(), of(repository, &base)), (&[repository][..], Some(point)));
            }
        }
        assert_eq!((of("vault", "before-upgrade"), of("vault", "rackhand-backup.vault.mine")), (None, None));
    }
}
