//! `…/lock`: outlets that are not switched until an admin says so.

use serde::Deserialize;
use utoipa::ToSchema;

use crate::model::limits::REASON_CHARS;
use crate::wire::pdu::OutletBody;
use crate::wire::problem::Problem;

use super::context::{Answer, Context, object};
use super::power::outlet_of;
use super::problem::bad;

/// Why an outlet is locked.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LockBody {
    /// Why; 1 to 500 characters.
    pub reason: String,
}

/// Locks an outlet.
#[utoipa::path(put, path = "/v1/pdus/{pdu}/outlets/{n}/lock", tag = "switching",
    params(("pdu" = String, Path, description = "configured id of the PDU"), ("n" = u16, Path, description = "outlet number")),
    request_body = LockBody,
    responses((status = 200, body = OutletBody, description = "the outlet"), (status = 403, body = Problem, content_type = "application/problem+json", description = "needs the role admin"), (status = 404, body = Problem, content_type = "application/problem+json", description = "there is no such outlet")))]
pub async fn put(context: Context) -> Answer {
    context.only(&[])?;
    let outlet = outlet_of(&context, context.param("n"))?;
    let body: LockBody = object(&context.body).map_err(|error| {
        bad(format!("the body is not right: {error}"), r#"send {"reason":"…"}"#)
    })?;
    if !(1..=REASON_CHARS).contains(&body.reason.chars().count()) {
        let detail = format!("a lock needs a reason of 1 to {REASON_CHARS} characters");
        return Err(bad(detail, r#"send {"reason":"…"}"#));
    }
    context.state.switching.lock_for(&context.who, &outlet, &body.reason).await?;
    super::pdus::one_outlet(&context).await
}

/// Lifts the lock of an outlet.
#[utoipa::path(delete, path = "/v1/pdus/{pdu}/outlets/{n}/lock", tag = "switching",
    params(("pdu" = String, Path, description = "configured id of the PDU"), ("n" = u16, Path, description = "outlet number")),
    responses((status = 200, body = OutletBody, description = "the outlet"), (status = 403, body = Problem, content_type = "application/problem+json", description = "needs the role admin"), (status = 404, body = Problem, content_type = "application/problem+json", description = "there is no such outlet"), (status = 409, body = Problem, content_type = "application/problem+json", description = "the configuration locks it")))]
pub async fn delete(context: Context) -> Answer {
    context.only(&[])?;
    let outlet = outlet_of(&context, context.param("n"))?;
    context.state.switching.unlock_for(&context.who, &outlet).await?;
    super::pdus::one_outlet(&context).await
}
