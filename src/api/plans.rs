//! `/v1/plans`.

use hyper::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::model::id::PlanId;
use crate::wire::plan::PlanBody;
use crate::wire::problem::Problem;

use super::context::{Answer, Context, json};
use super::problem::not_found;

/// The latest plans.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PlanList {
    /// Plans, newest first.
    pub plans: Vec<PlanBody>,
    /// What to give as `cursor` for the next page; null on the last.
    pub next_cursor: Option<String>,
}

/// The latest plans, newest first.
#[utoipa::path(get, path = "/v1/plans", tag = "switching",
    params(("limit" = Option<usize>, Query, description = "most plans in the answer, 1 to 1000; 100 unless told"), ("cursor" = Option<String>, Query, description = "next_cursor of the page before")),
    responses((status = 200, body = PlanList), (status = 400, body = Problem, content_type = "application/problem+json")))]
pub async fn list(context: Context) -> Answer {
    context.only(&["limit", "cursor"])?;
    let records = context.state.switching.latest(1_000).await?;
    let keyed = records.iter().map(|record| (record.id.to_string(), record.body())).collect();
    let (plans, next_cursor) = context.page(keyed, 100)?;
    json(StatusCode::OK, &PlanList { plans, next_cursor })
}

/// One plan.
#[utoipa::path(get, path = "/v1/plans/{plan}", tag = "switching",
    params(("plan" = String, Path, description = "id of the plan")),
    responses((status = 200, body = PlanBody), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub async fn show(context: Context) -> Answer {
    context.only(&[])?;
    let text = context.param("plan");
    let missing = || not_found(&format!("plan \"{}\"", text.chars().take(64).collect::<String>()));
    let id: PlanId = text.parse().map_err(|_| missing())?;
    let ticket = context.state.switching.ticket(&id).await?.ok_or_else(missing)?;
    json(StatusCode::OK, &ticket.now().body())
}
