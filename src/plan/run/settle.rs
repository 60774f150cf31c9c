//! After a crash: the outlets of open intents are looked at, what is true is written down, and the plan goes on or
//! stands interrupted. A write is never repeated.

use crate::model::id::PlanId;
use crate::model::metric::Word;
use crate::model::switching::{Outcome, Seen};
use crate::model::time::Tick;

use super::super::picture::Sight;
use super::super::record::StepState;
use super::step::Phase;
use super::{Deed, LONG_PATIENCE, PAUSE, Runs, Who};

impl Runs {
    pub(super) fn looks_to_settle(&mut self, who: &Who, began: Tick) -> bool {
        if self.ending {
            // Not looked at yet: the next start does.
            return false;
        }
        let Some(run) = self.plans.get(&who.plan) else { return false };
        let outlet = run.record.steps[who.step].outlet.clone();
        self.doing(who).phase = Phase::LooksSettle { began };
        self.deeds.push(Deed::Look { who: who.clone(), outlet, everything: false });
        true
    }

    /// What an outlet does, once its PDU answers. While a command may still be at work, as long after this start as the
    /// driver gives it, the outlet is looked at again.
    pub(super) fn looked_to_settle(
        &mut self,
        who: &Who,
        began: Tick,
        seen: &Result<Seen, String>,
        sight: &Sight<'_>,
    ) {
        let Some(run) = self.plans.get(&who.plan) else { return };
        let wished = run.record.steps[who.step].relay.state();
        let word = match seen {
            Ok(Seen { state: Ok(word @ (Word::On | Word::Off)), takes, .. }) => {
                let at_work = *word != wished && sight.now < began + *takes;
                (!at_work).then_some(*word)
            }
            _ => None,
        };
        let (outcome, detail) = match word {
            Some(word) if word == wished => {
                (Outcome::Done, "seen after a restart of the gateway".to_owned())
            }
            Some(word) => (
                Outcome::NotDone,
                format!(
                    "after a restart of the gateway the outlet reads {}; nothing was repeated",
                    word.word()
                ),
            ),
            None if sight.now >= began + LONG_PATIENCE || run.stopping => (
                Outcome::Unverified,
                "the gateway was restarted and the PDU could not be asked since".to_owned(),
            ),
            None => {
                let next = sight.now + PAUSE;
                self.doing(who).phase = Phase::Settles { next, began };
                return;
            }
        };
        self.ends(who, outcome, Some(detail), sight);
    }

    /// Once every open intent is settled the plan goes on, or stands interrupted.
    pub(super) fn settled(&mut self, plan: &PlanId, sight: &Sight<'_>) -> bool {
        let Some(run) = self.plans.get_mut(plan).filter(|run| run.settling) else { return false };
        let looks =
            |phase: &Phase| matches!(phase, Phase::Settles { .. } | Phase::LooksSettle { .. });
        if run.doing.iter().any(|doing| looks(&doing.phase)) {
            return false;
        }
        run.settling = false;
        let mut begun = run.record.steps.iter().filter_map(|step| step.state.outcome());
        let well = begun.all(Outcome::is_success);
        let open = run.record.steps.iter().any(|step| step.state == StepState::Pending);
        if !(sight.site.resume && open && well) {
            run.halted = true;
            run.interrupted = open || !well;
        }
        true
    }
}
