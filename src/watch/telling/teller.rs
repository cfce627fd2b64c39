//! Tells everybody at once: whoever sits in front of it, the programs, the page, and the incidents.

use super::news::News;
use super::sinks::Sinks;
use super::snapshot::Snapshot;
use crate::watch::driver::{Audience, Picture, Told};
use crate::watch::incident::Scribe;
use jiff::Timestamp;
use tokio::sync::watch;

/// Events that the page shows.
const EVENTS: usize = 50;

/// How far the start of a guest is, as long as that is nothing that people want to be called for: it is for the incident.
const ON_THE_WAY: [&str; 4] = ["planned", "claimed", "lock-freed", "made"];

/// Told by one that is about to lead, or led until now.
const LEASE: &str = "lease";

/// Tells everybody at once.
#[derive(Debug)]
pub struct Teller<A> {
    front: A,
    sinks: Sinks,
    /// Writes incidents down, where this watcher may act.
    scribe: Option<Scribe>,
    shown: watch::Sender<Snapshot>,
}

impl<A: Audience> Teller<A> {
    /// Tells whoever sits in front, and the others as well.
    pub fn new(front: A, rack: &str, sinks: Sinks, scribe: Option<Scribe>) -> Self {
        let (shown, _) = watch::channel(Snapshot { rack: rack.to_owned(), ..Snapshot::default() });
        Teller { front, sinks, scribe, shown }
    }

    /// How it is, for the page.
    pub fn snapshots(&self) -> watch::Receiver<Snapshot> {
        self.shown.subscribe()
    }
}

impl<A: Audience> Audience for Teller<A> {
    fn hear(&mut self, told: &Told) {
        if let Some(scribe) = &mut self.scribe {
            scribe.hear(told);
        }
        if told.guest.is_some() && ON_THE_WAY.contains(&told.kind.as_str()) {
            return;
        }
        self.front.hear(told);
        let news = News::of(&self.shown.borrow().rack, told, Timestamp::now());
        // Those who stand by see the same; people want to be called once.
        if self.shown.borrow().leads || told.kind == LEASE {
            self.sinks.send(&news);
        }
        self.shown.send_modify(|shown| {
            *shown.counts.entry(news.event.clone()).or_default() += 1;
            shown.events.push_front(news);
            shown.events.truncate(EVENTS);
        });
    }

    fn see(&mut self, picture: &Picture) -> bool {
        self.shown.send_modify(|shown| shown.see(picture, Timestamp::now()));
        self.front.see(picture)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory;
    use crate::ssh::{FakeRemote, Remote};
    use std::sync::Arc;
    use std::time::Duration;

    struct Front(usize);

    impl Audience for Front {
        fn hear(&mut self, _: &Told) {
            self.0 += 1;
        }

        fn see(&mut self, _: &Picture) -> bool {
            self.0 > 60
        }
    }

    fn told(kind: &str, n: usize) -> Told {
        let (at, host, text) = (Duration::ZERO, Some("h1".to_owned()), format!("{kind} {n}"));
        Told { at, kind: kind.to_owned(), host, guest: None, text, evidence: Vec::new() }
    }

    #[tokio::test(start_paused = true)]
    async fn all_hear_it_and_only_the_one_that_leads_calls_people() {
        let text = "cluster: {name: rack, fsid: 11111111-2222-4333-8444-555555555555}\nnetworks:\n  \
            management: {cidr: 10.0.0.0/24}\n  storage: {cidr: 10.0.1.0/24}\nhosts:\n  \
            - {name: h1, address: 10.0.0.11, storage_address: 10.0.1.11, roles: [mon, mgr]}\n\
            watch: {hooks: [[/bin/page]]}\n";
        let inventory = inventory::parse("inventory.yaml", text).unwrap();
        let remote = Arc::new(FakeRemote::new("here").on("/bin/page", ""));
        let sinks = Sinks::of(&inventory, &(Arc::clone(&remote) as Arc<dyn Remote>));
        let mut teller = Teller::new(Front(0), "rack", sinks, None);
        let shown = teller.snapshots();
        let (leader, disarmed, mons) = (None, None, Some((3, 3, 3)));
        let mut picture = Picture { at: Duration::ZERO, leads: false, leader, disarmed, mons, hosts: Vec::new() };
        assert!(!teller.see(&picture));
        teller.hear(&told("suspected", 0));
        picture.leads = true;
        teller.see(&picture);
        for n in 0..EVENTS + 9 {
            teller.hear(&told("fenced", n));
        }
        teller.hear(&told("lease", 0));
        assert!(teller.see(&picture), "whoever sits in front ends it");
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(remote.asked().len(), EVENTS + 10, "not what it heard while another one led");
        let shown = shown.borrow();
        assert_eq!((shown.events.len(), shown.counts["fenced"], shown.leads), (EVENTS, 59, true));
        assert_eq!(shown.events[0].text, "lease 0");
    }
}
