//! `/v1/limits`.

use hyper::StatusCode;

use crate::switching::body;
use crate::wire::limit::LimitList;

use super::context::{Answer, Context, json};

/// Every limit with its rating, load and headroom.
#[utoipa::path(get, path = "/v1/limits", tag = "switching",
    responses((status = 200, body = LimitList, description = "outlets, branches, phases, inlets, feeds, pairs of feeds")))]
pub async fn list(context: Context) -> Answer {
    context.only(&[])?;
    let picture = context.state.switching.limits();
    let (limits, draws) = (body::limits(&picture), body::draws(&picture));
    json(StatusCode::OK, &LimitList { limits, draws })
}
