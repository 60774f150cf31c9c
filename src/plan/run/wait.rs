//! Plans that are accepted and have not begun: another plan has their outlets, or their time has not come. They hold
//! nothing, neither outlets nor room, and are durable all the while.
//!
//! A plan that was put off takes its outlets when it is due, and only if the rack is still the one that it was made for.
//! What is in its way by then and may pass, it waits for; then it ends, with nothing switched.

use crate::model::event::About;
use crate::model::id::{OutletId, PlanId};
use crate::model::switching::Outcome;
use crate::model::time::{Span, Tick};
use crate::model::view::Health;

use super::super::guard::{Guarded, Hindrance};
use super::super::picture::Sight;
use super::super::record::{Record, StepState};
use super::room::Unfit;
use super::{Deed, Heard, PATIENCE, Runs, Who};

/// How long a plan that is due waits at most for outlets or room that other plans have.
const LATE: Span = Span::seconds(5 * 60);
/// How long after its time a plan is begun at most, ms, where the gateway was not there then: what was meant for a night may
/// do harm by day.
const MISSED_MS: i64 = 3_600_000;
/// Between two tries.
const AGAIN: Span = Span::seconds(1);
/// The longest sleep: the wall clock may be set meanwhile.
const LONGEST: Span = Span::seconds(30);

/// A plan that has not begun.
pub(super) struct Waiting {
    pub record: Record,
    /// Whether an earlier run left it.
    pub settling: bool,
    /// Since when its time has come.
    due: Option<Tick>,
    /// When it is looked again; nothing if it is woken by the end of the plan that it waits for.
    next: Option<Tick>,
    /// What it waits for, told by how long that may take, and since when.
    held: Option<(Span, Tick)>,
    /// Whether it was told what it waits for.
    told: bool,
}

/// What becomes of a plan that waits.
enum Turn {
    Begins,
    Waits,
    Ends(String),
}

impl Waiting {
    pub fn new(record: Record, settling: bool) -> Self {
        Self { record, settling, due: None, next: None, held: None, told: false }
    }

    /// When it wants to be looked at again.
    pub fn wake(&self) -> Option<Tick> {
        self.next
    }
}

/// Whether a plan was to wait for a time, and none of it has begun.
fn is_put_off(record: &Record) -> bool {
    let pending = || record.steps.iter().all(|step| step.state == StepState::Pending);
    record.not_before.is_some() && record.cancelled.is_none() && pending()
}

/// The order in which plans that an earlier run left are taken up: those that had their outlets before those that waited
/// for them. What was sent for them may still be under way.
pub fn in_turn(records: &mut [Record]) {
    records.sort_by_key(|record| {
        let has_begun = record.steps.iter().any(|step| step.state != StepState::Pending);
        (!has_begun, is_put_off(record), record.patient)
    });
}

/// Whether the rack is known well enough to say that it has changed: after a start nothing is known of it yet, and a PDU may
/// miss a poll.
pub(super) fn is_read(record: &Record, sight: &Sight<'_>) -> bool {
    let is_online = |outlet: &OutletId| {
        sight.view(&outlet.pdu).is_some_and(|view| view.health == Health::Online)
    };
    sight.views.iter().all(|view| view.complete.is_some()) && record.outlets().iter().all(is_online)
}

impl Runs {
    /// Whether a plan that is accepted now waits for its time before it takes anything.
    pub fn waits(record: &Record, sight: &Sight<'_>) -> bool {
        is_put_off(record) && record.not_before.is_some_and(|at| at > sight.stamp.0)
    }

    /// Begins a plan that is durable as it stands: one that was claimed, or one that waits for its time.
    pub fn begin(&mut self, record: Record, sight: &Sight<'_>) -> Vec<Deed> {
        let is_claimed =
            record.steps.iter().all(|step| self.claims.get(&step.outlet) == Some(&record.id));
        if is_claimed && !Self::waits(&record, sight) {
            self.insert(record, sight, false);
        } else {
            self.release(&record.id);
            self.waiting.push(Waiting::new(record, false));
        }
        self.heard(Heard::Time, sight)
    }

    /// Takes up a plan that an earlier run left: at once, or when the plan that has one of its outlets has ended, or when its
    /// time has come.
    pub fn take_up(&mut self, record: Record, sight: &Sight<'_>) -> Vec<Deed> {
        let text = if Self::waits(&record, sight) {
            format!("plan {} waits for its time, as it did before the restart", record.id)
        } else {
            format!("plan {} was interrupted; its outlets are looked at", record.id)
        };
        let about = About::plan(&record.id);
        self.deeds.push(Deed::Tell { kind: "plan.resumed", about, text });
        self.waiting.push(Waiting::new(record, true));
        self.heard(Heard::Time, sight)
    }

    /// Begins plans that waited.
    pub(super) fn admit(&mut self, sight: &Sight<'_>) -> bool {
        // What brings hosts to their safe state, or was under way before a restart, goes before what was put off.
        let (put_off, others): (Vec<Waiting>, Vec<Waiting>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|of| is_put_off(&of.record));
        let mut moved = false;
        for mut waiting in others.into_iter().chain(put_off) {
            match self.turn(&mut waiting, sight) {
                Turn::Waits => {
                    self.waiting.push(waiting);
                    continue;
                }
                Turn::Begins => {
                    let plan = waiting.record.id.clone();
                    self.insert(waiting.record, sight, waiting.settling);
                    if waiting.settling {
                        self.calls_again(&plan, sight);
                    }
                }
                Turn::Ends(why) => {
                    let who = Who { plan: waiting.record.id.clone(), step: 0 };
                    let is_empty = waiting.record.steps.is_empty();
                    self.insert(waiting.record, sight, false);
                    if is_empty {
                        // What it wished was so when it was made. No step tells why it is not done now.
                        let about = About::plan(&who.plan);
                        let text = format!("plan {} is not begun: {why}", who.plan);
                        self.deeds.push(Deed::Tell { kind: "plan.refused", about, text });
                    } else {
                        self.ends(&who, Outcome::Failed, Some(why), sight);
                    }
                    // It is the whole plan that does not fit, whatever is to become of it when one step fails.
                    if let Some(run) = self.plans.get_mut(&who.plan) {
                        run.halted = true;
                        run.unheard |= is_empty;
                    }
                }
            }
            moved = true;
        }
        moved
    }

    fn turn(&mut self, waiting: &mut Waiting, sight: &Sight<'_>) -> Turn {
        let record = &waiting.record;
        // By the site's policy a restart may end it: that is told now, not when its time has come.
        let goes_on = sight.site.resume || !waiting.settling;
        if !is_put_off(record) || !goes_on {
            waiting.next = None;
            return if self.claim(record).is_ok() { Turn::Begins } else { Turn::Waits };
        }
        if self.ending {
            waiting.next = None;
            return Turn::Waits;
        }
        if waiting.next.is_some_and(|next| sight.now < next) {
            return Turn::Waits;
        }
        let rest = record.not_before.unwrap_or(0).saturating_sub(sight.stamp.0);
        if let Ok(rest @ 1..) = u64::try_from(rest) {
            // Also where the clock was set back since it was due.
            (waiting.due, waiting.held) = (None, None);
            waiting.next = Some(sight.now + Span(rest.min(LONGEST.0)));
            return Turn::Waits;
        }
        if waiting.due.is_none() && rest < -MISSED_MS {
            let late = Span(rest.unsigned_abs());
            return Turn::Ends(format!("its time was {late} ago: that is too late to begin"));
        }
        let due = *waiting.due.get_or_insert(sight.now);
        let Some((why, patience)) = self.is_in_the_way(record, sight) else {
            return if self.claim(record).is_ok() { Turn::Begins } else { Turn::Waits };
        };
        let since = match waiting.held {
            Some((of, since)) if of == patience => since,
            _ => sight.now,
        };
        waiting.held = Some((patience, since));
        if sight.now >= since + patience || sight.now >= due + LATE {
            let waited = if patience > Span(0) {
                format!("; it has waited {} s for that", (sight.now - since).0 / 1_000)
            } else {
                String::new()
            };
            return Turn::Ends(format!("{why}{waited}"));
        }
        if !std::mem::replace(&mut waiting.told, true) {
            let text = format!(
                "plan {} is due and waits, {} s at most: {why}",
                record.id,
                patience.0 / 1_000
            );
            let about = About::plan(&record.id);
            self.deeds.push(Deed::Tell { kind: "plan.waits", about, text });
        }
        waiting.next = Some(sight.now + AGAIN);
        Turn::Waits
    }

    /// What keeps a plan that is due from beginning, and how long that is waited for.
    fn is_in_the_way(&self, record: &Record, sight: &Sight<'_>) -> Option<(String, Span)> {
        if let Some((outlet, plan)) = self.taken(record) {
            return Some((format!("outlet {outlet} is being switched by plan {plan}"), LATE));
        }
        let at_once = if is_read(record, sight) { Span(0) } else { PATIENCE };
        let lifts = record.lifts();
        let barred = record.outlets().into_iter().find_map(|outlet| {
            let Guarded::Not(why) = sight.guard(&outlet, &lifts) else { return None };
            // What is doubtful, old or not known yet is looked at by its step.
            match why {
                Hindrance::Locked { .. } => Some((why.to_string(), Span(0))),
                Hindrance::NotSwitchable { .. } => Some((why.to_string(), at_once)),
                Hindrance::Unknown(_) | Hindrance::Doubtful { .. } => None,
            }
        });
        if barred.is_some() {
            return barred;
        }
        let why = self.still_fits(record, sight).err()?;
        let patience = match &why {
            // Room that other plans have they give back.
            Unfit::Refused(_) if !self.plans.is_empty() => LATE,
            Unfit::Refused(_) | Unfit::Changed(_) => at_once,
        };
        Some((why.to_string(), patience))
    }

    /// An outlet of a plan that another has, and which.
    pub(super) fn taken(&self, record: &Record) -> Option<(OutletId, PlanId)> {
        record.steps.iter().find_map(|step| {
            let plan = self.claims.get(&step.outlet).filter(|plan| **plan != record.id)?;
            Some((step.outlet.clone(), plan.clone()))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::super::super::record::{PlanState, StepRecord};
    use super::super::super::site::Site;
    use super::super::Save;
    use super::*;
    use crate::model::switching::{Action, Relay};
    use crate::model::time::Stamp;
    use crate::model::view::PduView;

    /// Plans over an outlet that nobody reads, at a time that is told.
    struct Rack {
        runs: Runs,
        site: Site,
        views: Vec<Arc<PduView>>,
        locks: BTreeMap<OutletId, String>,
        now: u64,
        /// By how much the wall clock was set back, ms.
        set_back_ms: i64,
    }

    impl Rack {
        fn new() -> Self {
            Self {
                runs: Runs::default(),
                site: Site::default(),
                views: Vec::new(),
                locks: BTreeMap::new(),
                now: 0,
                set_back_ms: 0,
            }
        }

        fn turn(&mut self, act: impl FnOnce(&mut Runs, &Sight<'_>) -> Vec<Deed>) -> Vec<Deed> {
            let (now, stamp) = (Tick(self.now), Stamp(self.now as i64 - self.set_back_ms));
            let (views, site, locks) = (&self.views, &self.site, &self.locks);
            let sight = Sight { now, stamp, views, site, locks };
            act(&mut self.runs, &sight)
        }

        fn at(&mut self, now: u64) -> Vec<Deed> {
            self.now = now;
            self.turn(|runs, sight| runs.heard(Heard::Time, sight))
        }

        fn saved(&mut self, save: &Save) -> Vec<Deed> {
            let (plan, generation) = (save.plan.clone(), save.generation);
            self.turn(|runs, sight| runs.heard(Heard::Saved { plan, generation, ok: true }, sight))
        }
    }

    fn outlet() -> OutletId {
        "pdu-a/1".parse().unwrap()
    }

    #[test]
    fn a_plan_whose_time_was_long_ago_or_whose_outlet_is_locked_by_then_switches_nothing() {
        // The gateway comes back an hour and a bit after its time.
        let mut rack = Rack::new();
        rack.turn(|runs, sight| runs.take_up(plan("late", Some(10_000)), sight));
        let ended = |deeds: &[Deed]| {
            let save = deeds.iter().find_map(|deed| match deed {
                Deed::Save(save) => save.record.as_ref(),
                _ => None,
            });
            save.map(|record| (record.state, record.steps[0].detail.clone().unwrap_or_default()))
        };
        let deeds = rack.at(10_000 + 3_600_001);
        let (state, why) = ended(&deeds).unwrap_or_else(|| panic!("{deeds:?}"));
        assert_eq!(state, PlanState::Stopped);
        assert!(why.contains("too late"), "{why}");
        // Locked while it waited.
        let mut rack = Rack::new();
        rack.views =
            vec![Arc::new(PduView::unknown("pdu-a".parse().unwrap(), "pdu-a".into(), None))];
        rack.turn(|runs, sight| runs.begin(plan("later", Some(10_000)), sight));
        rack.locks.insert(outlet(), "it feeds the switch".to_owned());
        let deeds = rack.at(10_000);
        let (state, why) = ended(&deeds).unwrap_or_else(|| panic!("{deeds:?}"));
        assert_eq!(state, PlanState::Stopped);
        assert!(why.contains("it feeds the switch"), "{why}");
    }

    #[test]
    fn a_clock_that_is_set_back_has_it_wait_again_and_hold_nothing() {
        let mut rack = Rack::new();
        rack.runs.claim(&plan("other", None)).unwrap();
        rack.turn(|runs, sight| runs.begin(plan("later", Some(10_000)), sight));
        assert_eq!(told(&rack.at(10_000)), ["plan.waits"]);
        rack.set_back_ms = 3_600_000;
        rack.runs.release(&"other".parse().unwrap());
        assert!(rack.at(12_000).is_empty());
        assert_eq!(rack.runs.claimed_by(&outlet()), None);
        // At its time by the clock as it is now.
        rack.at(10_000 + 3_600_000);
        assert_eq!(rack.runs.claimed_by(&outlet()).map(PlanId::as_str), Some("later"));
    }

    #[test]
    fn who_had_its_outlets_before_a_restart_has_them_first() {
        let mut safe = plan("a-safe", None);
        safe.patient = true;
        let mut begun = plan("d-begun", None);
        begun.steps[0].state = StepState::Intended;
        let mut records = [safe, plan("b-later", Some(10_000)), plan("c-plain", None), begun];
        in_turn(&mut records);
        let order: Vec<&str> = records.iter().map(|record| record.id.as_str()).collect();
        assert_eq!(order, ["d-begun", "c-plain", "a-safe", "b-later"]);
    }

    fn plan(id: &str, not_before: Option<i64>) -> Record {
        let id: PlanId = id.parse().unwrap();
        let mut record = Record::new(id, Action::Off, "web".into(), "us".into(), Stamp(0));
        record.steps = vec![StepRecord::pending(outlet(), Relay::Off, 0, "asked for".into())];
        record.state = PlanState::Running;
        record.scheduled = Some(0);
        record.not_before = not_before;
        record
    }

    fn told(deeds: &[Deed]) -> Vec<&str> {
        let text = |deed: &&Deed| matches!(deed, Deed::Tell { .. });
        let tells = deeds.iter().filter(text);
        tells
            .filter_map(|deed| if let Deed::Tell { kind, .. } = deed { Some(*kind) } else { None })
            .collect()
    }

    #[test]
    fn a_plan_holds_nothing_before_its_time_and_its_outlets_from_then_on() {
        let mut rack = Rack::new();
        rack.turn(|runs, sight| runs.begin(plan("later", Some(70_000)), sight));
        assert_eq!(rack.runs.claimed_by(&outlet()), None);
        assert_eq!(rack.runs.records().count(), 1, "it is not lost");
        // It looks at the wall clock now and then, which may be set.
        assert_eq!(rack.runs.wake(), Some(Tick(30_000)));
        rack.at(30_000);
        rack.at(60_000);
        assert_eq!((rack.runs.wake(), rack.runs.claimed_by(&outlet())), (Some(Tick(70_000)), None));
        rack.at(69_999);
        assert_eq!(rack.runs.claimed_by(&outlet()), None);
        rack.at(70_000);
        assert_eq!(rack.runs.claimed_by(&outlet()).map(PlanId::as_str), Some("later"));
    }

    #[test]
    fn what_is_busy_is_waited_for_and_not_for_ever() {
        let mut rack = Rack::new();
        rack.runs.claim(&plan("other", None)).unwrap();
        rack.turn(|runs, sight| runs.begin(plan("later", Some(10_000)), sight));
        assert_eq!(told(&rack.at(10_000)), ["plan.waits"]);
        assert_eq!(rack.runs.wake(), Some(Tick(11_000)));
        assert_eq!(told(&rack.at(200_000)), [""; 0], "that is told once");
        assert_eq!(rack.runs.claimed_by(&outlet()).map(PlanId::as_str), Some("other"));
        let deeds = rack.at(10_000 + LATE.0);
        let [Deed::Save(save)] = &deeds[..] else { panic!("nothing is switched: {deeds:?}") };
        let deeds = rack.saved(save);
        let ended = deeds.iter().find_map(|deed| match deed {
            Deed::Ended(record) => Some(record),
            _ => None,
        });
        let ended = ended.unwrap_or_else(|| panic!("{deeds:?}"));
        assert_eq!((ended.state, ended.outcome()), (PlanState::Stopped, Some(Outcome::Failed)));
        assert_eq!(
            ended.steps[0].detail.as_deref(),
            Some("outlet pdu-a/1 is being switched by plan other; it has waited 300 s for that")
        );
        // Nothing was taken from the other.
        assert_eq!(rack.runs.claimed_by(&outlet()).map(PlanId::as_str), Some("other"));
        assert_eq!(rack.runs.wake(), None);
    }

    #[test]
    fn what_is_busy_is_taken_once_it_is_free() {
        let mut rack = Rack::new();
        rack.runs.claim(&plan("other", None)).unwrap();
        rack.turn(|runs, sight| runs.begin(plan("later", Some(10_000)), sight));
        rack.at(10_000);
        rack.runs.release(&"other".parse().unwrap());
        rack.at(11_000);
        assert_eq!(rack.runs.claimed_by(&outlet()).map(PlanId::as_str), Some("later"));
    }

    #[test]
    fn a_pdu_that_does_not_answer_when_a_plan_is_due_is_waited_for_a_minute() {
        let mut rack = Rack::new();
        rack.views =
            vec![Arc::new(PduView::unknown("pdu-a".parse().unwrap(), "pdu-a".into(), None))];
        let mut later = plan("later", Some(10_000));
        later.mark.relays = BTreeMap::from([(outlet(), "on".to_owned())]);
        rack.turn(|runs, sight| runs.begin(later, sight));
        assert_eq!(told(&rack.at(10_000)), ["plan.waits"]);
        assert!(rack.at(69_000).is_empty());
        let deeds = rack.at(70_000);
        let [Deed::Save(save)] = &deeds[..] else { panic!("nothing is switched: {deeds:?}") };
        let record = save.record.as_ref().unwrap();
        assert_eq!(record.state, PlanState::Stopped);
        let detail = record.steps[0].detail.as_deref().unwrap();
        assert_eq!(detail, "pdu-a/1 was on and is gone; it has waited 60 s for that");
    }

    #[test]
    fn what_comes_in_the_way_of_a_plan_later_is_waited_for_a_minute_of_its_own() {
        let mut rack = Rack::new();
        rack.views =
            vec![Arc::new(PduView::unknown("pdu-a".parse().unwrap(), "pdu-a".into(), None))];
        rack.runs.claim(&plan("other", None)).unwrap();
        let mut later = plan("later", Some(10_000));
        later.mark.relays = BTreeMap::from([(outlet(), "on".to_owned())]);
        rack.turn(|runs, sight| runs.begin(later, sight));
        assert_eq!(told(&rack.at(10_000)), ["plan.waits"]);
        assert!(rack.at(110_000).is_empty());
        rack.runs.release(&"other".parse().unwrap());
        assert!(rack.at(111_000).is_empty(), "the PDU that does not answer is waited for now");
        assert!(rack.at(170_000).is_empty());
        let deeds = rack.at(171_000);
        let [Deed::Save(save)] = &deeds[..] else { panic!("nothing is switched: {deeds:?}") };
        let record = save.record.as_ref().unwrap();
        let detail = record.steps[0].detail.as_deref().unwrap();
        assert_eq!(detail, "pdu-a/1 was on and is gone; it has waited 60 s for that");
    }

    #[test]
    fn one_that_waits_can_be_cancelled_and_outlives_the_end_of_the_gateway() {
        let mut rack = Rack::new();
        rack.turn(|runs, sight| runs.begin(plan("later", Some(10_000)), sight));
        let cancelled: PlanId = "cancelled".parse().unwrap();
        rack.turn(|runs, sight| runs.begin(plan("cancelled", Some(10_000)), sight));
        let deeds = rack.turn(|runs, sight| runs.cancel(&cancelled, "us", sight).1);
        let save = deeds.iter().find_map(|deed| match deed {
            Deed::Save(save) => Some(save),
            _ => None,
        });
        let state = save.and_then(|save| save.record.as_ref()).map(|record| record.state);
        assert_eq!(state, Some(PlanState::Cancelled), "{deeds:?}");
        let deeds = rack.turn(Runs::end);
        assert!(deeds.is_empty(), "{deeds:?}");
        // Its time comes while the gateway ends: the next start takes it up.
        assert!(rack.at(20_000).is_empty());
        assert!(rack.runs.records().any(|record| record.id.as_str() == "later"));
        assert_eq!(rack.runs.wake(), None);
        // Cancelled just now, it is so after the start as well: that is saved before it is put away.
        let later: PlanId = "later".parse().unwrap();
        let deeds = rack.turn(|runs, sight| runs.cancel(&later, "us", sight).1);
        let [Deed::Save(save)] = &deeds[..] else { panic!("{deeds:?}") };
        let cancelled = save.record.as_ref().and_then(|record| record.cancelled.as_deref());
        assert_eq!(cancelled, Some("us"));
        rack.saved(save);
        assert!(rack.runs.records().all(|record| record.id != later));
    }
}
