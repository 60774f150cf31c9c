//! The second witness of a switched outlet: what it draws. A relay that reads off while its outlet still draws is
//! welded, or is another outlet's: the PDU is cabled, or its driver numbers it, otherwise than believed.

use crate::device::{OrderError, Terms};
use crate::model::event::About;
use crate::model::id::OutletId;
use crate::model::metric::{Metric, Scope, Word};
use crate::model::reading::{Datum, Gap};
use crate::model::switching::Outcome;
use crate::model::time::Span;
use crate::model::view::{Health, PduView};

use super::execute::Ended;
use super::submit::Switching;

/// How long a meter may lag behind its relay, beside what the driver says.
const LAG: Span = Span::seconds(10);
/// How long a meter may stand still altogether until it is no witness any more, beside what the driver says.
const STANDSTILL: Span = Span::seconds(3);
/// Between two looks at the meter.
const PAUSE: Span = Span(500);

/// What an outlet must draw for its meter to be a witness: 20 W, 0.2 A.
const LOADED: [(Metric, i64); 2] = [(Metric::Power, 20_000), (Metric::Current, 200)];
/// What a dark outlet draws at most. A load in standby draws more.
const DARK: [(Metric, i64); 2] = [(Metric::Power, 1_000), (Metric::Current, 20)];

fn bound(bounds: &[(Metric, i64); 2], metric: Metric) -> i64 {
    bounds.iter().find(|(of, _)| *of == metric).map_or(i64::MAX, |(_, bound)| *bound)
}

/// What an outlet that was switched off is to be believed by.
#[derive(Debug, Clone)]
pub(super) struct Doubt {
    /// How the write is verified.
    pub terms: Terms,
    /// What the outlets drew before.
    pub before: Loads,
}

/// What the outlets of a PDU drew at a moment, by their numbers; only those that are metered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Loads(Vec<(u16, Metric, i64)>);

impl Loads {
    /// As the board has them: power, or current where power is not metered.
    pub(super) fn of(view: &PduView) -> Self {
        let drawn = |at: u16| {
            LOADED.iter().find_map(|(metric, _)| match view.shown(Scope::Outlet, at, *metric) {
                Some(Datum::Value(value)) => Some((*metric, value)),
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
    fn below(&self, number: u16) -> Option<(Metric, i64)> {
        let (_, metric, value) = self.0.iter().find(|(of, ..)| *of == number)?;
        let least = bound(&LOADED, *metric);
        (*value >= least).then(|| (*metric, (value / 10).max(least / 4)))
    }

    /// Whether any outlet but this one drew enough to tell.
    fn others_loaded(&self, number: u16) -> bool {
        self.0.iter().any(|(of, metric, value)| *of != number && *value >= bound(&LOADED, *metric))
    }

    /// The outlets other than this one that drew, read on all the while, and draw nothing any more.
    fn went_dark(&self, number: u16, now: &PduView) -> Vec<u16> {
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

impl Switching {
    /// Hears the meter of an outlet that reads off. Where it is not metered, or drew nothing to speak of, there is
    /// nothing to hold against the relay.
    pub(super) async fn witnessed(
        &self,
        outlet: &OutletId,
        Doubt { terms, before }: &Doubt,
    ) -> Ended {
        let own = terms.also.or_else(|| before.below(outlet.number).filter(|_| terms.follows));
        let Some((metric, below)) = own else {
            if let Some(handle) = self.fleet.get(&outlet.pdu) {
                handle.refresh(outlet.number);
            }
            return (Outcome::Done, None);
        };
        let began = self.clock.tick();
        let deadline = began + terms.settle + LAG;
        let mut alive = terms.also.is_some();
        let mut pause = terms.every;
        loop {
            if !alive && self.clock.tick() >= began + terms.settle + STANDSTILL {
                alive = self.has_moved(outlet, before).await;
                if !alive {
                    let detail = "its relay reads off; its PDU's meters have not moved since and are not believed";
                    return (Outcome::Done, Some(detail.to_owned()));
                }
            }
            let Some(handle) = self.fleet.get(&outlet.pdu) else {
                return (Outcome::Unverified, Some(OrderError::Gone.to_string()));
            };
            let looked = handle.look_all(outlet.number).await;
            let drawn = handle.reading(outlet.number, metric);
            let late = self.clock.tick() >= deadline;
            match (looked, drawn) {
                (Ok(_), None | Some(Datum::Gap(Gap::Unsupported))) => return (Outcome::Done, None),
                (Ok(_), Some(Datum::Value(value))) if value < below => {
                    return (Outcome::Done, None);
                }
                (Ok(_), Some(Datum::Value(value))) if late => {
                    let drawn = metric.unit().map_or(String::new(), |unit| {
                        format!("{} {}", unit.to_f64(value), unit.symbol())
                    });
                    let moved = self.others_dark(outlet, before).await;
                    let detail = if let Some(moved) = moved {
                        self.mismatch(outlet, &moved).await
                    } else {
                        format!(
                            "the outlet reads off, but still draws {drawn}: a welded contact, or a cabling or profile mismatch"
                        )
                    };
                    return (Outcome::Unverified, Some(detail));
                }
                (Err(error), _) if late => return (Outcome::Unverified, Some(error.to_string())),
                // A meter that is there and cannot be read is no witness.
                (Ok(_), _) if late => {
                    let detail = "the outlet reads off, but what it draws could not be read";
                    return (Outcome::Unverified, Some(detail.to_owned()));
                }
                _ => tokio::time::sleep(pause.duration()).await,
            }
            pause = pause.max(PAUSE);
        }
    }

    /// Whether any meter of the PDU tells another number than before. One that never moves is cached, or a fixed
    /// number, and belies no relay.
    async fn has_moved(&self, outlet: &OutletId, before: &Loads) -> bool {
        let Some(handle) = self.fleet.get(&outlet.pdu) else { return true };
        let view = handle.since(self.clock.tick()).await;
        view.health != Health::Online || Loads::of(&view) != *before
    }

    /// Whether another outlet lost its load when this one, which drew nothing, was switched off. What is found
    /// locks the outlet, and is told.
    pub(super) async fn overlooked(
        &self,
        outlet: &OutletId,
        Doubt { terms, before }: &Doubt,
    ) -> Option<String> {
        let needless =
            before.below(outlet.number).is_some() || !before.others_loaded(outlet.number);
        if needless || !terms.follows {
            return None;
        }
        tokio::time::sleep(terms.settle.duration()).await;
        let moved = self.others_dark(outlet, before).await?;
        Some(self.mismatch(outlet, &moved).await)
    }

    async fn others_dark(&self, outlet: &OutletId, before: &Loads) -> Option<Vec<u16>> {
        let handle = self.fleet.get(&outlet.pdu)?;
        let view = handle.since(self.clock.tick()).await;
        let mut dark = before.went_dark(outlet.number, &view);
        // What another plan is at, it may well have darkened.
        dark.retain(|number| {
            !self.is_claimed(&OutletId { pdu: outlet.pdu.clone(), number: *number })
        });
        (!dark.is_empty()).then_some(dark)
    }

    async fn mismatch(&self, outlet: &OutletId, moved: &[u16]) -> String {
        let names: Vec<String> =
            moved.iter().map(|number| format!("{}/{number}", outlet.pdu)).collect();
        let detail = format!(
            "cabling or profile mismatch: when {outlet} was switched off, {} lost its load, while its own relay reads on",
            names.join(", ")
        );
        self.lock(outlet, &detail, "the gateway").await;
        self.events.tell("outlet.mismatch", About::outlet(outlet), detail.clone());
        tracing::error!(%outlet, "{detail}; {outlet} is locked");
        detail
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
