//! What the feeds of a host draw if one of them carries it alone, as the first that is switched on does. Where the site says
//! what a host draws that is said of each feed; where nobody says it, it is what all its feeds draw together, or drew.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::id::OutletId;
use crate::model::switching::Relay;
use crate::model::time::{Span, Tick};

use super::memory::{METER_LAG_MS, Memory};
use super::picture::Picture;
use super::record::{Record, StepRecord};
use super::site::{HostSpec, LEAST, Site, Source};
use super::world::{Draw, Goal, Relays, Want};

/// What several feeds draw together, mVA: those without a meter as much as those with one; nothing if none has one.
pub fn together(loads: impl Iterator<Item = Option<i64>>) -> Option<i64> {
    let (mut sum, mut known, mut all) = (0, 0, 0);
    for load in loads {
        all += 1;
        known += i64::from(load.is_some());
        sum += load.unwrap_or(0);
    }
    (known > 0).then(|| (sum * all + known - 1) / known)
}

/// What a host draws, as of its feeds.
struct Lit {
    /// What those that are on draw together, as far as their meters show it.
    shown: Option<i64>,
    /// Whether that is all: none of them came on a moment ago, and what others drew has moved to them.
    is_whole: bool,
}

impl Picture {
    /// Reckons what each feed draws that carries its host alone, of hosts with several of which the site does not say it; and
    /// takes that for what it will draw where no other feed is on.
    pub(super) fn alone(&mut self, site: &Site, memory: &Memory, now: Tick) {
        for host in site.hosts.values().filter(|host| host.draw.is_none()) {
            if host.outlets.len() > 1 {
                self.alone_of(host, memory, now);
            }
        }
    }

    fn alone_of(&mut self, host: &HostSpec, memory: &Memory, now: Tick) {
        let Some(whole) = self.whole_of(host, memory, now) else { return };
        // Who needs several feeds never has to live on one.
        let needed = i64::try_from(host.min_feeds).unwrap_or(1).max(1);
        let steady = (whole + needed - 1) / needed;
        let feeds: Vec<usize> =
            host.outlets.iter().filter_map(|id| self.outlets.get(id)).copied().collect();
        // How much more it draws while it starts up: as its feeds did, by themselves and together.
        let learned = |at: &&usize| matches!(self.sources[**at].0, Source::Learned | Source::More);
        let starts = || feeds.iter().filter(learned).map(|at| self.world.outlets[*at].draw);
        let sum: i64 = starts().map(|draw| draw.falling().boot).sum();
        let most = starts().map(|draw| steady * draw.falling().boot / draw.steady.max(LEAST)).max();
        let boot = (steady * 5 / 4).max(sum.min(most.unwrap_or(0)));
        for at in &feeds {
            let (draw, source) = (self.world.outlets[*at].draw, self.sources[*at].0);
            let first = if source == Source::Now { steady * 3 / 2 } else { 0 };
            let alone = Draw {
                steady: draw.steady.max(steady),
                boot: draw.boot.max(boot),
                inrush: draw.inrush.max(boot).max(first),
                ..draw
            };
            if source == Source::Outlet || steady <= draw.steady {
                continue;
            }
            self.alone.insert(*at, alone);
            let is_on = |other: &usize| self.world.outlets[*other].relay == Relays::On;
            if !feeds.iter().any(|other| other != at && is_on(other)) {
                self.carries_alone(*at);
            }
        }
    }

    /// What a host draws altogether, or drew when it was on, mVA.
    fn whole_of(&self, host: &HostSpec, memory: &Memory, now: Tick) -> Option<i64> {
        let lit = self.lit(host, memory, now);
        if let Some(shown) = lit.shown.filter(|_| lit.is_whole) {
            return Some(shown);
        }
        let drew = memory.whole.get(&host.outlets).copied();
        drew.max(lit.shown).or_else(|| {
            let known = |id: &OutletId| {
                let at = *self.outlets.get(id)?;
                let is_known = self.sources[at].0 != Source::Default;
                is_known.then_some(self.world.outlets[at].draw.steady)
            };
            let parts = host.outlets.iter().map(known);
            let is_default = |at: &&usize| self.sources[**at].0 == Source::Default;
            let default = host.outlets.iter().filter_map(|id| self.outlets.get(id));
            // The declared default is of a load, by however many feeds it hangs.
            let default = default.filter(is_default).map(|at| self.world.outlets[*at].draw.steady);
            together(parts).max(default.max())
        })
    }

    fn lit(&self, host: &HostSpec, memory: &Memory, now: Tick) -> Lit {
        let places = host.outlets.iter().filter_map(|id| self.outlets.get(id)).copied();
        let on: Vec<usize> =
            places.filter(|at| self.world.outlets[*at].relay == Relays::On).collect();
        let has_settled = |at: &usize| self.settled.contains(at) || !self.metered.contains(at);
        // What a feed drew that went off is not in readings that were taken before, or by a meter that lags.
        let read =
            on.iter().map(|at| self.seen.get(&self.world.outlets[*at].id.pdu).copied().flatten());
        let read = read.min().flatten();
        let is_behind = |id: &OutletId| {
            let off = memory.written.get(id).filter(|written| written.relay == Relay::Off);
            off.is_some_and(|off| read.is_none_or(|at| at < off.last(now) + Span(METER_LAG_MS)))
        };
        let load = |at: usize| self.settled.contains(&at).then(|| self.world.outlets[at].load);
        let shown = on.iter().filter(|at| has_settled(at)).map(|at| load(*at));
        Lit {
            shown: together(shown),
            is_whole: !on.is_empty()
                && on.iter().all(has_settled)
                && !host.outlets.iter().any(is_behind),
        }
    }

    fn carries_alone(&mut self, at: usize) {
        if let Some(alone) = self.alone.get(&at) {
            let own = std::mem::replace(&mut self.world.outlets[at].draw, *alone);
            self.own.entry(at).or_insert(own);
            self.sources[at].0 = Source::Alone;
        }
    }

    /// Reckons the feeds of hosts that go dark by these wishes as carrying them alone: the first that comes on again does.
    pub fn goes_dark(&mut self, goals: &[Goal]) {
        let drops = goals.iter().filter(|goal| goal.want != Want::On && goal.drops_host);
        let lit = self.lit_without(&drops.map(|goal| goal.outlet).collect());
        for goal in goals {
            let host = self.world.outlets[goal.outlet].host;
            if host.is_some_and(|host| !lit.contains(&host)) {
                self.carries_alone(goal.outlet);
            }
        }
    }

    /// The hosts, by place, that are on, or may be, also without these outlets.
    fn lit_without(&self, cut: &BTreeSet<usize>) -> BTreeSet<usize> {
        let outlets = self.world.outlets.iter().enumerate();
        let lit = outlets.filter(|(at, outlet)| outlet.relay != Relays::Off && !cut.contains(at));
        lit.filter_map(|(_, outlet)| outlet.host).collect()
    }

    /// Reckons every feed as carrying its host alone: which of them comes on first after an outage nobody knows.
    pub(super) fn all_alone(&mut self) {
        let feeds: Vec<usize> = self.alone.keys().copied().collect();
        feeds.into_iter().for_each(|at| self.carries_alone(at));
    }

    /// By place of a step of a plan: what its outlet will draw, where that is not what it is reckoned with by itself. The first
    /// feed of a host that is dark by then carries it alone, and only that one.
    pub(super) fn draws_in(&self, record: &Record) -> BTreeMap<usize, Draw> {
        let place = |step: &StepRecord| self.outlets.get(&step.outlet).copied();
        let mut draws = BTreeMap::new();
        if !record.steps.iter().filter_map(place).any(|at| self.alone.contains_key(&at)) {
            return draws;
        }
        let cuts = |step: &&StepRecord| step.relay == Relay::Off && !step.keeps_host;
        let lit = self.lit_without(&record.steps.iter().filter(cuts).filter_map(place).collect());
        let mut come_on: BTreeSet<usize> = BTreeSet::new();
        for (step, of) in record.steps.iter().enumerate().filter(|(_, of)| of.relay == Relay::On) {
            let Some(at) = place(of) else { continue };
            let Some(host) = self.world.outlets[at].host else { continue };
            let is_first = come_on.insert(host) && !lit.contains(&host);
            let draw = if is_first { self.alone.get(&at) } else { self.own.get(&at) };
            draws.extend(draw.map(|draw| (step, *draw)));
        }
        draws
    }

    /// Remembers what a host draws as a feed of it is switched off, and what each of its feeds does, if the meters show it.
    pub(super) fn remembers(&self, host: &HostSpec, memory: &mut Memory, now: Tick) {
        let lit = self.lit(host, memory, now);
        let Some(shown) = lit.shown else { return };
        let before = memory.whole.get(&host.outlets).copied().filter(|_| !lit.is_whole);
        memory.whole.insert(host.outlets.clone(), before.unwrap_or(0).max(shown));
        let on = host.outlets.iter().filter_map(|id| Some((id, *self.outlets.get(id)?)));
        let on: Vec<(&OutletId, usize)> = on.filter(|(_, at)| self.settled.contains(at)).collect();
        for (id, at) in &on {
            let load = self.world.outlets[*at].load;
            // Of the last that is on it is no part.
            if load >= LEAST && (on.len() > 1 || !memory.drew.contains_key(id)) {
                memory.drew.insert((*id).clone(), load);
            }
        }
    }
}
