//! The record of a plan in the journal: what was wished, by whom, and how far each step got. Every change of
//! it is durable before the next thing happens.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::model::id::{GroupId, HostId, OutletId, PduId, PlanId};
use crate::model::switching::{Action, Outcome, Relay};
use crate::model::time::Stamp;

use super::planner::After;

/// How a plan stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanState {
    /// Made and kept, not run.
    Planned,
    /// To be made anew and run whenever its calendar says so.
    Scheduled,
    /// Withdrawn, before or while it was run.
    Cancelled,
    /// Being carried out.
    Running,
    /// Every step succeeded.
    Done,
    /// A step did not succeed; the rest was not begun.
    Stopped,
    /// The gateway ended in the middle, and what was left was not begun.
    Interrupted,
}

impl PlanState {
    /// The word in JSON.
    pub fn word(self) -> &'static str {
        match self {
            PlanState::Planned => "planned",
            PlanState::Scheduled => "scheduled",
            PlanState::Cancelled => "cancelled",
            PlanState::Running => "running",
            PlanState::Done => "done",
            PlanState::Stopped => "stopped",
            PlanState::Interrupted => "interrupted",
        }
    }
}

/// What becomes of the rest when a step fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// It is not begun.
    #[default]
    Stop,
    /// It goes on, but for outlets of the same host and what waits for them.
    Continue,
}

impl OnFailure {
    /// The word in JSON.
    pub fn word(self) -> &'static str {
        match self {
            OnFailure::Stop => "stop",
            OnFailure::Continue => "continue",
        }
    }
}

/// What becomes of the rest when more flows than was reckoned, and waiting does not help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnOverload {
    /// It is not begun.
    #[default]
    Stop,
    /// It is planned anew for what flows now; what does not fit any more is left out.
    Replan,
}

impl OnOverload {
    /// The word in JSON.
    pub fn word(self) -> &'static str {
        match self {
            OnOverload::Stop => "stop",
            OnOverload::Replan => "replan",
        }
    }
}

/// How a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Not begun.
    Pending,
    /// About to be written: from here on only looking tells what happened.
    Intended,
    /// Over.
    Ended(Outcome),
}

impl StepState {
    /// The word in JSON.
    pub fn word(self) -> &'static str {
        match self {
            StepState::Pending => "pending",
            StepState::Intended => "intended",
            StepState::Ended(outcome) => outcome.word(),
        }
    }

    /// Its outcome, once it is over.
    pub fn outcome(self) -> Option<Outcome> {
        match self {
            StepState::Ended(outcome) => Some(outcome),
            _ => None,
        }
    }
}

/// A step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The outlet.
    pub outlet: OutletId,
    /// What its relay is to do.
    pub relay: Relay,
    /// Earliest begin after the plan's start, ms.
    pub at_ms: u64,
    /// Why it is there.
    pub why: String,
    /// Whether its host has to keep its other feeds while this one is off.
    #[serde(default)]
    pub keeps_host: bool,
    /// The steps that it waits for.
    #[serde(default)]
    pub after: Vec<After>,
    /// How it stands.
    pub state: StepState,
    /// What was seen or refused.
    pub detail: Option<String>,
    /// When its state last changed, ms since 1970.
    pub at: Option<i64>,
}

impl StepRecord {
    /// A step that has not begun.
    pub fn pending(outlet: OutletId, relay: Relay, at_ms: u64, why: String) -> Self {
        Self {
            outlet,
            relay,
            at_ms,
            why,
            keeps_host: false,
            after: Vec::new(),
            state: StepState::Pending,
            detail: None,
            at: None,
        }
    }
}

/// What a plan was made for: it is run only while this still holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mark {
    /// What each outlet's relay did.
    pub relays: BTreeMap<OutletId, String>,
    /// What each limit above them may carry, mVA.
    pub budgets: BTreeMap<String, i64>,
    /// What those may carry that are rated in amperes, mA: what that is in watts changes with the voltage all the time.
    #[serde(default)]
    pub currents: BTreeMap<String, i64>,
    /// The hosts that they feed; those that are not named feed none. An earlier version did not keep it.
    #[serde(default)]
    pub hosts: Option<BTreeMap<OutletId, HostId>>,
}

impl Mark {
    /// In what another one differs, in words; nothing if in nothing.
    pub fn difference(&self, now: &Mark) -> Option<String> {
        let mut said = Vec::new();
        for (outlet, was) in &self.relays {
            let is = now.relays.get(outlet).map_or("gone", String::as_str);
            if is != was {
                said.push(format!("{outlet} was {was} and is {is}"));
            }
        }
        if let (Some(had), Some(have)) = (&self.hosts, &now.hosts) {
            let told = |of: Option<&HostId>| {
                of.map_or_else(|| "no host".to_owned(), |host| format!("host {host}"))
            };
            let there = self.relays.keys().filter(|of| now.relays.contains_key(*of));
            for outlet in there.filter(|of| had.get(*of) != have.get(*of)) {
                let (was, is) = (told(had.get(outlet)), told(have.get(outlet)));
                said.push(format!("{outlet} fed {was} and feeds {is}"));
            }
        }
        // A limit may be in the one here and in the other there.
        let allows = |of: &Mark, name: &String| {
            let watts = of.budgets.get(name).map(|mva| format!("{} W", mva / 1_000));
            let amperes = || of.currents.get(name).map(|ma| format!("{} A", *ma as f64 / 1_000.0));
            watts.or_else(amperes).unwrap_or_else(|| "no limit".into())
        };
        let both = [self, now];
        let names = both.iter().flat_map(|of| of.budgets.keys().chain(of.currents.keys()));
        for name in names.collect::<BTreeSet<&String>>() {
            let (was, is) = (allows(self, name), allows(now, name));
            if was != is {
                said.push(format!("{name} allowed {was} and allows {is}"));
            }
        }
        (!said.is_empty()).then(|| said.join("; "))
    }
}

/// That somebody agreed to a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Who: name and role.
    pub by: String,
    /// When, ms since 1970.
    pub at: i64,
    /// The client, as its certificate named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<Maker>,
}

/// A client on whose rights a plan rests, as its certificate named it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maker {
    /// The trust domain.
    pub domain: String,
    /// The role.
    pub role: String,
    /// The name.
    pub name: String,
    /// Serial number of the certificate, hexadecimal.
    pub serial: String,
}

/// What a wish is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Select {
    /// Every outlet of a PDU.
    Pdu(PduId),
    /// An outlet.
    Outlet(OutletId),
    /// Every feed of a host, which goes dark with an off.
    Host(HostId),
    /// Everything in a group: its hosts as hosts, its outlets as outlets.
    Group(GroupId),
}

impl std::fmt::Display for Select {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Select::Pdu(pdu) => write!(f, "PDU {pdu}"),
            Select::Outlet(outlet) => write!(f, "outlet {outlet}"),
            Select::Host(host) => write!(f, "host {host}"),
            Select::Group(group) => write!(f, "group {group}"),
        }
    }
}

/// A wish: of what, what, and whether hosts behind it may go dark though they are not named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selected {
    /// Of what.
    pub select: Select,
    /// What.
    pub action: Action,
    /// Whether hosts whose last feed is among it may go dark.
    #[serde(default)]
    pub drops_hosts: bool,
}

/// A time of a plan by the calendar that has come, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Called {
    /// When it was to run, ms since 1970.
    pub at: i64,
    /// What came of it, in words; nothing since it was put on the calendar.
    #[serde(default)]
    pub what: Option<String>,
}

/// What was asked for: of which outlets what, and as which host, if one was named.
pub type Asked = (Option<HostId>, Vec<OutletId>, Action);

/// A plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its id.
    pub id: PlanId,
    /// What was asked for.
    pub action: Action,
    /// Of what: an outlet's or a host's id.
    pub target: String,
    /// Why.
    pub reason: String,
    /// Who asked: name and role.
    pub by: String,
    /// Those on whose rights it rests: who made it, and who ran it.
    #[serde(default)]
    pub makers: Vec<Maker>,
    /// When, ms since 1970.
    pub created: i64,
    /// When it was accepted to be carried out, ms since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<i64>,
    /// When it ended.
    pub finished: Option<i64>,
    /// How it stands.
    pub state: PlanState,
    /// Pause between the last off and the first on of a cycle, ms.
    pub hold_ms: u64,
    /// The steps.
    pub steps: Vec<StepRecord>,
    /// Whether its goals ask for different actions.
    #[serde(default)]
    pub mixed: bool,
    /// Where its steps have their times from the planner: how long it was planned to take, ms.
    #[serde(default)]
    pub scheduled: Option<u64>,
    /// Not before, ms since 1970.
    #[serde(default)]
    pub not_before: Option<i64>,
    /// What becomes of the rest when a step fails.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// What becomes of the rest when more flows than was reckoned.
    #[serde(default)]
    pub on_overload: OnOverload,
    /// What it was made for.
    #[serde(default)]
    pub mark: Mark,
    /// What was asked for.
    #[serde(default)]
    pub asks: Vec<Asked>,
    /// By limit: how much more flows than at its start at its worst moment, mVA. No other plan takes that room.
    #[serde(default)]
    pub reserve: BTreeMap<String, i64>,
    /// Locked outlets that it is to switch all the same, with the reasons of the locks.
    #[serde(default)]
    pub over_locks: BTreeMap<OutletId, String>,
    /// The admin who lifted those locks for this plan.
    #[serde(default)]
    pub lifted: Option<Approval>,
    /// Whether hosts go on strictly by their priority, also when it is made anew.
    #[serde(default)]
    pub by_priority: bool,
    /// Of a plan by the calendar: its last time that has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub called: Option<Called>,
    /// What was selected, for a plan that is made anew by its calendar.
    #[serde(default)]
    pub goals: Vec<Selected>,
    /// How many others have to agree before it is run.
    #[serde(default)]
    pub needs_approvals: u32,
    /// Who agreed.
    #[serde(default)]
    pub approvals: Vec<Approval>,
    /// When it is made anew and run, by its calendar.
    #[serde(default)]
    pub calendar: Option<String>,
    /// The plan that it was made for, as an instance of its calendar or to bring its hosts to a safe state.
    #[serde(default)]
    pub parent: Option<PlanId>,
    /// Who cancelled it while it was under way: no further step begins, not after a restart either.
    #[serde(default)]
    pub cancelled: Option<String>,
    /// Whether it waits as long as it takes for a PDU that does not answer, or for room.
    #[serde(default)]
    pub patient: bool,
    /// Hosts whose webhook was called since they were to go dark. One of which nothing was switched is taken back.
    #[serde(default)]
    pub drained: BTreeSet<HostId>,
}

impl Record {
    /// A record with nothing in it but what was asked for.
    pub fn new(id: PlanId, action: Action, target: String, by: String, now: Stamp) -> Self {
        Self {
            id,
            action,
            target,
            reason: String::new(),
            by,
            makers: Vec::new(),
            created: now.0,
            accepted: None,
            finished: None,
            state: PlanState::Planned,
            hold_ms: 0,
            steps: Vec::new(),
            mixed: false,
            scheduled: None,
            not_before: None,
            on_failure: OnFailure::Stop,
            on_overload: OnOverload::Stop,
            mark: Mark::default(),
            asks: Vec::new(),
            reserve: BTreeMap::new(),
            over_locks: BTreeMap::new(),
            lifted: None,
            by_priority: false,
            called: None,
            goals: Vec::new(),
            needs_approvals: 0,
            approvals: Vec::new(),
            calendar: None,
            parent: None,
            cancelled: None,
            patient: false,
            drained: BTreeSet::new(),
        }
    }

    /// SHA-256 over what was asked for (what may go dark with it and the reason included), the steps made of it, and what
    /// it was made for, hexadecimal: the same wish in the same world has the same. It stays while the steps are carried out.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{:?}\n{}\n", self.action, self.target));
        hash.update(format!("{:?} {} {:?}\n", self.reason, self.by_priority, self.goals));
        for step in &self.steps {
            let (outlet, relay, keeps) = (&step.outlet, step.relay, step.keeps_host);
            hash.update(format!("{outlet} {relay:?} {} {keeps}\n", step.at_ms));
        }
        hash.update(format!("{:?} {:?} {:?}\n", self.not_before, self.on_failure, self.mark));
        hash.update(format!("{:?} {:?} {:?}\n", self.on_overload, self.over_locks, self.calendar));
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What came of it so far: the first outcome that is no success; else done, if anything was switched.
    pub fn outcome(&self) -> Option<Outcome> {
        let ended = || self.steps.iter().filter_map(|step| step.state.outcome());
        let begun = || ended().filter(|outcome| *outcome != Outcome::Skipped);
        let failed = begun().find(|outcome| !outcome.is_success());
        let done = || begun().find(|outcome| *outcome == Outcome::Done);
        failed.or_else(done).or_else(|| begun().next()).or_else(|| ended().next())
    }

    /// Whether it ended as was wished.
    pub fn is_success(&self) -> bool {
        self.state == PlanState::Done
    }

    /// The locks that are lifted for it, by outlet.
    pub fn lifts(&self) -> BTreeMap<OutletId, String> {
        if self.lifted.is_some() { self.over_locks.clone() } else { BTreeMap::new() }
    }

    /// The outlets that it switches.
    pub fn outlets(&self) -> BTreeSet<OutletId> {
        self.steps.iter().map(|step| step.outlet.clone()).collect()
    }

    /// Ends it: done if every step succeeded, else stopped, the rest skipped.
    pub fn close(&mut self, now: Stamp) {
        for step in &mut self.steps {
            if step.state == StepState::Pending {
                step.state = StepState::Ended(Outcome::Skipped);
            }
        }
        let mut outcomes = self.steps.iter().map(|step| step.state.outcome());
        let success = outcomes.all(|outcome| outcome.is_some_and(Outcome::is_success));
        self.state = if success { PlanState::Done } else { PlanState::Stopped };
        self.finished = Some(now.0);
    }

    /// The step that helps, where it did not end well.
    pub fn next(&self) -> Option<&'static str> {
        match (self.state, self.outcome()) {
            (PlanState::Running | PlanState::Done | PlanState::Cancelled, _) => None,
            (PlanState::Planned, _) if self.approvals.len() < self.needs_approvals as usize => {
                Some(
                    "it needs approval: POST /v1/plans/{id}/approve with its digest, by an approver",
                )
            }
            (PlanState::Planned, _) if self.lifted.is_none() && !self.over_locks.is_empty() => {
                Some("an admin has to lift its locks: POST /v1/plans/{id}/lift with its digest")
            }
            (PlanState::Planned, _) => Some("run it: POST /v1/plans/{id}/run with its digest"),
            (PlanState::Scheduled, _) => Some("it is run by its calendar until it is cancelled"),
            (_, Some(Outcome::Unverified)) => Some(
                "look at the outlet; run \"pmgate driver read\" to see what the PDU says of it",
            ),
            (_, Some(Outcome::NotDone)) => {
                Some("nothing was repeated: send the request again with a new Idempotency-Key")
            }
            _ => Some(
                "see \"detail\" of its steps, mend that, and send the request again with a new Idempotency-Key, or make the plan anew",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_another_when_the_reason_or_what_may_go_dark_is_another() {
        let record = |reason: &str, drops_hosts, keeps_host| {
            let id: PlanId = "p1".parse().unwrap();
            let mut record =
                Record::new(id, Action::Off, "pdu-a/1".into(), "alice (operator)".into(), Stamp(7));
            let outlet: OutletId = "pdu-a/1".parse().unwrap();
            record.reason = reason.into();
            let select = Select::Outlet(outlet.clone());
            record.goals = vec![Selected { select, action: Action::Off, drops_hosts }];
            let step = StepRecord::pending(outlet, Relay::Off, 0, "asked for".into());
            record.steps = vec![StepRecord { keeps_host, ..step }];
            record.digest()
        };
        let digest = record("kernel", false, false);
        assert_eq!(digest, record("kernel", false, false));
        assert_ne!(digest, record("kernel", true, false));
        assert_ne!(digest, record("kernel", false, true));
        assert_ne!(digest, record("another", false, false));
    }

    #[test]
    fn the_outcome_is_the_first_failure_and_not_what_was_never_begun() {
        use Outcome::{AlreadyThere, Done, Failed, NotDone, Skipped, Unverified};
        let outcome = |steps: &[Option<Outcome>]| {
            let id: PlanId = "p1".parse().unwrap();
            let mut record = Record::new(id, Action::Off, "web".into(), "us".into(), Stamp(0));
            for (n, outcome) in (1..).zip(steps) {
                let outlet = OutletId { pdu: "pdu-a".parse().unwrap(), number: n };
                let step = StepRecord::pending(outlet, Relay::Off, 0, "asked for".into());
                let state = outcome.map_or(StepState::Pending, StepState::Ended);
                record.steps.push(StepRecord { state, ..step });
            }
            record.outcome()
        };
        assert_eq!(outcome(&[]), None);
        assert_eq!(outcome(&[None, None]), None);
        assert_eq!(outcome(&[Some(AlreadyThere), Some(AlreadyThere)]), Some(AlreadyThere));
        assert_eq!(outcome(&[Some(AlreadyThere), Some(Done)]), Some(Done));
        // By the order of the steps, whatever came of others.
        assert_eq!(outcome(&[Some(Done), Some(Unverified), Some(Failed)]), Some(Unverified));
        assert_eq!(outcome(&[Some(Failed), Some(Done), Some(Unverified)]), Some(Failed));
        // What was skipped for a failure is not the failure, though it comes before it.
        assert_eq!(outcome(&[Some(Skipped), Some(Done), Some(NotDone)]), Some(NotDone));
        assert_eq!(outcome(&[Some(Done), Some(Skipped)]), Some(Done));
        assert_eq!(outcome(&[Some(Skipped), Some(Skipped)]), Some(Skipped));
    }
}
