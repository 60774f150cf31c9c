//! How a device is doing, from which polls were answered: online, stale, offline, each with its reason.

use crate::model::time::{Span, Tick};
use crate::model::view::Health;

/// What a device's answers so far say about it.
#[derive(Debug, Clone)]
pub struct Vitals {
    stale_after: Span,
    last_good: Option<Tick>,
    reason: Option<String>,
}

/// Whether the state changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulse {
    /// The state now.
    pub health: Health,
    /// Whether it is another than before.
    pub changed: bool,
}

impl Vitals {
    /// Before the first poll. Readings older than `stale_after` are no longer believed: the device is
    /// then offline.
    pub fn new(stale_after: Span) -> Self {
        Self { stale_after, last_good: None, reason: Some("not polled yet".into()) }
    }

    /// The state at a moment.
    pub fn health(&self, now: Tick) -> Health {
        match (&self.reason, self.last_good) {
            (None, _) => Health::Online,
            (Some(reason), Some(good)) if now - good <= self.stale_after => {
                Health::Stale(reason.clone())
            }
            (Some(reason), _) => Health::Offline(reason.clone()),
        }
    }

    /// A poll that began at `began` was answered.
    pub fn answered(&mut self, began: Tick) -> Pulse {
        let before = self.health(began);
        self.last_good = Some(began);
        self.reason = None;
        Pulse { health: Health::Online, changed: before != Health::Online }
    }

    /// A poll failed.
    pub fn failed(&mut self, now: Tick, reason: String) -> Pulse {
        let before = self.health(now);
        self.reason = Some(reason);
        let health = self.health(now);
        let changed = before.word() != health.word();
        Pulse { health, changed }
    }

    /// When a stale device turns offline by the mere passing of time.
    pub fn wake(&self) -> Option<Tick> {
        let good = self.last_good?;
        self.reason.as_ref().map(|_| good + self.stale_after + Span(1))
    }

    /// How long stale readings are believed.
    pub fn set_stale_after(&mut self, stale_after: Span) {
        self.stale_after = stale_after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_goes_from_online_to_stale_to_offline_and_back() {
        let mut vitals = Vitals::new(Span::seconds(30));
        assert_eq!(vitals.health(Tick(0)).word(), "offline");
        assert!(vitals.answered(Tick(1_000)).changed);
        assert!(!vitals.answered(Tick(11_000)).changed);
        let pulse = vitals.failed(Tick(21_000), "no answer".into());
        assert_eq!((pulse.health, pulse.changed), (Health::Stale("no answer".into()), true));
        assert!(!vitals.failed(Tick(26_000), "no answer".into()).changed);
        assert_eq!(vitals.wake(), Some(Tick(41_001)));
        assert_eq!(vitals.health(Tick(41_001)).word(), "offline");
        assert!(!vitals.failed(Tick(41_001), "no answer".into()).changed);
        assert!(vitals.answered(Tick(60_000)).changed);
        assert_eq!(vitals.wake(), None);
    }
}
