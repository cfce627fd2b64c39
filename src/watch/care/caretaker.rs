//! Looks after guests that end alone, while this watcher leads and their hosts are well.

use super::ears::{self, Heard};
use super::rule::{Given, Order, Rule, Sight, Where};
use crate::error::Failure;
use crate::guest::claim::{Claim, Phase};
use crate::guest::placement::place;
use crate::guest::{
    Desired, Ending, Guest, GuestContext, PlanningInput, Stage, endings, need, resume, start_at, stays_down,
};
use crate::libvirt::{DomainState, Lifecycle};
use crate::watch::brain::{Event, EventKind};
use crate::watch::driver::Standing;
use futures::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

/// How long what is heard is gathered before it is looked at: one look for all guests of a storm.
const GATHER: Duration = Duration::from_millis(200);
/// Time before a look that failed is made again, and before a guest that was mended is looked at once more.
const AGAIN: Duration = Duration::from_secs(5);
/// Attempts under way at most; each takes all guests that are due.
const ATTEMPTS: usize = 4;
/// How long an attempt may take: a QEMU that died is waited for until the storage has forgotten it.
const ATTEMPT: Duration = Duration::from_secs(300);
/// Events that may wait.
const QUEUE: usize = 4096;

/// What came of an attempt, by guest.
type Outcomes = Vec<(Uuid, Result<String, String>)>;

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
            Heard::Guest(guest, change) => drop(self.agenda.guests.insert(guest, Some(change))),
        }
        self.agenda.due(Instant::now() + GATHER);
    }

    /// Looks at the guests on the agenda.
    async fn look(&mut self) {
        let agenda = std::mem::take(&mut self.agenda);
        match self.sights(&agenda).await {
            Ok((sights, input)) => {
                let by_id: BTreeMap<Uuid, &Guest> = input.guests.iter().map(|guest| (guest.uuid, guest)).collect();
                for (guest, sight) in sights {
                    if let Some(guest) = by_id.get(&guest) {
                        self.names.insert(guest.uuid, guest.name.clone());
                    }
                    let orders = self.rule.see(self.now(), guest, sight);
                    for order in orders {
                        match (order, by_id.get(&guest)) {
                            (Order::Tell(given), _) => self.tell(&given).await,
                            (Order::KeepDown(uuid), Some(guest)) => {
                                if let Err(failure) = stays_down(&self.rack, guest, &input.claim(uuid)).await {
                                    tracing::warn!(%failure, guest = guest.name, "writing down that it shall stay down");
                                }
                            }
                            _ => {}
                        }
                    }
                }
            }
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

    /// How the guests on the agenda are, and what that stands on.
    async fn sights(&self, agenda: &Agenda) -> Result<(BTreeMap<Uuid, Sight>, PlanningInput), Failure> {
        let input = PlanningInput::take(&self.rack).await?;
        let mut sights = BTreeMap::new();
        let mut unclear: BTreeMap<String, Vec<&Guest>> = BTreeMap::new();
        for guest in &input.guests {
            let claim = input.claim(guest.uuid);
            let host = host_of(&claim);
            let asked = agenda.guests.get(&guest.uuid);
            let wanted = asked.is_some() || host.is_some_and(|host| agenda.hosts.contains(host));
            let Some(host) = host.filter(|_| wanted) else { continue };
            let crashed = asked.copied().flatten() == Some(Lifecycle::Crashed);
            match found(guest, &claim, host, &input) {
                Found::Sight(sight) => drop(sights.insert(guest.uuid, sight)),
                Found::Missing if crashed => {
                    let down = Sight::Down { host: host.to_owned(), ending: Ending::Crashed };
                    sights.insert(guest.uuid, down);
                }
                Found::Missing => unclear.entry(host.to_owned()).or_default().push(guest),
                Found::Unknown => {}
            }
        }
        let told = unclear.iter().map(|(host, guests)| async move {
            let names: Vec<String> = guests.iter().map(|guest| guest.name.clone()).collect();
            let told = match self.rack.fleet.get(host) {
                Ok(remote) => endings(remote.as_ref(), &names).await,
                Err(error) => Err(error.into()),
            };
            (host, guests, told)
        });
        for (host, guests, told) in join_all(told).await {
            let told = told?;
            for guest in guests {
                let ending = told.get(&guest.name).copied().unwrap_or(Ending::Untold);
                sights.insert(guest.uuid, Sight::Down { host: host.clone(), ending });
            }
        }
        Ok((sights, input))
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
            self.attempts.spawn(async move { in_time(all, start_again(&rack, &starts)).await });
        }
        for guest in resumes {
            let rack = self.rack.clone();
            self.attempts.spawn(async move { in_time(vec![guest], let_go_on(&rack, guest)).await });
        }
    }

    fn done(&mut self, outcomes: Outcomes) {
        for (guest, outcome) in outcomes {
            let orders = self.rule.tried(self.now(), guest, outcome);
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
    /// It shall run, and does not.
    Missing,
    /// The host does not say.
    Unknown,
}

/// How a guest is, as far as the look tells.
fn found(guest: &Guest, claim: &Claim, host: &str, input: &PlanningInput) -> Found {
    if guest.stage != Stage::Ready || guest.desired != Desired::Running {
        return Found::Sight(Sight::Fine);
    }
    match input.domain_inventory.place(guest.uuid) {
        Some((at, domain)) if domain.state == DomainState::Paused && domain.reason == "ioerror" => {
            Found::Sight(Sight::Stalled { host: at.clone() })
        }
        Some(_) => Found::Sight(Sight::Fine),
        None if !input.domain_inventory.hosts.contains_key(host) => Found::Unknown,
        None if claim.phase == Phase::Free => {
            Found::Sight(Sight::Down { host: host.to_owned(), ending: Ending::WithHost })
        }
        None => Found::Missing,
    }
}

async fn in_time(guests: Vec<Uuid>, work: impl Future<Output = Outcomes>) -> Outcomes {
    timeout(ATTEMPT, work).await.unwrap_or_else(|_| {
        let late = format!("not through within {} s", ATTEMPT.as_secs());
        guests.into_iter().map(|guest| (guest, Err(late.clone()))).collect()
    })
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
        outcomes.push((guest.uuid, Err("it is not to be started any more, or others are at it".to_owned())));
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
    let by_name: BTreeMap<&str, Uuid> = wanted.iter().map(|guest| (guest.name.as_str(), guest.uuid)).collect();
    let started = start_at(rack, &input, wanted.iter().copied().zip(found), None, &|_, _| ()).await;
    outcomes.extend(started.into_iter().filter_map(|(name, started)| {
        let uuid = by_name.get(name.as_str())?;
        Some((*uuid, started.map(|started| started.host).map_err(|failure| failure.to_string())))
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
        Ok((host, _)) => Ok(host),
        Err(failure) => Err(failure.to_string()),
    };
    resumed.into_iter().map(|(_, resumed)| (guest, outcome(resumed))).collect()
}
