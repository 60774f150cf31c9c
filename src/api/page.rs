//! `/`: a page that says what this is, until there is more to show.

use hyper::StatusCode;

use super::context::{Answer, Context, bytes};

/// The front page.
pub async fn page(context: Context) -> Answer {
    context.only(&[])?;
    let rack = &context.state.rack;
    let text = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>PowerMan {rack}</title>\
         <h1>PowerMan, rack {rack}</h1><ul><li><a href=\"/v1/pdus\">PDUs</a><li><a href=\"/v1/hosts\">hosts</a>\
         <li><a href=\"/v1/status\">status</a><li><a href=\"/metrics\">metrics</a><li><a href=\"/openapi.json\">the API</a></ul></html>"
    );
    Ok(bytes(StatusCode::OK, "text/html; charset=utf-8", text))
}
