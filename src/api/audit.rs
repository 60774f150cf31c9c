//! `/v1/audit`: who asked for what and what came of it, in lines chained by hashes.

use hyper::StatusCode;

use crate::model::time::Stamp;
use crate::wire::audit::{AuditBody, AuditList};
use crate::wire::problem::Problem;

use super::context::{Answer, Context, json};
use super::problem::bad;

/// Lines of the audit, oldest first; with `verify=true` the whole chain is checked as well.
#[utoipa::path(get, path = "/v1/audit", tag = "switching",
    params(("limit" = Option<usize>, Query, description = "most lines in the answer, 1 to 1000; 100 unless told"), ("cursor" = Option<u64>, Query, description = "next_cursor of the page before"), ("last" = Option<usize>, Query, description = "only so many of the latest"), ("verify" = Option<bool>, Query, description = "check the whole chain")),
    responses((status = 200, body = AuditList), (status = 400, body = Problem, content_type = "application/problem+json")))]
pub async fn list(context: Context) -> Answer {
    context.only(&["limit", "cursor", "last", "verify"])?;
    let limit = context.limit(100)?;
    let cursor = context.query::<u64>("cursor", "line number")?;
    let last = context.query::<u64>("last", "number of lines")?;
    if cursor.is_some() && last.is_some() {
        return Err(bad("cursor and last do not go together", "leave one of them out"));
    }
    let verify = context.query::<bool>("verify", "true or false")?.unwrap_or(false);
    let page = context.state.switching.audit(cursor, last, limit + 1, verify).await?;
    let more = page.entries.len() > limit;
    let entries: Vec<AuditBody> = page
        .entries
        .into_iter()
        .take(limit)
        .map(|entry| AuditBody {
            seq: entry.seq,
            at: Stamp(entry.at).to_string(),
            at_ms: entry.at,
            kind: entry.kind,
            by: entry.by,
            about: entry.about,
            text: entry.text,
            prev: entry.prev,
            hash: entry.hash,
        })
        .collect();
    let next_cursor = entries.last().filter(|_| more).map(|entry| entry.seq);
    let list = AuditList {
        entries,
        next_cursor,
        head_seq: page.head.seq,
        head_hash: page.head.hash,
        verified: page.verified.as_ref().map(Result::is_ok),
        broken: page.verified.and_then(Result::err),
    };
    json(StatusCode::OK, &list)
}
