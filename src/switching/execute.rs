//! Carrying a plan out, step by step.

use std::collections::BTreeSet;

use tokio::sync::watch;

use crate::device::{Handle, Known, OrderError, Seen, Terms, state_word};
use crate::model::event::About;
use crate::model::id::{HostId, OutletId, PlanId};
use crate::model::limits::QUIESCE_MS;
use crate::model::metric::Word;
use crate::model::switching::{Outcome, Relay};
use crate::model::time::{Span, Stamp, Tick};

use super::plans::OnFailure;
use super::record::{PlanState, Record, StepRecord, StepState};
use super::refusal::Refusal;
use super::submit::Switching;
use super::witness::{Doubt, Loads};

/// How long a later step of a plan waits for a PDU that does not answer.
const PATIENCE: Span = Span::seconds(60);
/// Between two tries.
const PAUSE: Span = Span(500);
/// How long the outcome of a command is looked for whose device task was ended.
const LOST: Span = Span::seconds(15);

/// When the steps of a scheduled plan begin: as planned, and as much later as any step before ended later than planned.
/// What was reckoned to lie between two steps lies there at least.
struct Pace {
    began: Tick,
    /// The planned time that `began` stands for, ms.
    base: u64,
    late: u64,
}

impl Pace {
    /// From the start; or after a restart from the last step that was over, which is reckoned to have ended just now: no
    /// pause behind it is cut short.
    fn new(record: &Record, now: Tick) -> Self {
        let over = record.steps.iter().rev().find(|step| step.state.outcome().is_some());
        let base = over.map_or(0, |step| step.at_ms + super::picture::STEP_MS);
        Self { began: now, base, late: 0 }
    }

    fn due(&self, record: &Record, at: usize) -> Tick {
        self.began + Span(record.steps[at].at_ms.saturating_sub(self.base) + self.late)
    }

    fn done(&mut self, record: &Record, at: usize, now: Tick) {
        let planned = self.due(record, at) + Span(super::picture::STEP_MS);
        self.late += (now - planned).0;
    }
}

/// What came of a step, with what was seen or refused.
pub(super) type Ended = (Outcome, Option<String>);

/// A step that was carried out, with what is still to be looked at.
struct Stepped {
    ended: Ended,
    doubt: Option<Doubt>,
}

/// Whether a step got as far as a write, or was where it should be.
enum Begun {
    Stepped(Stepped),
    /// It did not: nothing was written.
    Not(Ended),
}

impl From<Ended> for Stepped {
    fn from(ended: Ended) -> Self {
        Self { ended, doubt: None }
    }
}

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
        let record = plan.borrow().clone();
        let mut pace = Pace::new(&record, self.clock.tick());
        let mut failed: BTreeSet<OutletId> = BTreeSet::new();
        for at in 0..record.steps.len() {
            if plan.borrow().steps[at].state.outcome().is_some() {
                continue;
            }
            let goes_on = self.hold(plan, at, &pace).await;
            if self.is_to_stop(&record.id) {
                break;
            }
            if !goes_on {
                // The gateway is ending: the rest stays in the journal.
                return;
            }
            if at == 0
                && record.not_before.is_some()
                && let Err(refusal) = self.still_fits(&record)
            {
                // It was put off, and the rack has not waited.
                self.record_outcome(plan, at, (Outcome::Failed, Some(refusal.to_string()))).await;
                break;
            }
            if self.shares_a_host(&record.steps[at].outlet, &failed) {
                continue;
            }
            let Some(Stepped { ended, doubt }) = self.step(plan, at).await else {
                // Nothing was written: the plan is to stop, or the gateway is ending.
                if self.stop.is_cancelled() && !self.is_to_stop(&record.id) {
                    return;
                }
                break;
            };
            let success = ended.0.is_success();
            if !self.record_outcome(plan, at, ended).await {
                break;
            }
            pace.done(&record, at, self.clock.tick());
            if !success {
                failed.insert(record.steps[at].outlet.clone());
                if record.on_failure == OnFailure::Stop {
                    break;
                }
                continue;
            }
            if let Some(doubt) = doubt
                && !self.dispelled(plan, at, doubt).await
            {
                break;
            }
        }
        self.finish(plan).await;
    }

    /// Whether an outlet feeds a host of which another feed failed.
    fn shares_a_host(&self, outlet: &OutletId, failed: &BTreeSet<OutletId>) -> bool {
        let site = self.site.borrow();
        let host = site.hosts.values().find(|host| host.outlets.contains(outlet));
        failed.contains(outlet)
            || host.is_some_and(|host| host.outlets.iter().any(|feed| failed.contains(feed)))
    }

    /// Waits for the moment of a step. The hold of a cycle counts from the last off.
    async fn hold(&self, plan: &watch::Sender<Record>, at: usize, pace: &Pace) -> bool {
        let record = plan.borrow().clone();
        if record.scheduled.is_some() {
            return self.hold_until(&record, pace.due(&record, at)).await;
        }
        let turns = at > 0
            && record.steps[at].relay == Relay::On
            && record.steps[at - 1].relay == Relay::Off;
        if !turns {
            return true;
        }
        tokio::select! {
            () = self.stop.cancelled() => false,
            // The off has died before the on is sent: a doubled one would undo it.
            () = tokio::time::sleep(Span(record.hold_ms.max(QUIESCE_MS)).duration()) => true,
        }
    }

    /// Waits for a moment, or until the plan is to stop; false when the gateway is ending.
    async fn hold_until(&self, record: &Record, due: Tick) -> bool {
        let now = self.clock.stamp().0;
        let not_before = record.not_before.map_or(0, |at| at.saturating_sub(now));
        let due = due.max(self.clock.tick() + Span(u64::try_from(not_before).unwrap_or(0)));
        while self.clock.tick() < due {
            if self.is_to_stop(&record.id) {
                return true;
            }
            let rest = (due - self.clock.tick()).0.min(PAUSE.0);
            tokio::select! {
                () = self.stop.cancelled() => return false,
                () = tokio::time::sleep(Span(rest).duration()) => {}
            }
        }
        !self.stop.is_cancelled()
    }

    /// Waits until every limit above an outlet has room for it, as measured; says which has not, in the end.
    async fn room(&self, record: &Record, outlet: &OutletId) -> Result<(), Refusal> {
        let until = self.clock.tick() + PATIENCE;
        loop {
            match self.has_room(record, outlet) {
                Ok(()) => return Ok(()),
                Err(refusal) if self.clock.tick() >= until || self.is_to_stop(&record.id) => {
                    return Err(refusal);
                }
                Err(_) => {}
            }
            if let Some(handle) = self.fleet.get(&outlet.pdu) {
                handle.want(self.clock.tick());
            }
            tokio::select! {
                () = self.stop.cancelled() => return Err(Refusal::Ending),
                () = tokio::time::sleep(PAUSE.duration()) => {}
            }
        }
    }

    /// Makes sure that another feed of an outlet's host is on and stays on: it is looked at once every command that was
    /// ever sent to it has died. A late or doubled one would cut the host's last feed.
    async fn other_feed(&self, outlet: &OutletId) -> Result<(), String> {
        let host = {
            let site = self.site.borrow();
            let host = site.hosts.iter().find(|(_, host)| host.outlets.contains(outlet));
            host.map(|(id, host)| (id.clone(), host.outlets.clone()))
        };
        let Some((id, feeds)) = host else { return Ok(()) };
        for feed in feeds.iter().filter(|feed| *feed != outlet) {
            if let Some((_, written)) = self.last_write(feed) {
                let rest = (written + Span(QUIESCE_MS)) - self.clock.tick();
                tokio::select! {
                    () = self.stop.cancelled() => return Err("the gateway is ending".into()),
                    () = tokio::time::sleep(rest.duration()) => {}
                }
            }
            let Some(handle) = self.fleet.get(&feed.pdu) else { continue };
            if handle.look(feed.number).await.is_ok_and(|seen| seen.state == Ok(Word::On)) {
                return Ok(());
            }
        }
        Err(format!("it would take the last feed of host {id} that is known to be on"))
    }

    /// Whether no other outlet lost its load in the place of one that drew nothing. Within a plan this is waited for
    /// before the next step; after the last it is looked at when the plan has ended.
    async fn dispelled(&self, plan: &watch::Sender<Record>, at: usize, doubt: Doubt) -> bool {
        let record = plan.borrow().clone();
        let outlet = record.steps[at].outlet.clone();
        if at + 1 == record.steps.len() {
            let this = self.clone();
            self.tasks.spawn(async move { this.overlooked(&outlet, &doubt).await });
            return true;
        }
        let Some(detail) = self.overlooked(&outlet, &doubt).await else { return true };
        self.record_outcome(plan, at, (Outcome::Unverified, Some(detail))).await;
        false
    }

    /// One step: guard, durable intent, write, verify.
    ///
    /// Nothing at all if it was not begun, since the plan is to stop or the gateway is ending.
    async fn step(&self, plan: &watch::Sender<Record>, at: usize) -> Option<Stepped> {
        let stepped = self.begun_step(plan, at).await;
        let id = plan.borrow().id.clone();
        let ends = || self.is_to_stop(&id) || self.stop.is_cancelled();
        match stepped {
            Begun::Stepped(stepped) => Some(stepped),
            // A guard that gave up since everything ends has found nothing wrong.
            Begun::Not(_) if ends() => None,
            Begun::Not(ended) => Some(ended.into()),
        }
    }

    async fn begun_step(&self, plan: &watch::Sender<Record>, at: usize) -> Begun {
        let not = |outcome, detail: String| Begun::Not((outcome, Some(detail)));
        let step = plan.borrow().steps[at].clone();
        let id = plan.borrow().id.clone();
        if let Err(refusal) = self.guard(&id, &step.outlet, at > 0).await {
            return not(Outcome::Failed, refusal.to_string());
        }
        let number = step.outlet.number;
        // A host that has to stay up loses one feed at a time, whoever asks.
        let turn = if step.keeps_host { self.host_of(&step.outlet) } else { None };
        let turn = turn.map(|host| self.turn_of_host(&host));
        let _turn = match &turn {
            Some(turn) => Some(turn.lock().await),
            None => None,
        };
        if step.keeps_host
            && let Err(why) = self.other_feed(&step.outlet).await
        {
            return not(Outcome::Failed, why);
        }
        if step.relay == Relay::On {
            let record = plan.borrow().clone();
            if let Err(refusal) = self.room(&record, &step.outlet).await {
                return not(Outcome::Failed, refusal.to_string());
            }
        }
        // All of that may have taken a while: a lock, a cancel, a reload of since then holds.
        if self.is_to_stop(&id) || self.stop.is_cancelled() {
            return not(Outcome::Failed, "it was not begun".into());
        }
        let (handle, known) = match self.guard(&id, &step.outlet, at > 0).await {
            Ok(found) => found,
            Err(refusal) => return not(Outcome::Failed, refusal.to_string()),
        };
        // Nothing is written to an outlet that is where it should be. The cached state may be some seconds
        // old, so this is looked at.
        if handle.state(number) == Ok(step.relay.state()) {
            match handle.look(number).await {
                Ok(seen) if seen.state == Ok(step.relay.state()) => {
                    return Begun::Stepped((Outcome::AlreadyThere, None).into());
                }
                Ok(Seen { state: Ok(Word::On | Word::Off), .. }) => {}
                Ok(seen) => {
                    let detail = format!("its state is {}", state_word(seen.state));
                    return not(Outcome::Failed, detail);
                }
                Err(error) => return not(Outcome::Failed, error.to_string()),
            }
        }
        if step.state == StepState::Pending && !self.intend(plan, at).await {
            return not(Outcome::Failed, "its intent could not be made durable".into());
        }
        Begun::Stepped(self.write_and_verify(&handle, &step.outlet, step.relay, known).await)
    }

    fn host_of(&self, outlet: &OutletId) -> Option<HostId> {
        let site = self.site.borrow();
        let host = site.hosts.iter().find(|(_, host)| host.outlets.contains(outlet));
        host.map(|(id, _)| id.clone())
    }

    /// The guard before a step. A plan that is under way has perhaps left a host dark, so it waits a while for a
    /// PDU that does not answer or is being learned anew; the first step of a plan does not wait.
    async fn guard(
        &self,
        plan: &PlanId,
        outlet: &OutletId,
        patient: bool,
    ) -> Result<(Handle, Known), Refusal> {
        let until = self.clock.tick() + PATIENCE;
        loop {
            let site = self.site.borrow().clone();
            match self.check(&site, outlet).await {
                Err(Refusal::Doubtful { .. })
                    if patient
                        && self.clock.tick() < until
                        && !self.stop.is_cancelled()
                        && !self.is_to_stop(plan) =>
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
    ) -> Stepped {
        let before = Loads::of(&handle.view());
        super::crash::point("before-write");
        self.note_write(outlet, relay);
        let terms = match handle.write(outlet.number, relay, known).await {
            Ok(terms) => terms,
            // The task that had the order is gone; whether it was sent, only looking tells.
            Err(OrderError::Lost) => {
                let (within, every) = (LOST, PAUSE);
                Terms {
                    within,
                    every,
                    acknowledged: false,
                    also: None,
                    follows: true,
                    settle: PAUSE,
                }
            }
            Err(error @ OrderError::Link(_)) => {
                return (Outcome::Unverified, Some(error.to_string())).into();
            }
            Err(error) => return (Outcome::Failed, Some(error.to_string())).into(),
        };
        super::crash::point("written");
        if relay == Relay::Off {
            // The board still has what it drew.
            self.remember_load(outlet);
        }
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
                if relay == Relay::On {
                    handle.refresh(outlet.number);
                    return (Outcome::Done, None).into();
                }
                let doubt = Doubt { terms, before };
                let ended = self.witnessed(outlet, &doubt).await;
                return Stepped { ended, doubt: Some(doubt) };
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
        let detail = format!(
            "the outlet {saw} {} after being switched {}{acknowledged}",
            terms.within,
            relay.word()
        );
        (Outcome::Unverified, Some(detail)).into()
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
        let stops = !outcome.is_success() && record.on_failure == OnFailure::Stop;
        if last || stops {
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
            // A step that was intended with the plan, and never begun, was not written.
            let open = |step: &&mut StepRecord| step.state.outcome().is_none();
            let cancelled =
                self.is_to_stop(&record.id) && record.steps.iter_mut().any(|s| open(&s));
            if cancelled {
                for step in record.steps.iter_mut().filter(open) {
                    step.state = StepState::Ended(Outcome::Skipped);
                }
            }
            close(&mut record, self.clock.stamp());
            if cancelled {
                record.state = PlanState::Cancelled;
            }
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
