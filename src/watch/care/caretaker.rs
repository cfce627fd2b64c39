//! Looks after guests that end alone, while this watcher leads and their hosts are well.

use super::ears::{self, Heard};
use super::rule::{Given, Order, Rule, Sight, Where};
use crate::error::{Failure, Kind};
use crate::guest::claim::{Claim, Phase};
use crate::guest::placement::place;
use crate::guest::{
    Desired, DomainInventory, Ending, Guest, GuestContext, PlanningInput, Stage, Started, endings, need, restart_at,
    resume, stays_down,
};
use crate::libvirt::{DomainState, Lifecycle};
use crate::watch::brain::{Event, EventKind};
use crate::watch::driver::Standing;
use futures::FutureExt;
use futures::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

/// How long what is heard is gathered before it is looked at: one look for all guests of a storm.
const GATHER: Duration = Duration::from_millis(200);
/// Time before a look that failed is made again, and before a guest that was mended is looked at once more.
const AGAIN: Duration = Duration::from_secs(5);
/// The longest time before a guest of which nothing can be told yet is looked at again.
const LONGEST: Duration = Duration::from_secs(60);
/// Looks in vain after which people are told that a host cannot tell how a guest ended.
const IN_VAIN: u32 = 3;
/// How long a host may take to tell how its guests ended: those of the others wait for it.
const TELLS: Duration = Duration::from_secs(5);
/// Attempts under way at most; each takes all guests that are due.
const ATTEMPTS: usize = 4;
/// How long an attempt may take: a QEMU that died is waited for until the storage has forgotten it.
const ATTEMPT: Duration = Duration::from_secs(300);
/// Events that may wait.
const QUEUE: usize = 4096;

/// What came of an attempt, by guest: where it runs, or nothing where it shall not run any more.
pub(super) type Outcomes = Vec<(Uuid, Result<Option<String>, String>)>;

/// What a look at guests gives.
struct Look {
    sights: BTreeMap<Uuid, Sight>,
    /// Guests to be looked at again.
    later: BTreeMap<Uuid, Later>,
    input: PlanningInput,
}

/// A guest of which nothing can be told yet: its host is silent, or others are at it.
struct Later {
    /// What was heard of it.
    heard: Option<Lifecycle>,
    /// The host that cannot tell how it ended.
    mute: Option<String>,
}

/// What is to be looked at.
#[derive(Debug, Default)]
struct Agenda {
    hosts: BTreeSet<String>,
    /// Guests, with what libvirt said of their end.
    guests: BTreeMap<Uuid, Option<Lifecycle>>,
    at: Option<Instant>,
}

impl Agenda {
    fn due(&mut self, at: Instant) {
        self.at = Some(self.at.map_or(at, |before| before.min(at)));
    }
}

/// Looks after guests that end alone.
#[derive(Debug)]
pub struct Caretaker {
    rack: GuestContext,
    news: mpsc::Sender<Event>,
    rule: Rule,
    began: Instant,
    agenda: Agenda,
    names: BTreeMap<Uuid, String>,
    /// How often a guest was looked at in vain.
    vain: BTreeMap<Uuid, u32>,
    attempts: JoinSet<Outcomes>,
}

impl Caretaker {
    /// Looks after the guests of this rack, and tells of it.
    pub fn new(rack: GuestContext, news: mpsc::Sender<Event>) -> Self {
        Caretaker {
            rack,
            news,
            rule: Rule::default(),
            began: Instant::now(),
            agenda: Agenda::default(),
            names: BTreeMap::new(),
            vain: BTreeMap::new(),
            attempts: JoinSet::new(),
        }
    }

    /// Does so until nobody says any more how it stands. `asked` names hosts whose guests are to be looked at.
    pub async fn run(mut self, mut standing: watch::Receiver<Standing>, mut asked: mpsc::Receiver<String>) {
        let (tell, mut heard) = mpsc::channel(QUEUE);
        let mut listeners = JoinSet::new();
        loop {
            let acts = standing.borrow_and_update().acts;
            if acts && listeners.is_empty() {
                for hypervisor in self.rack.hypervisors.all() {
                    listeners.spawn(ears::listen(std::sync::Arc::clone(hypervisor), tell.clone()));
                }
            } else if !acts && !listeners.is_empty() {
                // Another one looks after them now; what is under way ends by itself or is dropped, as if this one had died.
                listeners.abort_all();
                while listeners.join_next().await.is_some() {}
                self.attempts.abort_all();
                while self.attempts.join_next().await.is_some() {}
                (self.rule, self.agenda) = (Rule::default(), Agenda::default());
            }
            if acts {
                self.attempt(&standing.borrow().well);
            }
            let wake = self.wakes_at();
            tokio::select! {
                changed = standing.changed() => if changed.is_err() { return },
                Some(host) = asked.recv() => {
                    self.agenda.hosts.insert(host);
                    self.agenda.due(Instant::now() + GATHER);
                }
                Some(heard) = heard.recv() => self.hear(heard),
                Some(done) = self.attempts.join_next() => self.done(done.unwrap_or_default()),
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() && acts => {
                    if self.agenda.at.is_some_and(|at| at <= Instant::now()) {
                        self.look().await;
                    }
                }
            }
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn wakes_at(&self) -> Option<Instant> {
        // A host that is not well wakes it by becoming so.
        let due = self.rule.next().map(|due| self.began + due).filter(|due| *due > Instant::now());
        [due, self.agenda.at].into_iter().flatten().min()
    }

    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Begins(host) => drop(self.agenda.hosts.insert(host)),
            Heard::Guest(guest, Lifecycle::Started | Lifecycle::Resumed) => return self.rule.runs(guest),
            Heard::Guest(guest, change) => drop(self.agenda.guests.insert(guest, Some(change))),
        }
        self.agenda.due(Instant::now() + GATHER);
    }

    /// Looks at the guests on the agenda.
    async fn look(&mut self) {
        let agenda = std::mem::take(&mut self.agenda);
        match self.sights(&agenda).await {
            Ok(look) => self.follow(look).await,
            Err(failure) => {
                tracing::warn!(%failure, "looking at guests that ended");
                self.agenda.hosts.extend(agenda.hosts);
                for (guest, change) in agenda.guests {
                    self.agenda.guests.entry(guest).or_insert(change);
                }
                self.agenda.due(Instant::now() + AGAIN);
            }
        }
    }

    /// Takes in what a look gave.
    async fn follow(&mut self, look: Look) {
        let Look { sights, later, input } = look;
        let by_id: BTreeMap<Uuid, &Guest> = input.guests.iter().map(|guest| (guest.uuid, guest)).collect();
        self.vain.retain(|guest, _| by_id.contains_key(guest));
        self.names = by_id.iter().map(|(uuid, guest)| (*uuid, guest.name.clone())).collect();
        for (guest, Later { heard, mute }) in later {
            let times = self.put_off(guest, heard);
            if let Some(host) = mute.filter(|_| times == IN_VAIN) {
                self.see(guest, Sight::Down { host, ending: Ending::Untold }).await;
            }
        }
        for (uuid, sight) in sights {
            let Some(guest) = by_id.get(&uuid) else { continue };
            let shut_down = matches!(sight, Sight::Down { ending: Ending::ShutDown, .. });
            if shut_down && !self.keep_down(guest, &input.claim(uuid)).await {
                continue;
            }
            self.vain.remove(&uuid);
            self.see(uuid, sight).await;
        }
    }

    async fn see(&mut self, guest: Uuid, sight: Sight) {
        for order in self.rule.see(self.now(), guest, sight) {
            if let Order::Tell(given) = order {
                self.tell(&given).await;
            }
        }
    }

    /// Has a guest looked at again, less and less soon; tells how often that was so.
    fn put_off(&mut self, guest: Uuid, heard: Option<Lifecycle>) -> u32 {
        let times = self.vain.entry(guest).or_insert(0);
        *times = times.saturating_add(1);
        let times = *times;
        self.agenda.guests.entry(guest).or_insert(heard);
        self.agenda.due(Instant::now() + (AGAIN * (1 << (times - 1).min(8))).min(LONGEST));
        times
    }

    /// Writes down that a guest shall stay down; one for which that could not be done is looked at again.
    async fn keep_down(&mut self, guest: &Guest, claim: &Claim) -> bool {
        match stays_down(&self.rack, guest, claim).await {
            Ok(true) => return true,
            Ok(false) => drop(self.put_off(guest.uuid, None)),
            Err(failure) => {
                if self.put_off(guest.uuid, Some(Lifecycle::ShutDown)) == 1 {
                    let why = format!("it shut itself down, and that it stays down was not written down: {failure}");
                    self.tell(&Given::Again(guest.uuid, why)).await;
                }
            }
        }
        false
    }

    /// How the guests on the agenda are, and what that stands on.
    async fn sights(&self, agenda: &Agenda) -> Result<Look, Failure> {
        let input = PlanningInput::take(&self.rack).await?;
        let (mut sights, mut later) = (BTreeMap::new(), BTreeMap::new());
        let mut unclear: BTreeMap<String, Vec<(&Guest, Option<Lifecycle>)>> = BTreeMap::new();
        for guest in &input.guests {
            let claim = input.claim(guest.uuid);
            let asked = agenda.guests.get(&guest.uuid);
            let mut places = claim.places().chain(host_of(&claim));
            if asked.is_none() && !places.any(|host| agenda.hosts.contains(host)) {
                continue;
            }
            let heard = asked.copied().flatten();
            match found(guest, &claim, &input) {
                Found::Sight(sight) => drop(sights.insert(guest.uuid, sight)),
                Found::Missing(host) if heard == Some(Lifecycle::Crashed) => {
                    sights.insert(guest.uuid, Sight::Down { host, ending: Ending::Crashed });
                }
                Found::Missing(host) => unclear.entry(host).or_default().push((guest, heard)),
                Found::Unknown => drop(later.insert(guest.uuid, Later { heard, mute: None })),
            }
        }
        let told = unclear.iter().map(|(host, guests)| async move { (host, guests, self.told(host, guests).await) });
        for (host, guests, told) in join_all(told).await {
            if let Err(failure) = &told {
                tracing::warn!(%failure, host, "asking how guests ended");
            }
            for (guest, heard) in guests {
                match &told {
                    Ok(told) => {
                        let ending = told.get(&guest.name).copied().unwrap_or(Ending::Untold);
                        sights.insert(guest.uuid, Sight::Down { host: host.clone(), ending });
                    }
                    // Those of the other hosts do not wait for this one.
                    Err(_) => {
                        later.insert(guest.uuid, Later { heard: *heard, mute: Some(host.clone()) });
                    }
                }
            }
        }
        Ok(Look { sights, later, input })
    }

    /// How guests ended on a host, by its own word.
    async fn told(
        &self,
        host: &str,
        guests: &[(&Guest, Option<Lifecycle>)],
    ) -> Result<BTreeMap<String, Ending>, Failure> {
        let names: Vec<String> = guests.iter().map(|(guest, _)| guest.name.clone()).collect();
        let remote = self.rack.fleet.get(host)?;
        let told = timeout(TELLS, endings(remote.as_ref(), &names)).await;
        told.unwrap_or_else(|_| Err(Failure::msg(Kind::Failed, format!("no answer within {} s", TELLS.as_secs()))))
    }

    /// Begins what is due.
    fn attempt(&mut self, well: &BTreeSet<String>) {
        if self.attempts.len() >= ATTEMPTS {
            return;
        }
        let (mut starts, mut resumes) = (BTreeMap::new(), Vec::new());
        for order in self.rule.due(self.now(), |host| well.contains(host)) {
            match order {
                Order::Start(guest, place) => drop(starts.insert(guest, place)),
                Order::Resume(guest) => resumes.push(guest),
                Order::KeepDown(_) | Order::Tell(_) => {}
            }
        }
        if !starts.is_empty() {
            let (rack, all) = (self.rack.clone(), starts.keys().copied().collect());
            self.attempts.spawn(async move { in_time(&rack, all, start_again(&rack, &starts)).await });
        }
        for guest in resumes {
            let rack = self.rack.clone();
            self.attempts.spawn(async move { in_time(&rack, vec![guest], let_go_on(&rack, guest)).await });
        }
    }

    fn done(&mut self, outcomes: Outcomes) {
        for (guest, outcome) in outcomes {
            let orders = match outcome {
                Ok(Some(host)) => self.rule.tried(self.now(), guest, Ok(host)),
                Err(why) => self.rule.tried(self.now(), guest, Err(why)),
                Ok(None) => {
                    self.rule.unwanted(guest);
                    Vec::new()
                }
            };
            // What was heard of it meanwhile was not acted on.
            self.agenda.guests.entry(guest).or_insert(None);
            self.agenda.due(Instant::now() + AGAIN);
            for order in orders {
                if let Order::Tell(given) = order {
                    let _ = self.news.try_send(self.event(&given));
                }
            }
        }
    }

    async fn tell(&self, given: &Given) {
        let _ = self.news.send(self.event(given)).await;
    }

    fn event(&self, given: &Given) -> Event {
        let name = |guest: &Uuid| self.names.get(guest).cloned().unwrap_or_else(|| guest.to_string());
        match given {
            Given::Found(guest, Sight::Down { host, ending: Ending::ShutDown }) => {
                let text = format!("guest {} shut itself down on {host}, and stays down", name(guest));
                Event::of(EventKind::GuestOff, host, text)
            }
            Given::Found(guest, Sight::Down { host, ending }) => {
                let text = format!("guest {} is down, last on {host}: {ending}", name(guest));
                Event::of(EventKind::GuestDown, host, text)
            }
            Given::Found(guest, Sight::Stalled { host }) => {
                let text = format!("guest {} stands still on {host}: its disk failed", name(guest));
                Event::of(EventKind::GuestDown, host, text)
            }
            Given::Found(guest, Sight::Fine) => {
                Event::of_rack(EventKind::GuestUp, format!("guest {} runs", name(guest)))
            }
            Given::Mended(guest, host) => {
                Event::of(EventKind::GuestUp, host, format!("guest {} runs again on {host}", name(guest)))
            }
            Given::Again(guest, why) => {
                let text = format!("guest {} could not be helped, and that is tried again: {why}", name(guest));
                Event::of_rack(EventKind::GuestFailed, text)
            }
            Given::Left(guest, deaths) => {
                let name = name(guest);
                let text = format!(
                    "guest {name} died {deaths} times within an hour, and is left down; once it is mended: rackhand guest start {name}"
                );
                Event::of_rack(EventKind::GuestFailed, text)
            }
            Given::Unclear(guest, host) => {
                let name = name(guest);
                let text = format!(
                    "guest {name} shall run and does not, and {host} cannot tell how it ended: rackhand guest start {name}"
                );
                Event::of(EventKind::GuestFailed, host, text)
            }
        }
    }
}

/// The host on which a guest of this claim has to be, or had its last place.
fn host_of(claim: &Claim) -> Option<&str> {
    match claim.phase {
        Phase::Running => claim.host.as_deref(),
        // A start that found no room gave it back.
        Phase::Free => claim.last.as_deref(),
        Phase::Starting | Phase::Moving => None,
    }
}

enum Found {
    Sight(Sight),
    /// It shall run, and does not, on this host.
    Missing(String),
    /// Its host does not say, or others are at it.
    Unknown,
}

/// How a guest is, as far as the look tells.
fn found(guest: &Guest, claim: &Claim, input: &PlanningInput) -> Found {
    if guest.stage != Stage::Ready || guest.desired != Desired::Running {
        return Found::Sight(Sight::Fine);
    }
    let Some(host) = host_of(claim) else {
        return if claim.phase == Phase::Free { Found::Sight(Sight::Fine) } else { Found::Unknown };
    };
    match input.domain_inventory.place(guest.uuid) {
        Some((at, domain)) if domain.state == DomainState::Paused && domain.reason == "ioerror" => {
            Found::Sight(Sight::Stalled { host: at.clone() })
        }
        Some(_) => Found::Sight(Sight::Fine),
        None if !input.domain_inventory.hosts.contains_key(host) => Found::Unknown,
        None if claim.phase == Phase::Free => {
            Found::Sight(Sight::Down { host: host.to_owned(), ending: Ending::WithHost })
        }
        None => Found::Missing(host.to_owned()),
    }
}

/// Waits for an attempt, for not too long; where it does not end as it should, its guests are looked for.
pub(super) async fn in_time(rack: &GuestContext, guests: Vec<Uuid>, work: impl Future<Output = Outcomes>) -> Outcomes {
    let why = match timeout(ATTEMPT, AssertUnwindSafe(work).catch_unwind()).await {
        Ok(Ok(outcomes)) => return outcomes,
        Ok(Err(_)) => "a fault of rackhand ended the attempt".to_owned(),
        Err(_) => format!("not through within {} s", ATTEMPT.as_secs()),
    };
    let look = DomainInventory::take(rack, false).await.ok();
    let runs_on = |guest: &Uuid| {
        let (host, domain) = look.as_ref()?.place(*guest)?;
        (domain.state == DomainState::Running).then(|| host.clone())
    };
    let outcome = |guest: Uuid| (guest, runs_on(&guest).map(Some).ok_or_else(|| why.clone()));
    guests.into_iter().map(outcome).collect()
}

/// Starts guests again that still shall run and do not.
async fn start_again(rack: &GuestContext, places: &BTreeMap<Uuid, Where>) -> Outcomes {
    let input = match PlanningInput::take(rack).await {
        Ok(input) => input,
        Err(failure) => return places.keys().map(|guest| (*guest, Err(failure.to_string()))).collect(),
    };
    let guests: Vec<&Guest> = input.guests.iter().filter(|guest| places.contains_key(&guest.uuid)).collect();
    let mut outcomes = Vec::new();
    let (wanted, others): (Vec<&Guest>, Vec<&Guest>) = guests
        .into_iter()
        .partition(|guest| guest.desired == Desired::Running && host_of(&input.claim(guest.uuid)).is_some());
    for guest in others {
        let wanted = guest.desired == Desired::Running;
        outcomes.push((guest.uuid, if wanted { Err("others are at it".to_owned()) } else { Ok(None) }));
    }
    let needs: Vec<_> = wanted
        .iter()
        .map(|guest| match &places[&guest.uuid] {
            Where::On(host) => need(guest, Some(host)),
            Where::Anywhere => need(guest, None),
            Where::NotOn(host) => {
                let mut need = need(guest, None);
                need.not.insert(host.clone(), "it died there too often".to_owned());
                need
            }
        })
        .collect();
    let found = place(&input.rooms, &needs);
    let started = restart_at(rack, &input, wanted.iter().copied().zip(found), &|_, _| ()).await;
    let mut by_name: BTreeMap<String, Result<Started, Failure>> = started.into_iter().collect();
    outcomes.extend(wanted.iter().map(|guest| {
        // One that is left out shall not run any more.
        let started = by_name.remove(&guest.name).transpose();
        let host = started.map(|started| started.map(|started| started.host));
        (guest.uuid, host.map_err(|failure| failure.to_string()))
    }));
    outcomes
}

/// Lets a guest go on whose disk failed.
async fn let_go_on(rack: &GuestContext, guest: Uuid) -> Outcomes {
    let found = match rack.guest(&guest.to_string()).await {
        Ok(found) => found,
        Err(failure) => return vec![(guest, Err(failure.to_string()))],
    };
    let resumed = resume(rack, std::slice::from_ref(&found)).await;
    let outcome = |resumed: Result<(String, bool), Failure>| match resumed {
        Ok((host, _)) => Ok(Some(host)),
        Err(failure) => Err(failure.to_string()),
    };
    resumed.into_iter().map(|(_, resumed)| (guest, outcome(resumed))).collect()
}
