//! What to do about a guest that ended, or whose disk failed: without a clock, and without any input or output.

use crate::guest::Ending;
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

/// How far back deaths count.
const WINDOW: Duration = Duration::from_secs(3600);
/// Deaths after which a guest is started where it was.
const HERE: usize = 3;
/// Deaths after which it is started elsewhere; with one more it is left alone.
const ELSEWHERE: usize = 6;
/// How long the second start waits; each further one twice as long.
const PAUSE: Duration = Duration::from_secs(5);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(60);
/// How often an attempt is repeated in silence.
const QUIET: u32 = 2;

/// How a guest was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// It shall run, its claim names this host, and there is no process of it.
    Down {
        /// The host.
        host: String,
        /// How it ended there.
        ending: Ending,
    },
    /// It stands still on this host, because its disk failed.
    Stalled {
        /// The host.
        host: String,
    },
    /// It runs, or need not: nothing is to be done.
    Fine,
}

/// Where a guest is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Where {
    /// On this host.
    On(String),
    /// On any but this.
    NotOn(String),
    /// On any.
    Anywhere,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Start it; answered by [`Rule::tried`].
    Start(Uuid, Where),
    /// Let it go on; answered by [`Rule::tried`].
    Resume(Uuid),
    /// Write down that it shall stay down.
    KeepDown(Uuid),
    /// People are told.
    Tell(Given),
}

/// What people are told of a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// It was found in need.
    Found(Uuid, Sight),
    /// It runs again, on this host.
    Mended(Uuid, String),
    /// That did not work; it is tried again.
    Again(Uuid, String),
    /// It died too often: it is left alone.
    Left(Uuid, usize),
    /// Nothing says how it ended, so nothing is done.
    Unclear(Uuid, String),
}

/// What is remembered of a guest that died or stalled.
#[derive(Clone, Debug)]
struct Case {
    host: String,
    /// When it died, within [`WINDOW`].
    deaths: Vec<Duration>,
    /// What it needs.
    need: Need,
    /// When that is to be tried.
    due: Duration,
    /// Attempts that failed since it was found.
    failed: u32,
    /// Whether an attempt is under way.
    busy: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// It is well, as far as is known.
    Nothing,
    /// It shall be started.
    Start,
    /// It shall go on.
    Resume,
    /// Nothing says how it ended: it waits for a word of it, or for a person.
    Word,
    /// It was given up, and a person shall look.
    Person,
}

/// What to do about guests that ended alone.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    cases: BTreeMap<Uuid, Case>,
}

/// How long a start waits after so many deaths.
fn pause_after(deaths: usize) -> Duration {
    match u32::try_from(deaths).unwrap_or(u32::MAX) {
        0 | 1 => Duration::ZERO,
        n => (PAUSE * (1 << (n - 2).min(8))).min(LONGEST),
    }
}

impl Rule {
    /// Takes in how a guest was found. The same again says nothing new.
    pub fn see(&mut self, now: Duration, guest: Uuid, sight: Sight) -> Vec<Order> {
        self.cases.retain(|_, case| {
            case.deaths.retain(|at| now.saturating_sub(*at) < WINDOW);
            case.need != Need::Nothing || case.busy || !case.deaths.is_empty()
        });
        let (host, need) = match &sight {
            Sight::Fine => {
                self.runs(guest);
                if let Some(case) = self.cases.get_mut(&guest).filter(|case| !case.busy) {
                    case.need = Need::Nothing;
                }
                return Vec::new();
            }
            Sight::Down { ending: Ending::ShutDown, .. } => {
                return vec![Order::KeepDown(guest), Order::Tell(Given::Found(guest, sight))];
            }
            Sight::Down { host, .. } => (host.clone(), Need::Start),
            Sight::Stalled { host } => (host.clone(), Need::Resume),
        };
        let fresh =
            Case { host: host.clone(), deaths: Vec::new(), need: Need::Nothing, due: now, failed: 0, busy: false };
        let case = self.cases.entry(guest).or_insert(fresh);
        let untold = matches!(sight, Sight::Down { ending: Ending::Untold, .. });
        let given_up = case.need == Need::Person || (case.need == Need::Word && untold);
        if case.busy || case.need == need || (given_up && need == Need::Start) {
            return Vec::new();
        }
        (case.host, case.need, case.due, case.failed) = (host, need, now, 0);
        let mut orders = vec![Order::Tell(Given::Found(guest, sight.clone()))];
        match sight {
            Sight::Down { host, ending: Ending::Untold } => {
                case.need = Need::Word;
                orders = vec![Order::Tell(Given::Unclear(guest, host))];
            }
            // Its host went down, or somebody ended it: that says nothing of the guest.
            Sight::Down { ending: Ending::Crashed, .. } => {
                case.deaths.push(now);
                case.due = now + pause_after(case.deaths.len());
                if case.deaths.len() > ELSEWHERE {
                    case.need = Need::Person;
                    orders.push(Order::Tell(Given::Left(guest, case.deaths.len())));
                }
            }
            _ => {}
        }
        orders
    }

    /// Somebody has a guest running, or wants it down: one that was given up is looked after again, as if nothing had been.
    pub fn runs(&mut self, guest: Uuid) {
        let given_up = |case: &Case| !case.busy && matches!(case.need, Need::Word | Need::Person);
        if self.cases.get(&guest).is_some_and(given_up) {
            self.cases.remove(&guest);
        }
    }

    /// It turned out during an attempt that it shall not run any more.
    pub fn unwanted(&mut self, guest: Uuid) {
        if let Some(case) = self.cases.get_mut(&guest) {
            (case.busy, case.need) = (false, Need::Nothing);
        }
    }

    /// What is due now, of guests on hosts that are well; each is asked for once until it is answered.
    pub fn due(&mut self, now: Duration, well: impl Fn(&str) -> bool) -> Vec<Order> {
        let due = self.cases.iter_mut().filter(|(_, case)| !case.busy && case.due <= now && well(&case.host));
        let orders = due.filter_map(|(guest, case)| {
            let order = match case.need {
                Need::Nothing | Need::Word | Need::Person => return None,
                Need::Resume => Order::Resume(*guest),
                Need::Start if case.deaths.len() > HERE => Order::Start(*guest, Where::NotOn(case.host.clone())),
                // It may be the place that does not work.
                Need::Start if case.failed > 0 => Order::Start(*guest, Where::Anywhere),
                Need::Start => Order::Start(*guest, Where::On(case.host.clone())),
            };
            case.busy = true;
            Some(order)
        });
        orders.collect()
    }

    /// What came of an attempt: the host where it runs, or why it does not.
    pub fn tried(&mut self, now: Duration, guest: Uuid, outcome: Result<String, String>) -> Vec<Order> {
        let Some(case) = self.cases.get_mut(&guest) else { return Vec::new() };
        case.busy = false;
        match outcome {
            Ok(host) => {
                case.host.clone_from(&host);
                case.need = Need::Nothing;
                vec![Order::Tell(Given::Mended(guest, host))]
            }
            Err(why) => {
                case.due = now + (PAUSE * (1 << case.failed.min(8))).min(LONGEST);
                case.failed += 1;
                let tell = case.failed == 1 || case.failed == QUIET + 1;
                tell.then_some(Order::Tell(Given::Again(guest, why))).into_iter().collect()
            }
        }
    }

    /// Attempts under way are not followed any more: they are asked for again.
    pub fn forget_attempts(&mut self) {
        self.cases.values_mut().for_each(|case| case.busy = false);
    }

    /// When something is due next, whatever its host.
    pub fn next(&self) -> Option<Duration> {
        let waits = |case: &&Case| !case.busy && matches!(case.need, Need::Start | Need::Resume);
        self.cases.values().filter(waits).map(|case| case.due).min()
    }
}
