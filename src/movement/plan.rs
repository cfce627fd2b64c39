//! What moves where, before anything does: pure.

use super::link::usable;
use crate::guest::placement::{Closed, HostCapacity, Need, Place, Planner, place, reasons};
use crate::libvirt::DomainState;
use crate::ui::Table;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// What a move takes beside its memory: handshakes, opening disks and the switch, seconds as measured.
const SETUP_SECONDS: f64 = 1.0;

/// A guest that has a domain somewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    /// Its name.
    pub name: String,
    /// Its id.
    pub uuid: Uuid,
    /// Memory in bytes.
    pub memory: u64,
    /// Virtual processors.
    pub cpus: u32,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Higher goes first.
    pub priority: i32,
    /// The only host it may run on.
    pub pinned: Option<String>,
    /// The host its domain is on.
    pub host: String,
    /// What it is doing there.
    pub state: DomainState,
    /// Whether its processor is emulated.
    pub emulated: bool,
}

/// What planning starts from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Hosts that run guests.
    pub rooms: Vec<HostCapacity>,
    /// Guests that have a domain somewhere.
    pub guests: Vec<Placed>,
    /// Guests that may be on a host that does not answer, with the reason.
    pub hidden: BTreeMap<Uuid, String>,
    /// Guests whose last move is neither over nor can be followed.
    pub unsettled: BTreeMap<Uuid, Unmoved>,
    /// Guests that a move begun before has brought to where they are.
    pub arrived: BTreeMap<Uuid, Unmoved>,
    /// What runs on hosts beside the guests, and is nobody's to move.
    pub unmanaged: Vec<Unmoved>,
    /// Speed of the migration network in bytes a second, where it is known.
    pub link: Option<u64>,
}

/// One guest's move.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Move {
    /// The guest.
    pub guest: String,
    /// Its id.
    pub uuid: Uuid,
    /// Where it runs.
    pub from: String,
    /// Where it goes.
    pub to: String,
    /// Its memory, which is what has to be sent at least.
    pub bytes: u64,
    /// How long that takes when the link is free.
    pub seconds: f64,
    /// Higher goes first.
    pub priority: i32,
    /// Whether its processor is emulated.
    pub emulated: bool,
    /// What it needs of its target.
    #[serde(skip)]
    pub need: Need,
}

/// A guest that does not move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unmoved {
    /// The guest.
    pub guest: String,
    /// Where it is; empty when it runs nowhere.
    pub host: String,
    /// Why.
    pub reason: String,
}

impl std::fmt::Display for Unmoved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let on = if self.host.is_empty() { "" } else { " on " };
        write!(f, "guest {}{on}{}: {}", self.guest, self.host, self.reason)
    }
}

/// Whether the loss of one more host could be borne.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// The host that would be lost.
    pub host: String,
    /// Its guests that would find no place.
    pub without_place: Vec<String>,
}

/// Moves in the order they are started, and what is left undone.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Plan {
    /// Moves, first one first.
    pub moves: Vec<Move>,
    /// Guests that are where they shall be already.
    pub unchanged: Vec<Unmoved>,
    /// Guests that cannot move.
    pub refused: Vec<Unmoved>,
    /// Guests that are left alone because nobody can tell where they are.
    pub unsettled: Vec<Unmoved>,
    /// Each host that might be lost after the moves.
    pub losses: Vec<Loss>,
    /// Bytes in all.
    pub bytes: u64,
    /// How long it all takes: the busiest link decides.
    pub seconds: f64,
}

/// Plans the moves of these guests, to one host or to wherever there is room.
///
/// A guest's own host keeps its memory reserved until all is done, so the plan holds in whatever order moves end.
pub fn plan(facts: &Facts, wanted: &[Uuid], to: Option<&str>) -> Plan {
    let mut plan = Plan::default();
    let mut chosen: Vec<&Placed> = Vec::new();
    plan.unsettled.extend(facts.unsettled.iter().filter(|(guest, _)| wanted.contains(guest)).map(|(_, s)| s.clone()));
    let settled = |g: &&Placed| wanted.contains(&g.uuid) && !facts.unsettled.contains_key(&g.uuid);
    for guest in facts.guests.iter().filter(settled) {
        let unmoved_guest = |reason: String| Unmoved { guest: guest.name.clone(), host: guest.host.clone(), reason };
        let elsewhere = guest.pinned.as_deref().filter(|p| to.is_none_or(|to| to != *p));
        if to == Some(guest.host.as_str()) {
            plan.unchanged.push(unmoved_guest("runs there already".to_owned()));
        } else if guest.state != DomainState::Running {
            plan.refused.push(unmoved_guest(format!("is {}; only a running guest can move", guest.state)));
        } else if let Some(pinned) = elsewhere {
            plan.refused.push(unmoved_guest(format!("is bound to host {pinned}")));
        } else {
            chosen.push(guest);
        }
    }
    let needs: Vec<Need> = chosen.iter().map(|g| need(g, to)).collect();
    let mut after = facts.rooms.clone();
    for (guest, place) in chosen.iter().zip(place(&facts.rooms, &needs)) {
        match place {
            Place::Host(target) => {
                shift(&mut after, guest, &target);
                plan.moves.push(a_move(guest, &target, facts.link));
            }
            Place::Nowhere(mut why) => {
                why.remove(&guest.host);
                if let Some(to) = to {
                    why.retain(|host, _| host == to);
                }
                let (guest, host) = (guest.name.clone(), guest.host.clone());
                plan.refused.push(Unmoved { guest, host, reason: format!("no room: {}", reasons(&why)) });
            }
        }
    }
    plan.moves
        .sort_by(|a, b| (-i64::from(a.priority), a.bytes, &a.guest).cmp(&(-i64::from(b.priority), b.bytes, &b.guest)));
    plan.sum_up(facts.link);
    plan.losses = losses(facts, &after, &plan.moves);
    plan
}

/// Plans to empty a host. Its room is closed whatever the facts say.
pub fn plan_evacuation(facts: &Facts, host: &str) -> Plan {
    let mut facts = facts.clone();
    for room in facts.rooms.iter_mut().filter(|r| r.name == host) {
        room.closed.get_or_insert(Closed::Evacuated);
    }
    let here = facts.guests.iter().filter(|g| g.host == host).map(|g| g.uuid);
    let wanted: Vec<Uuid> = here.chain(facts.unsettled.keys().copied()).collect();
    let mut plan = plan(&facts, &wanted, None);
    // The host is not empty while they are there.
    plan.refused.extend(facts.unmanaged.iter().filter(|unmoved_guest| unmoved_guest.host == host).cloned());
    plan
}

fn need(guest: &Placed, to: Option<&str>) -> Need {
    Need {
        name: guest.name.clone(),
        memory: guest.memory,
        cpus: guest.cpus,
        tags: guest.tags.clone(),
        pinned: to.map(str::to_owned).or_else(|| guest.pinned.clone()),
        not: [(guest.host.clone(), "runs there already".to_owned())].into(),
        priority: guest.priority,
    }
}

fn a_move(guest: &Placed, to: &str, link: Option<u64>) -> Move {
    Move {
        guest: guest.name.clone(),
        uuid: guest.uuid,
        from: guest.host.clone(),
        to: to.to_owned(),
        bytes: guest.memory,
        seconds: SETUP_SECONDS + sending(guest.memory, link),
        priority: guest.priority,
        emulated: guest.emulated,
        need: need(guest, Some(to)),
    }
}

/// Seconds to send so many bytes over a link.
#[allow(clippy::cast_precision_loss, reason = "an estimate")]
fn sending(bytes: u64, link: Option<u64>) -> f64 {
    bytes as f64 / usable(link) as f64
}

/// The rooms once the guest has moved.
fn shift(rooms: &mut [HostCapacity], guest: &Placed, to: &str) {
    for room in rooms {
        if room.name == to {
            room.used += guest.memory;
            room.cpus_used += u64::from(guest.cpus);
            room.tags.push(guest.tags.clone());
        } else if room.name == guest.host {
            room.used = room.used.saturating_sub(guest.memory);
            room.cpus_used = room.cpus_used.saturating_sub(u64::from(guest.cpus));
            if let Some(at) = room.tags.iter().position(|t| *t == guest.tags) {
                room.tags.remove(at);
            }
        }
    }
}

fn busiest(moves: &[Move], link: Option<u64>) -> f64 {
    let mut out: BTreeMap<&str, u64> = BTreeMap::new();
    let mut into: BTreeMap<&str, u64> = BTreeMap::new();
    for m in moves {
        *out.entry(&m.from).or_default() += m.bytes;
        *into.entry(&m.to).or_default() += m.bytes;
    }
    let most = out.values().chain(into.values()).copied().max().unwrap_or(0);
    if most == 0 { 0.0 } else { SETUP_SECONDS + sending(most, link) }
}

/// For each host that takes guests: which of its guests would find no place if it were lost as well.
fn losses(facts: &Facts, after: &[HostCapacity], moves: &[Move]) -> Vec<Loss> {
    let moved: BTreeMap<Uuid, &str> = moves.iter().map(|m| (m.uuid, m.to.as_str())).collect();
    let mut here: BTreeMap<&str, Vec<Need>> = BTreeMap::new();
    for guest in &facts.guests {
        let host = moved.get(&guest.uuid).copied().unwrap_or(&guest.host);
        here.entry(host).or_default().push(Need { not: BTreeMap::new(), ..need(guest, None) });
    }
    let planner = Planner::new(after);
    let open: BTreeSet<&str> = after.iter().filter(|r| r.closed.is_none()).map(|r| r.name.as_str()).collect();
    let mut loss = |lost: &str| {
        let needs = here.remove(lost).unwrap_or_default();
        let places = planner.without(lost).place(&needs);
        let without = needs.iter().zip(&places).filter(|(_, p)| matches!(p, Place::Nowhere(_)));
        Loss { host: lost.to_owned(), without_place: without.map(|(n, _)| n.name.clone()).collect() }
    };
    open.into_iter().map(&mut loss).collect()
}

impl Plan {
    /// Whether there is nothing to move.
    pub fn is_empty(&self) -> bool {
        self.moves.is_empty()
    }

    /// Takes out moves that cannot begin, with the reason of each.
    pub fn refuse(&mut self, refused: &BTreeMap<Uuid, String>, link: Option<u64>) {
        let (unmoved_guests, moves) =
            std::mem::take(&mut self.moves).into_iter().partition(|m| refused.contains_key(&m.uuid));
        self.moves = moves;
        let unmoved_guest = |m: Move| Unmoved { guest: m.guest, host: m.from, reason: refused[&m.uuid].clone() };
        self.refused.extend(Vec::into_iter(unmoved_guests).map(unmoved_guest));
        self.sum_up(link);
    }

    fn sum_up(&mut self, link: Option<u64>) {
        self.bytes = self.moves.iter().map(|m| m.bytes).sum();
        self.seconds = busiest(&self.moves, link);
    }

    /// The plan for people.
    pub fn render(&self) -> String {
        let mut table = Table::new(["guest", "from", "to", "memory", "estimate"]).right(3).right(4);
        for m in &self.moves {
            let memory = format!("{} MiB", m.bytes >> 20);
            table.row([m.guest.clone(), m.from.clone(), m.to.clone(), memory, format!("{:.1} s", m.seconds)]);
        }
        let mut text = if self.moves.is_empty() { "nothing to move".to_owned() } else { table.render() };
        if !self.moves.is_empty() {
            let (count, mib) = (self.moves.len(), self.bytes >> 20);
            text.push_str(&format!("\n\n{count} to move, {mib} MiB, about {:.0} s", self.seconds.ceil()));
        }
        for unmoved_guest in &self.unchanged {
            text.push_str(&format!("\n{unmoved_guest}"));
        }
        for unmoved_guest in &self.refused {
            text.push_str(&format!("\nCANNOT MOVE {unmoved_guest}"));
        }
        for unmoved_guest in &self.unsettled {
            text.push_str(&format!("\nCANNOT TELL WHERE IT IS: {unmoved_guest}"));
        }
        let bad: Vec<&Loss> = self.losses.iter().filter(|l| !l.without_place.is_empty()).collect();
        for loss in &bad {
            let guests = loss.without_place.join(", ");
            text.push_str(&format!("\nafter this, losing {} as well leaves no place for: {guests}", loss.host));
        }
        if bad.is_empty() && !self.losses.is_empty() {
            text.push_str("\nafter this, the loss of any one more host can be borne");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::placement::APART;
    use proptest::prelude::*;

    const GIB: u64 = 1 << 30;

    fn guest(name: &str, host: &str, memory: u64) -> Placed {
        Placed {
            name: name.into(),
            uuid: Uuid::new_v5(&Uuid::NAMESPACE_DNS, name.as_bytes()),
            memory: memory * GIB,
            cpus: 1,
            tags: BTreeMap::new(),
            priority: 0,
            pinned: None,
            host: host.into(),
            state: DomainState::Running,
            emulated: false,
        }
    }

    fn facts(rooms: &[(&str, u64)], guests: Vec<Placed>) -> Facts {
        let room = |(name, memory): &(&str, u64)| {
            let here: Vec<&Placed> = guests.iter().filter(|g| g.host == *name).collect();
            HostCapacity {
                name: (*name).into(),
                memory: memory * GIB,
                used: here.iter().map(|g| g.memory).sum(),
                cpus: 64,
                cpus_used: here.iter().map(|g| u64::from(g.cpus)).sum(),
                tags: here.iter().map(|g| g.tags.clone()).collect(),
                ..HostCapacity::default()
            }
        };
        Facts { rooms: rooms.iter().map(room).collect(), guests, link: Some(125_000_000), ..Facts::default() }
    }

    fn ids(facts: &Facts) -> Vec<Uuid> {
        facts.guests.iter().map(|g| g.uuid).collect()
    }

    #[test]
    fn an_evacuation_spreads_small_ones_first() {
        let all = vec![guest("db", "h1", 4), guest("web", "h1", 1), guest("other", "h2", 2)];
        let facts = facts(&[("h1", 16), ("h2", 16), ("h3", 8)], all);
        insta::assert_snapshot!(plan_evacuation(&facts, "h1").render(), @r#"
        GUEST  FROM  TO    MEMORY  ESTIMATE
        web    h1    h3  1024 MiB    11.1 s
        db     h1    h2  4096 MiB    41.4 s

        2 to move, 5120 MiB, about 52 s
        after this, the loss of any one more host can be borne
        "#);
    }

    #[test]
    fn what_cannot_move_says_why() {
        let paused = Placed { state: DomainState::Paused, ..guest("paused", "h1", 1) };
        let bound = Placed { pinned: Some("h1".into()), ..guest("bound", "h1", 1) };
        let mut facts =
            facts(&[("h1", 64), ("h2", 4)], vec![paused, bound, guest("big", "h1", 8), guest("there", "h2", 1)]);
        facts
            .rooms
            .push(HostCapacity { closed: Some(Closed::Maintenance(Some("dust".into()))), ..facts.rooms[1].clone() });
        facts.rooms[2].name = "h3".into();
        insta::assert_snapshot!(plan(&facts, &ids(&facts), Some("h2")).render(), @r#"
        nothing to move
        guest there on h2: runs there already
        CANNOT MOVE guest paused on h1: is paused; only a running guest can move
        CANNOT MOVE guest bound on h1: is bound to host h1
        CANNOT MOVE guest big on h1: no room: h2: 3072 MiB of memory free, 8192 MiB needed
        after this, losing h1 as well leaves no place for: bound, big
        "#);
        insta::assert_snapshot!(plan(&facts, &ids(&facts)[2..3], Some("h3")).render(), @r#"
        nothing to move
        CANNOT MOVE guest big on h1: no room: h3: in maintenance: dust
        after this, losing h1 as well leaves no place for: bound, big
        "#);
    }

    #[test]
    fn priority_goes_before_size() {
        let first = Placed { priority: 9, ..guest("first", "h1", 8) };
        let facts = facts(&[("h1", 64), ("h2", 64)], vec![guest("small", "h1", 1), first]);
        let order: Vec<String> = plan_evacuation(&facts, "h1").moves.into_iter().map(|m| m.guest).collect();
        assert_eq!(order, ["first", "small"]);
    }

    prop_compose! {
        fn any_guest()(n in 0u8..40, host in 0u8..6, memory in 1u64..12, group in 0u8..3, bound in prop::bool::weighted(0.1))
            -> Placed {
            let host = format!("h{host}");
            let tags = if group == 0 { [(APART.to_owned(), format!("g{}", n % 3))].into() } else { BTreeMap::new() };
            Placed { tags, pinned: bound.then(|| host.clone()), ..guest(&format!("g{n}"), &host, memory) }
        }
    }

    proptest! {
        #[test]
        fn no_host_is_overfilled_and_closed_ones_get_nothing(
            guests in prop::collection::vec(any_guest(), 0..24),
            memory in prop::collection::vec(0u64..96, 6),
            closed in prop::collection::vec(prop::bool::weighted(0.2), 6),
            evacuated in 0usize..6,
        ) {
            let mut guests = guests;
            guests.sort_by(|a, b| a.name.cmp(&b.name));
            guests.dedup_by(|a, b| a.name == b.name);
            let names: Vec<String> = (0..6).map(|n| format!("h{n}")).collect();
            let rooms: Vec<(&str, u64)> = names.iter().map(String::as_str).zip(memory).collect();
            let mut facts = facts(&rooms, guests);
            for (room, closed) in facts.rooms.iter_mut().zip(closed) {
                room.closed = closed.then_some(Closed::Maintenance(None));
            }
            let host = names[evacuated].as_str();
            let plan = plan_evacuation(&facts, host);
            prop_assert_eq!(&plan, &plan_evacuation(&facts, host));
            let here = facts.guests.iter().filter(|g| g.host == host).count();
            prop_assert_eq!(plan.moves.len() + plan.refused.len(), here, "every guest is accounted for");
            for room in &facts.rooms {
                let coming: Vec<&Move> = plan.moves.iter().filter(|m| m.to == room.name).collect();
                if coming.is_empty() { continue; }
                prop_assert!(room.closed.is_none() && room.name != host);
                prop_assert!(room.used + coming.iter().map(|m| m.bytes).sum::<u64>() <= room.memory);
                let mut groups: Vec<String> = room.tags.iter().filter_map(|t| t.get(APART).cloned()).collect();
                let before = groups.len();
                groups.extend(coming.iter().filter_map(|m| {
                    facts.guests.iter().find(|g| g.uuid == m.uuid).and_then(|g| g.tags.get(APART).cloned())
                }));
                let added: Vec<&String> = groups[before..].iter().collect();
                for (n, group) in added.iter().enumerate() {
                    prop_assert!(!groups[..before].contains(group) && !added[..n].contains(group), "{} shared", group);
                }
            }
        }
    }
}
