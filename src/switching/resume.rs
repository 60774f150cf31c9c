//! After a crash: plans that had not ended are found in the journal, the outlets of open intents are looked
//! at, and each plan goes on or stands interrupted. A write is never repeated.

use std::sync::Arc;

use tokio::sync::watch;

use crate::device::{Seen, state_word};
use crate::model::event::About;
use crate::model::id::{OutletId, PlanId};
use crate::model::metric::Word;
use crate::model::switching::{Outcome, Relay};
use crate::model::time::Span;
use crate::store::journal::JournalError;

use super::execute::close;
use super::record::{PlanState, Record, StepState};
use super::submit::Switching;

/// How long the outlets of open intents are tried to be looked at before the plan ends without knowing.
const PATIENCE: Span = Span::seconds(15 * 60);
/// Between two tries.
const PAUSE: Span = Span(500);

impl Switching {
    /// Takes up what the last run left. Call once, after the devices were started; returns at once, the
    /// outlets are looked at in the background. They are claimed from here on.
    pub async fn resume(&self) -> Result<usize, JournalError> {
        let records = self.in_journal(crate::store::journal::Journal::open_plans).await?;
        let mut count = 0;
        for bytes in records {
            let record: Record = serde_json::from_slice(&bytes)
                .map_err(|_| JournalError::Damaged("an open plan".into()))?;
            let id = record.id.clone();
            if let Err(refusal) = self.claim(&record) {
                tracing::error!(plan = %id, %refusal, "plan {id} cannot be taken up");
                continue;
            }
            count += 1;
            self.events.tell(
                "plan.resumed",
                About::plan(&id),
                format!("plan {id} was interrupted; its outlets are looked at"),
            );
            self.take_up(record);
        }
        Ok(count)
    }

    fn take_up(&self, record: Record) {
        let this = self.clone();
        self.watched(record, move |plan| async move {
            this.settle(&plan).await;
        });
    }

    /// Settles the open intent of a plan by looking, then goes on or ends it.
    async fn settle(&self, plan: &Arc<watch::Sender<Record>>) {
        self.quiesce().await;
        let id = plan.borrow().id.clone();
        let steps = plan.borrow().steps.len();
        for at in 0..steps {
            if plan.borrow().steps[at].state != StepState::Intended {
                continue;
            }
            let step = plan.borrow().steps[at].clone();
            let (outcome, detail) = match self.look_for(&id, &step.outlet, Some(step.relay)).await {
                Some(word) if word == step.relay.state() => {
                    (Outcome::Done, "seen after a restart of the gateway".to_owned())
                }
                Some(word) => (
                    Outcome::NotDone,
                    format!(
                        "after a restart of the gateway the outlet reads {}; nothing was repeated",
                        word.word()
                    ),
                ),
                None => (
                    Outcome::Unverified,
                    "the gateway was restarted and the PDU could not be asked since".to_owned(),
                ),
            };
            if self.stop.is_cancelled() {
                // Not looked at yet: the next start does.
                return;
            }
            let now = self.clock.stamp();
            plan.send_modify(|record| {
                record.steps[at].state = StepState::Ended(outcome);
                record.steps[at].detail = Some(detail);
                record.steps[at].at = Some(now.0);
            });
        }
        let ended_well = |record: &Record| {
            let mut begun = record.steps.iter().filter_map(|step| step.state.outcome());
            begun.all(Outcome::is_success)
        };
        let open = plan.borrow().steps.iter().any(|step| step.state == StepState::Pending);
        let go_on = self.site.borrow().resume && open && ended_well(&plan.borrow());
        let record = plan.borrow().clone();
        if go_on {
            // After a power cut the gateway is up before the PDU's card: the rest waits for it.
            for step in record.steps.iter().filter(|step| step.state == StepState::Pending) {
                self.look_for(&id, &step.outlet, None).await;
            }
            if self.stop.is_cancelled() {
                return;
            }
            if let Err(error) = self.save(&record, None).await {
                tracing::error!(plan = %record.id, %error, "plan {} does not go on: the journal failed", record.id);
                return;
            }
            self.carry_out(plan).await;
        } else {
            self.end_interrupted(plan, open).await;
        }
    }

    async fn end_interrupted(&self, plan: &Arc<watch::Sender<Record>>, open: bool) {
        let mut record = plan.borrow().clone();
        close(&mut record, self.clock.stamp());
        if record.state != PlanState::Done || open {
            record.state = PlanState::Interrupted;
        }
        if let Err(error) = self.save(&record, None).await {
            tracing::error!(plan = %record.id, %error, "the end of plan {} is not durable", record.id);
        }
        let text = format!(
            "{} {} was interrupted by a restart of the gateway: {}",
            record.action.word(),
            record.target,
            record.state.word()
        );
        self.events.tell("plan.interrupted", About::plan(&record.id), text);
        self.release(&record);
        plan.send_replace(record);
    }

    /// What an outlet does, once its PDU answers. While a command may still be at work, as long after this
    /// start as the driver gives it, the outlet is looked at again.
    async fn look_for(
        &self,
        plan: &PlanId,
        outlet: &OutletId,
        wished: Option<Relay>,
    ) -> Option<Word> {
        let began = self.clock.tick();
        let until = began + PATIENCE;
        loop {
            if let Some(handle) = self.fleet.get(&outlet.pdu) {
                match handle.look(outlet.number).await {
                    Ok(Seen { state: Ok(word @ (Word::On | Word::Off)), takes, .. }) => {
                        let at_work = wished.is_some_and(|relay| relay.state() != word)
                            && self.clock.tick() < began + takes;
                        if !at_work {
                            return Some(word);
                        }
                    }
                    Ok(seen) => {
                        tracing::debug!(%outlet, "outlet {outlet} reads {}", state_word(seen.state));
                    }
                    Err(error) => {
                        tracing::debug!(%outlet, %error, "outlet {outlet} cannot be looked at yet");
                    }
                }
            }
            if self.clock.tick() >= until || self.is_to_stop(plan) {
                return None;
            }
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = tokio::time::sleep(PAUSE.duration()) => {}
            }
        }
    }
}
