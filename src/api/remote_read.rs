//! `/v1/prometheus/read`: Prometheus' remote read. History that Prometheus never scraped, under the names and labels of
//! `/metrics`.

use std::io::Write;

use hyper::header::{CONTENT_ENCODING, HeaderValue};

use crate::model::id::OutletId;
use crate::model::metric::{Metric, Scope, Word};
use crate::model::time::{Span, Stamp};
use crate::store::Archive;
use crate::store::reader::{Item, Scan, Series, scan};
use crate::store::shelf::MINUTE_MS;
use crate::wire::problem::Problem;
use crate::wire::prometheus::{Draft, Drafted, How, Matcher, Query, Sending, request};

use super::context::{Answer, Context, State};
use super::metrics::READINGS;
use super::problem::bad;
use super::stream::{Outgoing, Stopped, stream};

/// Bytes of a decompressed request: queries are short.
const REQUEST_BYTES: usize = 1 << 20;
/// Samples in one answer.
const SAMPLES: usize = 10_000_000;
/// Prometheus takes a series for gone when its last sample is older than five minutes: so far apart they may be.
const WIDEST_MS: i64 = 240_000;
/// Readings as they came are given of no longer a time: beyond, a minute's stand for them.
const FINE_MS: i64 = 86_400_000;
/// Samples that are read before they are put into the answer, about.
const AT_ONCE: i64 = 200_000;

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
    let store = context.state.store.clone();
    let make = move |out: &mut Outgoing| answer(&store, &found, out);
    let mut response = stream(context.state.turns.clone(), "application/x-protobuf", make).await?;
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

/// Makes the answer: once to know how long it is, and if it does not stay in memory for that, once more as it is sent.
fn answer(
    store: &Archive,
    found: &[(Query, Vec<Known>)],
    out: &mut Outgoing,
) -> Result<(), Stopped> {
    let gone = out.gone();
    let mut draft = Draft::default();
    let mut counts = Vec::new();
    let mut samples = 0;
    for (query, known) in found {
        draft.begin();
        for some in batches(query, known) {
            let most = SAMPLES - samples;
            for (known, read) in some.iter().zip(read_some(store, query, some, most)?) {
                samples += read.len();
                if samples > SAMPLES {
                    let detail = format!("that are more than {SAMPLES} samples");
                    let next = "ask for fewer series, a shorter time or a larger step";
                    return Err(bad(detail, next).into());
                }
                if !read.is_empty() {
                    draft.series(&known.labels, &read)?;
                }
                counts.push(read.len());
            }
            if gone() {
                return Err(Stopped::Gone);
            }
        }
    }
    let lengths = match draft.finish()? {
        Drafted::Whole(pieces) => {
            return Ok(pieces.iter().try_for_each(|piece| out.write_all(piece))?);
        }
        Drafted::Long(lengths) => lengths,
    };
    let mut sending = Sending::new(lengths, out)?;
    let mut counts = counts.into_iter();
    for (query, known) in found {
        sending.begin()?;
        for some in batches(query, known) {
            let read = read_some(store, query, some, SAMPLES)?;
            for ((known, mut read), count) in some.iter().zip(read).zip(counts.by_ref()) {
                // What came in since is not in the length that was sent.
                read.truncate(count);
                if count > 0 {
                    sending.series(&known.labels, &read)?;
                }
            }
        }
    }
    Ok(sending.finish()?)
}

/// The series of a query, some at a time: of one PDU, and few, as what is read of them is in memory.
fn batches<'k>(query: &Query, known: &'k [Known]) -> impl Iterator<Item = &'k [Known]> + use<'k> {
    let span = query.end_ms.saturating_sub(query.start_ms).max(0);
    let each = span / spacing(query).unwrap_or(1_000) + 1;
    let at_once = usize::try_from(AT_ONCE / each).unwrap_or(1).clamp(1, 16);
    known.chunk_by(|a, b| a.of.pdu == b.of.pdu).flat_map(move |of_pdu| of_pdu.chunks(at_once))
}

/// How far apart samples are given, ms; none for readings as they came. Where the asker looks every few minutes more are
/// of no use to it; all moments at which it looks are among those given, where that can be.
fn spacing(query: &Query) -> Option<i64> {
    let span = query.end_ms.saturating_sub(query.start_ms);
    if query.step_ms < MINUTE_MS && span <= FINE_MS {
        return None;
    }
    // A function of a range needs some samples in it.
    let widest = if query.range_ms > 0 { query.range_ms / 4 } else { WIDEST_MS };
    let widest = widest.min(WIDEST_MS);
    let fits = |ms: &i64| *ms <= widest && query.step_ms >= *ms && query.step_ms % ms == 0;
    Some([4, 3, 2].map(|minutes| minutes * MINUTE_MS).into_iter().find(fits).unwrap_or(MINUTE_MS))
}

fn value_of(metric: Metric, kept: f64) -> f64 {
    if metric == Metric::State {
        return f64::from(u8::from(kept as i64 == Word::On.number()));
    }
    metric.unit().map_or(kept, |unit| kept / unit.scale() as f64)
}

/// The samples of a column, one for each time of so many milliseconds: its average, or the last of what counts or is a state.
struct Thinned {
    metric: Metric,
    samples: Vec<(i64, f64)>,
    /// Begin, sum, count and last of what is under way.
    open: Option<(i64, f64, i64, f64)>,
}

impl Thinned {
    fn take(&mut self, begin: i64, sum: f64, count: i64, last: f64) {
        match &mut self.open {
            Some((at, sum_so_far, count_so_far, last_so_far)) if *at == begin => {
                *sum_so_far += sum;
                *count_so_far += count;
                *last_so_far = last;
            }
            _ => {
                self.close();
                self.open = Some((begin, sum, count, last));
            }
        }
    }

    fn close(&mut self) {
        if let Some((at, sum, count, last)) = self.open.take() {
            let is_level = self.metric != Metric::Energy && self.metric != Metric::State;
            let kept = if is_level { sum / count as f64 } else { last };
            self.samples.push((at, value_of(self.metric, kept)));
        }
    }
}

fn read_some(
    store: &Archive,
    query: &Query,
    some: &[Known],
    most: usize,
) -> Result<Vec<Vec<(i64, f64)>>, Problem> {
    let columns: Vec<(String, Metric)> =
        some.iter().map(|known| (known.of.part.clone(), known.of.metric)).collect();
    let spacing = spacing(query);
    let end = query.end_ms.saturating_add(1);
    // Of a time whose readings went, what is left of them, however fine it was asked.
    let step = Some((Stamp(0), Span(spacing.map_or(1, i64::unsigned_abs))));
    let of = |known: &Known| Thinned { metric: known.of.metric, samples: Vec::new(), open: None };
    let mut out: Vec<Thinned> = some.iter().map(of).collect();
    let mut taken = 0;
    let (start, until) = (Stamp(query.start_ms), Stamp(end));
    let asked = Scan { pdu: &some[0].of.pdu, columns: &columns, start, end: until, step };
    scan(store, &asked, &mut |number, item| {
        let column = &mut out[number];
        let before = column.samples.len();
        match (item, spacing) {
            (Item::Sample((at, Ok(kept))), None) => {
                column.close();
                column.samples.push((at.0, value_of(column.metric, kept as f64)));
            }
            (Item::Sample((at, Ok(kept))), Some(ms)) => {
                let begin = (at.0.div_euclid(ms) * ms).max(query.start_ms);
                column.take(begin, kept as f64, 1, kept as f64);
            }
            (Item::Rolled(rolled, width), _) if rolled.count > 0 => {
                let ms = spacing.unwrap_or(width.min(WIDEST_MS));
                let stride = if width > ms { (WIDEST_MS / ms * ms).min(width) } else { ms };
                let (sum, last) = (rolled.sum as f64, rolled.last as f64);
                let mut at = rolled.at.div_euclid(ms) * ms;
                let until = (rolled.at + width).min(end);
                // One that is wider stands for all of its time.
                while at < until {
                    if at + ms > query.start_ms {
                        column.take(at.max(query.start_ms), sum, rolled.count, last);
                    }
                    at += stride;
                }
            }
            (Item::Sample(_) | Item::Rolled(..), _) => {}
        }
        taken += column.samples.len() - before;
        taken <= most
    })?;
    Ok(out
        .into_iter()
        .map(|mut column| {
            column.close();
            column.samples
        })
        .collect())
}
