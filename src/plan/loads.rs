//! The second witness of a switched outlet: what it draws. A relay that reads off while its outlet still draws is
//! welded, or is another outlet's: the PDU is cabled, or its driver numbers it, otherwise than believed.

use crate::model::metric::{Metric, Scope, Word};
use crate::model::reading::Datum;
use crate::model::time::Span;
use crate::model::view::PduView;

/// How long a meter may lag behind its relay, beside what the driver says.
pub(super) const LAG: Span = Span::seconds(10);
/// How long a meter may stand still altogether until it is no witness any more, beside what the driver says.
pub(super) const STANDSTILL: Span = Span::seconds(3);
/// What an outlet must draw for its meter to be a witness: 20 W, 0.2 A.
const LOADED: [(Metric, i64); 2] = [(Metric::Power, 20_000), (Metric::Current, 200)];
/// What a dark outlet draws at most. A load in standby draws more.
const DARK: [(Metric, i64); 2] = [(Metric::Power, 1_000), (Metric::Current, 20)];

fn bound(bounds: &[(Metric, i64); 2], metric: Metric) -> i64 {
    bounds.iter().find(|(of, _)| *of == metric).map_or(i64::MAX, |(_, bound)| *bound)
}

/// What the outlets of a PDU drew at a moment, by their numbers; only those that are metered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Loads(Vec<(u16, Metric, i64)>);

impl Loads {
    /// As the board has them: power, or current where power is not metered.
    pub(super) fn of(view: &PduView) -> Self {
        let drawn = |at: u16| {
            LOADED.iter().find_map(|(metric, _)| match view.shown(Scope::Outlet, at, *metric) {
                // On a bus of -48 V what is drawn has a minus.
                Some(Datum::Value(value)) => Some((*metric, value.saturating_abs())),
                _ => None,
            })
        };
        let outlets = view.outlets();
        Self(
            outlets
                .filter_map(|(at, part)| {
                    drawn(at).map(|(metric, value)| (part.number, metric, value))
                })
                .collect(),
        )
    }

    /// What an outlet must fall below to be believed off: a tenth of what it drew, if it drew enough to tell.
    pub(super) fn below(&self, number: u16) -> Option<(Metric, i64)> {
        let (_, metric, value) = self.0.iter().find(|(of, ..)| *of == number)?;
        let least = bound(&LOADED, *metric);
        (*value >= least).then(|| (*metric, (value / 10).max(least / 4)))
    }

    /// Whether any outlet but this one drew enough to tell.
    pub(super) fn others_loaded(&self, number: u16) -> bool {
        self.0.iter().any(|(of, metric, value)| *of != number && *value >= bound(&LOADED, *metric))
    }

    /// The outlets other than this one that drew, read on all the while, and draw nothing any more.
    pub(super) fn went_dark(&self, number: u16, now: &PduView) -> Vec<u16> {
        let after = Self::of(now);
        let reads_on = |number: u16| {
            now.layout.outlet(number).is_some_and(|at| now.outlet_state(at) == Ok(Word::On))
        };
        let dark = |(of, metric, value): &&(u16, Metric, i64)| {
            let now = after.0.iter().find(|(other, kind, _)| other == of && kind == metric);
            *of != number
                && *value >= bound(&LOADED, *metric)
                && now.is_some_and(|(.., now)| *now <= bound(&DARK, *metric))
                && reads_on(*of)
        };
        self.0.iter().filter(dark).map(|(of, ..)| *of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(watts: &[i64]) -> Loads {
        Loads((1..).zip(watts).map(|(number, w)| (number, Metric::Power, w * 1_000)).collect())
    }

    #[test]
    fn a_load_that_tells_must_fall_to_a_tenth() {
        let before = loads(&[400, 12, 30]);
        assert_eq!(before.below(1), Some((Metric::Power, 40_000)));
        assert_eq!(before.below(2), None);
        assert_eq!(before.below(3), Some((Metric::Power, 5_000)));
        assert_eq!(before.below(9), None);
        assert!(before.others_loaded(2));
        assert!(!loads(&[400, 12]).others_loaded(1));
    }
}
