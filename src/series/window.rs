//! Windows over a series: readings as they came, or one number a step.

use crate::model::reading::Gap;
use crate::model::time::{Span, Stamp};

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

/// One number a step from `start` (which begins the first step) until before `end`. A step without a good
/// reading is a gap, with the reason of its last bad reading. Samples come in order of time; those before
/// `start` only serve to rate the first step.
pub fn buckets(
    samples: &[Sample],
    start: Stamp,
    end: Stamp,
    step: Span,
    how: Aggregate,
) -> Vec<Bucket> {
    let step_ms = i64::try_from(step.0.max(1)).unwrap_or(i64::MAX);
    let mut out = Vec::new();
    let mut rest = samples.iter().copied().skip_while(|(at, _)| *at < start).peekable();
    let mut before =
        samples.iter().copied().take_while(|(at, _)| *at < start).filter_map(good).last();
    let mut at = start;
    while at < end {
        let until = Stamp(at.0.saturating_add(step_ms)).min(end);
        let mut values = Vec::new();
        let mut gap = Gap::NotRead;
        while let Some(sample) = rest.next_if(|(when, _)| *when < until) {
            match sample.1 {
                Ok(value) => values.push((sample.0, value)),
                Err(reason) => gap = reason,
            }
        }
        let value = aggregate(&values, before, how).ok_or(gap);
        before = values.last().copied().or(before);
        out.push(Bucket { at, value });
        at = Stamp(at.0.saturating_add(step_ms));
    }
    out
}

fn good(sample: Sample) -> Option<(Stamp, i64)> {
    sample.1.ok().map(|value| (sample.0, value))
}

fn aggregate(values: &[(Stamp, i64)], before: Option<(Stamp, i64)>, how: Aggregate) -> Option<f64> {
    let numbers = values.iter().map(|(_, value)| *value);
    match how {
        Aggregate::Avg => {
            let sum: i128 = numbers.map(i128::from).sum();
            (!values.is_empty()).then(|| sum as f64 / values.len() as f64)
        }
        Aggregate::Min => numbers.min().map(|v| v as f64),
        Aggregate::Max => numbers.max().map(|v| v as f64),
        Aggregate::Last => values.last().map(|(_, v)| *v as f64),
        Aggregate::Rate => rate(values, before),
    }
}

fn rate(values: &[(Stamp, i64)], before: Option<(Stamp, i64)>) -> Option<f64> {
    let mut points = before.into_iter().chain(values.iter().copied());
    let (first_at, mut last) = points.next()?;
    let (mut grown, mut last_at) = (0_i128, first_at);
    for (at, value) in points {
        grown += i128::from(if value >= last { value - last } else { value });
        (last, last_at) = (value, at);
    }
    let took = last_at.since(first_at).0;
    (took > 0).then(|| grown as f64 * 1_000.0 / took as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
