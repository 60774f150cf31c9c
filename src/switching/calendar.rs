//! Plans by the calendar: kept once, made anew and run whenever their rule says so.

use std::collections::BTreeSet;

use crate::model::event::About;
use crate::model::id::{OutletId, PlanId};
use crate::model::switching::Outcome;
use crate::model::time::{Span, Stamp};
use crate::plan::calendar::Calendar;
use crate::plan::guard::Hindrance;
use crate::plan::record::{Called, PlanState, Record, StepState};
use crate::store::journal::Commit;

use super::conduct::draft;
use super::foresee::over_no_other_lock;
use super::plans::{Asker, Wish};
use super::refusal::Refusal;
use super::submit::{Switching, Ticket, claim, new_id, to_json};

/// How late a plan may begin: what was missed for longer, since the gateway was off, is not made up for.
const LATE: Span = Span::seconds(60);
/// How long after a time a plan may have been begun for it, ms: late, and tried again for as long.
const BEGUN_MS: i64 = 3 * LATE.0 as i64;
/// The longest sleep: the wall clock may be set meanwhile.
const LONGEST: Span = Span::seconds(30);

/// Between two tries of a plan whose time has come.
const AGAIN: Span = Span::seconds(5);
/// The farthest that a clock is set back without a time being reckoned anew: no time is to come twice.
const SET_BACK: Span = Span::seconds(3_600);
/// How many plans are looked through for one that was begun for a time.
const LATEST: usize = 200;
/// How many times that were missed are counted one by one.
const COUNTED: u32 = 1_000;

/// What is due of a calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// Its next time has come.
    Now(Stamp),
    /// It comes in so long.
    In(Span),
    /// The last of its times that passed too long ago, how long, and how many more passed before that.
    Missed { at: Stamp, late: Span, more: u32 },
    /// The clock was set back: times count from then on.
    SetBack(Stamp),
    /// No time is left.
    Never,
}

/// What is due after a time that was seen to.
fn due(calendar: &Calendar, last: Stamp, now: Stamp) -> Due {
    if last.since(now) > SET_BACK {
        return Due::SetBack(now);
    }
    let Some(mut at) = calendar.next(last) else { return Due::Never };
    if at > now {
        return Due::In(at.since(now));
    }
    if now.since(at) <= LATE {
        return Due::Now(at);
    }
    let mut more = 0;
    while let Some(next) = calendar.next(at).filter(|next| now.since(*next) > LATE && *next <= now)
    {
        (at, more) = (next, more + 1);
        if more >= COUNTED {
            // A clock that was decades behind.
            at = Stamp(now.0 - LATE.0 as i64 - 1);
            break;
        }
    }
    Due::Missed { at, late: now.since(at), more }
}

/// What came of a time.
enum Came {
    /// It was run, as this plan.
    Run(PlanId),
    /// It was not, for this reason.
    Missed(String),
    /// The plan was cancelled, or the gateway ends.
    Ended,
}

impl Switching {
    /// Puts a plan on the calendar: from now on it is run by its rule, until it is cancelled.
    pub(super) async fn put_on_calendar(
        &self,
        mut record: Record,
        key: Option<(String, Vec<u8>)>,
    ) -> Result<Ticket, Refusal> {
        self.has_place()?;
        record.state = PlanState::Scheduled;
        record.called = Some(Called { at: self.clock.stamp().0, what: None });
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

    /// Runs a plan by its calendar, until it is cancelled or the gateway ends. Also what was to be run while the gateway was
    /// off has its time told.
    pub(super) fn keep_calendar(&self, record: Record) {
        let this = self.clone();
        self.tasks.spawn(async move {
            let id = &record.id;
            let calendar: Calendar = match record.calendar.as_deref().unwrap_or_default().parse() {
                Ok(calendar) => calendar,
                Err(error) => {
                    let text = format!("plan {id} is not run: {error}");
                    this.events.tell("plan.missed", About::plan(id), text);
                    return;
                }
            };
            let now = this.clock.stamp();
            let mut last = record.called.as_ref().map_or(now, |called| Stamp(called.at));
            while this.is_scheduled(id) {
                let (at, came) = match due(&calendar, last, this.clock.stamp()) {
                    Due::Never => return,
                    Due::In(rest) => {
                        tokio::select! {
                            () = tokio::time::sleep(rest.min(LONGEST).duration()) => {}
                            () = this.stop.cancelled() => return,
                        }
                        continue;
                    }
                    Due::SetBack(to) => {
                        last = to;
                        continue;
                    }
                    Due::Missed { at, late, more: 0 } => {
                        (at, Came::Missed(format!("its time was {late} ago")))
                    }
                    Due::Missed { at, late, more } => (
                        at,
                        Came::Missed(format!("its time was {late} ago, and so were {more} before")),
                    ),
                    Due::Now(at) => (at, this.run_at(&record, at).await),
                };
                last = at;
                if let Came::Ended = came {
                    return;
                }
                this.came(id, at, &came).await;
            }
        });
    }

    /// Runs it at its time. What cannot be told or had just now is tried again for as long as it may be late.
    async fn run_at(&self, record: &Record, at: Stamp) -> Came {
        match self.instance_of(&record.id, at).await {
            Ok(None) => {}
            // The gateway was killed before that was kept with the plan.
            Ok(Some(instance)) => return Came::Run(instance),
            Err(error) => return Came::Missed(error.to_string()),
        }
        let began = self.clock.tick();
        loop {
            // Whoever cancels it waits for what is begun here, or it is not begun.
            let turn = self.turn_of(&format!("plan {}", record.id));
            let ours = turn.lock().await;
            if !self.is_scheduled(&record.id) || self.stop.is_cancelled() {
                return Came::Ended;
            }
            let refusal = match self.run_instance(record).await {
                Ok(instance) => return Came::Run(instance),
                Err(refusal) => refusal,
            };
            drop(ours);
            let may_pass = matches!(
                refusal,
                Refusal::Busy { .. }
                    | Refusal::Hindered(Hindrance::Doubtful { .. } | Hindrance::Unknown(_))
            );
            if !may_pass || (self.clock.tick() - began).0 + AGAIN.0 >= LATE.0 {
                return Came::Missed(refusal.to_string());
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN.duration()) => {}
                () = self.stop.cancelled() => return Came::Ended,
            }
        }
    }

    /// The plan that was begun for a time already, if one was. Plans of a clock that was ahead are for other times.
    async fn instance_of(&self, id: &PlanId, at: Stamp) -> Result<Option<PlanId>, Refusal> {
        let later = new_id(Stamp(at.0 + BEGUN_MS + 1));
        let latest = self.latest(LATEST, Some(later)).await?;
        let is_of = |record: &&Record| was_begun_for(record, id, at);
        Ok(latest.iter().find(is_of).map(|record| record.id.clone()))
    }

    /// Keeps what came of a time, with the plan and in the audit, and tells it.
    async fn came(&self, id: &PlanId, at: Stamp, came: &Came) {
        let turn = self.turn_of(&format!("plan {id}"));
        let _ours = turn.lock().await;
        let (kind, what, text) = match came {
            Came::Run(instance) => (
                "plan.by_calendar",
                format!("run as {instance}"),
                format!("plan {id} is run by its calendar, as {instance}"),
            ),
            Came::Missed(why) => (
                "plan.missed",
                format!("not run: {why}"),
                format!("plan {id} was not run at {at}: {why}"),
            ),
            Came::Ended => return,
        };
        if kind == "plan.missed" {
            tracing::warn!("{text}");
        }
        let about = About::plan(id);
        self.events.tell(kind, about.clone(), text.clone());
        let mut record = match self.kept(id).await {
            Ok(record) => record,
            Err(error) => {
                tracing::error!(%error, "what came of plan {id} at {at} is not kept");
                return;
            }
        };
        if record.state != PlanState::Scheduled {
            // It was cancelled meanwhile.
            return;
        }
        record.called = Some(Called { at: at.0, what: Some(what) });
        let kept = match to_json(&record) {
            Err(error) => Err(error),
            Ok(bytes) => {
                let plans = vec![(id.clone(), bytes, true)];
                let notes = vec![draft(self.clock.stamp().0, kind, "the calendar", &about, text)];
                let commit = Commit { plans, notes, ..Commit::default() };
                self.in_journal(move |journal| journal.commit(commit)).await
            }
        };
        if let Err(error) = kept {
            tracing::error!(%error, "what came of plan {id} at {at} was not kept");
        }
        self.show(record);
    }

    fn is_scheduled(&self, plan: &PlanId) -> bool {
        let watched = self.watched();
        watched.get(plan).is_some_and(|plan| plan.borrow().state == PlanState::Scheduled)
    }

    /// Makes the plan anew for the rack as it is, and begins it.
    async fn run_instance(&self, parent: &Record) -> Result<PlanId, Refusal> {
        let wish = Wish::again(parent, Asker::Gateway("the calendar".into()));
        let mut record = self.preview(&wish)?.record;
        // Those as well that are reckoned as switched already, and what is seen then may be another.
        let lifted = parent.lifts();
        for outlet in record.mark.relays.keys() {
            self.check_with(outlet, &lifted).await?;
        }
        if self.with_runs(|runs, sight| runs.still_fits(&record, sight)).is_err() {
            record = self.preview(&wish)?.record;
        }
        // What it goes over now was lifted when it was put on the calendar, or it is not gone over.
        over_no_other_lock(&record, &parent.over_locks)?;
        record.parent = Some(parent.id.clone());
        record.makers.clone_from(&parent.makers);
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
        let agreed = self.is_agreed_to(&asked).and_then(|()| covers(parent, &asked));
        if let Err(refusal) = agreed {
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
        record.accepted = Some(self.clock.stamp().0);
        self.with_runs(|runs, _| {
            self.is_still_wanted(&record)?;
            claim(runs, &record)
        })?;
        let plans = vec![(record.id.clone(), to_json(&record)?, true)];
        let notes = vec![self.accepted(&record)];
        let id = record.id.clone();
        self.begin(record, Commit { plans, notes, ..Commit::default() }).await?;
        Ok(id)
    }
}

/// Whether a plan is the one that was begun for a time of a plan on the calendar.
fn was_begun_for(record: &Record, id: &PlanId, at: Stamp) -> bool {
    let then = at.0..=at.0 + BEGUN_MS;
    record.parent.as_ref() == Some(id) && record.accepted.is_some_and(|since| then.contains(&since))
}

/// Whether what others agreed to, or an admin lifted locks for, is all that an instance of a plan switches: a group may have
/// grown since.
pub(super) fn covers(parent: &Record, instance: &Record) -> Result<(), Refusal> {
    if instance.needs_approvals == 0 {
        return Ok(());
    }
    let of = |record: &Record| -> BTreeSet<OutletId> {
        record.asks.iter().flat_map(|(_, outlets, _)| outlets).cloned().collect()
    };
    match of(instance).difference(&of(parent)).next() {
        None => Ok(()),
        Some(outlet) => {
            let difference = format!("it names {outlet} now, to which nobody agreed");
            Err(Refusal::Changed { plan: parent.id.to_string(), difference })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Stamp {
        Stamp::parse_at(text, Stamp(0)).unwrap()
    }

    fn due_at(last: &str, now: &str) -> Due {
        due(&"daily 22:00".parse().unwrap(), at(last), at(now))
    }

    #[test]
    fn what_others_agreed_to_covers_nothing_that_a_group_has_gained() {
        use crate::model::switching::Action;
        let id: PlanId = "p1".parse().unwrap();
        let of = |outlets: &[&str]| {
            let outlets = outlets.iter().map(|outlet| outlet.parse().unwrap()).collect();
            let mut record =
                Record::new(id.clone(), Action::Off, "lab".into(), "us".into(), Stamp(0));
            record.asks = vec![(None, outlets, Action::Off)];
            record.needs_approvals = 1;
            record
        };
        let parent = of(&["pdu-a/1", "pdu-a/2"]);
        assert_eq!(covers(&parent, &of(&["pdu-a/2"])), Ok(()));
        let refusal = covers(&parent, &of(&["pdu-a/1", "pdu-a/3"])).unwrap_err();
        assert!(refusal.to_string().contains("pdu-a/3"), "{refusal}");
        // Where nobody has to agree it is the makers' rights that count.
        let free = Record { needs_approvals: 0, ..of(&["pdu-a/3"]) };
        assert_eq!(covers(&parent, &free), Ok(()));
    }

    #[test]
    fn a_time_is_seen_to_by_the_plan_that_was_begun_for_it_and_by_no_later_one() {
        use crate::model::switching::Action;
        let (id, other): (PlanId, PlanId) = ("p1".parse().unwrap(), "p2".parse().unwrap());
        let ten = at("2026-11-25T22:00:00Z");
        let begun = |of: &PlanId, since: &str| {
            let mut record =
                Record::new("p3".parse().unwrap(), Action::Off, "lab".into(), "us".into(), ten);
            (record.parent, record.accepted) = (Some(of.clone()), Some(at(since).0));
            was_begun_for(&record, &id, ten)
        };
        assert!(begun(&id, "2026-11-25T22:00:00Z"));
        assert!(begun(&id, "2026-11-25T22:01:55Z"), "late, and tried again");
        assert!(!begun(&id, "2026-11-25T21:59:59Z"), "for the time before");
        assert!(!begun(&id, "2026-12-25T22:00:00Z"), "by a clock that was ahead");
        assert!(!begun(&other, "2026-11-25T22:00:00Z"));
    }

    #[test]
    fn a_time_is_waited_for_comes_and_is_missed_once() {
        let ten = at("2026-11-25T22:00:00Z");
        let before = "2026-11-25T21:59:00Z";
        assert_eq!(due_at(before, before), Due::In(Span::seconds(60)));
        assert_eq!(due_at(before, "2026-11-25T22:00:00Z"), Due::Now(ten));
        // The gateway was off, and is up within a minute.
        assert_eq!(due_at(before, "2026-11-25T22:01:00Z"), Due::Now(ten));
        let missed = Due::Missed { at: ten, late: Span::seconds(61), more: 0 };
        assert_eq!(due_at(before, "2026-11-25T22:01:01Z"), missed);
        // That time was seen to.
        assert_eq!(
            due_at("2026-11-25T22:00:00Z", "2026-11-25T22:01:01Z"),
            Due::In(Span::seconds(86_339))
        );
    }

    #[test]
    fn what_passed_while_the_gateway_was_off_for_long_is_told_as_one() {
        let missed = due_at("2026-11-20T22:00:00Z", "2026-11-25T21:00:00Z");
        let late = Span::seconds(23 * 3_600);
        assert_eq!(missed, Due::Missed { at: at("2026-11-24T22:00:00Z"), late, more: 3 });
        // The last of them is still in time: it is told, and that is run.
        let missed = due_at("2026-11-20T22:00:00Z", "2026-11-25T22:00:10Z");
        let Due::Missed { at: last, more: 3, .. } = missed else { panic!("{missed:?}") };
        assert_eq!(last, at("2026-11-24T22:00:00Z"));
        // A clock without a battery that is set right.
        let now = at("2026-11-25T21:00:00Z");
        let Due::Missed { at: last, more: COUNTED, .. } =
            due_at("1970-01-01T00:00:00Z", "2026-11-25T21:00:00Z")
        else {
            panic!("it is told as one")
        };
        assert_eq!(due(&"daily 22:00".parse().unwrap(), last, now), Due::In(Span::seconds(3_600)));
    }

    #[test]
    fn a_clock_that_is_set_back_has_no_time_come_twice_and_none_waited_for_in_vain() {
        // By some seconds, after that time was seen to.
        let ten = "2026-11-25T22:00:00Z";
        assert_eq!(due_at(ten, "2026-11-25T21:59:50Z"), Due::In(Span::seconds(86_410)));
        // It was a month ahead.
        let now = at("2026-10-25T21:59:50Z");
        assert_eq!(due_at(ten, "2026-10-25T21:59:50Z"), Due::SetBack(now));
    }
}
