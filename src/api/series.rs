//! `/v1/series`: readings of one target or of many, by themselves or folded, over any stretch of time.

use crate::model::limits::SERIES_STEPS;
use crate::model::metric::{Kind, Metric};
use crate::model::time::{Span, Stamp};
use crate::series::window::Aggregate;
use crate::store::Archive;
use crate::store::reader::{Series, target};
use crate::wire::problem::Problem;
use crate::wire::series::SeriesAnswer;

use super::context::{Answer, Context};
use super::history::History;
use super::problem::{bad, not_found};
use super::select::{By, Fold, Window, group_of, select};
use super::sheet::{Form, Head, Sheet};
use super::stream::{Outgoing, Stopped, stream};

const KNOWN: [&str; 11] =
    ["target", "pdu", "host", "group", "metric", "start", "end", "step", "agg", "fold", "by"];

/// Readings of targets over time. The answer is sent while it is made; one that ends early was not whole.
#[utoipa::path(get, path = "/v1/series", tag = "series",
    params(("target" = Option<String>, Query, description = "pdu-a, pdu-a/7, pdu-a/L1, pdu-a/B2, pdu-a/T1; as often as needed"),
        ("pdu" = Option<String>, Query, description = "all outlets of a PDU, * for all PDUs"), ("host" = Option<String>, Query, description = "the outlets of a host"), ("group" = Option<String>, Query, description = "the outlets of a group"),
        ("fold" = Option<String>, Query, description = "sum, avg, max or min over the series"), ("by" = Option<String>, Query, description = "what is folded together: pdu, branch, host or rack; rack unless told"), ("metric" = String, Query, description = "power_w, current_a, energy_wh, state, …"),
        ("start" = Option<String>, Query, description = "RFC 3339, seconds since 1970, or back from now as in -2h; -1h unless told"), ("end" = Option<String>, Query, description = "now unless told"),
        ("step" = Option<String>, Query, description = "width of a step, as in 60s; without it the readings as they came"), ("agg" = Option<String>, Query, description = "avg, min, max, last or rate; avg unless told"),
        ("Accept" = Option<String>, Header, description = "text/csv, or application/vnd.apache.arrow.stream for an Arrow IPC stream with the columns of the CSV (times as UTC milliseconds, gaps as nulls beside their reason in quality); JSON unless told")),
    responses((status = 200, description = "Of one target, or of several", content((SeriesAnswer = "application/json"), (String = "text/csv"), (Vec<u8> = "application/vnd.apache.arrow.stream"))),
        (status = 400, body = Problem, content_type = "application/problem+json"), (status = 404, body = Problem, content_type = "application/problem+json"), (status = 503, body = Problem, content_type = "application/problem+json")))]
pub async fn series(context: Context) -> Answer {
    context.only(&KNOWN)?;
    let query = Query::read(&context).await?;
    let form = Form::wanted(&context.headers);
    let store = context.state.store.clone();
    let make = move |out: &mut Outgoing| query.write(&store, form, out);
    stream(context.state.turns.clone(), form.kind(), make).await
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

/// A query that is right.
struct Query {
    head: Head,
    /// The series, in order, each with the group that it is folded into.
    all: Vec<(Series, String)>,
    fold: Option<Fold>,
}

impl Query {
    async fn read(context: &Context) -> Result<Self, Problem> {
        let selects = |(key, _): &&(String, String)| {
            ["pdu", "host", "group", "fold", "by"].contains(&key.as_str())
        };
        let targets = context.query.iter().filter(|(key, _)| key == "target").count();
        let is_one = targets <= 1 && context.query.iter().find(selects).is_none();
        let text = |name: &'static str| context.query::<String>(name, "text");
        let one = if is_one { Some(Self::target(context)?) } else { None };
        let metric = metric_of(context)?;
        let (start, end) = times(context)?;
        let step = step_of(text("step")?, text("agg")?, metric, start, end)?;
        let fold = choice(context, "fold", &Fold::ALL)?;
        let by = choice(context, "by", &By::ALL)?;
        if by.is_some() && fold.is_none() {
            return Err(bad("by without fold", "add fold=sum, avg, max or min"));
        }
        if fold.is_some() && metric.unit().is_none() {
            return Err(bad("states cannot be folded", "leave fold out"));
        }
        if fold.is_some() && step.is_none() {
            return Err(bad("step is missing", "what is folded needs a step, as step=60s"));
        }
        let (by_word, by) = by.unwrap_or(("rack", By::Rack));
        let all: Vec<(Series, String)> = select(context, metric)
            .await?
            .into_iter()
            .map(|series| {
                let group = match fold {
                    Some(_) => group_of(&context.state, &series, by),
                    None => format!("{}/{}", series.pdu, series.part),
                };
                (series, group)
            })
            .collect();
        if all.is_empty() {
            return Err(bad("no series is selected", "write target=, pdu=, host= or group="));
        }
        let groups = if fold.is_some() { 1 } else { all.len() as u64 };
        if let Some((step, _)) = step {
            within(end.since(start).0 / step.0.max(1), groups)?;
        }
        let fold_words = fold.map(|(word, _)| (word, by_word));
        let head = Head { target: one, metric, start, end, step, fold: fold_words };
        Ok(Self { head, all, fold: fold.map(|(_, fold)| fold) })
    }

    /// The one target, as it was written.
    fn target(context: &Context) -> Result<String, Problem> {
        let next = "write target=pdu-a/7 or the like";
        let name = context.query::<String>("target", "text")?;
        let name = name.ok_or_else(|| bad("target is missing", next))?;
        let (pdu, _) = target(&name).map_err(|error| bad(error.to_string(), next))?;
        if context.state.fleet.get(&pdu).is_none() {
            return Err(not_found(&format!("PDU \"{pdu}\"")));
        }
        Ok(name)
    }

    fn write(&self, store: &Archive, form: Form, out: &mut Outgoing) -> Result<(), Stopped> {
        let is_gone = out.gone();
        let mut sheet = Sheet::begin(out, form, &self.head)?;
        let mut history = History { store, sheet: &mut sheet, is_gone: &is_gone };
        let Head { start, end, step, .. } = self.head;
        let window = step.map(|(step, how)| Window { start, end, step, how });
        let series = || self.all.iter().map(|(series, _)| series);
        match (window, self.fold) {
            (Some(window), Some(fold)) => history.folded(&self.all, &window, fold)?,
            (Some(window), None) => {
                history.each(&series().cloned().collect::<Vec<_>>(), &window)?;
            }
            (None, _) => series().try_for_each(|series| history.readings(series, start, end))?,
        }
        sheet.end()
    }
}

/// Refuses what would be more steps than anybody can use.
fn within(steps: u64, series: u64) -> Result<(), Problem> {
    if steps.saturating_mul(series) <= SERIES_STEPS {
        return Ok(());
    }
    Err(bad(
        format!("that makes more than {SERIES_STEPS} steps"),
        "ask for a larger step, a shorter time, or fold=sum",
    ))
}

fn step_of(
    step: Option<String>,
    agg: Option<String>,
    metric: Metric,
    start: Stamp,
    end: Stamp,
) -> Result<Option<(Span, Aggregate)>, Problem> {
    let names = Aggregate::ALL.map(|(name, _)| name).join(", ");
    let Some(step) = step else {
        return if agg.is_none() { Ok(None) } else { Err(bad("agg without step", "add step=60s")) };
    };
    let shown = |text: &str| text.chars().take(20).collect::<String>();
    let next = "write step=60s, step=5m, step=1h";
    let span: Span = step
        .parse()
        .map_err(|_| bad(format!("step={} is no stretch of time", shown(&step)), next))?;
    if span.0 == 0 {
        return Err(bad("a step of nothing makes no steps", next));
    }
    let is_state = matches!(metric.kind(), Kind::Words(_));
    let default = if is_state { "last" } else { "avg" };
    let agg = agg.unwrap_or_else(|| default.to_owned());
    let how = Aggregate::ALL.iter().find(|(name, _)| *name == agg).map(|(_, how)| *how);
    let how = how.ok_or_else(|| {
        bad(format!("agg={} is not known", shown(&agg)), format!("write agg= and one of {names}"))
    })?;
    if is_state && how != Aggregate::Last {
        return Err(bad("a state has no mean, least or rate", "write agg=last"));
    }
    within(end.since(start).0 / span.0, 1)?;
    Ok(Some((span, how)))
}

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
