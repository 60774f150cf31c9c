//! What a gateway remembers of its own commands while it runs: what it told outlets and when, what they drew before, what
//! was learned of their starts. And what that means for the limits: loads that no meter shows yet, room that other
//! plans have taken.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::id::OutletId;
use crate::model::limits::QUIESCE_MS;
use crate::model::switching::Relay;
use crate::model::time::{Span, Tick};

use super::picture::{Picture, STEP_MS};
use super::planner::FOREVER;
use super::record::{Record, StepRecord, StepState};
use super::world::{Draw, Outlet, Relays, Share, World};

/// How long a meter may lag behind what flows, ms: cards average over some seconds.
pub(super) const METER_LAG_MS: u64 = 5_000;

/// How long the first moment of a load may last that is not the one that was meant, ms.
const FIRST_MS: u64 = 10_000;

/// What an outlet was last told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// What its relay was to do.
    pub relay: Relay,
    /// When the last datagram of it may have left.
    pub sent: Tick,
    /// When the relay was seen to have done it.
    pub seen: Option<Tick>,
    /// Whether the device said that it took it. What nobody acknowledged may still be under way.
    pub acknowledged: bool,
    /// How long the device may take for it, while it has not been seen.
    pub takes: Span,
}

impl Written {
    /// The last moment, until now, at which it may have taken effect: when that was seen, or as late as the device takes.
    pub fn last(&self, now: Tick) -> Tick {
        self.seen.map_or_else(|| now.min(self.sent + self.takes), |seen| seen.max(self.sent))
    }

    /// From when on nothing of it can act any more: no datagram is under way, and a relay that is slow has moved, or was
    /// seen to have.
    pub fn dead(&self) -> Tick {
        let takes = if self.seen.is_some() { Span(0) } else { self.takes };
        self.sent + Span(QUIESCE_MS.max(takes.0))
    }
}

/// What a gateway remembers.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// What each outlet was last told in this run.
    pub written: BTreeMap<OutletId, Written>,
    /// What outlets drew before they were last switched off here, or by an outage, mVA.
    pub drew: BTreeMap<OutletId, i64>,
    /// What hosts with several feeds, of which the site does not say it, drew by all of these, mVA; likewise.
    pub whole: BTreeMap<Vec<OutletId>, i64>,
    /// What outlets draw after they are switched on, as the store shows it.
    pub learned: BTreeMap<OutletId, Draw>,
    /// From how many switch-ons that was learned.
    pub starts: BTreeMap<OutletId, usize>,
}

impl Memory {
    /// When an outlet was switched on last, if it was not told otherwise since.
    pub fn switched_on(&self, outlet: &OutletId, now: Tick) -> Option<Tick> {
        let written = self.written.get(outlet).filter(|written| written.relay == Relay::On)?;
        Some(written.last(now))
    }

    /// From when on nothing that was ever sent to an outlet can act any more: what an earlier run sent was sent before
    /// this one began.
    pub fn dead(&self, outlet: &OutletId) -> Tick {
        self.written.get(outlet).map_or(Tick(QUIESCE_MS), Written::dead)
    }
}

/// The first moment of an outlet that is switched on: on each limit above it, mVA beyond what its load draws while it starts
/// up; and how long it lasts, ms. One that was never seen to start may be cabled otherwise than it is numbered: it counts as
/// the worst of those of its PDU that are off.
pub(super) fn first_moment(world: &World, at: usize, memory: &Memory) -> (Vec<(usize, i64)>, u64) {
    let outlet = &world.outlets[at];
    let draw = outlet.draw.falling();
    let is_known = memory.starts.get(&outlet.id).is_some_and(|starts| *starts > 0);
    // The outlets of a PDU are side by side.
    let (before, rest) = world.outlets.split_at(at);
    let same = |other: &&Outlet| other.device == outlet.device && !is_known;
    let beside = before.iter().rev().take_while(same).chain(rest.iter().take_while(same));
    let beside: Vec<&Outlet> = beside.filter(|other| other.relay != Relays::On).collect();
    let lasts = beside.iter().map(|other| other.draw.inrush_ms).fold(draw.inrush_ms, u64::max);
    let of = |share: &Share| {
        let others = beside.iter().filter_map(|other| {
            let theirs = other.share(share.limit)?.of(other.draw.falling().inrush);
            Some(theirs - share.of(draw.boot))
        });
        (share.limit, others.fold(share.of(draw.inrush - draw.boot), i64::max))
    };
    (outlet.over.iter().map(of).collect(), lasts)
}

impl Picture {
    /// Adds what was switched on a moment ago and no meter shows yet, or that has still to start up.
    pub(super) fn unseen(&mut self, now: Tick, memory: &Memory) {
        for (id, written) in &memory.written {
            let Some(at) = self.outlets.get(id).copied() else { continue };
            if written.relay != Relay::On {
                continue;
            }
            let outlet = &self.world.outlets[at];
            let draw = outlet.draw.falling();
            let since = written.last(now);
            let age = (now - since).0;
            // What an outlet without a meter draws is in no reading of its own.
            let shown = if self.metered.contains(&at) { outlet.load } else { 0 };
            let settled = since + Span(draw.settles_ms() + METER_LAG_MS);
            if age <= draw.inrush_ms.max(FIRST_MS) + STEP_MS {
                let (moment, lasts) = first_moment(&self.world, at, memory);
                if age <= lasts + STEP_MS {
                    self.begins(&moment);
                }
            }
            let outlet = &self.world.outlets[at];
            for share in outlet.over.clone() {
                let told = &self.told[share.limit];
                let is_shown = told.seen.is_some_and(|seen| seen >= settled);
                let limit = &mut self.world.limits[share.limit];
                // The first moment is over before any meter shows it.
                let first = draw.inrush_ms + STEP_MS;
                if age <= first {
                    limit.surges(share.of(draw.inrush - draw.boot), first - age);
                }
                if age <= draw.settles_ms() + STEP_MS || !is_shown {
                    let hidden = share.of((draw.boot - shown).max(0));
                    limit.load += hidden;
                    *self.unconfirmed.entry(share.limit).or_default() += hidden;
                }
            }
        }
    }

    /// Adds what outlets that went off a while ago left to the other feeds of their hosts. Where what flows was read before
    /// that, nothing is switched on any more once it is no longer `fresh`.
    pub(super) fn moved(&mut self, now: Tick, fresh: Span, memory: &Memory) {
        let late = |off: Tick| now > off + Span(METER_LAG_MS) + fresh;
        let offs = memory.written.iter().filter(|(_, written)| written.relay == Relay::Off);
        let offs = offs.filter_map(|(id, of)| Some((*self.outlets.get(id)?, of.last(now))));
        let offs: Vec<(usize, Tick)> = offs.filter(|(_, off)| !late(*off)).collect();
        if offs.is_empty() {
            return;
        }
        let mut feeds: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (at, outlet) in self.world.outlets.iter().enumerate() {
            if let Some(host) = outlet.host {
                feeds.entry(host).or_default().push(at);
            }
        }
        for (at, off) in offs {
            self.moved_by_off(at, (off, now), &feeds, memory);
        }
    }

    /// Adds what an outlet that went off left to the other feeds of its host, until their meters show it. Which of several
    /// takes it is not known: each may.
    fn moved_by_off(
        &mut self,
        at: usize,
        (off, now): (Tick, Tick),
        feeds: &BTreeMap<usize, Vec<usize>>,
        memory: &Memory,
    ) {
        let outlet = &self.world.outlets[at];
        // Of one whose PDU has stopped to answer since it is not known, either.
        let Some(host) = outlet.host.filter(|_| outlet.relay != Relays::On) else { return };
        let load = memory.drew.get(&outlet.id).copied().unwrap_or(outlet.draw.steady);
        let shows = off + Span(METER_LAG_MS);
        let mut onto: BTreeMap<usize, i64> = BTreeMap::new();
        for other in feeds.get(&host).into_iter().flatten() {
            let feed = &self.world.outlets[*other];
            // One without a meter counts with all of its host already, and one that came on after that.
            let came_later = memory.switched_on(&feed.id, now).is_some_and(|on| on >= off);
            if feed.relay != Relays::On || came_later || !self.metered.contains(other) {
                continue;
            }
            let is_old = self.read.get(other).is_some_and(|read| *read < shows);
            for share in &feed.over {
                if is_old || self.told[share.limit].seen.is_some_and(|seen| seen < shows) {
                    let of = onto.entry(share.limit).or_default();
                    *of = share.of(load).max(*of);
                }
            }
        }
        for (limit, load) in onto {
            self.world.limits[limit].load += load;
        }
    }

    /// Adds what meters of outlets show that were switched on after the limits above them were read last. Before a step all
    /// of that is read anew; who plans, or looks, has only what was read.
    pub fn adds_what_is_not_read_yet(&mut self, now: Tick, memory: &Memory) {
        for (id, written) in &memory.written {
            let Some(at) = self.outlets.get(id).copied() else { continue };
            if written.relay != Relay::On || !self.metered.contains(&at) {
                continue;
            }
            let outlet = &self.world.outlets[at];
            let since = written.last(now);
            let own = format!("{}/", id.pdu);
            for share in &outlet.over {
                // What is the sum of others has it already.
                let told = &self.told[share.limit];
                let is_metered = matches!(told.kind.as_str(), "inlet" | "phase" | "branch")
                    && self.world.limits[share.limit].name.starts_with(&own);
                if is_metered && told.seen.is_some_and(|seen| seen < since) {
                    let shown = outlet.load.min(outlet.draw.falling().boot);
                    self.world.limits[share.limit].load += share.of(shown);
                }
            }
        }
    }

    /// Counts a limit as full that was read too long ago to switch anything on under it, for whoever looks.
    pub fn fills_what_is_not_read(&mut self, now: Tick, fresh: Span) {
        for (at, told) in self.told.iter_mut().enumerate() {
            let limit = &mut self.world.limits[at];
            let ago = told.seen.map(|seen| now - seen);
            if let Some(ago) = ago.filter(|ago| *ago > fresh) {
                limit.load = limit.load.max(limit.budget);
                told.why.push_str(&format!(
                    "; it was last read {ago} ago, and counts as full until it is read again"
                ));
            }
            // Where all of it is not known no part of it can be told.
            let is_full = self.shown[at] >= limit.budget && ago.is_none();
            if is_full || ago.is_some_and(|ago| ago > fresh) {
                self.shown[at] = limit.load;
            }
        }
    }

    /// Counts a first moment among those that are not over.
    pub(super) fn begins(&mut self, moment: &[(usize, i64)]) {
        for (limit, first) in moment {
            *self.surging.entry(*limit).or_default() += first;
        }
    }

    /// Adds the room that another plan has taken: what it has still to switch on, but no more than it was reckoned to
    /// need at its worst moment, beyond what flowed at its begin: what it has switched off since, to switch it on again, has
    /// left room that is its own. Steps that were written, by place, are counted already.
    pub(super) fn reserve(&mut self, record: &Record, written: &[usize]) {
        // For long, and beside it in first moments.
        let mut adds: BTreeMap<usize, (i64, i64)> = BTreeMap::new();
        let draws = self.draws_in(record);
        let mut freed: BTreeMap<usize, i64> = BTreeMap::new();
        let begun = |of: &&StepRecord| of.relay == Relay::Off && of.state != StepState::Pending;
        let offs = record.steps.iter().filter(begun);
        let off: BTreeSet<&OutletId> = offs.map(|of| &of.outlet).collect();
        for (place, step) in record.steps.iter().enumerate() {
            let is_open = matches!(step.state, StepState::Pending | StepState::Intended);
            if !is_open || written.contains(&place) {
                continue;
            }
            let Some(at) = self.outlets.get(&step.outlet).copied() else { continue };
            let outlet = &self.world.outlets[at];
            match step.relay {
                Relay::On => {
                    let draw = draws.get(&place).copied().unwrap_or(outlet.draw).falling();
                    for share in &outlet.over {
                        let of = adds.entry(share.limit).or_default();
                        of.0 += share.of(draw.boot);
                        of.1 += share.of(draw.inrush - draw.boot);
                    }
                    if off.contains(&step.outlet) {
                        for share in &outlet.over {
                            *freed.entry(share.limit).or_default() += share.of(draw.steady);
                        }
                    }
                }
                // What it draws moves to the host's other feeds.
                Relay::Off => {
                    let Some(host) = outlet.host.filter(|_| step.keeps_host) else { continue };
                    let others = self.world.outlets.iter().enumerate();
                    let others = others.filter(|(other, o)| *other != at && o.host == Some(host));
                    for share in others.flat_map(|(_, other)| &other.over) {
                        adds.entry(share.limit).or_default().0 += share.of(outlet.load);
                    }
                }
            }
        }
        for (limit, (long, first)) in adds {
            let freed = freed.get(&limit).copied().unwrap_or(0);
            let limit = &mut self.world.limits[limit];
            let most = record.reserve.get(&limit.name).copied().unwrap_or(i64::MAX);
            let most = most.saturating_add(freed);
            limit.load += long.min(most);
            limit.surges(first.min(most.saturating_sub(long)), FOREVER);
        }
    }
}
