//! Plans by the calendar: kept once, made anew and run whenever their rule says so.

use crate::model::event::About;
use crate::model::id::PlanId;
use crate::model::switching::Outcome;
use crate::model::time::Span;
use crate::plan::calendar::Calendar;
use crate::plan::guard::Hindrance;
use crate::plan::record::{PlanState, Record, StepState};
use crate::store::journal::Commit;

use super::conduct::draft;
use super::plans::{Asker, Wish};
use super::refusal::Refusal;
use super::submit::{Switching, Ticket, claim, to_json};

/// How late a plan may begin: what was missed for longer, since the gateway was off, is not made up for.
const LATE: Span = Span::seconds(60);
/// The longest sleep: the wall clock may be set meanwhile.
const LONGEST: Span = Span::seconds(30);

impl Switching {
    /// Puts a plan on the calendar: from now on it is run by its rule, until it is cancelled.
    pub(super) async fn put_on_calendar(
        &self,
        mut record: Record,
        key: Option<(String, Vec<u8>)>,
    ) -> Result<Ticket, Refusal> {
        record.state = PlanState::Scheduled;
        let rule = record.calendar.clone().unwrap_or_default();
        let text = format!("plan {} is run by the calendar: {rule}", record.id);
        let about = About::plan(&record.id);
        let now = self.clock.stamp().0;
        let notes = vec![draft(now, "plan.scheduled", &record.by, &about, text.clone())];
        // Open: the next start finds it.
        let plans = vec![(record.id.clone(), to_json(&record)?, true)];
        let commit = Commit { plans, key, notes, ..Commit::default() };
        self.in_journal(move |journal| journal.commit(commit)).await?;
        self.events.tell("plan.scheduled", about, text);
        let plan = record.id.clone();
        self.show(record.clone());
        self.keep_calendar(record);
        let ticket = self.ticket(&plan).await?;
        ticket.ok_or_else(|| Refusal::unknown(format!("plan {plan}")))
    }

    /// Runs a plan by its calendar, until it is cancelled or the gateway ends.
    pub(super) fn keep_calendar(&self, record: Record) {
        let this = self.clone();
        self.tasks.spawn(async move {
            let rule = record.calendar.as_deref().unwrap_or_default();
            let calendar: Calendar = match rule.parse() {
                Ok(calendar) => calendar,
                Err(error) => {
                    let text = format!("plan {} is not run: {error}", record.id);
                    this.events.tell("plan.missed", About::plan(&record.id), text);
                    return;
                }
            };
            let mut last = this.clock.stamp();
            while let Some(at) = calendar.next(last) {
                last = at;
                loop {
                    let rest = at.since(this.clock.stamp()).0.min(LONGEST.0);
                    if rest == 0 {
                        break;
                    }
                    tokio::select! {
                        () = tokio::time::sleep(Span(rest).duration()) => {}
                        () = this.stop.cancelled() => return,
                    }
                }
                if !this.is_scheduled(&record.id) {
                    return;
                }
                let late = this.clock.stamp().since(at);
                let begun = if late > LATE {
                    Err(format!("its time was {late} ago"))
                } else {
                    this.run_instance(&record).await.map_err(|refusal| refusal.to_string())
                };
                match begun {
                    Ok(instance) => {
                        let text =
                            format!("plan {} is run by its calendar, as {instance}", record.id);
                        this.events.tell("plan.by_calendar", About::plan(&record.id), text);
                    }
                    Err(why) => {
                        let text = format!("plan {} was not run at {at}: {why}", record.id);
                        tracing::warn!("{text}");
                        this.events.tell("plan.missed", About::plan(&record.id), text);
                    }
                }
            }
        });
    }

    fn is_scheduled(&self, plan: &PlanId) -> bool {
        let watched = self.watched();
        watched.get(plan).is_some_and(|plan| plan.borrow().state == PlanState::Scheduled)
    }

    /// Makes the plan anew for the rack as it is, and begins it.
    async fn run_instance(&self, parent: &Record) -> Result<PlanId, Refusal> {
        let wish = Wish {
            who: Asker::Gateway("the calendar".into()),
            goals: parent.goals.clone(),
            reason: parent.reason.clone(),
            on_failure: parent.on_failure,
            on_overload: parent.on_overload,
            not_before: None,
            calendar: None,
            over_locks: parent.lifted.is_some(),
            by_priority: parent.by_priority,
        };
        let mut record = self.preview(&wish)?.record;
        // What it goes over now was lifted when it was put on the calendar, or it is not gone over.
        if let Some((outlet, reason)) =
            record.over_locks.iter().find(|lock| parent.over_locks.get(lock.0) != Some(lock.1))
        {
            let (outlet, reason) = (outlet.to_string(), reason.clone());
            return Err(Hindrance::Locked { outlet, reason }.into());
        }
        record.parent = Some(parent.id.clone());
        record.by = format!("the calendar for {}", parent.by);
        if let Err(refusal) = self.makers_may(parent, &record) {
            self.stands_refused(record, &refusal).await?;
            return Err(refusal);
        }
        record.approvals.clone_from(&parent.approvals);
        record.lifted.clone_from(&parent.lifted);
        // A rule of approval that came since holds: what nobody agreed to is not run, nor what nobody agrees to any more.
        let asked = Record {
            id: parent.id.clone(),
            needs_approvals: record.needs_approvals.max(parent.needs_approvals),
            ..record.clone()
        };
        if let Err(refusal) = self.is_agreed_to(&asked) {
            self.stands_refused(record, &refusal).await?;
            return Err(refusal);
        }
        self.begin_by_itself(record).await
    }

    /// Keeps a run that was refused, none of its steps begun.
    async fn stands_refused(&self, mut record: Record, why: &Refusal) -> Result<(), Refusal> {
        for step in &mut record.steps {
            step.state = StepState::Ended(Outcome::Skipped);
            step.detail = Some(why.to_string());
        }
        record.close(self.clock.stamp());
        record.state = PlanState::Stopped;
        let text = format!("plan {} is not begun: {why}", record.id);
        self.keep(&record, "plan.refused", "the gateway", &text).await
    }

    /// Begins a plan that nobody waits for.
    pub(super) async fn begin_by_itself(&self, mut record: Record) -> Result<PlanId, Refusal> {
        let lifted = record.lifts();
        for outlet in record.outlets() {
            self.check_with(&outlet, &lifted).await?;
        }
        record.state = PlanState::Running;
        self.with_runs(|runs, _| claim(runs, &record))?;
        let plans = vec![(record.id.clone(), to_json(&record)?, true)];
        let notes = vec![self.accepted(&record)];
        let id = record.id.clone();
        self.begin(record, Commit { plans, notes, ..Commit::default() }).await?;
        Ok(id)
    }
}
