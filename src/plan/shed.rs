//! Load shedding: when more flows over a limit than a rule allows, and for how long, what goes off first, and when it
//! comes back. Decides only; what it decides is planned and carried out as every other wish.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::time::{Span, Stamp, Tick};

use super::record::Select;
use super::site::Site;

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name.
    pub id: String,
    /// The limit that is watched, by its id.
    pub limit: String,
    /// Too much, percent of the limit's rating.
    pub over: i64,
    /// Little enough for something to come back, percent of the rating.
    pub under: i64,
    /// How long it is too much before anything goes off.
    pub after: Span,
    /// How long it is little enough before anything comes back.
    pub back_after: Span,
    /// How long what went off stays off at least.
    pub min_off: Span,
    /// How long what came back stays on at least.
    pub min_on: Span,
    /// How long the meters are given to show what was done.
    pub settle: Span,
    /// What may go off: hosts, groups, outlets.
    pub of: Vec<Select>,
    /// It tells what it would do, and does nothing.
    pub dry_run: bool,
}

/// How long something is left alone that was to come back and did not, the first time; twice as long each time after that.
const FAILED: Span = Span::seconds(60);
/// It is left alone for an hour at most.
const MOST_DOUBLINGS: u32 = 6;

/// What may go off, at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// A host or an outlet.
    pub select: Select,
    /// Lower ones go first.
    pub priority: i32,
    /// Whether any of it is on; nothing if that is not known for certain.
    pub is_on: Option<bool>,
    /// Whether all of it is seen on.
    pub is_whole: bool,
    /// Whether any of it is locked: then it is left as it is.
    pub is_locked: bool,
    /// What it draws over the limit, mVA.
    pub draws: i64,
    /// What it draws there while it starts up, at most, mVA.
    pub returns: i64,
    /// Why it cannot be switched at this moment, if so: another plan is at it.
    pub hindrance: Option<String>,
}

/// What flows over the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Now, as the meters show, mVA.
    pub load: i64,
    /// With what is on its way: what was just switched on, and the room that plans have taken, mVA.
    pub taken: i64,
    /// Rated, mVA.
    pub rating: i64,
}

/// What would help and cannot be switched at this moment, each with the reason.
pub type LeftOut = Vec<(Select, String)>;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// These go off; they go in place of those that were left out.
    Shed(Vec<Select>, LeftOut),
    /// This comes back.
    Back(Select),
    /// This would come back, and starts up with so many mVA, for which there is no room yet; told once while little flows.
    Waits(Select, i64),
    /// Too much flows, and there is nothing left that would help, or only what was left out.
    Helpless(LeftOut),
}

/// How a rule stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// What it switched off, and when, ms since 1970.
    pub off: BTreeMap<String, i64>,
    /// What it brought back, and when.
    pub back: BTreeMap<String, i64>,
    #[serde(skip)]
    over_since: Option<Tick>,
    #[serde(skip)]
    under_since: Option<Tick>,
    #[serde(skip)]
    acted: Option<Tick>,
    /// What was told of this excess already, where nothing is done.
    #[serde(skip)]
    told: bool,
    /// What was refused, until when it is left out, and why.
    #[serde(skip)]
    refused: BTreeMap<String, (Tick, String)>,
    /// The causes of refusals that were told, each with whether something was to go off.
    #[serde(skip)]
    causes: BTreeSet<(bool, String)>,
    /// How often something was to come back, and did not.
    #[serde(skip)]
    failed: BTreeMap<String, u32>,
}

impl Rule {
    /// What it stands for, each host and outlet once, those that go first first.
    pub fn items(&self, site: &Site) -> Vec<(Select, i32)> {
        let mut items: Vec<(Select, i32)> = Vec::new();
        let mut add = |select: Select| {
            let priority = match &select {
                Select::Host(id) => site.hosts.get(id).map(|host| host.priority),
                Select::Outlet(outlet) => site.host_of(outlet).map(|(_, host)| host.priority),
                Select::Pdu(_) | Select::Group(_) => None,
            };
            if items.iter().all(|(other, _)| *other != select) {
                items.push((select, priority.unwrap_or(0)));
            }
        };
        for select in &self.of {
            match select {
                Select::Group(id) => {
                    let Some(group) = site.groups.get(id) else { continue };
                    group.hosts.iter().for_each(|host| add(Select::Host(host.clone())));
                    group.outlets.iter().for_each(|outlet| add(Select::Outlet(outlet.clone())));
                }
                select => add(select.clone()),
            }
        }
        items.sort_by_key(|(_, priority)| *priority);
        items
    }
}

impl Standing {
    /// Looks at the flow, and says what is to be done now. `flow`: nothing if it is not known for certain, and then
    /// nothing is done. `candidates`: those that go first first. `busy`: something of it is under way.
    pub fn decide(
        &mut self,
        rule: &Rule,
        flow: Option<Flow>,
        candidates: &[Candidate],
        busy: bool,
        (now, stamp): (Tick, Stamp),
    ) -> Option<Act> {
        let Some(flow) = flow.filter(|flow| flow.rating > 0) else {
            (self.over_since, self.under_since) = (None, None);
            return None;
        };
        let too_much = flow.rating.saturating_mul(rule.over) / 100;
        let little = flow.rating.saturating_mul(rule.under) / 100;
        let since = |was: Option<Tick>, is: bool| is.then(|| was.unwrap_or(now));
        self.over_since = since(self.over_since, flow.load > too_much);
        self.under_since = since(self.under_since, flow.load < little);
        self.told &= self.over_since.is_some();
        // What was in the way of an excess is told again of the next one; so it is of what was to come back.
        let (over, under) = (self.over_since.is_some(), self.under_since.is_some());
        self.causes.retain(|(goes_off, _)| if *goes_off { over } else { under });
        // What is on again is no more this rule's, whoever switched it on. What a plan is at is not over yet.
        self.off.retain(|name, _| {
            let of = candidates.iter().find(|of| of.select.to_string() == *name);
            of.is_some_and(|of| busy || of.hindrance.is_some() || !of.is_whole)
        });
        // After a clock was set back times count from now.
        for at in self.off.values_mut().chain(self.back.values_mut()) {
            *at = stamp.0.min(*at);
        }
        self.refused.retain(|_, (until, _)| now < *until);
        let lasted = |from: Option<Tick>, long: Span| from.is_some_and(|from| now - from >= long);
        if self.acted.is_some_and(|acted| now - acted < rule.settle) {
            return None;
        }
        if lasted(self.over_since, rule.after) {
            // What is drained first flows for a while.
            let going = candidates.iter().filter(|of| of.is_on == Some(true) && self.is_going(of));
            let going: i64 = going.map(|of| of.draws).sum();
            return self.sheds(rule, flow.load - too_much - going, candidates, now, stamp);
        }
        if busy {
            return None;
        }
        if lasted(self.under_since, rule.back_after) && !self.off.is_empty() {
            let rested = |of: &&Candidate| {
                let off = self.off.get(&of.select.to_string());
                off.is_some_and(|at| stamp.0 - at >= rule.min_off.0 as i64)
                    && self.hindrance(of).is_none()
                    && !of.is_locked
            };
            // The last to go is the first to come back, if it does not bring about what it went for.
            let next = candidates.iter().rev().find(rested)?;
            if flow.load.max(flow.taken) + next.returns > too_much {
                let (select, returns) = (next.select.clone(), next.returns);
                let is_new = self.tells(false, format!("no room for {select}"));
                return is_new.then_some(Act::Waits(select, returns));
            }
            self.acted = Some(now);
            return Some(Act::Back(next.select.clone()));
        }
        None
    }

    fn sheds(
        &mut self,
        rule: &Rule,
        mut excess: i64,
        candidates: &[Candidate],
        now: Tick,
        stamp: Stamp,
    ) -> Option<Act> {
        if rule.dry_run && self.told || excess <= 0 {
            return None;
        }
        let (mut shed, mut left_out) = (Vec::new(), LeftOut::new());
        for of in candidates {
            let back = self.back.get(&of.select.to_string());
            let rests = back.is_some_and(|at| stamp.0 - at < rule.min_on.0 as i64);
            let helps = of.is_on == Some(true) && of.draws > 0 && !of.is_locked;
            if excess <= 0 || !helps || rests || self.is_going(of) {
                continue;
            }
            if let Some(why) = self.hindrance(of) {
                left_out.push((of.select.clone(), why));
            } else {
                excess -= of.draws;
                shed.push(of.select.clone());
            }
        }
        if shed.is_empty() {
            let told = std::mem::replace(&mut self.told, true);
            return (!told).then_some(Act::Helpless(left_out));
        }
        self.told = rule.dry_run;
        self.acted = Some(now);
        Some(Act::Shed(shed, left_out))
    }

    /// Whether this rule has begun to switch something off, and a plan is at it.
    fn is_going(&self, of: &Candidate) -> bool {
        of.hindrance.is_some() && self.off.contains_key(&of.select.to_string())
    }

    /// What this rule switched off and does not name any more.
    pub fn strays(&self, candidates: &[Candidate]) -> Vec<String> {
        let names = |name: &&String| candidates.iter().all(|of| of.select.to_string() != **name);
        self.off.keys().filter(names).cloned().collect()
    }

    /// Notes that a plan that was to bring something back is over, if it is not back: it is tried again after a while, which
    /// grows each time. True if it is not.
    pub fn stays_off(&mut self, of: &Candidate, now: Tick) -> bool {
        let name = of.select.to_string();
        if of.is_whole || of.hindrance.is_some() || !self.off.contains_key(&name) {
            self.failed.remove(&name);
            return false;
        }
        let times = self.failed.entry(name).or_default();
        let rest = Span(FAILED.0 << (*times).min(MOST_DOUBLINGS));
        *times += 1;
        self.was_refused(&of.select, "it did not come back".into(), now + rest);
        true
    }

    /// Why a candidate cannot be switched at this moment, if so.
    fn hindrance(&self, of: &Candidate) -> Option<String> {
        let refused = || self.refused.get(&of.select.to_string()).map(|(_, why)| why.clone());
        of.hindrance.clone().or_else(refused)
    }

    /// Notes that something was refused, though nothing was seen to be in its way: it is left out until a moment, and what
    /// is to be done is decided anew without it.
    pub fn was_refused(&mut self, select: &Select, why: String, until: Tick) {
        self.refused.insert(select.to_string(), (until, why));
        self.acted = None;
    }

    /// Whether a refusal is to be told: its cause was not told since too much flows, or little enough.
    pub fn tells(&mut self, goes_off: bool, cause: String) -> bool {
        self.causes.insert((goes_off, cause))
    }

    /// Notes that something went off.
    pub fn went_off(&mut self, select: &Select, at: Stamp) {
        self.back.remove(&select.to_string());
        self.off.insert(select.to_string(), at.0);
    }

    /// Notes that something comes back. It stands as switched off until it is seen on.
    pub fn comes_back(&mut self, select: &Select, at: Stamp) {
        self.back.insert(select.to_string(), at.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> Rule {
        Rule {
            id: "r".into(),
            limit: "feed-a".into(),
            over: 90,
            under: 70,
            after: Span::seconds(10),
            back_after: Span::seconds(60),
            min_off: Span::seconds(300),
            min_on: Span::seconds(120),
            settle: Span::seconds(15),
            of: Vec::new(),
            dry_run: false,
        }
    }

    /// A rack of loads with their priorities as their places, each of 100 of a rating of 1000, driven by its rule.
    struct Rack {
        rule: Rule,
        standing: Standing,
        on: Vec<bool>,
        /// Those that another plan is at.
        busy: Vec<usize>,
        locked: Vec<usize>,
        /// Those that do not come on when they are told to.
        stuck: Vec<usize>,
        base: i64,
        /// What plans have taken beside that.
        taken: i64,
        now: u64,
        acts: Vec<(u64, String)>,
    }

    impl Rack {
        fn new(rule: Rule) -> Self {
            let standing = Standing::default();
            Self {
                rule,
                standing,
                on: vec![true; 5],
                busy: Vec::new(),
                locked: Vec::new(),
                stuck: Vec::new(),
                base: 0,
                taken: 0,
                now: 0,
                acts: Vec::new(),
            }
        }

        fn select(at: usize) -> Select {
            Select::Outlet(format!("pdu-a/{}", at + 1).parse().unwrap())
        }

        fn load(&self) -> i64 {
            self.base + self.on.iter().filter(|on| **on).count() as i64 * 100
        }

        fn run(&mut self, seconds: u64) {
            for _ in 0..seconds {
                self.now += 1;
                let candidates: Vec<Candidate> = (0..self.on.len())
                    .map(|at| Candidate {
                        select: Self::select(at),
                        priority: at as i32,
                        is_on: Some(self.on[at]),
                        is_whole: self.on[at],
                        is_locked: self.locked.contains(&at),
                        draws: if self.on[at] { 100 } else { 0 },
                        returns: 120,
                        hindrance: self.busy.contains(&at).then(|| "it is busy".to_owned()),
                    })
                    .collect();
                let (tick, stamp) = (Tick(self.now * 1_000), Stamp(self.now as i64 * 1_000));
                let flow = Some(Flow {
                    load: self.load(),
                    taken: self.load() + self.taken,
                    rating: 1_000,
                });
                let rule = self.rule.clone();
                let act = self.standing.decide(&rule, flow, &candidates, false, (tick, stamp));
                let place =
                    |select: &Select| (0..5).find(|at| Self::select(*at) == *select).unwrap();
                match act {
                    Some(Act::Shed(items, left_out)) => {
                        for (item, why) in left_out {
                            self.acts.push((self.now, format!("without {}: {why}", place(&item))));
                        }
                        for item in items {
                            let at = place(&item);
                            self.acts.push((self.now, format!("off {at}")));
                            if !rule.dry_run {
                                self.standing.went_off(&item, stamp);
                                self.on[at] = false;
                            }
                        }
                    }
                    Some(Act::Back(item)) => {
                        let at = place(&item);
                        self.acts.push((self.now, format!("on {at}")));
                        self.standing.comes_back(&item, stamp);
                        self.on[at] = !self.stuck.contains(&at);
                    }
                    Some(Act::Waits(item, needs)) => {
                        self.acts.push((self.now, format!("{} waits for {needs}", place(&item))));
                    }
                    Some(Act::Helpless(left_out)) => {
                        let of: Vec<String> =
                            left_out.iter().map(|(item, _)| format!(" {}", place(item))).collect();
                        self.acts.push((self.now, format!("helpless{}", of.concat())));
                    }
                    None => {}
                }
            }
        }

        fn said(&mut self) -> Vec<String> {
            self.acts.drain(..).map(|(_, what)| what).collect()
        }
    }

    #[test]
    fn the_lowest_go_first_and_as_many_as_it_takes() {
        let mut rack = Rack::new(rule());
        rack.base = 550;
        rack.run(10);
        assert_eq!(rack.said(), [""; 0], "not before it has lasted");
        rack.run(1);
        assert_eq!(rack.said(), ["off 0", "off 1"], "1050 of 900: two of 100");
        rack.run(600);
        assert_eq!(rack.said(), [""; 0], "850 is neither too much nor little");
    }

    #[test]
    fn what_went_off_comes_back_one_after_the_other_and_late() {
        let mut rack = Rack::new(rule());
        rack.base = 550;
        rack.run(11);
        rack.said();
        rack.base = 100;
        rack.run(299);
        assert_eq!(rack.said(), [""; 0], "its least time off is not over");
        rack.run(1);
        assert_eq!(rack.said(), ["on 1"]);
        rack.run(14);
        assert_eq!(rack.said(), [""; 0]);
        rack.run(1);
        assert_eq!(rack.said(), ["on 0"]);
        rack.run(1);
        assert!(rack.standing.off.is_empty(), "both are seen on");
        // What came back is not taken again at once: the next one goes.
        rack.base = 500;
        rack.run(20);
        assert_eq!(rack.said(), ["off 2"]);
    }

    #[test]
    fn nothing_comes_back_that_would_have_to_go_again() {
        let mut rack = Rack::new(Rule { under: 89, ..rule() });
        rack.base = 500;
        rack.run(11);
        assert_eq!(rack.said(), ["off 0"]);
        rack.base = 400;
        rack.run(1_000);
        assert_eq!(rack.said(), ["0 waits for 120"], "800 is little, and 120 more is too much");
        rack.base = 500;
        rack.run(5);
        rack.base = 400;
        rack.run(1_000);
        assert_eq!(rack.said(), ["0 waits for 120"], "told again, as more flowed in between");
        rack.base = 370;
        rack.run(20);
        assert_eq!(rack.said(), ["on 0"]);
    }

    #[test]
    fn room_that_plans_have_taken_is_no_excess_and_nothing_comes_back_into_it() {
        let mut rack = Rack::new(rule());
        (rack.base, rack.taken) = (100, 900);
        rack.run(100);
        assert_eq!(rack.said(), [""; 0]);
        (rack.base, rack.taken) = (500, 0);
        rack.run(11);
        assert_eq!(rack.said(), ["off 0"]);
        (rack.base, rack.taken) = (0, 500);
        rack.run(1_000);
        assert_eq!(rack.said(), ["0 waits for 120"]);
        rack.taken = 0;
        rack.run(20);
        assert_eq!(rack.said(), ["on 0"]);
    }

    #[test]
    fn a_moment_is_no_excess_and_the_unknown_is_none() {
        let mut rack = Rack::new(rule());
        for _ in 0..20 {
            rack.base = 550;
            rack.run(9);
            rack.base = 0;
            rack.run(2);
        }
        assert_eq!(rack.said(), [""; 0]);
        let mut standing = Standing::default();
        for second in 0..100 {
            let when = (Tick(second * 1_000), Stamp(second as i64 * 1_000));
            assert_eq!(standing.decide(&rule(), None, &[], false, when), None);
        }
    }

    #[test]
    fn a_dry_run_tells_once() {
        let mut rack = Rack::new(Rule { dry_run: true, ..rule() });
        rack.base = 550;
        rack.run(600);
        assert_eq!(rack.said(), ["off 0", "off 1"]);
        assert!(rack.on.iter().all(|on| *on) && rack.standing.off.is_empty());
        rack.base = 0;
        rack.run(5);
        rack.base = 550;
        rack.run(60);
        assert_eq!(rack.said(), ["off 0", "off 1"], "another excess is told again");
    }

    #[test]
    fn whoever_has_nothing_left_says_so_once() {
        let mut rack = Rack::new(rule());
        rack.base = 2_000;
        rack.run(600);
        assert_eq!(rack.said(), ["off 0", "off 1", "off 2", "off 3", "off 4", "helpless"]);
    }

    #[test]
    fn what_another_plan_is_at_is_left_out_and_the_next_goes_in_its_place() {
        let mut rack = Rack::new(rule());
        rack.base = 550;
        rack.busy = vec![0, 2, 4];
        rack.run(11);
        // The last one is not needed: that it is busy is nobody's matter.
        assert_eq!(
            rack.said(),
            ["without 0: it is busy", "without 2: it is busy", "off 1", "off 3"]
        );
        // Nor does it keep another from coming back.
        rack.base = 100;
        rack.busy = vec![3];
        rack.run(400);
        assert_eq!(rack.said(), ["on 1"]);
        rack.busy = Vec::new();
        rack.run(1);
        assert_eq!(rack.said(), ["on 3"]);
    }

    #[test]
    fn where_all_are_busy_that_is_told_once_and_they_go_when_they_can() {
        let mut rack = Rack::new(rule());
        rack.base = 550;
        rack.busy = vec![0, 1, 2, 3, 4];
        rack.run(60);
        assert_eq!(rack.said(), ["helpless 0 1 2 3 4"]);
        rack.busy = vec![0];
        rack.run(1);
        assert_eq!(rack.said(), ["without 0: it is busy", "off 1", "off 2"]);
    }

    #[test]
    fn what_was_refused_is_left_out_for_a_while() {
        let mut rack = Rack::new(rule());
        rack.base = 550;
        rack.run(10);
        let until = Tick((rack.now + 12) * 1_000);
        rack.standing.was_refused(&Rack::select(1), "not known for certain".into(), until);
        rack.run(1);
        assert_eq!(rack.said(), ["without 1: not known for certain", "off 0", "off 2"]);
        rack.base = 650;
        rack.run(30);
        assert_eq!(rack.said(), ["off 1"], "its time is over");
    }

    #[test]
    fn a_cause_is_told_once_of_an_excess_and_again_of_the_next() {
        let mut rack = Rack::new(rule());
        let cause = || "outlet pdu-a/1 is read only".to_owned();
        rack.base = 2_000;
        rack.run(20);
        assert!(rack.standing.tells(true, cause()) && rack.standing.tells(false, cause()));
        rack.run(20);
        assert!(!rack.standing.tells(true, cause()), "too much flows all the while");
        assert!(rack.standing.tells(false, cause()), "and not little");
        rack.base = 800;
        rack.run(1);
        assert!(rack.standing.tells(true, cause()), "it was over");
        rack.base = 0;
        rack.run(1);
        assert!(rack.standing.tells(false, cause()));
        rack.run(100);
        assert!(!rack.standing.tells(false, cause()));
    }

    /// A rack that has shed its first two.
    fn shed() -> Rack {
        let mut rack = Rack::new(rule());
        rack.base = 550;
        rack.run(11);
        assert_eq!(rack.said(), ["off 0", "off 1"]);
        rack
    }

    #[test]
    fn what_did_not_come_back_is_not_forgotten_and_keeps_no_other_off() {
        let mut rack = shed();
        (rack.base, rack.stuck) = (100, vec![1]);
        rack.run(300);
        assert_eq!(rack.said(), ["on 1"]);
        let of = Candidate {
            select: Rack::select(1),
            priority: 1,
            is_on: Some(false),
            is_whole: false,
            is_locked: false,
            draws: 0,
            returns: 120,
            hindrance: None,
        };
        assert!(rack.standing.stays_off(&of, Tick(rack.now * 1_000)));
        rack.run(59);
        assert_eq!(rack.said(), ["on 0"]);
        rack.stuck = Vec::new();
        rack.run(20);
        assert_eq!(rack.said(), ["on 1"]);
        rack.run(1);
        assert!(rack.standing.off.is_empty());
        assert!(!rack.standing.stays_off(&of, Tick(rack.now * 1_000)), "it is back");
        // The pauses grow, up to an hour.
        rack.standing.went_off(&of.select, Stamp(0));
        for minutes in [1, 2, 4, 8, 16, 32, 64, 64] {
            assert!(rack.standing.stays_off(&of, Tick(0)));
            let (until, _) = rack.standing.refused[&of.select.to_string()];
            assert_eq!(until, Tick(minutes * 60_000));
        }
    }

    #[test]
    fn what_is_locked_for_a_while_comes_back_after_it() {
        let mut rack = shed();
        (rack.base, rack.locked) = (100, vec![0, 1]);
        rack.run(400);
        assert_eq!(rack.said(), [""; 0]);
        rack.locked = Vec::new();
        rack.run(20);
        assert_eq!(rack.said(), ["on 1", "on 0"]);
    }

    #[test]
    fn what_a_plan_is_still_at_is_not_over() {
        // It is drained, and flows for a while: it counts as gone, and another goes where that does not suffice.
        let mut rack = shed();
        (rack.on[1], rack.busy) = (true, vec![1]);
        rack.run(60);
        assert_eq!(rack.said(), [""; 0]);
        rack.base = 650;
        rack.run(20);
        assert_eq!(rack.said(), ["off 2"]);
        // After a restart nobody knows of the plan but by its claim.
        rack.standing =
            serde_json::from_slice(&serde_json::to_vec(&rack.standing).unwrap()).unwrap();
        rack.run(5);
        (rack.on[1], rack.busy, rack.base) = (false, Vec::new(), 100);
        rack.run(400);
        // The third has not been off for long enough before the others are back.
        assert_eq!(rack.said(), ["on 1", "on 0", "on 2"]);
    }

    #[test]
    fn a_clock_that_was_set_back_keeps_nothing_off() {
        let mut rack = shed();
        rack.standing.off.values_mut().for_each(|at| *at += 31_536_000_000);
        rack.base = 100;
        rack.run(400);
        assert_eq!(rack.said(), ["on 1", "on 0"]);
    }
}
