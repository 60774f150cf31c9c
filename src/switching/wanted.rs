//! Which power-on delays PDUs should have, and of which PDUs none can be set: what `delays` sets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::device::Startups;
use crate::model::id::{OutletId, PduId};
use crate::model::metric::{Scope, Word};
use crate::model::switching::PowerOn;
use crate::model::time::Span;
use crate::model::view::PduView;
use crate::plan::onset::{Delays, onsets};
use crate::plan::picture::STEP_MS;
use crate::plan::{Refusal, Sight};

use super::submit::Switching;

/// Why a PDU is left as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    /// As loads are, the limits have no room for it: that may pass.
    NoRoom(String),
    /// It holds until something changes.
    Lasting(String),
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Why::NoRoom(why) | Why::Lasting(why)) = self;
        f.write_str(why)
    }
}

impl Switching {
    /// The delays that the limits ask for. A PDU whose outlets do not all fit is left as it is, and is among those that are
    /// `left`, with the reason.
    pub(super) fn wanted_delays(
        &self,
        told: &BTreeMap<PduId, Startups>,
        unit_ms: u64,
        left: &mut BTreeMap<PduId, Why>,
    ) -> Result<BTreeMap<OutletId, u64>, Refusal> {
        self.with_runs(|runs, sight| {
            let mut delays = Delays::default();
            for (pdu, of) in told {
                let outlets: Vec<(OutletId, PowerOn)> = of
                    .outlets
                    .iter()
                    .map(|(number, now)| (OutletId { pdu: pdu.clone(), number: *number }, *now))
                    .collect();
                if !left.contains_key(pdu)
                    && let Some(why) = left_for(pdu, of, &outlets, unit_ms, sight)
                {
                    left.insert(pdu.clone(), Why::Lasting(why));
                }
                let is_left = left.contains_key(pdu);
                if let Some(course) = &of.course {
                    delays.apart.insert(pdu.clone(), course.least);
                }
                delays.before.insert(pdu.clone(), of.before);
                for (outlet, now) in outlets {
                    match now {
                        PowerOn::Never => delays.stays_off.push(outlet),
                        PowerOn::After(_) if !is_left && is_free(&outlet, sight) => {
                            delays.settable.push(outlet);
                        }
                        PowerOn::After(Span(0)) => delays.at_once.push(outlet),
                        PowerOn::After(_) => {}
                    }
                }
            }
            let picture = runs.picture(sight, None, None);
            loop {
                let (pdu, why) = match onsets(&picture, &delays, unit_ms) {
                    Ok(wanted) => match goes_first(&wanted, told, &delays.first, sight) {
                        Some(First::Is(outlet)) => {
                            delays.first.insert(outlet);
                            continue;
                        }
                        Some(First::None(pdu, why)) => (pdu, why),
                        None => match too_late(&wanted, told) {
                            Some(late) => late,
                            None => return Ok(wanted),
                        },
                    },
                    Err(refusal) => {
                        let Refusal::Limit { outlet, .. } = &refusal else { return Err(refusal) };
                        let pdu = outlet.pdu.clone();
                        if !delays.settable.iter().any(|of| of.pdu == pdu) {
                            return Err(refusal);
                        }
                        (pdu, refusal.to_string())
                    }
                };
                // It stays as it is: what tells to come on at once does, the rest may at any time.
                delays.first.retain(|of| of.pdu != pdu);
                delays.settable.retain(|of| of.pdu != pdu);
                let zero = PowerOn::After(Span(0));
                let outlets = told.get(&pdu).into_iter().flat_map(|of| &of.outlets);
                let at_once = outlets.filter(|(_, now)| **now == zero).map(|(number, _)| *number);
                for number in at_once {
                    let outlet = OutletId { pdu: pdu.clone(), number };
                    if !delays.at_once.contains(&outlet) {
                        delays.at_once.push(outlet);
                    }
                }
                left.insert(pdu, Why::NoRoom(why));
            }
        })
    }
}

/// Whether the delay of an outlet may be set.
fn is_free(outlet: &OutletId, sight: &Sight<'_>) -> bool {
    let is_switchable = |view: &Arc<PduView>| {
        let at = view.layout.outlet(outlet.number);
        let part = at.and_then(|at| view.layout.parts(Scope::Outlet).get(usize::from(at)));
        view.read_only.is_none() && part.is_some_and(|part| part.switchable)
    };
    sight.view(&outlet.pdu).is_some_and(is_switchable) && sight.lock_of(outlet).is_none()
}

/// Why nothing is to be set of a PDU.
fn left_for(
    pdu: &PduId,
    of: &Startups,
    outlets: &[(OutletId, PowerOn)],
    unit_ms: u64,
    sight: &Sight<'_>,
) -> Option<String> {
    if of.serial.is_none() {
        return Some("it tells no serial number, so it may be another one when it is set".into());
    }
    if !unit_ms.is_multiple_of(of.unit_ms.max(1)) {
        return Some(format!("it keeps delays of other multiples than {} s", unit_ms / 1_000));
    }
    if !of.before.0.is_multiple_of(unit_ms) {
        let (before, unit) = (of.before, unit_ms / 1_000);
        return Some(format!(
            "it waits {before} before all of its outlets, no multiple of {unit} s"
        ));
    }
    of.course.as_ref()?;
    // What comes before it in the order, or after, is counted from it.
    let stuck = outlets.iter().find(|(of, now)| *now != PowerOn::Never && !is_free(of, sight));
    if let Some((outlet, _)) = stuck {
        return Some(format!(
            "its outlets come on one after the other, and {outlet} is locked or not switchable"
        ));
    }
    // What passes after one that does not come on may be left out, and nobody knows that.
    let view = sight.view(pdu)?;
    let is_on = |number: &u16| {
        let at = view.layout.outlet(*number);
        at.is_some_and(|at| view.outlet_state(at) == Ok(Word::On))
    };
    let dark = of.last.iter().find(|number| {
        of.outlets.get(number).is_some_and(|now| *now != PowerOn::Never) && !is_on(number)
    });
    dark.map(|number| {
        format!(
            "its outlets come on one after the other, and {pdu}/{number} does only if it was on, and is not seen to be"
        )
    })
}

/// When the outlets of a PDU are to come on, from when it has waited before the first.
pub(super) fn times_of(
    pdu: &PduId,
    of: &Startups,
    wanted: &BTreeMap<OutletId, u64>,
) -> BTreeMap<u16, Span> {
    let own = wanted.iter().filter(|(outlet, _)| outlet.pdu == *pdu);
    own.map(|(outlet, ms)| (outlet.number, Span(ms.saturating_sub(of.before.0)))).collect()
}

/// What comes on first of a PDU whose outlets come on one after the other.
enum First {
    /// It is to be this outlet.
    Is(OutletId),
    /// It can be none.
    None(PduId, String),
}

/// Such a PDU can let none of its outlets wait: one of them has to be the first when it has waited itself. The first of
/// these PDUs of which none is.
fn goes_first(
    wanted: &BTreeMap<OutletId, u64>,
    told: &BTreeMap<PduId, Startups>,
    first: &BTreeSet<OutletId>,
    sight: &Sight<'_>,
) -> Option<First> {
    let chained = told.iter().filter(|(_, of)| of.course.is_some());
    chained.into_iter().find_map(|(pdu, of)| {
        let times = times_of(pdu, of, wanted);
        let mut order: Vec<(Span, u16)> = times.iter().map(|(number, at)| (*at, *number)).collect();
        order.sort_unstable();
        let (earliest, _) = *order.first()?;
        if earliest == Span(0) {
            return None;
        }
        if let Some(tried) = first.iter().find(|outlet| outlet.pdu == *pdu) {
            let why = format!(
                "{tried} would be its first, {} after the power is back, and there is no room for it then",
                of.before
            );
            return Some(First::None(pdu.clone(), why));
        }
        let waits_for_none = |outlet: &OutletId| {
            sight.site.host_of(outlet).is_none_or(|(_, host)| host.after.is_empty())
        };
        let mut outlets = order.iter().map(|(_, number)| OutletId { pdu: pdu.clone(), number: *number });
        let none = || {
            let why = "the first of its outlets cannot wait, and each is of a host that comes after another";
            First::None(pdu.clone(), why.into())
        };
        Some(outlets.find(waits_for_none).map_or_else(none, First::Is))
    })
}

/// A PDU that cannot keep the times of its outlets, and why.
fn too_late(
    wanted: &BTreeMap<OutletId, u64>,
    told: &BTreeMap<PduId, Startups>,
) -> Option<(PduId, String)> {
    told.iter().find_map(|(pdu, of)| {
        let times = times_of(pdu, of, wanted);
        let Some(course) = &of.course else {
            let late = times.iter().find(|(_, at)| at.0 > of.most_ms);
            return late.map(|(number, at)| {
                let why = format!("{pdu}/{number} is to come on {at} after an outage, and the PDU knows no such delay");
                (pdu.clone(), why)
            });
        };
        let course = course.with(&times, of.unit_ms.max(1));
        let late = course.gaps.iter().find(|(number, gap)| {
            times.contains_key(number) && gap.0 > of.most_ms
        });
        if let Some((number, gap)) = late {
            let why = format!("{gap} are to pass after {pdu}/{number}, and the PDU knows no such delay");
            return Some((pdu.clone(), why));
        }
        let real = course.times();
        let late = times.iter().find(|(number, at)| {
            real.get(number).is_none_or(|real| real.0 > at.0 + STEP_MS)
        });
        late.map(|(number, at)| {
            let why = format!(
                "{pdu}/{number} is to come on {at} after its first, and comes later, as {} pass between two outlets at least",
                course.least
            );
            (pdu.clone(), why)
        })
    })
}
