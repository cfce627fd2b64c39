//! Where guests go: a pure planner.
//!
//! A guest goes to the host that is left with the largest share of free memory, after those have been struck out that
//! cannot take it. Two tags steer it: guests with the same `apart=VALUE` never share a host; guests with the same
//! `spread=VALUE` share a rack, and then a host, only when there is no other way.

use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Tag of guests that must not share a host.
pub const APART: &str = "apart";
/// Tag of guests that are spread over racks and hosts where possible.
pub const SPREAD: &str = "spread";

/// Why a host takes no guest at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// It does not answer; the reason.
    Silent(String),
    /// It is in maintenance; why, where somebody said so.
    Maintenance(Option<String>),
    /// It is about to be emptied.
    Evacuated,
}

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Closed::Silent(why) => write!(f, "does not answer: {why}"),
            Closed::Maintenance(Some(why)) => write!(f, "in maintenance: {why}"),
            Closed::Maintenance(None) => f.write_str("in maintenance"),
            Closed::Evacuated => f.write_str("is being evacuated"),
        }
    }
}

/// A host as the planner sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostCapacity {
    /// Its name.
    pub name: String,
    /// Its rack; a host without one is a rack of its own.
    pub rack: Option<String>,
    /// Why it takes no guest at all, where it does not.
    pub closed: Option<Closed>,
    /// Memory it has in all, in bytes; none where that is not known.
    pub total: u64,
    /// Memory kept back for itself and its OSDs.
    pub reserved: u64,
    /// Memory for guests in all: the host's own less what is kept back.
    pub memory: u64,
    /// Memory of the guests it has.
    pub used: u64,
    /// Virtual processors it may give in all.
    pub cpus: u64,
    /// Virtual processors of the guests it has.
    pub cpus_used: u64,
    /// Tags of the guests it has.
    pub tags: Vec<BTreeMap<String, String>>,
    /// Names of domains it has that are no guests: libvirt takes no second domain of a name.
    pub taken: BTreeSet<String>,
}

/// A guest that needs a place.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Need {
    /// Its name.
    pub name: String,
    /// Memory in bytes.
    pub memory: u64,
    /// Virtual processors.
    pub cpus: u32,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// The only host it may go to.
    pub pinned: Option<String>,
    /// Hosts it must not go to, with the reason (its own host, when it moves).
    pub not: BTreeMap<String, String>,
    /// Higher is placed sooner.
    pub priority: i32,
}

/// Where a guest goes, or why nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// To this host.
    Host(String),
    /// Nowhere; the reason of each host.
    Nowhere(BTreeMap<String, String>),
}

/// Places guests, by priority, then the largest first, then by name; the answers are in the order of `needs`.
pub fn place(hosts: &[HostCapacity], needs: &[Need]) -> Vec<Place> {
    Planner::new(hosts).place(needs)
}

/// Hosts with their guests counted, so that a guest is placed by one look at each host. Made once, it places on copies of
/// itself: with all hosts, or as if one of them were lost.
#[derive(Clone, Debug)]
pub struct Planner<'a> {
    hosts: Vec<Slot<'a>>,
    /// Guests of each `spread` group on the hosts of a rack.
    racks: Vec<HashMap<&'a str, usize>>,
}

/// A host and what it has by now.
#[derive(Clone, Debug)]
struct Slot<'a> {
    room: &'a HostCapacity,
    used: u64,
    cpus_used: u64,
    guests: usize,
    /// Groups of `apart` it has a guest of.
    apart: HashSet<&'a str>,
    /// Guests of each group of `spread`.
    spread: HashMap<&'a str, usize>,
    rack: usize,
}

impl<'a> Planner<'a> {
    /// Counts what the hosts have.
    pub fn new(hosts: &'a [HostCapacity]) -> Self {
        let mut planner = Planner { hosts: Vec::with_capacity(hosts.len()), racks: Vec::new() };
        let mut racks: HashMap<&str, usize> = HashMap::new();
        for room in hosts {
            let fresh = planner.racks.len();
            let rack = match &room.rack {
                Some(rack) => *racks.entry(rack).or_insert(fresh),
                None => fresh,
            };
            if rack == fresh {
                planner.racks.push(HashMap::new());
            }
            planner.hosts.push(Slot::of(room, rack));
            for tags in &room.tags {
                planner.count(planner.hosts.len() - 1, tags);
            }
        }
        planner
    }

    /// The hosts but this one.
    pub fn without(&self, lost: &str) -> Self {
        let mut rest = self.clone();
        if let Some(at) = rest.hosts.iter().position(|host| host.room.name == lost) {
            let gone = rest.hosts.remove(at);
            for (group, guests) in gone.spread {
                rest.racks[gone.rack].entry(group).and_modify(|count| *count -= guests);
            }
        }
        rest
    }

    /// Places guests beside what the hosts have; see [`place`].
    pub fn place<'n>(&self, needs: &'n [Need]) -> Vec<Place>
    where
        'a: 'n,
    {
        let mut planner: Planner<'n> = self.clone();
        let mut order: Vec<usize> = (0..needs.len()).collect();
        let rank = |need: &Need| (-i64::from(need.priority), std::cmp::Reverse(need.memory));
        order.sort_by(|a, b| {
            let (a, b) = (&needs[*a], &needs[*b]);
            rank(a).cmp(&rank(b)).then_with(|| a.name.cmp(&b.name))
        });
        let mut places = vec![Place::Nowhere(BTreeMap::new()); needs.len()];
        for at in order {
            places[at] = planner.place_one(&needs[at]);
        }
        places
    }

    fn place_one(&mut self, need: &'a Need) -> Place {
        let group = need.tags.get(SPREAD).map(String::as_str);
        let in_rack = |host: &Slot| group.and_then(|g| self.racks[host.rack].get(g)).copied().unwrap_or(0);
        let here = |host: &Slot| group.and_then(|g| host.spread.get(g)).copied().unwrap_or(0);
        let open = self.hosts.iter().enumerate().filter(|(_, host)| host.refusal(need).is_none());
        let best = open.min_by_key(|(_, host)| {
            let share = std::cmp::Reverse(host.free_share(need));
            (in_rack(host), here(host), share, host.guests, host.room.name.as_str())
        });
        let Some((at, _)) = best else {
            let why = |host: &Slot| Some((host.room.name.clone(), host.refusal(need)?.to_string()));
            return Place::Nowhere(self.hosts.iter().filter_map(why).collect());
        };
        self.hosts[at].used += need.memory;
        self.hosts[at].cpus_used += u64::from(need.cpus);
        self.count(at, &need.tags);
        Place::Host(self.hosts[at].room.name.clone())
    }

    /// Counts a guest of these tags in.
    fn count(&mut self, at: usize, tags: &'a BTreeMap<String, String>) {
        let host = &mut self.hosts[at];
        host.guests += 1;
        host.apart.extend(tags.get(APART).map(String::as_str));
        if let Some(group) = tags.get(SPREAD) {
            *host.spread.entry(group).or_default() += 1;
            *self.racks[host.rack].entry(group).or_default() += 1;
        }
    }
}

impl<'a> Slot<'a> {
    /// A host without its guests' tags.
    fn of(room: &'a HostCapacity, rack: usize) -> Self {
        let (used, cpus_used) = (room.used, room.cpus_used);
        Slot { room, used, cpus_used, guests: 0, apart: HashSet::new(), spread: HashMap::new(), rack }
    }

    /// Thousandths of the host's memory that stay free with the guest on it.
    fn free_share(&self, need: &Need) -> u64 {
        let free = self.room.memory.saturating_sub(self.used + need.memory);
        u64::try_from(u128::from(free) * 1000 / u128::from(self.room.memory.max(1))).unwrap_or(0)
    }

    /// Why the host cannot take a guest.
    fn refusal<'s>(&'s self, need: &'s Need) -> Option<Refusal<'s>> {
        let room = self.room;
        if let Some(pinned) = need.pinned.as_ref().filter(|pinned| **pinned != room.name) {
            return Some(Refusal::Bound(pinned));
        }
        if let Some(why) = need.not.get(&room.name) {
            return Some(Refusal::Not(why));
        }
        if let Some(closed) = &room.closed {
            return Some(Refusal::Closed(closed));
        }
        if room.taken.contains(&need.name) {
            return Some(Refusal::Taken(&need.name));
        }
        if need.memory > room.memory.saturating_sub(self.used) {
            return Some(Refusal::Memory { room, used: self.used, needed: need.memory });
        }
        if self.cpus_used + u64::from(need.cpus) > room.cpus {
            let free = room.cpus.saturating_sub(self.cpus_used);
            return Some(Refusal::Processors { free, needed: need.cpus });
        }
        let group = need.tags.get(APART)?;
        self.apart.contains(group.as_str()).then_some(Refusal::Apart(group))
    }
}

/// Why a host cannot take a guest; written out only for a guest that finds no place at all.
#[derive(Clone, Copy, Debug)]
enum Refusal<'a> {
    Bound(&'a str),
    Not(&'a str),
    Closed(&'a Closed),
    Taken(&'a str),
    Memory { room: &'a HostCapacity, used: u64, needed: u64 },
    Processors { free: u64, needed: u32 },
    Apart(&'a str),
}

impl std::fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::Bound(host) => write!(f, "the guest is bound to {host}"),
            Refusal::Not(why) => f.write_str(why),
            Refusal::Closed(closed) => closed.fmt(f),
            Refusal::Taken(name) => write!(f, "it has a domain named {name} that is no guest"),
            Refusal::Memory { room, used, needed } => {
                write!(f, "{} of memory free", mib(room.memory.saturating_sub(*used)))?;
                if room.total > 0 {
                    let (total, reserved) = (short(room.total), short(room.reserved));
                    write!(f, " ({total} in all, {reserved} kept back, {} taken)", short(*used))?;
                }
                write!(f, ", {} needed", mib(*needed))
            }
            Refusal::Processors { free, needed } => write!(f, "{free} virtual processors free, {needed} needed"),
            Refusal::Apart(group) => write!(f, "it has a guest with the tag {APART}={group}"),
        }
    }
}

/// Why a host cannot take a guest.
pub fn refusal(host: &HostCapacity, need: &Need) -> Option<String> {
    let planner = Planner::new(std::slice::from_ref(host));
    planner.hosts[0].refusal(need).map(|why| why.to_string())
}

fn mib(bytes: u64) -> String {
    if bytes >= 10 << 30 { format!("{} GiB", bytes >> 30) } else { format!("{} MiB", bytes >> 20) }
}

/// Memory in three digits or so.
#[expect(clippy::cast_precision_loss, reason = "one digit is shown")]
fn short(bytes: u64) -> String {
    match bytes {
        ..0x4000_0000 => format!("{} MiB", bytes >> 20),
        0x4000_0000..0x2_8000_0000 => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
        _ => format!("{} GiB", bytes >> 30),
    }
}

/// The reasons of all hosts in a line.
pub fn reasons(reasons: &BTreeMap<String, String>) -> String {
    let all: Vec<String> = reasons.iter().map(|(host, why)| format!("{host}: {why}")).collect();
    if all.is_empty() { "no host runs guests".to_owned() } else { all.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GIB: u64 = 1 << 30;

    fn host(name: &str, memory: u64) -> HostCapacity {
        HostCapacity { name: name.into(), memory: memory * GIB, cpus: 16, ..HostCapacity::default() }
    }

    fn need(name: &str, memory: u64) -> Need {
        Need { name: name.into(), memory: memory * GIB, cpus: 1, ..Need::default() }
    }

    fn tagged(need: Need, key: &str, value: &str) -> Need {
        Need { tags: [(key.to_owned(), value.to_owned())].into(), ..need }
    }

    fn to(place: &Place) -> &str {
        match place {
            Place::Host(host) => host,
            Place::Nowhere(_) => "nowhere",
        }
    }

    #[test]
    fn guests_fill_hosts_evenly() {
        let hosts = [host("h1", 8), host("h2", 8), host("h3", 16)];
        let needs: Vec<Need> = (0..4).map(|n| need(&format!("g{n}"), 4)).collect();
        let places = place(&hosts, &needs);
        let names: Vec<&str> = places.iter().map(to).collect();
        assert_eq!(names, ["h3", "h1", "h2", "h3"]);
    }

    #[test]
    fn every_host_says_why_not() {
        let mut small = host("h1", 1);
        small.used = GIB / 2;
        let closed = HostCapacity { closed: Some(Closed::Maintenance(Some("new memory".into()))), ..host("h2", 64) };
        let busy = HostCapacity { cpus_used: 16, ..host("h3", 64) };
        let places = place(&[small, closed, busy], &[need("g", 2)]);
        let Place::Nowhere(why) = &places[0] else { panic!("{places:?}") };
        insta::assert_snapshot!(
            reasons(why),
            @"h1: 512 MiB of memory free, 2048 MiB needed; h2: in maintenance: new memory; h3: 0 virtual processors free, 1 needed"
        );
    }

    #[test]
    fn the_sum_of_a_hosts_memory_is_shown() {
        let memory = |total: u64, reserved: u64, used: u64| {
            let room = HostCapacity { total, reserved, memory: total.saturating_sub(reserved), used, ..host("h1", 0) };
            refusal(&room, &need("g", 1)).unwrap()
        };
        insta::assert_snapshot!(
            memory(24 * GIB, 20 * GIB, 3482 << 20),
            @"614 MiB of memory free (24 GiB in all, 20 GiB kept back, 3.4 GiB taken), 1024 MiB needed"
        );
        insta::assert_snapshot!(
            memory(8 * GIB, 20 * GIB, 0),
            @"0 MiB of memory free (8.0 GiB in all, 20 GiB kept back, 0 MiB taken), 1024 MiB needed"
        );
    }

    #[test]
    fn a_host_with_another_domain_of_the_name_is_passed_over() {
        let hosts = [HostCapacity { taken: ["web".to_owned()].into(), ..host("h1", 64) }, host("h2", 8)];
        assert_eq!(to(&place(&hosts, &[need("web", 2)])[0]), "h2");
        assert_eq!(to(&place(&hosts, &[need("db", 2)])[0]), "h1");
        assert_eq!(refusal(&hosts[0], &need("web", 2)).unwrap(), "it has a domain named web that is no guest");
    }

    #[test]
    fn a_bound_guest_goes_to_its_host_or_nowhere() {
        let hosts = [host("h1", 8), host("h2", 64)];
        let bound = Need { pinned: Some("h1".into()), ..need("g", 2) };
        assert_eq!(to(&place(&hosts, std::slice::from_ref(&bound))[0]), "h1");
        assert_eq!(to(&place(&hosts, &[Need { memory: 9 * GIB, ..bound }])[0]), "nowhere");
    }

    #[test]
    fn guests_apart_never_share_a_host_and_spread_ones_share_racks_last() {
        let rack = |name: &str, rack: &str| HostCapacity { rack: Some(rack.into()), ..host(name, 64) };
        let hosts = [rack("h1", "a"), rack("h2", "a"), rack("h3", "b")];
        let apart: Vec<Need> = (0..4).map(|n| tagged(need(&format!("g{n}"), 1), APART, "db")).collect();
        let places = place(&hosts, &apart);
        let mut names: Vec<&str> = places.iter().map(to).collect();
        names.sort_unstable();
        assert_eq!(names, ["h1", "h2", "h3", "nowhere"]);
        let spread: Vec<Need> = (0..2).map(|n| tagged(need(&format!("g{n}"), 1), SPREAD, "web")).collect();
        let places = place(&hosts, &spread);
        assert!(places.iter().any(|p| to(p) == "h3"), "{places:?}");
    }

    #[test]
    fn priority_goes_first_when_room_is_short() {
        let needs = [need("a", 4), Need { priority: 5, ..need("b", 3) }];
        let places = place(&[host("h1", 5)], &needs);
        assert_eq!((to(&places[0]), to(&places[1])), ("nowhere", "h1"));
    }

    prop_compose! {
        fn any_host()(
            n in 0u8..12, memory in 0u64..64, used in 0u64..64, cpus in 0u64..32, closed in prop::bool::weighted(0.2),
            rack in prop::option::of(0u8..3), groups in prop::collection::vec((prop::bool::ANY, 0u8..2), 0..4),
        ) -> HostCapacity {
            let tag = |(spread, group)| BTreeMap::from([if spread { (SPREAD.to_owned(), ["y", "z"][usize::from(group)].to_owned()) } else { ("role".to_owned(), "db".to_owned()) }]);
            HostCapacity {
                used: used * GIB, cpus, closed: closed.then_some(Closed::Evacuated), rack: rack.map(|r| format!("r{r}")),
                tags: groups.into_iter().map(tag).collect(), ..host(&format!("h{n}"), memory)
            }
        }
    }

    prop_compose! {
        fn any_need()(n in 0u8..40, memory in 1u64..16, cpus in 1u32..8, group in 0u8..4, pin in prop::option::weighted(0.1, 0u8..12), priority in 0i32..2)
            -> Need {
            let need = Need { cpus, priority, pinned: pin.map(|p| format!("h{p}")), ..need(&format!("g{n}"), memory) };
            match group {
                0 => tagged(need, APART, "x"),
                1 => tagged(need, SPREAD, "y"),
                2 => tagged(tagged(need, SPREAD, "z"), APART, "x"),
                _ => need,
            }
        }
    }

    /// The definition: everything is counted anew for each guest and host.
    fn place_by_definition(hosts: &[HostCapacity], needs: &[Need]) -> Vec<Place> {
        let mut hosts = hosts.to_vec();
        let mut order: Vec<usize> = (0..needs.len()).collect();
        order.sort_by_key(|n| {
            let need = &needs[*n];
            (-i64::from(need.priority), std::cmp::Reverse(need.memory), need.name.clone())
        });
        let mut places = vec![Place::Nowhere(BTreeMap::new()); needs.len()];
        for n in order {
            let need = &needs[n];
            let same_rack =
                |a: &HostCapacity, b: &HostCapacity| a.name == b.name || (a.rack.is_some() && a.rack == b.rack);
            let near = |host: &HostCapacity| -> (usize, usize) {
                let Some(group) = need.tags.get(SPREAD) else { return (0, 0) };
                let here = |h: &HostCapacity| h.tags.iter().filter(|t| t.get(SPREAD) == Some(group)).count();
                (hosts.iter().filter(|h| same_rack(h, host)).map(here).sum(), here(host))
            };
            let share = |h: &HostCapacity| h.memory.saturating_sub(h.used + need.memory) * 1000 / h.memory.max(1);
            let open = hosts.iter().enumerate().filter(|(_, h)| refusal(h, need).is_none());
            let key = |h: &HostCapacity| (near(h), std::cmp::Reverse(share(h)), h.tags.len(), h.name.clone());
            let best = open.min_by_key(|(_, h)| key(h)).map(|(n, _)| n);
            let why = |h: &HostCapacity| Some((h.name.clone(), refusal(h, need)?));
            places[n] = match best {
                Some(best) => {
                    hosts[best].used += need.memory;
                    hosts[best].cpus_used += u64::from(need.cpus);
                    hosts[best].tags.push(need.tags.clone());
                    Place::Host(hosts[best].name.clone())
                }
                None => Place::Nowhere(hosts.iter().filter_map(why).collect()),
            };
        }
        places
    }

    proptest! {
        #[test]
        fn no_host_is_overfilled_and_the_plan_depends_on_nothing_else(
            hosts in prop::collection::vec(any_host(), 0..8),
            needs in prop::collection::vec(any_need(), 0..24),
        ) {
            let mut hosts = hosts;
            hosts.sort_by(|a, b| a.name.cmp(&b.name));
            hosts.dedup_by(|a, b| a.name == b.name);
            let places = place(&hosts, &needs);
            prop_assert_eq!(&places, &place(&hosts, &needs));
            prop_assert_eq!(&places, &place_by_definition(&hosts, &needs));
            for lost in &hosts {
                let rest: Vec<HostCapacity> = hosts.iter().filter(|h| h.name != lost.name).cloned().collect();
                let without = Planner::new(&hosts).without(&lost.name).place(&needs);
                prop_assert_eq!(without, place_by_definition(&rest, &needs), "without {}", lost.name);
            }
            for host in &hosts {
                let here: Vec<&Need> = needs.iter().zip(&places).filter(|(_, p)| to(p) == host.name).map(|(n, _)| n).collect();
                if here.is_empty() { continue; }
                prop_assert!(host.closed.is_none());
                prop_assert!(host.used + here.iter().map(|n| n.memory).sum::<u64>() <= host.memory);
                prop_assert!(host.cpus_used + here.iter().map(|n| u64::from(n.cpus)).sum::<u64>() <= host.cpus);
                prop_assert!(here.iter().filter(|n| n.tags.contains_key(APART)).count() <= 1);
                prop_assert!(here.iter().all(|n| n.pinned.as_ref().is_none_or(|p| *p == host.name)));
            }
            for place in &places {
                if let Place::Nowhere(why) = place {
                    prop_assert_eq!(why.len(), hosts.len(), "every host has a reason");
                }
            }
        }
    }
}
