//! Windows over a series: readings as they came, or one number a step.

use crate::model::reading::Gap;
use crate::model::time::{Span, Stamp};

use super::rollup::{Rolled, growth};

/// A reading of a series.
pub type Sample = (Stamp, Result<i64, Gap>);

/// What is read of a series beside each other, oldest first: as it lies in memory, for a graph is a million readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run<'r> {
    /// Numbers, and when each was read, ms since 1970.
    Numbers(&'r [i64], &'r [i64]),
    /// When there was none, and why.
    Gaps(&'r [i64], Gap),
    /// Readings that were rolled up, and over how many milliseconds.
    Rolled(&'r [Rolled], i64),
}

impl<'r> Run<'r> {
    /// The readings one by one; none of what is rolled up.
    pub fn samples(self) -> impl Iterator<Item = Sample> + 'r {
        let (times, numbers, gap) = match self {
            Run::Numbers(times, numbers) => (times, numbers, Gap::NotRead),
            Run::Gaps(times, gap) => (times, &[][..], gap),
            Run::Rolled(..) => (&[][..], &[][..], Gap::NotRead),
        };
        let numbers = numbers.iter().map(|number| Ok(*number)).chain(std::iter::repeat(Err(gap)));
        times.iter().map(|at| Stamp(*at)).zip(numbers)
    }

    /// Those before a moment, and the others: of what is rolled up, those that begin before it.
    pub fn split_at(self, at: Stamp) -> (Self, Self) {
        let early = |times: &[i64]| times.partition_point(|time| *time < at.0);
        match self {
            Run::Numbers(times, numbers) => {
                let place = early(times);
                let ((a, b), (c, d)) = (times.split_at(place), numbers.split_at(place));
                (Run::Numbers(a, c), Run::Numbers(b, d))
            }
            Run::Gaps(times, gap) => {
                let (before, after) = times.split_at(early(times));
                (Run::Gaps(before, gap), Run::Gaps(after, gap))
            }
            Run::Rolled(steps, width) => {
                let place = steps.partition_point(|step| step.at < at.0);
                let (before, after) = steps.split_at(place);
                (Run::Rolled(before, width), Run::Rolled(after, width))
            }
        }
    }

    /// When the first was read, or the first step begins.
    pub fn first(self) -> Option<Stamp> {
        match self {
            Run::Numbers(times, _) | Run::Gaps(times, _) => times.first().map(|at| Stamp(*at)),
            Run::Rolled(steps, _) => steps.first().map(|step| Stamp(step.at)),
        }
    }

    /// How many there are.
    pub fn len(self) -> usize {
        match self {
            Run::Numbers(times, _) | Run::Gaps(times, _) => times.len(),
            Run::Rolled(steps, _) => steps.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

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

    /// Takes up readings that are all good.
    fn take_numbers(&mut self, times: &[i64], numbers: &[i64], how: Aggregate) {
        let ([.., at], [.., last]) = (times, numbers) else { return };
        match how {
            Aggregate::Avg => {
                self.sum += numbers.iter().map(|number| i128::from(*number)).sum::<i128>();
            }
            Aggregate::Min => self.least = numbers.iter().copied().fold(self.least, i64::min),
            Aggregate::Max => self.most = numbers.iter().copied().fold(self.most, i64::max),
            Aggregate::Last => {}
            Aggregate::Rate => {
                let readings = times.iter().zip(numbers);
                readings.for_each(|(at, number)| self.take((Stamp(*at), Ok(*number)), how));
                return;
            }
        }
        self.count += numbers.len() as i64;
        self.last = Some((Stamp(*at), *last));
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
                let sum =
                    i64::try_from(self.sum).map_or_else(|_| large(self.sum), |sum| sum as f64);
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

/// Not among the rest, or the compiler converts every sum so.
#[cold]
#[inline(never)]
fn large(sum: i128) -> f64 {
    sum as f64
}

/// Steps that room is taken for at once.
const AT_ONCE: i64 = 1_024;

impl Buckets {
    /// From `start`, which begins the first step, until before `end`.
    pub fn new(start: Stamp, end: Stamp, step: Span, how: Aggregate) -> Self {
        let step_ms = i64::try_from(step.0.max(1)).unwrap_or(i64::MAX);
        let now = Step::after(None);
        let steps = (end.0.saturating_sub(start.0) / step_ms + 1).clamp(0, AT_ONCE);
        let done = Vec::with_capacity(steps as usize);
        let mut new = Self { start, end, step_ms, how, done, at: start, until: end, now };
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

    /// The next readings or rolled-up readings, as [`Buckets::take`] and [`Buckets::take_rolled`] do them one by one.
    pub fn take_run(&mut self, run: Run<'_>) {
        match run {
            Run::Numbers(times, numbers) => self.take_numbers(times, numbers),
            Run::Gaps(..) => run.samples().for_each(|sample| self.take(sample)),
            Run::Rolled(steps, width) => {
                steps.iter().for_each(|step| self.take_rolled(step, width));
            }
        }
    }

    fn take_numbers(&mut self, times: &[i64], numbers: &[i64]) {
        let mut from = times.iter().take_while(|at| **at < self.start.0).count();
        if let Some(before) = from.checked_sub(1) {
            self.take((Stamp(times[before]), Ok(numbers[before])));
        }
        // A step has as many as the one before it, mostly.
        let mut inside = 1;
        while let Some(at) = times.get(from) {
            if *at >= self.end.0 {
                return;
            }
            self.close_until(Stamp(*at));
            let is_inside = |place: usize| times.get(place).is_some_and(|at| *at < self.until.0);
            if !is_inside(from + inside - 1) || is_inside(from + inside) {
                inside = times[from..].iter().take_while(|at| **at < self.until.0).count();
            }
            let to = from + inside;
            self.now.take_numbers(&times[from..to], &numbers[from..to], self.how);
            from = to;
        }
    }

    fn close_until(&mut self, at: Stamp) {
        while at >= self.until {
            self.close();
        }
    }

    /// Rates the next step from a reading before it.
    pub fn goes_on_from(&mut self, before: (Stamp, i64)) {
        self.now = Step::after(Some(before));
    }

    /// The next rolled-up readings, of so many milliseconds; they count where they begin, and stand for all steps of their
    /// time where these are narrower.
    pub fn take_rolled(&mut self, rolled: &Rolled, width_ms: i64) {
        let (at, until) = (Stamp(rolled.at), Stamp(rolled.at.saturating_add(width_ms)));
        if width_ms > self.step_ms && rolled.count > 0 {
            if until <= self.start {
                self.goes_on_from((until, rolled.last));
                return;
            }
            // Nothing finer is kept: it stands for all of its time.
            let mut at = at.max(self.start);
            let mut rated = Step::after(self.now.last);
            rated.take_rolled(rolled, until);
            let begun = self.at;
            while at < until.min(self.end) {
                self.close_until(at);
                if self.how == Aggregate::Rate && self.at > begun {
                    self.now = rated;
                } else {
                    self.now.take_rolled(rolled, until);
                }
                at = self.until;
            }
            return;
        }
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

    #[test]
    fn a_rollup_stands_for_all_steps_of_its_time() {
        let column = [(0, Ok(10)), (5_000, Ok(20)), (10_000, Err(Gap::Timeout)), (20_000, Ok(5))];
        let rolled = super::super::rollup::roll(column, 10_000);
        let steps = |start, step, how| {
            let mut buckets = Buckets::new(at(start), at(30), Span::seconds(step), how);
            rolled.iter().for_each(|rolled| buckets.take_rolled(rolled, 10_000));
            let finished = buckets.finish().into_iter();
            finished.map(|bucket| bucket.value.ok()).collect::<Vec<_>>()
        };
        let of = [Some(15.0), Some(15.0), None, None, Some(5.0), Some(5.0)];
        assert_eq!(steps(0, 5, Aggregate::Avg), of);
        assert_eq!(steps(5, 5, Aggregate::Avg), of[1..]);
        assert_eq!(steps(0, 5, Aggregate::Max)[..2], [Some(20.0); 2]);
        // 10 more in the ten seconds of which the second reading is the last; then reset, and 5 in the 20 seconds since.
        let of = [Some(1.0), Some(1.0), None, None, Some(0.25), Some(0.25)];
        assert_eq!(steps(0, 5, Aggregate::Rate), of);
        assert_eq!(steps(0, 2, Aggregate::Rate)[..5], [Some(1.0); 5]);
        assert_eq!(steps(5, 5, Aggregate::Rate), of[1..]);
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
        fn readings_together_are_readings_one_by_one(
            readings in prop::collection::btree_map(-10_i64..40, prop::option::weighted(0.8, -9_i64..1_000), 0..50),
            (start, length, step, how) in (0_i64..10, 0_i64..30, 1_u64..12, 0_usize..5),
            cut in -10_i64..40,
        ) {
            let how = Aggregate::ALL[how].1;
            let new = || Buckets::new(at(start), at(start + length), Span::seconds(step), how);
            let samples: Vec<Sample> = readings.into_iter().map(|(s, v)| (at(s), v.ok_or(Gap::Timeout))).collect();
            let mut together = new();
            for run in samples.chunk_by(|a, b| a.1.is_ok() == b.1.is_ok()) {
                let times: Vec<i64> = run.iter().map(|(at, _)| at.0).collect();
                let numbers: Vec<i64> = run.iter().filter_map(|(_, value)| value.ok()).collect();
                let run_of = if numbers.is_empty() { Run::Gaps(&times, Gap::Timeout) } else { Run::Numbers(&times, &numbers) };
                prop_assert_eq!(run_of.samples().collect::<Vec<_>>(), run.to_vec());
                let (early, late) = run_of.split_at(at(cut));
                prop_assert!(early.samples().all(|sample| sample.0 < at(cut)) && late.samples().all(|sample| sample.0 >= at(cut)));
                prop_assert_eq!(early.len() + late.len(), run.len());
                together.take_run(early);
                together.take_run(late);
            }
            let mut one_by_one = new();
            samples.iter().for_each(|sample| one_by_one.take(*sample));
            prop_assert_eq!(together.finish(), one_by_one.finish());
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
