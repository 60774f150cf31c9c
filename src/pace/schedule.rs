//! Polls of one device: fast and slow ones on a fixed grid, and further apart while it does not answer.

use crate::model::time::{Span, Tick};

/// How often a device is polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paces {
    /// Between polls of what changes fast.
    pub fast: Span,
    /// Between polls of everything.
    pub slow: Span,
    /// First pause after a failed poll; doubles with each further one.
    pub retry: Span,
    /// Longest pause between attempts at a device that does not answer.
    pub retry_max: Span,
}

impl Default for Paces {
    /// For management cards that are weak: 10 s and 60 s.
    fn default() -> Self {
        Self {
            fast: Span::seconds(10),
            slow: Span::seconds(60),
            retry: Span::seconds(5),
            retry_max: Span::seconds(120),
        }
    }
}

/// Failures in a row that open the breaker.
const BREAKER: u32 = 3;

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// A poll of what changes fast.
    Fast,
    /// A poll of everything.
    Slow,
}

/// When a device is polled next.
#[derive(Debug, Clone)]
pub struct Schedule {
    paces: Paces,
    /// Polls fall on multiples of the pace after this moment: devices with different offsets do not
    /// all answer in the same instant.
    offset: Tick,
    next_fast: Tick,
    next_slow: Tick,
    failures: u32,
}

impl Schedule {
    /// Due at once after `offset`, which lies within the fast pace.
    pub fn new(paces: Paces, offset: Tick) -> Self {
        Self { paces, offset, next_fast: offset, next_slow: offset, failures: 0 }
    }

    /// When to come back.
    pub fn wake(&self) -> Tick {
        self.next_fast.min(self.next_slow)
    }

    /// What is due now, if anything.
    pub fn due(&self, now: Tick) -> Option<Due> {
        if now >= self.next_slow {
            Some(Due::Slow)
        } else if now >= self.next_fast {
            Some(Due::Fast)
        } else {
            None
        }
    }

    /// A poll that began at `now` was answered: back on the grid.
    pub fn answered(&mut self, began: Tick, what: Due) {
        self.failures = 0;
        self.next_fast = self.after(began, self.paces.fast);
        if what == Due::Slow || self.next_slow < began {
            self.next_slow = self.after(began, self.paces.slow);
        }
    }

    /// A poll failed at `now`: wait, longer each time.
    pub fn failed(&mut self, now: Tick) {
        let doubled = self.paces.retry.0.saturating_mul(1 << self.failures.min(16));
        let pause = Span(doubled.clamp(1, self.paces.retry_max.0.max(1)));
        self.failures += 1;
        self.next_fast = now + pause;
        self.next_slow = now + pause;
    }

    /// Whether a poll that somebody asks for may go out now. After a few failures in a row the breaker
    /// is open: only the schedule's own attempts go out, so that readers do not hammer a dead card.
    pub fn admits(&self, now: Tick) -> bool {
        self.failures < BREAKER || now >= self.wake()
    }

    /// How many polls have failed in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Other paces from now on.
    pub fn set_paces(&mut self, paces: Paces, now: Tick) {
        self.paces = paces;
        self.next_fast = self.next_fast.min(now + paces.fast);
        self.next_slow = self.next_slow.min(now + paces.slow);
    }

    /// The first moment of the grid after `began`. A device too slow for its pace skips moments; it
    /// never gets two polls at once.
    fn after(&self, began: Tick, pace: Span) -> Tick {
        let pace = pace.0.max(1);
        let passed = began.0.saturating_sub(self.offset.0);
        Tick(self.offset.0 + (passed / pace + 1) * pace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn schedule() -> Schedule {
        Schedule::new(Paces::default(), Tick(2_500))
    }

    #[test]
    fn everything_is_read_first_and_then_on_a_grid() {
        let mut schedule = schedule();
        assert_eq!(schedule.due(Tick(2_499)), None);
        assert_eq!(schedule.due(Tick(2_500)), Some(Due::Slow));
        schedule.answered(Tick(2_510), Due::Slow);
        assert_eq!(schedule.wake(), Tick(12_500));
        assert_eq!(schedule.due(Tick(12_500)), Some(Due::Fast));
        schedule.answered(Tick(12_600), Due::Fast);
        assert_eq!(schedule.wake(), Tick(22_500));
    }

    #[test]
    fn a_dead_device_is_asked_less_and_less_and_comes_back_at_once() {
        let mut schedule = schedule();
        let mut now = Tick(2_500);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            schedule.failed(now);
            pauses.push((schedule.wake() - now).0 / 1_000);
            now = schedule.wake();
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 120, 120]);
        assert!(schedule.admits(now), "the schedule's own attempt goes out");
        schedule.failed(now);
        assert!(!schedule.admits(now), "readers do not");
        schedule.answered(now, Due::Slow);
        assert_eq!(schedule.failures(), 0);
        assert!(schedule.wake() - now <= Span::seconds(10));
    }

    proptest! {
        #[test]
        fn a_poll_always_lies_ahead(began in 0u64..10_000_000, took in 0u64..100_000, offset in 0u64..10_000, fails in 0u32..40) {
            let mut schedule = Schedule::new(Paces::default(), Tick(offset));
            schedule.answered(Tick(began), Due::Slow);
            prop_assert!(schedule.wake() > Tick(began));
            for _ in 0..fails {
                schedule.failed(Tick(began + took));
                prop_assert!(schedule.wake() > Tick(began + took));
                prop_assert!(schedule.wake() - Tick(began + took) <= Paces::default().retry_max);
            }
        }
    }
}
