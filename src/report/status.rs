//! One picture of the rack, put together from what was seen. Pure.

use super::collect::{CephSeen, Osd, Seen, Silent};
use super::metrics::HostMetrics;
use super::watching::{self, WatchLine};
use crate::cluster::CephStatus;
use crate::fence::Rehearsal;
use crate::guest::placement::{self, HostCapacity, Need, Place, Planner};
use crate::guest::{Guest, GuestView, Maintenance, State, need, rooms, view};
use crate::inventory::{HostSpec, Inventory, Role};
use crate::libvirt::Domain;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use uuid::Uuid;

/// The whole rack.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Name of the cluster.
    pub cluster: String,
    /// Ceph, where it answers.
    pub ceph: Option<CephStatus>,
    /// Why it does not.
    pub ceph_error: Option<String>,
    /// The watch, where the rack was ever watched.
    pub watch: Option<WatchLine>,
    /// The hosts, in the inventory's order.
    pub hosts: Vec<HostLine>,
    /// Why guests and maintenance are not known, though the monitors answer.
    pub guests_error: Option<String>,
    /// The guests, by name; where they are not known, what the hosts that answer run.
    pub guests: Vec<GuestLine>,
}

/// A host.
#[derive(Clone, Debug, Serialize)]
pub struct HostLine {
    /// Its name.
    pub name: String,
    /// Whether it answers over SSH.
    pub reachable: bool,
    /// Why not.
    pub error: Option<String>,
    /// `on` or `off`; `unknown` where the host does not answer and its BMC does not tell.
    pub power: &'static str,
    /// How it is.
    pub metrics: Option<HostMetrics>,
    /// Whether libvirt answers, where the host runs guests.
    pub libvirt: Option<bool>,
    /// Memory kept back for itself and its OSDs, in bytes.
    pub memory_reserved: u64,
    /// Memory left for more guests, in bytes; less what guests on their way will take.
    pub memory_free: u64,
    /// Guests that have a QEMU process on it.
    pub guests: usize,
    /// Its OSDs, each with its disk.
    pub disks: Vec<OsdLine>,
    /// OSDs that run.
    pub osds_up: usize,
    /// OSDs in all.
    pub osds: usize,
    /// Its monitor: `in quorum`, `out of quorum`, `none`, or `unknown` where Ceph does not answer.
    pub mon: &'static str,
    /// Why it takes no guests, since when and by whose word.
    pub maintenance: Option<String>,
    /// For how many seconds the maintenance has been over; nothing where it is not, or has no end.
    pub maintenance_overdue: Option<i64>,
    /// What rehearsals of its fence have shown; nothing where there was none.
    pub fence: Option<FenceLine>,
}

/// An OSD and its disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OsdLine {
    /// Its number.
    pub osd: i64,
    /// Whether it runs.
    pub up: bool,
    /// Its disk: the kernel's name, and model and serial number; none where Ceph does not know it yet.
    pub disk: Option<String>,
}

impl std::fmt::Display for OsdLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "osd.{}", self.osd)?;
        self.disk.as_ref().map_or(Ok(()), |disk| write!(f, " on {disk}"))
    }
}

/// How fit a host's fence was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FenceLine {
    /// Seconds since every path of it was last found fit; nothing where one never was.
    pub fit: Option<i64>,
    /// Whether that is too long ago to count on it.
    pub stale: bool,
    /// What was wrong at the last rehearsal.
    pub problem: Option<String>,
}

/// A guest.
#[derive(Clone, Debug, Serialize)]
pub struct GuestLine {
    /// Its name.
    pub name: String,
    /// Its id.
    pub uuid: Uuid,
    /// What it is doing.
    pub state: State,
    /// Where it runs; where it may run, when the state is unknown.
    pub host: Option<String>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Seconds since it was started.
    pub uptime: Option<i64>,
    /// Whether it would come back after the loss of its host.
    pub protection: Protection,
    /// Why not, where it would not.
    pub protection_why: Option<String>,
}

/// Whether a guest would come back after the loss of its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protection {
    /// There is room for it elsewhere.
    Protected,
    /// There is none.
    Unprotected,
    /// It does not run.
    Off,
    /// The guests' definitions cannot be read.
    Unknown,
}

impl std::fmt::Display for Protection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Protection::Protected => "protected",
            Protection::Unprotected => "UNPROTECTED",
            Protection::Off | Protection::Unknown => "",
        })
    }
}

/// Puts the picture together.
pub fn assemble(inventory: &Inventory, seen: &Seen, now: Timestamp) -> Status {
    let nothing = CephSeen::default();
    let (ceph, error) = match &seen.ceph {
        Ok(ceph) => (ceph, None),
        Err(silent) => (&nothing, Some(silent.why.clone())),
    };
    let rooms = rooms(inventory, &seen.domain_inventory, &ceph.states, &ceph.guests, &ceph.reservations);
    let homes = homes_after_loss(&rooms, seen, &ceph.guests);
    let by_host = ByHost::of(seen, ceph, &rooms);
    Status {
        cluster: inventory.cluster.name.clone(),
        ceph: error.is_none().then(|| ceph.status.clone()),
        ceph_error: error,
        watch: watching::line(&ceph.watch, now),
        guests_error: ceph.unread.clone(),
        hosts: inventory.hosts.iter().map(|h| host_line(inventory, h, seen, ceph, &by_host, now)).collect(),
        guests: match seen.ceph.as_ref().is_ok_and(|ceph| ceph.unread.is_none()) {
            true => ceph.guests.iter().map(|g| guest_line(g, seen, ceph, &homes, now)).collect(),
            false => running(seen),
        },
    }
}

fn fence_line(rehearsal: &Rehearsal, now: Timestamp) -> FenceLine {
    let paths = || std::iter::once(&rehearsal.storage).chain(&rehearsal.power);
    let ages: Option<Vec<i64>> = paths().map(|path| path.age(now).map(|age| age.as_secs())).collect();
    FenceLine {
        fit: ages.and_then(|ages| ages.into_iter().max()),
        stale: paths().any(|path| path.is_stale(now)),
        problem: paths().find_map(|path| path.problem.clone()),
    }
}

/// What was seen, sorted by host once for all of them.
struct ByHost<'a> {
    rooms: BTreeMap<&'a str, &'a HostCapacity>,
    osds: BTreeMap<&'a str, Vec<&'a Osd>>,
    domains: BTreeMap<&'a str, Vec<&'a Domain>>,
}

impl<'a> ByHost<'a> {
    fn of(seen: &'a Seen, ceph: &'a CephSeen, rooms: &'a [HostCapacity]) -> Self {
        let mut osds: BTreeMap<&str, Vec<&Osd>> = BTreeMap::new();
        for osd in &ceph.osds {
            osds.entry(&osd.host).or_default().push(osd);
        }
        let rooms = rooms.iter().map(|room| (room.name.as_str(), room)).collect();
        ByHost { rooms, osds, domains: seen.domain_inventory.by_host() }
    }
}

fn host_line(
    inventory: &Inventory,
    spec: &HostSpec,
    seen: &Seen,
    ceph: &CephSeen,
    by_host: &ByHost<'_>,
    now: Timestamp,
) -> HostLine {
    let metrics = seen.host_metrics.get(&spec.name);
    let room = by_host.rooms.get(spec.name.as_str());
    let osds = by_host.osds.get(spec.name.as_str()).map_or(&[][..], Vec::as_slice);
    let here = by_host.domains.get(spec.name.as_str()).into_iter().flatten();
    let mon = match (spec.has(Role::Mon), &seen.ceph) {
        (false, _) => "none",
        (true, Err(_)) => "unknown",
        (true, Ok(c)) if c.status.quorum.contains(&spec.name) => "in quorum",
        (true, Ok(_)) => "out of quorum",
    };
    let state = ceph.states.get(&spec.name).and_then(|s| s.maintenance.as_ref());
    HostLine {
        name: spec.name.clone(),
        reachable: matches!(metrics, Some(Ok(_))),
        error: metrics.and_then(|p| p.as_ref().err().map(|silent| silent.error.clone())),
        power: match metrics {
            Some(Ok(_) | Err(Silent { power: Some(true), .. })) => "on",
            Some(Err(Silent { power: Some(false), .. })) => "off",
            Some(Err(Silent { power: None, .. })) | None => "unknown",
        },
        metrics: metrics.and_then(|p| p.as_ref().ok().cloned()),
        libvirt: spec.has(Role::Guests).then(|| seen.domain_inventory.hosts.contains_key(&spec.name)),
        memory_reserved: inventory.reserve(spec).bytes(),
        memory_free: room.map_or(0, |r| r.memory.saturating_sub(r.used)),
        guests: here.filter(|domain| domain.state.has_process()).count(),
        disks: osds.iter().map(|o| OsdLine { osd: o.id, up: o.up, disk: o.disk.clone() }).collect(),
        osds_up: osds.iter().filter(|o| o.up).count(),
        osds: osds.len(),
        mon,
        maintenance: state.map(|maintenance| in_words(maintenance, now)),
        maintenance_overdue: state.and_then(|maintenance| maintenance.overdue(now)),
        fence: ceph.rehearsals.get(&spec.name).map(|rehearsal| fence_line(rehearsal, now)),
    }
}

/// Maintenance in words: why, since when and by whom, and until when.
fn in_words(maintenance: &Maintenance, now: Timestamp) -> String {
    let at = |time: Timestamp| time.strftime("%Y-%m-%dT%H:%MZ").to_string();
    let mut words = format!("since {}, by {}", at(maintenance.since), maintenance.by);
    if let Some(until) = maintenance.until {
        let until = at(until);
        words += &match maintenance.overdue(now) {
            Some(_) => format!(", OVERDUE since {until}"),
            None => format!(", until {until}"),
        };
    }
    maintenance.why.as_ref().map_or(words.clone(), |why| format!("{why} ({words})"))
}

fn guest_line(
    guest: &Guest,
    seen: &Seen,
    ceph: &CephSeen,
    homes: &BTreeMap<Uuid, Option<String>>,
    now: Timestamp,
) -> GuestLine {
    let GuestView { state, host, started, addresses, .. } =
        view(guest, ceph.claims.get(&guest.uuid), &seen.domain_inventory);
    let (protection, why) = match homes.get(&guest.uuid) {
        None => (Protection::Off, None),
        Some(None) => (Protection::Protected, None),
        Some(Some(why)) => (Protection::Unprotected, Some(why.clone())),
    };
    GuestLine {
        name: guest.name.clone(),
        uuid: guest.uuid,
        state,
        host,
        addresses,
        uptime: started.map(|s| now.as_second() - s.as_second()),
        protection,
        protection_why: why,
    }
}

/// What the hosts that answer run, where the cluster does not tell the guests.
fn running(seen: &Seen) -> Vec<GuestLine> {
    let domains = seen.domain_inventory.seen.values().flatten().filter(|(_, domain)| domain.state.has_process());
    let line = |(host, domain): &(String, Domain)| GuestLine {
        name: domain.name.clone(),
        uuid: domain.uuid,
        state: domain.state.into(),
        host: Some(host.clone()),
        addresses: Vec::new(),
        uptime: None,
        protection: Protection::Unknown,
        protection_why: None,
    };
    let mut lines: Vec<GuestLine> = domains.map(line).collect();
    lines.sort_by(|a, b| a.name.cmp(&b.name));
    lines
}

/// For each running guest: nothing when there is a place for it if its host is lost, else why not. Each host's loss is
/// played on its own, all its guests at once.
fn homes_after_loss(rooms: &[HostCapacity], seen: &Seen, guests: &[Guest]) -> BTreeMap<Uuid, Option<String>> {
    let mut here: BTreeMap<&str, Vec<&Guest>> = BTreeMap::new();
    for guest in guests {
        if let Some((host, _)) = seen.domain_inventory.place(guest.uuid) {
            here.entry(host).or_default().push(guest);
        }
    }
    let planner = Planner::new(rooms);
    let mut homes = BTreeMap::new();
    for lost in rooms {
        let Some(theirs) = here.get(lost.name.as_str()) else { continue };
        let needs: Vec<Need> = theirs.iter().map(|g| need(g, None)).collect();
        for (guest, place) in theirs.iter().zip(planner.without(&lost.name).place(&needs)) {
            let why = match place {
                Place::Host(_) => None,
                Place::Nowhere(why) => Some(placement::reasons(&why)),
            };
            homes.insert(guest.uuid, why);
        }
    }
    homes
}
