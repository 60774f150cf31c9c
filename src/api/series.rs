//! `/v1/series`.

use hyper::StatusCode;
use hyper::header::ACCEPT;

use crate::model::limits::SERIES_POINTS;
use crate::model::metric::{Kind, Metric};
use crate::model::reading::{Datum, Gap};
use crate::model::time::{Span, Stamp};
use crate::series::window::{Aggregate, Bucket, Buckets, Sample};
use crate::store::Archive;
use crate::store::reader::{Item, Scan, Series, read, scan, target};
use crate::wire::problem::Problem;
use crate::wire::series::{ManyBody, OneBody, PointBody, PointValue, SeriesBody};

use super::context::{Answer, Context, bytes, json};
use super::problem::{bad, not_found};
use super::select::{By, Fold, Folded, Window, each, folded, group_of, select};

const KNOWN: [&str; 11] =
    ["target", "pdu", "host", "group", "metric", "start", "end", "step", "agg", "fold", "by"];

/// Readings of a target over time.
#[utoipa::path(get, path = "/v1/series", tag = "series",
    params(("target" = Option<String>, Query, description = "pdu-a, pdu-a/7, pdu-a/L1, pdu-a/B2, pdu-a/T1; as often as needed"),
        ("pdu" = Option<String>, Query, description = "all outlets of a PDU, * for all PDUs"), ("host" = Option<String>, Query, description = "the outlets of a host"), ("group" = Option<String>, Query, description = "the outlets of a group"),
        ("fold" = Option<String>, Query, description = "sum, avg, max or min over the series"), ("by" = Option<String>, Query, description = "what is folded together: pdu, branch, host or rack; rack unless told"), ("metric" = String, Query, description = "power_w, current_a, energy_wh, state, …"),
        ("start" = Option<String>, Query, description = "RFC 3339, seconds since 1970, or back from now as in -2h; -1h unless told"), ("end" = Option<String>, Query, description = "now unless told"),
        ("step" = Option<String>, Query, description = "width of a step, as in 60s; without it the readings as they came"), ("agg" = Option<String>, Query, description = "avg, min, max, last or rate; avg unless told")),
    responses((status = 200, body = SeriesBody), (status = 200, content_type = "text/csv", body = String), (status = 400, body = Problem, content_type = "application/problem+json"), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub async fn series(context: Context) -> Answer {
    context.only(&KNOWN)?;
    let is = |key: &str, among: &[&str]| among.contains(&key);
    let targets = context.query.iter().filter(|(key, _)| key == "target").count();
    let selects = |(key, _): &(String, String)| is(key, &["pdu", "host", "group", "fold", "by"]);
    if targets > 1 || context.query.iter().any(selects) {
        return many(context).await;
    }
    let query = Query::read(&context)?;
    let turn = context.state.query_turn().await?;
    let body = tokio::task::spawn_blocking({
        let store = context.state.store.clone();
        move || answer(store.as_ref(), &query)
    });
    let body = body.await;
    drop(turn);
    let body = body.map_err(|error| {
        Problem::new(
            500,
            "Internal error",
            error.to_string(),
            "report this with the request that caused it",
        )
    })??;
    if wants_csv(&context) {
        Ok(bytes(StatusCode::OK, "text/csv; charset=utf-8", csv(&body)))
    } else {
        json(StatusCode::OK, &body)
    }
}

/// The end of the year 9999, ms since 1970: what RFC 3339 can say.
const LAST: i64 = 253_402_300_799_999;

/// The metric that a query names.
pub(super) fn metric_of(context: &Context) -> Result<Metric, Problem> {
    let text = |name: &'static str| context.query::<String>(name, "text");
    let missing = |name: &str, next: &str| bad(format!("{name} is missing"), next.to_owned());
    let keys: Vec<&str> =
        Metric::all().filter(|metric| metric.is_series()).map(Metric::key).collect();
    let known = || format!("write metric= and one of {}", keys.join(", "));
    let key = text("metric")?.ok_or_else(|| missing("metric", &known()))?;
    let metric = Metric::by_key(&key).filter(|metric| metric.is_series());
    let metric = metric.ok_or_else(|| {
        bad(format!("there is no metric \"{}\"", key.chars().take(40).collect::<String>()), known())
    })?;
    Ok(metric)
}

/// The window that a query names.
pub(super) fn times(context: &Context) -> Result<(Stamp, Stamp), Problem> {
    let text = |name: &'static str| context.query::<String>(name, "text");
    let now = context.state.clock.stamp();
    let moment = |name: &'static str, default: &str| -> Result<Stamp, Problem> {
        let text = text(name)?.unwrap_or_else(|| default.to_owned());
        Stamp::parse_at(&text, now)
            .map(|at| Stamp(at.0.clamp(0, LAST)))
            .map_err(|error| bad(format!("{name}: {error}"), "write it so"))
    };
    let (start, end) = (moment("start", "-1h")?, moment("end", "now")?);
    if end < start {
        return Err(bad("end lies before start", "swap them"));
    }
    Ok((start, end))
}

struct Query {
    target: String,
    series: Series,
    start: Stamp,
    end: Stamp,
    step: Option<(Span, Aggregate)>,
}

impl Query {
    fn read(context: &Context) -> Result<Self, Problem> {
        let text = |name: &'static str| context.query::<String>(name, "text");
        let missing = |name: &str, next: &str| bad(format!("{name} is missing"), next.to_owned());
        let name =
            text("target")?.ok_or_else(|| missing("target", "write target=pdu-a/7 or the like"))?;
        let (pdu, part) = target(&name)
            .map_err(|error| bad(error.to_string(), "write target=pdu-a/7 or the like"))?;
        if context.state.fleet.get(&pdu).is_none() {
            return Err(not_found(&format!("PDU \"{pdu}\"")));
        }
        let metric = metric_of(context)?;
        let (start, end) = times(context)?;
        let step = Self::step(text("step")?, text("agg")?, metric, start, end)?;
        Ok(Self { target: name, series: Series { pdu, part, metric }, start, end, step })
    }

    fn step(
        step: Option<String>,
        agg: Option<String>,
        metric: Metric,
        start: Stamp,
        end: Stamp,
    ) -> Result<Option<(Span, Aggregate)>, Problem> {
        let names = Aggregate::ALL.map(|(name, _)| name).join(", ");
        let Some(step) = step else {
            return if agg.is_none() {
                Ok(None)
            } else {
                Err(bad("agg without step", "add step=60s"))
            };
        };
        let span: Span = step.parse().map_err(|_| {
            bad(
                format!("step={} is no stretch of time", step.chars().take(20).collect::<String>()),
                "write step=60s, step=5m, step=1h",
            )
        })?;
        let is_state = matches!(metric.kind(), Kind::Words(_));
        let default = if is_state { "last" } else { "avg" };
        let agg = agg.unwrap_or_else(|| default.to_owned());
        let how = Aggregate::ALL.iter().find(|(name, _)| *name == agg).map(|(_, how)| *how);
        let how = how.ok_or_else(|| {
            bad(
                format!("agg={} is not known", agg.chars().take(20).collect::<String>()),
                format!("write agg= and one of {names}"),
            )
        })?;
        if is_state && how != Aggregate::Last {
            return Err(bad("a state has no mean, least or rate", "write agg=last"));
        }
        if span.0 == 0 || end.since(start).0 / span.0 > SERIES_POINTS as u64 {
            return Err(bad(
                format!("that makes more than {SERIES_POINTS} steps"),
                "ask for a larger step or a shorter time",
            ));
        }
        Ok(Some((span, how)))
    }
}

async fn many(context: Context) -> Answer {
    let metric = metric_of(&context)?;
    let (start, end) = times(&context)?;
    let text = |name: &'static str| context.query::<String>(name, "text");
    let (step, how) = Query::step(text("step")?, text("agg")?, metric, start, end)?
        .ok_or_else(|| bad("step is missing", "several series need a step, as step=60s"))?;
    let window = Window { start, end, step, how };
    let fold = choice(&context, "fold", &Fold::ALL)?;
    let by = choice(&context, "by", &By::ALL)?;
    if by.is_some() && fold.is_none() {
        return Err(bad("by without fold", "add fold=sum, avg, max or min"));
    }
    if fold.is_some() && metric.unit().is_none() {
        return Err(bad("states cannot be folded", "leave fold out"));
    }
    let all = select(&context, metric).await?;
    if all.is_empty() {
        return Err(bad("no series is selected", "write target=, pdu=, host= or group="));
    }
    if fold.is_none() && all.len() as u64 * (end.since(start).0 / step.0.max(1)) > HELD_POINTS {
        return Err(bad(
            format!("that makes more than {HELD_POINTS} points"),
            "ask for a larger step, a shorter time, or fold=sum",
        ));
    }
    let named: Vec<(Series, String)> = all
        .into_iter()
        .map(|series| {
            let group = match fold {
                Some(_) => group_of(&context.state, &series, by.map_or(By::Rack, |(_, by)| by)),
                None => format!("{}/{}", series.pdu, series.part),
            };
            (series, group)
        })
        .collect();
    let turn = context.state.query_turn().await?;
    let store = context.state.store.clone();
    let work = tokio::task::spawn_blocking(move || -> Result<Vec<OneBody>, Problem> {
        let mut out = Vec::new();
        if let Some((_, fold)) = fold {
            for (target, steps) in folded(&store, &named, &window, fold)? {
                let point = |step: &Folded| {
                    let mut point = step_point(metric, &Bucket { at: step.at, value: step.value });
                    if step.value.is_ok() && step.partial {
                        point.quality = "partial";
                    }
                    point
                };
                out.push(OneBody { target, points: steps.iter().map(point).collect() });
            }
        } else {
            let only: Vec<Series> = named.iter().map(|(series, _)| series.clone()).collect();
            each(&store, &only, &window, &mut |series, steps| {
                let target = format!("{}/{}", series.pdu, series.part);
                let points = steps.iter().map(|step| step_point(metric, step)).collect();
                out.push(OneBody { target, points });
            })?;
        }
        Ok(out)
    });
    let series = work.await.map_err(|error| {
        Problem::new(500, "Internal error", error.to_string(), "report this with the request")
    })??;
    drop(turn);
    let body = ManyBody {
        metric: metric.key().to_owned(),
        start: start.to_string(),
        end: end.to_string(),
        step_ms: step.0,
        agg: how.word(),
        fold: fold.map(|(word, _)| word),
        by: fold.map(|_| by.map_or("rack", |(word, _)| word)),
        series,
    };
    if wants_csv(&context) {
        return Ok(bytes(StatusCode::OK, "text/csv; charset=utf-8", many_csv(&body)));
    }
    json(StatusCode::OK, &body)
}

/// Points of series that are not folded, in one answer.
const HELD_POINTS: u64 = 500_000;

fn choice<T: Copy>(
    context: &Context,
    name: &'static str,
    among: &[(&'static str, T)],
) -> Result<Option<(&'static str, T)>, Problem> {
    let Some(text) = context.query::<String>(name, "text")? else { return Ok(None) };
    let found = among.iter().find(|(word, _)| *word == text).copied();
    let words: Vec<&str> = among.iter().map(|(word, _)| *word).collect();
    found.map(Some).ok_or_else(|| {
        let shown: String = text.chars().take(20).collect();
        bad(
            format!("{name}={shown} is not known"),
            format!("write {name}= and one of {}", words.join(", ")),
        )
    })
}

fn many_csv(body: &ManyBody) -> String {
    let mut text = format!("target,at,{},quality\r\n", body.metric);
    for one in &body.series {
        for point in &one.points {
            let value = value_text(point);
            text.push_str(&format!("{},{},{value},{}\r\n", one.target, point.at, point.quality));
        }
    }
    text
}

fn value_text(point: &PointBody) -> String {
    match &point.value {
        PointValue::Number(number) => number.to_string(),
        PointValue::Word(word) => (*word).to_owned(),
        PointValue::Nothing(()) => String::new(),
    }
}

fn wants_csv(context: &Context) -> bool {
    let accept = context.headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/csv"))
}

fn answer(store: &Archive, query: &Query) -> Result<SeriesBody, Problem> {
    // A rate needs the reading before the window.
    let from = match query.step {
        Some((step, Aggregate::Rate)) => {
            let back = i64::try_from(step.0.max(600_000)).unwrap_or(i64::MAX);
            Stamp(query.start.0.saturating_sub(back))
        }
        _ => query.start,
    };
    let metric = query.series.metric;
    let points = if let Some((step, how)) = query.step {
        let mut buckets = Buckets::new(query.start, query.end, step, how);
        let columns = [(query.series.part.clone(), metric)];
        let step = Some((query.start, step));
        let (pdu, start) = (&query.series.pdu, from);
        let asked = Scan { pdu, columns: &columns, start, end: query.end, step };
        scan(store, &asked, &mut |_, item| {
            match item {
                Item::Sample(sample) => buckets.take(sample),
                Item::Rolled(rolled, width_ms) => buckets.take_rolled(rolled, width_ms),
            }
            true
        })?;
        buckets.finish().iter().map(|bucket| step_point(metric, bucket)).collect()
    } else {
        let found = read(store, &query.series, from, query.end, SERIES_POINTS)?;
        if found.truncated {
            return Err(bad(
                format!("that are more than {SERIES_POINTS} readings"),
                "ask for a step, as step=60s, or a shorter time",
            ));
        }
        found.samples.iter().map(|sample| point(metric, *sample)).collect()
    };
    Ok(SeriesBody {
        target: query.target.clone(),
        metric: metric.key().to_owned(),
        start: query.start.to_string(),
        end: query.end.to_string(),
        step_ms: query.step.map(|(step, _)| step.0),
        agg: query.step.map(|(_, how)| how.word()),
        points,
    })
}

fn point(metric: Metric, (at, value): Sample) -> PointBody {
    let (value, quality) = match Datum::from_stored(metric, value) {
        Datum::Value(kept) => (
            metric
                .unit()
                .map_or(PointValue::Nothing(()), |unit| PointValue::Number(unit.to_f64(kept))),
            "good",
        ),
        Datum::Word(word) => (PointValue::Word(word.word()), "good"),
        Datum::Gap(gap) => (PointValue::Nothing(()), gap.word()),
    };
    PointBody { at: at.to_string(), value, quality }
}

fn step_point(metric: Metric, bucket: &Bucket) -> PointBody {
    match (bucket.value, metric.unit()) {
        (Ok(kept), Some(unit)) => {
            // As many decimals as the unit keeps, and three more for means and rates.
            let scale = unit.scale() as f64;
            let value = (kept * 1_000.0).round() / 1_000.0 / scale;
            PointBody {
                at: bucket.at.to_string(),
                value: PointValue::Number(value),
                quality: "good",
            }
        }
        (Ok(kept), None) => point(metric, (bucket.at, Ok(kept as i64))),
        (Err(gap), _) => point(metric, (bucket.at, Err::<i64, Gap>(gap))),
    }
}

fn csv(body: &SeriesBody) -> String {
    let mut text = format!("at,{},quality\r\n", body.metric);
    for point in &body.points {
        let value = value_text(point);
        text.push_str(&format!("{},{value},{}\r\n", point.at, point.quality));
    }
    text
}
