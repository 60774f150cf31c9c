//! `/v1/prometheus/read`: Prometheus' remote read. History that Prometheus never scraped, under the names and labels of
//! `/metrics`.

use hyper::header::{CONTENT_ENCODING, HeaderValue};

use crate::model::id::OutletId;
use crate::model::metric::{Metric, Scope, Word};
use crate::model::time::{Span, Stamp};
use crate::store::Archive;
use crate::store::reader::{Item, Scan, Series, scan};
use crate::store::shelf::MINUTE_MS;
use crate::wire::problem::Problem;
use crate::wire::prometheus::{Changed, Draft, Drafted, How, Matcher, Query, Sending, request};

use super::context::{Answer, Context, State};
use super::metrics::READINGS;
use super::problem::bad;
use super::stream::{Outgoing, Stopped, stream};

/// Bytes of a decompressed request: queries are short.
const REQUEST_BYTES: usize = 1 << 20;
/// Queries in one request: Prometheus sends one.
const QUERIES: usize = 16;
/// Samples in one answer.
const SAMPLES: usize = 10_000_000;
/// Prometheus takes a series for gone when its last sample is older than five minutes: so far apart they may be.
const WIDEST_MS: i64 = 240_000;
/// Readings as they came are given of no longer a time: beyond, a minute's stand for them.
const FINE_MS: i64 = 86_400_000;
/// Compressed bytes of an answer that are kept in memory.
const KEPT: usize = 2 << 20;
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
    if queries.len() > QUERIES {
        let detail = format!("{} queries in one request", queries.len());
        return Err(bad(detail, format!("ask for at most {QUERIES} at once")));
    }
    let state = context.state.clone();
    let make = move |out: &mut Outgoing| {
        let find = |query: &Query| matching(&state, query);
        answer(&Asked { store: &state.store, find: &find, queries: &queries }, KEPT, out)
    };
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

/// What is asked, and where the series of a query are known.
struct Asked<'a> {
    store: &'a Archive,
    find: &'a dyn Fn(&Query) -> Result<Vec<Known>, Problem>,
    queries: &'a [Query],
}

/// What the first time told of a series: how many samples, and when the last of them was.
type Measured = (usize, i64);

/// Makes the answer: once to know how long it is, and if it does not stay in memory for that, once more as it is sent.
fn answer(asked: &Asked<'_>, keep: usize, out: &mut Outgoing) -> Result<(), Stopped> {
    let mut draft = Draft::keeping(keep);
    let measured = measure(asked, &mut draft, out)?;
    let lengths = match draft.finish()? {
        Drafted::Whole(pieces) => {
            out.put_whole(pieces);
            return Ok(());
        }
        Drafted::Long(lengths) => lengths,
    };
    let mut sending = Sending::new(lengths, out)?;
    let mut measured = measured.as_slice();
    for query in asked.queries {
        sending.begin().map_err(sent)?;
        for some in batches(query, &(asked.find)(query)?) {
            let Some((of, rest)) = measured.split_at_checked(some.len()) else {
                return Err(sent(std::io::Error::other(Changed)));
            };
            measured = rest;
            // A quick look instead of a long read, where there was nothing.
            let read = if of.iter().any(|(count, _)| *count > 0) {
                read_some(asked.store, query, some, SAMPLES)?
            } else {
                Vec::new()
            };
            for ((known, mut read), (count, last)) in some.iter().zip(read).zip(of) {
                // What came in since is not in the length that was sent.
                read.retain(|(at, _)| at <= last);
                if read.len() != *count {
                    return Err(sent(std::io::Error::other(Changed)));
                }
                if *count > 0 {
                    sending.series(&known.labels, &read).map_err(sent)?;
                }
            }
        }
    }
    sending.finish().map_err(sent)
}

fn measure(
    asked: &Asked<'_>,
    draft: &mut Draft,
    out: &mut Outgoing,
) -> Result<Vec<Measured>, Stopped> {
    let gone = out.gone();
    let mut measured = Vec::new();
    let mut samples = 0;
    for query in asked.queries {
        draft.begin();
        for some in batches(query, &(asked.find)(query)?) {
            let most = SAMPLES - samples;
            for (known, read) in some.iter().zip(read_some(asked.store, query, some, most)?) {
                samples += read.len();
                if samples > SAMPLES {
                    let detail = format!("that are more than {SAMPLES} samples");
                    let next = "ask for fewer series, a shorter time or a larger step";
                    return Err(bad(detail, next).into());
                }
                if !read.is_empty() {
                    draft.series(&known.labels, &read)?;
                }
                measured.push((read.len(), read.last().map_or(i64::MIN, |(at, _)| *at)));
            }
            if draft.is_long() {
                out.will_be_long()?;
            }
            if gone() {
                return Err(Stopped::Gone);
            }
        }
    }
    Ok(measured)
}

/// Why it was not sent to its end.
fn sent(error: std::io::Error) -> Stopped {
    if let Some(inner) = error.get_ref()
        && inner.is::<Changed>()
    {
        return Problem::new(503, "Changed meanwhile", error.to_string(), "ask again").into();
    }
    error.into()
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::BodyExt as _;
    use tokio::sync::Semaphore;

    use super::super::stream::Turns;
    use super::*;
    use crate::model::reading::Datum;
    use crate::model::topology::{Layout, Part, Slot};
    use crate::store::archive::Settings;
    use crate::store::writer::{Counts, Row, Writer};

    const BEGIN: i64 = 1_790_000_000_000;

    /// Two outlets, read every ten seconds.
    fn store() -> Arc<Archive> {
        let archive = Arc::new(Archive::in_memory(Settings::default(), Box::new(|_, _| {})));
        let part = |number: u16| Part { number, id: number.to_string(), ..Part::default() };
        let slot = |part| Slot { scope: Scope::Outlet, part, metric: Metric::Power };
        let parts = [vec![], vec![], vec![], vec![part(1), part(2)], vec![]];
        let layout = Layout::new(parts, vec![slot(0), slot(1)]);
        write(&archive, &layout, (0..2_000).map(|n| BEGIN + n * 10_000));
        archive
    }

    fn write(archive: &Arc<Archive>, layout: &Arc<Layout>, times: impl Iterator<Item = i64>) {
        let row = |at: i64| Row {
            pdu: "pdu-a".parse().unwrap(),
            layout: layout.clone(),
            at: Stamp(at),
            data: vec![(0, Datum::Value(at % 777)), (1, Datum::Value(at / 10_000 % 999))],
        };
        let mut writer = Writer::new(archive.clone(), Arc::new(Counts::default()));
        writer.write(&times.map(row).collect::<Vec<_>>());
        writer.flush();
    }

    fn known() -> Vec<Known> {
        let of = |part: &str| Series {
            pdu: "pdu-a".parse().unwrap(),
            part: part.to_owned(),
            metric: Metric::Power,
        };
        // One that was never read is in no answer.
        ["1", "2", "3"]
            .map(|part| Known { of: of(part), labels: vec![("outlet", part.into())] })
            .into()
    }

    async fn asked(
        store: &Arc<Archive>,
        keep: usize,
        find: impl Fn(usize) -> Vec<Known> + Send + 'static,
    ) -> Result<Vec<u8>, String> {
        let query =
            Query { start_ms: BEGIN, end_ms: i64::MAX, step_ms: 10_000, ..Query::default() };
        let query = Query { end_ms: BEGIN + FINE_MS, ..query };
        let turns = Turns {
            working: Arc::new(Semaphore::new(1)),
            waiting: Arc::new(Semaphore::new(1)),
            stop: tokio_util::sync::CancellationToken::new(),
        };
        let store = store.clone();
        let make = move |out: &mut Outgoing| {
            let times = std::cell::Cell::new(0);
            let find = |_: &Query| {
                times.set(times.get() + 1);
                Ok(find(times.get()))
            };
            let queries = [query.clone(), query];
            answer(&Asked { store: &store, find: &find, queries: &queries }, keep, out)
        };
        let answer = stream(turns, "x", make).await.map_err(|problem| problem.detail)?;
        let body = answer.into_body().collect().await.map_err(|error| error.to_string())?;
        let packed = body.to_bytes();
        Ok(snap::raw::Decoder::new().decompress_vec(&packed).unwrap())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_sent_while_it_is_made_is_what_is_kept_whole() {
        let store = store();
        let whole = asked(&store, usize::MAX, |_| known()).await.unwrap();
        let sent = asked(&store, 1_000, |_| known()).await.unwrap();
        assert!(whole.len() > 2 * 2 * 2_000 * 18, "{} bytes", whole.len());
        assert!(whole == sent);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_comes_in_meanwhile_is_left_out_and_what_changed_is_not_made_to_look_whole() {
        let store = store();
        let before = asked(&store, usize::MAX, |_| known()).await.unwrap();
        // Between the two times that it is read.
        let between = |times: fn() -> Vec<i64>| {
            let (store, layout) = (store.clone(), Arc::new(std::sync::Mutex::new(false)));
            move |time: usize| {
                let mut done = layout.lock().unwrap();
                if time == 3 && !*done {
                    *done = true;
                    let part =
                        |number: u16| Part { number, id: number.to_string(), ..Part::default() };
                    let slot = |part| Slot { scope: Scope::Outlet, part, metric: Metric::Power };
                    let parts = [vec![], vec![], vec![], vec![part(1), part(2)], vec![]];
                    let layout = Layout::new(parts, vec![slot(0), slot(1)]);
                    write(&store, &layout, times().into_iter());
                }
                known()
            }
        };
        let later = || (2_000..2_050).map(|n| BEGIN + n * 10_000).collect();
        assert!(asked(&store, 1_000, between(later)).await.unwrap() == before);
        let amid = || vec![BEGIN + 5_000];
        let error = asked(&store, 1_000, between(amid)).await.unwrap_err();
        assert!(error.contains("changed meanwhile"), "{error}");
    }
}
