//! `/v1/groups`.

use hyper::StatusCode;

use crate::model::id::GroupId;
use crate::plan::site::GroupSpec;
use crate::wire::host::{GroupBody, GroupList};
use crate::wire::problem::Problem;

use super::context::{Answer, Context, json};
use super::hosts::feeds_of;
use super::problem::not_found;

async fn body_of(context: &Context, id: &GroupId, group: &GroupSpec) -> Result<GroupBody, Problem> {
    Ok(GroupBody {
        id: id.to_string(),
        name: group.name.clone(),
        hosts: group.hosts.iter().map(ToString::to_string).collect(),
        outlets: feeds_of(context, &group.outlets).await?,
    })
}

/// All groups.
#[utoipa::path(get, path = "/v1/groups", tag = "hosts",
    params(("limit" = Option<usize>, Query, description = "most groups in the answer, 1 to 1000; 100 unless told"), ("cursor" = Option<String>, Query, description = "next_cursor of the page before"), ("max_age_ms" = Option<u64>, Query, description = "how old the readings may be")),
    responses((status = 200, body = GroupList), (status = 400, body = Problem, content_type = "application/problem+json")))]
pub async fn list(context: Context) -> Answer {
    context.only(&["limit", "cursor", "max_age_ms"])?;
    let site = context.state.site.borrow().clone();
    let keyed = site.groups.iter().map(|(id, group)| (id.to_string(), (id, group))).collect();
    let (page, next_cursor) = context.page(keyed, 100)?;
    let mut groups = Vec::new();
    for (id, group) in page {
        groups.push(body_of(&context, id, group).await?);
    }
    json(StatusCode::OK, &GroupList { groups, next_cursor })
}

/// One group.
#[utoipa::path(get, path = "/v1/groups/{group}", tag = "hosts",
    params(("group" = String, Path, description = "its configured id"), ("max_age_ms" = Option<u64>, Query, description = "how old the readings may be")),
    responses((status = 200, body = GroupBody), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub async fn show(context: Context) -> Answer {
    context.only(&["max_age_ms"])?;
    let text = context.param("group");
    let missing = || not_found(&format!("group \"{}\"", text.chars().take(64).collect::<String>()));
    let id: GroupId = text.parse().map_err(|_| missing())?;
    let site = context.state.site.borrow().clone();
    let group = site.groups.get(&id).ok_or_else(missing)?;
    json(StatusCode::OK, &body_of(&context, &id, group).await?)
}
