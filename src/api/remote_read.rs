//! `/v1/prometheus/read`: Prometheus' remote read. History that Prometheus never scraped, under the names and labels of
//! `/metrics`.

use hyper::header::{CONTENT_ENCODING, HeaderValue};
use hyper::{Response, StatusCode};

use crate::model::id::OutletId;
use crate::model::metric::{Metric, Scope, Word};
use crate::model::time::{Span, Stamp};
use crate::store::Archive;
use crate::store::reader::{Item, Scan, Series, scan};
use crate::wire::problem::Problem;
use crate::wire::prometheus::{How, Matcher, Query, request, response, series};

use super::context::{Answer, Body, Context, State, bytes};
use super::metrics::READINGS;
use super::problem::bad;

/// Bytes of a decompressed request: queries are short.
const REQUEST_BYTES: usize = 1 << 20;
/// Samples in one answer: Prometheus holds it in memory too (its own limit is fifty million).
const SAMPLES: usize = 2_000_000;
/// Prometheus takes a series for gone when its last sample is older than this: rollups that are wider would blink.
const LOOKBACK_MS: i64 = 300_000;

/// Samples of the series that fit.
#[utoipa::path(post, path = "/v1/prometheus/read", tag = "series", request_body(content = Vec<u8>, content_type = "application/x-protobuf"),
    responses((status = 200, content_type = "application/x-protobuf", body = Vec<u8>), (status = 400, body = Problem, content_type = "application/problem+json")))]
pub async fn read(context: Context) -> Answer {
    context.only(&[])?;
    let wrong = || bad("this is no remote read request", "send a ReadRequest, snappy-compressed");
    let length = snap::raw::decompress_len(&context.body).map_err(|_| wrong())?;
    if length > REQUEST_BYTES {
        return Err(wrong());
    }
    let raw = snap::raw::Decoder::new().decompress_vec(&context.body).map_err(|_| wrong())?;
    let queries = request(&raw).ok_or_else(wrong)?;
    let found: Result<Vec<(Query, Vec<Known>)>, Problem> = queries
        .into_iter()
        .map(|query| {
            let known = matching(&context.state, &query)?;
            Ok((query, known))
        })
        .collect();
    let found = found?;
    let turn = context.state.query_turn().await?;
    let store = context.state.store.clone();
    let answered = tokio::task::spawn_blocking(move || answer(&store, &found)).await;
    drop(turn);
    let answered = answered.map_err(|error| {
        Problem::new(500, "Internal error", error.to_string(), "report this with the request")
    })??;
    let packed = snap::raw::Encoder::new().compress_vec(&answered).map_err(|error| {
        Problem::new(500, "Internal error", error.to_string(), "report this with the request")
    })?;
    let mut response: Response<Body> = bytes(StatusCode::OK, "application/x-protobuf", packed);
    response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("snappy"));
    Ok(response)
}

/// A series with its labels, sorted by name.
struct Known {
    of: Series,
    labels: Vec<(&'static str, String)>,
}

/// A condition, ready to be asked.
enum Test {
    Is(String),
    IsNot(String),
    Fits(regex::Regex),
    FitsNot(regex::Regex),
}

impl Test {
    fn of(matcher: &Matcher) -> Result<Self, Problem> {
        let regex = || {
            regex::RegexBuilder::new(&format!("^(?:{})$", matcher.value))
                .size_limit(1 << 20)
                .build()
                .map_err(|error| bad(format!("{}: {error}", matcher.name), "mend the matcher"))
        };
        Ok(match matcher.how {
            How::Equal => Test::Is(matcher.value.clone()),
            How::NotEqual => Test::IsNot(matcher.value.clone()),
            How::Fits => Test::Fits(regex()?),
            How::FitsNot => Test::FitsNot(regex()?),
        })
    }

    fn holds(&self, value: &str) -> bool {
        match self {
            Test::Is(wanted) => value == wanted,
            Test::IsNot(unwanted) => value != unwanted,
            Test::Fits(regex) => regex.is_match(value),
            Test::FitsNot(regex) => !regex.is_match(value),
        }
    }
}

/// The series of PDUs that are configured and were seen, as far as they fit.
fn matching(state: &State, query: &Query) -> Result<Vec<Known>, Problem> {
    let tests: Result<Vec<(&str, Test)>, Problem> =
        query.matchers.iter().map(|m| Ok((m.name.as_str(), Test::of(m)?))).collect();
    let tests = tests?;
    let site = state.site.borrow().clone();
    let mut found = Vec::new();
    for view in state.board.views() {
        for slot in view.layout.slots() {
            let Some(part) = view.layout.parts(slot.scope).get(usize::from(slot.part)) else {
                continue;
            };
            let Some(name) = name_of(slot.scope, slot.metric) else { continue };
            let mut labels = vec![("__name__", name), ("pdu", view.id.to_string())];
            labels.push((slot.scope.word(), part.id.clone()));
            if slot.scope == Scope::Outlet {
                let name = part.name.as_ref().or(part.label.as_ref());
                labels.extend(name.map(|name| ("name", name.clone())));
                let outlet = OutletId { pdu: view.id.clone(), number: part.number };
                labels.extend(site.host_of(&outlet).map(|(id, _)| ("host", id.to_string())));
            }
            labels.sort_by_key(|(name, _)| *name);
            let value = |wanted: &str| {
                labels.iter().find(|(name, _)| *name == wanted).map_or("", |(_, v)| v.as_str())
            };
            if tests.iter().all(|(name, test)| test.holds(value(name))) {
                let of =
                    Series { pdu: view.id.clone(), part: part.id.clone(), metric: slot.metric };
                found.push(Known { of, labels });
            }
        }
    }
    Ok(found)
}

/// The name in `/metrics`.
fn name_of(scope: Scope, metric: Metric) -> Option<String> {
    if metric == Metric::State {
        return (scope == Scope::Outlet).then(|| "pdu_outlet_state".to_owned());
    }
    let (_, name, unit, counts) = READINGS.iter().find(|(known, ..)| *known == metric)?;
    let unit = unit.map_or_else(String::new, |unit| format!("_{unit}"));
    let total = if *counts { "_total" } else { "" };
    Some(format!("pdu_{}_{name}{unit}{total}", scope.word()))
}

fn answer(store: &Archive, found: &[(Query, Vec<Known>)]) -> Result<Vec<u8>, Problem> {
    let mut results = Vec::new();
    let mut samples = 0;
    for (query, known) in found {
        let mut result = Vec::new();
        for of_pdu in known.chunk_by(|a, b| a.of.pdu == b.of.pdu) {
            // Few columns at once: what is read of them is in memory.
            for some in of_pdu.chunks(16) {
                for (known, read) in some.iter().zip(read_some(store, query, some)?) {
                    samples += read.len();
                    if samples > SAMPLES {
                        return Err(bad(
                            format!("that are more than {SAMPLES} samples"),
                            "ask for fewer series, a shorter time or a larger step",
                        ));
                    }
                    if !read.is_empty() {
                        series(&mut result, &known.labels, &read);
                    }
                }
            }
        }
        results.push(result);
    }
    Ok(response(&results))
}

fn value_of(metric: Metric, kept: f64) -> f64 {
    if metric == Metric::State {
        return f64::from(u8::from(kept as i64 == Word::On.number()));
    }
    metric.unit().map_or(kept, |unit| kept / unit.scale() as f64)
}

fn read_some(
    store: &Archive,
    query: &Query,
    some: &[Known],
) -> Result<Vec<Vec<(i64, f64)>>, Problem> {
    let columns: Vec<(String, Metric)> =
        some.iter().map(|known| (known.of.part.clone(), known.of.metric)).collect();
    // Years are asked for in steps; then a minute's or an hour's last reading stands for it.
    let span = query.end_ms.saturating_sub(query.start_ms).max(0);
    let wide = query.step_ms >= 60_000 || span > 30 * 86_400_000;
    let (start, end) = (Stamp(query.start_ms), Stamp(query.end_ms.saturating_add(1)));
    let step = wide.then_some((Stamp(0), Span(60_000)));
    let mut out: Vec<Vec<(i64, f64)>> = vec![Vec::new(); some.len()];
    let asked = Scan { pdu: &some[0].of.pdu, columns: &columns, start, end, step };
    scan(store, &asked, &mut |number, item| {
        let metric = columns[number].1;
        let mut put = |at: i64, kept: f64| out[number].push((at, value_of(metric, kept)));
        match item {
            Item::Sample((at, Ok(kept))) => put(at.0, kept as f64),
            Item::Rolled(rolled, width) if rolled.count > 0 => {
                let is_level = metric != Metric::Energy && metric != Metric::State;
                let kept = if is_level {
                    rolled.sum as f64 / rolled.count as f64
                } else {
                    rolled.last as f64
                };
                let end = (rolled.at + width).min(query.end_ms.saturating_add(1));
                let mut at = rolled.at;
                while at < end {
                    if at >= query.start_ms {
                        put(at, kept);
                    }
                    at += width.min(LOOKBACK_MS - 60_000);
                }
            }
            Item::Sample(_) | Item::Rolled(..) => {}
        }
        out[number].len() <= SAMPLES
    })?;
    Ok(out)
}
