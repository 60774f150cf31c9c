//! `/v1/plans`.

use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::id::PlanId;
use crate::model::limits::{PLAN_GOALS, REASON_CHARS};
use crate::model::switching::Action;
use crate::model::time::Stamp;
use crate::plan::calendar::Calendar;
use crate::switching::{
    Asker, Line, OnFailure, OnOverload, PlanState, Preview, Refusal, Select, Selected, Wish, body,
    is_id,
};
use crate::wire::plan::{LineBody, PlanBody, PlannedBody, PointBody, ShownBody};
use crate::wire::problem::Problem;

use super::context::{Answer, Context, json, object};
use super::power::{idempotency_key, located};
use super::problem::{bad, not_found};

/// What is wished.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WishBody {
    /// What of which outlets.
    pub goals: Vec<GoalBody>,
    /// Why, for the record; up to 500 characters.
    #[serde(default)]
    pub reason: String,
    /// Make the plan and keep nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Not before, RFC 3339. Once it was run it waits, and takes outlets and room when it is due, if the rack is still the one
    /// that it was made for.
    #[serde(default)]
    pub not_before: Option<String>,
    /// `stop` or `continue`: what becomes of the rest when a step fails.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub on_failure: OnFailure,
    /// `stop` or `replan`: what becomes of the rest when more flows than was reckoned, and waiting does not help.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub on_overload: OnOverload,
    /// `fastest` or `priority`: hosts go on in whatever order is fastest, or strictly by their priority.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub order: Order,
    /// A calendar rule by which it is made anew and run, once it has been run: `Mon-Fri 07:30 Europe/Berlin`.
    #[serde(default)]
    pub calendar: Option<String>,
    /// It may name locked and critical outlets; an admin has to lift their locks for it before it is run.
    #[serde(default)]
    pub over_locks: bool,
}

/// In which order hosts go on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Whatever is fastest.
    #[default]
    Fastest,
    /// Strictly by priority.
    Priority,
}

/// A wish of several outlets.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GoalBody {
    /// Which.
    pub select: SelectBody,
    /// `on`, `off` or `cycle`.
    #[schema(value_type = String)]
    pub action: Action,
    /// Hosts whose last feed is among them may go dark, though they are not named as hosts.
    #[serde(default)]
    pub drop_hosts: bool,
}

/// Which outlets.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SelectBody {
    /// All outlets of these.
    pub pdus: Vec<String>,
    /// As `pdu-a/7`.
    pub outlets: Vec<String>,
    /// All feeds of these.
    pub hosts: Vec<String>,
    /// Everything in these.
    pub groups: Vec<String>,
}

/// The digest of the plan that was looked at.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DigestBody {
    /// As `digest` of the plan.
    pub digest: String,
}

fn wish(context: &Context, body: &WishBody) -> Result<Wish, Problem> {
    fn all<T: std::str::FromStr>(texts: &[String], what: &str) -> Result<Vec<T>, Problem> {
        let parsed = texts.iter().map(|text| {
            let shown: String = text.chars().take(60).collect();
            let next = format!("write the id of {what}");
            text.parse().map_err(|_| bad(format!("\"{shown}\" is no {what}"), next))
        });
        parsed.collect()
    }
    let mut goals = Vec::new();
    for GoalBody { select, action, drop_hosts } in &body.goals {
        let mut selects: Vec<Select> = Vec::new();
        selects.extend(all(&select.pdus, "a PDU")?.into_iter().map(Select::Pdu));
        selects.extend(all(&select.outlets, "an outlet")?.into_iter().map(Select::Outlet));
        selects.extend(all(&select.hosts, "a host")?.into_iter().map(Select::Host));
        selects.extend(all(&select.groups, "a group")?.into_iter().map(Select::Group));
        let (action, drops_hosts) = (*action, *drop_hosts);
        goals.extend(selects.into_iter().map(|select| Selected { select, action, drops_hosts }));
    }
    if goals.is_empty() || goals.len() > PLAN_GOALS {
        let detail = format!("a plan is for 1 to {PLAN_GOALS} PDUs, outlets, hosts and groups");
        return Err(bad(detail, EXAMPLE));
    }
    if body.reason.chars().count() > REASON_CHARS {
        let detail = format!("the reason has more than {REASON_CHARS} characters");
        return Err(bad(detail, "say it shorter"));
    }
    let now = context.state.clock.stamp();
    // Whether it may be put off to then is asked once its key is known to be new: a retry may come late.
    let not_before = body.not_before.as_ref().map(|text| {
        // A time relative to now would be another at each repetition.
        let at = Stamp::parse_at(text, now).ok().filter(|_| text.contains('T'));
        at.ok_or(Refusal::NotBefore)
    });
    if let Some(rule) = &body.calendar {
        rule.parse::<Calendar>().map_err(|error| {
            bad(error.to_string(), "write it as \"Mon-Fri 07:30 Europe/Berlin\" or \"daily 22:00\"")
        })?;
        if body.not_before.is_some() {
            return Err(bad("a plan has not_before or calendar", "leave one of them out"));
        }
    }
    Ok(Wish {
        who: Asker::Client(context.who.clone()),
        goals,
        reason: body.reason.clone(),
        on_failure: body.on_failure,
        on_overload: body.on_overload,
        not_before: not_before.transpose()?,
        calendar: body.calendar.clone(),
        over_locks: body.over_locks,
        by_priority: body.order == Order::Priority,
    })
}

const EXAMPLE: &str =
    r#"send {"goals":[{"select":{"hosts":["web-01"],"outlets":["pdu-a/7"]},"action":"cycle"}]}"#;

fn planned(preview: &Preview, now: Stamp) -> PlannedBody {
    let watts = |mva: i64| mva as f64 / 1_000.0;
    let line = |Line { limit, budget, peak, points }: &Line| LineBody {
        limit: limit.clone(),
        budget_w: watts(*budget),
        peak_w: watts(*peak),
        points: points
            .iter()
            // Outlets may add up to a little more than the meter above them shows.
            .map(|(at_ms, load)| PointBody { at_ms: *at_ms, load_w: watts((*load).max(0)) })
            .collect(),
    };
    PlannedBody {
        plan: body::at(&preview.record, now),
        timeline: preview.timeline.iter().map(line).collect(),
        goes_dark: preview.goes_dark.iter().map(ToString::to_string).collect(),
        loses_redundancy: preview.loses_redundancy.iter().map(ToString::to_string).collect(),
    }
}

/// Makes a plan for many outlets. Nothing is switched until it is run.
#[utoipa::path(post, path = "/v1/plans", tag = "switching",
    params(("Idempotency-Key" = Option<String>, Header, description = "a repeated request with the same key makes no other plan: it answers with the first, as it stands now; of no use to a dry run, which keeps nothing")),
    request_body = WishBody,
    responses((status = 200, body = PlannedBody, description = "a dry run"), (status = 201, body = PlannedBody, description = "kept, to be run"),
        (status = 400, body = Problem, content_type = "application/problem+json"), (status = 403, body = Problem, content_type = "application/problem+json"), (status = 404, body = Problem, content_type = "application/problem+json"), (status = 409, body = Problem, content_type = "application/problem+json", description = "a limit would be passed, or an outlet is locked"), (status = 422, body = Problem, content_type = "application/problem+json", description = "the Idempotency-Key was used before for another request")))]
pub async fn create(context: Context) -> Answer {
    context.only(&[])?;
    let body: WishBody = object(&context.body)
        .map_err(|error| bad(format!("the body is not right: {error}"), EXAMPLE))?;
    let wish = wish(&context, &body)?;
    let key = idempotency_key(&context)?;
    let now = context.state.clock.stamp();
    if body.dry_run {
        let preview = context.state.switching.preview(&wish)?;
        let mut body = planned(&preview, now);
        body.plan.next =
            Some("nothing was kept: send it without \"dry_run\", and run what comes back".into());
        return json(StatusCode::OK, &body);
    }
    let preview = context.state.switching.create(&wish, key.as_deref()).await?;
    Ok(located(json(StatusCode::CREATED, &planned(&preview, now))?, &preview.record))
}

fn id(context: &Context) -> Result<PlanId, Problem> {
    let text = context.param("plan");
    let missing = |_| not_found(&format!("plan \"{}\"", text.chars().take(64).collect::<String>()));
    text.parse().map_err(missing)
}

fn digest(context: &Context) -> Result<String, Problem> {
    let body: DigestBody = object(&context.body).map_err(|error| {
        bad(format!("the body is not right: {error}"), r#"send {"digest":"…"}"#)
    })?;
    Ok(body.digest)
}

/// Runs a plan, if its world still fits.
#[utoipa::path(post, path = "/v1/plans/{plan}/run", tag = "switching",
    params(("plan" = String, Path, description = "id of the plan"), ("Idempotency-Key" = Option<String>, Header, description = "a repeated request with the same key is answered with the plan as it stands now; without one, that it was run already")),
    request_body = DigestBody,
    responses((status = 202, body = PlanBody, description = "begun; follow Location"), (status = 400, body = Problem, content_type = "application/problem+json"), (status = 403, body = Problem, content_type = "application/problem+json"), (status = 404, body = Problem, content_type = "application/problem+json"), (status = 409, body = Problem, content_type = "application/problem+json", description = "the digest is another, or the rack has changed"), (status = 422, body = Problem, content_type = "application/problem+json", description = "the Idempotency-Key was used before for another request")))]
pub async fn run(context: Context) -> Answer {
    context.only(&[])?;
    let (id, digest, key) = (id(&context)?, digest(&context)?, idempotency_key(&context)?);
    let run = context.state.switching.run(&context.who, &id, &digest, key.as_deref());
    let ticket = run.await?;
    let record = ticket.now();
    Ok(located(
        json(StatusCode::ACCEPTED, &body::at(&record, context.state.clock.stamp()))?,
        &record,
    ))
}

/// Agrees to a plan that somebody else made.
#[utoipa::path(post, path = "/v1/plans/{plan}/approve", tag = "switching",
    params(("plan" = String, Path, description = "id of the plan")),
    request_body = DigestBody,
    responses((status = 200, body = PlanBody), (status = 400, body = Problem, content_type = "application/problem+json"), (status = 403, body = Problem, content_type = "application/problem+json", description = "needs the role approver"), (status = 404, body = Problem, content_type = "application/problem+json"), (status = 409, body = Problem, content_type = "application/problem+json", description = "the digest is another, or who asks made it or has approved it")))]
pub async fn approve(context: Context) -> Answer {
    context.only(&[])?;
    let (id, digest) = (id(&context)?, digest(&context)?);
    let record = context.state.switching.approve(&context.who, &id, &digest).await?;
    json(StatusCode::OK, &body::at(&record, context.state.clock.stamp()))
}

/// Lifts the locks of the outlets that a plan names, for this plan only.
#[utoipa::path(post, path = "/v1/plans/{plan}/lift", tag = "switching",
    params(("plan" = String, Path, description = "id of the plan")),
    request_body = DigestBody,
    responses((status = 200, body = PlanBody), (status = 400, body = Problem, content_type = "application/problem+json"), (status = 403, body = Problem, content_type = "application/problem+json", description = "needs the role admin"), (status = 404, body = Problem, content_type = "application/problem+json"), (status = 409, body = Problem, content_type = "application/problem+json", description = "the digest is another, or it names no locked outlet")))]
pub async fn lift(context: Context) -> Answer {
    context.only(&[])?;
    let (id, digest) = (id(&context)?, digest(&context)?);
    let record = context.state.switching.lift(&context.who, &id, &digest).await?;
    json(StatusCode::OK, &body::at(&record, context.state.clock.stamp()))
}

/// Cancels a plan: of one under way no further step begins.
#[utoipa::path(post, path = "/v1/plans/{plan}/cancel", tag = "switching",
    params(("plan" = String, Path, description = "id of the plan")),
    responses((status = 200, body = PlanBody), (status = 403, body = Problem, content_type = "application/problem+json"), (status = 404, body = Problem, content_type = "application/problem+json"), (status = 409, body = Problem, content_type = "application/problem+json", description = "it is over"), (status = 507, body = Problem, content_type = "application/problem+json", description = "no further step begins, and a restart does not know of that")))]
pub async fn cancel(context: Context) -> Answer {
    context.only(&[])?;
    let id = id(&context)?;
    let record = context.state.switching.cancel(&context.who, &id).await?;
    json(StatusCode::OK, &body::at(&record, context.state.clock.stamp()))
}

/// The latest plans.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PlanList {
    /// Plans, newest first.
    pub plans: Vec<PlanBody>,
    /// What to give as `cursor` for the next page; null on the last.
    pub next_cursor: Option<String>,
}

/// The latest plans, newest first.
#[utoipa::path(get, path = "/v1/plans", tag = "switching",
    params(("limit" = Option<usize>, Query, description = "most plans in the answer, 1 to 1000; 100 unless told"), ("cursor" = Option<String>, Query, description = "next_cursor of the page before")),
    responses((status = 200, body = PlanList), (status = 400, body = Problem, content_type = "application/problem+json")))]
pub async fn list(context: Context) -> Answer {
    context.only(&["limit", "cursor"])?;
    let limit = context.limit(100)?;
    let before = context.query::<PlanId>("cursor", "cursor")?;
    if before.as_ref().is_some_and(|id| !is_id(id)) {
        let next = "give the next_cursor of the page before, or none to begin with the newest";
        return Err(bad("cursor is not the id of a plan", next));
    }
    // One more tells whether there is a next page.
    let mut records = context.state.switching.latest(limit + 1, before).await?;
    let more = records.len() > limit;
    records.truncate(limit);
    let next_cursor = records.last().filter(|_| more).map(|record| record.id.to_string());
    let now = context.state.clock.stamp();
    let plans = records.iter().map(|record| body::at(record, now)).collect();
    json(StatusCode::OK, &PlanList { plans, next_cursor })
}

/// One plan; where it is kept and not run yet, with what it would do if it were made now.
#[utoipa::path(get, path = "/v1/plans/{plan}", tag = "switching",
    params(("plan" = String, Path, description = "id of the plan")),
    responses((status = 200, body = ShownBody), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub async fn show(context: Context) -> Answer {
    context.only(&[])?;
    let text = context.param("plan");
    let missing = || not_found(&format!("plan \"{}\"", text.chars().take(64).collect::<String>()));
    let id: PlanId = text.parse().map_err(|_| missing())?;
    let ticket = context.state.switching.ticket(&id).await?.ok_or_else(missing)?;
    let record = ticket.now();
    let mut body = body::at(&record, context.state.clock.stamp());
    if body.waiting_until.is_none() {
        for (at, why) in context.state.switching.waits(&record) {
            let step = body.steps.get_mut(at).filter(|step| step.detail.is_none());
            step.into_iter().for_each(|step| step.detail = Some(why.clone()));
        }
    }
    let (mut foreseen, mut unfit) = (None, None);
    if record.state == PlanState::Planned {
        match context.state.switching.foresees(&record).await {
            Ok(preview) => foreseen = Some(planned(&preview, context.state.clock.stamp())),
            Err(refusal) => unfit = Some(refusal.to_string()),
        }
    }
    let (timeline, loses_redundancy, goes_dark) = foreseen.map_or((None, None, None), |of| {
        (Some(of.timeline), Some(of.loses_redundancy), Some(of.goes_dark))
    });
    json(StatusCode::OK, &ShownBody { plan: body, timeline, loses_redundancy, goes_dark, unfit })
}
