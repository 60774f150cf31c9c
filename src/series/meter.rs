//! What a counter counted, period by period, over its resets: energy for bills. Growth belongs to the period of the
//! later reading, so that periods joined are the whole, to the last kept step.

use crate::model::time::Stamp;

use super::rollup::{Rolled, growth};
use super::window::Sample;

/// A period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// When it begins; it ends where the next begins.
    pub at: Stamp,
    /// What was counted, in kept steps.
    pub grown: i128,
    /// How many readings say so.
    pub readings: i64,
}

/// A counter that is read along.
#[derive(Debug)]
pub struct Meter {
    periods: Vec<Period>,
    end: Stamp,
    at: usize,
    last: Option<i64>,
    /// How often it was reset.
    pub resets: u64,
}

impl Meter {
    /// Periods that begin at these moments, rising; the last one ends at `end`.
    pub fn new(begins: &[Stamp], end: Stamp) -> Self {
        let period = |at: &Stamp| Period { at: *at, grown: 0, readings: 0 };
        Self { periods: begins.iter().map(period).collect(), end, at: 0, last: None, resets: 0 }
    }

    /// The next reading; those before the first period only say where the counter stood.
    pub fn take(&mut self, (at, value): Sample) {
        let Ok(value) = value else { return };
        self.grow(at, value, 0, value, 1);
    }

    /// The next readings, rolled up.
    pub fn take_rolled(&mut self, rolled: &Rolled) {
        if rolled.count > 0 {
            self.grow(Stamp(rolled.at), rolled.first, rolled.grown, rolled.last, rolled.count);
        }
    }

    fn grow(&mut self, at: Stamp, first: i64, within: i64, last: i64, readings: i64) {
        if at >= self.end {
            return;
        }
        while self.periods.get(self.at + 1).is_some_and(|next| next.at <= at) {
            self.at += 1;
        }
        if let Some(period) = self.periods.get_mut(self.at).filter(|period| period.at <= at) {
            if let Some(before) = self.last {
                self.resets += u64::from(first < before);
                period.grown += i128::from(growth(before, first));
            }
            // At least once, where a rollup grew otherwise than from its first reading to its last.
            self.resets += u64::from(readings > 1 && within != last.saturating_sub(first));
            period.grown += i128::from(within);
            period.readings += readings;
        }
        self.last = Some(last);
    }

    /// The periods.
    pub fn finish(self) -> Vec<Period> {
        self.periods
    }
}

#[cfg(test)]
mod tests {
    use super::super::rollup::roll;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn periods_joined_are_the_whole_and_rollups_say_the_same(steps in prop::collection::vec(prop_oneof![9 => 0_i64..5_000, 1 => Just(-1)], 1..200), width in 1_i64..9) {
            let mut counter = 1_000_000_i64;
            let samples: Vec<(i64, Result<i64, _>)> = (0..).zip(steps).map(|(n, step)| {
                counter = if step < 0 { 17 } else { counter + step };
                (n * 10_000, Ok(counter))
            }).collect();
            let end = Stamp(samples.len() as i64 * 10_000);
            let begins: Vec<Stamp> = (0..end.0).step_by((width * 60_000) as usize).map(Stamp).collect();
            let mut many = Meter::new(&begins, end);
            let mut one = Meter::new(&[Stamp(0)], end);
            for (at, value) in &samples {
                many.take((Stamp(*at), *value));
                one.take((Stamp(*at), *value));
            }
            let whole: i128 = samples.windows(2).map(|pair| i128::from(growth(pair[0].1.unwrap(), pair[1].1.unwrap()))).sum();
            let many = many.finish();
            prop_assert_eq!(many.iter().map(|period| period.grown).sum::<i128>(), whole);
            prop_assert_eq!(one.finish()[0].grown, whole);
            let mut rolled = Meter::new(&begins, end);
            roll(samples.iter().copied(), 60_000).iter().for_each(|step| rolled.take_rolled(step));
            prop_assert_eq!(rolled.finish(), many);
        }
    }
}
