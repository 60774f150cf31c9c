//! Whether there is room for a step, as measured.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::id::{OutletId, PduId};
use crate::model::switching::{Outcome, Relay};

use super::super::memory::{Memory, first_moment};
use super::super::picture::{Picture, STEP_MS, Sight, Told};
use super::super::planner::Refusal;
use super::super::record::{Mark, Record, StepRecord, StepState};
use super::super::search::fits;
use super::super::site::Site;
use super::super::world::{Goal, Relays, Share, Want, World};
use super::step::Phase;
use super::worst::may_stay_dark;
use super::{Run, Runs, Who};

/// Why a kept plan does not fit any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The world is no longer the one that it was made for.
    #[error("{0}")]
    Changed(String),
    /// Its steps do not fit into it.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Why a step may not be carried out now.
pub(super) enum Cramped {
    /// There is no room for it as the loads are: made anew for these, the rest of its plan may find it.
    Full(String),
    /// The host that it cuts might find no room to come on again: a plan made anew would not see that.
    Dark(String),
    /// It cannot be told whether there is: no other order of the steps mends that.
    Untold(String),
}

/// Counts outlets of which the site says nothing, neither what they draw nor what feeds them, as somebody who switches one
/// by hand expects it: only where a meter tells what flows, and what they draw for long, as breakers bear more for a while. A plan of
/// many counts them as worst.
pub fn by_hand(world: &mut World, told: &[Told], site: &Site) {
    let fed: BTreeSet<usize> = (0..)
        .zip(&world.limits)
        .filter(|(_, limit)| site.feeds.contains_key(&limit.name))
        .map(|(at, _)| at)
        .collect();
    for at in 0..world.outlets.len() {
        let is_fed = world.outlets[at].over.iter().any(|share| fed.contains(&share.limit));
        if !is_said(world, at, site) && !is_fed {
            let outlet = &mut world.outlets[at];
            outlet.over.retain(|share| told[share.limit].seen.is_some());
            (outlet.draw.inrush, outlet.draw.boot) = (outlet.draw.steady, outlet.draw.steady);
        }
    }
}

/// Whether the site says what an outlet draws.
fn is_said(world: &World, at: usize, site: &Site) -> bool {
    let id = &world.outlets[at].id;
    let host = site.host_of(id).and_then(|(_, host)| host.draw);
    host.or(site.outlets.get(id).and_then(|spec| spec.draw)).is_some()
}

impl Run {
    /// Whether an outlet that a step switches off comes on again by a later one.
    fn comes_back(&self, at: usize) -> bool {
        let (before, rest) = self.record.steps.split_at(at + 1);
        before.last().is_some_and(|step| {
            let back = |other: &StepRecord| other.relay == Relay::On && other.outlet == step.outlet;
            step.relay == Relay::Off && rest.iter().any(back)
        })
    }

    /// Whether an outlet that a step switches on was switched off by an earlier one.
    fn was_cut(&self, at: usize) -> bool {
        let (before, rest) = self.record.steps.split_at(at);
        rest.first().is_some_and(|step| {
            let cut = |other: &StepRecord| other.relay == Relay::Off && other.outlet == step.outlet;
            step.relay == Relay::On && before.iter().any(cut)
        })
    }

    /// Whether it has switched off what is to come on again by a step that was not begun.
    pub(super) fn has_some_off(&self) -> bool {
        let of = |relay: Relay, state: StepState| {
            let steps = self.record.steps.iter();
            steps.filter(move |step| step.relay == relay && step.state == state)
        };
        let cut: BTreeSet<&OutletId> =
            of(Relay::Off, StepState::Ended(Outcome::Done)).map(|step| &step.outlet).collect();
        of(Relay::On, StepState::Pending).any(|step| cut.contains(&step.outlet))
    }

    /// Whether an on has to wait as it would overtake what waits for room: another on; and an off whose outlet is to come on
    /// again, unless it undoes an off itself, since the load of its host moves back then, and makes room.
    pub(super) fn is_behind(&self, at: usize) -> bool {
        let waits = |of: &usize| matches!(self.doing[*of].phase, Phase::Room { .. });
        let step = |of: usize| &self.record.steps[of];
        let goes_first =
            |of: usize| step(of).relay == Relay::On || self.comes_back(of) && !self.was_cut(at);
        step(at).relay == Relay::On && (0..at).filter(waits).any(goes_first)
    }
}

impl Runs {
    /// Whether an outlet that is switched off comes on again in the same plan.
    pub(super) fn comes_back(&self, who: &Who) -> bool {
        self.plans.get(&who.plan).is_some_and(|run| run.comes_back(who.step))
    }

    /// The PDUs that have to be read for a step that waits for room: an off waits for that of its host's other feeds.
    pub(super) fn wanted_for(&self, who: &Who, sight: &Sight<'_>) -> BTreeSet<PduId> {
        let step = self.plans.get(&who.plan).map(|run| &run.record.steps[who.step]);
        let Some(step) = step else { return BTreeSet::new() };
        let host = sight.site.host_of(&step.outlet).filter(|_| step.relay == Relay::Off);
        let feeds = host.map_or(&[][..], |(_, host)| &host.outlets);
        feeds.iter().chain([&step.outlet]).map(|outlet| outlet.pdu.clone()).collect()
    }

    /// Whether an outlet may be switched on now, as measured; or off, if it is to come on again, or what it draws moves to
    /// other feeds; or why not.
    pub(super) fn room(&self, who: &Who, sight: &Sight<'_>) -> Result<(), Cramped> {
        let Some(run) = self.plans.get(&who.plan) else { return Ok(()) };
        let step = &run.record.steps[who.step];
        let outlet = &step.outlet;
        let about = BTreeSet::from([outlet.pdu.clone()]);
        let mut picture = self.picture(sight, Some(&who.plan), Some(&about));
        // What was let through and is not written yet.
        for outlet in granted(run) {
            picture.grant(outlet, &self.memory);
        }
        // Of other plans the room for it is taken already.
        let others = self.plans.iter().filter(|(id, _)| **id != who.plan);
        for outlet in others.flat_map(|(_, other)| granted(other)) {
            if let Some(at) = picture.outlets.get(outlet).copied() {
                picture.begins(&first_moment(&picture.world, at, &self.memory).0);
            }
        }
        for outlet in self.plans.values().flat_map(going_off) {
            picture.leaves(outlet, sight.site);
        }
        let Some(at) = picture.outlets.get(outlet).copied() else { return Ok(()) };
        let mut world = std::mem::take(&mut picture.world);
        if run.record.scheduled.is_none() {
            by_hand(&mut world, &picture.told, sight.site);
        }
        let is_on = step.relay == Relay::On;
        let draws = (is_on || self.comes_back(who)) && world.outlets[at].draw.falling().inrush > 0;
        let aged = world.outlets[at].over.iter().find(|share| {
            let seen = picture.told[share.limit].seen;
            seen.is_some_and(|seen| sight.now - seen > sight.site.fresh)
        });
        if let Some(share) = aged.filter(|_| draws) {
            let name = &world.limits[share.limit].name;
            return Err(Cramped::Untold(format!(
                "what flows over {name} was last read more than {} ago",
                sight.site.fresh
            )));
        }
        // An off that is to be undone has to be one that could be: what it leaves room for is the planner's. Not while a
        // PDU below one of its limits has stopped to answer: that may be told of it before its readings age.
        if !is_on && draws {
            if let Some(why) = silent_beside(&world, at, sight) {
                return Err(Cramped::Untold(why));
            }
            let dark = (!step.keeps_host).then(|| may_stay_dark(&picture, &world, at)).flatten();
            if let Some(why) = dark {
                return Err(Cramped::Dark(why));
            }
        }
        let may_be_worse = || self.may_be_worse(&picture, &world, at, sight.now);
        let worse = (is_on && draws).then(may_be_worse).flatten();
        if let Some(why) = worse {
            return Err(Cramped::Full(why));
        }
        let want = if is_on { Want::On } else { Want::Off };
        let goal = Goal { outlet: at, want, drops_host: true, why: String::new() };
        // It is the step's turn: only the limits are asked.
        world.outlets[at].min_off_ms = 0;
        world.hosts.iter_mut().for_each(|host| host.after.clear());
        match fits(&world, &[goal]) {
            Ok(0) => Ok(()),
            Ok(_) => {
                let why = "the first moment of what was switched on before it is not over";
                Err(Cramped::Full(why.into()))
            }
            Err(refusal) => Err(Cramped::Full(refusal.to_string())),
        }
    }

    /// Whether the ons of a plan that is not scheduled fit, one after the other, on top of what flows.
    pub fn has_headroom(&self, record: &Record, sight: &Sight<'_>) -> Result<(), Refusal> {
        // What goes off and moves to no other feed needs none.
        let needs_room = |step: &StepRecord| {
            let host = sight.site.host_of(&step.outlet);
            step.relay == Relay::On || host.is_some_and(|(_, host)| host.outlets.len() > 1)
        };
        if !record.steps.iter().any(needs_room) {
            return Ok(());
        }
        let about = record.steps.iter().map(|step| step.outlet.pdu.clone()).collect();
        let mut picture = self.picture(sight, Some(&record.id), Some(&about));
        picture.world.hosts.iter_mut().for_each(|host| host.after.clear());
        let goals = goals_of(record, &picture, true);
        picture.goes_dark(&goals);
        by_hand(&mut picture.world, &picture.told, sight.site);
        fits(&picture.world, &goals)?;
        Ok(())
    }

    /// Whether the world is the one that a plan was made for, and its steps still fit into it.
    pub fn still_fits(&self, record: &Record, sight: &Sight<'_>) -> Result<(), Unfit> {
        let mut picture = self.picture(sight, Some(&record.id), None);
        let now = picture.mark(record.mark.relays.keys());
        if let Some(difference) = record.mark.difference(&now) {
            return Err(Unfit::Changed(difference));
        }
        let goals = goals_of(record, &picture, false);
        picture.goes_dark(&goals);
        fits(&picture.world, &goals)?;
        Ok(())
    }
}

/// The outlets of a plan whose ons were let through and are not written yet.
fn granted(run: &Run) -> impl Iterator<Item = &OutletId> {
    let steps = run.record.steps.iter().zip(&run.doing);
    let ons = steps.filter(|(step, doing)| step.relay == Relay::On && doing.phase.is_granted());
    ons.map(|(step, _)| &step.outlet)
}

/// The outlets of a plan whose offs were let through.
fn going_off(run: &Run) -> impl Iterator<Item = &OutletId> {
    let steps = run.record.steps.iter().zip(&run.doing);
    let offs = steps.filter(|(step, doing)| step.relay == Relay::Off && doing.phase.has_had_room());
    offs.map(|(step, _)| &step.outlet)
}

/// A PDU that does not answer and carries a part of what flows over a limit above an outlet, told in words: also one that
/// has not answered since the start, of which no outlet is known.
fn silent_beside(world: &World, outlet: usize, sight: &Sight<'_>) -> Option<String> {
    let of = &world.outlets[outlet];
    let beside = world.outlets.iter().filter_map(|other| {
        let share = other.over.iter().find(|share| of.share(share.limit).is_some())?;
        Some((other.id.pdu.clone(), share.limit))
    });
    let mut beside: BTreeMap<PduId, usize> = beside.collect();
    for share in &of.over {
        let name = &world.limits[share.limit].name;
        let Some(feed) = sight.site.feeds.get(name) else { continue };
        for feed in [Some(name), feed.pair.as_ref()].into_iter().flatten() {
            beside.extend(sight.site.pdus_of(feed).into_iter().map(|pdu| (pdu, share.limit)));
        }
    }
    beside.into_iter().find_map(|(pdu, limit)| {
        let health = &sight.view(&pdu)?.health;
        let name = &world.limits[limit].name;
        let why = health.reason()?;
        Some(format!(
            "PDU {pdu}, which carries a part of what flows over {name}, is {}: {why}",
            health.word()
        ))
    })
}

impl Picture {
    /// Counts an outlet as if it had just been switched on.
    fn grant(&mut self, outlet: &OutletId, memory: &Memory) {
        let Some(at) = self.outlets.get(outlet).copied() else { return };
        self.begins(&first_moment(&self.world, at, memory).0);
        let outlet = &self.world.outlets[at];
        for share in &outlet.over {
            let draw = outlet.draw.falling();
            let limit = &mut self.world.limits[share.limit];
            limit.load += share.of(draw.boot);
            limit.surges(share.of(draw.inrush - draw.boot), draw.inrush_ms + STEP_MS);
        }
    }

    /// Counts what an outlet that goes off, and is not seen to be off yet, leaves to the other feeds of its host. Which of
    /// several takes it is not known: each may.
    pub(super) fn leaves(&mut self, outlet: &OutletId, site: &Site) {
        let Some(at) = self.outlets.get(outlet).copied() else { return };
        let Some((_, host)) = site.host_of(outlet) else { return };
        let of = &self.world.outlets[at];
        if of.relay != Relays::On {
            // What was sent counts as moved by then (`Picture::moved`).
            return;
        }
        let load = of.load;
        let mut onto: BTreeMap<usize, i64> = BTreeMap::new();
        let feeds = host.outlets.iter().filter(|feed| *feed != outlet);
        for feed in feeds.filter_map(|feed| self.outlets.get(feed)) {
            let feed = &self.world.outlets[*feed];
            if feed.relay != Relays::On {
                continue;
            }
            for share in &feed.over {
                let mine = of.share(share.limit).map_or(0, |share| share.permille);
                let more = Share { permille: (share.permille - mine).max(0), ..*share }.of(load);
                let most = onto.entry(share.limit).or_default();
                *most = more.max(*most);
            }
        }
        for (limit, load) in onto {
            self.world.limits[limit].load += load;
        }
    }

    /// What a plan for these outlets is made for.
    pub fn mark<'o>(&self, outlets: impl Iterator<Item = &'o OutletId>) -> Mark {
        let mut mark = Mark::default();
        let mut hosts = BTreeMap::new();
        for outlet in outlets {
            let Some(at) = self.outlets.get(outlet) else { continue };
            let of = &self.world.outlets[*at];
            if let Some(host) = of.host {
                hosts.insert(outlet.clone(), self.world.hosts[host].id.clone());
            }
            mark.relays.insert(outlet.clone(), of.relay.word().to_owned());
            for share in &of.over {
                let (limit, told) = (&self.world.limits[share.limit], &self.told[share.limit]);
                let name = limit.name.clone();
                match told.amperes {
                    Some((amperes, _)) => {
                        mark.currents.insert(name, amperes / 100 * told.derating);
                    }
                    None => drop(mark.budgets.insert(name, limit.budget)),
                }
            }
        }
        Mark { hosts: Some(hosts), ..mark }
    }
}

/// What the steps of a record that are not over wish of its outlets.
pub(super) fn goals_of(record: &Record, picture: &Picture, drops: bool) -> Vec<Goal> {
    let open = || record.steps.iter().filter(|step| step.state.outcome().is_none());
    let mut goals: Vec<Goal> = Vec::new();
    for step in open() {
        let Some(at) = picture.outlets.get(&step.outlet).copied() else { continue };
        if goals.iter().any(|goal| goal.outlet == at) {
            continue;
        }
        let has = |relay| open().any(|of| of.outlet == step.outlet && of.relay == relay);
        let want = match (has(Relay::Off), has(Relay::On)) {
            (true, true) => Want::Cycle,
            (true, false) => Want::Off,
            _ => Want::On,
        };
        let keeps = open().any(|of| of.outlet == step.outlet && of.keeps_host);
        let why = step.why.clone();
        goals.push(Goal { outlet: at, want, drops_host: drops || !keeps, why });
    }
    goals
}
