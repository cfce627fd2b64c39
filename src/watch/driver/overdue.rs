//! Maintenance that should be over: people are told, again and again, until it is ended or prolonged.

use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// How often it is told again.
const AGAIN: Duration = Duration::from_secs(600);

/// What was told of which host, and when.
#[derive(Debug, Default)]
pub(super) struct Overdue {
    told: BTreeMap<String, Duration>,
}

impl Overdue {
    /// What is to be told now: each host whose maintenance has passed its end, and was not told of lately.
    pub(super) fn due(&mut self, now: Duration, overdue: &BTreeMap<String, Timestamp>) -> Vec<(String, String)> {
        self.told.retain(|host, _| overdue.contains_key(host));
        let mut texts = Vec::new();
        for (host, until) in overdue {
            if self.told.get(host).is_some_and(|told| now.saturating_sub(*told) < AGAIN) {
                continue;
            }
            self.told.insert(host.clone(), now);
            let text = format!(
                "the maintenance of {host} was to end at {until:.0} and has not been ended: the host takes no guests and is not \
                 fenced; end it with `rackhand host maintenance {host} off`"
            );
            texts.push((host.clone(), text));
        }
        texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overdue_maintenance_is_told_at_once_and_every_ten_minutes() {
        let mut overdue = Overdue::default();
        let hosts = BTreeMap::from([("h2".to_owned(), Timestamp::UNIX_EPOCH)]);
        let seconds = Duration::from_secs;
        assert_eq!(overdue.due(seconds(1), &hosts).len(), 1);
        assert!(overdue.due(seconds(600), &hosts).is_empty());
        assert_eq!(overdue.due(seconds(601), &hosts).len(), 1);
        // Prolonged, and over once more.
        assert!(overdue.due(seconds(602), &BTreeMap::new()).is_empty());
        let told = overdue.due(seconds(603), &hosts);
        assert!(told[0].1.contains("was to end at 1970-01-01T00:00:00Z"), "{told:?}");
    }
}
