//! Plans and limits as clients see them.

use crate::model::switching::Outcome;
use crate::model::time::Stamp;
use crate::plan::Picture;
use crate::plan::calendar::Calendar;
use crate::plan::record::{Approval, PlanState, Record, StepRecord, StepState};
use crate::wire::limit::{DrawBody, LimitBody};
use crate::wire::plan::{ApprovalBody, PlanBody, StepBody};

/// The body of a plan, as it stands at a moment: one that waits for its time says so.
pub fn at(record: &Record, now: Stamp) -> PlanBody {
    let mut body = of(record);
    if record.state == PlanState::Scheduled {
        // It was read when the plan was made.
        let rule = record.calendar.as_ref().and_then(|rule| rule.parse::<Calendar>().ok());
        body.next_run_at = rule.and_then(|rule| rule.next(now)).map(|at| at.to_string());
    }
    let pending = record.steps.iter().all(|step| step.state == StepState::Pending);
    let waits = record.state == PlanState::Running && pending && record.cancelled.is_none();
    match record.not_before.filter(|at| waits && *at > now.0) {
        Some(at) => PlanBody {
            waiting_until: Some(Stamp(at).to_string()),
            next: Some(
                "nothing is held for it until then; POST /v1/plans/{id}/cancel calls it off".into(),
            ),
            ..body
        },
        None => body,
    }
}

/// The body of a plan.
pub fn of(record: &Record) -> PlanBody {
    let stamp = |ms: i64| Stamp(ms).to_string();
    let step = |(n, step): (u32, &StepRecord)| StepBody {
        n,
        at_ms: step.at_ms,
        outlet: step.outlet.to_string(),
        action: step.relay.word(),
        why: step.why.clone(),
        after: step.after.iter().map(|after| after.step as u32 + 1).collect(),
        state: step.state.word(),
        detail: step.detail.clone(),
        at: step.at.map(stamp),
    };
    let approval =
        |approval: &Approval| ApprovalBody { by: approval.by.clone(), at: stamp(approval.at) };
    let called =
        record.called.as_ref().and_then(|called| Some((called.at, called.what.as_deref()?)));
    PlanBody {
        id: record.id.to_string(),
        digest: record.digest(),
        state: record.state.word(),
        action: if record.mixed { "mixed" } else { record.action.word() },
        target: record.target.clone(),
        reason: (!record.reason.is_empty()).then(|| record.reason.clone()),
        by: record.by.clone(),
        created_at: stamp(record.created),
        not_before: record.not_before.map(stamp),
        waiting_until: None,
        next_run_at: None,
        last_run_at: called.map(|(at, _)| stamp(at)),
        last_run: called.map(|(_, what)| what.to_owned()),
        calendar: record.calendar.clone(),
        on_failure: record.on_failure.word(),
        on_overload: record.on_overload.word(),
        order: if record.by_priority { "priority" } else { "fastest" },
        finished_at: record.finished.map(stamp),
        outcome: record.finished.and_then(|_| outcome(record)).map(Outcome::word),
        steps: (1..).zip(&record.steps).map(step).collect(),
        makespan_ms: match (record.finished, record.scheduled) {
            (Some(end), None) => Some(Stamp(end).since(Stamp(record.created)).0),
            (_, planned) => planned,
        },
        needs_approvals: record.needs_approvals,
        approvals: record.approvals.iter().map(approval).collect(),
        over_locks: record.over_locks.keys().map(ToString::to_string).collect(),
        lifted_by: record.lifted.as_ref().map(approval),
        parent: record.parent.as_ref().map(ToString::to_string),
        next: record.next().map(str::to_owned),
    }
}

/// What came of a plan. One that ended before all of it was begun is not done, however well the rest went.
pub fn outcome(record: &Record) -> Option<Outcome> {
    let outcome = record.outcome()?;
    let is_short = record.state != PlanState::Done && outcome.is_success();
    Some(if is_short { Outcome::Skipped } else { outcome })
}

/// The limits as bodies.
pub fn limits(picture: &Picture) -> Vec<LimitBody> {
    let watts = |mva: i64| mva as f64 / 1_000.0;
    let limits = picture.world.limits.iter().zip(&picture.told).zip(&picture.shown);
    limits
        .map(|((limit, told), shown)| {
            let amperes = |mva: i64| {
                let (_, volts) = told.amperes?;
                (volts > 0).then(|| mva as f64 / volts as f64 / told.phases as f64)
            };
            LimitBody {
                id: limit.name.clone(),
                kind: told.kind.clone(),
                rating_w: watts(told.rating),
                rating_a: told.amperes.map(|(amperes, _)| amperes as f64 / 1_000.0),
                voltage_v: told.amperes.map(|(_, volts)| volts as f64 / 1_000.0),
                phases: told.phases,
                derating_percent: told.derating,
                inrush_percent: told.inrush,
                budget_w: watts(limit.budget),
                load_w: watts(limit.load),
                load_a: amperes(limit.load),
                headroom_w: watts((limit.budget - limit.load).max(0)),
                headroom_a: amperes((limit.budget - limit.load).max(0)),
                why: match limit.load - shown {
                    0 => told.why.clone(),
                    more => format!(
                        "{}; {} W of it no meter shows yet: what was just switched on or has moved to another feed, and room that plans have taken",
                        told.why,
                        more / 1_000
                    ),
                },
            }
        })
        .collect()
}

/// What outlets are reckoned to draw, as bodies.
pub fn draws(picture: &Picture) -> Vec<DrawBody> {
    let watts = |mva: i64| mva as f64 / 1_000.0;
    let outlets = picture.world.outlets.iter().zip(&picture.sources);
    let draw = outlets.map(|(outlet, (source, starts))| {
        let draw = outlet.draw.falling();
        DrawBody {
            outlet: outlet.id.to_string(),
            steady_w: watts(draw.steady),
            boot_w: watts(draw.boot),
            boot_s: draw.boot_ms as f64 / 1_000.0,
            inrush_w: watts(draw.inrush),
            source: source.told(*starts),
        }
    });
    draw.collect()
}
