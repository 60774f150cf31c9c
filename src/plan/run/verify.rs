//! One step, from its write to its outcome: the state is read back, and the load has to follow.

use crate::model::event::About;
use crate::model::id::OutletId;
use crate::model::metric::Metric;
use crate::model::reading::{Datum, Gap};
use crate::model::switching::{Outcome, Relay, Seen, Terms, state_word};
use crate::model::time::{Span, Tick};
use crate::model::view::Health;

use super::super::loads::{LAG, Loads, STANDSTILL};
use super::super::picture::{Picture, STEP_MS, Sight};
use super::super::site::LEAST;
use super::step::Phase;
use super::{Deed, Note, PAUSE, Runs, Who};

/// A step that was written.
#[derive(Debug, Clone)]
pub(super) struct Verifying {
    terms: Terms,
    before: Loads,
    deadline: Tick,
    /// When the outlet is looked at next; nothing while a look is out.
    next: Option<Tick>,
}

impl Verifying {
    pub fn wake(&self) -> Option<Tick> {
        self.next
    }
}

/// What an outlet that was switched off is to be believed by.
#[derive(Debug, Clone)]
pub(super) struct Doubt {
    /// How the write is verified.
    pub terms: Terms,
    /// What the outlets drew before.
    pub before: Loads,
}

/// An outlet that reads off, whose load is to follow.
#[derive(Debug, Clone)]
pub(super) struct Witnessing {
    doubt: Doubt,
    /// What must have fallen below what.
    own: (Metric, i64),
    began: Tick,
    /// Whether its meter is known to move.
    alive: bool,
    every: Span,
    waits: Waits,
}

/// What a witness waits for.
#[derive(Debug, Clone)]
enum Waits {
    /// For the next look, until a moment.
    Until(Tick),
    /// For a look that is out.
    Look,
    /// For a reading of everything, to see whether any meter moves.
    Movement,
    /// For a reading of everything, to see who else lost its load; with what the outlet draws.
    Others(String),
}

impl Witnessing {
    pub fn wake(&self) -> Option<Tick> {
        match self.waits {
            Waits::Until(next) => Some(next),
            _ => None,
        }
    }

    fn deadline(&self) -> Tick {
        self.began + self.doubt.terms.settle + LAG
    }
}

/// A plan is over, and of its last step another outlet may still turn out to have been switched.
#[derive(Debug, Clone)]
pub(super) struct Lingering {
    outlet: OutletId,
    doubt: Doubt,
    /// When the PDU is read; nothing while that is under way.
    at: Option<Tick>,
}

impl Lingering {
    pub fn wake(&self) -> Option<Tick> {
        self.at
    }
}

impl Runs {
    pub(super) fn starts_to_verify(
        &mut self,
        who: &Who,
        terms: Terms,
        before: Loads,
        sight: &Sight<'_>,
    ) {
        let deadline = sight.now + terms.within;
        let next = Some(sight.now);
        self.doing(who).phase = Phase::Verifies(Verifying { terms, before, deadline, next });
    }

    pub(super) fn verifies(&mut self, who: &Who, verifying: Verifying, sight: &Sight<'_>) -> bool {
        if verifying.next.is_none_or(|next| next > sight.now) {
            return false;
        }
        let outlet = self.outlet_of(who);
        self.doing(who).phase = Phase::Verifies(Verifying { next: None, ..verifying });
        self.deeds.push(Deed::Look { who: who.clone(), outlet, everything: false });
        true
    }

    fn outlet_of(&self, who: &Who) -> OutletId {
        let run = self.plans.get(&who.plan);
        let step = run.and_then(|run| run.record.steps.get(who.step));
        step.map_or_else(
            || unreachable!("{who:?} is a step of a plan under way"),
            |step| step.outlet.clone(),
        )
    }

    pub(super) fn verified(
        &mut self,
        who: &Who,
        verifying: Verifying,
        seen: &Result<Seen, String>,
        sight: &Sight<'_>,
    ) {
        let Some(run) = self.plans.get(&who.plan) else { return };
        let step = &run.record.steps[who.step];
        let (outlet, relay) = (step.outlet.clone(), step.relay);
        let Verifying { terms, before, deadline, .. } = verifying.clone();
        if seen.as_ref().is_ok_and(|seen| seen.state == Ok(relay.state())) {
            if let Some(written) = self.memory.written.get_mut(&outlet) {
                written.seen = Some(sight.now);
            }
            if relay == Relay::On || !self.care.witness {
                self.deeds.push(Deed::Refresh(outlet));
                self.ends(who, Outcome::Done, None, sight);
            } else {
                self.starts_to_witness(who, &outlet, Doubt { terms, before }, sight);
            }
            return;
        }
        if sight.now < deadline {
            let next = Some(sight.now + terms.every);
            self.doing(who).phase = Phase::Verifies(Verifying { next, ..verifying });
            return;
        }
        let saw = match seen {
            Ok(seen) => format!("still reads {}", state_word(seen.state)),
            Err(error) => format!("cannot be read: {error}"),
        };
        let acknowledged =
            if terms.acknowledged { "" } else { "; the PDU did not acknowledge the command" };
        let detail = format!(
            "the outlet {saw} {} after being switched {}{acknowledged}",
            terms.within,
            relay.word()
        );
        self.ends(who, Outcome::Unverified, Some(detail), sight);
    }

    /// Hears the meter of an outlet that reads off. Where it is not metered, or drew nothing to speak of, there is
    /// nothing to hold against the relay, but for another outlet's load.
    fn starts_to_witness(&mut self, who: &Who, outlet: &OutletId, doubt: Doubt, sight: &Sight<'_>) {
        let Doubt { terms, before } = &doubt;
        let below = before.below(outlet.number).filter(|_| terms.follows);
        let needless = before.below(outlet.number).is_some()
            || !before.others_loaded(outlet.number)
            || !terms.follows;
        let Some(own) = terms.also.or(below) else {
            self.deeds.push(Deed::Refresh(outlet.clone()));
            self.doing(who).doubt = (!needless).then_some(doubt);
            self.ends(who, Outcome::Done, None, sight);
            return;
        };
        let witnessing = Witnessing {
            own,
            began: sight.now,
            alive: terms.also.is_some(),
            every: terms.every,
            waits: Waits::Until(sight.now),
            doubt,
        };
        self.doing(who).phase = Phase::Witnesses(witnessing);
    }

    pub(super) fn witnesses(&mut self, who: &Who, of: Witnessing, sight: &Sight<'_>) -> bool {
        let Waits::Until(next) = of.waits else { return false };
        if next > sight.now {
            return false;
        }
        let outlet = self.outlet_of(who);
        let stands = of.began + of.doubt.terms.settle + STANDSTILL;
        let (who, pdu) = (who.clone(), outlet.pdu.clone());
        let waits = if !of.alive && sight.now >= stands {
            self.deeds.push(Deed::Read { who: who.clone(), pdu });
            Waits::Movement
        } else {
            self.deeds.push(Deed::Look { who: who.clone(), outlet, everything: true });
            Waits::Look
        };
        self.doing(&who).phase = Phase::Witnesses(Witnessing { waits, ..of });
        true
    }

    pub(super) fn witnessed(
        &mut self,
        who: &Who,
        of: Witnessing,
        seen: &Result<Seen, String>,
        sight: &Sight<'_>,
    ) {
        let outlet = self.outlet_of(who);
        let (metric, below) = of.own;
        let drawn = sight.view(&outlet.pdu).and_then(|view| {
            let at = view.layout.outlet(outlet.number)?;
            view.shown(crate::model::metric::Scope::Outlet, at, metric)
        });
        let late = sight.now >= of.deadline();
        match (seen, drawn) {
            (Ok(_), None | Some(Datum::Gap(Gap::Unsupported))) => {
                self.ends(who, Outcome::Done, None, sight);
            }
            (Ok(_), Some(Datum::Value(value))) if value.saturating_abs() < below => {
                self.ends(who, Outcome::Done, None, sight);
            }
            (Ok(_), Some(Datum::Value(value))) if late => {
                let drawn = metric.unit().map_or(String::new(), |unit| {
                    format!("{} {}", unit.to_f64(value), unit.symbol())
                });
                let waits = Waits::Others(drawn);
                self.doing(who).phase = Phase::Witnesses(Witnessing { waits, ..of });
                self.deeds.push(Deed::Read { who: who.clone(), pdu: outlet.pdu });
            }
            (Err(error), _) if late => {
                self.ends(who, Outcome::Unverified, Some(error.clone()), sight);
            }
            // A meter that is there and cannot be read is no witness.
            (Ok(_), _) if late => {
                let detail = "the outlet reads off, but what it draws could not be read";
                self.ends(who, Outcome::Unverified, Some(detail.to_owned()), sight);
            }
            _ => {
                let waits = Waits::Until(sight.now + of.every);
                let every = of.every.max(PAUSE);
                self.doing(who).phase = Phase::Witnesses(Witnessing { every, waits, ..of });
            }
        }
    }

    /// A PDU was read anew.
    pub(super) fn read(&mut self, who: &Who, sight: &Sight<'_>) {
        let phase = self.plans.get(&who.plan).map(|run| run.doing[who.step].phase.clone());
        match phase {
            Some(Phase::Witnesses(of)) => self.read_for_witness(who, of, sight),
            Some(Phase::ReadsDoubt) => {
                let outlet = self.outlet_of(who);
                let doubt = self.doing(who).doubt.take();
                let moved = doubt.and_then(|doubt| self.others_dark(&outlet, &doubt.before, sight));
                if let Some(moved) = moved {
                    let detail = self.mismatch(&outlet, &moved);
                    self.doing(who).mismatch = true;
                    self.ends(who, Outcome::Unverified, Some(detail), sight);
                } else {
                    self.is_over(who, sight);
                }
            }
            _ => {
                if let Some(lingering) = self.lingering.remove(who) {
                    let Lingering { outlet, doubt, .. } = lingering;
                    if let Some(moved) = self.others_dark(&outlet, &doubt.before, sight) {
                        self.mismatch(&outlet, &moved);
                    }
                }
            }
        }
    }

    fn read_for_witness(&mut self, who: &Who, of: Witnessing, sight: &Sight<'_>) {
        let outlet = self.outlet_of(who);
        let view = sight.view(&outlet.pdu);
        match &of.waits {
            // Meters that never move are cached, or fixed numbers, and belie no relay.
            Waits::Movement => {
                let moves = view.is_none_or(|view| {
                    view.health != Health::Online || Loads::of(view) != of.doubt.before
                });
                if !moves {
                    let detail = "its relay reads off; its PDU's meters have not moved since and are not believed";
                    self.ends(who, Outcome::Done, Some(detail.to_owned()), sight);
                    return;
                }
                let waits = Waits::Until(sight.now);
                self.doing(who).phase = Phase::Witnesses(Witnessing { waits, alive: true, ..of });
            }
            Waits::Others(drawn) => {
                let moved = self.others_dark(&outlet, &of.doubt.before, sight);
                let detail = if let Some(moved) = moved {
                    self.doing(who).mismatch = true;
                    self.mismatch(&outlet, &moved)
                } else {
                    format!(
                        "the outlet reads off, but still draws {drawn}: a welded contact, or a cabling or profile mismatch"
                    )
                };
                self.ends(who, Outcome::Unverified, Some(detail), sight);
            }
            Waits::Until(_) | Waits::Look => {}
        }
    }

    /// The outlets that drew, read on, and draw nothing any more, though nobody switched them.
    fn others_dark(
        &self,
        outlet: &OutletId,
        before: &Loads,
        sight: &Sight<'_>,
    ) -> Option<Vec<u16>> {
        let view = sight.view(&outlet.pdu)?;
        let mut dark = before.went_dark(outlet.number, view);
        // What another plan is at, it may well have darkened.
        dark.retain(|number| {
            let outlet = OutletId { pdu: outlet.pdu.clone(), number: *number };
            self.claimed_by(&outlet).is_none()
        });
        (!dark.is_empty()).then_some(dark)
    }

    fn mismatch(&mut self, outlet: &OutletId, moved: &[u16]) -> String {
        let names: Vec<String> =
            moved.iter().map(|number| format!("{}/{number}", outlet.pdu)).collect();
        let detail = format!(
            "cabling or profile mismatch: when {outlet} was switched off, {} lost its load, while its own relay reads on",
            names.join(", ")
        );
        self.deeds.push(Deed::Lock(outlet.clone(), detail.clone()));
        let about = About::outlet(outlet);
        self.deeds.push(Deed::Tell { kind: "outlet.mismatch", about, text: detail.clone() });
        detail
    }

    /// Remembers what an outlet draws that is being switched off, for when it is switched on again. Not what it draws in its
    /// first moment, nor while it starts up if it is known what it drew before: each off and on would make more of it.
    pub(super) fn remember_load(&mut self, outlet: &OutletId, sight: &Sight<'_>) {
        let about = [outlet.pdu.clone()].into();
        let picture = Picture::of(sight, &self.memory, Some(&about));
        let Some(at) = picture.outlets.get(outlet) else { return };
        let (load, draw) = (picture.world.outlets[*at].load, picture.world.outlets[*at].draw);
        let on = self.memory.switched_on(outlet, sight.now);
        let within = |ms: u64| on.is_some_and(|on| sight.now <= on + Span(ms + STEP_MS));
        let is_known = self.memory.drew.contains_key(outlet);
        if within(draw.inrush_ms) || is_known && within(draw.settles_ms()) {
            return;
        }
        // Of one feed of several, where the site does not say what its host draws, it is only a part.
        let shared = sight.site.host_of(outlet).map(|(_, host)| host);
        let shared = shared.filter(|of| of.outlets.len() > 1 && !sight.site.is_configured(outlet));
        if let Some(host) = shared {
            picture.remembers(host, &mut self.memory, sight.now);
        } else if picture.metered.contains(at) && load >= LEAST {
            self.memory.drew.insert(outlet.clone(), load);
        }
    }

    /// Doubts about the last steps of plans that are over go on.
    pub(super) fn leave_doubts(&mut self, who: Who, outlet: OutletId, doubt: Doubt, now: Tick) {
        let at = Some(now + doubt.terms.settle);
        self.lingering.insert(who, Lingering { outlet, doubt, at });
    }

    pub(super) fn linger(&mut self, sight: &Sight<'_>) -> bool {
        let due: Vec<Who> = self
            .lingering
            .iter()
            .filter(|(_, of)| of.at.is_some_and(|at| at <= sight.now))
            .map(|(who, _)| who.clone())
            .collect();
        for who in &due {
            let Some(of) = self.lingering.get_mut(who) else { continue };
            of.at = None;
            let pdu = of.outlet.pdu.clone();
            self.deeds.push(Deed::Read { who: who.clone(), pdu });
        }
        !due.is_empty()
    }

    /// A line for the audit about a plan.
    pub(super) fn note(
        &mut self,
        plan: &crate::model::id::PlanId,
        kind: &'static str,
        text: String,
    ) {
        if let Some(run) = self.plans.get_mut(plan) {
            run.notes.push(Note { kind, about: About::plan(plan), text });
        }
    }
}
