//! Load shedding: when more flows over a limit than a rule allows, and for how long, what goes off first, and when it
//! comes back. Decides only; what it decides is planned and carried out as every other wish.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::id::OutletId;
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

/// How long something is left alone that did not do as it was told, the first time; twice as long each time after that.
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
    /// Its outlets.
    pub own: Vec<OutletId>,
    /// Those of them that are seen on.
    pub on: Vec<OutletId>,
    /// Whether a plan is at it that switches it off for good.
    pub goes_off: bool,
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
    /// Of what it switched off the outlets that were on: they come back, and no other.
    #[serde(default)]
    pub fed: BTreeMap<String, BTreeSet<OutletId>>,
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
    /// How often something was to go off or come back, and did not.
    #[serde(skip)]
    failed: BTreeMap<String, u32>,
}

/// Whether all that was on of something is seen on again.
fn is_back(of: &Candidate, fed: Option<&BTreeSet<OutletId>>) -> bool {
    match fed {
        Some(fed) => fed.iter().all(|outlet| of.on.contains(outlet)),
        None => of.is_on == Some(true),
    }
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
        // What does not feed the host any more is not waited for.
        for of in candidates {
            let Some(fed) = self.fed.get_mut(&of.select.to_string()) else { continue };
            fed.retain(|outlet| of.own.contains(outlet));
        }
        self.fed.retain(|_, fed| !fed.is_empty());
        // What is on again is no more this rule's, whoever switched it on. What a plan is at is not over yet.
        self.off.retain(|name, _| {
            let of = candidates.iter().find(|of| of.select.to_string() == *name);
            of.is_some_and(|of| busy || of.hindrance.is_some() || !is_back(of, self.fed.get(name)))
        });
        self.fed.retain(|name, _| self.off.contains_key(name));
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
        of.goes_off && self.off.contains_key(&of.select.to_string())
    }

    /// Forgets what this rule switched off and does not name any more; tells what.
    pub fn strays(&mut self, candidates: &[Candidate]) -> Vec<String> {
        let is_stray = |name: &&String| candidates.iter().all(|of| of.select.to_string() != **name);
        let strays: Vec<String> = self.off.keys().filter(is_stray).cloned().collect();
        self.off.retain(|name, _| !strays.contains(name));
        strays
    }

    /// Somebody wishes these outlets off: they do not come back. Tells what is forgotten, as nothing of it is left.
    pub fn lets_go(&mut self, outlets: &BTreeSet<OutletId>) -> Vec<String> {
        let mut gone = Vec::new();
        for (name, fed) in &mut self.fed {
            let before = fed.len();
            fed.retain(|outlet| !outlets.contains(outlet));
            if fed.is_empty() && before > 0 {
                gone.push(name.clone());
            }
        }
        self.off.retain(|name, _| !gone.contains(name));
        self.fed.retain(|name, _| !gone.contains(name));
        gone
    }

    /// When this rule switched something off, ms since 1970, if it is not back.
    pub fn since(&self, name: &str) -> Option<i64> {
        self.off.get(name).copied()
    }

    /// Notes that a plan is over that was to switch something off, or back on: what it did not is left alone for a while,
    /// which grows each time, and others go in its place. True if it did not.
    pub fn came_of(&mut self, of: &Candidate, goes_off: bool, now: Tick) -> bool {
        let name = of.select.to_string();
        let is_back = || is_back(of, self.fed.get(&name));
        let as_wished = if goes_off { of.is_on != Some(true) } else { is_back() };
        if as_wished || of.hindrance.is_some() || !goes_off && !self.off.contains_key(&name) {
            self.failed.remove(&name);
            return false;
        }
        let times = self.failed.entry(name).or_default();
        let rest = Span(FAILED.0 << (*times).min(MOST_DOUBLINGS));
        *times += 1;
        let why = if goes_off { "it did not go off" } else { "it did not come back" };
        // What else was told a moment ago the meters may not show yet.
        self.refused.insert(of.select.to_string(), (now + rest, why.into()));
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

    /// Notes that something goes off, of which these outlets are on.
    pub fn goes_off(&mut self, select: &Select, on: &[OutletId], at: Stamp) {
        let name = select.to_string();
        self.back.remove(&name);
        self.off.insert(name.clone(), at.0);
        // What another try took off before comes back as well.
        self.fed.entry(name).or_default().extend(on.iter().cloned());
    }

    /// Takes back what was noted since: the plan was not begun.
    pub fn takes_back(&mut self, before: Standing) {
        (self.off, self.back, self.fed) = (before.off, before.back, before.fed);
    }

    /// What is to come back of something; nothing where an earlier version did not note that.
    pub fn fed(&self, select: &Select) -> Option<&BTreeSet<OutletId>> {
        self.fed.get(&select.to_string()).filter(|fed| !fed.is_empty())
    }

    /// Notes that something comes back. It stands as switched off until it is seen on.
    pub fn comes_back(&mut self, select: &Select, at: Stamp) {
        self.back.insert(select.to_string(), at.0);
    }
}

#[cfg(test)]
mod tests;
