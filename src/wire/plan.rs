//! `GET /v1/plans/{id}`, and what a switching answers.

use serde::Serialize;
use utoipa::ToSchema;

/// A plan: what is to be switched, step by step, and what came of it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PlanBody {
    /// Its id.
    pub id: String,
    /// Digest over what was asked for and what it was made for.
    pub digest: String,
    /// `planned`, `scheduled`, `running`, `done`, `stopped`, `interrupted`, `cancelled`.
    pub state: &'static str,
    /// `on`, `off`, `cycle`, or `mixed`.
    pub action: &'static str,
    /// `pdu-a/7` or a host.
    pub target: String,
    /// Why, as the one who asked said.
    pub reason: Option<String>,
    /// Who asked.
    pub by: String,
    /// When it was accepted, RFC 3339 UTC.
    pub created_at: String,
    /// When it begins at the earliest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<String>,
    /// Until when it waits for its time, once it was run: it holds neither outlets nor room until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_until: Option<String>,
    /// When it is run next by its calendar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_run_at: Option<String>,
    /// When its last time by the calendar came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_run_at: Option<String>,
    /// What came of that: `run as` and the plan's id, or `not run:` and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_run: Option<String>,
    /// When it is made anew and run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calendar: Option<String>,
    /// `stop` or `continue`: what becomes of the rest when a step fails.
    pub on_failure: &'static str,
    /// `stop` or `replan`: what becomes of the rest when more flows than was reckoned, and waiting does not help.
    pub on_overload: &'static str,
    /// `fastest` or `priority`: in which order hosts go on.
    pub order: &'static str,
    /// When it ended.
    pub finished_at: Option<String>,
    /// What came of it, once it is over: the first outcome of a step that is no success; else `skipped`, if some were not
    /// begun; else `done`, or `already_there` where nothing had to be switched.
    pub outcome: Option<&'static str>,
    /// The steps.
    pub steps: Vec<StepBody>,
    /// From acceptance to end; of a plan of several outlets, as it was planned.
    pub makespan_ms: Option<u64>,
    /// How many others have to agree before it is run.
    #[serde(skip_serializing_if = "is_zero")]
    pub needs_approvals: u32,
    /// Who agreed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<ApprovalBody>,
    /// Locked outlets that it is to switch all the same.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub over_locks: Vec<String>,
    /// The admin who lifted those locks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifted_by: Option<ApprovalBody>,
    /// The plan that it was made for, by its calendar or to bring hosts to a safe state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The step that helps, where it did not end well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde hands it over so
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// That somebody agreed to a plan.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ApprovalBody {
    /// Name and role.
    pub by: String,
    /// When, RFC 3339 UTC.
    pub at: String,
}

/// A plan that was made, with what it does to the limits.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PlannedBody {
    /// The plan; a dry run is not kept, and its id is of no use.
    #[serde(flatten)]
    pub plan: PlanBody,
    /// What flows over each limit above its outlets, and over those that load moves to.
    pub timeline: Vec<LineBody>,
    /// Hosts that keep a feed and lose another.
    pub loses_redundancy: Vec<String>,
    /// Hosts that are on, and without any feed at some moment of it.
    pub goes_dark: Vec<String>,
}

/// A plan as it stands; where it is kept and not run yet, with what it would do if it were made now.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ShownBody {
    /// The plan.
    #[serde(flatten)]
    pub plan: PlanBody,
    /// What would flow over each limit above its outlets, and over those that load moves to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeline: Option<Vec<LineBody>>,
    /// Hosts that would keep a feed and lose another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loses_redundancy: Option<Vec<String>>,
    /// Hosts that are on, and would be without any feed at some moment of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goes_dark: Option<Vec<String>>,
    /// Instead of those, why it would be refused as the rack is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unfit: Option<String>,
}

/// What flows over a limit while a plan is carried out, at worst.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LineBody {
    /// The limit.
    pub limit: String,
    /// What may flow for long, W.
    pub budget_w: f64,
    /// What may flow in first moments, W.
    pub peak_w: f64,
    /// From when on how much flows.
    pub points: Vec<PointBody>,
}

/// A point of a timeline.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PointBody {
    /// After the plan's start.
    pub at_ms: u64,
    /// W.
    pub load_w: f64,
}

/// A step of a plan.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct StepBody {
    /// From 1.
    pub n: u32,
    /// Earliest begin, after the plan's start.
    pub at_ms: u64,
    /// The outlet.
    pub outlet: String,
    /// `on` or `off`.
    pub action: &'static str,
    /// Why it is there.
    pub why: String,
    /// The steps that it waits for, by their numbers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<u32>,
    /// `pending`, `intended` (about to be written, or written and not seen yet), or the outcome: `done`,
    /// `already_there`, `unverified`, `failed`, `skipped`, `not_done`.
    pub state: &'static str,
    /// What was seen or refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// When its state last changed.
    pub at: Option<String>,
}
