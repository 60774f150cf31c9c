//! How plans end: done, stopped, cancelled, interrupted; planned anew where more flows than was reckoned; and what
//! becomes of hosts that a plan leaves half cycled.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::event::About;
use crate::model::id::{HostId, OutletId, PlanId};
use crate::model::switching::{Action, Outcome, Relay};

use super::super::picture::Sight;
use super::super::planner::{self, Plan, Refusal};
use super::super::record::{PlanState, Record, StepRecord, StepState};
use super::super::search::plan as plan_anew;
use super::super::site::Safe;
use super::super::world::{Goal, World};
use super::room::goals_of;
use super::step::{Doing, Phase};
use super::wait::Waiting;
use super::{Deed, LONG_PATIENCE, Run, Runs, Who};

impl Runs {
    /// Ends a plan of which nothing is under way and nothing may begin any more, and tells of one that has ended.
    pub(super) fn close_what_is_over(&mut self, plan: &PlanId, sight: &Sight<'_>) -> bool {
        let Some(run) = self.plans.get_mut(plan) else { return false };
        if run.closing {
            let over = !run.saving && run.durable == run.generation;
            if over
                && run.doing.iter().all(|doing| matches!(doing.phase, Phase::Over | Phase::Waits))
            {
                self.tells_the_end(plan, sight);
                return true;
            }
            return false;
        }
        if run.settling {
            return false;
        }
        let rests = |phase: &Phase| {
            matches!(phase, Phase::Waits | Phase::Over)
                || matches!(phase, Phase::Records { generation } if *generation > run.durable)
        };
        if !run.doing.iter().all(|doing| rests(&doing.phase)) {
            return false;
        }
        // The outcome of the last step and the end of the plan are one commit; but not where something is to be done
        // after it: a doubt within the plan, a webhook.
        let all_ended = run.record.steps.iter().all(|step| step.state.outcome().is_some());
        let left_drained = !run.left_drained(sight).is_empty();
        if self.ending && (!all_ended || left_drained) {
            let is_durable = !run.saving && run.durable == run.generation;
            if run.doing.iter().all(Doing::is_idle) && is_durable {
                // The gateway is ending: the rest stays in the journal. A cancel is there first.
                self.plans.remove(plan);
                return true;
            }
            return false;
        }
        let begins_nothing = run.stopping || run.halted;
        if !all_ended && !begins_nothing {
            return false;
        }
        if run.doing.iter().enumerate().any(|(at, doing)| run.goes_on(at, doing, sight)) {
            return false;
        }
        if left_drained {
            return self.takes_back(plan, sight);
        }
        self.closes(plan, sight);
        true
    }

    fn closes(&mut self, plan: &PlanId, sight: &Sight<'_>) {
        let Some(run) = self.plans.get_mut(plan) else { return };
        let open = run.record.steps.iter().any(|step| step.state.outcome().is_none());
        let cancelled = run.stopping && open;
        // A step that was intended with the plan, and never begun, was not written.
        for step in run.record.steps.iter_mut().filter(|step| step.state.outcome().is_none()) {
            step.state = StepState::Ended(Outcome::Skipped);
        }
        run.record.close(sight.stamp);
        if cancelled {
            run.record.state = PlanState::Cancelled;
        } else if run.unheard && run.record.state == PlanState::Done {
            run.record.state = PlanState::Stopped;
        } else if run.interrupted && run.record.state != PlanState::Done {
            run.record.state = PlanState::Interrupted;
        }
        run.closing = true;
        run.whole = true;
        run.generation += 1;
        run.outcome = true;
        let record = run.record.clone();
        if record.state != PlanState::Done {
            let safe = safe_plan(&record, sight);
            if let Some(run) = self.plans.get_mut(plan) {
                run.more = safe;
            }
        }
        self.note(plan, "plan.ended", told(&record));
    }

    fn tells_the_end(&mut self, plan: &PlanId, sight: &Sight<'_>) {
        let Some(run) = self.plans.remove(plan) else { return };
        self.release(plan);
        for (step, doing) in run.doing.into_iter().enumerate() {
            let who = Who { plan: plan.clone(), step };
            self.frees(&who);
            let success = run.record.steps[step].state.outcome().is_some_and(Outcome::is_success);
            if let (Some(doubt), true) = (doing.doubt, success) {
                let outlet = run.record.steps[step].outlet.clone();
                self.leave_doubts(who, outlet, doubt, sight.now);
            }
        }
        // Waiters are told last: whoever hears that a plan is over finds it in the journal and the events, and may switch
        // the same outlets at once.
        let kind = match run.record.state {
            PlanState::Done => "plan.done",
            PlanState::Interrupted => "plan.interrupted",
            _ => "plan.stopped",
        };
        let about = About::plan(plan);
        self.deeds.push(Deed::Tell { kind, about, text: told(&run.record) });
        self.deeds.push(Deed::Ended(Box::new(run.record)));
        if let Some(safe) = run.more {
            let text = format!("plan {} brings hosts to their safe state", safe.id);
            self.deeds.push(Deed::Tell { kind: "plan.safe", about: About::plan(&safe.id), text });
            self.deeds.push(Deed::Show(Box::new(safe.clone())));
            self.waiting.push(Waiting::new(safe, false));
        }
    }

    /// Whether nothing of a plan is under way but steps that wait for room.
    pub(super) fn only_waits(&self, plan: &PlanId) -> bool {
        let waits =
            |phase: &Phase| matches!(phase, Phase::Waits | Phase::Over | Phase::Room { .. });
        self.plans.get(plan).is_some_and(|run| run.doing.iter().all(|doing| waits(&doing.phase)))
    }

    /// Plans the rest anew for what flows now; what does not fit any more is left out. False if that is of no use: also
    /// if for long nothing has come of it.
    pub(super) fn replan(&mut self, who: &Who, sight: &Sight<'_>) -> bool {
        let mut picture = self.picture(sight, Some(&who.plan), None);
        let Some(run) = self.plans.get(&who.plan) else { return false };
        let ended = run.ended();
        let since = run.replanned.filter(|(of, _)| *of == ended).map(|(_, since)| since);
        if since.is_some_and(|since| sight.now >= since + LONG_PATIENCE) {
            return false;
        }
        picture.world.by_priority = run.record.by_priority;
        let mut rest = run.record.clone();
        rest.steps.retain(|step| step.state.outcome().is_none());
        let mut goals = goals_of(&rest, &picture, false);
        picture.goes_dark(&goals);
        let mut left: Vec<OutletId> = Vec::new();
        let mut why = String::new();
        let made = loop {
            match plan_anew(&picture.world, &goals) {
                Ok(made) => break made,
                Err(Refusal::Limit { limit, leave_out, .. }) if !leave_out.is_empty() => {
                    let before = goals.len();
                    goals
                        .retain(|goal| !leave_out.contains(&picture.world.outlets[goal.outlet].id));
                    if goals.len() == before {
                        return false;
                    }
                    left.extend(leave_out);
                    why = format!("left out when it was planned anew: {limit} has no room for it");
                }
                Err(_) => return false,
            }
        };
        // Nothing of it is under way: what its steps had is free for those that take their places.
        self.busy.retain(|_, of| of.plan != who.plan);
        self.turns.retain(|_, of| of.plan != who.plan);
        self.rearrange(&who.plan, &picture.world, &made, &goals, (&left, &why), sight);
        true
    }

    fn rearrange(
        &mut self,
        plan: &PlanId,
        world: &World,
        made: &Plan,
        goals: &[Goal],
        (left, why): (&[OutletId], &str),
        sight: &Sight<'_>,
    ) {
        let Some(run) = self.plans.get_mut(plan) else { return };
        let mut steps = Vec::new();
        let mut doing = Vec::new();
        for (step, of) in run.record.steps.iter().zip(&run.doing) {
            let mut step = step.clone();
            if step.state.outcome().is_none() {
                if !left.contains(&step.outlet) {
                    continue;
                }
                step.state = StepState::Ended(Outcome::Skipped);
                step.detail = Some(why.to_owned());
                step.at = Some(sight.stamp.0);
            }
            let mut of = of.clone();
            of.phase = Phase::Over;
            // What these waited for is over.
            step.after.clear();
            steps.push(step);
            doing.push(of);
        }
        let from = steps.len();
        let at_ms = (sight.now - run.began).0 + run.base_ms;
        for mut step in recorded(world, made, goals) {
            step.at_ms += at_ms;
            step.after.iter_mut().for_each(|after| after.step += from);
            doing.push(Doing::of(&step, sight.site, sight.now, None));
            steps.push(step);
        }
        run.record.steps = steps;
        run.doing = doing;
        let ended = run.ended();
        let since = run.replanned.filter(|(of, _)| *of == ended).map_or(sight.now, |of| of.1);
        run.replanned = Some((ended, since));
        run.record.reserve = reserve(world, made);
        run.whole = true;
        run.changed.clear();
        run.generation += 1;
        let text = if left.is_empty() {
            format!("plan {plan} was planned anew for what flows now")
        } else {
            let names: Vec<String> = left.iter().map(ToString::to_string).collect();
            format!("plan {plan} was planned anew for what flows now, without {}", names.join(", "))
        };
        self.note(plan, "plan.replanned", text.clone());
        self.deeds.push(Deed::Tell { kind: "plan.replanned", about: About::plan(plan), text });
    }
}

impl Run {
    /// How many of its steps are over.
    fn ended(&self) -> usize {
        self.record.steps.iter().filter(|step| step.state.outcome().is_some()).count()
    }

    /// Whether something is still to be done for a step whose outcome is being made durable.
    fn goes_on(&self, at: usize, doing: &Doing, sight: &Sight<'_>) -> bool {
        let step = &self.record.steps[at];
        if !matches!(doing.phase, Phase::Records { .. }) {
            return false;
        }
        let success = step.state.outcome().is_some_and(Outcome::is_success);
        let host = sight.site.host_of(&step.outlet);
        let calls = host.is_some_and(|(_, host)| host.after_on.is_some());
        success && step.relay == Relay::On && calls && !self.halted
    }
}

/// The steps of a plan as they are kept.
pub fn recorded(world: &World, made: &Plan, goals: &[Goal]) -> Vec<StepRecord> {
    let keeps: BTreeSet<usize> =
        goals.iter().filter(|goal| !goal.drops_host).map(|goal| goal.outlet).collect();
    let step = |step: &planner::Step| StepRecord {
        keeps_host: step.relay == Relay::Off
            && keeps.contains(&step.outlet)
            && world.outlets[step.outlet].host.is_some(),
        after: step.after.clone(),
        ..StepRecord::pending(
            world.outlets[step.outlet].id.clone(),
            step.relay,
            step.at_ms,
            step.why.clone(),
        )
    };
    made.steps.iter().map(step).collect()
}

/// By limit: how much more flows than at the start at the worst moment of a plan.
pub fn reserve(world: &World, made: &Plan) -> BTreeMap<String, i64> {
    let lines = world.limits.iter().zip(&made.timelines);
    lines
        .map(|(limit, line)| {
            // Not more than at the first point of the line, which has what begins at once in it.
            let most = line.iter().map(|(_, load)| load - limit.load).max().unwrap_or(0);
            (limit.name.clone(), most)
        })
        .filter(|(_, most)| *most > 0)
        .collect()
}

fn told(record: &Record) -> String {
    format!(
        "{} {} for {}: {}",
        if record.mixed { "switching" } else { record.action.word() },
        record.target,
        record.by,
        record.state.word()
    )
}

/// The plan that brings the hosts that another leaves half cycled to their safe states: those that it switched off, to
/// switch them on again, and did not.
fn safe_plan(record: &Record, sight: &Sight<'_>) -> Option<Record> {
    if record.parent.is_some() && record.patient {
        // It was such a plan itself.
        return None;
    }
    let done = |step: &StepRecord| step.state.outcome().is_some_and(Outcome::is_success);
    let mut steps: Vec<StepRecord> = Vec::new();
    let mut hosts: Vec<&HostId> = Vec::new();
    for (id, host) in sight.site.hosts.iter() {
        let of = |relay| {
            let own = record.steps.iter().filter(|step| host.outlets.contains(&step.outlet));
            own.filter(move |step| step.relay == relay)
        };
        // Which of them were to come back, and have not.
        let cut: BTreeSet<&OutletId> =
            of(Relay::Off).filter(|s| done(s)).map(|s| &s.outlet).collect();
        let back: Vec<&OutletId> = of(Relay::On)
            .filter(|step| !done(step) && cut.contains(&step.outlet))
            .map(|step| &step.outlet)
            .collect();
        if back.is_empty() {
            continue;
        }
        let (relay, outlets): (Relay, Vec<&OutletId>) = match host.safe {
            Safe::Stay => continue,
            Safe::On => (Relay::On, back),
            Safe::Off => {
                // Those that are on again as well, or may be.
                let begun = of(Relay::On).filter(|s| s.state.outcome() != Some(Outcome::Skipped));
                let again: BTreeSet<&OutletId> = begun.map(|s| &s.outlet).collect();
                let is_off = |o: &&OutletId| cut.contains(o) && !again.contains(o);
                (Relay::Off, host.outlets.iter().filter(|o| !is_off(o)).collect())
            }
        };
        for outlet in outlets {
            let word = relay.word();
            let why = format!("host {id} was left half cycled; its safe state is {word}");
            steps.push(StepRecord::pending(outlet.clone(), relay, 0, why));
        }
        hosts.push(id);
    }
    let action = match steps.first()?.relay {
        Relay::On => Action::On,
        Relay::Off => Action::Off,
    };
    let id = format!("{}.safe", record.id).parse().ok()?;
    let names: Vec<String> = hosts.iter().map(|host| format!("host {host}")).collect();
    let mut safe = Record::new(id, action, names.join(", "), "the gateway".into(), sight.stamp);
    safe.reason = format!("plan {} left it half cycled", record.id);
    safe.state = PlanState::Running;
    safe.scheduled = Some(0);
    safe.on_failure = super::super::record::OnFailure::Continue;
    safe.parent = Some(record.id.clone());
    safe.patient = true;
    safe.steps = steps;
    Some(safe)
}
