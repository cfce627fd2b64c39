//! One answer from those of many hosts.

use crate::error::{Failure, Kind};
use std::collections::BTreeMap;

/// What every host answered, or the first failure with the others beneath it.
///
/// # Errors
/// When a host failed.
pub fn together<T>(answers: BTreeMap<String, Result<T, Failure>>) -> Result<BTreeMap<String, T>, Failure> {
    let mut all = BTreeMap::new();
    let mut failures = Vec::new();
    for (host, answer) in answers {
        match answer {
            Ok(answer) => drop(all.insert(host, answer)),
            Err(failure) => failures.push(failure),
        }
    }
    one_of(failures).map_or(Ok(all), Err)
}

/// The failure that counts, with the others beneath it: an unknown outcome first, then what went wrong, then what was
/// only not begun.
pub(super) fn one_of(mut failures: Vec<Failure>) -> Option<Failure> {
    failures.sort_by_key(|f| match f.kind {
        Kind::Unknown => 0,
        Kind::Interrupted => 2,
        _ => 1,
    });
    let mut failures = failures.into_iter();
    let first = failures.next()?;
    Some(
        failures
            .filter(|f| f.kind != Kind::Interrupted)
            .fold(first, |all, other| all.hint(format!("also failed: {other}"))),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_that_failed_is_named_and_what_was_only_not_begun_comes_last() {
        let answers = |failures: Vec<Failure>| {
            let failed = failures.into_iter().enumerate().map(|(n, failure)| (format!("h{n}"), Err(failure)));
            failed.chain([("h9".to_owned(), Ok(1))]).collect::<BTreeMap<String, Result<i32, Failure>>>()
        };
        assert_eq!(together(answers(Vec::new())).unwrap(), BTreeMap::from([("h9".to_owned(), 1)]));
        let interrupted = || Failure::msg(Kind::Interrupted, "interrupted");
        let failure =
            together(answers(vec![interrupted(), Failure::failed("one"), Failure::failed("two")])).unwrap_err();
        assert_eq!(
            (failure.to_string().as_str(), failure.hints.as_slice()),
            ("one", &["also failed: two".to_owned()][..])
        );
        let unknown = Failure::msg(Kind::Unknown, "three");
        assert_eq!(together(answers(vec![Failure::failed("one"), unknown])).unwrap_err().kind, Kind::Unknown);
        assert_eq!(together(answers(vec![interrupted(), interrupted()])).unwrap_err().kind, Kind::Interrupted);
    }
}
