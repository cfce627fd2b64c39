//! Starting guests, each at most once.

use super::claim::{self, Claim, START_WINDOW, Swap};
use super::outlook::Outlook;
use super::placement::{Need, Place, place as place_all, reasons};
use super::promise;
use super::rack::Rack;
use super::spec::{Desired, Guest, Stage};
use super::survey::{Standing, Survey};
use super::xml;
use crate::cluster::{ClusterError, update};
use crate::error::{Failure, Kind};
use crate::libvirt::{Start, VirtError};
use crate::ui::{Job, Outcome};
use futures::future::{join_all, try_join_all};
use nix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
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
    let starts = guests.map(|(guest, place)| async move {
        let job = rack.ui.job(format!("start {}", guest.name));
        let result = start_one(rack, guest, host, place, outlook, &job).await;
        match &result {
            Ok(started) if started.already => job.end(Outcome::Unchanged, format!("runs on {}", started.host)),
            Ok(started) => job.done(format!("on {}", started.host)),
            Err(failure) if failure.kind == Kind::Unknown => job.end(Outcome::Unknown, failure.to_string()),
            Err(failure) => job.fail(failure.to_string()),
        }
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
        let (host, promised) = match survey.standing(guest.uuid, &claim, &rack.run) {
            Standing::Runs(host) => {
                settle_running(rack, guest, &claim, &host).await?;
                return Ok(Started { name: guest.name.clone(), host, already: true });
            }
            Standing::MayRun { host, why } => return Err(may_run(&host, &why)),
            Standing::InTransit => {
                job.step(format!("waits for the move by {}", claim.by));
                claim =
                    claim::wait_out(rack.port(), guest.uuid, claim, |_, _| ()).await.map_err(ClusterError::failure)?;
                // Nobody moves it any more: whoever starts it now, starts it as after a stop.
                let freed = claim.freed();
                if claim.phase == claim::Phase::Moving && no_trace(rack, guest, &claim).await? {
                    swap(rack, guest, &claim, &freed).await?;
                }
                claim = read(rack, guest).await?;
                newer = Some(Survey::take(&rack.hypervisors, false).await);
                continue;
            }
            // The host was promised to it by whoever began.
            Standing::FinishOn(host) if wanted.is_none_or(|w| w == host) => (host, true),
            Standing::FinishOn(host) => {
                return Err(Failure::msg(
                    Kind::Busy,
                    format!("guest {} is being started on {host} by {}", guest.name, claim.by),
                ));
            }
            Standing::Free => match &place {
                Place::Host(host) => {
                    nobody_has_it_open(rack, guest, job).await?;
                    (host.clone(), false)
                }
                Place::Nowhere(why) => return Err(no_room(why)),
            },
        };
        let mine = claim.starting(&host, &rack.run);
        let written_at = boot_time();
        if let Swap::Theirs(theirs) = swap(rack, guest, &claim, &mine).await? {
            job.step(format!("{} was quicker, looking again", theirs.by));
            claim = theirs;
            newer = Some(Survey::take(&rack.hypervisors, false).await);
            continue;
        }
        let room = if promised { Ok(Ok(())) } else { promise::enter(rack, outlook, guest.uuid, &wants, &host).await };
        if let Ok(Ok(())) = room {
            return create(rack, guest, &host, mine, written_at).await;
        }
        // Nothing was sent to the host, so nobody has to wait for it.
        claim = match swap(rack, guest, &mine, &mine.freed()).await? {
            Swap::Ours => mine.freed(),
            Swap::Theirs(theirs) => theirs,
        };
        if let Err(why) = room? {
            job.step(format!("others were quicker on {host} ({why}), looking again"));
        }
        let again = Outlook::take(rack).await?;
        place = place_all(&again.rooms, std::slice::from_ref(&wants)).remove(0);
        newer = Some(again.survey);
    }
    Err(Failure::msg(Kind::Busy, format!("guest {} is started and stopped by others all the time", guest.name)))
}

/// Asks the host to start the guest; the claim is ours.
async fn create(rack: &Rack, guest: &Guest, host: &str, mine: Claim, written_at: Duration) -> Result<Started, Failure> {
    let xml = xml(guest, &rack.inventory)?;
    let hypervisor = rack.hypervisors.get(host)?;
    if boot_time().saturating_sub(written_at) > START_WINDOW {
        return Err(Failure::msg(
            Kind::Busy,
            format!("guest {}: the claim for {host} is too old to act on", guest.name),
        )
        .hint("run the same command again"));
    }
    let started = Started { name: guest.name.clone(), host: host.to_owned(), already: false };
    match hypervisor.create(&xml, Start::Running).await {
        Ok(_) => {}
        // Another run finished the same start on this host; libvirt let only one through.
        Err(VirtError::Exists { .. }) if hypervisor.domain(guest.uuid).await?.is_some() => {
            return Ok(Started { already: true, ..started });
        }
        Err(error) if error.unknown() => {
            if !appears(rack, guest, host).await {
                return Err(Failure::new(Kind::Unknown, error)
                    .hint(format!("look with `rackhand guest show {}`; starting it again is safe", guest.name)));
            }
        }
        Err(error) => {
            // Certain: there is no such guest on the host, so nobody has to wait for it.
            swap(rack, guest, &mine, &mine.freed()).await?;
            return Err(error.into());
        }
    }
    let running = Claim { started: Some(jiff::Timestamp::now()), ..mine.running(host) };
    tokio::try_join!(swap(rack, guest, &mine, &running), set_desired(rack, guest, Desired::Running))?;
    if mine.last.as_deref().is_some_and(|last| last != host) {
        // Bridges and switches remember the guest where it ran before, for minutes.
        if let Err(error) = hypervisor.monitor(guest.uuid, ANNOUNCE).await {
            rack.ui.warn(format!("guest {} may be unreachable for up to 5 min: {error}", guest.name));
        }
    }
    Ok(started)
}

/// Waits until nobody has the guest's disks open. Claims and hosts say that nobody should; a QEMU that was killed
/// stays listed until its watch has run out.
async fn nobody_has_it_open(rack: &Rack, guest: &Guest, job: &Job) -> Result<(), Failure> {
    let began = Instant::now();
    loop {
        let asked = guest.disks.iter().map(|disk| rack.port().image_users(&disk.image));
        let users = try_join_all(asked).await.map_err(ClusterError::failure)?;
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

/// Whether a guest whose start has an unknown end shows up on its host.
async fn appears(rack: &Rack, guest: &Guest, host: &str) -> bool {
    let look = async {
        loop {
            if let Ok(hypervisor) = rack.hypervisors.get(host)
                && let Ok(Some(_)) = hypervisor.domain(guest.uuid).await
            {
                return true;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(LOOK_AFTER, look).await.unwrap_or(false)
}

/// Whether all hosts a claim names answer that they have no such guest.
async fn no_trace(rack: &Rack, guest: &Guest, claim: &Claim) -> Result<bool, Failure> {
    for host in claim.places() {
        if rack.hypervisors.get(host)?.domain(guest.uuid).await?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes claim and wish agree with a guest that is seen running.
async fn settle_running(rack: &Rack, guest: &Guest, claim: &Claim, host: &str) -> Result<(), Failure> {
    // A move in progress is the mover's to settle.
    if claim.phase != claim::Phase::Moving {
        swap(rack, guest, claim, &claim.running(host)).await?;
    }
    set_desired(rack, guest, Desired::Running).await
}

pub(super) async fn set_desired(rack: &Rack, guest: &Guest, desired: Desired) -> Result<(), Failure> {
    let name = Guest::object(guest.uuid);
    let set = update(rack.port(), &name, |found: Option<Guest>| {
        Ok::<_, ClusterError>((found.map(|guest| Guest { desired, ..guest }), ()))
    });
    set.await.map_err(ClusterError::failure)
}

pub(super) async fn read(rack: &Rack, guest: &Guest) -> Result<Claim, Failure> {
    claim::read(rack.port(), guest.uuid).await.map_err(ClusterError::failure)
}

pub(super) async fn swap(rack: &Rack, guest: &Guest, seen: &Claim, next: &Claim) -> Result<Swap, Failure> {
    claim::swap(rack.port(), guest.uuid, seen, next).await.map_err(ClusterError::failure)
}

pub(super) fn may_run(host: &str, why: &str) -> Failure {
    Failure::refused(format!("it may still run on {host}, which does not answer ({why})"))
        .hint(format!("bring {host} back, or make sure that it is off: a guest must never run twice"))
}

fn no_room(why: &BTreeMap<String, String>) -> Failure {
    Failure::failed(format!("no host has room: {}", reasons(why)))
        .hint("stop or move other guests, or make this one smaller")
}

/// Time since boot, with the time asleep: a laptop that slept must not act on what it knew before.
fn boot_time() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or(Duration::MAX)
}
