//! `/openapi.json`: the API described (OpenAPI 3.1), made from the bodies and handlers themselves.

use hyper::StatusCode;
use utoipa::OpenApi;

use super::context::{Answer, Context, json};
use super::{events, hosts, pdus, plans, power, series, status};

#[derive(OpenApi)]
#[openapi(
    info(title = "PowerMan", description = "One gateway to the power distribution units of a rack. Every connection is TLS 1.3 with a client certificate; its role decides what may be called."),
    paths(
        pdus::list, pdus::show, pdus::outlets, pdus::outlet,
        power::outlet, power::host,
        hosts::list, hosts::show,
        plans::list, plans::show,
        series::series, events::events, status::status, status::version,
    ),
    tags(
        (name = "pdus", description = "PDUs and their outlets"), (name = "switching", description = "Switching, and the plans that it makes"),
        (name = "hosts", description = "Loads with one or more feeds"), (name = "series", description = "Readings over time"),
        (name = "events", description = "What happens"), (name = "gateway", description = "The gateway itself"),
    ),
)]
struct Document;

/// The document.
pub async fn document(context: Context) -> Answer {
    context.only(&[])?;
    json(StatusCode::OK, &Document::openapi())
}
