//! How much of a year the guests were there. Pure.

use super::document::{Incident, Stage};
use crate::ui::Table;
use jiff::Timestamp;
use jiff::civil::date;
use jiff::tz::TimeZone;
use serde::Serialize;
use std::collections::BTreeMap;

/// How much of a year one guest was there.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GuestAvailability {
    /// The guest.
    pub guest: String,
    /// Incidents that took it down.
    pub incidents: usize,
    /// Seconds it was down by them.
    pub down_seconds: f64,
    /// The share of the time it was there, from 0 to 1.
    pub availability: f64,
}

/// How much of a year the guests were there, by the incidents that are known.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Availability {
    /// The year.
    pub year: i16,
    /// Seconds of it that are over.
    pub seconds: f64,
    /// Incidents in it that took guests down.
    pub incidents: usize,
    /// Seconds in which any guest was down.
    pub down_seconds: f64,
    /// The share of the time in which every guest was there.
    pub availability: f64,
    /// The guests that were down, the worst first. All others were there all the time.
    pub guests: Vec<GuestAvailability>,
}

/// The seconds in which an incident had each of its guests down, from the first sign on.
fn downtimes(incident: &Incident, now: Timestamp) -> BTreeMap<&str, (f64, f64)> {
    let began = incident.began.as_millisecond();
    let mut down: BTreeMap<&str, Option<u64>> = BTreeMap::new();
    for step in &incident.steps {
        let Some(guest) = step.guest.as_deref() else { continue };
        let until = down.entry(guest).or_default();
        if matches!(step.stage, Stage::Running | Stage::Answering) {
            *until = Some(until.map_or(step.after_ms, |until| until.min(step.after_ms)));
        }
    }
    let last = now.as_millisecond();
    let at = |ms: i64| ms as f64 / 1000.0;
    let end = |until: Option<u64>| until.map_or(last, |ms| began.saturating_add_unsigned(ms));
    down.into_iter().map(|(guest, until)| (guest, (at(began), at(end(until))))).collect()
}

/// How much of a year was there, by these incidents. A guest that an incident has not brought back counts as down until
/// now.
pub fn availability(incidents: &[Incident], year: i16, now: Timestamp) -> Availability {
    let new_year = |year: i16| date(year, 1, 1).to_zoned(TimeZone::UTC).map_or(now, |zoned| zoned.timestamp());
    let second = |at: Timestamp| at.as_millisecond() as f64 / 1000.0;
    let (from, to) = (second(new_year(year)), second(new_year(year.saturating_add(1)).min(now)));
    let span = (to - from).max(0.0);
    let mut all: Vec<(f64, f64)> = Vec::new();
    let mut by_guest: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    let mut counted = 0;
    for incident in incidents {
        let downs = downtimes(incident, now);
        let inside = downs.iter().map(|(guest, (began, end))| (guest, (began.max(from), end.min(to))));
        let inside: Vec<_> = inside.filter(|(_, (began, end))| end > began).collect();
        counted += usize::from(!inside.is_empty());
        for (guest, interval) in inside {
            all.push(interval);
            by_guest.entry((*guest).to_owned()).or_default().push(interval);
        }
    }
    let share = |down: f64| if span > 0.0 { (1.0 - down / span).clamp(0.0, 1.0) } else { 1.0 };
    let mut guests: Vec<GuestAvailability> = by_guest
        .into_iter()
        .map(|(guest, intervals)| {
            let (incidents, down_seconds) = (intervals.len(), covered(intervals));
            GuestAvailability { guest, incidents, down_seconds, availability: share(down_seconds) }
        })
        .collect();
    guests.sort_by(|a, b| b.down_seconds.total_cmp(&a.down_seconds).then_with(|| a.guest.cmp(&b.guest)));
    let down_seconds = covered(all);
    Availability { year, seconds: span, incidents: counted, down_seconds, availability: share(down_seconds), guests }
}

/// Seconds that any of these intervals covers.
fn covered(mut intervals: Vec<(f64, f64)>) -> f64 {
    intervals.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut sum, mut until) = (0.0, f64::NEG_INFINITY);
    for (from, to) in intervals {
        sum += (to - from.max(until)).max(0.0);
        until = until.max(to);
    }
    sum
}

/// A share in per cent, with as many digits as tell it from all of it.
fn nines(availability: f64) -> String {
    if availability >= 1.0 {
        return "100 %".to_owned();
    }
    let text = format!("{:.6}", availability * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

impl Availability {
    /// It as a table for people.
    pub fn table(&self) -> String {
        let mut table = Table::new(["", "incidents", "down", "availability"]).right(1).right(2).right(3);
        let mut row = |what: &str, incidents: usize, down: f64, share| {
            table.row([what.to_owned(), incidents.to_string(), format!("{down:.1} s"), nines(share)]);
        };
        row("any guest", self.incidents, self.down_seconds, self.availability);
        for guest in &self.guests {
            row(&guest.guest, guest.incidents, guest.down_seconds, guest.availability);
        }
        let days = self.seconds / 86_400.0;
        format!("{} so far ({days:.0} days), by the incidents that are known\n\n{}", self.year, table.render())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Step;
    use super::*;
    use uuid::Uuid;

    fn incident(began: &str, guests: &[(&str, Option<u64>)]) -> Incident {
        let mut steps = Vec::new();
        for (guest, back) in guests {
            let stages = std::iter::once((0, Stage::Planned)).chain(back.map(|ms| (ms, Stage::Running)));
            for (after_ms, stage) in stages {
                let (number, guest) = (steps.len() as u64, Some((*guest).to_owned()));
                steps.push(Step { number, after_ms, stage, guest, text: String::new(), evidence: Vec::new() });
            }
        }
        let (host, why, by) = ("h1".into(), String::new(), String::new());
        let began = began.parse().unwrap();
        Incident { number: 1, id: Uuid::nil(), host, why, by, began, steps, outcome: None }
    }

    #[test]
    fn the_time_down_is_from_the_first_sign_to_running() {
        let incidents = [
            incident("2025-12-31T23:59:58Z", &[("db", Some(5_000))]),
            incident("2026-03-01T00:00:00Z", &[("web", Some(2_500)), ("db", Some(4_000))]),
            // At the same time: it counts once for the rack.
            incident("2026-03-01T00:00:01Z", &[("mail", Some(2_000))]),
            // A host without guests takes nobody down.
            incident("2026-03-02T00:00:00Z", &[]),
        ];
        let year = availability(&incidents, 2026, "2027-06-01T00:00:00Z".parse().unwrap());
        assert_eq!((year.seconds, year.incidents, year.down_seconds), (365.0 * 86_400.0, 3, 7.0));
        let guests: Vec<(&str, usize, f64)> =
            year.guests.iter().map(|g| (g.guest.as_str(), g.incidents, g.down_seconds)).collect();
        assert_eq!(guests, [("db", 2, 7.0), ("web", 1, 2.5), ("mail", 1, 2.0)]);
        assert_eq!(nines(year.availability), "99.999978 %");
        assert_eq!(availability(&incidents, 2025, "2026-06-01T00:00:00Z".parse().unwrap()).down_seconds, 2.0);
    }

    #[test]
    fn a_guest_that_did_not_come_back_is_down_until_now_and_no_incident_is_all_of_it() {
        let gone = [incident("2026-01-01T00:00:00Z", &[("web", None)])];
        let year = availability(&gone, 2026, "2026-01-01T00:00:40Z".parse().unwrap());
        assert_eq!((year.down_seconds, year.availability), (40.0, 0.0));
        let none = availability(&[], 2026, "2026-05-01T00:00:00Z".parse().unwrap());
        assert_eq!((none.availability, nines(none.availability)), (1.0, "100 %".to_owned()));
        // Before the year has begun there is nothing to divide by.
        assert_eq!(availability(&gone, 2030, "2026-05-01T00:00:00Z".parse().unwrap()).availability, 1.0);
    }
}
