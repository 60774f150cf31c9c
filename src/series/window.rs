//! Windows over a series: readings as they came, or one number a step.

use crate::model::reading::Gap;
use crate::model::time::{Span, Stamp};

use super::rollup::{Rolled, growth};

/// A reading of a series.
pub type Sample = (Stamp, Result<i64, Gap>);

/// What a step says of its readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregate {
    /// Mean of the readings.
    Avg,
    /// Smallest.
    Min,
    /// Largest.
    Max,
    /// Latest.
    Last,
    /// Growth of a counter per second; a counter that went back was reset and counts from zero.
    Rate,
}

impl Aggregate {
    /// By name.
    pub const ALL: [(&'static str, Aggregate); 5] = [
        ("avg", Aggregate::Avg),
        ("min", Aggregate::Min),
        ("max", Aggregate::Max),
        ("last", Aggregate::Last),
        ("rate", Aggregate::Rate),
    ];

    /// The name.
    pub fn word(self) -> &'static str {
        Self::ALL[self as usize].0
    }
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// When it begins.
    pub at: Stamp,
    /// The number in kept steps (per second for a rate), or why there is none.
    pub value: Result<f64, Gap>,
}

/// One number a step, taken up reading by reading: a year costs no more memory than its steps.
#[derive(Debug)]
pub struct Buckets {
    start: Stamp,
    end: Stamp,
    step_ms: i64,
    how: Aggregate,
    done: Vec<Bucket>,
    at: Stamp,
    /// Where the step under way ends.
    until: Stamp,
    now: Step,
}

/// What a step has seen so far.
#[derive(Debug, Clone, Copy)]
struct Step {
    gap: Gap,
    count: i64,
    sum: i128,
    least: i64,
    most: i64,
    /// The last good reading.
    last: Option<(Stamp, i64)>,
    /// How much a counter has grown, and since when.
    grown: i128,
    since: Option<Stamp>,
}

impl Step {
    fn after(before: Option<(Stamp, i64)>) -> Self {
        Self {
            gap: Gap::NotRead,
            count: 0,
            sum: 0,
            least: i64::MAX,
            most: i64::MIN,
            last: before,
            grown: 0,
            since: before.map(|(at, _)| at),
        }
    }

    /// Takes up what `how` asks for, and no more: a graph is a million readings.
    #[inline]
    fn take(&mut self, (at, value): Sample, how: Aggregate) {
        let value = match value {
            Ok(value) => value,
            Err(gap) => {
                self.gap = gap;
                return;
            }
        };
        match how {
            Aggregate::Avg => self.sum += i128::from(value),
            Aggregate::Min => self.least = self.least.min(value),
            Aggregate::Max => self.most = self.most.max(value),
            Aggregate::Last => {}
            Aggregate::Rate => {
                if let Some((_, last)) = self.last {
                    self.grown += i128::from(growth(last, value));
                }
                self.since = self.since.or(Some(at));
            }
        }
        self.count += 1;
        self.last = Some((at, value));
    }

    fn take_rolled(&mut self, rolled: &Rolled, until: Stamp) {
        if rolled.count == 0 {
            self.gap = rolled.gap;
            return;
        }
        if let Some((_, last)) = self.last {
            self.grown += i128::from(growth(last, rolled.first));
        }
        self.since = self.since.or(Some(Stamp(rolled.at)));
        self.grown += i128::from(rolled.grown);
        self.count += rolled.count;
        self.sum += i128::from(rolled.sum);
        self.least = self.least.min(rolled.least);
        self.most = self.most.max(rolled.most);
        self.last = Some((until, rolled.last));
    }

    fn value(&self, how: Aggregate) -> Option<f64> {
        if self.count == 0 {
            return None;
        }
        match how {
            Aggregate::Avg => {
                // A sum of i64 where it is one: far cheaper to convert.
                let sum = match i64::try_from(self.sum) {
                    Ok(sum) => sum as f64,
                    Err(_) => self.sum as f64,
                };
                Some(sum / self.count as f64)
            }
            Aggregate::Min => Some(self.least as f64),
            Aggregate::Max => Some(self.most as f64),
            Aggregate::Last => self.last.map(|(_, value)| value as f64),
            Aggregate::Rate => {
                let took = self.last?.0.since(self.since?).0;
                (took > 0).then(|| self.grown as f64 * 1_000.0 / took as f64)
            }
        }
    }
}

impl Buckets {
    /// From `start`, which begins the first step, until before `end`.
    pub fn new(start: Stamp, end: Stamp, step: Span, how: Aggregate) -> Self {
        let step_ms = i64::try_from(step.0.max(1)).unwrap_or(i64::MAX);
        let now = Step::after(None);
        let mut new =
            Self { start, end, step_ms, how, done: Vec::new(), at: start, until: end, now };
        new.until = new.until();
        new
    }

    /// The next reading. They come in order of time; those before the start only serve to rate the first step.
    #[inline]
    pub fn take(&mut self, sample: Sample) {
        let (at, value) = sample;
        if at < self.start {
            if let Ok(value) = value {
                self.now = Step::after(Some((at, value)));
            }
            return;
        }
        if at >= self.until {
            if at >= self.end {
                return;
            }
            self.close_until(at);
        }
        self.now.take(sample, self.how);
    }

    fn close_until(&mut self, at: Stamp) {
        while at >= self.until {
            self.close();
        }
    }

    /// The next rolled-up readings, of so many milliseconds; they count where they begin.
    pub fn take_rolled(&mut self, rolled: &Rolled, width_ms: i64) {
        let (at, until) = (Stamp(rolled.at), Stamp(rolled.at.saturating_add(width_ms)));
        if at < self.start {
            if rolled.count > 0 {
                self.now = Step::after(Some((until.min(self.start), rolled.last)));
            }
            return;
        }
        if at >= self.end {
            return;
        }
        self.close_until(at);
        self.now.take_rolled(rolled, until);
    }

    /// All steps. One without a good reading is a gap, with the reason of its last bad reading.
    pub fn finish(mut self) -> Vec<Bucket> {
        while self.at < self.end {
            self.close();
        }
        self.done
    }

    fn until(&self) -> Stamp {
        Stamp(self.at.0.saturating_add(self.step_ms)).min(self.end)
    }

    fn close(&mut self) {
        let value = self.now.value(self.how).ok_or(self.now.gap);
        self.done.push(Bucket { at: self.at, value });
        self.at = Stamp(self.at.0.saturating_add(self.step_ms));
        self.until = self.until();
        // The next step rates on from the last good reading, however long ago.
        self.now = Step::after(self.now.last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn buckets(
        samples: &[Sample],
        start: Stamp,
        end: Stamp,
        step: Span,
        how: Aggregate,
    ) -> Vec<Bucket> {
        let mut buckets = Buckets::new(start, end, step, how);
        samples.iter().for_each(|sample| buckets.take(*sample));
        buckets.finish()
    }

    fn at(second: i64) -> Stamp {
        Stamp(second * 1_000)
    }

    fn values(samples: &[Sample], step: u64, how: Aggregate) -> Vec<Option<f64>> {
        let buckets = buckets(samples, at(0), at(30), Span::seconds(step), how);
        buckets.into_iter().map(|bucket| bucket.value.ok()).collect()
    }

    #[test]
    fn each_step_has_one_number_and_a_gap_stays_a_gap() {
        let samples =
            [(at(1), Ok(10)), (at(4), Ok(20)), (at(12), Err(Gap::Timeout)), (at(25), Ok(5))];
        assert_eq!(values(&samples, 10, Aggregate::Avg), [Some(15.0), None, Some(5.0)]);
        assert_eq!(values(&samples, 10, Aggregate::Max), [Some(20.0), None, Some(5.0)]);
        assert_eq!(values(&samples, 10, Aggregate::Last), [Some(20.0), None, Some(5.0)]);
        let middle = buckets(&samples, at(0), at(30), Span::seconds(10), Aggregate::Min)[1];
        assert_eq!(middle.value, Err(Gap::Timeout));
    }

    #[test]
    fn a_counter_that_was_reset_is_rated_over_the_reset() {
        let samples = [(at(0), Ok(1_000)), (at(10), Ok(1_100)), (at(20), Ok(40)), (at(29), Ok(50))];
        // 100 in the first ten seconds; 40 after the reset; 10 in nine seconds.
        let rates = values(&samples, 10, Aggregate::Rate);
        assert_eq!(rates[1], Some(10.0));
        assert_eq!(rates[2], Some((40.0 + 10.0) / 19.0));
    }

    proptest! {
        #[test]
        fn rollups_answer_as_their_readings_do(readings in prop::collection::btree_map(0_i64..30, 0_i64..1_000, 0..30)) {
            let samples: Vec<Sample> = readings.into_iter().map(|(s, v)| (at(s), Ok(v))).collect();
            let column: Vec<_> = samples.iter().map(|(at, cell)| (at.0, *cell)).collect();
            for how in [Aggregate::Avg, Aggregate::Min, Aggregate::Max, Aggregate::Last] {
                let mut rolled = Buckets::new(at(0), at(30), Span::seconds(10), how);
                super::super::rollup::roll(column.iter().copied(), 5_000).iter().for_each(|step| rolled.take_rolled(step, 5_000));
                prop_assert_eq!(rolled.finish(), buckets(&samples, at(0), at(30), Span::seconds(10), how));
            }
        }

        #[test]
        fn steps_joined_cover_the_window(step in 1u64..20, readings in prop::collection::vec((0i64..30, 0i64..1000), 0..40)) {
            let mut samples: Vec<Sample> = readings.into_iter().map(|(s, v)| (at(s), Ok(v))).collect();
            samples.sort_by_key(|s| s.0);
            let steps = buckets(&samples, at(0), at(30), Span::seconds(step), Aggregate::Max);
            prop_assert_eq!(steps.len() as u64, 30u64.div_ceil(step));
            let highest = steps.iter().filter_map(|b| b.value.ok()).fold(None, |m: Option<f64>, v| Some(m.map_or(v, |m| m.max(v))));
            prop_assert_eq!(highest, samples.iter().map(|s| s.1.unwrap() as f64).fold(None, |m: Option<f64>, v| Some(m.map_or(v, |m| m.max(v)))));
        }
    }
}
