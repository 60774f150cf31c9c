//! Carrying a plan out, step by step.

use tokio::sync::watch;

use crate::device::{Handle, Known, OrderError, Seen, Terms, state_word};
use crate::model::event::About;
use crate::model::id::OutletId;
use crate::model::limits::QUIESCE_MS;
use crate::model::metric::{Metric, Word};
use crate::model::reading::{Datum, Gap};
use crate::model::switching::{Outcome, Relay};
use crate::model::time::{Span, Stamp, Tick};

use super::record::{PlanState, Record, StepState};
use super::refusal::Refusal;
use super::submit::Switching;

/// How long a later step of a plan waits for a PDU that does not answer.
const PATIENCE: Span = Span::seconds(60);
/// Between two tries.
const PAUSE: Span = Span(500);
/// How long the outcome of a command is looked for whose device task was ended.
const LOST: Span = Span::seconds(15);

/// What came of a step, with what was seen or refused.
type Ended = (Outcome, Option<String>);

/// Marks the first step as intended; it is made durable together with the plan.
pub(super) fn intend_first(record: &mut Record, now: Stamp) {
    if let Some(first) = record.steps.first_mut() {
        first.state = StepState::Intended;
        first.at = Some(now.0);
    }
}

impl Switching {
    /// Runs every step that is not over, in order, and ends the plan.
    pub(super) async fn carry_out(&self, plan: &watch::Sender<Record>) {
        let steps = plan.borrow().steps.len();
        for at in 0..steps {
            if plan.borrow().steps[at].state.outcome().is_some() {
                continue;
            }
            if !self.hold(plan, at).await {
                // The gateway is ending: the rest stays in the journal.
                return;
            }
            let ended = self.step(plan, at).await;
            let success = ended.0.is_success();
            if !self.record_outcome(plan, at, ended).await || !success {
                break;
            }
        }
        self.finish(plan).await;
    }

    /// Waits for the moment of a step. The hold of a cycle counts from the last off.
    async fn hold(&self, plan: &watch::Sender<Record>, at: usize) -> bool {
        let record = plan.borrow().clone();
        let turns = at > 0
            && record.steps[at].relay == Relay::On
            && record.steps[at - 1].relay == Relay::Off;
        if !turns {
            return true;
        }
        tokio::select! {
            () = self.stop.cancelled() => false,
            () = tokio::time::sleep(Span(record.hold_ms).duration()) => true,
        }
    }

    /// One step: guard, durable intent, write, verify.
    async fn step(&self, plan: &watch::Sender<Record>, at: usize) -> Ended {
        let step = plan.borrow().steps[at].clone();
        let (handle, known) = match self.guard(&step.outlet, at > 0).await {
            Ok(found) => found,
            Err(refusal) => return (Outcome::Failed, Some(refusal.to_string())),
        };
        let number = step.outlet.number;
        // Nothing is written to an outlet that is where it should be. The cached state may be some seconds
        // old, so this is looked at.
        if handle.state(number) == Ok(step.relay.state()) {
            match handle.look(number).await {
                Ok(seen) if seen.state == Ok(step.relay.state()) => {
                    return (Outcome::AlreadyThere, None);
                }
                Ok(Seen { state: Ok(Word::On | Word::Off), .. }) => {}
                Ok(seen) => {
                    return (
                        Outcome::Failed,
                        Some(format!("its state is {}", state_word(seen.state))),
                    );
                }
                Err(error) => return (Outcome::Failed, Some(error.to_string())),
            }
        }
        if step.state == StepState::Pending && !self.intend(plan, at).await {
            return (Outcome::Failed, Some("its intent could not be made durable".into()));
        }
        self.write_and_verify(&handle, &step.outlet, step.relay, known).await
    }

    /// The guard before a step. A plan that is under way has perhaps left a host dark, so it waits a while for a
    /// PDU that does not answer or is being learned anew; the first step of a plan does not wait.
    async fn guard(&self, outlet: &OutletId, patient: bool) -> Result<(Handle, Known), Refusal> {
        let until = self.clock.tick() + PATIENCE;
        loop {
            let site = self.site.borrow().clone();
            match self.check(&site, outlet).await {
                Err(Refusal::Doubtful { .. })
                    if patient && self.clock.tick() < until && !self.stop.is_cancelled() =>
                {
                    tokio::time::sleep(PAUSE.duration()).await;
                }
                checked => return checked,
            }
        }
    }

    async fn intend(&self, plan: &watch::Sender<Record>, at: usize) -> bool {
        let now = self.clock.stamp();
        plan.send_modify(|record| {
            record.steps[at].state = StepState::Intended;
            record.steps[at].at = Some(now.0);
        });
        let record = plan.borrow().clone();
        let saved = self.save(&record, None).await;
        if let Err(error) = &saved {
            tracing::error!(plan = %record.id, %error, "plan {} stops: its intent is not durable", record.id);
        }
        super::crash::point("intended");
        saved.is_ok()
    }

    async fn write_and_verify(
        &self,
        handle: &Handle,
        outlet: &OutletId,
        relay: Relay,
        known: Known,
    ) -> Ended {
        super::crash::point("before-write");
        let terms = match handle.write(outlet.number, relay, known).await {
            Ok(terms) => terms,
            // The task that had the order is gone; whether it was sent, only looking tells.
            Err(OrderError::Lost) => {
                Terms { within: LOST, every: PAUSE, acknowledged: false, also: None }
            }
            Err(error @ OrderError::Link(_)) => {
                return (Outcome::Unverified, Some(error.to_string()));
            }
            Err(error) => return (Outcome::Failed, Some(error.to_string())),
        };
        super::crash::point("written");
        let deadline = self.clock.tick() + terms.within;
        let mut seen;
        loop {
            // A reload may have put another task in the place of the one that wrote.
            seen = match self.fleet.get(&outlet.pdu) {
                Some(handle) => handle.look(outlet.number).await,
                None => Err(OrderError::Gone),
            };
            if seen.as_ref().is_ok_and(|seen| seen.state == Ok(relay.state())) {
                super::crash::point("verified");
                if let Some(also) = terms.also.filter(|_| relay == Relay::Off) {
                    return self.witnessed(outlet, also, deadline, terms.every).await;
                }
                handle.refresh(outlet.number);
                return (Outcome::Done, None);
            }
            if self.clock.tick() >= deadline {
                break;
            }
            tokio::time::sleep(terms.every.duration()).await;
        }
        let saw = match seen {
            Ok(seen) => format!("still reads {}", state_word(seen.state)),
            Err(error) => format!("cannot be read: {error}"),
        };
        let acknowledged =
            if terms.acknowledged { "" } else { "; the PDU did not acknowledge the command" };
        (
            Outcome::Unverified,
            Some(format!(
                "the outlet {saw} {} after being switched {}{acknowledged}",
                terms.within,
                relay.word()
            )),
        )
    }

    /// The second witness of an outlet that reads off: its load must go too, else a contact is welded, or the relay
    /// that opened is another one's. Where nothing is metered there is nothing to hold against the relay.
    async fn witnessed(
        &self,
        outlet: &OutletId,
        (metric, below): (Metric, i64),
        deadline: Tick,
        every: Span,
    ) -> Ended {
        loop {
            let Some(handle) = self.fleet.get(&outlet.pdu) else {
                return (Outcome::Unverified, Some(OrderError::Gone.to_string()));
            };
            let looked = handle.look_all(outlet.number).await;
            let drawn = handle.reading(outlet.number, metric);
            let late = self.clock.tick() >= deadline;
            match (looked, drawn) {
                (Ok(_), None | Some(Datum::Gap(Gap::Unsupported))) => return (Outcome::Done, None),
                (Ok(_), Some(Datum::Value(value))) if value < below => {
                    return (Outcome::Done, None);
                }
                (Ok(_), Some(Datum::Value(value))) if late => {
                    let shown = metric.unit().map_or(String::new(), |unit| {
                        format!("{} {}", unit.to_f64(value), unit.symbol())
                    });
                    let detail = format!(
                        "the outlet reads off, but still draws {shown}: a welded contact, or a cabling or profile mismatch"
                    );
                    return (Outcome::Unverified, Some(detail));
                }
                (Err(error), _) if late => return (Outcome::Unverified, Some(error.to_string())),
                // A meter that is there and cannot be read is no witness.
                (Ok(_), _) if late => {
                    let detail = "the outlet reads off, but what it draws could not be read";
                    return (Outcome::Unverified, Some(detail.to_owned()));
                }
                _ => tokio::time::sleep(every.duration()).await,
            }
        }
    }

    async fn record_outcome(
        &self,
        plan: &watch::Sender<Record>,
        at: usize,
        (outcome, detail): Ended,
    ) -> bool {
        let now = self.clock.stamp();
        let last = at + 1 == plan.borrow().steps.len();
        let mut record = plan.borrow().clone();
        record.steps[at].state = StepState::Ended(outcome);
        record.steps[at].detail = detail;
        record.steps[at].at = Some(now.0);
        let step = record.steps[at].clone();
        // The outcome of the last step and the end of the plan are one commit.
        if last || !outcome.is_success() {
            close(&mut record, now);
        }
        let saved = self.save(&record, None).await;
        super::crash::point("recorded");
        // Whoever waits for the plan is told by `finish`, when nothing is left to be done.
        plan.send_if_modified(|now| {
            *now = record.clone();
            record.state == PlanState::Running
        });
        if let Err(error) = &saved {
            tracing::error!(plan = %record.id, %error, "plan {}: an outcome is not durable", record.id);
        }
        let kind = match (outcome.is_success(), step.relay) {
            (true, Relay::On) => "outlet.on",
            (true, Relay::Off) => "outlet.off",
            (false, _) => "outlet.failed",
        };
        let about = About { plan: Some(record.id.clone()), ..About::outlet(&step.outlet) };
        let detail = step.detail.map_or(String::new(), |detail| format!(": {detail}"));
        self.events.tell(
            kind,
            about,
            format!("{} {}: {}{detail}", step.outlet, step.relay.word(), outcome.word()),
        );
        saved.is_ok()
    }

    /// Ends a plan, if its last outcome did not.
    async fn finish(&self, plan: &watch::Sender<Record>) {
        let mut record = plan.borrow().clone();
        if record.state == PlanState::Running {
            close(&mut record, self.clock.stamp());
            if let Err(error) = self.save(&record, None).await {
                tracing::error!(plan = %record.id, %error, "the end of plan {} is not durable", record.id);
            }
        }
        let about = About::plan(&record.id);
        let text = format!(
            "{} {} for {}: {}",
            record.action.word(),
            record.target,
            record.by,
            record.state.word()
        );
        tracing::info!(plan = %record.id, "{text}");
        let kind = if record.is_success() { "plan.done" } else { "plan.stopped" };
        // Waiters are told last: whoever hears that a plan is over finds it in the journal and the events, and
        // may switch the same outlets at once.
        self.events.tell(kind, about, text);
        self.release(&record);
        plan.send_replace(record);
    }

    /// How long an outlet is left alone before an unsettled write on it is judged: a late or doubled datagram
    /// has died by then.
    pub(super) async fn quiesce(&self) {
        tokio::time::sleep(Span(QUIESCE_MS).duration()).await;
    }
}

/// Ends a record: done if every step succeeded, else stopped, the rest skipped.
pub(super) fn close(record: &mut Record, now: Stamp) {
    for step in &mut record.steps {
        if step.state == StepState::Pending {
            step.state = StepState::Ended(Outcome::Skipped);
        }
    }
    let success =
        record.steps.iter().all(|step| step.state.outcome().is_some_and(Outcome::is_success));
    record.state = if success { PlanState::Done } else { PlanState::Stopped };
    record.finished = Some(now.0);
}
