//! `/v1/hosts`.

use hyper::StatusCode;

use crate::model::id::{HostId, OutletId};
use crate::plan::site::HostSpec;
use crate::wire::host::{FeedBody, HostBody, HostList, body, feed};
use crate::wire::problem::Problem;

use super::context::{Answer, Context, json};
use super::problem::not_found;

async fn body_of(context: &Context, id: &HostId, host: &HostSpec) -> Result<HostBody, Problem> {
    Ok(body(id, &host.name, feeds_of(context, &host.outlets).await?))
}

/// Outlets as they are, as young as was asked for.
pub(super) async fn feeds_of(
    context: &Context,
    outlets: &[OutletId],
) -> Result<Vec<FeedBody>, Problem> {
    let since = context.since()?;
    let mut feeds = Vec::new();
    for outlet in outlets {
        let handle = context.state.fleet.get(&outlet.pdu);
        let view = match (handle, since) {
            (Some(handle), Some(since)) => Some(handle.since(since).await),
            (Some(handle), None) => Some(handle.view()),
            (None, _) => None,
        };
        feeds.push(feed(outlet, view.as_deref()));
    }
    Ok(feeds)
}

/// All hosts.
#[utoipa::path(get, path = "/v1/hosts", tag = "hosts",
    params(("limit" = Option<usize>, Query, description = "most hosts in the answer, 1 to 1000; 100 unless told"), ("cursor" = Option<String>, Query, description = "next_cursor of the page before"), ("max_age_ms" = Option<u64>, Query, description = "how old the readings may be")),
    responses((status = 200, body = HostList), (status = 400, body = Problem, content_type = "application/problem+json")))]
pub async fn list(context: Context) -> Answer {
    context.only(&["limit", "cursor", "max_age_ms"])?;
    let site = context.state.site.borrow().clone();
    let keyed = site.hosts.iter().map(|(id, host)| (id.to_string(), (id, host))).collect();
    let (page, next_cursor) = context.page(keyed, 100)?;
    let mut hosts = Vec::new();
    for (id, host) in page {
        hosts.push(body_of(&context, id, host).await?);
    }
    json(StatusCode::OK, &HostList { hosts, next_cursor })
}

/// One host.
#[utoipa::path(get, path = "/v1/hosts/{host}", tag = "hosts",
    params(("host" = String, Path, description = "its configured id"), ("max_age_ms" = Option<u64>, Query, description = "how old the readings may be")),
    responses((status = 200, body = HostBody), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub async fn show(context: Context) -> Answer {
    context.only(&["max_age_ms"])?;
    let text = context.param("host");
    let missing = || not_found(&format!("host \"{}\"", text.chars().take(64).collect::<String>()));
    let id: HostId = text.parse().map_err(|_| missing())?;
    let site = context.state.site.borrow().clone();
    let host = site.hosts.get(&id).ok_or_else(missing)?;
    json(StatusCode::OK, &body_of(&context, &id, host).await?)
}
