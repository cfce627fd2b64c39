//! How long the watch is held back still, by the watcher's own clock.

use super::documents::Disarmed;
use std::time::Duration;
use uuid::Uuid;

/// A time without acting, as one watcher sees it pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Countdown {
    pub(super) disarmed: Disarmed,
    /// When this watcher saw it first, and how much had passed then.
    seen: (Duration, Duration),
    /// How much of it was written down last.
    noted: Duration,
}

/// How often the time that has passed is written down.
const NOTE: Duration = Duration::from_secs(30);

impl Countdown {
    /// What was found, after what was known: time that this watcher has seen pass is not lost.
    pub(super) fn found(known: Option<Countdown>, found: Option<Disarmed>, now: Duration) -> Option<Countdown> {
        let found = found?;
        let noted = Duration::from_millis(found.passed_ms);
        match known.filter(|known| known.disarmed.id == found.id) {
            Some(known) => {
                let ahead = noted > known.passed(now);
                let seen = if ahead { (now, noted) } else { known.seen };
                Some(Countdown { disarmed: found, seen, noted: noted.max(known.noted) })
            }
            None => Some(Countdown { disarmed: found, seen: (now, noted), noted }),
        }
    }

    /// How much has passed.
    pub(super) fn passed(&self, now: Duration) -> Duration {
        self.seen.1 + now.saturating_sub(self.seen.0)
    }

    /// Whether it is over.
    pub(super) fn is_over(&self, now: Duration) -> bool {
        self.passed(now) >= Duration::from_millis(self.disarmed.for_ms)
    }

    /// What to write down, when it is time to.
    pub(super) fn note(&mut self, now: Duration) -> Option<(Uuid, Duration)> {
        let passed = self.passed(now);
        if passed.saturating_sub(self.noted) < NOTE {
            return None;
        }
        self.noted = passed;
        Some((self.disarmed.id, passed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_time_that_a_watcher_sees_pass_counts() {
        let seconds = Duration::from_secs;
        let mut found = Disarmed::new(seconds(100), "a new switch".into(), "ann@admin".into());
        let mut first = Countdown::found(None, Some(found.clone()), seconds(10)).unwrap();
        assert_eq!((first.passed(seconds(50)), first.is_over(seconds(50))), (seconds(40), false));
        assert_eq!(first.note(seconds(39)), None);
        assert_eq!(first.note(seconds(50)), Some((found.id, seconds(40))));
        assert_eq!(first.note(seconds(51)), None);
        // Another watcher goes on from what was written down, whenever it begins.
        found.passed_ms = 40_000;
        let second = Countdown::found(None, Some(found.clone()), seconds(5000)).unwrap();
        assert_eq!(second.passed(seconds(5000)), seconds(40));
        assert!(!second.is_over(seconds(5059)) && second.is_over(seconds(5060)));
        // A look at the same one again does not begin anew, and another one does.
        let again = Countdown::found(Some(second), Some(found), seconds(5050)).unwrap();
        assert!(again.is_over(seconds(5060)));
        let other = Disarmed::new(seconds(100), "more".into(), "ann@admin".into());
        let other = Countdown::found(Some(again), Some(other), seconds(5060)).unwrap();
        assert_eq!(other.passed(seconds(5060)), Duration::ZERO);
        assert_eq!(Countdown::found(Some(other), None, seconds(5060)), None);
    }
}
