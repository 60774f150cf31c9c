//! `/v1/pdus` and their outlets.

use std::sync::Arc;

use hyper::StatusCode;

use crate::model::id::PduId;
use crate::model::time::Tick;
use crate::model::view::PduView;
use crate::wire::pdu::{OutletBody, OutletList, PduBody, PduList, body, outlet as outlet_body};
use crate::wire::problem::Problem;

use super::context::{Answer, Context, json};
use super::problem::not_found;

/// The view that a path names, as young as was asked for.
pub async fn view(context: &Context) -> Result<Arc<PduView>, Problem> {
    let text = context.param("pdu");
    let missing = || not_found(&format!("PDU \"{}\"", text.chars().take(64).collect::<String>()));
    let id: PduId = text.parse().map_err(|_| missing())?;
    let handle = context.state.fleet.get(&id).ok_or_else(missing)?;
    Ok(match context.since()? {
        Some(since) => handle.since(since).await,
        None => handle.view(),
    })
}

fn body_of(context: &Context, view: &PduView, now: Tick) -> PduBody {
    let site = context.state.switching.standing();
    body(view, &site, now)
}

/// PDUs as they are once each was read since a moment, or could not be.
pub async fn read_since(
    context: &Context,
    views: &[Arc<PduView>],
    since: Tick,
) -> Vec<Arc<PduView>> {
    let handles =
        views.iter().filter_map(|view| context.state.fleet.get(&view.id)).collect::<Vec<_>>();
    let polls: Vec<_> = handles
        .into_iter()
        .map(|handle| tokio::spawn(async move { handle.since(since).await }))
        .collect();
    let mut read = Vec::new();
    for poll in polls {
        read.extend(poll.await.ok());
    }
    read
}

/// All PDUs.
#[utoipa::path(get, path = "/v1/pdus", tag = "pdus",
    params(("limit" = Option<usize>, Query, description = "most PDUs in the answer, 1 to 1000; 100 unless told"), ("cursor" = Option<String>, Query, description = "next_cursor of the page before"), ("max_age_ms" = Option<u64>, Query, description = "how old the readings may be")),
    responses((status = 200, body = PduList), (status = 400, body = Problem, content_type = "application/problem+json")))]
pub async fn list(context: Context) -> Answer {
    context.only(&["limit", "cursor", "max_age_ms"])?;
    let views = context.state.board.views();
    let keyed = views.into_iter().map(|view| (view.id.to_string(), view)).collect();
    let (mut views, next_cursor) = context.page(keyed, 100)?;
    if let Some(since) = context.since()? {
        views = read_since(&context, &views, since).await;
    }
    let now = context.state.clock.tick();
    let pdus = views.iter().map(|view| body_of(&context, view, now)).collect();
    json(StatusCode::OK, &PduList { pdus, next_cursor })
}

/// One PDU.
#[utoipa::path(get, path = "/v1/pdus/{pdu}", tag = "pdus",
    params(("pdu" = String, Path, description = "its configured id"), ("max_age_ms" = Option<u64>, Query, description = "how old the readings may be")),
    responses((status = 200, body = PduBody), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub async fn show(context: Context) -> Answer {
    context.only(&["max_age_ms"])?;
    let view = view(&context).await?;
    json(StatusCode::OK, &body_of(&context, &view, context.state.clock.tick()))
}

/// The outlets of a PDU.
#[utoipa::path(get, path = "/v1/pdus/{pdu}/outlets", tag = "pdus",
    params(("pdu" = String, Path, description = "its configured id"), ("limit" = Option<usize>, Query, description = "most outlets in the answer, 1 to 1000; 1000 unless told"), ("cursor" = Option<String>, Query, description = "next_cursor of the page before"), ("max_age_ms" = Option<u64>, Query, description = "how old the readings may be")),
    responses((status = 200, body = OutletList), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub async fn outlets(context: Context) -> Answer {
    context.only(&["limit", "cursor", "max_age_ms"])?;
    let view = view(&context).await?;
    let site = context.state.switching.standing();
    let keyed = view
        .outlets()
        .map(|(at, part)| (part.number.to_string(), outlet_body(&view, at, part, &site)))
        .collect();
    let (outlets, next_cursor) = context.page(keyed, 1_000)?;
    let list = OutletList {
        pdu: view.id.clone(),
        state: view.health.word(),
        observed_at: view.observed_at.map(|at| at.to_string()),
        age_ms: view.observed.map(|at| (context.state.clock.tick() - at).0),
        outlets,
        next_cursor,
    };
    json(StatusCode::OK, &list)
}

/// One outlet.
#[utoipa::path(get, path = "/v1/pdus/{pdu}/outlets/{n}", tag = "pdus",
    params(("pdu" = String, Path, description = "its configured id"), ("n" = u16, Path, description = "outlet number"), ("max_age_ms" = Option<u64>, Query, description = "how old the readings may be")),
    responses((status = 200, body = OutletBody), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub async fn outlet(context: Context) -> Answer {
    context.only(&["max_age_ms"])?;
    one_outlet(&context).await
}

/// The outlet of the path, as an answer.
pub async fn one_outlet(context: &Context) -> Answer {
    let view = view(context).await?;
    let shown: String = context.param("n").chars().take(20).collect();
    let missing = || not_found(&format!("outlet \"{shown}\" on PDU {}", view.id));
    let number = number(context.param("n")).ok_or_else(missing)?;
    let at = view.layout.outlet(number).ok_or_else(missing)?;
    let part = &view.layout.parts(crate::model::metric::Scope::Outlet)[usize::from(at)];
    let site = context.state.switching.standing();
    json(StatusCode::OK, &outlet_body(&view, at, part, &site))
}

/// An outlet's number as it stands in a path: digits, without a leading zero.
pub fn number(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}
