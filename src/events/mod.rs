//! The bus of events: what happened, for readers that stay and readers that come back. It keeps the
//! last few thousand; a reader that missed more is told so.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::broadcast;

use crate::model::event::{About, Event};
use crate::model::limits::{EVENTS_BEHIND, EVENTS_KEPT};
use crate::model::time::Clock;

/// The bus. Clones are handles to the same bus.
#[derive(Clone)]
pub struct Events {
    clock: Arc<dyn Clock>,
    kept: Arc<Mutex<Kept>>,
    live: broadcast::Sender<Arc<Event>>,
}

struct Kept {
    next: u64,
    ring: VecDeque<Arc<Event>>,
}

/// A reader: first what it missed, then what comes.
pub struct Reading {
    /// Events after the one that the reader saw last, oldest first.
    pub missed: Vec<Arc<Event>>,
    /// Whether older ones are gone for good.
    pub gap: bool,
    /// What comes.
    pub live: broadcast::Receiver<Arc<Event>>,
}

impl Events {
    /// An empty bus. Ids start at the present microsecond, so they grow over restarts too.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let next = u64::try_from(clock.stamp().0).unwrap_or(0).saturating_mul(1_000).max(1);
        let kept = Kept { next, ring: VecDeque::with_capacity(EVENTS_KEPT) };
        Self { clock, kept: Arc::new(Mutex::new(kept)), live: broadcast::channel(EVENTS_BEHIND).0 }
    }

    /// Tells everybody.
    pub fn tell(&self, kind: &'static str, about: About, text: impl Into<String>) {
        let mut kept = self.lock();
        let event = Event { id: kept.next, at: self.clock.stamp(), kind, about, text: text.into() };
        let event = Arc::new(event);
        kept.next += 1;
        if kept.ring.len() == EVENTS_KEPT {
            kept.ring.pop_front();
        }
        kept.ring.push_back(event.clone());
        // Under the lock, so that live events come in the order of their ids. Nobody may be listening.
        self.live.send(event).ok();
    }

    /// Reads on after the event with this id, or from now.
    pub fn read(&self, after: Option<u64>) -> Reading {
        let kept = self.lock();
        let live = self.live.subscribe();
        let Some(after) = after else { return Reading { missed: Vec::new(), gap: false, live } };
        let oldest = kept.ring.front().map_or(kept.next, |event| event.id);
        let missed = kept.ring.iter().filter(|event| event.id > after).cloned().collect();
        Reading { missed, gap: after.saturating_add(1) < oldest, live }
    }

    /// The last events, newest last.
    pub fn last(&self, count: usize) -> Vec<Arc<Event>> {
        let kept = self.lock();
        kept.ring.iter().skip(kept.ring.len().saturating_sub(count)).cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::{Stamp, SteppedClock};

    fn bus() -> Events {
        Events::new(Arc::new(SteppedClock::starting(Stamp(1_000))))
    }

    #[tokio::test]
    async fn a_reader_that_comes_back_gets_what_it_missed_and_then_what_comes() {
        let events = bus();
        events.tell("a", About::default(), "one");
        let seen = events.last(1)[0].id;
        events.tell("b", About::default(), "two");
        let mut reading = events.read(Some(seen));
        assert_eq!(reading.missed.iter().map(|e| e.kind).collect::<Vec<_>>(), ["b"]);
        assert!(!reading.gap);
        events.tell("c", About::default(), "three");
        assert_eq!(reading.live.recv().await.unwrap().kind, "c");
    }

    #[tokio::test]
    async fn a_reader_that_was_away_too_long_is_told_of_the_gap() {
        let events = bus();
        events.tell("first", About::default(), "");
        let seen = events.last(1)[0].id;
        for _ in 0..EVENTS_KEPT + 5 {
            events.tell("more", About::default(), "");
        }
        let reading = events.read(Some(seen));
        assert!(reading.gap);
        assert_eq!(reading.missed.len(), EVENTS_KEPT);
        assert!(!events.read(Some(seen + 6)).gap);
        assert!(events.read(Some(seen + 4)).gap);
    }
}
