//! The verdict: a pure function of what the witnesses said, and when.

use super::input::{Power, Work};
use super::reports::{HostReports, Reports, Trouble, View};
use super::settings::Settings;
use super::verdict::{State, Verdict, Witnessed};
use std::time::Duration;

/// The answers of the peers, counted.
#[derive(Debug, Default)]
struct Tally<'a> {
    reach_management: Vec<&'a str>,
    reach_storage: Vec<&'a str>,
    deny_storage: Vec<&'a str>,
    deny_both: Vec<&'a str>,
    waiting: Vec<&'a str>,
}

/// Why a host is held to be what it is; words are made of it only where somebody reads them.
#[derive(Debug)]
enum Why<'a> {
    Beats,
    NoStorage { peers: &'a [&'a str] },
    LateLibvirt(&'a Trouble, Duration),
    LateDisk(&'a Trouble, Duration),
    Patience(Duration),
    OnStorage { by: &'a [&'a str] },
    OnManagement { by: &'a [&'a str], not: &'a [&'a str] },
    OnlyPings,
    MonAnswers,
    Reached { by: &'a [&'a str] },
    FewPeers { deny: usize, needed: usize },
    Waiting { on: &'a [&'a str] },
    OnNeither { peers: &'a [&'a str] },
}

/// What to make of a host, with the evidence and the reason.
pub fn judge(now: Duration, host: &str, reports: &Reports, settings: &Settings) -> Verdict {
    let silence = reports.silence(host, settings);
    let none = HostReports::default();
    let known = reports.hosts.get(host).unwrap_or(&none);
    let tally = tally(now, host, known, reports, settings);
    let mon_answers = mon_answers(host, reports, settings);
    let (state, why) = weigh(now, host, known, &tally, reports, settings);
    let reason = format!("host {host}: {}", words(&why, silence, known));
    let evidence = evidence(now, known, reports, mon_answers.then_some(host));
    Verdict { host: host.to_owned(), state, silent_ms: millis(silence), evidence, reason }
}

/// What to make of a host, without the words.
pub(super) fn state_of(now: Duration, host: &str, reports: &Reports, settings: &Settings) -> State {
    let none = HostReports::default();
    let known = reports.hosts.get(host).unwrap_or(&none);
    weigh(now, host, known, &tally(now, host, known, reports, settings), reports, settings).0
}

fn weigh<'a>(
    now: Duration,
    host: &str,
    known: &'a HostReports,
    tally: &'a Tally<'_>,
    reports: &Reports,
    settings: &Settings,
) -> (State, Why<'a>) {
    match known.beats(reports.listened, settings) {
        true => of_beating(now, host, known, tally, reports, settings),
        false => {
            let silence = reports.silence(host, settings);
            of_silent(silence, known, tally, mon_answers(host, reports, settings), settings)
        }
    }
}

/// A mon that was asked since its host is suspected, and answered, is alive.
fn mon_answers(host: &str, reports: &Reports, settings: &Settings) -> bool {
    let from = reports.counts_from(host, settings);
    reports.mons.as_ref().is_some_and(|mons| mons.asked >= from && mons.answering.contains(host))
}

fn is_new(view: &View, now: Duration, settings: &Settings) -> bool {
    now.saturating_sub(view.asked) <= settings.view_age
}

/// Whether a witness reaches anybody but `host` on a network: else it is its own network that is broken.
fn network_works(
    now: Duration,
    witness: &str,
    host: &str,
    on: fn(&View) -> Option<bool>,
    reports: &Reports,
    settings: &Settings,
) -> bool {
    reports.hosts.iter().any(|(other, known)| {
        other != host
            && other != witness
            && known.views.get(witness).is_some_and(|view| is_new(view, now, settings) && on(view) == Some(true))
    })
}

fn tally<'a>(now: Duration, host: &str, known: &'a HostReports, reports: &Reports, settings: &Settings) -> Tally<'a> {
    let mut tally = Tally::default();
    let from = reports.counts_from(host, settings);
    let is_peer = |peer: &str| peer != host && reports.beats(peer, settings);
    for (peer, view) in known.views.iter().filter(|(peer, _)| is_peer(peer)) {
        if view.asked < from || !is_new(view, now, settings) {
            continue;
        }
        if view.management == Some(true) {
            tally.reach_management.push(peer);
        }
        if view.storage == Some(true) {
            tally.reach_storage.push(peer);
        }
        let works = |on: fn(&View) -> Option<bool>| network_works(now, peer, host, on, reports, settings);
        let no_storage = view.storage == Some(false) && works(|view| view.storage);
        let no_management = view.management == Some(false) && works(|view| view.management);
        if no_storage {
            tally.deny_storage.push(peer);
        }
        if no_storage && no_management {
            tally.deny_both.push(peer);
        }
    }
    for (peer, asked) in known.asked.iter().filter(|(peer, _)| is_peer(peer)) {
        let answered = known.views.get(peer).is_some_and(|view| {
            view.asked >= *asked && view.management.is_some() && view.storage.is_some() && is_new(view, now, settings)
        });
        if !answered {
            tally.waiting.push(peer);
        }
    }
    tally
}

fn of_beating<'a>(
    now: Duration,
    host: &str,
    known: &'a HostReports,
    tally: &'a Tally<'_>,
    reports: &Reports,
    settings: &Settings,
) -> (State, Why<'a>) {
    let cut = tally.reach_storage.is_empty() && tally.deny_storage.len() >= settings.peers_needed;
    if cut && reaches_nobody(now, host, reports, settings) {
        return (State::StorageCut, Why::NoStorage { peers: &tally.deny_storage });
    }
    let late = |trouble: &'a Option<Trouble>| {
        let since = |trouble: &Trouble| now.saturating_sub(trouble.since);
        trouble.as_ref().map(|trouble| (trouble, since(trouble))).filter(|(_, time)| *time >= settings.slow_after)
    };
    if let Some((trouble, time)) = late(&known.libvirt) {
        return (State::Stuck, Why::LateLibvirt(trouble, time));
    }
    if let Some((trouble, time)) = late(&known.disk) {
        return (State::Slow, Why::LateDisk(trouble, time));
    }
    (State::Healthy, Why::Beats)
}

/// Whether a host that beats says itself that it reaches no other host on the storage network.
fn reaches_nobody(now: Duration, host: &str, reports: &Reports, settings: &Settings) -> bool {
    let mut own = reports
        .hosts
        .values()
        .filter_map(|other| other.views.get(host))
        .filter(|view| is_new(view, now, settings) && view.storage.is_some())
        .peekable();
    own.peek().is_some() && own.all(|view| view.storage == Some(false))
}

fn of_silent<'a>(
    silence: Duration,
    known: &HostReports,
    tally: &'a Tally<'_>,
    mon_answers: bool,
    settings: &Settings,
) -> (State, Why<'a>) {
    if silence < settings.patience {
        return (State::Suspect, Why::Patience(settings.patience));
    }
    let (management, storage) = (&tally.reach_management, &tally.reach_storage);
    if management.is_empty() && storage.is_empty() && !mon_answers {
        return of_unreached(silence, tally, settings);
    }
    if management.is_empty() && !storage.is_empty() {
        return (State::ManagementCut, Why::OnStorage { by: storage });
    }
    let no_storage = tally.deny_storage.len() >= settings.peers_needed && storage.is_empty();
    if no_storage && !management.is_empty() {
        return (State::StorageCut, Why::OnManagement { by: management, not: &tally.deny_storage });
    }
    let osds_down = known.osds.is_some_and(|(_, up, down)| up == 0 && down > 0);
    if osds_down && silence >= settings.stuck_after {
        return (State::Stuck, Why::OnlyPings);
    }
    let why = if management.is_empty() { Why::MonAnswers } else { Why::Reached { by: management } };
    (State::UnreachableFromHere, why)
}

/// A silent host that nobody reaches.
fn of_unreached<'a>(silence: Duration, tally: &'a Tally<'_>, settings: &Settings) -> (State, Why<'a>) {
    let (deny, needed) = (tally.deny_both.len(), settings.peers_needed);
    if deny < needed {
        return (State::Suspect, Why::FewPeers { deny, needed });
    }
    if !tally.waiting.is_empty() && silence < settings.patience + settings.answer_wait {
        return (State::Suspect, Why::Waiting { on: &tally.waiting });
    }
    (State::Dead, Why::OnNeither { peers: &tally.deny_both })
}

/// The reason for people.
fn words(why: &Why<'_>, silence: Duration, known: &HostReports) -> String {
    let silent = match known.beat {
        Some(_) => format!("silent for {}", seconds(silence)),
        None => "not heard since the watch began".to_owned(),
    };
    let late = |what: &str, trouble: &Trouble, time: &Duration| {
        format!("{what} {} for {}", says(&trouble.says), seconds(*time))
    };
    match why {
        Why::Beats => "it beats".to_owned(),
        Why::NoStorage { peers } => {
            format!("it beats, reaches nobody on the storage network, and {} do not reach it there", names(peers))
        }
        Why::LateLibvirt(trouble, time) => format!("{}; its guests may run on", late("libvirt", trouble, time)),
        Why::LateDisk(trouble, time) => late("its disk", trouble, time),
        Why::Patience(patience) => format!("{silent}; the patience is {}", seconds(*patience)),
        Why::OnStorage { by } => format!("{silent}, but reached by {} on the storage network", names(by)),
        Why::OnManagement { by, not } => {
            let (by, not) = (names(by), names(not));
            format!("{silent}, reached by {by} on the management network, and not by {not} on the storage network")
        }
        Why::OnlyPings => format!("{silent}, it answers pings, and all its OSDs are down"),
        Why::MonAnswers => format!("{silent} here, but its mon answers"),
        Why::Reached { by } => format!("{silent} here, but reached by {}", names(by)),
        Why::FewPeers { deny, needed } => {
            format!("{silent}; {deny} of the {needed} peers that are needed do not reach it")
        }
        Why::Waiting { on } => format!("{silent}; {} has not said yet whether it is reached", names(on)),
        Why::OnNeither { peers } => format!("{silent}, and {} reach it on neither network", names(peers)),
    }
}

fn evidence(now: Duration, known: &HostReports, reports: &Reports, mon: Option<&str>) -> Vec<Witnessed> {
    let mut found = Vec::new();
    let mut add = |at: Duration, who: &str, says: String| {
        found.push(Witnessed { at_ms: millis(at), who: who.to_owned(), says });
    };
    match known.beat {
        Some((at, _)) => add(at, "heartbeat", "the last beat".to_owned()),
        None => add(reports.began.0, "heartbeat", "none since the watch began".to_owned()),
    }
    if let Some(why) = &known.lost {
        add(now, "heartbeat", format!("the stream ended: {why}"));
    }
    for (what, trouble) in [("disk", &known.disk), ("libvirt", &known.libvirt)] {
        if let Some(trouble) = trouble {
            add(trouble.since, "heartbeat", format!("{what} {}", says(&trouble.says)));
        }
    }
    for (peer, view) in &known.views {
        let word = |reached: Option<bool>| match reached {
            Some(true) => "reached",
            Some(false) => "not reached",
            None => "not known",
        };
        let says = format!("management network {}, storage network {}", word(view.management), word(view.storage));
        add(view.asked, &format!("peer {peer}"), says);
    }
    if let Some((at, up, down)) = known.osds {
        add(at, "Ceph", format!("{up} of its OSDs are up, {down} are down"));
    }
    if let Some((at, power)) = known.power {
        let says = match power {
            Power::On => "the power is on",
            Power::Off => "the power is off",
            Power::Unreachable => "no answer, which says nothing of the power",
        };
        add(at, "BMC", says.to_owned());
    }
    if let Some(mons) = &reports.mons {
        let (answer, all) = (mons.answering.len(), mons.members.len());
        let own = mon.map_or(String::new(), |_| ", its own among them".to_owned());
        add(mons.asked, "mons", format!("{answer} of {all} answer{own}; {} are in quorum", mons.quorum.len()));
    }
    found.sort();
    found
}

fn says(work: &Work) -> String {
    match work {
        Work::Done(took) => format!("answered in {}", seconds(*took)),
        Work::Late => "has been late".to_owned(),
        Work::Failed(why) => format!("has failed ({why})"),
    }
}

fn names(of: &[&str]) -> String {
    match of {
        [] => "nobody".to_owned(),
        [one] => (*one).to_owned(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
