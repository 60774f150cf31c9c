//! `/openapi.json`: the API described (OpenAPI 3.1), made from the bodies and handlers themselves.

use hyper::StatusCode;
use utoipa::OpenApi;
use utoipa::openapi::{Content, Ref, RefOr, Response as ResponseSpec, ResponseBuilder};

use super::context::{Answer, Context, json};
use super::{
    audit, compat, energy, events, groups, hosts, limits, locks, metrics, pdus, plans, power,
    remote_read, series, status, store,
};

#[derive(OpenApi)]
#[openapi(
    info(title = "PowerMan", description = "One gateway to the power distribution units of a rack. Every connection is TLS 1.3 with a client certificate; its role decides what may be called."),
    paths(
        pdus::list, pdus::show, pdus::outlets, pdus::outlet,
        power::outlet, power::host, power::group, groups::list, groups::show, audit::list, locks::put, locks::delete, limits::list,
        hosts::list, hosts::show,
        plans::list, plans::show, plans::create, plans::run, plans::approve, plans::lift, plans::cancel,
        series::series, energy::energy, remote_read::read, store::copy_of, events::events, status::status, status::version, metrics::metrics,
        compat::retdata, compat::power_on, compat::power_off, compat::power_cycle,
    ),
    tags(
        (name = "pdus", description = "PDUs and their outlets"), (name = "switching", description = "Switching, and the plans that it makes"),
        (name = "hosts", description = "Loads with one or more feeds"), (name = "series", description = "Readings over time"),
        (name = "events", description = "What happens"), (name = "gateway", description = "The gateway itself"),
        (name = "prototype", description = "The URLs of the prototype, which keep working"),
    ),
)]
struct Document;

/// The document.
pub async fn document(context: Context) -> Answer {
    context.only(&[])?;
    let mut document = Document::openapi();
    for (path, item) in &mut document.paths.paths {
        let methods = [
            ("get", &mut item.get),
            ("post", &mut item.post),
            ("put", &mut item.put),
            ("patch", &mut item.patch),
            ("delete", &mut item.delete),
        ];
        for (method, operation) in methods {
            let Some(operation) = operation else { continue };
            operation.operation_id = Some(format!("{method}{}", snake(path)));
            for (status, response) in &mut operation.responses.responses {
                describe(status, response);
            }
            // What may go wrong anywhere (a shutdown, a full disk, a PDU that refuses) is told in one form.
            operation.responses.responses.insert("default".into(), RefOr::T(problem()));
        }
    }
    json(StatusCode::OK, &document)
}

/// What any other status comes with.
fn problem() -> ResponseSpec {
    let schema = Ref::from_schema_name("Problem");
    ResponseBuilder::new()
        .description("Any other status: what is in the way, and the step that helps")
        .content("application/problem+json", Content::new(Some(schema)))
        .build()
}

/// A description is required (OpenAPI 3.1, Response Object): the status's own words where there is no better.
fn describe(status: &str, response: &mut RefOr<ResponseSpec>) {
    let RefOr::T(response) = response else { return };
    if response.description.is_empty() {
        let status = StatusCode::from_bytes(status.as_bytes()).ok();
        response.description =
            status.and_then(|status| status.canonical_reason()).unwrap_or("Answer").to_owned();
    }
}

/// A path as part of an operation's id, which must be the only one of its name (OpenAPI 3.1, Operation Object):
/// `/v1/pdus/{pdu}` is `_v1_pdus_pdu`.
fn snake(path: &str) -> String {
    path.chars()
        .filter(|c| !matches!(c, '{' | '}'))
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect()
}
