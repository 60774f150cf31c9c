//! Hosts that were drained to go dark, and still have a feed since the plan stopped before that: their webhook after
//! they came on is called, once, so that they are used again.

use crate::model::event::About;
use crate::model::id::{HostId, PlanId};
use crate::model::switching::{Outcome, Relay};

use super::super::picture::Sight;
use super::super::record::StepRecord;
use super::step::Phase;
use super::{Deed, Moment, Note, Run, Runs, Unanswered, Who};

/// Whether nothing was sent for an off, as far as is certain.
fn was_not_sent(step: &StepRecord) -> bool {
    let outcome = step.state.outcome();
    outcome.is_none_or(|o| matches!(o, Outcome::Skipped | Outcome::Failed | Outcome::NotDone))
}

impl Run {
    /// The drained hosts that are not dark, as an off of theirs was not sent, each with the place of that.
    pub(super) fn left_drained(&self, sight: &Sight<'_>) -> Vec<(HostId, usize)> {
        let first_off = |id: &HostId| {
            let outlets = &sight.site.hosts.get(id)?.outlets;
            let steps = self.record.steps.iter().enumerate();
            let offs = steps.filter(|(_, step)| {
                step.relay == Relay::Off && !step.keeps_host && outlets.contains(&step.outlet)
            });
            let mut unsent = offs.filter(|(_, step)| was_not_sent(step)).map(|(at, _)| at);
            unsent.next()
        };
        let hosts = self.record.drained.iter();
        hosts.filter_map(|id| Some((id.clone(), first_off(id)?))).collect()
    }
}

impl Runs {
    /// Takes back the hosts that a plan leaves drained, before it ends. True if something is to be done for that.
    pub(super) fn takes_back(&mut self, plan: &PlanId, sight: &Sight<'_>) -> bool {
        let Some(run) = self.plans.get(plan) else { return false };
        let left = run.left_drained(sight);
        let any = !left.is_empty();
        for (host, step) in left {
            if sight.site.hosts.get(&host).is_some_and(|host| host.after_on.is_some()) {
                let who = Who { plan: plan.clone(), step };
                self.doing(&who).phase = Phase::CallsAfter;
                self.deeds.push(Deed::Call { who, host, moment: Moment::AfterOn });
            } else {
                let text = format!(
                    "host {host} was drained and not switched off; it has no webhook after_on, so it is to be taken back by hand"
                );
                self.undrained(plan, &host);
                self.tells_of_host(plan, &host, "host.left_drained", text);
            }
        }
        any
    }

    pub(super) fn was_taken_back(
        &mut self,
        who: &Who,
        answer: Result<(), Unanswered>,
        sight: &Sight<'_>,
    ) {
        self.doing(who).phase = Phase::Over;
        let Some(run) = self.plans.get(&who.plan) else { return };
        let outlet = &run.record.steps[who.step].outlet;
        let Some(host) = sight.site.host_of(outlet).map(|(id, _)| id.clone()) else { return };
        let (kind, text) = match answer {
            Ok(()) => (
                "host.taken_back",
                format!("host {host} was drained and not switched off; it was taken back"),
            ),
            // The next start does it.
            Err(_) if self.ending => return,
            Err(unanswered) => (
                "host.no_answer",
                format!(
                    "host {host} was drained and not switched off, and its webhook after_on did not take it back: {}; take it back by hand",
                    unanswered.why
                ),
            ),
        };
        self.undrained(&who.plan, &host);
        self.tells_of_host(&who.plan, &host, kind, text);
    }

    /// A host of a plan is not drained, or not any more.
    pub(super) fn undrained(&mut self, plan: &PlanId, host: &HostId) {
        let Some(run) = self.plans.get_mut(plan) else { return };
        run.record.drained.remove(host);
        run.whole = true;
        run.generation += 1;
    }

    fn tells_of_host(&mut self, plan: &PlanId, host: &HostId, kind: &'static str, text: String) {
        let about = About { host: Some(host.clone()), ..About::plan(plan) };
        let Some(run) = self.plans.get_mut(plan) else { return };
        run.notes.push(Note { kind, about: about.clone(), text: text.clone() });
        run.whole = true;
        run.generation += 1;
        self.deeds.push(Deed::Tell { kind, about, text });
    }
}
