//! Starting guests, each at most once.

use super::admission;
use super::claim::{self, Claim, Phase, Run, Swap, Window};
use super::desired::set_desired;
use super::domain_inventory::{DomainInventory, StartState, may_run, stands_still};
use super::guest_context::GuestContext;
use super::launch::{Launch, Launched};
use super::placement::{Need, Place, place as place_all, reasons};
use super::planning_input::PlanningInput;
use super::settlement::{Courtesy, Settled, Settlement};
use super::spec::{Desired, FailoverPolicy, Guest, Stage};
use super::start_step::{FollowStarts, StartStep};
use crate::cluster::{ImageUser, fetch};
use crate::error::{Failure, Kind};
use crate::fence::{Fences, free_image, refuse_clients};
use crate::ui::{CancelLevel, Job, Outcome, ShutdownPolicy};
use futures::future::{BoxFuture, join_all, try_join_all};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// How long Ceph may still list a client that is dead: `osd_client_watch_timeout` is 30 s.
const WATCH: Duration = Duration::from_secs(35);
/// Starts that a host carries out at a time at most, less one.
const MANY: usize = 15;
/// Rounds of a start when others get in between.
const ROUNDS: usize = 8;

/// Starts under way come to their end, which takes seconds.
const PATIENCE: ShutdownPolicy = ShutdownPolicy {
    once: "starts no more guests, waits for those that are being started; once more to leave them",
    twice: "leaves the guests that are being started",
    aborts_itself: false,
};

/// Where a guest runs now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// Its name.
    pub name: String,
    /// Its host.
    pub host: String,
    /// Whether it ran before.
    pub already: bool,
}

/// What a guest needs of a host.
pub fn need(guest: &Guest, host: Option<&str>) -> Need {
    Need {
        name: guest.name.clone(),
        memory: guest.memory.bytes(),
        cpus: guest.cpus,
        tags: guest.tags.clone(),
        pinned: host.map(str::to_owned).or_else(|| guest.pinned.clone()),
        not: BTreeMap::new(),
        priority: guest.priority,
    }
}

/// Starts guests where there is room for them, or on one host; a guest that runs is left alone.
pub async fn start(
    rack: &GuestContext,
    guests: &[Guest],
    host: Option<&str>,
) -> Vec<(String, Result<Started, Failure>)> {
    if let Some(host) = host.filter(|host| rack.hypervisors.get(host).is_err()) {
        let failure = || Failure::usage(format!("the inventory has no host `{host}` that runs guests"));
        return guests.iter().map(|g| (g.name.clone(), Err(failure()))).collect();
    }
    let planning_input = match PlanningInput::take(rack).await {
        Ok(planning_input) => planning_input,
        Err(failure) => {
            return guests.iter().map(|g| (g.name.clone(), Err(failure.duplicate()))).collect();
        }
    };
    let needs: Vec<Need> = guests.iter().map(|g| need(g, host)).collect();
    let places = place_all(&planning_input.rooms, &needs);
    start_at(rack, &planning_input, guests.iter().zip(places), host, &|_, _| ()).await
}

/// Starts guests at the places that were found for them in a planning input, the first ones first; `host` is the only one
/// that will do.
pub async fn start_at<'a>(
    rack: &GuestContext,
    planning_input: &PlanningInput,
    guests: impl Iterator<Item = (&'a Guest, Place)>,
    host: Option<&str>,
    follow: &FollowStarts,
) -> Vec<(String, Result<Started, Failure>)> {
    start_by(rack, planning_input, guests, (host, Word::Order), follow).await
}

/// As [`start_at()`], without anybody's order: a guest that shall not run any more once its claim is ours is left down, and
/// left out of the answer. What its owner wants is read, and never written.
pub async fn restart_at<'a>(
    rack: &GuestContext,
    planning_input: &PlanningInput,
    guests: impl Iterator<Item = (&'a Guest, Place)>,
    follow: &FollowStarts,
) -> Vec<(String, Result<Started, Failure>)> {
    start_by(rack, planning_input, guests, (None, Word::Wish), follow).await
}

async fn start_by<'a>(
    rack: &GuestContext,
    planning_input: &PlanningInput,
    guests: impl Iterator<Item = (&'a Guest, Place)>,
    (host, word): (Option<&str>, Word),
    follow: &FollowStarts,
) -> Vec<(String, Result<Started, Failure>)> {
    let _unhurried = rack.ui.completion_guard(PATIENCE);
    let slots = &Slots::of(planning_input);
    let starts = guests.map(|(guest, place)| async move {
        let job = rack.ui.job(format!("start {}", guest.name));
        let told = |step: StartStep| follow(&guest.name, &step);
        if let Place::Host(host) = &place {
            told(StartStep::Planned(host.clone()));
        }
        let manner = Manner { job: &job, told: &told, slots, word };
        let result = start_one(rack, guest, host, place, planning_input, manner).await;
        if let Err(failure) = &result {
            told(StartStep::Waiting(failure.to_string()));
        }
        job.conclude(&result, |started| match started {
            Some(Started { host, already: true, .. }) => (Outcome::Unchanged, format!("runs on {host}")),
            Some(Started { host, .. }) => (Outcome::Done, format!("on {host}")),
            None => (Outcome::Unchanged, "shall not run any more".to_owned()),
        });
        Some((guest.name.clone(), result.transpose()?))
    });
    join_all(starts).await.into_iter().flatten().collect()
}

async fn start_one(
    rack: &GuestContext,
    guest: &Guest,
    wanted: Option<&str>,
    place: Place,
    planning_input: &PlanningInput,
    manner: Manner<'_>,
) -> Result<Option<Started>, Failure> {
    if guest.stage != Stage::Ready {
        return Err(Failure::refused(format!("guest {} is not complete", guest.name))
            .hint("run the same `guest create` again to finish it, or `guest delete` to clear it away"));
    }
    let run = rack.run.operation();
    let starting = Starting { rack, guest, wants: need(guest, wanted), run, manner };
    starting.run(place, planning_input).await
}

/// By whose word a guest is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// Somebody's, now: it is written down that the guest shall run.
    Order,
    /// What is written down: a guest that shall not run any more is left down.
    Wish,
}

/// What goes with a start beside its guest.
#[derive(Clone, Copy)]
struct Manner<'a> {
    job: &'a Job,
    told: &'a (dyn Fn(StartStep) + Sync),
    slots: &'a Slots,
    word: Word,
}

/// How many starts each host carries out at a time, by its name: the first ones are through before the last ones begin, and
/// none makes all of them slow.
struct Slots(BTreeMap<String, Semaphore>);

impl Slots {
    fn of(planning_input: &PlanningInput) -> Self {
        let nodes = &planning_input.domain_inventory.hosts;
        let slots = |host: &str| {
            let processors = nodes.get(host).and_then(Option::as_ref).map_or(1, |node| node.cpus);
            usize::try_from(processors).unwrap_or(MANY).clamp(1, MANY) + 1
        };
        let rooms = planning_input.rooms.iter();
        Slots(rooms.map(|room| (room.name.clone(), Semaphore::new(slots(&room.name)))).collect())
    }

    /// A slot of a host; nothing where the host is not known.
    async fn take(&self, host: &str) -> Option<SemaphorePermit<'_>> {
        self.0.get(host)?.acquire().await.ok()
    }
}

/// One guest that is started.
struct Starting<'a> {
    rack: &'a GuestContext,
    guest: &'a Guest,
    wants: Need,
    run: Run,
    manner: Manner<'a>,
}

/// What one round of a start came to.
enum Round {
    /// It runs.
    Runs(Started),
    /// Something has changed: look again.
    Again,
    /// It shall not run any more.
    Unwanted,
}

impl Starting<'_> {
    async fn run(mut self, mut place: Place, planning_input: &PlanningInput) -> Result<Option<Started>, Failure> {
        let mut claim = planning_input.claim(self.guest.uuid);
        let mut newer: Option<DomainInventory> = None;
        for _ in 0..ROUNDS {
            let domain_inventory = newer.as_ref().unwrap_or(&planning_input.domain_inventory);
            unless_power_is_open(self.guest, &claim, &domain_inventory.fences)?;
            let round = match domain_inventory.start_state(self.guest.uuid, &claim) {
                StartState::Runs(host) => {
                    settle_running((self.rack, self.manner.word), self.guest, &claim, domain_inventory, &host).await?;
                    (self.manner.told)(StartStep::Running(host.clone()));
                    return Ok(Some(self.started(host, true)));
                }
                StartState::MayRun { host, why } => return Err(may_run(&host, &why)),
                StartState::Stands { host, state, reason } => {
                    return Err(stands_still(&self.guest.name, &host, state, &reason));
                }
                StartState::Pending => self.pending(&claim).await?,
                StartState::Free => match &place {
                    Place::Host(host) => self.place(&claim, &domain_inventory.fences.clone(), host).await?,
                    Place::Nowhere(why) => return Err(no_room(why)),
                },
            };
            match round {
                Round::Runs(started) => return Ok(Some(started)),
                Round::Unwanted => return Ok(None),
                Round::Again => {}
            }
            // What was promised to it by whoever began is free again.
            let again = PlanningInput::take(self.rack).await?;
            place = place_all(&again.rooms, std::slice::from_ref(&self.wants)).remove(0);
            (claim, newer) = (again.claim(self.guest.uuid), Some(again.domain_inventory));
        }
        Err(Failure::msg(
            Kind::Busy,
            format!("guest {} is started and stopped by other runs again and again", self.guest.name),
        ))
    }

    fn started(&self, host: String, already: bool) -> Started {
        Started { name: self.guest.name.clone(), host, already }
    }

    /// Settles what another operation has begun; what it made is let go on here.
    async fn pending(&self, claim: &Claim) -> Result<Round, Failure> {
        let (rack, guest, name) = (self.rack, self.guest.uuid, self.guest.name.as_str());
        if self.manner.word == Word::Wish && self.ready().await?.is_none() {
            return Ok(Round::Unwanted);
        }
        let settlement = Settlement {
            rack,
            guest,
            name,
            run: &self.run,
            job: self.manner.job,
            cancel_level: rack.ui.cancel_level(),
        };
        let mine = match settlement.settle(claim, Courtesy::Wait).await? {
            Settled::Changed | Settled::Free | Settled::Runs(_) => return Ok(Round::Again),
            Settled::Moves(claim) => {
                return Err(Failure::msg(Kind::Busy, format!("guest {name} is being moved by {}", claim.by)));
            }
            Settled::Made(mine) => mine,
        };
        let Some(host) = mine.host.clone() else { return Ok(Round::Again) };
        let Some(now) = self.ready().await? else { return Ok(Round::Unwanted) };
        match self.launch(&now, &host, mine).finish().await? {
            Launched::Runs(already) => Ok(Round::Runs(self.started(host, already))),
            Launched::NameTaken(_) => Ok(Round::Again),
        }
    }

    /// Starts a guest that nothing speaks against on a host that has room for it.
    async fn place(&mut self, claim: &Claim, fences: &Fences, host: &str) -> Result<Round, Failure> {
        let (rack, guest) = (self.rack, self.guest);
        let Manner { job, told, slots, .. } = self.manner;
        let mut slot = slots.take(host).await;
        let locks = match unless_interrupted(rack, users(rack, guest, fences)).await? {
            Users::None(locks) => locks,
            Users::Open(_) => {
                drop(slot);
                let locks = unless_interrupted(rack, nobody_has_it_open(rack, guest, fences, job)).await?;
                slot = slots.take(host).await;
                locks
            }
        };
        let mine = claim.starting(host, &self.run);
        let window = Window::begin();
        if let Swap::Theirs(theirs) = claim::swap(rack.port(), guest.uuid, claim, &mine).await? {
            job.step(format!("{} was quicker, looking again", theirs.by));
            return Ok(Round::Again);
        }
        told(StartStep::Claimed);
        let freed = async {
            break_locks(rack, fences, &locks).await?;
            told(StartStep::LockFreed);
            Ok::<_, Failure>(())
        };
        let (room, now, freed) =
            tokio::join!(admission::enter(rack, guest.uuid, &self.wants, host), self.ready(), freed);
        if let (Ok(Ok(())), Ok(Some(now)), Ok(())) = (&room, &now, &freed) {
            let launched = self.launch(now, host, mine).run(window).await;
            drop(slot);
            return match launched? {
                Launched::Runs(already) => Ok(Round::Runs(self.started(host.to_owned(), already))),
                Launched::NameTaken(why) => {
                    self.wants.not.insert(host.to_owned(), why);
                    Ok(Round::Again)
                }
            };
        }
        // Nothing was sent to the host, so nobody has to wait for it.
        claim::swap(rack.port(), guest.uuid, &mine, &mine.freed()).await?;
        if now?.is_none() {
            return Ok(Round::Unwanted);
        }
        freed?;
        if let Err(why) = room? {
            job.step(format!("others were quicker on {host} ({why}), looking again"));
        }
        Ok(Round::Again)
    }

    fn launch<'b>(&'b self, guest: &'b Guest, host: &'b str, mine: Claim) -> Launch<'b> {
        let Manner { job, told, .. } = self.manner;
        Launch { rack: self.rack, guest, host, mine, run: &self.run, job, told }
    }

    /// The guest's definition once its claim is ours, unless it shall not run any more and nobody ordered this start. Whoever
    /// deletes or stops it says so in the definition first and looks at the claim then, so one of the two sees the other.
    async fn ready(&self) -> Result<Option<Guest>, Failure> {
        let found = fetch::<Guest>(self.rack.port(), &Guest::object(self.guest.uuid)).await?;
        let found = found
            .map(|(guest, _)| guest)
            .filter(|guest| guest.stage == Stage::Ready)
            .ok_or_else(|| Failure::failed(format!("guest {} was deleted meanwhile", self.guest.name)))?;
        Ok(Some(found).filter(|guest| self.manner.word == Word::Order || guest.desired == Desired::Running))
    }
}

/// Something that changes nothing, given up at the first interruption.
async fn unless_interrupted<T>(
    rack: &GuestContext,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut cancel_level = rack.ui.cancel_level();
    tokio::select! {
        biased;
        Ok(_) = cancel_level.wait_for(|cancel_level| *cancel_level != CancelLevel::None) => {
            let failure = Failure::msg(Kind::Interrupted, "interrupted before it was started");
            Err(failure.hint("start it with `rackhand guest start` when it shall run"))
        }
        outcome = work => outcome,
    }
}

/// Waits until nobody has the guest's disks open. Claims and hosts say that nobody should; a QEMU that was killed
/// stays listed until its watch has run out. One of a fenced host can do nothing with it any more; tells the locks that such
/// ones hold, by image.
async fn nobody_has_it_open(rack: &GuestContext, guest: &Guest, fences: &Fences, job: &Job) -> Result<Locks, Failure> {
    let began = Instant::now();
    loop {
        let user = match users(rack, guest, fences).await? {
            Users::None(locks) => return Ok(locks),
            Users::Open(user) => user,
        };
        if began.elapsed() > WATCH {
            return Err(Failure::refused(format!(
                "its disk is open at {}, though no host says that it runs",
                user.address
            ))
            .hint("find out who has it open there, and end that: a disk must never have two writers"));
        }
        job.step(format!("waits for {} to let go of its disk", user.address));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Who has the guest's disks open.
enum Users {
    /// Nobody who can do anything with them; the locks that are left of clients on fenced hosts.
    None(Locks),
    /// This one, perhaps among others.
    Open(ImageUser),
}

/// Looks who has the guest's disks open.
async fn users(rack: &GuestContext, guest: &Guest, fences: &Fences) -> Result<Users, Failure> {
    let asked = guest.disks.iter().map(|disk| rack.port().image_users(&disk.image));
    let users = try_join_all(asked).await?;
    let mut open = users.iter().flat_map(|u| &u.watchers).filter(|user| !fences.cover(&user.address));
    if let Some(user) = open.next() {
        return Ok(Users::Open(user.clone()));
    }
    let fenced = |user: &ImageUser| fences.cover(&user.address);
    let disks = guest.disks.iter().zip(users);
    let locks =
        disks.map(|(disk, users)| (disk.image.clone(), users.lockers.into_iter().filter(fenced).collect())).collect();
    Ok(Users::None(locks))
}

/// Locks of clients on fenced hosts, by image.
type Locks = Vec<(String, Vec<ImageUser>)>;

/// Breaks the very locks that were seen before the claim became ours: from then on nobody can have come to hold one by right
/// (rule R9).
async fn break_locks(rack: &GuestContext, fences: &Fences, locks: &Locks) -> Result<(), Failure> {
    let mut broken = Vec::new();
    for (image, lockers) in locks {
        broken.extend(fences.iter().map(|fence| free_image(rack.port(), &fence.proof, image, lockers)));
    }
    let broken = async { try_join_all(broken).await.map_err(Failure::from) };
    let mut refused = Vec::new();
    for fence in fences.iter() {
        let lockers = locks.iter().flat_map(|(_, lockers)| lockers).map(|locker| &locker.address);
        let clients: BTreeSet<String> = lockers.filter(|client| fence.proof.covers(client)).cloned().collect();
        if !clients.is_empty() {
            refused.push(refuse(rack, fence.proof.host(), clients));
        }
    }
    let refused = try_join_all(refused);
    tokio::try_join!(broken, refused)?;
    Ok(())
}

/// Shuts out clients of a fenced host by themselves, together with those of other guests that start just now.
fn refuse<'a>(rack: &'a GuestContext, host: &'a str, clients: BTreeSet<String>) -> BoxFuture<'a, Result<(), Failure>> {
    let together = move |clients: Vec<BTreeSet<String>>| -> BoxFuture<'a, Vec<Result<(), Failure>>> {
        Box::pin(async move {
            let all = clients.iter().flatten().cloned().collect();
            let refused = refuse_clients(rack.port(), host, &all).await.map_err(Failure::from);
            clients.iter().map(|_| refused.as_ref().copied().map_err(Failure::duplicate)).collect()
        })
    };
    Box::pin(rack.turns.refusals.done(host, clients, together))
}

/// Makes the claim, and the wish of whoever orders its start, agree with a guest that is seen running.
async fn settle_running(
    (rack, word): (&GuestContext, Word),
    guest: &Guest,
    claim: &Claim,
    domain_inventory: &DomainInventory,
    host: &str,
) -> Result<(), Failure> {
    // A move in progress is the mover's to settle; and where it might be in two places, its claim goes on naming both.
    // What the claim says already is not written anew.
    let says_so = claim.phase == Phase::Running && claim.host.as_deref() == Some(host);
    if claim.phase != Phase::Moving && !says_so && domain_inventory.is_alone(guest.uuid, claim) {
        claim::swap(rack.port(), guest.uuid, claim, &claim.running(host)).await?;
    }
    match word {
        Word::Order => set_desired(rack, guest, Desired::Running).await,
        Word::Wish => Ok(()),
    }
}

/// Refuses a strict guest that may still run on a host which the storage refuses and nobody has seen off.
///
/// # Errors
/// [`Kind::Refused`], with how its power is proven.
pub fn unless_power_is_open(guest: &Guest, claim: &Claim, fences: &Fences) -> Result<(), Failure> {
    let open = |host: &&str| fences.get(host).is_some_and(|fence| fence.power.is_none());
    match claim.places().find(open) {
        Some(host) if guest.failover == FailoverPolicy::Strict => {
            let text = format!("its policy is strict, and nothing proves yet that {host} is off");
            Err(Failure::refused(text).hint(format!(
                "its BMC is asked on and on; if you see that it is off: `rackhand failover {host} --i-saw-it-powered-off`"
            )))
        }
        _ => Ok(()),
    }
}

fn no_room(why: &BTreeMap<String, String>) -> Failure {
    Failure::failed(format!("no host has room: {}", reasons(why)))
        .hint("stop or move other guests, or make this one smaller")
}
