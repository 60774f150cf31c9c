//! Errors as problem+json, in one place: which refusal is which status.

use hyper::{Response, StatusCode};

use crate::model::switching::Outcome;
use crate::plan::guard::Hindrance;
use crate::store::StoreError;
use crate::switching::{Record, Refusal, body};
use crate::wire::problem::Problem;

use super::context::{Body, bytes};

/// A problem as a response.
pub fn response(problem: &Problem) -> Response<Body> {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // Plain strings and numbers always make JSON.
    let content = serde_json::to_vec(problem).unwrap_or_else(|_| b"{}".to_vec());
    bytes(status, "application/problem+json", content)
}

/// There is no such thing.
pub fn not_found(what: &str) -> Problem {
    Problem::new(
        404,
        "Not found",
        format!("there is no {what}"),
        "list what there is: GET /v1/pdus, GET /v1/hosts, GET /v1/plans, GET /openapi.json",
    )
}

/// The request's body or path is not right.
pub fn bad(detail: impl Into<String>, next: impl Into<String>) -> Problem {
    Problem::new(400, "Bad request", detail, next)
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (status, title) = match &refusal {
            Refusal::Denied(_) => (403, "Forbidden"),
            Refusal::Hindered(Hindrance::Unknown(_)) => (404, "Not found"),
            Refusal::Hindered(Hindrance::Locked { .. }) => (409, "Outlet locked"),
            Refusal::Hindered(Hindrance::NotSwitchable { .. }) => (409, "Not switchable"),
            Refusal::Hindered(Hindrance::Doubtful { .. }) => (409, "State not known for certain"),
            Refusal::Busy { .. } => (409, "Being switched"),
            Refusal::Unfit(crate::plan::Refusal::Limit { .. }) => (409, "Limit would be passed"),
            Refusal::Unfit(crate::plan::Refusal::LastFeed { .. }) => (409, "Last feed of a host"),
            Refusal::Unfit(crate::plan::Refusal::Circle { .. }) => {
                (409, "Hosts wait for each other")
            }
            Refusal::Unfit(crate::plan::Refusal::Needs { .. }) => (409, "Host needs another"),
            Refusal::NeedsApproval { .. } | Refusal::NeedsPlan => (409, "Needs approval"),
            Refusal::OwnApproval { .. } => (409, "Own approval"),
            Refusal::NeedsLift { .. } => (409, "Locks not lifted"),
            Refusal::NothingToLift { .. } => (409, "Nothing to lift"),
            Refusal::Calendar(_) | Refusal::Conflict { .. } | Refusal::NotBefore => {
                (400, "Bad request")
            }
            Refusal::TooMany => (409, "Too many plans"),
            Refusal::Changed { .. } => (409, "Plan does not fit any more"),
            Refusal::OtherDigest { .. } => (409, "Other digest"),
            Refusal::NotPlanned { .. } => (409, "Plan cannot be run"),
            Refusal::KeyReused => (422, "Idempotency-Key reused"),
            Refusal::Ending => (503, "Shutting down"),
            Refusal::Journal(_) | Refusal::NotDurable { .. } => (507, "Journal failed"),
        };
        let mut problem = Problem::new(status, title, refusal.to_string(), refusal.next());
        if let Refusal::Unfit(crate::plan::Refusal::Limit {
            limit,
            load_mva,
            headroom_mva,
            needs_mva,
            leave_out,
            ..
        }) = refusal
        {
            let watts = |mva: i64| Some(mva / 1_000);
            problem.limit = Some(limit);
            (problem.load_w, problem.headroom_w) = (watts(load_mva), watts(headroom_mva));
            problem.needs_w = watts(needs_mva);
            problem.leave_out = leave_out.iter().map(ToString::to_string).collect();
        }
        problem
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Problem::new(
            503,
            "Store failed",
            error.to_string(),
            "see \"alarms\" at GET /v1/status; polling and switching go on",
        )
    }
}

/// A plan that did not end as was wished.
pub fn of_plan(record: &Record) -> Problem {
    let failed = record.steps.iter().rev().find(|step| {
        step.state.outcome().is_some_and(|o| !o.is_success() && o != Outcome::Skipped)
    });
    // Where all was switched it is a webhook that was not answered.
    let step = failed.or_else(|| record.steps.iter().rev().find(|step| step.detail.is_some()));
    let detail =
        step.and_then(|step| step.detail.clone()).unwrap_or_else(|| record.state.word().to_owned());
    let outlet = step.map_or(String::new(), |step| format!("outlet {}: ", step.outlet));
    let (status, title) = match record.outcome() {
        Some(Outcome::Unverified) => (504, "Not verified"),
        Some(Outcome::NotDone) => (409, "Not done"),
        Some(Outcome::Done) => (502, "Plan stopped"),
        _ => (502, "Not switched"),
    };
    let mut problem = Problem::new(
        status,
        title,
        format!("{outlet}{detail}"),
        record.next().unwrap_or("see the plan"),
    );
    problem.plan = Some(record.id.to_string());
    problem.outcome = body::outcome(record).map(|outcome| outcome.word().to_owned());
    problem
}
