//! What the feeds of a host draw if one of them carries it alone, as the first that is switched on does. Where the site says
//! what a host draws that is said of each feed; where nobody says it, it is what all its feeds draw together, or drew.

use std::collections::BTreeSet;

use super::picture::Picture;
use super::record::{Record, StepRecord};
use super::site::{Site, Source};
use super::world::{Draw, Goal, Relays, Want};
use crate::model::id::OutletId;
use crate::model::switching::Relay;

/// What a feed adds to what its host draws.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    steady: i64,
    boot: i64,
    inrush: i64,
}

impl Part {
    /// Of an outlet that is reckoned to draw this. A first moment that was learned is the one of its own supply.
    fn of(draw: Draw, source: Source) -> Self {
        let steady = draw.steady;
        match source {
            Source::Now => Self { steady, boot: steady * 5 / 4, inrush: steady * 3 / 2 },
            Source::Default => {
                let falling = draw.falling();
                Self { steady, boot: falling.boot, inrush: falling.inrush }
            }
            Source::Outlet | Source::Host | Source::Learned | Source::More | Source::Alone => {
                let boot = draw.falling().boot;
                Self { steady, boot, inrush: boot }
            }
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            steady: self.steady + other.steady,
            boot: self.boot + other.boot,
            inrush: self.inrush + other.inrush,
        }
    }

    /// This or the other, whichever is more: the declared default is of a load, by however many feeds it hangs.
    fn or(self, other: Self) -> Self {
        Self {
            steady: self.steady.max(other.steady),
            boot: self.boot.max(other.boot),
            inrush: self.inrush.max(other.inrush),
        }
    }
}

impl Picture {
    /// Reckons what each feed draws that carries its host alone, of hosts with several of which the site does not say it; and
    /// takes that for what it will draw where no other feed is on.
    pub(super) fn alone(&mut self, site: &Site) {
        for host in site.hosts.values().filter(|host| host.draw.is_none()) {
            let feeds: Vec<usize> =
                host.outlets.iter().filter_map(|id| self.outlets.get(id)).copied().collect();
            if feeds.len() > 1 {
                self.alone_of(&feeds);
            }
        }
    }

    fn alone_of(&mut self, feeds: &[usize]) {
        let outlets = &self.world.outlets;
        let is_on = |at: &usize| outlets[*at].relay == Relays::On;
        // Once the meter of one that is on shows it, what the others drew has moved to those that are on.
        let is_shown = feeds.iter().any(|at| is_on(at) && self.settled.contains(at));
        let drawing = || feeds.iter().filter(|at| !is_shown || is_on(at)).copied();
        let is_unknown = |at: &usize| self.sources[*at].0 == Source::Default;
        let part = |at: usize| Part::of(outlets[at].draw, self.sources[at].0);
        let known =
            drawing().filter(|at| !is_unknown(at)).map(part).fold(Part::default(), Part::and);
        let whole = drawing().filter(is_unknown).map(part).fold(known, Part::or);
        for at in feeds.iter().copied() {
            let (draw, source) = (self.world.outlets[at].draw, self.sources[at].0);
            if source == Source::Outlet || whole.steady <= draw.steady {
                continue;
            }
            let alone = Draw {
                steady: whole.steady,
                boot: draw.boot.max(whole.boot),
                inrush: draw.inrush.max(whole.inrush),
                ..draw
            };
            self.alone.insert(at, alone);
            let others = feeds.iter().filter(|other| **other != at);
            if !others.map(|other| self.world.outlets[*other].relay).any(|of| of == Relays::On) {
                self.carries_alone(at);
            }
        }
    }

    fn carries_alone(&mut self, at: usize) {
        if let Some(alone) = self.alone.get(&at) {
            self.world.outlets[at].draw = *alone;
            self.sources[at].0 = Source::Alone;
        }
    }

    /// Reckons the feeds of hosts that go dark by these wishes as carrying them alone: the first that comes on again does.
    pub fn goes_dark(&mut self, goals: &[Goal]) {
        let drops = goals.iter().filter(|goal| goal.want != Want::On && goal.drops_host);
        let dark: BTreeSet<usize> =
            drops.filter_map(|goal| self.world.outlets[goal.outlet].host).collect();
        for goal in goals {
            let host = self.world.outlets[goal.outlet].host;
            if host.is_some_and(|host| dark.contains(&host)) {
                self.carries_alone(goal.outlet);
            }
        }
    }

    /// Reckons every feed as carrying its host alone: which of them comes on first after an outage nobody knows.
    pub(super) fn all_alone(&mut self) {
        let feeds: Vec<usize> = self.alone.keys().copied().collect();
        feeds.into_iter().for_each(|at| self.carries_alone(at));
    }

    /// What an outlet that is on draws for long, as its meter shows it, mVA.
    pub(super) fn draws_for_long(&self, outlet: &OutletId) -> Option<i64> {
        let at = self.outlets.get(outlet).filter(|at| self.settled.contains(at))?;
        Some(self.world.outlets[*at].load)
    }

    /// What the outlet of a step will draw, by what its plan does before.
    pub(super) fn draw_in(&self, record: &Record, step: &StepRecord, at: usize) -> Draw {
        let goes_dark = |off: &StepRecord| {
            off.relay == Relay::Off && !off.keeps_host && off.outlet == step.outlet
        };
        let alone = self.alone.get(&at).filter(|_| record.steps.iter().any(goes_dark));
        alone.copied().unwrap_or(self.world.outlets[at].draw)
    }
}

/// What is to be remembered of the feeds of a host that draw this now, as one of them is switched off: of those that are on
/// what they draw. Where others are off, what is more than these drew is its own part: together they are what the host draws.
pub(super) fn parts(
    outlet: &OutletId,
    load: i64,
    feeds: &[OutletId],
    on: impl Fn(&OutletId) -> Option<i64>,
    drew: impl Fn(&OutletId) -> Option<i64>,
) -> Vec<(OutletId, i64)> {
    let others = || feeds.iter().filter(|feed| *feed != outlet);
    let lit: Vec<(OutletId, i64)> =
        others().filter_map(|feed| Some((feed.clone(), on(feed)?))).collect();
    if !lit.is_empty() {
        return lit.into_iter().chain([(outlet.clone(), load)]).collect();
    }
    let theirs: i64 = others().filter_map(&drew).sum();
    let own = (load - theirs).max(drew(outlet).unwrap_or(0));
    vec![(outlet.clone(), own)]
}
