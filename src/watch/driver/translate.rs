//! What the witnesses say, in the words of the brain.

use crate::watch::brain::{Input, Work};
use crate::watch::witness::{self, MonView, Report};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Work that takes longer than this is late, whether it ends after all or not.
const LATE: Duration = Duration::from_secs(1);
/// How long the answers of a majority of the mons are waited for before fewer are told of.
const ENOUGH: Duration = Duration::from_secs(1);
/// Questions to the mons that are remembered.
const ROUNDS: usize = 32;

/// Puts reports into the words of the brain.
#[derive(Debug)]
pub(super) struct Translator {
    /// The hosts of the mons.
    mons: BTreeSet<String>,
    /// Questions to them, and when they were asked; the newest is the last.
    rounds: VecDeque<(u64, Duration)>,
    /// The latest answer of each: to which question.
    views: BTreeMap<String, (u64, MonView)>,
    /// The last question of which too few answers were told.
    told_few: u64,
}

impl Translator {
    pub(super) fn new(mons: impl IntoIterator<Item = String>) -> Self {
        Translator { mons: mons.into_iter().collect(), rounds: VecDeque::new(), views: BTreeMap::new(), told_few: 0 }
    }

    /// A new question to the mons; its number.
    pub(super) fn ask(&mut self, now: Duration) -> u64 {
        let round = self.rounds.back().map_or(1, |(round, _)| round + 1);
        self.rounds.push_back((round, now));
        if self.rounds.len() > ROUNDS {
            self.rounds.pop_front();
        }
        round
    }

    /// A report; nothing where it says nothing that the brain thinks about.
    pub(super) fn report(&mut self, report: Report) -> Vec<Input> {
        match report {
            Report::Connected { host, boot } => vec![Input::Booted { host, boot_id: boot }],
            Report::Beat { host, beat } => {
                let libvirt = beat.libvirt.map_or(Work::Done(Duration::ZERO), work);
                vec![Input::Beat { host, disk: work(beat.disk), libvirt }]
            }
            Report::Garbled { .. } | Report::MonSilent { .. } => Vec::new(),
            Report::Ended { host, why } => vec![Input::BeatLost { host, why }],
            Report::Mon { host, round, view } => {
                self.views.insert(host, (round, view));
                self.majority().into_iter().collect()
            }
            Report::Osds { hosts } => {
                let input = |(host, (up, down)): (String, (u32, u32))| Input::Osds {
                    host,
                    up: up as usize,
                    down: down as usize,
                };
                hosts.into_iter().map(input).collect()
            }
        }
    }

    /// Time has come to `now`: tells of few mons where no more answer.
    pub(super) fn tick(&mut self, now: Duration) -> Option<Input> {
        let due = |(round, asked): &&(u64, Duration)| *round > self.told_few && now.saturating_sub(*asked) >= ENOUGH;
        let (round, asked) = *self.rounds.iter().rev().find(due)?;
        self.told_few = round;
        let answering = self.answering(round);
        let enough = answering.len() * 2 > self.members().len();
        (!enough).then(|| self.input(round, asked))
    }

    /// The newest question that a majority has answered.
    fn majority(&self) -> Option<Input> {
        let members = self.members().len();
        let answered = |(round, _): &&(u64, Duration)| self.answering(*round).len() * 2 > members;
        let (round, asked) = *self.rounds.iter().rev().find(answered)?;
        Some(self.input(round, asked))
    }

    fn input(&self, round: u64, asked: Duration) -> Input {
        let newest =
            self.views.values().filter(|(of, _)| *of >= round).max_by_key(|(of, view)| (*of, view.in_quorum()));
        let quorum = newest.filter(|(_, view)| view.in_quorum()).map(|(_, view)| view.quorum.iter().cloned().collect());
        Input::Mons {
            asked,
            members: self.members(),
            answering: self.answering(round),
            quorum: quorum.unwrap_or_default(),
        }
    }

    fn answering(&self, round: u64) -> BTreeSet<String> {
        self.views.iter().filter(|(_, (of, _))| *of >= round).map(|(host, _)| host.clone()).collect()
    }

    /// All mons, as they themselves know it; else as the inventory has it.
    fn members(&self) -> BTreeSet<String> {
        let newest = self.views.values().max_by_key(|(round, _)| *round).filter(|(_, view)| !view.mons.is_empty());
        newest.map_or_else(|| self.mons.clone(), |(_, view)| view.mons.iter().cloned().collect())
    }
}

fn work(work: witness::Work) -> Work {
    match work {
        witness::Work::Took(took) if took < LATE => Work::Done(took),
        witness::Work::Late(since) if since < LATE => Work::Done(since),
        witness::Work::Took(_) | witness::Work::Late(_) => Work::Late,
        witness::Work::Failed(why) => Work::Failed(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::witness::Beat;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn says(host: &str, round: u64, quorum: &[&str]) -> Report {
        let state = if quorum.is_empty() { "electing" } else { "peon" };
        let view = MonView {
            state: state.into(),
            quorum: names(quorum).into_iter().collect(),
            mons: names(&["h1", "h2", "h3"]).into_iter().collect(),
        };
        Report::Mon { host: host.into(), round, view }
    }

    fn mons(asked: u64, answering: &[&str], quorum: &[&str]) -> Input {
        let (asked, members) = (millis(asked), names(&["h1", "h2", "h3"]));
        Input::Mons { asked, members, answering: names(answering), quorum: names(quorum) }
    }

    #[test]
    fn work_is_late_after_a_second_whether_it_ends_or_not() {
        let table = [
            (witness::Work::Took(millis(999)), Work::Done(millis(999))),
            (witness::Work::Took(millis(1000)), Work::Late),
            (witness::Work::Late(millis(250)), Work::Done(millis(250))),
            (witness::Work::Late(millis(1250)), Work::Late),
            (witness::Work::Failed("gone".into()), Work::Failed("gone".into())),
        ];
        for (seen, expected) in table {
            assert_eq!(work(seen.clone()), expected, "{seen:?}");
        }
        let beat = Beat { number: 1, disk: witness::Work::Took(millis(1)), libvirt: None, domains: None };
        let input = Translator::new([]).report(Report::Beat { host: "h1".into(), beat });
        assert_eq!(
            input,
            [Input::Beat { host: "h1".into(), disk: Work::Done(millis(1)), libvirt: Work::Done(Duration::ZERO) }]
        );
    }

    #[test]
    fn the_answers_of_a_majority_are_told_at_once_and_what_comes_later_too() {
        let mut translator = Translator::new(["h1".to_owned(), "h2".to_owned(), "h3".to_owned()]);
        let round = translator.ask(millis(100));
        assert_eq!(translator.report(says("h1", round, &["h1", "h2", "h3"])), []);
        let all = ["h1", "h2", "h3"];
        assert_eq!(translator.report(says("h2", round, &all)), [mons(100, &["h1", "h2"], &all)]);
        assert_eq!(translator.report(says("h3", round, &all)), [mons(100, &all, &all)]);
        assert_eq!(translator.tick(millis(1200)), None);
    }

    #[test]
    fn a_mon_that_died_is_not_counted_for_what_it_said_before() {
        let mut translator = Translator::new(["h1".to_owned(), "h2".to_owned(), "h3".to_owned()]);
        let all = ["h1", "h2", "h3"];
        let before = translator.ask(millis(0));
        for host in all {
            translator.report(says(host, before, &all));
        }
        let after = translator.ask(millis(500));
        translator.report(says("h2", after, &[]));
        let electing = translator.report(says("h3", after, &[]));
        assert_eq!(electing, [mons(500, &["h2", "h3"], &[])]);
    }

    #[test]
    fn few_mons_are_told_of_once_they_had_their_time() {
        let mut translator = Translator::new(["h1".to_owned(), "h2".to_owned(), "h3".to_owned()]);
        let round = translator.ask(millis(0));
        assert_eq!(translator.report(says("h1", round, &[])), []);
        assert_eq!(translator.tick(millis(900)), None);
        assert_eq!(translator.tick(millis(1000)), Some(mons(0, &["h1"], &[])));
        assert_eq!(translator.tick(millis(1100)), None, "once is enough");
    }
}
