//! `/v1/limits`.

use hyper::StatusCode;

use crate::switching::body;
use crate::wire::limit::LimitList;
use crate::wire::problem::Problem;

use super::context::{Answer, Context, json};
use super::pdus::read_since;

/// Every limit with its rating, load and headroom.
#[utoipa::path(get, path = "/v1/limits", tag = "switching",
    params(("max_age_ms" = Option<u64>, Query, description = "how old the readings may be")),
    responses((status = 200, body = LimitList, description = "outlets, branches, phases, inlets, feeds, pairs of feeds"), (status = 400, body = Problem, content_type = "application/problem+json")))]
pub async fn list(context: Context) -> Answer {
    context.only(&["max_age_ms"])?;
    if let Some(since) = context.since()? {
        read_since(&context, &context.state.board.views(), since).await;
    }
    let picture = context.state.switching.limits();
    let (limits, draws) = (body::limits(&picture), body::draws(&picture));
    json(StatusCode::OK, &LimitList { limits, draws })
}
