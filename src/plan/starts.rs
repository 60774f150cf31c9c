//! What outlets draw after they are switched on, learned from their meters: how much at most while they start up, for how
//! long, and how much later. Kept over restarts; a plan reckons with the 99th percentile of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::id::OutletId;
use crate::model::switching::Relay;
use crate::model::time::{Span, Tick};

use super::memory::Memory;
use super::picture::{Picture, Sight};
use super::site::LEAST;
use super::world::Draw;

/// How long a start is watched.
pub const WATCHED: Span = Span::seconds(600);
/// From when on what it draws is what it draws for long.
const STEADY_FROM: Span = Span::seconds(420);
/// The longest pause between two readings of a start that tells anything.
pub const LONGEST_GAP: Span = Span::seconds(60);
/// How many starts of an outlet are remembered: the latest.
pub const KEPT: usize = 32;

/// One start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The most that was drawn, mVA.
    pub boot: i64,
    /// How long it was more than a tenth above what it is for long, ms.
    pub boot_ms: u64,
    /// The most that was drawn from `STEADY_FROM` on, mVA.
    pub steady: i64,
}

#[derive(Debug, Clone)]
struct Watching {
    /// When the command was sent: which start this is.
    sent: Tick,
    on: Tick,
    drawn: Vec<(Tick, i64)>,
}

/// What was learned.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Starts {
    known: BTreeMap<OutletId, Vec<Start>>,
    #[serde(skip)]
    watching: BTreeMap<OutletId, Watching>,
    /// The start of an outlet that was watched last.
    #[serde(skip)]
    done: BTreeMap<OutletId, Tick>,
}

/// Nearest rank, percent; the list must not be empty.
fn percentile(values: &mut [i64], percent: usize) -> i64 {
    values.sort_unstable();
    let rank = (values.len() * percent).div_ceil(100).max(1);
    values.get(rank - 1).copied().unwrap_or(0)
}

impl Starts {
    /// Whether any start is to be watched.
    pub fn wants(&self, memory: &Memory) -> bool {
        !self.watching.is_empty() || self.unwatched(memory).next().is_some()
    }

    fn unwatched<'m>(
        &'m self,
        memory: &'m Memory,
    ) -> impl Iterator<Item = (&'m OutletId, Tick, Tick)> {
        memory.written.iter().filter_map(|(outlet, written)| {
            let seen = written.seen.filter(|_| written.relay == Relay::On)?;
            let known = self.done.get(outlet) == Some(&written.sent)
                || self.watching.get(outlet).is_some_and(|of| of.sent == written.sent);
            (!known).then_some((outlet, written.sent, seen))
        })
    }

    /// Takes in what outlets draw now. True if something was learned.
    pub fn observe(&mut self, picture: &Picture, memory: &Memory, sight: &Sight<'_>) -> bool {
        let new: Vec<(OutletId, Watching)> = self
            .unwatched(memory)
            .map(|(outlet, sent, on)| (outlet.clone(), Watching { sent, on, drawn: Vec::new() }))
            .collect();
        self.watching.extend(new);
        let mut learned = false;
        let mut over = Vec::new();
        for (outlet, watching) in &mut self.watching {
            let still = memory.written.get(outlet);
            let still = still.is_some_and(|w| w.relay == Relay::On && w.sent == watching.sent);
            let place = picture.outlets.get(outlet).filter(|at| picture.metered.contains(at));
            let read = sight.view(&outlet.pdu).and_then(|view| view.observed);
            let (true, Some(at)) = (still, place) else {
                over.push(outlet.clone());
                continue;
            };
            let last = watching.drawn.last().map_or(watching.on, |(at, _)| *at);
            if let Some(read) = read.filter(|read| *read > last) {
                watching.drawn.push((read, picture.world.outlets[*at].load));
            }
            let last = watching.drawn.last().map_or(watching.on, |(at, _)| *at);
            if sight.now - last > LONGEST_GAP {
                over.push(outlet.clone());
            } else if last - watching.on >= WATCHED {
                over.push(outlet.clone());
                if let Some(start) = told(watching) {
                    let known = self.known.entry(outlet.clone()).or_default();
                    known.push(start);
                    let surplus = known.len().saturating_sub(KEPT);
                    known.drain(..surplus);
                    learned = true;
                }
            }
        }
        for outlet in over {
            if let Some(watching) = self.watching.remove(&outlet) {
                self.done.insert(outlet, watching.sent);
            }
        }
        learned
    }

    /// What an outlet draws after it is switched on: the 99th percentile of its starts. No meter of a PDU sees the first
    /// moment: it is reckoned half as much again as the most that was seen, and no less than `default` says, for as long.
    pub fn draw(&self, outlet: &OutletId, default: Draw) -> Option<Draw> {
        let known = self.known.get(outlet).filter(|known| !known.is_empty())?;
        let of = |value: fn(&Start) -> i64| {
            percentile(&mut known.iter().map(value).collect::<Vec<_>>(), 99)
        };
        let boot = of(|start| start.boot);
        let boot_ms = of(|start| i64::try_from(start.boot_ms).unwrap_or(i64::MAX));
        Some(Draw {
            inrush: (boot * 3 / 2).max(default.inrush),
            inrush_ms: default.inrush_ms,
            boot,
            boot_ms: u64::try_from(boot_ms).unwrap_or(default.boot_ms),
            steady: of(|start| start.steady),
        })
    }

    /// Whether anything is known of an outlet's starts.
    pub fn knows(&self, outlet: &OutletId) -> bool {
        self.known.contains_key(outlet)
    }

    /// Takes in starts out of the store, the oldest first, of an outlet of which none is known. True if it was so.
    pub fn remember(&mut self, outlet: OutletId, starts: Vec<Start>) -> bool {
        let new = !starts.is_empty() && !self.knows(&outlet);
        if new {
            self.known.insert(outlet, starts);
        }
        new
    }

    /// From how many starts each outlet's draw was learned.
    pub fn counts(&self) -> BTreeMap<OutletId, usize> {
        self.known.iter().map(|(id, known)| (id.clone(), known.len())).collect()
    }

    /// All that was learned.
    pub fn draws(&self, default: Draw) -> BTreeMap<OutletId, Draw> {
        let outlets = self.known.keys();
        outlets.filter_map(|id| Some((id.clone(), self.draw(id, default)?))).collect()
    }
}

/// What the readings of a start tell, each with how long after it: if they go on for as long as a start is watched, and
/// no pause between them is too long.
pub fn start_of(readings: &[(Span, i64)]) -> Option<Start> {
    let mut drawn: Vec<(Tick, i64)> = Vec::new();
    let mut last = Tick(0);
    for (since, load) in readings {
        let at = Tick(since.0);
        if at - last > LONGEST_GAP {
            return None;
        }
        drawn.push((at, *load));
        last = at;
        if last.0 >= WATCHED.0 {
            return told(&Watching { sent: Tick(0), on: Tick(0), drawn });
        }
    }
    None
}

/// What a start that was watched to its end tells; nothing if nothing was drawn: an outlet with no load.
fn told(watching: &Watching) -> Option<Start> {
    let late = watching.drawn.iter().filter(|(at, _)| *at - watching.on >= STEADY_FROM);
    let steady = late.map(|(_, drawn)| *drawn).max().filter(|steady| *steady >= LEAST)?;
    let boot = watching.drawn.iter().map(|(_, drawn)| *drawn).max()?;
    let high = watching.drawn.iter().rev().find(|(_, drawn)| *drawn * 10 > steady * 11);
    let boot_ms = high.map_or(0, |(at, _)| (*at - watching.on).0);
    Some(Start { boot, boot_ms, steady })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(drawn: impl Fn(u64) -> i64) -> Option<Start> {
        let drawn = (1..=600).map(|s| (Tick(s * 1_000), drawn(s))).collect();
        told(&Watching { sent: Tick(0), on: Tick(0), drawn })
    }

    #[test]
    fn a_start_tells_its_peak_how_long_and_what_stays() {
        let start = watched(|second| if second <= 90 { 480_000 } else { 310_000 + second as i64 });
        assert_eq!(start, Some(Start { boot: 480_000, boot_ms: 90_000, steady: 310_600 }));
        assert_eq!(watched(|_| 0), None, "nothing hangs on it");
    }

    #[test]
    fn readings_of_the_store_tell_the_same_and_nothing_where_they_have_holes() {
        let every = |seconds: usize| {
            let readings = (0..=60_u64).map(|n| {
                let load = if n <= 9 { 480_000 } else { 310_000 };
                (Span::seconds(n * 10), load)
            });
            readings.step_by(seconds / 10).collect::<Vec<_>>()
        };
        let start = Start { boot: 480_000, boot_ms: 90_000, steady: 310_000 };
        assert_eq!(start_of(&every(10)), Some(start));
        assert_eq!(start_of(&every(60)).map(|start| start.boot), Some(480_000));
        assert_eq!(start_of(&every(70)), None, "too far apart");
        assert_eq!(start_of(&every(10)[..59]), None, "not to its end");
    }

    #[test]
    fn what_was_watched_is_not_overwritten_by_the_store() {
        let outlet: OutletId = "pdu-a/1".parse().unwrap();
        let start = |boot| Start { boot, boot_ms: 60_000, steady: 300_000 };
        let mut starts = Starts::default();
        assert!(!starts.remember(outlet.clone(), Vec::new()) && !starts.knows(&outlet));
        assert!(starts.remember(outlet.clone(), vec![start(400_000)]));
        assert!(!starts.remember(outlet.clone(), vec![start(900_000)]));
        assert_eq!(starts.counts().get(&outlet), Some(&1));
        let default = super::super::site::Site::default().default_draw;
        assert_eq!(starts.draw(&outlet, default).unwrap().boot, 400_000);
    }

    #[test]
    fn the_worst_of_few_starts_counts_and_one_in_a_hundred_does_not() {
        assert_eq!(percentile(&mut [3, 9, 1], 99), 9);
        let mut many: Vec<i64> = (1..=200).collect();
        assert_eq!(percentile(&mut many, 99), 198);
        let outlet: OutletId = "pdu-a/1".parse().unwrap();
        let start = |boot| Start { boot, boot_ms: 60_000, steady: 300_000 };
        let known = BTreeMap::from([(outlet.clone(), vec![start(400_000), start(520_000)])]);
        let starts = Starts { known, ..Starts::default() };
        let default = super::super::site::Site::default().default_draw;
        let draw = starts.draw(&outlet, default).unwrap();
        assert_eq!((draw.inrush, draw.boot, draw.boot_ms), (800_000, 520_000, 60_000));
        let small = Draw { inrush: 500_000, ..default };
        assert_eq!(starts.draw(&outlet, small).unwrap().inrush, 780_000);
    }
}
