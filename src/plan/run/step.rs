//! One step, from its turn to its write.

use crate::model::event::About;
use crate::model::id::{HostId, OutletId};
use crate::model::metric::Word;
use crate::model::switching::{Known, Outcome, Relay, Seen, Terms, state_word};
use crate::model::time::{Span, Tick};

use super::super::guard::{Guarded, Hindrance, certain};
use super::super::loads::Loads;
use super::super::memory::Written;
use super::super::picture::Sight;
use super::super::planner::Until;
use super::super::record::{OnOverload, StepRecord, StepState};
use super::super::site::Site;
use super::room::Cramped;
use super::verify::{Doubt, Verifying, Witnessing};
use super::{Deed, LONG_PATIENCE, Note, PAUSE, Run, Runs, Who, WriteEnd};

/// How long the outcome of a command is looked for whose device task was ended.
const LOST: Span = Span::seconds(15);

/// Between two tries for room at most.
const LONG_PAUSE: Span = Span::seconds(3);
/// Between two tries while a webhook is out.
const LULL: Span = Span::seconds(5);

/// How far a step got in this run.
#[derive(Debug, Clone)]
pub(super) struct Doing {
    pub phase: Phase,
    /// When it was seen to be done.
    pub done: Option<Tick>,
    /// When what it switched on has started up.
    pub up: Option<Tick>,
    /// What is told of it once it is durable.
    pub told: Option<(&'static str, About, String)>,
    /// What its outcome is still to be believed by.
    pub doubt: Option<Doubt>,
    /// It turned out that another outlet was switched.
    pub mismatch: bool,
    /// The host that has to stay up while it is off.
    pub keeps: Option<HostId>,
}

/// Where a step is.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// It waits for its turn.
    Waits,
    /// A webhook was called before it. Its device is not kept meanwhile.
    Calls,
    /// The guard is asked, again and again until a moment.
    Guards { until: Tick, next: Tick },
    /// The outlet is looked at, as what was known had aged.
    LooksAged { until: Tick },
    /// The other feeds of its host: those still to be looked at, the last next, and how many were seen on.
    Feeds { known: Known, left: Vec<OutletId>, on: usize },
    /// One of them is looked at.
    LooksFeed { known: Known, left: Vec<OutletId>, on: usize },
    /// It waits for room since a moment, and until another.
    Room { known: Known, since: Tick, until: Tick, next: Tick },
    /// It is looked at, as it seems to be where it should be.
    LooksThere { known: Known },
    /// What was sent to it before has to die.
    Clears { known: Known, dead: Tick },
    /// Its intent is being made durable.
    Intends { known: Known, generation: u64 },
    /// It is being written.
    Writes { before: Loads },
    /// It is verified.
    Verifies(Verifying),
    /// Its load is to follow.
    Witnesses(Witnessing),
    /// After a restart it is looked at.
    Settles { next: Tick, began: Tick },
    /// The same, while the look is out.
    LooksSettle { began: Tick },
    /// Its outcome is being made durable.
    Records { generation: u64 },
    /// Other outlets are to be seen to draw as before, from a moment on.
    Doubts { at: Tick },
    /// The same, while the PDU is read.
    ReadsDoubt,
    /// What it switched on starts up; then a webhook is called.
    Starts { at: Tick },
    /// The webhook after it was called.
    CallsAfter,
    /// It is over.
    Over,
}

impl Phase {
    /// When it goes on by itself.
    pub fn wake(&self) -> Option<Tick> {
        match self {
            Phase::Guards { next, .. } | Phase::Room { next, .. } | Phase::Settles { next, .. } => {
                Some(*next)
            }
            Phase::Clears { dead, .. } => Some(*dead),
            Phase::Doubts { at } | Phase::Starts { at } => Some(*at),
            Phase::Verifies(verifying) => verifying.wake(),
            Phase::Witnesses(witnessing) => witnessing.wake(),
            _ => None,
        }
    }

    /// Whether a command may have left for it in this run.
    pub fn is_written(&self) -> bool {
        matches!(self, Phase::Writes { .. } | Phase::Verifies(_) | Phase::Witnesses(_))
            || matches!(self, Phase::Records { .. } | Phase::Doubts { .. } | Phase::ReadsDoubt)
    }

    /// Whether it was let through, and its intent may be on its way to the journal.
    pub fn is_granted(&self) -> bool {
        matches!(self, Phase::LooksThere { .. } | Phase::Clears { .. } | Phase::Intends { .. })
    }

    /// Whether it has had room, and its outlet may not have been seen to be switched yet.
    pub fn has_had_room(&self) -> bool {
        let feeds = matches!(self, Phase::Feeds { .. } | Phase::LooksFeed { .. });
        feeds || self.is_granted() || self.is_written()
    }

    /// Whether it may be given up without a trace: nothing was intended for it.
    fn is_undecided(&self) -> bool {
        matches!(
            self,
            Phase::Guards { .. }
                | Phase::LooksAged { .. }
                | Phase::Feeds { .. }
                | Phase::LooksFeed { .. }
                | Phase::Room { .. }
                | Phase::LooksThere { .. }
                | Phase::Clears { .. }
        )
    }
}

impl Doing {
    /// `settling`: what an earlier run sent may act until that moment.
    pub(super) fn of(step: &StepRecord, site: &Site, now: Tick, settling: Option<Tick>) -> Self {
        let over = step.state.outcome();
        let done = over.filter(|outcome| outcome.is_success()).map(|_| now);
        let phase = match step.state {
            StepState::Ended(_) => Phase::Over,
            StepState::Intended => {
                settling.map_or(Phase::Waits, |dead| Phase::Settles { next: dead, began: dead })
            }
            StepState::Pending => Phase::Waits,
        };
        let host = site.host_of(&step.outlet).filter(|_| step.keeps_host);
        let keeps = host.map(|(id, _)| id.clone());
        Self { phase, done, up: done, told: None, doubt: None, mismatch: false, keeps }
    }

    /// Whether nothing is under way for it.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Waits | Phase::Over | Phase::Settles { .. })
    }
}

impl Runs {
    /// When a waiting step may begin by the clock; nothing while it waits for something else.
    pub(super) fn due(&self, run: &Run, at: usize) -> Option<Tick> {
        if run.stopping || run.halted || run.settling || run.closing || self.ending {
            return None;
        }
        let step = &run.record.steps[at];
        let mut due = run.began + Span(step.at_ms.saturating_sub(run.base_ms));
        for after in &step.after {
            let doing = &run.doing[after.step];
            let from = if after.until == Until::Up { doing.up? } else { doing.done? };
            // Not before it is durable that it is done.
            let is_durable = !matches!(doing.phase, Phase::Records { .. });
            is_durable.then_some(())?;
            due = due.max(from + Span(after.pause_ms));
        }
        let taken = self.busy.contains_key(&step.outlet.pdu)
            || run.calling.values().any(|outlets| outlets.contains(&step.outlet));
        let host_taken = run.doing[at].keeps.as_ref().is_some_and(|id| self.turns.contains_key(id));
        (!taken && !host_taken && !run.is_behind(at)).then_some(due.max(run.began).max(run.looks))
    }

    /// Moves a step on, if it can be.
    pub(super) fn move_step(&mut self, who: &Who, sight: &Sight<'_>) -> bool {
        let Some(run) = self.plans.get(&who.plan) else { return false };
        let Some(doing) = run.doing.get(who.step) else { return false };
        if doing.phase.is_undecided() && (run.stopping || run.halted || self.ending) {
            self.gives_up(who);
            return true;
        }
        match doing.phase.clone() {
            Phase::Waits => self.may_begin(who, sight),
            Phase::Guards { until, next } if next <= sight.now => self.guards(who, until, sight),
            Phase::Feeds { known, left, on } => self.looks_at_feeds(who, known, left, on, sight),
            Phase::Room { known, since, until, next } if next <= sight.now => {
                self.asks_for_room(who, known, (since, until), sight)
            }
            Phase::Clears { known, dead } if dead <= sight.now => {
                self.comes_to_feeds(who, known, sight);
                true
            }
            Phase::Intends { known, generation } if run.durable >= generation => {
                // A disk may take its time; the other feeds are looked at once more, right before the write.
                self.comes_to_feeds(who, known, sight);
                true
            }
            Phase::Verifies(verifying) => self.verifies(who, verifying, sight),
            Phase::Witnesses(witnessing) => self.witnesses(who, witnessing, sight),
            Phase::Settles { next, began } if next <= sight.now => self.looks_to_settle(who, began),
            Phase::Records { generation } if run.durable >= generation => {
                self.recorded(who, sight);
                true
            }
            Phase::Doubts { at } if at <= sight.now => {
                let pdu = run.record.steps[who.step].outlet.pdu.clone();
                self.doing(who).phase = Phase::ReadsDoubt;
                self.deeds.push(Deed::Read { who: who.clone(), pdu });
                true
            }
            Phase::Starts { at } if at <= sight.now => self.calls_after(who, sight),
            _ => false,
        }
    }

    /// Back to where nothing was decided. What was intended and is not written is intended no more: after a restart it need
    /// not be looked for.
    pub(super) fn gives_up(&mut self, who: &Who) {
        self.frees(who);
        self.doing(who).phase = Phase::Waits;
        let Some(run) = self.plans.get_mut(&who.plan) else { return };
        let step = &mut run.record.steps[who.step];
        if step.state == StepState::Intended {
            (step.state, step.at) = (StepState::Pending, None);
            self.touch(who);
        }
    }

    pub(super) fn frees(&mut self, who: &Who) {
        self.busy.retain(|_, of| of != who);
        self.turns.retain(|_, of| of != who);
    }

    fn guards(&mut self, who: &Who, until: Tick, sight: &Sight<'_>) -> bool {
        let Some(run) = self.plans.get(&who.plan) else { return false };
        let outlet = run.record.steps[who.step].outlet.clone();
        match sight.guard(&outlet, &run.record.lifts()) {
            Guarded::Known(known, _) => self.comes_to_room(who, known, sight),
            Guarded::Aged(_) => {
                self.doing(who).phase = Phase::LooksAged { until };
                self.deeds.push(Deed::Look { who: who.clone(), outlet, everything: false });
            }
            Guarded::Not(hindrance) => self.hindered(who, &hindrance, until, sight),
        }
        true
    }

    fn hindered(&mut self, who: &Who, why: &Hindrance, until: Tick, sight: &Sight<'_>) {
        let passes = matches!(why, Hindrance::Doubtful { .. });
        if passes && sight.now < until {
            self.doing(who).phase = Phase::Guards { until, next: sight.now + PAUSE };
        } else {
            self.ends(who, Outcome::Failed, Some(why.to_string()), sight);
        }
    }

    /// An outlet was looked at.
    pub(super) fn looked(&mut self, who: &Who, seen: Result<Seen, String>, sight: &Sight<'_>) {
        let Some(run) = self.plans.get(&who.plan) else { return };
        let step = &run.record.steps[who.step];
        let (outlet, relay) = (step.outlet.clone(), step.relay);
        match run.doing[who.step].phase.clone() {
            Phase::LooksAged { until } => {
                let why = match seen {
                    Ok(seen) => certain(&outlet, seen.state).err(),
                    Err(why) => Some(super::super::guard::doubtful(
                        &outlet,
                        format!("the last reading is too old, and now {why}"),
                    )),
                };
                match (why, sight.guard(&outlet, &run.record.lifts())) {
                    (Some(why), _) | (None, Guarded::Not(why)) => {
                        self.hindered(who, &why, until, sight);
                    }
                    (None, Guarded::Known(known, _) | Guarded::Aged(known)) => {
                        self.comes_to_room(who, known, sight);
                    }
                }
            }
            Phase::LooksFeed { known, left, on } => {
                let is_on = seen.is_ok_and(|seen| seen.state == Ok(Word::On));
                let on = on + usize::from(is_on);
                self.doing(who).phase = Phase::Feeds { known, left, on };
            }
            Phase::LooksThere { known } => match seen {
                Ok(seen) if seen.state == Ok(relay.state()) => {
                    self.ends(who, Outcome::AlreadyThere, None, sight);
                }
                Ok(Seen { state: Ok(Word::On | Word::Off), .. }) => self.clears(who, known, sight),
                Ok(seen) => {
                    let detail = format!("its state is {}", state_word(seen.state));
                    self.ends(who, Outcome::Failed, Some(detail), sight);
                }
                Err(why) => self.ends(who, Outcome::Failed, Some(why), sight),
            },
            Phase::Verifies(verifying) => self.verified(who, verifying, &seen, sight),
            Phase::Witnesses(witnessing) => self.witnessed(who, witnessing, &seen, sight),
            Phase::LooksSettle { began } => self.looked_to_settle(who, began, &seen, sight),
            _ => {}
        }
    }

    /// Whatever was waited for before, the other feeds of its host are looked at now: the last before its intent, and the
    /// last before its write.
    fn comes_to_feeds(&mut self, who: &Who, known: Known, sight: &Sight<'_>) {
        let Some(run) = self.plans.get(&who.plan) else { return };
        let step = &run.record.steps[who.step];
        let host = sight.site.host_of(&step.outlet);
        if let Some((_, host)) = host
            && step.keeps_host
            && self.care.feeds
        {
            let others = host.outlets.iter().rev().filter(|feed| **feed != step.outlet);
            let left = others.cloned().collect();
            self.doing(who).phase = Phase::Feeds { known, left, on: 0 };
        } else {
            self.intends(who, known, sight);
        }
    }

    /// Makes sure that enough other feeds of an outlet's host are on and stay on: each is looked at once every command
    /// that was ever sent to it has died. A late or doubled one would cut the host's last feed.
    fn looks_at_feeds(
        &mut self,
        who: &Who,
        known: Known,
        mut left: Vec<OutletId>,
        on: usize,
        sight: &Sight<'_>,
    ) -> bool {
        let Some(run) = self.plans.get(&who.plan) else { return false };
        let host = sight.site.host_of(&run.record.steps[who.step].outlet);
        let Some((id, host)) = host else {
            self.intends(who, known, sight);
            return true;
        };
        if on >= host.min_feeds {
            self.intends(who, known, sight);
            return true;
        }
        let Some(feed) = left.pop() else {
            let detail = if host.min_feeds > 1 {
                format!(
                    "host {id} would be left with fewer than {} feeds that are known to be on",
                    host.min_feeds
                )
            } else {
                format!("it would take the last feed of host {id} that is known to be on")
            };
            self.ends(who, Outcome::Failed, Some(detail), sight);
            return true;
        };
        if self.care.quiesce && self.memory.dead(&feed) > sight.now {
            return false;
        }
        self.doing(who).phase = Phase::LooksFeed { known, left, on };
        self.deeds.push(Deed::Look { who: who.clone(), outlet: feed, everything: false });
        true
    }

    fn comes_to_room(&mut self, who: &Who, known: Known, sight: &Sight<'_>) {
        let Some(run) = self.plans.get(&who.plan) else { return };
        let step = &run.record.steps[who.step];
        let is_on = step.relay == Relay::On;
        // What is switched off may move to its host's other feeds, and they may carry more by now than when it was planned.
        let moves =
            sight.site.host_of(&step.outlet).is_some_and(|(_, host)| host.outlets.len() > 1);
        // What is switched off and could not be switched on again, as a limit above it is not read, would stay dark.
        if self.care.room && (is_on || moves || self.comes_back(who)) {
            let (until, now) = (run.waits_until(sight.now), sight.now);
            self.doing(who).phase = Phase::Room { known, since: now, until, next: now };
        } else {
            self.has_room(who, known, sight);
        }
    }

    fn asks_for_room(
        &mut self,
        who: &Who,
        known: Known,
        (since, until): (Tick, Tick),
        sight: &Sight<'_>,
    ) -> bool {
        let Some(run) = self.plans.get(&who.plan) else { return false };
        let pdu = run.record.steps[who.step].outlet.pdu.clone();
        if self.busy.get(&pdu).is_some_and(|of| of != who) {
            let next = sight.now + PAUSE;
            self.doing(who).phase = Phase::Room { known, since, until, next };
            return true;
        }
        let (why, may_replan, is_full) = match self.room(who, sight) {
            Ok(()) => {
                self.busy.insert(pdu, who.clone());
                self.has_room(who, known, sight);
                return true;
            }
            Err(Cramped::Full(why)) => (why, true, true),
            Err(Cramped::Dark(why)) => (why, false, true),
            Err(Cramped::Untold(why)) => (why, false, false),
        };
        let feeds = self.wanted_for(who, sight);
        let replans = run.record.on_overload == OnOverload::Replan && is_full;
        // An off of its plan that waits for a webhook may make the room. That may take long: no PDU is asked all the time.
        // Nor does an off that fails leave those off that are to come on again.
        let is_off = run.record.steps[who.step].relay == Relay::Off;
        let spares = is_off && sight.now < since + LONG_PATIENCE && run.has_some_off();
        let (until, pause) = if spares || !run.calling.is_empty() {
            (run.waits_until(sight.now), LULL)
        } else {
            // Who has waited for long need not ask the PDU as often as who came a moment ago.
            let waited = (sight.now - since).0;
            (until, Span((waited / 10).clamp(PAUSE.0, LONG_PAUSE.0)))
        };
        if sight.now < until || replans && !self.only_waits(&who.plan) {
            // An off on the same device may make room meanwhile.
            self.busy.retain(|_, of| of != who);
            // Not later than it gives up: another plan may wait for its room.
            let left = until.0.saturating_sub(sight.now.0);
            let next =
                sight.now + if left > 0 { pause.min(Span(left.max(PAUSE.0))) } else { pause };
            self.doing(who).phase = Phase::Room { known, since, until, next };
            self.deeds.extend(feeds.into_iter().map(Deed::Want));
        } else if replans && may_replan && self.replan(who, sight) {
            // Planned anew: this step is no more.
        } else {
            self.ends(who, Outcome::Failed, Some(why), sight);
        }
        true
    }

    /// All of that may have taken a while: a lock that came since then holds.
    fn has_room(&mut self, who: &Who, known: Known, sight: &Sight<'_>) {
        let Some(run) = self.plans.get(&who.plan) else { return };
        let step = &run.record.steps[who.step];
        let (outlet, relay) = (step.outlet.clone(), step.relay);
        let word = match sight.guard(&outlet, &run.record.lifts()) {
            Guarded::Known(_, word) => Some(word),
            // It was looked at a moment ago, and the PDU looks again before it writes.
            Guarded::Aged(_) => None,
            Guarded::Not(why) => {
                self.ends(who, Outcome::Failed, Some(why.to_string()), sight);
                return;
            }
        };
        // Nothing is written to an outlet that is where it should be. What is known may be some seconds old.
        if word.is_none_or(|word| word == relay.state()) {
            self.doing(who).phase = Phase::LooksThere { known };
            self.deeds.push(Deed::Look { who: who.clone(), outlet, everything: false });
        } else {
            self.clears(who, known, sight);
        }
    }

    /// What nobody acknowledged may still be under way, and would undo what is sent now.
    fn clears(&mut self, who: &Who, known: Known, sight: &Sight<'_>) {
        let Some(run) = self.plans.get(&who.plan) else { return };
        let step = &run.record.steps[who.step];
        let last = self.memory.written.get(&step.outlet);
        let open = last.filter(|last| !last.acknowledged && last.relay != step.relay);
        match open.filter(|last| last.dead() > sight.now && self.care.quiesce) {
            Some(last) => self.doing(who).phase = Phase::Clears { known, dead: last.dead() },
            None => self.comes_to_feeds(who, known, sight),
        }
    }

    fn intends(&mut self, who: &Who, known: Known, sight: &Sight<'_>) {
        let Some(run) = self.plans.get_mut(&who.plan) else { return };
        let lifts = run.record.lifts();
        let step = &mut run.record.steps[who.step];
        if let Guarded::Not(why) = sight.guard(&step.outlet, &lifts) {
            self.ends(who, Outcome::Failed, Some(why.to_string()), sight);
            return;
        }
        if step.state == StepState::Intended {
            // It is durable: since the plan is, or since a moment ago.
            self.writes(who, known, sight);
            return;
        }
        step.state = StepState::Intended;
        step.at = Some(sight.stamp.0);
        let about = About { plan: Some(who.plan.clone()), ..About::outlet(&step.outlet) };
        let text = format!("{} is to be switched {}", step.outlet, step.relay.word());
        run.notes.push(Note { kind: "step.intended", about, text });
        let generation = self.touch(who);
        self.doing(who).phase = Phase::Intends { known, generation };
    }

    fn writes(&mut self, who: &Who, known: Known, sight: &Sight<'_>) {
        let Some(run) = self.plans.get(&who.plan) else { return };
        let step = &run.record.steps[who.step];
        let (outlet, relay, steps) = (step.outlet.clone(), step.relay, run.record.steps.len());
        let before = sight.view(&outlet.pdu).map(|view| Loads::of(view)).unwrap_or_default();
        if relay == Relay::Off {
            self.remember_load(&outlet, sight);
        }
        let about = About { plan: Some(who.plan.clone()), ..About::outlet(&outlet) };
        let text =
            format!("step {} of {steps}: {outlet} is switched {}", who.step + 1, relay.word());
        self.deeds.push(Deed::Tell { kind: "outlet.switching", about, text });
        let (sent, takes) = (sight.now, LOST);
        let written = Written { relay, sent, seen: None, acknowledged: false, takes };
        let last = self.memory.written.insert(outlet.clone(), written);
        let doing = self.doing(who);
        doing.phase = Phase::Writes { before };
        doing.doubt = None;
        self.deeds.push(Deed::Write { who: who.clone(), outlet: outlet.clone(), relay, known });
        // Kept until it is certain that this one was sent.
        if let Some(last) = last {
            self.unsent.insert(who.clone(), last);
        }
    }

    /// A write ended.
    pub(super) fn written(&mut self, who: &Who, end: WriteEnd, sight: &Sight<'_>) {
        let Some(run) = self.plans.get(&who.plan) else { return };
        let outlet = run.record.steps[who.step].outlet.clone();
        let Phase::Writes { before } = run.doing[who.step].phase.clone() else { return };
        let last = self.unsent.remove(who);
        let sent = |this: &mut Self, acknowledged: bool, takes: Span| {
            if let Some(written) = this.memory.written.get_mut(&outlet) {
                (written.sent, written.acknowledged) = (sight.now, acknowledged);
                written.takes = takes;
            }
        };
        match end {
            WriteEnd::Sent(terms) if terms.acknowledged && !self.care.looking => {
                sent(self, true, terms.within);
                self.ends(who, Outcome::Done, None, sight);
            }
            WriteEnd::Sent(terms) => {
                sent(self, terms.acknowledged, terms.within);
                self.starts_to_verify(who, terms, before, sight);
            }
            WriteEnd::Lost => {
                sent(self, false, LOST);
                let terms = Terms {
                    within: LOST,
                    every: PAUSE,
                    acknowledged: false,
                    also: None,
                    follows: true,
                    settle: PAUSE,
                };
                self.starts_to_verify(who, terms, before, sight);
            }
            WriteEnd::Unclear(why) => {
                sent(self, false, LOST);
                self.ends(who, Outcome::Unverified, Some(why), sight);
            }
            WriteEnd::Not(why) => {
                match last {
                    Some(last) => drop(self.memory.written.insert(outlet, last)),
                    None => drop(self.memory.written.remove(&outlet)),
                }
                self.ends(who, Outcome::Failed, Some(why), sight);
            }
        }
    }

    /// Its outcome is durable.
    fn recorded(&mut self, who: &Who, sight: &Sight<'_>) {
        if let Some((kind, about, text)) = self.doing(who).told.take() {
            self.deeds.push(Deed::Tell { kind, about, text });
        }
        let Some(run) = self.plans.get(&who.plan) else { return };
        let step = &run.record.steps[who.step];
        let success = step.state.outcome().is_some_and(Outcome::is_success);
        let doubt = run.doing[who.step].doubt.clone();
        if let Some(doubt) = doubt.filter(|_| success && !run.closing) {
            // The device is kept: another step would take another load.
            self.doing(who).phase = Phase::Doubts { at: sight.now + doubt.terms.settle };
            return;
        }
        self.is_over(who, sight);
    }
}
