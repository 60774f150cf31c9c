//! The power-on delays that a device keeps for its outlets: where they are and what their numbers mean; each by itself from
//! when the power came back, or each from the outlet before it in an order.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::oid::Oid;
use crate::model::switching::PowerOn;
use crate::model::time::Span;

use super::format::Source;
use super::instance::Instance;
use super::rows::item_at;
use super::sweep::Item;

/// `[control.startup]` of a driver file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Startup {
    /// Where the delay is, with the index parts of an outlet's row.
    pub source: Source,
    /// What one count is worth, ms.
    pub unit_ms: u64,
    /// The counts that it takes.
    pub range: (i64, i64),
    /// The only ones that it takes, where it does not take all of the range; in order.
    pub values: Vec<i64>,
    /// Numbers by which an outlet stays off.
    pub never: Vec<i64>,
    /// Where something else says what an outlet does.
    pub off: Option<Off>,
    /// Where it says that no delay is heeded, and the numbers that say so.
    pub unless: Option<(Source, Vec<i64>)>,
    /// What passes before any delay counts.
    pub before: Option<Time>,
    /// Where a delay counts from an outlet to the next.
    pub chain: Option<Chain>,
}

/// Where something beside its delay says what an outlet does, and what its numbers mean; any other: it comes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Off {
    /// Where.
    pub source: Source,
    /// It stays off.
    pub is: Vec<i64>,
    /// It does what it did when the power went: comes on if it was on.
    pub last: Vec<i64>,
    /// It does what is said elsewhere, in the same numbers: those that say so, and where.
    pub follows: Option<(Vec<i64>, Source)>,
}

/// A time that a device keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Time {
    /// Where.
    pub source: Source,
    /// What one count is worth, ms.
    pub unit_ms: u64,
}

/// Outlets that come on one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Where the order is: a text with the numbers of all outlets, `1,3,2`.
    pub order: Source,
    /// What passes between two at least.
    pub least: Option<Time>,
}

/// An order of outlets, and what passes after each, as a device tells them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Course {
    /// All outlets by their numbers.
    pub order: Vec<u16>,
    /// By number: what passes until the next one.
    pub gaps: BTreeMap<u16, Span>,
    /// What passes between two at least.
    pub least: Span,
}

/// Where something of an outlet, or of the unit that it is in, is kept.
pub fn place_of(source: &Source, instance: &Instance, outlet: u16) -> Option<Oid> {
    match item_at(source, instance.outlet_row(outlet)?)? {
        Item::Oid(oid) => Some(oid),
        _ => None,
    }
}

impl Time {
    /// What a number of the device means.
    pub fn told(&self, value: i64) -> Option<Span> {
        Some(Span(u64::try_from(value).ok()?.saturating_mul(self.unit_ms)))
    }
}

impl Startup {
    /// What a number of the device means.
    pub fn told(&self, value: i64) -> Option<PowerOn> {
        if self.never.contains(&value) {
            return Some(PowerOn::Never);
        }
        let known = (self.range.0..=self.range.1).contains(&value);
        let units = u64::try_from(value).ok().filter(|_| known)?;
        Some(PowerOn::After(Span(units * self.unit_ms)))
    }

    /// The number of a delay, if the device takes it.
    pub fn raw(&self, delay: Span) -> Option<i64> {
        let value = i64::try_from(delay.0 / self.unit_ms).ok()?;
        let whole = delay.0.is_multiple_of(self.unit_ms);
        (whole && self.takes(value)).then_some(value)
    }

    fn takes(&self, value: i64) -> bool {
        let within = (self.range.0..=self.range.1).contains(&value);
        within && (self.values.is_empty() || self.values.contains(&value))
    }

    /// What all delays that it takes are multiples of: counts.
    fn step(&self) -> i64 {
        self.values.iter().copied().find(|value| *value > 0).unwrap_or(1)
    }

    /// What delays that are set are multiples of, ms.
    pub fn step_ms(&self) -> u64 {
        self.unit_ms.saturating_mul(self.step().unsigned_abs())
    }

    /// The longest delay up to which it takes every multiple of that, ms.
    pub fn most_ms(&self) -> u64 {
        let most = if self.values.is_empty() {
            self.range.1
        } else {
            let step = self.step();
            let steps = (1..=self.values.len() as i64).map(|n| n.saturating_mul(step));
            steps.take_while(|value| self.takes(*value)).last().unwrap_or(0)
        };
        most.unsigned_abs().saturating_mul(self.unit_ms)
    }
}

impl Course {
    /// The order that a text tells, if it names each of these outlets once.
    pub fn order_of(text: &str, outlets: &BTreeSet<u16>) -> Option<Vec<u16>> {
        let order: Option<Vec<u16>> =
            text.split(',').map(|item| item.trim().parse().ok()).collect();
        let order = order?;
        let named: BTreeSet<u16> = order.iter().copied().collect();
        (named == *outlets && named.len() == order.len()).then_some(order)
    }

    /// The order as a text.
    pub fn text(&self) -> String {
        self.order.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
    }

    /// When each outlet comes on, from the first on.
    pub fn times(&self) -> BTreeMap<u16, Span> {
        let mut at = Span(0);
        let mut times = BTreeMap::new();
        for number in &self.order {
            times.insert(*number, at);
            let gap = self.gaps.get(number).copied().unwrap_or(Span(0));
            at = Span(at.0.saturating_add(gap.max(self.least).0));
        }
        times
    }

    /// The course by which outlets come on at these times, the first of them at 0 and each a multiple of `unit_ms`. Those
    /// that are not among them stay off: they go last, in the order that they had. What passes after the last one that
    /// comes on is left as it is.
    #[must_use]
    pub fn with(&self, times: &BTreeMap<u16, Span>, unit_ms: u64) -> Self {
        let mut on: Vec<(Span, u16)> = times.iter().map(|(number, at)| (*at, *number)).collect();
        on.sort_unstable();
        let mut course = self.clone();
        // Nothing comes on sooner than it is to, and what the least gap adds is not carried on to all that follow.
        let mut really = Span(0);
        for two in on.windows(2) {
            let gap = two[1].0.0.saturating_sub(really.0).div_ceil(unit_ms) * unit_ms;
            course.gaps.insert(two[0].1, Span(gap));
            really = Span(really.0.saturating_add(gap.max(self.least.0)));
        }
        let stay = self.order.iter().copied().filter(|number| !times.contains_key(number));
        course.order = on.into_iter().map(|(_, number)| number).chain(stay).collect();
        course
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_takes_a_few_delays_is_set_to_no_other() {
        let startup = |values: &[i64]| Startup {
            source: Source::Oid("1.3.6.1.4.{row}".parse().unwrap()),
            unit_ms: 1_000,
            range: (0, 300),
            values: values.to_vec(),
            never: vec![-1],
            off: None,
            unless: None,
            before: None,
            chain: None,
        };
        let few = startup(&[0, 15, 30, 45, 60, 120, 180, 300]);
        assert_eq!((few.step_ms(), few.most_ms()), (15_000, 60_000));
        let raws = [0, 45, 50, 75, 120].map(|seconds| few.raw(Span::seconds(seconds)));
        assert_eq!(raws, [Some(0), Some(45), None, None, Some(120)]);
        // What somebody else set to another value is told all the same.
        assert_eq!(few.told(50), Some(PowerOn::After(Span::seconds(50))));
        let all = startup(&[]);
        assert_eq!((all.step_ms(), all.most_ms()), (1_000, 300_000));
        assert_eq!(all.raw(Span::seconds(301)), None);
    }

    fn course(order: &[u16], gaps: &[(u16, u64)], least: u64) -> Course {
        let gaps = gaps.iter().map(|(number, ms)| (*number, Span(*ms))).collect();
        Course { order: order.to_vec(), gaps, least: Span(least) }
    }

    #[test]
    fn times_of_a_course_add_up_and_no_gap_is_below_the_least() {
        let told = course(&[3, 1, 2], &[(1, 0), (2, 9_000), (3, 4_000)], 200);
        let times = told.times();
        assert_eq!(times, [(1, Span(4_000)), (2, Span(4_200)), (3, Span(0))].into());
    }

    #[test]
    fn a_course_is_made_from_times_and_what_stays_off_goes_last() {
        let told = course(&[1, 2, 3, 4, 5], &[(1, 0), (2, 0), (3, 7_000), (4, 0)], 200);
        let wanted = [(4, Span(0)), (1, Span(0)), (2, Span(4_000)), (5, Span(6_000))].into();
        let made = told.with(&wanted, 1_000);
        assert_eq!(made.text(), "1,4,2,5,3");
        // The two that were to come on at once are 0.2 s apart, and all after them are as late, not later.
        let gaps = [(1, Span(0)), (2, Span(2_000)), (3, Span(7_000)), (4, Span(4_000))];
        assert_eq!(made.gaps, gaps.into());
        let times = made.times();
        assert_eq!([1, 4, 2, 5].map(|number| times[&number].0), [0, 200, 4_200, 6_200]);
        // Made again from the same times it is the same.
        assert_eq!(made.with(&wanted, 1_000), made);
    }

    #[test]
    fn an_order_names_each_outlet_once() {
        let outlets = [1, 2, 3].into();
        assert_eq!(Course::order_of(" 3, 1,2", &outlets), Some(vec![3, 1, 2]));
        for wrong in ["", "1,2", "1,2,3,3", "1,2,4", "1,2,x", "1;2;3"] {
            assert_eq!(Course::order_of(wrong, &outlets), None, "{wrong}");
        }
    }
}
