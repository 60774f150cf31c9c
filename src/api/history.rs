//! Series read from the store into a sheet, one after the other, each by itself or folded into groups. What is held at a
//! time is bounded, however long the window and however many the series: a day of some columns, a slice of some steps.

use std::collections::BTreeMap;
use std::io::Write;

use crate::model::metric::Metric;
use crate::model::reading::{Datum, Gap};
use crate::model::time::Stamp;
use crate::series::window::{Aggregate, Bucket, Run, Sample};
use crate::store::Archive;
use crate::store::reader::{Scan, Series, scan_runs};
use crate::wire::series::PointValue;

use super::select::{Fold, Window};
use super::sheet::{Point, Sheet};
use super::steps::Steps;
use super::stream::Stopped;

/// Steps or readings of series that are read together: 3 MB.
const HELD: usize = 1 << 17;
/// Sums of groups that are made together: 3 MB.
const SUMS: usize = 1 << 16;
/// Between two readings of a PDU, ms, as most are polled. At a poll a second a day under way takes ten times of `HELD`.
const POLL_MS: i64 = 10_000;
const DAY_MS: i64 = 86_400_000;

/// Where readings come from and go to.
pub struct History<'h, W: Write> {
    /// The store.
    pub store: &'h Archive,
    /// What is written.
    pub sheet: &'h mut Sheet<W>,
    /// Says when nobody waits for it any more.
    pub is_gone: &'h dyn Fn() -> bool,
}

impl<W: Write> History<'_, W> {
    /// Readings of a series as they came.
    pub fn readings(&mut self, of: &Series, start: Stamp, end: Stamp) -> Result<(), Stopped> {
        self.sheet.series(&name(of))?;
        let columns = [(of.part.clone(), of.metric)];
        let asked = Scan { pdu: &of.pdu, columns: &columns, start, end, step: None };
        let sheet = &mut *self.sheet;
        let mut take = |_: usize, run: Run<'_>| {
            run.samples().try_for_each(|sample| sheet.point(point(of.metric, sample)))
        };
        shown(self.store, &asked, self.is_gone, &mut take)
    }

    /// Steps of series, one series after the other.
    pub fn each(&mut self, all: &[Series], window: &Window) -> Result<(), Stopped> {
        let at_once = columns_at_once(window, window.steps());
        for of_pdu in all.chunk_by(|a, b| a.pdu == b.pdu) {
            for some in of_pdu.chunks(at_once) {
                if let [one] = some {
                    self.one(one, window)?;
                    continue;
                }
                let mut steps: Vec<Steps> =
                    some.iter().map(|_| Steps::new(*window, window.steps())).collect();
                let mut never = |_: Bucket| Ok(());
                let whole = (window.before(), window.end);
                read(self.store, some, whole, window, self.is_gone, &mut |number, run| {
                    steps[number].take(run, &mut never)
                })?;
                for (series, steps) in some.iter().zip(steps) {
                    let sheet = &mut *self.sheet;
                    sheet.series(&name(series))?;
                    steps.finish(&mut |step| sheet.point(step_point(series.metric, &step)))?;
                }
            }
        }
        Ok(())
    }

    fn one(&mut self, series: &Series, window: &Window) -> Result<(), Stopped> {
        let sheet = &mut *self.sheet;
        sheet.series(&name(series))?;
        let mut show = |step: Bucket| sheet.point(step_point(series.metric, &step));
        let mut steps = Steps::new(*window, HELD);
        let whole = (window.before(), window.end);
        let only = std::slice::from_ref(series);
        read(self.store, only, whole, window, self.is_gone, &mut |_, run| {
            steps.take(run, &mut show)
        })?;
        steps.finish(&mut show)
    }

    /// Steps of groups, one group after the other. The series are those of one metric, in order.
    pub fn folded(
        &mut self,
        all: &[(Series, String)],
        window: &Window,
        fold: Fold,
    ) -> Result<(), Stopped> {
        let mut groups: BTreeMap<&str, Vec<&Series>> = BTreeMap::new();
        for (series, group) in all {
            groups.entry(group).or_default().push(series);
        }
        let groups: Vec<(&str, Vec<&Series>)> = groups.into_iter().collect();
        // Few steps of many groups are read together; of many steps one group goes slice by slice.
        for some in groups.chunks((SUMS / window.steps().max(1)).max(1)) {
            self.groups(some, window, fold)?;
        }
        Ok(())
    }

    fn groups(
        &mut self,
        groups: &[(&str, Vec<&Series>)],
        window: &Window,
        fold: Fold,
    ) -> Result<(), Stopped> {
        let mut members: Vec<(Series, usize)> = Vec::new();
        for (number, (_, of)) in groups.iter().enumerate() {
            members.extend(of.iter().map(|series| ((*series).clone(), number)));
        }
        // Those of a PDU together, and otherwise as they are: sums are the same whatever is read at once.
        members.sort_by(|(a, _), (b, _)| a.pdu.cmp(&b.pdu));
        let Some(metric) = members.first().map(|(series, _)| series.metric) else { return Ok(()) };
        let series: Vec<Series> = members.iter().map(|(series, _)| series.clone()).collect();
        let length = window.steps().min(SUMS);
        let at_once = columns_at_once(window, length);
        let mut steps: Vec<Steps> = series.iter().map(|_| Steps::new(*window, length)).collect();
        if groups.len() == 1 || length == 0 {
            groups.iter().try_for_each(|(name, _)| self.sheet.series(name))?;
        }
        while let Some((from, until)) = steps.first().filter(|s| !s.is_over()).map(Steps::slice) {
            let mut sums: Vec<Vec<Sum>> = groups.iter().map(|_| Vec::new()).collect();
            let since = if from == window.start { window.before() } else { from };
            let mut number = 0;
            for of_pdu in series.chunk_by(|a, b| a.pdu == b.pdu) {
                for some in of_pdu.chunks(at_once) {
                    let mine = &mut steps[number..number + some.len()];
                    let mut never = |_: Bucket| Ok(());
                    read(self.store, some, (since, until), window, self.is_gone, &mut |n, run| {
                        mine[n].take(run, &mut never)
                    })?;
                    for (place, steps) in mine.iter_mut().enumerate() {
                        let sums = &mut sums[members[number + place].1];
                        let mut at = 0;
                        steps.turn(&mut |step| {
                            add(sums, at, &step, fold);
                            at += 1;
                            Ok(())
                        })?;
                    }
                    number += some.len();
                }
            }
            for ((name, _), sums) in groups.iter().zip(sums) {
                if groups.len() > 1 {
                    self.sheet.series(name)?;
                }
                sums.iter().try_for_each(|sum| self.sheet.point(sum.point(metric, fold)))?;
            }
        }
        Ok(())
    }
}

/// Columns that are read together, so that neither their steps nor a day of their readings are more than may be held.
fn columns_at_once(window: &Window, steps: usize) -> usize {
    let length = (window.end.0 - window.start.0).clamp(1, DAY_MS);
    let readings = (length / POLL_MS).max(1) as usize;
    (HELD / readings.max(steps).max(1)).max(1)
}

fn name(series: &Series) -> String {
    format!("{}/{}", series.pdu, series.part)
}

/// Reads some series of one PDU for a window's steps.
fn read(
    store: &Archive,
    some: &[Series],
    (start, end): (Stamp, Stamp),
    window: &Window,
    is_gone: &dyn Fn() -> bool,
    take: &mut dyn FnMut(usize, Run<'_>) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    let Some(first) = some.first() else { return Ok(()) };
    let columns: Vec<(String, Metric)> =
        some.iter().map(|series| (series.part.clone(), series.metric)).collect();
    let step = Some((window.start, window.step));
    let asked = Scan { pdu: &first.pdu, columns: &columns, start, end, step };
    shown(store, &asked, is_gone, take)
}

/// A scan that ends when something fails, or when nobody waits any more.
fn shown(
    store: &Archive,
    asked: &Scan<'_>,
    is_gone: &dyn Fn() -> bool,
    take: &mut dyn FnMut(usize, Run<'_>) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    let mut stopped = None;
    let mut count = 0;
    scan_runs(store, asked, &mut |number, run| {
        count += run.len();
        stopped = take(number, run).err();
        if count >= 4_096 && stopped.is_none() {
            count = 0;
            stopped = is_gone().then_some(Stopped::Gone);
        }
        stopped.is_none()
    })?;
    match stopped {
        Some(stopped) => Err(stopped),
        None if is_gone() => Err(Stopped::Gone),
        None => Ok(()),
    }
}

/// One step of a group, as far as its series are read.
struct Sum {
    at: Stamp,
    value: f64,
    known: u32,
    of: u32,
    gap: Gap,
}

fn add(sums: &mut Vec<Sum>, place: usize, step: &Bucket, fold: Fold) {
    if place == sums.len() {
        sums.push(Sum { at: step.at, value: 0.0, known: 0, of: 0, gap: Gap::NotRead });
    }
    let sum = &mut sums[place];
    sum.of += 1;
    match step.value {
        Ok(value) => {
            sum.value = match fold {
                _ if sum.known == 0 => value,
                Fold::Sum | Fold::Avg => sum.value + value,
                Fold::Max => sum.value.max(value),
                Fold::Min => sum.value.min(value),
            };
            sum.known += 1;
        }
        Err(gap) => sum.gap = gap,
    }
}

impl Sum {
    fn point(&self, metric: Metric, fold: Fold) -> Point {
        let value = match (self.known, fold) {
            (0, _) => Err(self.gap),
            (known, Fold::Avg) => Ok(self.value / f64::from(known)),
            _ => Ok(self.value),
        };
        let mut point = step_point(metric, &Bucket { at: self.at, value });
        if value.is_ok() && self.known < self.of {
            point.quality = "partial";
        }
        point
    }
}

fn point(metric: Metric, (at, value): Sample) -> Point {
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
    Point { at, value, quality }
}

fn step_point(metric: Metric, bucket: &Bucket) -> Point {
    match (bucket.value, metric.unit()) {
        (Ok(kept), Some(unit)) => {
            // As many decimals as the unit keeps, and three more for means and rates.
            let scale = unit.scale() as f64;
            let value = (kept * 1_000.0).round() / 1_000.0 / scale;
            Point { at: bucket.at, value: PointValue::Number(value), quality: "good" }
        }
        (Ok(kept), None) => point(metric, (bucket.at, Ok(kept as i64))),
        (Err(gap), _) => point(metric, (bucket.at, Err::<i64, Gap>(gap))),
    }
}

impl Window {
    /// From when readings are needed: a rate needs the one before the window.
    fn before(&self) -> Stamp {
        let is_rate = matches!(self.how, Aggregate::Rate);
        let back = if is_rate { self.step.0.max(600_000) } else { 0 };
        Stamp(self.start.0.saturating_sub(i64::try_from(back).unwrap_or(i64::MAX)))
    }
}
