//! After an outage of the rack: what it left dark is switched on again, as far as the limits and all else let, until it is
//! on, is cancelled, or is given up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use crate::model::id::{OutletId, PlanId};
use crate::model::metric::Word;
use crate::model::switching::{Action, Outcome, Relay};
use crate::model::time::{Span, Stamp, Tick};
use crate::model::view::Health;
use crate::plan::lit::Lit;
use crate::plan::record::{PlanState, Record, Select, StepRecord, StepState};
use crate::plan::shed::Standing;
use crate::plan::{Runs, Sight};
use crate::store::journal::{Journal, JournalError};

use super::refusal::Refusal;
use super::rights::BY_ITSELF;
use super::submit::{Switching, new_id, parse};
use super::watch::{is_of_rule, is_shed, wish};

/// How often a restore that is refused for a reason that may pass is tried again, and how long.
const AGAIN: Span = Span::seconds(10);
const TRIES: u32 = 60;
/// How long after an off it is noted that nobody wants the outlet back, at most, ms.
const NOTED_MS: i64 = 10_000;

/// How many plans are looked through for outlets that were switched off last.
const LATEST: usize = 200;

/// A restore that goes on, for as long as something is wanted back.
pub(super) struct Restoring {
    pub began: Tick,
    /// How often something of it was tried since any of it came on.
    pub tries: u32,
    /// How much was wanted then.
    pub left: usize,
    /// Whether it was told what has to wait.
    pub told: bool,
    pub next: Tick,
    /// Whether it was looked up what they drew before.
    pub recalled: bool,
}

/// What of that is off.
#[derive(Default)]
struct LeftDark {
    /// May be switched on.
    open: Vec<OutletId>,
    locked: Vec<OutletId>,
    /// Was told to come on since, and did not.
    tried: Vec<OutletId>,
    /// There is no such outlet any more.
    gone: Vec<OutletId>,
}

/// Who restores, as its plans name it.
const RESTORE: &str = "the restore after an outage";

/// Looks at what is wanted back. What cannot be seen now, and what a plan is at, is left for later.
fn left_dark(lit: &Lit, of: &Restoring, runs: &Runs, sight: &Sight<'_>) -> LeftDark {
    let mut found = LeftDark::default();
    for outlet in lit.wanted() {
        let Some(view) = sight.view(&outlet.pdu) else {
            found.gone.push(outlet.clone());
            continue;
        };
        if view.health != Health::Online || runs.claimed_by(outlet).is_some() {
            continue;
        }
        let written = runs.memory.written.get(outlet);
        let kind = match view.layout.outlet(outlet.number).map(|at| view.outlet_state(at)) {
            None => &mut found.gone,
            Some(Ok(Word::Off)) if sight.lock_of(outlet).is_some() => &mut found.locked,
            Some(Ok(Word::Off)) if written.is_some_and(|last| last.sent >= of.began) => {
                &mut found.tried
            }
            Some(Ok(Word::Off)) => &mut found.open,
            Some(_) => continue,
        };
        kind.push(outlet.clone());
    }
    found
}

fn named(outlets: &[OutletId]) -> String {
    let names: Vec<String> = outlets.iter().map(ToString::to_string).collect();
    names.join(", ")
}

impl Switching {
    /// Tries to begin the plan that switches on what an outage left dark, until all of it is on or given up.
    pub(super) async fn restore(&self, lit: &mut Lit, mut of: Restoring) -> Option<Restoring> {
        if self.clock.tick() < of.next {
            return Some(of);
        }
        of.next = self.clock.tick() + AGAIN;
        let mut changed = self.forgets_unwanted(lit);
        let mut found = self.with_runs(|runs, sight| left_dark(lit, &of, runs, sight));
        if !found.gone.is_empty() {
            let text = format!(
                "{} were on before the outage, and are not there any more",
                named(&found.gone)
            );
            self.tell("restore.left_out", text);
        }
        if !found.locked.is_empty() {
            let text = format!("{} are locked and stay off", named(&found.locked));
            self.tell("restore.left_out", text);
        }
        if !found.tried.is_empty() {
            let text = format!(
                "{} were on before the outage and stay off: they were switched on, and were not seen on",
                named(&found.tried)
            );
            self.tell("restore.failed", text);
        }
        let mut given_up: Vec<OutletId> =
            found.locked.into_iter().chain(found.tried).chain(found.gone).collect();
        if !found.open.is_empty() {
            if lit.wanted().len() < of.left || of.left == 0 {
                (of.left, of.tries) = (lit.wanted().len(), 0);
            }
            // A plan of it that waits for room may yet bring it on.
            let is_at_it = |outlet: &OutletId| self.runs().claimed_by(outlet).is_some();
            if !lit.wanted().iter().any(is_at_it) {
                of.tries += 1;
            }
            let first = !of.told;
            let why = match self.begin_restore(&mut found.open, first).await {
                Ok(_) => {
                    "there is no room for them, what they come after is off, or they cannot be switched"
                        .to_owned()
                }
                Err(why) => why.to_string(),
            };
            of.told = true;
            if of.tries >= TRIES && !found.open.is_empty() {
                let names = named(&found.open);
                let text = format!("{names} were on before the outage and stay off: {why}");
                self.tell("restore.failed", text);
                given_up.extend(found.open);
            } else if first && !found.open.is_empty() {
                let text = format!("{} wait, and are tried again: {why}", named(&found.open));
                self.tell("restore.waits", text);
            }
        }
        changed |= lit.forget(given_up.iter());
        if changed {
            self.remember("lit", lit).await;
        }
        (!lit.wanted().is_empty()).then_some(of)
    }

    /// At the start: what was switched off last, or wished off, and was perhaps not noted any more, is not wanted back.
    pub(super) async fn forgets_what_went_off(
        &self,
        lit: &mut Lit,
        sheds: &mut BTreeMap<String, Standing>,
    ) -> Result<(), JournalError> {
        // The last before now as well: the clock may have been ahead.
        let now = new_id(self.clock.stamp());
        let read = move |journal: &Journal| {
            let mut kept = journal.latest(LATEST, None)?;
            kept.extend(journal.latest(LATEST, Some(&now))?);
            Ok(kept)
        };
        let kept = self.in_journal(read).await?;
        let plans: Result<Vec<Record>, _> = kept.iter().map(|kept| parse("a plan", kept)).collect();
        let plans = plans?;
        lit.forget(went_off(&plans, lit.at()).iter());
        let let_go = let_go(&plans);
        let mut changed = false;
        for (id, standing) in sheds.iter_mut() {
            let went_before = |outlet: &OutletId, at: i64| {
                let of = standing.fed.iter().filter(|(_, fed)| fed.contains(outlet));
                of.filter_map(|(name, _)| standing.since(name)).any(|since| since <= at)
            };
            let own = let_go.iter().filter(|(outlet, at)| went_before(outlet, **at));
            let own: BTreeSet<OutletId> = own.map(|(outlet, _)| outlet.clone()).collect();
            changed |= !own.is_empty();
            for name in standing.lets_go(&own) {
                self.tell("shed.dropped", is_let_go(id, &name));
            }
        }
        if changed {
            self.remember("sheds", sheds).await;
        }
        Ok(())
    }

    /// Takes out what somebody wants off, or had taken back.
    pub(super) fn forgets_unwanted(&self, lit: &mut Lit) -> bool {
        let mut unwanted = self.unwanted.lock().unwrap_or_else(PoisonError::into_inner);
        let outlets = std::mem::take(&mut *unwanted);
        drop(unwanted);
        let left: Vec<OutletId> =
            outlets.iter().filter(|outlet| lit.wanted().contains(outlet)).cloned().collect();
        if !left.is_empty() {
            let text = format!("{} stay off, as somebody wishes", named(&left));
            self.tell("restore.cancelled", text);
        }
        lit.forget(outlets.iter())
    }

    /// Whether nobody has wished off meanwhile what a restore is about to switch on: its outlets are looked at first, and that
    /// may take seconds.
    pub(super) fn is_still_wanted(&self, record: &Record) -> Result<(), Refusal> {
        if record.by != RESTORE {
            return Ok(());
        }
        let unwanted = self.unwanted.lock().unwrap_or_else(PoisonError::into_inner);
        match record.outlets().into_iter().find(|outlet| unwanted.contains(outlet)) {
            None => Ok(()),
            Some(outlet) => Err(Refusal::Changed {
                plan: record.id.to_string(),
                difference: format!("somebody wants {outlet} off"),
            }),
        }
    }

    /// Begins the plan for those of some outlets that can be switched on now; the others are left.
    async fn begin_restore(
        &self,
        outlets: &mut Vec<OutletId>,
        tells: bool,
    ) -> Result<PlanId, Refusal> {
        let mut now: BTreeSet<OutletId> = outlets.iter().cloned().collect();
        let mut left = Vec::new();
        // Each time at least one is left out.
        loop {
            let goals = now.iter().map(|outlet| Select::Outlet(outlet.clone()));
            let mut wish = wish(RESTORE.into(), goals, Action::On);
            wish.by_priority = true;
            let begun = match self.preview(&wish) {
                Ok(preview) => {
                    self.begin_by_itself(Record { patient: true, ..preview.record }).await
                }
                Err(refusal) => Err(refusal),
            };
            let refusal = match begun {
                Ok(id) => {
                    self.tell("restore.plan", format!("plan {id} restores {} outlets", now.len()));
                    *outlets = left;
                    return Ok(id);
                }
                Err(refusal) => refusal,
            };
            let without = self.keeping_out(&refusal, &now);
            let (out, kept): (BTreeSet<OutletId>, BTreeSet<OutletId>) =
                now.into_iter().partition(|outlet| without.contains(outlet));
            now = kept;
            if tells && !out.is_empty() {
                let names: Vec<OutletId> = out.iter().cloned().collect();
                let text = format!("{} are not switched on yet: {refusal}", named(&names));
                self.tell("restore.left_out", text);
            }
            if out.is_empty() || now.is_empty() {
                return Err(refusal);
            }
            left.extend(out);
        }
    }

    /// Which outlets have to be left out for the others to be switched on: what does not fit, and hosts that come after one
    /// that is off.
    fn keeping_out(&self, refusal: &Refusal, of: &BTreeSet<OutletId>) -> BTreeSet<OutletId> {
        match refusal {
            Refusal::Unfit(crate::plan::Refusal::Limit { leave_out, .. }) => {
                leave_out.iter().cloned().collect()
            }
            Refusal::Unfit(crate::plan::Refusal::Needs { host, .. }) => {
                self.with_runs(|_, sight| {
                    let is_of = |outlet: &&OutletId| {
                        sight.site.host_of(outlet).is_some_and(|(id, _)| id.as_str() == host)
                    };
                    of.iter().filter(is_of).cloned().collect()
                })
            }
            // Who waits for each other waits for ever.
            Refusal::Unfit(crate::plan::Refusal::Circle { hosts }) => self.with_runs(|_, sight| {
                let host_of = |outlet: &OutletId| sight.site.host_of(outlet).map(|(id, _)| id);
                let is_in = |outlet: &&OutletId| {
                    host_of(outlet).is_some_and(|id| hosts.iter().any(|host| host == id.as_str()))
                };
                of.iter().filter(is_in).cloned().collect()
            }),
            // What is in the way of one of them is not in the way of the others.
            refusal => {
                refusal.outlet().and_then(|outlet| outlet.parse().ok()).into_iter().collect()
            }
        }
    }
}

/// What nobody wants back by a plan that was accepted, or is over: what somebody wishes off, also where it was off already;
/// and what was to be restored by one that somebody cancelled.
pub(super) fn unwanted(record: &Record) -> Vec<OutletId> {
    let by_somebody = record.cancelled.as_ref().is_some_and(|by| !by.starts_with(BY_ITSELF));
    let went_well = |step: &StepRecord| step.state.outcome().is_some_and(Outcome::is_success);
    let of = |relay: Relay, well: bool| {
        let steps = record.steps.iter().filter(move |step| step.relay == relay);
        steps.filter(move |step| went_well(step) == well).map(|step| step.outlet.clone())
    };
    let brings_back = record.by == RESTORE || is_of_rule(record);
    if record.by == RESTORE || by_somebody && brings_back {
        let is_off = record.finished.is_some() && by_somebody;
        return if is_off { of(Relay::On, false).collect() } else { Vec::new() };
    }
    let waits = record.not_before.is_some() && record.state == PlanState::Running;
    let holds = !waits && matches!(record.state, PlanState::Running | PlanState::Done);
    let asked = record.asks.iter().filter(|(.., action)| holds && *action == Action::Off);
    let asked = asked.flat_map(|(_, outlets, _)| outlets).cloned();
    // What was cycled is to be on.
    let comes_on = |outlet: &OutletId| {
        record.steps.iter().any(|step| step.outlet == *outlet && step.relay == Relay::On)
    };
    let over = of(Relay::Off, true).filter(|outlet| record.finished.is_some() && !comes_on(outlet));
    asked.chain(over).collect()
}

/// That a rule does not bring something back.
pub(super) fn is_let_go(rule: &str, name: &str) -> String {
    format!("rule {rule} does not bring {name} back, as somebody wishes it off")
}

/// When somebody wished outlets off last, by plans that are kept, ms since 1970: no rule has them on again that switched
/// them off before that.
pub(super) fn let_go(plans: &[Record]) -> BTreeMap<OutletId, i64> {
    let mut last = BTreeMap::new();
    for plan in plans.iter().filter(|plan| !is_shed(plan)) {
        let Some(at) = wished(plan) else { continue };
        for outlet in unwanted(plan) {
            let known = last.entry(outlet).or_insert(at);
            *known = at.max(*known);
        }
    }
    last
}

/// When a plan made known what nobody wants back by it: as it was accepted or its time came, or by its end where it was to
/// bring it back.
fn wished(plan: &Record) -> Option<i64> {
    let called_off = plan.by == RESTORE || is_of_rule(plan) && !is_shed(plan);
    if called_off { plan.finished } else { plan.accepted.max(plan.not_before) }
}

/// What plans have switched off last, or were wished off by them, and not so long before a moment that it was noted by then.
pub(super) fn went_off(plans: &[Record], noted: Stamp) -> Vec<OutletId> {
    let mut last: BTreeMap<&OutletId, (i64, Relay)> = BTreeMap::new();
    let called_off = plans.iter().filter_map(|plan| Some((plan, wished(plan)?)));
    let called_off = called_off.filter(|(_, at)| at + NOTED_MS >= noted.0);
    let called_off = called_off
        .flat_map(|(plan, at)| unwanted(plan).into_iter().map(move |outlet| (outlet, at)));
    let called_off: Vec<(OutletId, i64)> = called_off.collect();
    for (outlet, at) in &called_off {
        let known = last.entry(outlet).or_insert((*at, Relay::Off));
        *known = (known.0.max(*at), Relay::Off);
    }
    for step in plans.iter().flat_map(|plan| &plan.steps) {
        let was_written = matches!(
            step.state,
            StepState::Intended
                | StepState::Ended(Outcome::Done | Outcome::AlreadyThere | Outcome::Unverified)
        );
        let Some(at) = step.at.filter(|at| was_written && at + NOTED_MS >= noted.0) else {
            continue;
        };
        let known = last.entry(&step.outlet).or_insert((at, step.relay));
        // Of two in the same moment an off is the safe one.
        if at > known.0 || at == known.0 && step.relay == Relay::Off {
            *known = (at, step.relay);
        }
    }
    let off = last.into_iter().filter(|(_, (_, relay))| *relay == Relay::Off);
    off.map(|(outlet, _)| outlet.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::record::Maker;

    fn outlet(text: &str) -> OutletId {
        text.parse().unwrap()
    }

    /// A plan of some outlets that was accepted at a moment and has ended well, as all of them were so already.
    fn plan(id: &str, by: &str, action: Action, outlets: &[&str], at: i64) -> Record {
        let mut plan =
            Record::new(id.parse().unwrap(), action, "lab".into(), by.into(), Stamp(at - 5));
        plan.asks = vec![(None, outlets.iter().map(|text| outlet(text)).collect(), action)];
        (plan.accepted, plan.finished, plan.state) = (Some(at), Some(at + 3), PlanState::Done);
        plan
    }

    #[test]
    fn what_was_wished_off_where_it_was_off_already_is_known_after_a_restart() {
        let noted = Stamp(1_000_000);
        let off = |at| plan("p1", "ops (operator)", Action::Off, &["pdu-a/1", "pdu-a/2"], at);
        assert_eq!(went_off(&[off(noted.0)], noted), [outlet("pdu-a/1"), outlet("pdu-a/2")]);
        // It was noted by then.
        assert!(went_off(&[off(noted.0 - NOTED_MS - 1)], noted).is_empty());
        // One of them was switched on since.
        let mut on = plan("p2", "ops (operator)", Action::On, &["pdu-a/2"], noted.0 + 50);
        let mut step = StepRecord::pending(outlet("pdu-a/2"), Relay::On, 0, String::new());
        (step.state, step.at) = (StepState::Ended(Outcome::Done), Some(noted.0 + 60));
        on.steps = vec![step];
        assert_eq!(went_off(&[on, off(noted.0)], noted), [outlet("pdu-a/1")]);
        // Its time has not come yet.
        let mut late = off(noted.0);
        (late.not_before, late.finished) = (Some(noted.0 + 60_000), None);
        late.state = PlanState::Running;
        assert!(went_off(&[late], noted).is_empty());
    }

    #[test]
    fn what_a_rule_switched_off_is_let_go_by_the_last_wish_of_somebody_else() {
        let off = |by: &str, at| plan("p1", by, Action::Off, &["pdu-a/1"], at);
        let known = let_go(&[off("ops (operator)", 500), off("ops (operator)", 700)]);
        assert_eq!(known, BTreeMap::from([(outlet("pdu-a/1"), 700)]));
        assert!(let_go(&[off("rule r1", 700)]).is_empty());
        // Somebody is called as rules are.
        let mut client = off("rule (operator)", 900);
        let [domain, role, name, serial] = ["site", "operator", "rule", "01"].map(str::to_owned);
        client.makers = vec![Maker { domain, role, name, serial }];
        assert_eq!(let_go(&[client]), BTreeMap::from([(outlet("pdu-a/1"), 900)]));
        // It was put off: what it wishes it wished when its time came.
        let mut late = off("ops (operator)", 500);
        late.not_before = Some(800);
        assert_eq!(let_go(&[late]), BTreeMap::from([(outlet("pdu-a/1"), 800)]));
        assert!(let_go(&[plan("p1", "ops (operator)", Action::On, &["pdu-a/1"], 5)]).is_empty());
    }
}
