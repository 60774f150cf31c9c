//! `/v1/energy`: what hosts, PDUs and outlets have used, period by period, from their counters and over their resets.

use std::collections::BTreeMap;

use hyper::StatusCode;

use crate::model::metric::Metric;
use crate::model::time::{Span, Stamp};
use crate::series::meter::{Meter, Period};
use crate::store::Archive;
use crate::store::reader::{Item, Scan, Series, scan};
use crate::wire::energy::{ConsumerBody, EnergyBody, PeriodBody};
use crate::wire::problem::Problem;

use super::context::{Answer, Context, json};
use super::problem::bad;
use super::select::{By, group_of, select};
use super::series::times;

const KNOWN: [&str; 8] = ["target", "pdu", "host", "group", "start", "end", "period", "by"];
/// Periods in one answer: a year of hours.
const PERIODS: usize = 8_784;
/// How far before the window a counter's last reading is looked for: the slowest poll is once a day.
const BEFORE_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;
/// What selects more than one outlet.
const WHOLES: [&str; 3] = ["pdu", "host", "group"];

/// A counter's periods, and how often it was reset.
type Counted = (Vec<Period>, u64);

/// Energy of hosts, PDUs or outlets.
#[utoipa::path(get, path = "/v1/energy", tag = "series",
    params(("host" = Option<String>, Query, description = "a host; as often as needed"), ("pdu" = Option<String>, Query, description = "all outlets of a PDU, * for all"), ("group" = Option<String>, Query, description = "the outlets of a group"), ("target" = Option<String>, Query, description = "pdu-a/7; pdu-a is the inlet's own counter"),
        ("start" = Option<String>, Query, description = "as for /v1/series"), ("end" = Option<String>, Query, description = "as for /v1/series"), ("period" = Option<String>, Query, description = "hour, day, month (UTC) or all; all unless told"), ("by" = Option<String>, Query, description = "host, pdu, branch or rack; host unless told, outlets without a host by themselves, and so are targets where there is nothing else")),
    responses((status = 200, body = EnergyBody), (status = 400, body = Problem, content_type = "application/problem+json"), (status = 404, body = Problem, content_type = "application/problem+json")))]
pub async fn energy(context: Context) -> Answer {
    context.only(&KNOWN)?;
    let (start, end) = times(&context)?;
    let text = context.query::<String>("period", "text")?;
    let words = ["all", "hour", "day", "month"];
    let period = match &text {
        None => "all",
        Some(text) => *words
            .iter()
            .find(|word| *word == text)
            .ok_or_else(|| bad("period is not known", "write period=hour, day, month or all"))?,
    };
    let begins = begins(start, end, period)?;
    let by = match context.query::<String>("by", "text")? {
        None => None,
        Some(text) => Some(
            By::ALL
                .iter()
                .find(|(word, _)| *word == text)
                .map(|(_, by)| *by)
                .ok_or_else(|| bad("by is not known", "write by=host, pdu, branch or rack"))?,
        ),
    };
    // What was named by itself is told by itself: an outlet is not all of its host.
    let single =
        by.is_none() && context.query.iter().all(|(key, _)| !WHOLES.contains(&key.as_str()));
    let all = select(&context, Metric::Energy).await?;
    if all.is_empty() {
        return Err(bad("nothing is selected", "write host=, pdu=, group= or target="));
    }
    let named: Vec<(Series, String)> = all
        .into_iter()
        .map(|series| {
            let group = match by {
                None if single => of_itself(&series),
                by => group_of(&context.state, &series, by.unwrap_or(By::Host)),
            };
            (series, group)
        })
        .collect();
    let now = context.state.clock.stamp();
    let turn = context.state.query_turn().await?;
    let store = context.state.store.clone();
    let moments = begins.clone();
    let counted = tokio::task::spawn_blocking(move || {
        let series: Vec<Series> = named.iter().map(|(series, _)| series.clone()).collect();
        let counted = count(&store, &series, &moments, start, end)?;
        let mut groups: BTreeMap<String, Vec<Counted>> = BTreeMap::new();
        for ((_, group), counted) in named.into_iter().zip(counted) {
            groups.entry(group).or_default().push(counted);
        }
        Ok::<_, Problem>(groups)
    });
    let groups = counted.await.map_err(|error| {
        Problem::new(500, "Internal error", error.to_string(), "report this with the request")
    })??;
    drop(turn);
    let of = groups
        .into_iter()
        .map(|(id, counters)| consumer(id, &counters, &begins, end.min(now)))
        .collect();
    let (start, end) = (start.to_string(), end.to_string());
    json(StatusCode::OK, &EnergyBody { start, end, period, of })
}

/// When the periods of a window begin; the first begins with it.
fn begins(start: Stamp, end: Stamp, period: &str) -> Result<Vec<Stamp>, Problem> {
    let mut begins = vec![start];
    loop {
        let last = begins[begins.len() - 1];
        let next = match period {
            "hour" => Stamp((last.0.div_euclid(HOUR_MS) + 1) * HOUR_MS),
            "day" => Stamp((last.0.div_euclid(BEFORE_MS) + 1) * BEFORE_MS),
            "month" => next_month(last),
            _ => return Ok(begins),
        };
        if next >= end {
            return Ok(begins);
        }
        if begins.len() == PERIODS {
            return Err(bad(
                format!("that makes more than {PERIODS} periods"),
                "ask for longer periods or a shorter time",
            ));
        }
        begins.push(next);
    }
}

fn next_month(at: Stamp) -> Stamp {
    let text = at.to_string();
    let number =
        |range: std::ops::Range<usize>| text.get(range).and_then(|t| t.parse::<u32>().ok());
    let (year, month) = (number(0..4).unwrap_or(9_999), number(5..7).unwrap_or(12));
    let (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    format!("{year:04}-{month:02}-01T00:00:00Z").parse().unwrap_or(Stamp(i64::MAX))
}

fn count(
    store: &Archive,
    series: &[Series],
    begins: &[Stamp],
    start: Stamp,
    end: Stamp,
) -> Result<Vec<Counted>, Problem> {
    let mut out = Vec::new();
    // Rollups serve where the window's ends are theirs; what is asked to the second is counted from readings.
    let fits = |width: i64| start.0 % width == 0 && end.0 % width == 0;
    let width = [HOUR_MS, 60_000].into_iter().find(|width| fits(*width)).unwrap_or(1);
    let step = Some((start, Span(width as u64)));
    for of_pdu in series.chunk_by(|a, b| a.pdu == b.pdu) {
        let columns: Vec<(String, Metric)> =
            of_pdu.iter().map(|series| (series.part.clone(), series.metric)).collect();
        let mut meters: Vec<Meter> = of_pdu.iter().map(|_| Meter::new(begins, end)).collect();
        let (pdu, from) = (&of_pdu[0].pdu, Stamp(start.0 - BEFORE_MS));
        let asked = Scan { pdu, columns: &columns, start: from, end, step };
        scan(store, &asked, &mut |number, item| {
            match item {
                Item::Sample(sample) => meters[number].take(sample),
                Item::Rolled(rolled, width) => meters[number].take_rolled(rolled, width),
            }
            true
        })?;
        out.extend(
            meters.into_iter().map(|meter| (meter.resets, meter.finish())).map(|(r, p)| (p, r)),
        );
    }
    Ok(out)
}

fn of_itself(series: &Series) -> String {
    if series.part == "I1" {
        series.pdu.to_string()
    } else {
        format!("{}/{}", series.pdu, series.part)
    }
}

/// How much a consumer used. `until` is when the window ends, or now if that is earlier.
fn consumer(id: String, counters: &[Counted], begins: &[Stamp], until: Stamp) -> ConsumerBody {
    let quality = |known: &[Period], of: usize| match known {
        [] => "missing",
        known if known.len() < of || known.iter().any(|period| period.begun) => "partial",
        known if known.iter().any(|period| period.shared) => "estimated",
        _ => "good",
    };
    // mWh as Wh; far below 2^53.
    let wh = |known: &[Period]| {
        let grown: i128 = known.iter().map(|period| period.grown).sum();
        (!known.is_empty()).then_some(grown as f64 / 1_000.0)
    };
    let mut periods = Vec::new();
    let mut all: Vec<Period> = Vec::new();
    for (number, at) in begins.iter().enumerate() {
        let known: Vec<Period> = counters
            .iter()
            .map(|(periods, _)| periods[number])
            .filter(|period| period.readings > 0)
            .collect();
        let end = begins.get(number + 1).map_or(until, |next| (*next).min(until));
        // Whoever answered until a day before its end has an end that nobody knows.
        let ended = known.iter().any(|period| period.until.0 + BEFORE_MS < end.0);
        let quality = match quality(&known, counters.len()) {
            "good" | "estimated" if ended => "partial",
            quality => quality,
        };
        periods.push(PeriodBody { start: at.to_string(), energy_wh: wh(&known), quality });
        all.extend(known);
    }
    let resets = counters.iter().map(|(_, resets)| resets).sum();
    let of_all = match quality(&all, counters.len() * begins.len()) {
        "good" | "estimated" if periods.iter().any(|period| period.quality == "partial") => {
            "partial"
        }
        quality => quality,
    };
    ConsumerBody { id, energy_wh: wh(&all), quality: of_all, resets, periods }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_begin_where_the_calendar_says() {
        let at = |text: &str| text.parse::<Stamp>().unwrap();
        let told = |period: &str| -> Vec<String> {
            let (start, end) = (at("2026-11-29T22:30:00Z"), at("2027-01-02T00:00:00Z"));
            begins(start, end, period).unwrap().iter().map(ToString::to_string).collect()
        };
        let months =
            ["2026-11-29T22:30:00.000Z", "2026-12-01T00:00:00.000Z", "2027-01-01T00:00:00.000Z"];
        assert_eq!(told("month"), months);
        assert_eq!(told("day").len(), 34);
        assert_eq!(told("all").len(), 1);
    }
}
