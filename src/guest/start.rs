//! Starting guests, each at most once.

use super::claim::{self, Claim, Swap, Window};
use super::outlook::Outlook;
use super::placement::{Need, Place, place as place_all, reasons};
use super::promise;
use super::rack::Rack;
use super::spec::{Desired, Guest, Stage};
use super::survey::{Standing, Survey};
use super::xml;
use crate::cluster::{ClusterError, fetch, update};
use crate::error::{Failure, Kind};
use crate::libvirt::{DomainState, Hypervisor, Token, VirtError};
use crate::ui::{Job, Outcome, Patience, Urgency};
use futures::future::{join_all, try_join_all};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a start with an unknown end is looked after.
const LOOK_AFTER: Duration = Duration::from_secs(30);
/// How long Ceph may still list a client that is dead: `osd_client_watch_timeout` is 30 s.
const WATCH: Duration = Duration::from_secs(35);
/// Rounds of a start when others get in between.
const ROUNDS: usize = 8;
/// Announcements in five rounds, 50 ms after the start first: QEMU's own defaults after a migration.
const ANNOUNCE: &str = r#"{"execute":"announce-self","arguments":{"initial":50,"max":550,"rounds":5,"step":100}}"#;

/// Starts under way come to their end, which takes seconds.
const PATIENCE: Patience = Patience {
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
pub async fn start(rack: &Rack, guests: &[Guest], host: Option<&str>) -> Vec<(String, Result<Started, Failure>)> {
    if let Some(host) = host.filter(|host| rack.hypervisors.get(host).is_err()) {
        let failure = || Failure::usage(format!("the inventory has no host `{host}` that runs guests"));
        return guests.iter().map(|g| (g.name.clone(), Err(failure()))).collect();
    }
    let outlook = match Outlook::take(rack).await {
        Ok(outlook) => outlook,
        Err(failure) => {
            let text = failure.to_string();
            let (kind, hints) = (failure.kind, failure.hints);
            let each = |g: &Guest| {
                let failure = hints.iter().fold(Failure::msg(kind, &text), |f, hint| f.hint(hint));
                (g.name.clone(), Err(failure))
            };
            return guests.iter().map(each).collect();
        }
    };
    let needs: Vec<Need> = guests.iter().map(|g| need(g, host)).collect();
    let places = place_all(&outlook.rooms, &needs);
    start_at(rack, &outlook, guests.iter().zip(places), host).await
}

/// Starts guests at the places that were found for them in an outlook; `host` is the only one that will do.
pub async fn start_at<'a>(
    rack: &Rack,
    outlook: &Outlook,
    guests: impl Iterator<Item = (&'a Guest, Place)>,
    host: Option<&str>,
) -> Vec<(String, Result<Started, Failure>)> {
    let _unhurried = rack.ui.unhurried(PATIENCE);
    let starts = guests.map(|(guest, place)| async move {
        let job = rack.ui.job(format!("start {}", guest.name));
        let result = start_one(rack, guest, host, place, outlook, &job).await;
        job.conclude(&result, |started| match started.already {
            true => (Outcome::Unchanged, format!("runs on {}", started.host)),
            false => (Outcome::Done, format!("on {}", started.host)),
        });
        (guest.name.clone(), result)
    });
    join_all(starts).await
}

async fn start_one(
    rack: &Rack,
    guest: &Guest,
    wanted: Option<&str>,
    mut place: Place,
    outlook: &Outlook,
    job: &Job,
) -> Result<Started, Failure> {
    if guest.stage != Stage::Ready {
        return Err(Failure::refused(format!("guest {} is not complete", guest.name))
            .hint("run the same `guest create` again to finish it, or `guest delete` to clear it away"));
    }
    let mut claim = outlook.claim(guest.uuid);
    let wants = need(guest, wanted);
    let mut newer: Option<Survey> = None;
    for _ in 0..ROUNDS {
        let survey = newer.as_ref().unwrap_or(&outlook.survey);
        let host = match survey.standing(guest.uuid, &claim, &rack.run) {
            Standing::Runs(host) if survey.is_half_started(guest.uuid, &claim) => {
                // Somebody is about to let it go on, or is gone.
                let now = unless_interrupted(rack, wait(rack, guest, &claim, job)).await?;
                let (mine, window) = (claim.starting(&host, &rack.run), Window::begin());
                if now == claim && swap(rack, guest, &claim, &mine).await? == Swap::Ours {
                    return create(rack, &ready(rack, guest).await?, &host, mine, window).await;
                }
                claim = read(rack, guest).await?;
                newer = Some(Survey::take(&rack.hypervisors, false).await);
                continue;
            }
            Standing::Runs(host) => {
                settle_running(rack, guest, &claim, survey, &host).await?;
                return Ok(Started { name: guest.name.clone(), host, already: true });
            }
            Standing::MayRun { host, why } => return Err(may_run(&host, &why)),
            Standing::Pending => {
                unless_interrupted(rack, outlast(rack, guest, &claim, job)).await?;
                // Room that was promised to it by whoever began is free again.
                let again = Outlook::take(rack).await?;
                place = place_all(&again.rooms, std::slice::from_ref(&wants)).remove(0);
                (claim, newer) = (again.claim(guest.uuid), Some(again.survey));
                continue;
            }
            Standing::Free => match &place {
                Place::Host(host) => {
                    unless_interrupted(rack, nobody_has_it_open(rack, guest, job)).await?;
                    host.clone()
                }
                Place::Nowhere(why) => return Err(no_room(why)),
            },
        };
        let mine = claim.starting(&host, &rack.run);
        let window = Window::begin();
        if let Swap::Theirs(theirs) = swap(rack, guest, &claim, &mine).await? {
            job.step(format!("{} was quicker, looking again", theirs.by));
            claim = theirs;
            newer = Some(Survey::take(&rack.hypervisors, false).await);
            continue;
        }
        let (room, now) = tokio::join!(promise::enter(rack, guest.uuid, &wants, &host), ready(rack, guest));
        if let (Ok(Ok(())), Ok(now)) = (&room, &now) {
            return create(rack, now, &host, mine, window).await;
        }
        // Nothing was sent to the host, so nobody has to wait for it.
        claim = match swap(rack, guest, &mine, &mine.freed()).await? {
            Swap::Ours => mine.freed(),
            Swap::Theirs(theirs) => theirs,
        };
        now?;
        if let Err(why) = room? {
            job.step(format!("others were quicker on {host} ({why}), looking again"));
        }
        let again = Outlook::take(rack).await?;
        place = place_all(&again.rooms, std::slice::from_ref(&wants)).remove(0);
        newer = Some(again.survey);
    }
    Err(Failure::msg(Kind::Busy, format!("guest {} is started and stopped by others all the time", guest.name)))
}

/// The guest's definition once its claim is ours. Whoever deletes it says so in the definition first and looks at the
/// claim then, so one of the two sees the other.
async fn ready(rack: &Rack, guest: &Guest) -> Result<Guest, Failure> {
    let found = fetch::<Guest>(rack.port(), &Guest::object(guest.uuid)).await?;
    found
        .map(|(guest, _)| guest)
        .filter(|guest| guest.stage == Stage::Ready)
        .ok_or_else(|| Failure::failed(format!("guest {} was deleted meanwhile", guest.name)))
}

/// Has the host make the guest, and lets it go on when the claim still is ours after that.
///
/// A request may arrive long after whoever sent it is gone: what was made stands still until he has seen it made, and
/// his claim once more. Whoever takes the claim over sees on the host what was made before, and what is made later
/// nobody lets go on.
async fn create(rack: &Rack, guest: &Guest, host: &str, mine: Claim, window: Window) -> Result<Started, Failure> {
    let hypervisor = rack.hypervisors.get(host)?;
    let name = &guest.name;
    let asked = match (xml(guest, &rack.inventory), window.is_over()) {
        (Ok(_), true) => {
            Err(Failure::msg(Kind::Busy, format!("the claim of guest {name} for {host} is too old to act on"))
                .hint("run the same command again"))
        }
        (Ok(xml), false) => ask(guest, &hypervisor, &xml, mine.token().within(window)).await,
        (Err(failure), _) => Err(failure),
    };
    let elsewhere = |claim: &Claim| !claim.places().any(|place| place == host);
    if asked.is_ok() {
        let now = read(rack, guest)
            .await
            .map_err(|why| unsettled(format!("it was made on {host}, where it stands still"), &why))?;
        if elsewhere(&now) {
            return Err(give_way(guest, &hypervisor, &mine, &now).await);
        }
        // It runs somewhere by now, and what is here may be what arrives.
        if now.phase == claim::Phase::Moving {
            return Err(Failure::msg(Kind::Busy, format!("guest {name} is being moved by {}", now.by)));
        }
    }
    let gone_on = match asked {
        Ok(false) => let_go(guest, &hypervisor, mine.token()).await.map(|()| false),
        other => other,
    };
    let already = match gone_on {
        Ok(already) => already,
        Err(failure) if failure.kind == Kind::Unknown => return Err(failure),
        Err(failure) => {
            // Certain: there is no such guest on the host, so nobody has to wait for it.
            swap(rack, guest, &mine, &mine.freed()).await?;
            return Err(failure);
        }
    };
    let runs = |why: Failure| unsettled(format!("it runs on {host}, but that could not be written down"), &why);
    let running = Claim { started: Some(jiff::Timestamp::now()), ..mine.running(host) };
    match swap(rack, guest, &mine, &running).await.map_err(runs)? {
        Swap::Theirs(theirs) if elsewhere(&theirs) => return Err(give_way(guest, &hypervisor, &mine, &theirs).await),
        Swap::Ours | Swap::Theirs(_) => {}
    }
    set_desired(rack, guest, Desired::Running).await.map_err(runs)?;
    if mine.last.as_deref().is_some_and(|last| last != host) {
        // Bridges and switches remember the guest where it ran before, for minutes.
        if let Err(error) = hypervisor.monitor(guest.uuid, ANNOUNCE).await {
            rack.ui.warn(format!("guest {name} may be unreachable for up to 5 min: {error}"));
        }
    }
    Ok(Started { name: name.clone(), host: host.to_owned(), already })
}

/// A start that got this far, and then lost the cluster.
fn unsettled(how_far: String, why: &Failure) -> Failure {
    Failure::msg(Kind::Unknown, format!("{how_far}: {why}")).hint("run the same command again: it looks before it acts")
}

/// Asks a host to make a guest that stands still, and makes sure of what came of it: tells whether it ran already. Any
/// failure but an unknown one means that it is not there.
async fn ask(guest: &Guest, hypervisor: &Arc<dyn Hypervisor>, xml: &str, token: Token) -> Result<bool, Failure> {
    let error = match hypervisor.create(guest.uuid, xml, token).await {
        Ok(_) => return Ok(false),
        Err(error) => error,
    };
    let exists = matches!(error, VirtError::Exists { .. });
    if !exists && !error.unknown() {
        return Err(error.into());
    }
    // Of this id, started by somebody without a claim; or another domain that has its name.
    if exists && hypervisor.domain(guest.uuid).await.is_ok_and(|domain| domain.is_none()) {
        return Err(error.into());
    }
    match appears(guest, hypervisor).await {
        Some(state) => Ok(exists && state == DomainState::Running),
        None => Err(unknown(guest, error)),
    }
}

fn unknown(guest: &Guest, error: VirtError) -> Failure {
    Failure::new(Kind::Unknown, error)
        .hint(format!("look with `rackhand guest show {}`; starting it again is safe", guest.name))
}

/// Lets a guest that was made go on, and makes sure that it does.
async fn let_go(guest: &Guest, hypervisor: &Arc<dyn Hypervisor>, token: Token) -> Result<(), Failure> {
    let began = Instant::now();
    loop {
        let Err(error) = hypervisor.resume(guest.uuid, token).await else { return Ok(()) };
        if error.stale() {
            return Err(error.into());
        }
        match hypervisor.domain(guest.uuid).await {
            // Told of one that runs already, or the answer was lost.
            Ok(Some(domain)) if domain.state == DomainState::Running => return Ok(()),
            Ok(domain) if domain.as_ref().is_none_or(|domain| !domain.state.has_process()) => {
                return Err(Failure::failed(format!("it ended on {} before it ran: {error}", hypervisor.host())));
            }
            _ if began.elapsed() > LOOK_AFTER => return Err(unknown(guest, error)),
            _ => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}

/// Ends a guest whose start took so long that its claim was given to somebody else, who may run it elsewhere.
async fn give_way(guest: &Guest, hypervisor: &Arc<dyn Hypervisor>, mine: &Claim, theirs: &Claim) -> Failure {
    let (name, host) = (&guest.name, hypervisor.host());
    let text = format!("the start of guest {name} on {host} took too long, its claim was taken over by {}", theirs.by);
    match hypervisor.destroy(guest.uuid, mine.token()).await {
        // Whoever has taken it over has looked there since, and settles what is there.
        Err(error) if error.stale() => Failure::msg(Kind::Busy, text),
        Ok(()) => Failure::msg(Kind::Busy, format!("{text}; its copy on {host} was ended")),
        Err(error) if error.no_domain() => Failure::msg(Kind::Busy, format!("{text}; it has no copy on {host}")),
        Err(error) => Failure::msg(Kind::Unknown, format!("{text}; its copy on {host} could not be ended: {error}"))
            .hint(format!("end it there now, with `virsh destroy {name}`: a guest must never run twice")),
    }
}

/// Waits until a start or a move of somebody else is over. A claim that nobody can act on any more is freed where
/// none of its hosts has the guest; tells whether that was so.
pub(super) async fn outlast(rack: &Rack, guest: &Guest, claim: &Claim, job: &Job) -> Result<bool, Failure> {
    if wait(rack, guest, claim, job).await? != *claim {
        return Ok(false);
    }
    // What its writer did before shows on the hosts; the source first, for the target has a guest before the source
    // loses it.
    for host in claim.places() {
        let domain = rack.hypervisors.get(host)?.domain(guest.uuid).await?;
        if domain.is_some_and(|domain| domain.state.has_process()) {
            return Ok(false);
        }
    }
    Ok(swap(rack, guest, claim, &claim.freed()).await? == Swap::Ours)
}

/// Waits until somebody's claim has changed, or cannot be acted on any more; tells what it is then.
async fn wait(rack: &Rack, guest: &Guest, claim: &Claim, job: &Job) -> Result<Claim, Failure> {
    let told = |claim: &Claim, left: Duration| {
        job.step(format!("waits up to {} s for {}", left.as_secs() + 1, claim.by));
    };
    claim::wait_out(rack.port(), guest.uuid, claim.clone(), told).await.map_err(Failure::from)
}

/// Something that changes nothing, given up at the first interruption.
async fn unless_interrupted<T>(rack: &Rack, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let mut urgency = rack.ui.urgency();
    tokio::select! {
        biased;
        Ok(_) = urgency.wait_for(|urgency| *urgency != Urgency::None) => {
            let failure = Failure::msg(Kind::Interrupted, "interrupted before it was started");
            Err(failure.hint("start it with `rackhand guest start` when it shall run"))
        }
        outcome = work => outcome,
    }
}

/// Waits until nobody has the guest's disks open. Claims and hosts say that nobody should; a QEMU that was killed
/// stays listed until its watch has run out.
async fn nobody_has_it_open(rack: &Rack, guest: &Guest, job: &Job) -> Result<(), Failure> {
    let began = Instant::now();
    loop {
        let asked = guest.disks.iter().map(|disk| rack.port().image_users(&disk.image));
        let users = try_join_all(asked).await?;
        let Some(user) = users.iter().flat_map(|u| &u.watchers).next() else { return Ok(()) };
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

/// Whether a guest whose start has an unknown end shows up on its host, and how.
async fn appears(guest: &Guest, hypervisor: &Arc<dyn Hypervisor>) -> Option<DomainState> {
    let look = async {
        loop {
            if let Ok(Some(domain)) = hypervisor.domain(guest.uuid).await
                && domain.state.has_process()
            {
                return domain.state;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(LOOK_AFTER, look).await.ok()
}

/// Makes claim and wish agree with a guest that is seen running.
async fn settle_running(rack: &Rack, guest: &Guest, claim: &Claim, survey: &Survey, host: &str) -> Result<(), Failure> {
    // A move in progress is the mover's to settle; and where it might be in two places, its claim goes on naming both.
    if claim.phase != claim::Phase::Moving && survey.is_alone(guest.uuid, claim) {
        swap(rack, guest, claim, &claim.running(host)).await?;
    }
    set_desired(rack, guest, Desired::Running).await
}

pub(super) async fn set_desired(rack: &Rack, guest: &Guest, desired: Desired) -> Result<(), Failure> {
    let name = Guest::object(guest.uuid);
    let set = update(rack.port(), &name, |found: Option<Guest>| {
        Ok::<_, ClusterError>((found.map(|guest| Guest { desired, ..guest }), ()))
    });
    set.await.map_err(Failure::from)
}

pub(super) async fn read(rack: &Rack, guest: &Guest) -> Result<Claim, Failure> {
    claim::read(rack.port(), guest.uuid).await.map_err(Failure::from)
}

pub(super) async fn swap(rack: &Rack, guest: &Guest, seen: &Claim, next: &Claim) -> Result<Swap, Failure> {
    claim::swap(rack.port(), guest.uuid, seen, next).await.map_err(Failure::from)
}

pub(super) fn may_run(host: &str, why: &str) -> Failure {
    Failure::refused(format!("it may still run on {host}, which does not answer ({why})"))
        .hint(format!("bring {host} back, or make sure that it is off: a guest must never run twice"))
}

fn no_room(why: &BTreeMap<String, String>) -> Failure {
    Failure::failed(format!("no host has room: {}", reasons(why)))
        .hint("stop or move other guests, or make this one smaller")
}
