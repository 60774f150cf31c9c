//! What people want of the gateway in a world: plans, an outlet by hand, a cancel.

use super::{
    Action, BTreeMap, Commit, Goal, Guarded, OnFailure, OnOverload, OutletId, PlanId, PlanState,
    Record, Refusal, Relay, Runs, StepRecord, StepState, Want, World, plan, recorded, reserve,
};

impl World {
    pub(super) fn cancels(&mut self) {
        let Some(id) = self.runs.records().next().map(|record| record.id.clone()) else { return };
        self.say(|| format!("plan {id} is cancelled"));
        let (_, deeds) = self.with_sight(|runs, sight| runs.cancel(&id, "somebody", sight));
        self.carry_out(deeds);
    }

    /// Somebody switches one outlet: a plan of one step, whose intent is durable with it.
    pub(super) fn by_hand(&mut self) {
        if !self.up {
            return;
        }
        let Some((socket, relay)) = self.hands.pop() else { return };
        self.ids += 1;
        let id: PlanId = format!("p{:04}", self.ids).parse().unwrap();
        let (stamp, outlet) = (self.stamp(), self.rack.sockets[socket].id.clone());
        let action = if relay == Relay::On { Action::On } else { Action::Off };
        let mut record = Record::new(id, action, outlet.to_string(), "us".into(), stamp);
        let mut step = StepRecord::pending(outlet.clone(), relay, 0, "by hand".into());
        step.keeps_host = relay == Relay::Off;
        step.state = StepState::Intended;
        record.steps.push(step);
        record.state = PlanState::Running;
        let taken = self.with_sight(|runs, sight| {
            let known = matches!(sight.guard(&outlet, &BTreeMap::new()), Guarded::Known(..));
            if !known {
                return Err("not known for certain".to_owned());
            }
            runs.has_headroom(&record, sight).map_err(|refusal| refusal.to_string())?;
            runs.claim(&record).map_err(|(outlet, plan)| format!("{outlet} is at {plan}"))
        });
        if let Err(why) = taken {
            self.story.refused += 1;
            self.say(|| format!("{outlet} {} by hand is refused: {why}", relay.word()));
            return;
        }
        self.say(|| format!("plan {}: {outlet} {} by hand", record.id, relay.word()));
        self.hand = Some(record.id.clone());
        self.accepted(record);
    }

    /// An accepted plan becomes durable, and begins.
    pub(super) fn accepted(&mut self, record: Record) {
        self.drops(&record);
        if self.crashes_here() {
            self.killed("before a plan was durable");
            return;
        }
        let bytes = serde_json::to_vec(&record).unwrap();
        let plans = vec![(record.id.clone(), bytes, true)];
        self.journal.as_ref().unwrap().commit(Commit { plans, ..Commit::default() }).unwrap();
        self.known.insert(record.id.clone(), PlanState::Running);
        if self.crashes_here() {
            self.killed("after a plan was durable");
            return;
        }
        let deeds = self.with_sight(|runs, sight| runs.begin(record, sight));
        self.carry_out(deeds);
    }

    /// Somebody makes a plan and runs it.
    pub(super) fn wished(&mut self, goals: &[(OutletId, Want, bool)]) {
        let by_priority = self.random.chance(20);
        let replan = self.random.chance(50);
        let on = self.random.chance(40);
        self.ids += 1;
        let id: PlanId = format!("p{:04}", self.ids).parse().unwrap();
        let stamp = self.stamp();
        // Some are put off; by their numbers, so that other worlds are what they were.
        let later = (self.ids % 4 == 2).then_some(15_000);
        let made = self.with_sight(|runs, sight| {
            let mut picture = runs.picture(sight, None, None);
            picture.world.by_priority = by_priority;
            // Plans need not be the shortest here.
            picture.world.tries = 2;
            let goals: Vec<Goal> = goals
                .iter()
                .filter_map(|(outlet, want, drops_host)| {
                    let outlet = *picture.outlets.get(outlet)?;
                    Some(Goal { outlet, want: *want, drops_host: *drops_host, why: String::new() })
                })
                .collect();
            let known = goals.iter().all(|goal| {
                picture.world.outlets[goal.outlet].relay != pmgate::plan::Relays::Unknown
            });
            if !known || goals.is_empty() {
                return Err("not known for certain".to_owned());
            }
            let mut goals = goals;
            let made = match plan(&picture.world, &goals) {
                // As much as fits.
                Err(Refusal::Limit { leave_out, .. }) => {
                    goals
                        .retain(|goal| !leave_out.contains(&picture.world.outlets[goal.outlet].id));
                    plan(&picture.world, &goals)
                }
                made => made,
            };
            let made = made.map_err(|refusal| refusal.to_string())?;
            let mut record = Record::new(id.clone(), Action::On, "w".into(), "us".into(), stamp);
            record.steps = recorded(&picture.world, &made, &goals);
            record.scheduled = Some(made.makespan_ms);
            record.reserve = reserve(&picture.world, &made);
            record.state = PlanState::Running;
            record.on_overload = if replan { OnOverload::Replan } else { OnOverload::Stop };
            record.on_failure = if on { OnFailure::Continue } else { OnFailure::Stop };
            if let Some(rest) = later {
                record.mark = picture.mark(record.outlets().iter());
                record.not_before = Some(stamp.0 + rest);
            }
            if !Runs::waits(&record, sight) {
                runs.claim(&record).map_err(|(outlet, plan)| format!("{outlet} is at {plan}"))?;
            }
            Ok(record)
        });
        match made {
            Err(why) => {
                self.story.refused += 1;
                self.say(|| format!("a wish is refused: {why}"));
            }
            Ok(record) => {
                self.say(|| {
                    let steps: Vec<String> = record
                        .steps
                        .iter()
                        .map(|s| format!("{} {} {}", s.at_ms, s.outlet, s.relay.word()))
                        .collect();
                    format!("plan {} begins: {}", record.id, steps.join(", "))
                });
                self.accepted(record);
            }
        }
    }

    /// All that is off, to come on.
    pub(super) fn dark(&self) -> Vec<(OutletId, Want, bool)> {
        let dark =
            self.rack.sockets.iter().filter(|socket| socket.host.is_some() && !socket.closed);
        dark.map(|socket| (socket.id.clone(), Want::On, true)).collect()
    }

    pub(super) fn goals(&mut self) -> Vec<(OutletId, Want, bool)> {
        let wish = self.random.within(0, 3);
        let all = self.random.chance(30);
        let part = if all { 100 } else { self.random.within(10, 90) };
        let mut goals = Vec::new();
        for load in &self.rack.loads {
            if !self.random.chance(part) {
                continue;
            }
            let want = match wish {
                _ if all => Want::On,
                0 => Want::On,
                1 => Want::Cycle,
                _ => *self.random.one(&[Want::On, Want::Off, Want::Cycle]),
            };
            // The host as such, or one of its cords.
            let both = load.cords.iter().all(|cord| self.rack.sockets[*cord].closed);
            let as_host = !both || load.cords.len() < 2 || want == Want::On;
            if as_host || self.random.chance(60) {
                for cord in &load.cords {
                    goals.push((self.rack.sockets[*cord].id.clone(), want, true));
                }
            } else {
                let cord = *self.random.one(&load.cords);
                goals.push((self.rack.sockets[cord].id.clone(), want, false));
                if want == Want::Cycle && self.random.chance(50) {
                    for cord in load.cords.iter().filter(|other| **other != cord) {
                        goals.push((self.rack.sockets[*cord].id.clone(), want, false));
                    }
                }
            }
        }
        goals
    }
}
