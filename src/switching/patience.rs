//! What a plan waits for that has perhaps left something dark: a PDU that does not answer for a while, so that nothing could
//! be sent to switch it on again. Everything is looked at anew before anything is sent then.

use std::collections::{BTreeMap, BTreeSet};

use crate::device::OrderError;
use crate::model::id::{OutletId, PduId, PlanId};
use crate::model::switching::{Known, Relay, Seen};
use crate::model::time::{Span, Tick};
use crate::plan::guard::{Guarded, Hindrance};
use crate::plan::memory::Written;
use crate::plan::record::{PlanState, Record, StepRecord, StepState};
use crate::plan::run::{Who, by_hand};
use crate::plan::{After, Goal, Runs, Sight, Want, fits};

use super::submit::Switching;

/// How long an on of a plan that has begun waits for its PDU. One that is silent is asked less and less often.
const PATIENCE: Span = Span::seconds(120);
/// How long one of a plan does that brings hosts to their safe state: cards start up slowly.
const LONG_PATIENCE: Span = Span::seconds(15 * 60);
/// How long ago something may have been switched for what flows to be read anew, where there is no room by what was read.
const RECENT: Span = Span::seconds(60);
/// How long that may take.
const READ: Span = Span::seconds(3);
/// Of how many steps it is told what they wait for.
const TOLD: usize = 4;
/// Between two tries.
const PAUSE: Span = Span(500);

/// Whether a step that could not be sent may be sent now.
enum May {
    Send(Known),
    Wait,
    Never,
}

impl Switching {
    /// Until when a step waits for its PDU; nothing if it does not: an off that was not sent leaves nothing dark, and of a
    /// plan that has not begun nothing is.
    pub(super) fn waits_until(&self, who: &Who, relay: Relay) -> Option<Tick> {
        let runs = self.runs();
        let record = runs.record(&who.plan)?;
        let has_begun = record.steps.iter().any(|step| step.state.outcome().is_some());
        let long = match (record.patient, has_begun) {
            (true, _) => LONG_PATIENCE,
            (false, true) => PATIENCE,
            (false, false) => return None,
        };
        (relay == Relay::On).then(|| self.clock.tick() + long)
    }

    /// Looks at an outlet for a step. Before an on is intended, a PDU that does not answer is waited for.
    pub(super) async fn looks_for(
        &self,
        who: &Who,
        outlet: &OutletId,
        everything: bool,
    ) -> Result<Seen, OrderError> {
        let until = {
            let step = self.step(who);
            let waits = step.filter(|step| step.state == StepState::Pending);
            waits.and_then(|step| self.waits_until(who, step.relay))
        };
        loop {
            let seen = self.look(outlet, everything).await;
            let silent =
                seen.as_ref().is_err_and(|e| e.may_pass() || matches!(e, OrderError::Link(_)));
            if !silent || !self.pauses(who, until).await {
                return seen;
            }
        }
    }

    /// Waits for a PDU to which nothing was sent, as it did not answer, until it is read again and the step may be sent all
    /// the same; nothing if it may not, or that takes too long.
    pub(super) async fn may_yet_send(
        &self,
        who: &Who,
        outlet: &OutletId,
        relay: Relay,
        mut until: Option<Tick>,
    ) -> Option<Known> {
        let mut asked = self.clock.tick();
        while self.pauses(who, until).await {
            let handle = self.fleet.get(&outlet.pdu)?;
            let rest = until? - self.clock.tick();
            let read = tokio::time::timeout(rest.duration(), handle.since(asked)).await;
            let is_read = read.is_ok_and(|view| view.complete.is_some_and(|at| at >= asked));
            if !is_read {
                asked = self.clock.tick();
                continue;
            }
            if self.stop.is_cancelled() || !self.goes_on(&who.plan) {
                return None;
            }
            match self.with_runs(|runs, sight| may_send(runs, who, outlet, relay, sight)) {
                May::Send(known) => return Some(known),
                May::Wait => {
                    // Its PDU is kept for it all the while, and an off there may be what makes room.
                    asked = self.clock.tick();
                    until = until.min(Some(asked + PATIENCE));
                }
                May::Never => return None,
            }
        }
        None
    }

    /// Between two tries; false if there is to be no other.
    async fn pauses(&self, who: &Who, until: Option<Tick>) -> bool {
        let is_over = || until.is_none_or(|until| self.clock.tick() + PAUSE >= until);
        if is_over() || self.stop.is_cancelled() {
            return false;
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE.duration()) => {}
            () = self.stop.cancelled() => return false,
        }
        self.goes_on(&who.plan)
    }

    /// Reads PDUs anew of which something was switched a moment ago; false if nothing was. One that does not answer is not
    /// waited for.
    pub(super) async fn reads_what_was_switched(&self) -> bool {
        let now = self.clock.tick();
        let pdus: BTreeSet<PduId> = {
            let runs = self.runs();
            let recent = runs.memory.written.iter().filter(|(_, of)| now < of.sent + RECENT);
            recent.map(|(outlet, _)| outlet.pdu.clone()).collect()
        };
        let reads: Vec<_> = pdus.iter().filter_map(|pdu| self.fleet.get(pdu)).collect();
        let mut read = tokio::task::JoinSet::new();
        for handle in &reads {
            let handle = handle.clone();
            read.spawn(async move { drop(handle.since(now).await) });
        }
        // Those that are read by then are.
        let all = async { while read.join_next().await.is_some() {} };
        let _in_time = tokio::time::timeout(READ.duration(), all).await.is_ok();
        !reads.is_empty()
    }

    /// What steps of a plan under way wait for that may begin as far as the others are concerned, by their places: a PDU, or
    /// room on a limit.
    pub fn waits(&self, record: &Record) -> BTreeMap<usize, String> {
        if record.state != PlanState::Running || record.cancelled.is_some() {
            return BTreeMap::new();
        }
        let is_open = |step: &StepRecord| {
            let ended = |after: &After| {
                record.steps.get(after.step).is_some_and(|of| of.state.outcome().is_some())
            };
            step.state == StepState::Pending && step.after.iter().all(ended)
        };
        let open = record.steps.iter().enumerate().filter(|(_, step)| is_open(step));
        let lifts = record.lifts();
        let why = |(at, step): (usize, &StepRecord)| {
            let why = self.with_runs(|runs, sight| match sight.guard(&step.outlet, &lifts) {
                Guarded::Not(why) => Some(why.to_string()),
                Guarded::Aged(_) => {
                    let health = &sight.view(&step.outlet.pdu)?.health;
                    let pdu = &step.outlet.pdu;
                    Some(format!("PDU {pdu} is {}: {}", health.word(), health.reason()?))
                }
                Guarded::Known(..) => {
                    let want = if step.relay == Relay::On { Want::On } else { Want::Off };
                    fits_alone(runs, &record.id, (&step.outlet, want), sight).err()
                }
            });
            Some((at, format!("waits: {}", why?)))
        };
        open.take(TOLD).filter_map(why).collect()
    }

    fn step(&self, who: &Who) -> Option<StepRecord> {
        self.runs().record(&who.plan)?.steps.get(who.step).cloned()
    }
}

/// Asks again what was asked before the step was let through: whether the outlet is known for certain, and whether there is
/// room for it as measured now. Room that its plan has let others have was let with this step reckoned as sent.
fn may_send(runs: &mut Runs, who: &Who, outlet: &OutletId, relay: Relay, sight: &Sight<'_>) -> May {
    let Some(record) = runs.record(&who.plan) else { return May::Never };
    if record.cancelled.is_some() {
        return May::Never;
    }
    let known = match sight.guard(outlet, &record.lifts()) {
        Guarded::Known(known, word) if word != relay.state() => known,
        Guarded::Aged(_) | Guarded::Not(Hindrance::Doubtful { .. }) => return May::Wait,
        // Somebody else has switched it, or nobody may any more.
        Guarded::Known(..) | Guarded::Not(_) => return May::Never,
    };
    // It counts as sent, and is not to count twice.
    let plan = record.id.clone();
    let sent = runs.memory.written.remove(outlet);
    let has_room = fits_alone(runs, &plan, (outlet, Want::On), sight).is_ok();
    let until_now =
        |sent: Written| if has_room { Written { sent: sight.now, ..sent } } else { sent };
    runs.memory.written.extend(sent.map(|sent| (outlet.clone(), until_now(sent))));
    if has_room { May::Send(known) } else { May::Wait }
}

/// Whether an on fits at once, or what an off moves to other feeds; or why not. It is the step's turn: only the limits are asked.
fn fits_alone(
    runs: &Runs,
    plan: &PlanId,
    (outlet, want): (&OutletId, Want),
    sight: &Sight<'_>,
) -> Result<(), String> {
    let about = BTreeSet::from([outlet.pdu.clone()]);
    let mut picture = runs.picture(sight, Some(plan), Some(&about));
    let missing = || format!("{outlet} is not seen");
    let at = picture.outlets.get(outlet).copied().ok_or_else(missing)?;
    let mut world = std::mem::take(&mut picture.world);
    if runs.record(plan).is_some_and(|record| record.scheduled.is_none()) {
        by_hand(&mut world, &picture.told, sight.site);
    }
    for share in world.outlets[at].over.iter().filter(|_| want == Want::On) {
        let seen = picture.told[share.limit].seen;
        if seen.is_some_and(|seen| sight.now - seen > sight.site.fresh) {
            let name = &world.limits[share.limit].name;
            return Err(format!(
                "what flows over {name} was not read for longer than {}",
                sight.site.fresh
            ));
        }
    }
    world.outlets[at].min_off_ms = 0;
    world.hosts.iter_mut().for_each(|host| host.after.clear());
    let goal = Goal { outlet: at, want, drops_host: true, why: String::new() };
    match fits(&world, &[goal]) {
        Ok(0) => Ok(()),
        Ok(_) => Err("the first moment of what was switched on before it is not over".into()),
        Err(refusal) => Err(refusal.to_string()),
    }
}
