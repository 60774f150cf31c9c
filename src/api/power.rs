//! `POST …/power`: the doors to the one gate.

use hyper::header::{HeaderValue, LOCATION};
use hyper::{Response, StatusCode};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::model::id::{GroupId, HostId, OutletId, PduId};
use crate::model::limits::{KEY_CHARS, REASON_CHARS};
use crate::model::switching::Action;
use crate::switching::{PlanState, Record, Request, Target, body};
use crate::wire::plan::PlanBody;
use crate::wire::problem::Problem;

use super::context::{Answer, Body, Context, json, object};
use super::problem::{bad, not_found, of_plan};

/// What is to be done, and why.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PowerBody {
    /// `on`, `off` or `cycle`.
    #[schema(value_type = String)]
    pub action: Action,
    /// Why, for the record; up to 500 characters.
    #[serde(default)]
    pub reason: String,
}

/// Switches an outlet.
#[utoipa::path(post, path = "/v1/pdus/{pdu}/outlets/{n}/power", tag = "switching",
    params(("pdu" = String, Path, description = "configured id of the PDU"), ("n" = u16, Path, description = "outlet number"), ("Idempotency-Key" = Option<String>, Header, description = "a repeated request with the same key never switches twice"), ("Prefer" = Option<String>, Header, description = "respond-async answers 202 at once")),
    request_body = PowerBody,
    responses((status = 200, body = PlanBody, description = "done, and seen in the wished state"), (status = 202, body = PlanBody, description = "accepted; follow Location"),
        (status = 403, body = Problem, content_type = "application/problem+json"), (status = 404, body = Problem, content_type = "application/problem+json"), (status = 409, body = Problem, content_type = "application/problem+json"), (status = 504, body = Problem, content_type = "application/problem+json", description = "written, but not seen in the wished state")))]
pub async fn outlet(context: Context) -> Answer {
    context.only(&[])?;
    let body = body(&context)?;
    let target = Target::Outlet(outlet_of(&context, context.param("n"))?);
    switch(&context, target, body.action, body.reason).await
}

/// Switches every feed of a host.
#[utoipa::path(post, path = "/v1/hosts/{host}/power", tag = "switching",
    params(("host" = String, Path, description = "configured id of the host"), ("Idempotency-Key" = Option<String>, Header, description = "a repeated request with the same key never switches twice"), ("Prefer" = Option<String>, Header, description = "respond-async answers 202 at once")),
    request_body = PowerBody,
    responses((status = 200, body = PlanBody), (status = 202, body = PlanBody), (status = 403, body = Problem, content_type = "application/problem+json"), (status = 404, body = Problem, content_type = "application/problem+json"), (status = 409, body = Problem, content_type = "application/problem+json"), (status = 504, body = Problem, content_type = "application/problem+json")))]
pub async fn host(context: Context) -> Answer {
    context.only(&[])?;
    let body = body(&context)?;
    let text = context.param("host");
    let id: HostId = text.parse().map_err(|_| {
        not_found(&format!("host \"{}\"", text.chars().take(64).collect::<String>()))
    })?;
    switch(&context, Target::Host(id), body.action, body.reason).await
}

/// Switches everything in a group, as a plan that passes no limit.
#[utoipa::path(post, path = "/v1/groups/{group}/power", tag = "switching",
    params(("group" = String, Path, description = "configured id of the group"), ("Idempotency-Key" = Option<String>, Header, description = "a repeated request with the same key never switches twice"), ("Prefer" = Option<String>, Header, description = "respond-async answers 202 at once")),
    request_body = PowerBody,
    responses((status = 200, body = PlanBody), (status = 202, body = PlanBody), (status = 403, body = Problem, content_type = "application/problem+json"), (status = 404, body = Problem, content_type = "application/problem+json"), (status = 409, body = Problem, content_type = "application/problem+json"), (status = 504, body = Problem, content_type = "application/problem+json")))]
pub async fn group(context: Context) -> Answer {
    context.only(&[])?;
    let body = body(&context)?;
    let text = context.param("group");
    let id: GroupId = text.parse().map_err(|_| {
        not_found(&format!("group \"{}\"", text.chars().take(64).collect::<String>()))
    })?;
    switch(&context, Target::Group(id), body.action, body.reason).await
}

/// The outlet that a path names.
pub fn outlet_of(context: &Context, number: &str) -> Result<OutletId, Problem> {
    let text = context.param("pdu");
    let pdu: PduId = text.parse().map_err(|_| {
        not_found(&format!("PDU \"{}\"", text.chars().take(64).collect::<String>()))
    })?;
    let shown: String = number.chars().take(20).collect();
    let number = super::pdus::number(number)
        .ok_or_else(|| not_found(&format!("outlet \"{shown}\" on PDU {pdu}")))?;
    Ok(OutletId { pdu, number })
}

fn body(context: &Context) -> Result<PowerBody, Problem> {
    let example = r#"send {"action":"on|off|cycle","reason":"…"}"#;
    let body: PowerBody = object(&context.body)
        .map_err(|error| bad(format!("the body is not right: {error}"), example))?;
    if body.reason.chars().count() > REASON_CHARS {
        return Err(bad(
            format!("the reason has more than {REASON_CHARS} characters"),
            "say it shorter",
        ));
    }
    Ok(body)
}

/// Submits a wish and answers once it has ended, or at once where the client prefers that.
pub async fn switch(context: &Context, target: Target, action: Action, reason: String) -> Answer {
    let record = carry_out(context, target, action, reason).await?;
    answer(&record)
}

/// Submits a wish; the plan as it ended, or as it stands where the client prefers not to wait.
pub async fn carry_out(
    context: &Context,
    target: Target,
    action: Action,
    reason: String,
) -> Result<Record, Problem> {
    let key = idempotency_key(context)?;
    let request = Request { who: context.who.clone(), action, target, reason, key };
    let ticket = context.state.switching.submit(request).await?;
    let prefers = context.headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let at_once = prefers
        .flat_map(|value| value.split(','))
        .any(|word| word.trim().eq_ignore_ascii_case("respond-async"));
    Ok(if at_once { ticket.now() } else { ticket.end().await })
}

/// A plan as a response: 200 where it succeeded, 202 while it runs, a problem where it failed.
pub fn answer(record: &Record) -> Answer {
    match record.state {
        PlanState::Done => Ok(located(json(StatusCode::OK, &body::of(record))?, record)),
        PlanState::Running => Ok(located(json(StatusCode::ACCEPTED, &body::of(record))?, record)),
        _ => Err(of_plan(record)),
    }
}

pub(super) fn located(mut response: Response<Body>, record: &Record) -> Response<Body> {
    if let Ok(value) = HeaderValue::from_str(&format!("/v1/plans/{}", record.id)) {
        response.headers_mut().insert(LOCATION, value);
    }
    response
}

pub(super) fn idempotency_key(context: &Context) -> Result<Option<String>, Problem> {
    let Some(value) = context.headers.get("idempotency-key") else { return Ok(None) };
    let plain = value.to_str().ok().filter(|text| !text.is_empty() && text.len() <= KEY_CHARS);
    let wrong = || {
        bad(
            "the Idempotency-Key is not right",
            format!("send 1 to {KEY_CHARS} printable ASCII characters, such as a UUID"),
        )
    };
    plain.map(|text| Some(text.to_owned())).ok_or_else(wrong)
}
