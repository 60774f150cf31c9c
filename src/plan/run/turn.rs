//! A step's turn and its end: when it may begin, the webhooks before and after it, when nothing is to be done for it any
//! more.

use crate::model::event::About;
use crate::model::id::{HostId, PlanId};
use crate::model::switching::{Outcome, Relay};

use super::super::picture::Sight;
use super::super::record::{OnFailure, StepState};
use super::super::site::NoAnswer;
use super::step::Phase;
use super::wait::is_read;
use super::{Deed, Moment, PATIENCE, PAUSE, Runs, Unanswered, Who};

impl Runs {
    pub(super) fn may_begin(&mut self, who: &Who, sight: &Sight<'_>) -> bool {
        let Some(run) = self.plans.get(&who.plan) else { return false };
        let step = &run.record.steps[who.step];
        // What waits for a step that failed is not begun, nor what feeds a host of which another feed failed.
        let idle = run.stopping || run.halted || run.settling || self.ending;
        if !idle && run.record.on_failure == OnFailure::Continue {
            let broken = step.after.iter().any(|after| {
                let outcome = run.record.steps[after.step].state.outcome();
                outcome.is_some_and(|outcome| !outcome.is_success())
            });
            if broken || run.failed.contains(&step.outlet) {
                let detail = "a step that it rests on did not succeed".to_owned();
                self.ends(who, Outcome::Skipped, Some(detail), sight);
                return true;
            }
        }
        if self.due(run, who.step).is_none_or(|due| due > sight.now) {
            return false;
        }
        let host = sight.site.host_of(&step.outlet).map(|(id, host)| (id.clone(), host));
        // None of it was written: what is on its way would be taken for a change by somebody else.
        let first = run.record.steps.iter().all(|step| step.state == StepState::Pending);
        // It was put off, and the rack has not waited.
        if first
            && run.record.not_before.is_some()
            && let Err(why) = self.still_fits(&run.record, sight)
        {
            // It has waited for longer than that.
            if !is_read(&run.record, sight) && sight.now < run.fresh + PATIENCE {
                if let Some(run) = self.plans.get_mut(&who.plan) {
                    run.looks = sight.now + PAUSE;
                }
                return false;
            }
            self.ends(who, Outcome::Failed, Some(why.to_string()), sight);
            // It is the whole plan that does not fit, whatever is to become of it when one step fails.
            if let Some(run) = self.plans.get_mut(&who.plan) {
                run.halted = true;
            }
            return true;
        }
        let Some(run) = self.plans.get_mut(&who.plan) else { return false };
        let step = &run.record.steps[who.step];
        let goes_dark = step.relay == Relay::Off && !step.keeps_host;
        let calls = host.as_ref().filter(|(id, host)| {
            goes_dark && host.before_off.is_some() && run.called.insert(id.clone())
        });
        if let Some((id, of)) = calls {
            let (who, host) = (who.clone(), id.clone());
            // It may take long, and nothing is written meanwhile: its device goes to others.
            run.calling.insert(who.step, of.outlets.clone());
            // Kept: should the plan stop before the host's first off, it is taken back, after a restart as well.
            run.record.drained.insert(host.clone());
            run.whole = true;
            run.generation += 1;
            self.doing(&who).phase = Phase::Calls;
            self.deeds.push(Deed::Call { who, host, moment: Moment::BeforeOff });
            return true;
        }
        self.busy.insert(step.outlet.pdu.clone(), who.clone());
        if let Some(id) = &run.doing[who.step].keeps {
            self.turns.insert(id.clone(), who.clone());
        }
        self.starts_to_guard(who, sight);
        true
    }

    fn starts_to_guard(&mut self, who: &Who, sight: &Sight<'_>) {
        let Some(run) = self.plans.get(&who.plan) else { return };
        // A plan that is under way has perhaps left a host dark, so it waits a while for a PDU that does not answer or is
        // being learned anew; the first step of a plan does not wait.
        let begun = run.record.steps.iter().any(|step| step.state.outcome().is_some());
        let waits = run.patient || begun;
        let until = if waits { run.waits_until(sight.now) } else { sight.now };
        self.doing(who).phase = Phase::Guards { until, next: sight.now };
    }

    /// What a webhook answered. Before an off: the step waits for its turn anew, and is then guarded as if it came first.
    pub(super) fn called(&mut self, who: &Who, answer: Result<(), Unanswered>, sight: &Sight<'_>) {
        let Some(run) = self.plans.get_mut(&who.plan) else { return };
        if run.calling.remove(&who.step).is_some() {
            run.fresh = sight.now;
        }
        let step = &run.record.steps[who.step];
        if step.relay == Relay::Off && matches!(run.doing[who.step].phase, Phase::CallsAfter) {
            self.was_taken_back(who, answer, sight);
            return;
        }
        let outlet = step.outlet.clone();
        let Some((id, host)) = sight.site.host_of(&outlet).map(|(id, host)| (id.clone(), host))
        else {
            // The host was taken out of the configuration meanwhile.
            if matches!(run.doing[who.step].phase, Phase::CallsAfter) {
                self.doing(who).phase = Phase::Over;
            } else {
                self.gives_up(who);
            }
            return;
        };
        let before = matches!(run.doing[who.step].phase, Phase::Calls);
        let policy = if before { host.before_off } else { host.after_on };
        let stops = policy == Some(NoAnswer::Stop);
        if before && answer.as_ref().is_err_and(|unanswered| unanswered.refused) {
            self.undrained(&who.plan, &id);
        }
        let Some(run) = self.plans.get(&who.plan) else { return };
        if before && (run.stopping || run.halted || self.ending) {
            // It was waited for, so that nobody drains a node that is taken back.
            self.gives_up(who);
            return;
        }
        let answer = answer.map_err(|unanswered| unanswered.why);
        if let Err(why) = &answer {
            let (kind, about) =
                ("host.no_answer", About { host: Some(id.clone()), ..About::plan(&who.plan) });
            let when = if before { "before it goes off" } else { "after it came on" };
            let then = if stops { "the plan stops" } else { "the plan goes on" };
            let text = format!("the webhook of host {id} {when}: {why}; {then}");
            self.deeds.push(Deed::Tell { kind, about, text });
        }
        match (before, answer) {
            (true, Err(why)) if stops => {
                let detail = format!("the webhook of host {id} before it goes off: {why}");
                self.ends(who, Outcome::Failed, Some(detail), sight);
            }
            (true, _) => self.gives_up(who),
            (false, answer) => {
                if let Err(why) = answer
                    && stops
                {
                    self.stops_after_on(who, &id, &why);
                }
                self.doing(who).phase = Phase::Over;
            }
        }
    }

    /// Its outlet is on, and whoever was to know of it does not: the plan has not ended as was wished.
    fn stops_after_on(&mut self, who: &Who, host: &HostId, why: &str) {
        self.touch(who);
        let Some(run) = self.plans.get_mut(&who.plan) else { return };
        (run.halted, run.unheard) = (true, true);
        let detail = format!("it is on; the webhook of host {host} after that: {why}");
        run.record.steps[who.step].detail = Some(detail);
    }

    /// Nothing is to be done for it any more, but for a webhook once its host has started up.
    pub(super) fn is_over(&mut self, who: &Who, sight: &Sight<'_>) {
        self.frees(who);
        let Some(run) = self.plans.get(&who.plan) else { return };
        let step = &run.record.steps[who.step];
        let success = step.state.outcome().is_some_and(Outcome::is_success);
        let calls = sight.site.host_of(&step.outlet).filter(|(_, host)| {
            let others = run.record.steps.iter().zip(&run.doing).enumerate();
            let last = others
                .filter(|(at, (step, _))| {
                    *at != who.step
                        && step.relay == Relay::On
                        && host.outlets.contains(&step.outlet)
                })
                .all(|(_, (_, doing))| matches!(doing.phase, Phase::Over));
            step.relay == Relay::On && success && !run.halted && last && host.after_on.is_some()
        });
        let at = run.doing[who.step].up.unwrap_or(sight.now);
        self.doing(who).phase = if calls.is_some() { Phase::Starts { at } } else { Phase::Over };
    }

    /// After a restart nobody knows whether the webhooks of hosts that had been switched on were answered: they are called
    /// again, with the key that they had.
    pub(super) fn calls_again(&mut self, plan: &PlanId, sight: &Sight<'_>) {
        let Some(run) = self.plans.get_mut(plan) else { return };
        let steps = &run.record.steps;
        for (at, step) in steps.iter().enumerate() {
            let host = sight.site.host_of(&step.outlet).filter(|(_, host)| host.after_on.is_some());
            let Some((_, host)) = host.filter(|_| step.relay == Relay::On) else { continue };
            let success = step.state.outcome().is_some_and(Outcome::is_success);
            // The last of its feeds calls, once all of them are over.
            let last = steps.iter().enumerate().all(|(other, of)| {
                let is_own = of.relay == Relay::On && host.outlets.contains(&of.outlet);
                !is_own || other <= at && of.state.outcome().is_some()
            });
            if success && last {
                run.doing[at].phase = Phase::Starts { at: sight.now };
            }
        }
    }

    pub(super) fn calls_after(&mut self, who: &Who, sight: &Sight<'_>) -> bool {
        let Some(run) = self.plans.get(&who.plan) else { return false };
        let outlet = &run.record.steps[who.step].outlet;
        let host = sight.site.host_of(outlet).map(|(id, _)| id.clone());
        let Some(host) = host else {
            self.doing(who).phase = Phase::Over;
            return true;
        };
        self.doing(who).phase = Phase::CallsAfter;
        self.deeds.push(Deed::Call { who: who.clone(), host, moment: Moment::AfterOn });
        true
    }
}
