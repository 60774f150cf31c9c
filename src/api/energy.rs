//! `/v1/energy`: what hosts, PDUs and outlets have used, period by period, from their counters and over their resets.

use std::collections::{BTreeMap, BTreeSet};

use hyper::StatusCode;

use crate::model::metric::Metric;
use crate::model::time::{Span, Stamp};
use crate::series::meter::Meter;
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
/// Periods of all consumers together.
const ANSWERS: usize = 200_000;
/// How far before the window a counter's last reading is looked for: the slowest poll is once a day.
const BEFORE_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;
/// What selects more than one outlet.
const WHOLES: [&str; 3] = ["pdu", "host", "group"];

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
    let consumers = named.iter().map(|(_, group)| group).collect::<BTreeSet<_>>().len();
    if consumers * begins.len() > ANSWERS {
        return Err(bad(
            format!("{} periods of {consumers} consumers are more than {ANSWERS}", begins.len()),
            "ask for longer periods, a shorter time, fewer hosts or by=rack",
        ));
    }
    let window = Window { begins, end, until: end.min(context.state.clock.stamp()), start };
    let of = context
        .state
        .in_turn(move |store| {
            let mut groups = BTreeMap::new();
            for of_pdu in named.chunk_by(|(a, _), (b, _)| a.pdu == b.pdu) {
                count(store, of_pdu, &window, &mut groups)?;
            }
            let body = |(id, group): (String, Group)| group.body(id, &window.begins);
            Ok(groups.into_iter().map(body).collect())
        })
        .await?;
    let (start, end) = (start.to_string(), end.to_string());
    json(StatusCode::OK, &EnergyBody { start, end, period, of })
}

/// The periods that are asked for.
struct Window {
    begins: Vec<Stamp>,
    start: Stamp,
    end: Stamp,
    /// The end, or now if that is earlier.
    until: Stamp,
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

/// What the counters of a consumer say of a period.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    /// mWh.
    grown: i128,
    /// How many of the counters say something.
    known: usize,
    /// One of them began in it, or ended long before its end.
    cut: bool,
    shared: bool,
}

impl Sum {
    /// mWh as Wh; far below 2^53.
    fn energy_wh(&self) -> Option<f64> {
        (self.known > 0).then_some(self.grown as f64 / 1_000.0)
    }

    fn quality(&self, counters: usize) -> &'static str {
        match self {
            Sum { known: 0, .. } => "missing",
            Sum { known, cut, .. } if *known < counters || *cut => "partial",
            Sum { shared: true, .. } => "estimated",
            Sum { .. } => "good",
        }
    }

    fn add(&mut self, other: &Sum) {
        self.grown += other.grown;
        self.known += other.known;
        self.cut |= other.cut;
        self.shared |= other.shared;
    }
}

/// The counters of a consumer.
#[derive(Debug, Default)]
struct Group {
    counters: usize,
    resets: u64,
    periods: Vec<Sum>,
}

impl Group {
    fn take(&mut self, meter: Meter, window: &Window) {
        self.counters += 1;
        self.resets += meter.resets;
        self.periods.resize(window.begins.len(), Sum::default());
        let gap_ms = meter.gap_ms();
        let ends = window.begins.iter().skip(1).copied().chain([window.end]);
        let periods = meter.finish().into_iter().zip(ends);
        for (sum, (period, end)) in self.periods.iter_mut().zip(periods) {
            if period.readings > 0 {
                let silent_ms = end.min(window.until).0.saturating_sub(period.until.0);
                let cut = period.begun || silent_ms > gap_ms;
                let (grown, shared) = (period.grown, period.shared);
                sum.add(&Sum { grown, known: 1, cut, shared });
            }
        }
    }

    fn body(self, id: String, begins: &[Stamp]) -> ConsumerBody {
        let mut all = Sum::default();
        self.periods.iter().for_each(|sum| all.add(sum));
        let periods = begins.iter().zip(&self.periods).map(|(at, sum)| PeriodBody {
            start: at.to_string(),
            energy_wh: sum.energy_wh(),
            quality: sum.quality(self.counters),
        });
        ConsumerBody {
            id,
            energy_wh: all.energy_wh(),
            quality: all.quality(self.counters * begins.len()),
            resets: self.resets,
            periods: periods.collect(),
        }
    }
}

/// Counts what some counters of a PDU say, each for its consumer.
fn count(
    store: &Archive,
    of_pdu: &[(Series, String)],
    window: &Window,
    groups: &mut BTreeMap<String, Group>,
) -> Result<(), Problem> {
    let Window { begins, start, end, .. } = window;
    // Rollups serve where the window's ends are theirs; what is asked to the second is counted from readings.
    let fits = |width: i64| start.0 % width == 0 && end.0 % width == 0;
    let width = [HOUR_MS, 60_000].into_iter().find(|width| fits(*width)).unwrap_or(1);
    let step = Some((*start, Span(width as u64)));
    let columns: Vec<(String, Metric)> =
        of_pdu.iter().map(|(series, _)| (series.part.clone(), series.metric)).collect();
    let mut meters: Vec<Meter> = of_pdu.iter().map(|_| Meter::new(begins, *end)).collect();
    let Some((Series { pdu, .. }, _)) = of_pdu.first() else { return Ok(()) };
    let from = Stamp(start.0 - BEFORE_MS);
    let asked = Scan { pdu, columns: &columns, start: from, end: *end, step };
    scan(store, &asked, &mut |number, item| {
        match item {
            Item::Sample(sample) => meters[number].take(sample),
            Item::Rolled(rolled, width) => meters[number].take_rolled(rolled, width),
        }
        true
    })?;
    for (meter, (_, group)) in meters.into_iter().zip(of_pdu) {
        groups.entry(group.clone()).or_default().take(meter, window);
    }
    Ok(())
}

fn of_itself(series: &Series) -> String {
    if series.part == "I1" {
        series.pdu.to_string()
    } else {
        format!("{}/{}", series.pdu, series.part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_silent_counter_used_is_not_told_as_good() {
        // Hours from ten to two; now is a quarter to two.
        let at = |hours: i64, minutes: i64| Stamp(hours * HOUR_MS + minutes * 60_000);
        let begins: Vec<Stamp> = (10..14).map(|hour| at(hour, 0)).collect();
        let window = Window { begins, start: at(10, 0), end: at(14, 0), until: at(13, 45) };
        let told = |minutes: &mut dyn Iterator<Item = i64>| {
            let mut meter = Meter::new(&window.begins, window.end);
            minutes.for_each(|minute| meter.take((at(0, minute), Ok(minute * 1_000))));
            let mut group = Group::default();
            group.take(meter, &window);
            let body = group.body("x".into(), &window.begins);
            let periods = body.periods.iter().map(|period| (period.energy_wh, period.quality));
            (body.quality, periods.collect::<Vec<_>>())
        };
        // Read every minute until a minute ago.
        let all = told(&mut (590..825));
        assert_eq!(all.0, "good");
        assert_eq!(
            all.1,
            [
                (Some(60.0), "good"),
                (Some(60.0), "good"),
                (Some(60.0), "good"),
                (Some(45.0), "good")
            ]
        );
        // Away from 10:05 to 12:10: what it used then is in the hour in which it was back, and that is told.
        let (quality, hours) = told(&mut (590..605).chain(730..825));
        assert_eq!(quality, "partial");
        assert_eq!(hours[0], (Some(5.0), "partial"));
        assert_eq!(hours[1], (None, "missing"));
        assert_eq!((hours[2].1, hours[3].1), ("estimated", "good"));
        let sum: f64 = hours.iter().filter_map(|hour| hour.0).sum();
        assert!((sum - 225.0).abs() < 1e-9, "{sum}");
        // Its first reading ever is at 10:30.
        assert_eq!(told(&mut (630..825)).1[0], (Some(29.0), "partial"));
    }

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
