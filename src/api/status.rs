//! `/v1/status` and `/v1/version`.

use std::sync::atomic::Ordering;

use hyper::StatusCode;

use crate::model::time::Stamp;
use crate::model::view::Health;
use crate::wire::problem::Problem;
use crate::wire::status::{PduCounts, StatusBody, StoreBody, VersionBody};

use super::context::{Answer, Context, State, json};

/// The version of the program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How the gateway is doing.
#[utoipa::path(get, path = "/v1/status", tag = "gateway", responses((status = 200, body = StatusBody), (status = 403, body = Problem, content_type = "application/problem+json")))]
pub async fn status(context: Context) -> Answer {
    context.only(&[])?;
    json(StatusCode::OK, &body(&context.state))
}

/// What runs.
#[utoipa::path(get, path = "/v1/version", tag = "gateway", responses((status = 200, body = VersionBody), (status = 403, body = Problem, content_type = "application/problem+json")))]
pub async fn version(context: Context) -> Answer {
    context.only(&[])?;
    json(StatusCode::OK, &VersionBody { name: "pmgate", version: VERSION, api: "v1" })
}

fn body(state: &State) -> StatusBody {
    let mut pdus = PduCounts::default();
    let mut alarms = Vec::new();
    for view in state.board.views() {
        match &view.health {
            Health::Online => pdus.online += 1,
            Health::Stale(reason) => {
                pdus.stale += 1;
                alarms.push(format!("{} is stale: {reason}", view.id));
            }
            Health::Offline(reason) => {
                pdus.offline += 1;
                alarms.push(format!("{} is offline: {reason}", view.id));
            }
        }
    }
    let views = state.board.views();
    let strange = crate::plan::strange(&state.site.borrow().rack, &views);
    alarms.extend(strange.into_iter().map(|of| of.text));
    alarms.extend(state.switching.idle_rules());
    let dropped = state.counts.dropped.load(Ordering::Relaxed);
    alarms.extend(state.store.alarms());
    if dropped > 0 {
        alarms.push(format!("{dropped} rows of readings were not stored since the start"));
    }
    if state.config_refused.load(Ordering::Relaxed) {
        alarms.push("the last change of the configuration was refused: run \"pmgate config check\"; the one before it is in use".into());
    }
    let tls = state.tls.borrow().clone();
    let now = state.clock.stamp();
    let in_days = |at: i64| (at - now.0 / 1_000) / 86_400;
    if in_days(tls.not_after) < 14 {
        alarms
            .push(format!("the gateway's certificate expires at {}", Stamp(tls.not_after * 1_000)));
    }
    if let Some(next) = tls.crl_next.filter(|next| in_days(*next) < 7) {
        alarms.push(format!("the revocation list is to be renewed by {}", Stamp(next * 1_000)));
    }
    StatusBody {
        state: if alarms.is_empty() { "ok" } else { "degraded" },
        rack: state.rack.to_string(),
        version: VERSION,
        started_at: state.started_at.to_string(),
        uptime_ms: (state.clock.tick() - state.started).0,
        pdus,
        alarms,
        store: StoreBody {
            kind: state.store.kind(),
            rows_written: state.counts.written.load(Ordering::Relaxed),
            rows_dropped: dropped,
            bytes: state.store.bytes(),
        },
        certificate_expires_at: Some(Stamp(tls.not_after * 1_000).to_string()),
        running_plans: state.switching.running_plans(),
    }
}
