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
    /// Until when they go; from when the first rolled-up ones begin that end later.
    pub until: Stamp,
    /// The counter's first reading is within it: what was counted before that nobody knows.
    pub begun: bool,
    /// What was rolled up over one of its ends is shared out by time, or some of what was counted before it is in it, as
    /// nothing was read around its beginning.
    pub shared: bool,
}

/// What was read in a row.
struct Part {
    at: Stamp,
    until: Stamp,
    first: i64,
    within: i64,
    last: i64,
    readings: i64,
    shared: bool,
}

/// A counter that is read along.
#[derive(Debug)]
pub struct Meter {
    periods: Vec<Period>,
    end: Stamp,
    at: usize,
    last: Option<i64>,
    /// Until when that goes.
    until: Stamp,
    /// The shortest time between the beginnings of two in a row, ms.
    every_ms: i64,
    begun_at: Stamp,
    /// How often it was reset.
    pub resets: u64,
}

/// Nothing that is shorter is a gap, ms.
const NO_GAP_MS: i64 = 300_000;
/// What is longer is one, however seldom a device is read, ms.
const GAP_MS: i64 = 86_400_000;

impl Meter {
    /// Periods that begin at these moments, rising; the last one ends at `end`.
    pub fn new(begins: &[Stamp], end: Stamp) -> Self {
        let period = |at: &Stamp| Period {
            at: *at,
            grown: 0,
            readings: 0,
            until: *at,
            begun: false,
            shared: false,
        };
        Self {
            periods: begins.iter().map(period).collect(),
            end,
            at: 0,
            last: None,
            until: Stamp(i64::MIN),
            every_ms: i64::MAX,
            begun_at: Stamp(i64::MIN),
            resets: 0,
        }
    }

    /// How long nothing may come before that is a gap, ms: some of the usual time.
    pub fn gap_ms(&self) -> i64 {
        self.every_ms.saturating_mul(3).clamp(NO_GAP_MS, GAP_MS)
    }

    /// The next reading; those before the first period only say where the counter stood.
    pub fn take(&mut self, (at, value): Sample) {
        let Ok(value) = value else { return };
        let (first, last) = (value, value);
        self.grow(&Part { at, until: at, first, within: 0, last, readings: 1, shared: false });
    }

    /// The next readings, rolled up over so many milliseconds. Where a period begins or ends within them, what they grew is
    /// shared out by time: all shares are the whole.
    pub fn take_rolled(&mut self, rolled: &Rolled, width_ms: i64) {
        if rolled.count == 0 {
            return;
        }
        let until = rolled.at + width_ms;
        let grown_by = |at: i64| {
            let share = i128::from(rolled.grown) * i128::from(at - rolled.at);
            i64::try_from(share / i128::from(width_ms)).unwrap_or(rolled.grown)
        };
        let (mut from, mut first) = (rolled.at, rolled.first);
        // At least once, where a rollup grew otherwise than from its first reading to its last.
        let was_reset = rolled.grown != rolled.last.saturating_sub(rolled.first);
        let mut counts = false;
        while from < until {
            let to = self.next_begin(from).min(until);
            let shared = from > rolled.at || to < until;
            counts |= self.grow(&Part {
                at: Stamp(from),
                until: Stamp(to),
                first,
                within: grown_by(to) - grown_by(from),
                last: rolled.last,
                readings: rolled.count,
                shared,
            });
            (from, first) = (to, rolled.last);
        }
        self.resets += u64::from(counts && rolled.count > 1 && was_reset);
    }

    /// When the period after the one of a moment begins, or the last one ends.
    fn next_begin(&self, at: i64) -> i64 {
        if at >= self.end.0 {
            return i64::MAX;
        }
        let later = self.periods.iter().skip(self.at).map(|period| period.at);
        later.chain([self.end]).find(|begin| begin.0 > at).map_or(i64::MAX, |begin| begin.0)
    }

    /// Tells whether it was within a period.
    fn grow(&mut self, part: &Part) -> bool {
        if part.at >= self.end {
            return false;
        }
        while self.periods.get(self.at + 1).is_some_and(|next| next.at <= part.at) {
            self.at += 1;
        }
        let before = self.last.replace(part.last);
        let (until, begun_at) = (self.until, self.begun_at);
        (self.until, self.begun_at) = (part.until, part.at);
        if before.is_some() {
            self.every_ms = self.every_ms.min(part.at.0.saturating_sub(begun_at.0).max(1));
        }
        let gap_ms = self.gap_ms();
        let period = self.periods.get_mut(self.at).filter(|period| period.at <= part.at);
        let Some(period) = period else { return false };
        if let Some(before) = before {
            self.resets += u64::from(part.first < before);
            let grown = growth(before, part.first);
            period.grown += i128::from(grown);
            let is_gap = part.at.0.saturating_sub(until.0) > gap_ms;
            period.shared |= is_gap && until < period.at && grown > 0;
        }
        period.begun |= before.is_none() && part.at > period.at;
        period.grown += i128::from(part.within);
        period.readings += part.readings;
        period.until = part.until;
        period.shared |= part.shared;
        true
    }

    /// The periods. Each tells until when its readings go.
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
            let end = Stamp((end.0 + 59_999) / 60_000 * 60_000);
            let mut rolled = Meter::new(&begins, end);
            roll(samples.iter().copied(), 60_000).iter().for_each(|step| rolled.take_rolled(step, 60_000));
            let told = |periods: &[Period]| periods.iter().map(|p| (p.at, p.grown, p.readings, p.shared)).collect::<Vec<_>>();
            prop_assert_eq!(told(&rolled.finish()), told(&many));
            // Periods that begin within what was rolled up have their shares of it, and all of them together the whole.
            let shifted: Vec<Stamp> = (0..end.0).step_by(47_000).map(Stamp).collect();
            let mut shares = Meter::new(&shifted, end);
            roll(samples.iter().copied(), 60_000).iter().for_each(|step| shares.take_rolled(step, 60_000));
            prop_assert_eq!(shares.finish().iter().map(|period| period.grown).sum::<i128>(), whole);
        }
    }

    #[test]
    fn what_was_rolled_up_over_a_periods_end_is_shared_out() {
        let hour = |n: i64, first, last| {
            let (at, count, grown) = (n * 3_600_000, 60, last - first);
            let gap = crate::model::reading::Gap::NotRead;
            Rolled { at, count, gap, least: first, most: last, sum: 0, first, last, grown }
        };
        // Half past the hour to half past the third.
        let (from, until) = (Stamp(1_800_000), Stamp(3 * 3_600_000 + 1_800_000));
        let mut meter = Meter::new(&[from], until);
        for (n, first, last) in [(0, 0, 100), (1, 110, 310), (2, 310, 910), (3, 910, 1_010)] {
            meter.take_rolled(&hour(n, first, last), 3_600_000);
        }
        let period = meter.finish()[0];
        assert_eq!(
            (period.grown, period.shared, period.begun),
            (50 + 10 + 200 + 600 + 50, true, false)
        );
        assert_eq!(period.until, until);
    }

    #[test]
    fn a_reset_within_what_was_rolled_up_is_counted() {
        let samples = [100, 150, 5, 25].into_iter().enumerate();
        let column = samples.map(|(n, value)| (n as i64 * 10_000, Ok(value)));
        let mut meter = Meter::new(&[Stamp(0)], Stamp(60_000));
        roll(column, 60_000).iter().for_each(|step| meter.take_rolled(step, 60_000));
        assert_eq!(meter.resets, 1);
        assert_eq!(meter.finish()[0].grown, 50 + 5 + 20);
    }

    #[test]
    fn a_period_tells_that_the_counter_began_in_it() {
        let begins = [Stamp(0), Stamp(100), Stamp(200)];
        let mut meter = Meter::new(&begins, Stamp(300));
        for at in [110, 150, 210, 290] {
            meter.take((Stamp(at), Ok(at)));
        }
        let told: Vec<(i128, i64, bool, i64)> =
            meter.finish().iter().map(|p| (p.grown, p.readings, p.begun, p.until.0)).collect();
        assert_eq!(told, [(0, 0, false, 0), (40, 2, true, 150), (140, 2, false, 290)]);
    }
}
