//! The hands of what `plan::run` decides: it is told what was heard, and what it wants done is done, each deed in a task
//! of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::audit::Draft;
use crate::device::OrderError;
use crate::model::event::About;
use crate::model::id::{OutletId, PduId, PlanId};
use crate::model::switching::{Known, Relay};
use crate::model::time::{Span, Tick};
use crate::plan::record::Record;
use crate::plan::run::{Deed, Heard, Note, Save, Who, WriteEnd, in_turn};
use crate::plan::{Runs, Sight};
use crate::store::journal::{Commit, JournalError};

use super::rights::BY_ITSELF;
use super::submit::{Switching, to_json};

/// How often old plans, keys and lines of the audit are forgotten.
const TIDIES: Span = Span::seconds(86_400);
/// How often the journal's tables take up what its log has.
const SETTLES: Span = Span::seconds(1);

/// The least pause between two wake-ups of the clock.
const LEAST_PAUSE: Span = Span(2);

impl Switching {
    /// Tells the plans under way something, and has done what they want.
    pub(super) fn turn<T>(&self, act: impl FnOnce(&mut Runs, &Sight<'_>) -> (T, Vec<Deed>)) -> T {
        self.with_runs(|runs, sight| {
            let (result, deeds) = act(runs, sight);
            // While the plans are held: a later turn must not be overtaken by what this one wanted. Nothing here waits.
            for deed in deeds {
                self.carry_out(deed);
            }
            let wake = runs.wake();
            self.wake.send_if_modified(|at| std::mem::replace(at, wake) != wake);
            result
        })
    }

    /// The plans under way, and what is seen at this moment.
    pub(super) fn with_runs<T>(&self, act: impl FnOnce(&mut Runs, &Sight<'_>) -> T) -> T {
        let site = self.site.borrow().clone();
        let locks: BTreeMap<OutletId, String> = {
            let locks = self.locks.borrow().clone();
            locks.iter().map(|(outlet, lock)| (outlet.clone(), lock.reason.clone())).collect()
        };
        let mut runs = self.runs();
        // What is seen is seen after whoever had the plans before has let go of them.
        let views = self.fleet.services().board.views();
        let sight = Sight {
            now: self.clock.tick(),
            stamp: self.clock.stamp(),
            views: &views,
            site: &site.rack,
            locks: &locks,
        };
        act(&mut runs, &sight)
    }

    fn hear(&self, heard: Heard) {
        self.turn(|runs, sight| ((), runs.heard(heard, sight)));
    }

    fn carry_out(&self, deed: Deed) {
        match deed {
            Deed::Save(save) => self.save(*save),
            Deed::Look { who, outlet, everything } => {
                let this = self.clone();
                self.tasks.spawn(async move {
                    let seen = this.looks_for(&who, &outlet, everything).await;
                    this.hear(Heard::Looked { who, seen: seen.map_err(|e| e.to_string()) });
                });
            }
            Deed::Write { who, outlet, relay, known } => self.write(who, outlet, relay, known),
            Deed::Read { who, pdu } => {
                let this = self.clone();
                self.tasks.spawn(async move {
                    if let Some(handle) = this.fleet.get(&pdu) {
                        handle.since(this.clock.tick()).await;
                    }
                    this.hear(Heard::Read { who });
                });
            }
            Deed::Call { who, host, moment } => {
                let this = self.clone();
                self.tasks.spawn(async move {
                    let answer = this.call(&who.plan, &host, moment).await;
                    this.hear(Heard::Called { who, answer });
                });
            }
            Deed::Refresh(outlet) => {
                if let Some(handle) = self.fleet.get(&outlet.pdu) {
                    handle.refresh(outlet.number);
                }
            }
            Deed::Want(pdu) => self.want(&pdu),
            Deed::Lock(outlet, reason) => {
                let this = self.clone();
                self.tasks.spawn(async move { this.lock(&outlet, &reason, "the gateway").await });
            }
            Deed::Tell { kind, about, text } => {
                match kind {
                    "outlet.mismatch" | "plan.not_durable" => tracing::error!("{text}"),
                    _ if kind.starts_with("plan.") => tracing::info!("{text}"),
                    _ => {}
                }
                self.events.tell(kind, about, text);
            }
            Deed::Show(record) => self.show(*record),
            Deed::Ended(record) => self.ended(*record),
        }
    }

    /// Looks at an outlet.
    pub(super) async fn look(
        &self,
        outlet: &OutletId,
        everything: bool,
    ) -> Result<crate::model::switching::Seen, OrderError> {
        // A reload may have put another task in the place of the one that wrote.
        let handle = self.fleet.get(&outlet.pdu).ok_or(OrderError::Gone)?;
        if everything {
            handle.look_all(outlet.number).await
        } else {
            handle.look(outlet.number).await
        }
    }

    fn want(&self, pdu: &PduId) {
        if let Some(handle) = self.fleet.get(pdu) {
            handle.want(self.clock.tick());
        }
    }

    fn write(&self, who: Who, outlet: OutletId, relay: Relay, known: Known) {
        let this = self.clone();
        self.tasks.spawn(async move {
            super::crash::point("before-write");
            let (mut known, mut until, mut waited) = (known, None, false);
            let end = loop {
                let Some(handle) = this.fleet.get(&outlet.pdu) else {
                    break WriteEnd::Not(OrderError::Gone.to_string());
                };
                match handle.write(outlet.number, relay, known).await {
                    Ok(terms) => break WriteEnd::Sent(terms),
                    // The task that had the order is gone; whether it was sent, only looking tells.
                    Err(OrderError::Lost) => break WriteEnd::Lost,
                    Err(error @ OrderError::Link(_)) => break WriteEnd::Unclear(error.to_string()),
                    Err(error) if error.may_pass() => {
                        if !std::mem::replace(&mut waited, true) {
                            until = this.waits_until(&who, relay);
                        }
                        match this.may_yet_send(&who, &outlet, relay, until).await {
                            Some(now) => known = now,
                            None => break WriteEnd::Not(error.to_string()),
                        }
                    }
                    Err(error) => break WriteEnd::Not(error.to_string()),
                }
            };
            super::crash::point("written");
            this.hear(Heard::Written { who, end });
        });
    }

    fn save(&self, save: Save) {
        let this = self.clone();
        self.tasks.spawn_blocking(move || {
            if save.outcome {
                super::crash::point("verified");
            }
            let (plan, generation, outcome) = (save.plan.clone(), save.generation, save.outcome);
            let saved = this.commit_of(save).and_then(|commit| this.journal.commit(commit));
            if let Err(error) = &saved {
                tracing::error!(%plan, %error, "plan {plan}: what it came to is not durable");
            }
            super::crash::point(if outcome { "recorded" } else { "intended" });
            this.hear(Heard::Saved { plan, generation, ok: saved.is_ok() });
        });
    }

    fn commit_of(&self, save: Save) -> Result<Commit, JournalError> {
        let mut commit = Commit::default();
        for record in save.record.iter().chain(&save.more) {
            let open = record.state == crate::plan::PlanState::Running;
            commit.plans.push((record.id.clone(), to_json(record)?, open));
        }
        if save.record.is_none() {
            for (place, step) in &save.steps {
                commit.steps.push((save.plan.clone(), *place as u32, to_json(step)?));
            }
        }
        let cancelled = save.record.as_ref().and_then(|record| record.cancelled.as_deref());
        let cancelled = cancelled.filter(|by| !by.starts_with(BY_ITSELF));
        let line = |note: Note| {
            // It is whoever cancels a plan that does it, and the gateway that does the rest.
            let by = cancelled.filter(|_| note.kind == "plan.cancelled").unwrap_or("the gateway");
            draft(self.clock.stamp().0, note.kind, by, &note.about, note.text)
        };
        commit.notes = save.notes.into_iter().map(line).collect();
        Ok(commit)
    }

    /// Shows a plan to those who watch it.
    pub(super) fn show(&self, record: Record) {
        let mut watched = self.watched();
        match watched.get(&record.id) {
            Some(plan) => drop(plan.send_replace(record)),
            None => drop(watched.insert(record.id.clone(), watch::Sender::new(record))),
        }
    }

    /// Shows how a plan ended; whoever asks for it from now on finds it in the journal.
    fn ended(&self, record: Record) {
        self.unwants(&record);
        if let Some(plan) = self.watched().remove(&record.id) {
            plan.send_replace(record);
        }
        self.quiet.notify_waiters();
    }

    /// Wakes the plans under way when their time has come, until the gateway has ended.
    pub(super) async fn keep_time(self) {
        let mut wake = self.wake.subscribe();
        loop {
            let at = *wake.borrow_and_update();
            let sleep = async {
                match at {
                    Some(at) => {
                        let rest = (at - self.clock.tick()).0.max(LEAST_PAUSE.0);
                        tokio::time::sleep(Span(rest).duration()).await;
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep => self.hear(Heard::Time),
                changed = wake.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = self.done.cancelled() => return,
            }
        }
    }

    /// Moves what the journal's log has into its tables, until the gateway has ended.
    pub(super) async fn keep_journal(self) {
        let mut clock = tokio::time::interval(SETTLES.duration());
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut told = false;
        let mut tidied = self.clock.tick();
        loop {
            if self.clock.tick() - tidied >= TIDIES {
                tidied = self.clock.tick();
                if let Err(error) = self.forget().await {
                    tracing::error!(%error, "the journal is not tidied");
                }
            }
            let goes_on = tokio::select! {
                _ = clock.tick() => true,
                () = self.done.cancelled() => false,
            };
            if !self.journal.is_settled() {
                let settled = self.in_journal(crate::store::journal::Journal::settle).await;
                if let (Err(error), false) = (&settled, told) {
                    // It stays in the log; once that is full nothing is switched any more.
                    let text =
                        format!("the journal's tables do not take up what its log has: {error}");
                    tracing::error!("{text}");
                    self.events.tell("journal.failed", About::default(), text);
                }
                told = settled.is_err();
            }
            if !goes_on {
                return;
            }
        }
    }

    /// Takes no more wishes, and waits for the steps under way. What they have not begun stays in the journal
    /// and goes on, or stands interrupted, after the next start.
    pub async fn end(&self) {
        self.stop.cancel();
        self.turn(|runs, sight| ((), runs.end(sight)));
        loop {
            let quiet = self.quiet.notified();
            if self.runs().is_quiet() {
                break;
            }
            let rest = tokio::time::sleep(Span(50).duration());
            tokio::select! {
                () = quiet => {}
                () = rest => {}
            }
        }
        self.tells_what_else_was_refused(true);
        self.done.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Takes up what the last run left. Call once, after the devices were started; returns at once, the
    /// outlets are looked at in the background. They are claimed from here on.
    pub async fn resume(&self) -> Result<usize, JournalError> {
        let kept = self.in_journal(crate::store::journal::Journal::open_plans).await?;
        let mut count = 0;
        let parsed = kept.iter().map(|kept| super::submit::parse("an open plan", kept));
        let mut records: Vec<Record> = parsed.collect::<Result<_, _>>()?;
        in_turn(&mut records);
        let goes_on = |record: &&Record| record.state != crate::plan::PlanState::Scheduled;
        let note = |record: &Record| {
            let text = format!("the gateway was restarted; plan {} is taken up again", record.id);
            let about = About::plan(&record.id);
            draft(self.clock.stamp().0, "plan.resumed", "the gateway", &about, text)
        };
        let notes: Vec<Draft> = records.iter().filter(goes_on).map(note).collect();
        if !notes.is_empty() {
            let commit = Commit { notes, ..Commit::default() };
            self.in_journal(move |journal| journal.commit(commit)).await?;
        }
        for mut record in records {
            if record.state == crate::plan::PlanState::Scheduled {
                self.show(record.clone());
                self.keep_calendar(record);
                continue;
            }
            count += 1;
            let why = self.may_not_begin(&record).or_else(|| self.may_not_be_taken_up(&record));
            if let Some(why) = why {
                self.tells_refused(&record.id, &why);
                record.cancelled = Some(format!("{BY_ITSELF}{why}"));
            }
            self.show(record.clone());
            self.turn(|runs, sight| ((), runs.take_up(record, sight)));
        }
        Ok(count)
    }
}

/// A line of the audit.
pub(super) fn draft(at: i64, kind: &str, by: &str, about: &About, text: String) -> Draft {
    let outlet = about.outlet.as_ref().map(ToString::to_string);
    let plan = about.plan.as_ref().map(|plan| format!("plan {plan}"));
    let names: Vec<String> = plan.into_iter().chain(outlet).collect();
    Draft { at, kind: kind.to_owned(), by: by.to_owned(), about: names.join(" "), text }
}

/// Plans that are watched.
pub(super) type Watched = std::collections::HashMap<PlanId, watch::Sender<Record>>;

/// When the plans under way want to be woken.
pub(super) type Wake = Arc<watch::Sender<Option<Tick>>>;
