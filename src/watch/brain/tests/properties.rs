//! What holds for the verdict whatever the witnesses say, and in whatever order.

use crate::watch::brain::{Input, Power, Reports, Settings, State, Verdict, Work, judge};
use proptest::prelude::*;
use std::time::Duration;

const HOSTS: [&str; 6] = ["h1", "h2", "h3", "h4", "h5", "h6"];
const SUSPECT: &str = "h1";

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn reached() -> impl Strategy<Value = Option<bool>> {
    prop_oneof![3 => Just(Some(false)), 1 => Just(Some(true)), 1 => Just(None)]
}

/// Answers about the suspect and about one another, each asked at its own time.
fn answers() -> impl Strategy<Value = Vec<Input>> {
    let view = (1..6usize, 0..6usize, 0..900u64, reached(), reached());
    let views = prop::collection::vec(view, 0..24).prop_map(|views| {
        let one = |(n, (from, of, asked, management, storage)): (u64, (usize, usize, u64, _, _))| {
            let of = if of == from { 0 } else { of };
            let (from, of) = (HOSTS[from].to_owned(), HOSTS[of].to_owned());
            Input::View { from, of, asked: ms(10_000 + asked / 50 * 50 + n % 2), management, storage }
        };
        (0..).zip(views).map(one).collect::<Vec<_>>()
    });
    (views, any::<bool>(), any::<bool>()).prop_map(|(mut all, bmc, osds)| {
        if bmc {
            all.push(Input::Power { host: SUSPECT.to_owned(), power: Power::Off });
        }
        if osds {
            all.push(Input::Osds { host: SUSPECT.to_owned(), up: 0, down: 2 });
        }
        all
    })
}

/// The suspect has been silent since 10 s, and the peers were asked at 10.4 s.
fn verdict(answers: &[Input], silent: u64, suspect_beats: bool) -> Verdict {
    let settings = Settings::fastest();
    let mut reports = Reports::new(HOSTS.map(str::to_owned), Duration::ZERO);
    let beat = |host: &str| Input::Beat { host: host.to_owned(), disk: Work::Done(ms(2)), libvirt: Work::Done(ms(2)) };
    let mut now = Duration::ZERO;
    while now <= ms(10_000 + silent) {
        reports.listen(now, &settings);
        for host in HOSTS {
            if host != SUSPECT || suspect_beats || now < ms(10_000) {
                reports.take(now, &beat(host));
            }
        }
        if now == ms(10_400)
            && !suspect_beats
            && let Some(suspect) = reports.hosts.get_mut(SUSPECT)
        {
            suspect.asked = HOSTS[1..].iter().map(|peer| ((*peer).to_owned(), now)).collect();
        }
        now += ms(100);
    }
    for answer in answers {
        reports.take(now, answer);
    }
    judge(now, SUSPECT, &reports, &settings)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_order_of_reports_does_not_matter(
        (given, other) in answers().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        silent in 0u64..3000,
    ) {
        prop_assert_eq!(verdict(&given, silent, false), verdict(&other, silent, false));
    }

    /// While the watch waits for peers that it has asked, an answer that is lost never makes a host dead that it would
    /// have kept alive.
    #[test]
    fn a_lost_answer_never_makes_a_host_dead(all in answers(), lost in any::<prop::sample::Index>(), silent in 900u64..1600) {
        prop_assume!(!all.is_empty());
        let mut fewer = all.clone();
        // All that this witness said is lost, not only its last word.
        if let Input::View { from: gone, .. } = &all[lost.index(all.len())] {
            fewer.retain(|input| !matches!(input, Input::View { from, .. } if from == gone));
        }
        if verdict(&fewer, silent, false).state == State::Dead {
            prop_assert_eq!(verdict(&all, silent, false).state, State::Dead);
        }
    }

    #[test]
    fn a_host_that_beats_is_never_dead_whatever_others_say(all in answers(), silent in 0u64..3000) {
        let state = verdict(&all, silent, true).state;
        prop_assert!(matches!(state, State::Healthy | State::StorageCut), "{state}");
    }

    #[test]
    fn nobody_is_dead_within_the_patience_or_without_two_peers(all in answers(), silent in 0u64..3000) {
        let verdict = verdict(&all, silent, false);
        if verdict.state == State::Dead {
            prop_assert!(silent >= 700, "{verdict:?}");
            let peers: std::collections::BTreeSet<_> = all.iter().filter_map(|input| match input {
                Input::View { from, of, management: Some(false), storage: Some(false), .. } if of == SUSPECT => Some(from),
                _ => None,
            }).collect();
            prop_assert!(peers.len() >= 2, "{verdict:?}");
            prop_assert!(verdict.evidence.len() > 2);
        }
    }
}
