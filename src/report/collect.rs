//! Looks at hosts, hypervisors and the cluster at once; each has its own deadline and delays nobody else.

use super::metrics::{HostMetrics, metrics};
use super::watching::WatchSeen;
use crate::cluster::{CephStatus, Cluster, ClusterError, ClusterPort, Target, Unread, readable, status};
use crate::error::Failure;
use crate::fence::{self, Fences, Rehearsal};
use crate::guest::claim::{self, Claim};
use crate::guest::image::{self, Template};
use crate::guest::{DomainInventory, Guest, HostState, Live, Reservations, read_host_states, read_reservations};
use crate::host::BmcSeen;
use crate::inventory::{HostSpec, Inventory, Role};
use crate::libvirt::Hypervisors;
use crate::ssh::{Fleet, Remote, RollCall};
use futures::future::join_all;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use uuid::Uuid;

/// How long the cluster may take to say everything.
const CEPH: Duration = Duration::from_secs(15);
/// The same, once a host is known to be silent: what waits for it then is told as waiting.
const CEPH_WITHOUT_A_HOST: Duration = Duration::from_millis(2500);
/// How long reading what is kept in the cluster may take: it stands still until a dead host's OSDs are noticed.
const KEPT: Duration = Duration::from_secs(6);
/// Deadline of one question to the monitors.
const QUESTION: Duration = Duration::from_secs(8);
/// How long one domain's live definition may take.
const LIVE: Duration = Duration::from_secs(8);
/// A host that has not answered by then has its BMC asked meanwhile.
const BMC_AFTER: Duration = Duration::from_millis(800);
/// How long the BMC of a host that does not answer may take, from the beginning on.
const BMC: Duration = Duration::from_millis(2500);

/// An OSD as Ceph sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Osd {
    /// Its number.
    pub id: i64,
    /// The host bucket it is under.
    pub host: String,
    /// Whether it runs.
    pub up: bool,
    /// Its disk: the kernel's name, and model and serial number; none where Ceph does not know it yet.
    pub disk: Option<String>,
}

/// What the cluster says.
#[derive(Clone, Debug, Default)]
pub struct CephSeen {
    /// Its health.
    pub status: CephStatus,
    /// Its OSDs.
    pub osds: Vec<Osd>,
    /// Why what is kept in the cluster (all that follows) cannot be read, though the monitors answer.
    pub unread: Option<String>,
    /// State objects that this version cannot read.
    pub unreadable: Vec<Unread>,
    /// The guests it knows.
    pub guests: Vec<Guest>,
    /// Who may run them.
    pub claims: BTreeMap<Uuid, Claim>,
    /// Hosts in maintenance.
    pub states: BTreeMap<String, HostState>,
    /// What hosts are promised to by guests on their way.
    pub reservations: BTreeMap<String, Reservations>,
    /// Hosts that are shut out of the storage.
    pub fences: Fences,
    /// What rehearsals of hosts' fences have shown.
    pub rehearsals: BTreeMap<String, Rehearsal>,
    /// What the watchers have left.
    pub watch: WatchSeen,
}

/// A host that does not answer.
#[derive(Clone, Debug)]
pub struct Silent {
    /// Why not.
    pub error: String,
    /// What its BMC says: whether it has power; nothing where there is none to ask.
    pub power: Option<bool>,
}

/// Why nothing is known of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoCeph {
    /// Why it does not answer.
    pub why: String,
    /// What to do about it.
    pub fix: String,
}

impl From<Failure> for NoCeph {
    fn from(failure: Failure) -> Self {
        let fix = failure.hints.first().cloned();
        let fix =
            fix.unwrap_or_else(|| "bring mon hosts back until a majority is up; then `rackhand status`".to_owned());
        NoCeph { why: failure.to_string(), fix }
    }
}

/// Everything that was seen at about one time.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Each host, or why it does not answer.
    pub host_metrics: BTreeMap<String, Result<HostMetrics, Silent>>,
    /// What runs where.
    pub domain_inventory: DomainInventory,
    /// The cluster, or why it does not answer.
    pub ceph: Result<CephSeen, NoCeph>,
    /// The pool of the guests' disks.
    pub pool: String,
    /// What running domains have, where that was asked for.
    pub live: Vec<LiveSeen>,
}

/// What a running domain has.
#[derive(Clone, Debug)]
pub struct LiveSeen {
    /// Its host.
    pub host: String,
    /// Its name.
    pub name: String,
    /// Its id.
    pub uuid: Uuid,
    /// What it has.
    pub live: Live,
}

/// Looks at everything, and into every running domain.
pub async fn look_closely(inventory: &Inventory, fleet: &Fleet) -> Seen {
    let hypervisors = hypervisors(inventory, fleet);
    let mut seen = look_with(inventory, fleet, &hypervisors).await;
    let running = seen.domain_inventory.seen.values().flatten().filter(|(_, domain)| domain.state.has_process());
    let reads = running.map(|(host, domain)| {
        let hypervisors = &hypervisors;
        async move {
            // One that ended meanwhile has nothing any more; a host that fell silent is named already.
            let xml = timeout(LIVE, hypervisors.get(host).ok()?.xml(domain.uuid)).await.ok()?.ok()?;
            let live = Live::read(&xml)?;
            Some(LiveSeen { host: host.clone(), name: domain.name.clone(), uuid: domain.uuid, live })
        }
    });
    seen.live = join_all(reads).await.into_iter().flatten().collect();
    seen
}

/// Looks at everything.
pub async fn collect_status(inventory: &Inventory, fleet: &Fleet) -> Seen {
    look_with(inventory, fleet, &hypervisors(inventory, fleet)).await
}

fn hypervisors(inventory: &Inventory, fleet: &Fleet) -> Hypervisors {
    Hypervisors::over(fleet, inventory.with_role(Role::Guests).map(|host| host.name.as_str()))
}

async fn look_with(inventory: &Inventory, fleet: &Fleet, hypervisors: &Hypervisors) -> Seen {
    let until = Until::new(CEPH);
    let hosts = async {
        let roll = &RollCall::default();
        let silent = until.clone();
        let ask = |remote: Arc<dyn Remote>| {
            let silent = silent.clone();
            async move {
                let answer = host(inventory, fleet, roll, remote).await;
                if answer.is_err() {
                    silent.shorten(CEPH_WITHOUT_A_HOST);
                }
                answer
            }
        };
        fleet.each(fleet.names(), ask).await
    };
    let ((host_metrics, mut domain_inventory), ceph) = tokio::join!(
        async { tokio::join!(hosts, DomainInventory::ask(hypervisors, Fences::default(), true)) },
        ask_ceph(inventory, fleet, &until)
    );
    let ceph = match ceph {
        Ok(Some(seen)) => Ok(seen),
        Ok(None) => Err(ceph_is_silent(inventory, &host_metrics, until.waited())),
        Err(error) => Err(Failure::from(error).into()),
    };
    if let Ok(ceph) = &ceph {
        domain_inventory.fences = ceph.fences.clone();
    }
    let mut seen = Seen { host_metrics, domain_inventory, ceph, pool: inventory.ceph.pool.clone(), live: Vec::new() };
    name_the_missing(inventory, &mut seen);
    seen
}

/// Asks a host, and its BMC when it does not answer at once.
async fn host(
    inventory: &Inventory,
    fleet: &Fleet,
    roll: &RollCall,
    remote: Arc<dyn Remote>,
) -> Result<HostMetrics, Silent> {
    let name = remote.name();
    let answer = async {
        // A dead host is told by its connection; one that has connected may be busy.
        match roll.answer(remote.connect()).await {
            Some(connected) => connected.map_err(|error| error.to_string())?,
            None => return Err(format!("host {name}: {}", roll.late())),
        }
        metrics(remote.as_ref()).await.map_err(|error| error.to_string())
    };
    let until = Instant::now() + BMC;
    let bmc = async {
        sleep(BMC_AFTER).await;
        power(inventory, fleet, name).await
    };
    tokio::pin!(answer, bmc);
    let mut on = None;
    let error = loop {
        tokio::select! {
            biased;
            answer = &mut answer => match answer {
                Ok(metrics) => return Ok(metrics),
                Err(error) => break error,
            },
            power = &mut bmc, if on.is_none() => on = Some(power),
        }
    };
    let power = match on {
        Some(power) => power,
        None => timeout_at(until, bmc).await.ok().flatten(),
    };
    Err(Silent { error, power })
}

/// A deadline that others may bring forward.
#[derive(Clone, Debug)]
struct Until {
    began: Instant,
    end: Arc<watch::Sender<Instant>>,
}

impl Until {
    fn new(limit: Duration) -> Self {
        let began = Instant::now();
        Until { began, end: Arc::new(watch::Sender::new(began + limit)) }
    }

    fn shorten(&self, limit: Duration) {
        let end = self.began + limit;
        self.end.send_if_modified(|at| {
            end < *at && {
                *at = end;
                true
            }
        });
    }

    fn waited(&self) -> Duration {
        self.began.elapsed()
    }

    /// What comes of it by then.
    async fn wait<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let over = async {
            let mut end = self.end.subscribe();
            loop {
                let at = *end.borrow_and_update();
                tokio::select! {
                    () = sleep_until(at) => return,
                    // The sender lives as long as `self`.
                    _ = end.changed() => {}
                }
            }
        };
        tokio::select! {
            biased;
            value = work => Some(value),
            () = over => None,
        }
    }
}

/// Mon hosts that do not answer.
fn silent_mons<'a>(
    inventory: &'a Inventory,
    host_metrics: &BTreeMap<String, Result<HostMetrics, Silent>>,
) -> Vec<&'a str> {
    let silent = |name: &str| !matches!(host_metrics.get(name), Some(Ok(_)));
    inventory.with_role(Role::Mon).map(|host| host.name.as_str()).filter(|name| silent(name)).collect()
}

/// Why the monitors say nothing: too few of their hosts are left, or those that are left do not agree yet.
fn ceph_is_silent(
    inventory: &Inventory,
    host_metrics: &BTreeMap<String, Result<HostMetrics, Silent>>,
    waited: Duration,
) -> NoCeph {
    let (mons, silent) = (inventory.with_role(Role::Mon).count(), silent_mons(inventory, host_metrics));
    let (left, who) = (mons - silent.len(), silent.join(", "));
    let not = if silent.len() == 1 { "does not" } else { "do not" };
    if left * 2 <= mons {
        return NoCeph {
            why: format!("Ceph has no quorum: of {mons} mon hosts {who} {not} answer"),
            fix: "bring mon hosts back until a majority is up; then `rackhand status`".to_owned(),
        };
    }
    let why =
        format!("Ceph does not answer within {:.1} s, though {left} of {mons} mon hosts do", waited.as_secs_f64());
    match silent.is_empty() {
        true => NoCeph { why, fix: "`ceph -s` on a mon host; look at the clocks and at the mons' disks".to_owned() },
        false => NoCeph {
            why: format!("{why}: {who} {not} answer, and the other monitors may still be electing a leader"),
            fix: "`rackhand status` again in 15 s; a monitor out of the quorum is named then".to_owned(),
        },
    }
}

/// Says whose silence the storage may be waiting for.
fn name_the_missing(inventory: &Inventory, seen: &mut Seen) {
    let silent = |host: &&HostSpec| !host.osds.is_empty() && matches!(seen.host_metrics.get(&host.name), Some(Err(_)));
    let silent: Vec<&str> = inventory.hosts.iter().filter(silent).map(|host| host.name.as_str()).collect();
    if let Ok(CephSeen { unread: Some(why), .. }) = &mut seen.ceph
        && !silent.is_empty()
    {
        why.push_str(&format!("; it may wait for the OSDs of {} to be marked down", silent.join(", ")));
    }
}

/// Whether a host has power, where its BMC says so.
async fn power(inventory: &Inventory, fleet: &Fleet, host: &str) -> Option<bool> {
    match fence::ask(inventory.host(host)?, inventory, fleet).await {
        Some(BmcSeen::Answered { on, .. }) => Some(on),
        _ => None,
    }
}

/// Asks the cluster; none when its monitors say nothing in time.
async fn ask_ceph(inventory: &Inventory, fleet: &Fleet, until: &Until) -> Result<Option<CephSeen>, ClusterError> {
    let Some(cluster) = until.wait(Cluster::connect(fleet, inventory)).await else { return Ok(None) };
    let cluster = cluster?;
    let port: &dyn ClusterPort = &cluster;
    let tree = async { port.command(&Target::Mon, json!({"prefix": "osd tree", "format": "json"}), QUESTION).await };
    let disks = async {
        let asked = port.command(&Target::Mon, json!({"prefix": "osd metadata", "format": "json"}), QUESTION).await;
        // Without it all is told but which disk an OSD has.
        Ok(asked.inspect_err(|error| tracing::debug!(%error, "the disks of the OSDs")).unwrap_or_default())
    };
    let hosts = inventory.with_role(Role::Guests).map(|host| host.name.as_str());
    let kept = async {
        tokio::try_join!(
            readable::<Guest>(port, "guest."),
            claim::readable(port),
            readable::<Template>(port, image::PREFIX),
            read_host_states(port),
            read_reservations(port, hosts),
            fence::standing(port),
            fence::rehearsals(port),
            WatchSeen::read(port)
        )
    };
    let mons = until.wait(async { tokio::try_join!(status(port), tree, disks) });
    let kept = until.wait(timeout(KEPT, kept));
    let asked = Instant::now();
    let (mons, kept) = tokio::join!(mons, kept);
    let Some(mons) = mons else { return Ok(None) };
    let (status, tree, disks) = mons?;
    let mut seen = CephSeen { status, osds: read_tree(&tree, &disks), ..CephSeen::default() };
    match kept {
        Some(Ok(Ok((guests, claims, (_, bad_images), states, reservations, fences, rehearsals, watch)))) => {
            let ((guests, bad_guests), (claims, bad_claims), (rehearsals, bad_rehearsals)) =
                (guests, claims, rehearsals);
            let unreadable = [bad_guests, bad_claims, bad_images, bad_rehearsals].concat();
            let rehearsals = rehearsals.into_iter().map(|one| (one.host.clone(), one)).collect();
            seen = CephSeen { unreadable, guests, claims, states, reservations, fences, rehearsals, watch, ..seen };
            seen.guests.sort_by(|a, b| a.name.cmp(&b.name));
        }
        Some(Ok(Err(error))) => seen.unread = Some(error.to_string()),
        None | Some(Err(_)) => {
            let waited = asked.elapsed().as_secs_f64();
            seen.unread = Some(format!("its storage gave no answer within {waited:.1} s"));
        }
    }
    Ok(Some(seen))
}

/// OSDs by host out of `osd tree`, with their disks out of `osd metadata`.
fn read_tree(tree: &Value, metadata: &Value) -> Vec<Osd> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let nodes = list(&tree["nodes"]);
    let up: BTreeMap<i64, bool> = nodes
        .iter()
        .filter(|node| node["type"] == "osd")
        .filter_map(|node| Some((node["id"].as_i64()?, node["status"] == "up")))
        .collect();
    let disks: BTreeMap<i64, String> =
        list(metadata).iter().filter_map(|osd| Some((osd["id"].as_i64()?, disk_of(osd)?))).collect();
    let mut osds = Vec::new();
    for host in nodes.iter().filter(|node| node["type"] == "host") {
        for id in list(&host["children"]).iter().filter_map(Value::as_i64) {
            let Some(up) = up.get(&id).copied() else { continue };
            let host = host["name"].as_str().unwrap_or_default().to_owned();
            osds.push(Osd { id, host, up, disk: disks.get(&id).cloned() });
        }
    }
    osds
}

/// The disk of an OSD as its metadata name it: `sdb (MODEL_SERIAL)`.
fn disk_of(osd: &Value) -> Option<String> {
    let text = |key: &str| osd[key].as_str().filter(|text| !text.is_empty());
    let devices = text("devices")?;
    // Several are `sdb=ID,sdc=ID`.
    let ids: Vec<&str> = text("device_ids")
        .into_iter()
        .flat_map(|ids| ids.split(','))
        .filter_map(|id| Some(id.split_once('=')?.1))
        .collect();
    Some(match ids.is_empty() {
        true => devices.to_owned(),
        false => format!("{devices} ({})", ids.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory;

    fn rack() -> Inventory {
        let mut text = "cluster: {name: rack, fsid: 11111111-2222-4333-8444-555555555555}\nnetworks:\n  \
            management: {cidr: 10.0.0.0/24}\n  storage: {cidr: 10.0.1.0/24}\nhosts:\n"
            .to_owned();
        for n in 1..=3 {
            text +=
                &format!("  - {{name: h{n}, address: 10.0.0.1{n}, storage_address: 10.0.1.1{n}, osds: [/dev/d]}}\n");
        }
        inventory::parse("inventory.yaml", &text).unwrap()
    }

    fn host_metrics(silent: &[&str]) -> BTreeMap<String, Result<HostMetrics, Silent>> {
        let one = |name: &str| match silent.contains(&name) {
            true => Err(Silent { error: "no answer within 2 s".into(), power: None }),
            false => Ok(HostMetrics::default()),
        };
        ["h1", "h2", "h3"].map(|name| (name.to_owned(), one(name))).into()
    }

    #[test]
    fn a_silent_ceph_is_told_from_a_dead_host() {
        let told = |silent: &[&str]| ceph_is_silent(&rack(), &host_metrics(silent), Duration::from_millis(2500));
        insta::assert_snapshot!(told(&[]).why, @"Ceph does not answer within 2.5 s, though 3 of 3 mon hosts do");
        insta::assert_snapshot!(
            told(&["h3"]).why,
            @"Ceph does not answer within 2.5 s, though 2 of 3 mon hosts do: h3 does not answer, and the other monitors may still be electing a leader"
        );
        insta::assert_snapshot!(told(&["h2", "h3"]).why, @"Ceph has no quorum: of 3 mon hosts h2, h3 do not answer");
    }

    #[test]
    fn storage_that_waits_for_a_dead_hosts_disks_says_so() {
        let unread = |silent: &[&str]| {
            let ceph = CephSeen { unread: Some("no answer within 1.9 s".into()), ..CephSeen::default() };
            let (domain_inventory, pool) = (DomainInventory::default(), "guests".to_owned());
            let mut seen =
                Seen { host_metrics: host_metrics(silent), domain_inventory, ceph: Ok(ceph), pool, live: Vec::new() };
            name_the_missing(&rack(), &mut seen);
            seen.ceph.unwrap().unread.unwrap()
        };
        assert_eq!(unread(&[]), "no answer within 1.9 s");
        assert_eq!(unread(&["h2"]), "no answer within 1.9 s; it may wait for the OSDs of h2 to be marked down");
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_is_brought_forward_ends_what_waits_for_it() {
        let until = Until::new(CEPH);
        assert_eq!(until.wait(async { 1 }).await, Some(1));
        let shorten = async {
            sleep(Duration::from_secs(2)).await;
            until.shorten(CEPH_WITHOUT_A_HOST);
            until.shorten(CEPH);
        };
        let (late, ()) = tokio::join!(until.wait(std::future::pending::<()>()), shorten);
        assert_eq!((late, until.waited().as_millis()), (None, 2500));
    }

    #[test]
    fn a_tree_of_16_2_is_read() {
        let tree = json!({"nodes": [
            {"id": -1, "name": "default", "type": "root", "children": [-3, -5]},
            {"id": -3, "name": "h1", "type": "host", "children": [0]},
            {"id": 0, "name": "osd.0", "type": "osd", "status": "up"},
            {"id": -5, "name": "h2", "type": "host", "children": [1]},
            {"id": 1, "name": "osd.1", "type": "osd", "status": "down"}], "stray": []});
        let metadata = json!([
            {"id": 0, "hostname": "h1", "devices": "sdb", "device_ids": "sdb=DELL_X_123"},
            {"id": 1, "hostname": "h2", "devices": "loop1", "device_ids": ""}]);
        let osds = read_tree(&tree, &metadata);
        assert_eq!(osds[0], Osd { id: 0, host: "h1".into(), up: true, disk: Some("sdb (DELL_X_123)".into()) });
        assert_eq!(osds[1], Osd { id: 1, host: "h2".into(), up: false, disk: Some("loop1".into()) });
        assert_eq!(read_tree(&tree, &Value::Null)[0].disk, None);
    }
}
