//! Where guests go: a pure planner.
//!
//! A guest goes to the host that is left with the largest share of free memory, after those have been struck out that
//! cannot take it. Two tags steer it: guests with the same `apart=VALUE` never share a host; guests with the same
//! `spread=VALUE` share a rack, and then a host, only when there is no other way.

use serde::Serialize;
use std::collections::BTreeMap;

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
pub struct HostRoom {
    /// Its name.
    pub name: String,
    /// Its rack; a host without one is a rack of its own.
    pub rack: Option<String>,
    /// Why it takes no guest at all, where it does not.
    pub closed: Option<Closed>,
    /// Memory for guests in all, in bytes: the host's own less what is kept back.
    pub memory: u64,
    /// Memory of the guests it has.
    pub used: u64,
    /// Virtual processors it may give in all.
    pub cpus: u64,
    /// Virtual processors of the guests it has.
    pub cpus_used: u64,
    /// Tags of the guests it has.
    pub tags: Vec<BTreeMap<String, String>>,
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
pub fn place(hosts: &[HostRoom], needs: &[Need]) -> Vec<Place> {
    let mut hosts = hosts.to_vec();
    let mut order: Vec<usize> = (0..needs.len()).collect();
    order.sort_by_key(|n| {
        let need = &needs[*n];
        (-i64::from(need.priority), std::cmp::Reverse(need.memory), need.name.clone())
    });
    let mut places = vec![Place::Nowhere(BTreeMap::new()); needs.len()];
    for n in order {
        places[n] = place_one(&mut hosts, &needs[n]);
    }
    places
}

fn place_one(hosts: &mut [HostRoom], need: &Need) -> Place {
    let reasons: BTreeMap<String, String> =
        hosts.iter().filter_map(|h| refusal(h, need).map(|why| (h.name.clone(), why))).collect();
    let near = |host: &HostRoom| -> (usize, usize) {
        let Some(group) = need.tags.get(SPREAD) else { return (0, 0) };
        let here = |h: &HostRoom| h.tags.iter().filter(|t| t.get(SPREAD) == Some(group)).count();
        let rack = hosts.iter().filter(|h| same_rack(h, host)).map(here).sum();
        (rack, here(host))
    };
    let best = hosts
        .iter()
        .enumerate()
        .filter(|(_, h)| !reasons.contains_key(&h.name))
        .min_by_key(|(_, h)| (near(h), std::cmp::Reverse(free_share(h, need)), h.tags.len(), h.name.clone()))
        .map(|(n, _)| n);
    match best {
        Some(n) => {
            let host = &mut hosts[n];
            host.used += need.memory;
            host.cpus_used += u64::from(need.cpus);
            host.tags.push(need.tags.clone());
            Place::Host(host.name.clone())
        }
        None => Place::Nowhere(reasons),
    }
}

fn same_rack(a: &HostRoom, b: &HostRoom) -> bool {
    a.name == b.name || (a.rack.is_some() && a.rack == b.rack)
}

/// Thousandths of the host's memory that stay free with the guest on it.
fn free_share(host: &HostRoom, need: &Need) -> u64 {
    let free = host.memory.saturating_sub(host.used + need.memory);
    u64::try_from(u128::from(free) * 1000 / u128::from(host.memory.max(1))).unwrap_or(0)
}

/// Why a host cannot take a guest.
pub fn refusal(host: &HostRoom, need: &Need) -> Option<String> {
    if need.pinned.as_ref().is_some_and(|pinned| *pinned != host.name) {
        return Some(format!("the guest is bound to {}", need.pinned.as_deref().unwrap_or_default()));
    }
    if let Some(why) = need.not.get(&host.name) {
        return Some(why.clone());
    }
    if let Some(closed) = &host.closed {
        return Some(closed.to_string());
    }
    let free = host.memory.saturating_sub(host.used);
    if need.memory > free {
        return Some(format!("{} of memory free, {} needed", mib(free), mib(need.memory)));
    }
    if host.cpus_used + u64::from(need.cpus) > host.cpus {
        let free = host.cpus.saturating_sub(host.cpus_used);
        return Some(format!("{free} virtual processors free, {} needed", need.cpus));
    }
    let group = need.tags.get(APART)?;
    let there = host.tags.iter().any(|tags| tags.get(APART) == Some(group));
    there.then(|| format!("it has a guest with the tag {APART}={group}"))
}

fn mib(bytes: u64) -> String {
    if bytes >= 10 << 30 { format!("{} GiB", bytes >> 30) } else { format!("{} MiB", bytes >> 20) }
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

    fn host(name: &str, memory: u64) -> HostRoom {
        HostRoom { name: name.into(), memory: memory * GIB, cpus: 16, ..HostRoom::default() }
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
        let closed = HostRoom { closed: Some(Closed::Maintenance(Some("new memory".into()))), ..host("h2", 64) };
        let busy = HostRoom { cpus_used: 16, ..host("h3", 64) };
        let places = place(&[small, closed, busy], &[need("g", 2)]);
        let Place::Nowhere(why) = &places[0] else { panic!("{places:?}") };
        insta::assert_snapshot!(
            reasons(why),
            @"h1: 512 MiB of memory free, 2048 MiB needed; h2: in maintenance: new memory; h3: 0 virtual processors free, 1 needed"
        );
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
        let rack = |name: &str, rack: &str| HostRoom { rack: Some(rack.into()), ..host(name, 64) };
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
        fn any_host()(n in 0u8..12, memory in 0u64..64, used in 0u64..64, cpus in 0u64..32, closed in prop::bool::weighted(0.2), rack in 0u8..3)
            -> HostRoom {
            HostRoom { used: used * GIB, cpus, closed: closed.then_some(Closed::Evacuated), rack: Some(format!("r{rack}")), ..host(&format!("h{n}"), memory) }
        }
    }

    prop_compose! {
        fn any_need()(n in 0u8..40, memory in 1u64..16, cpus in 1u32..8, group in 0u8..4, pin in prop::option::weighted(0.1, 0u8..12))
            -> Need {
            let need = Need { cpus, pinned: pin.map(|p| format!("h{p}")), ..need(&format!("g{n}"), memory) };
            if group == 0 { tagged(need, APART, "x") } else { need }
        }
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
