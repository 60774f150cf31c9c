//! The record of a plan in the journal: what was wished, by whom, and how far each step got. Every change of
//! it is durable before the next thing happens.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::model::id::{HostId, OutletId, PlanId};
use crate::model::switching::{Action, Outcome, Relay};
use crate::model::time::Stamp;
use crate::wire::plan::{PlanBody, StepBody};

use super::plans::{Mark, OnFailure};

/// How a plan stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanState {
    /// Made and kept, not run.
    Planned,
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
            PlanState::Cancelled => "cancelled",
            PlanState::Running => "running",
            PlanState::Done => "done",
            PlanState::Stopped => "stopped",
            PlanState::Interrupted => "interrupted",
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
    /// Whether its host has to keep another feed while this one is off.
    #[serde(default)]
    pub keeps_host: bool,
    /// How it stands.
    pub state: StepState,
    /// What was seen or refused.
    pub detail: Option<String>,
    /// When its state last changed, ms since 1970.
    pub at: Option<i64>,
}

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
    /// When, ms since 1970.
    pub created: i64,
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
    /// What it was made for.
    #[serde(default)]
    pub mark: Mark,
    /// What was asked for: by host, if one was named, which outlets, and what.
    #[serde(default)]
    pub asks: Vec<(Option<HostId>, Vec<OutletId>, Action)>,
}

impl Record {
    /// SHA-256 over what was asked for and the steps made of it, hexadecimal.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{:?}\n{}\n{}\n", self.action, self.target, self.created));
        for step in &self.steps {
            hash.update(format!("{} {:?} {}\n", step.outlet, step.relay, step.at_ms));
        }
        hash.update(format!("{:?} {:?} {:?}\n", self.not_before, self.on_failure, self.mark));
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What came of it: the outcome of the last step that was begun.
    pub fn outcome(&self) -> Option<Outcome> {
        let begun = self.steps.iter().rev().filter_map(|step| step.state.outcome());
        begun.clone().find(|outcome| *outcome != Outcome::Skipped).or_else(|| begun.clone().next())
    }

    /// Whether it ended as was wished.
    pub fn is_success(&self) -> bool {
        self.state == PlanState::Done
    }

    /// The body for clients.
    pub fn body(&self) -> PlanBody {
        let stamp = |ms: i64| Stamp(ms).to_string();
        let step = |(n, step): (u32, &StepRecord)| StepBody {
            n,
            at_ms: step.at_ms,
            outlet: step.outlet.to_string(),
            action: step.relay.word(),
            why: step.why.clone(),
            state: step.state.word(),
            detail: step.detail.clone(),
            at: step.at.map(stamp),
        };
        PlanBody {
            id: self.id.to_string(),
            digest: self.digest(),
            state: self.state.word(),
            action: if self.mixed { "mixed" } else { self.action.word() },
            target: self.target.clone(),
            reason: (!self.reason.is_empty()).then(|| self.reason.clone()),
            by: self.by.clone(),
            created_at: stamp(self.created),
            finished_at: self.finished.map(stamp),
            outcome: self.outcome().map(Outcome::word),
            steps: (1..).zip(&self.steps).map(step).collect(),
            makespan_ms: match (self.finished, self.scheduled) {
                (Some(end), None) => Some(Stamp(end).since(Stamp(self.created)).0),
                (_, planned) => planned,
            },
            next: self.next().map(str::to_owned),
        }
    }

    /// The step that helps, where it did not end well.
    pub fn next(&self) -> Option<&'static str> {
        match (self.state, self.outcome()) {
            (PlanState::Running | PlanState::Done | PlanState::Cancelled, _) => None,
            (PlanState::Planned, _) => Some("run it: POST /v1/plans/{id}/run with its digest"),
            (_, Some(Outcome::Unverified)) => Some(
                "look at the outlet; run \"pmgate driver read\" to see what the PDU says of it",
            ),
            (_, Some(Outcome::NotDone)) => {
                Some("nothing was repeated: send the request again with a new Idempotency-Key")
            }
            _ => Some(
                "see \"detail\" of the step that failed, mend that, and send the request again with a new Idempotency-Key",
            ),
        }
    }
}
