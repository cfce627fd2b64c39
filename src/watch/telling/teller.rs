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
        self.front.hear(told);
        if let Some(scribe) = &mut self.scribe {
            scribe.hear(told);
        }
        let news = News::of(&self.shown.borrow().rack, told, Timestamp::now());
        self.sinks.send(&news);
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
