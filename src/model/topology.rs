//! What a PDU is made of: inlet → phases → branches → outlets, beside it sensors. Found out when the
//! device is adopted and constant until it is adopted anew.

use std::sync::Arc;

use super::metric::{Metric, Point, Scope};

/// Who the device says it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// The vendor, from the driver.
    pub vendor: Option<String>,
    /// Model name.
    pub model: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// Firmware version.
    pub firmware: Option<String>,
    /// The name set in the device.
    pub name: Option<String>,
}

/// One part: an outlet, a branch, a phase, a sensor or an inlet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Part {
    /// The number it is known by: outlet 7, phase 2.
    pub number: u16,
    /// Its name in JSON and in series: `7`, `L2`, `B1`, `T1`.
    pub id: String,
    /// A name that people gave it, or its label.
    pub name: Option<String>,
    /// The label printed on the device.
    pub label: Option<String>,
    /// Place of its branch among the branches.
    pub branch: Option<u16>,
    /// Place of its phase among the phases.
    pub phase: Option<u16>,
    /// Place of the other phase, where it is between two (delta wiring).
    pub other_phase: Option<u16>,
    /// Whether the driver and the device let it be switched.
    pub switchable: bool,
}

/// One reading of one part: where its value stands among the values of the PDU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// Which kind of part.
    pub scope: Scope,
    /// Place of the part among its kind, from 0.
    pub part: u16,
    /// What is read.
    pub metric: Metric,
}

impl Slot {
    /// The dictionary entry.
    pub fn point(self) -> Point {
        Point::new(self.scope, self.metric)
    }
}

/// The parts of a PDU and the slots of its readings, sorted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layout {
    parts: [Vec<Part>; 5],
    slots: Vec<Slot>,
}

impl Layout {
    /// From parts per scope (in the order of [`Scope::ALL`]) and slots in any order.
    pub fn new(parts: [Vec<Part>; 5], mut slots: Vec<Slot>) -> Arc<Self> {
        slots.sort_unstable();
        slots.dedup();
        Arc::new(Self { parts, slots })
    }

    /// The parts of a kind.
    pub fn parts(&self, scope: Scope) -> &[Part] {
        &self.parts[scope as usize]
    }

    /// All slots, sorted by scope, part, metric.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Where a slot stands.
    pub fn place(&self, slot: Slot) -> Option<usize> {
        self.slots.binary_search(&slot).ok()
    }

    /// The slots of one part with their places.
    pub fn slots_of(&self, scope: Scope, part: u16) -> impl Iterator<Item = (usize, Metric)> + '_ {
        let from = self.slots.partition_point(|s| (s.scope, s.part) < (scope, part));
        self.slots[from..]
            .iter()
            .take_while(move |s| (s.scope, s.part) == (scope, part))
            .enumerate()
            .map(move |(at, slot)| (from + at, slot.metric))
    }

    /// Place of an outlet among the outlets, by its number.
    pub fn outlet(&self, number: u16) -> Option<u16> {
        let at = self.parts(Scope::Outlet).iter().position(|part| part.number == number)?;
        u16::try_from(at).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_found_by_part() {
        let outlet = |number| Part { number, ..Part::default() };
        let slot = |part, metric| Slot { scope: Scope::Outlet, part, metric };
        let layout = Layout::new(
            [vec![], vec![], vec![], vec![outlet(1), outlet(2)], vec![]],
            vec![slot(1, Metric::Power), slot(0, Metric::State), slot(1, Metric::State)],
        );
        let second: Vec<_> = layout.slots_of(Scope::Outlet, 1).collect();
        assert_eq!(second, [(1, Metric::State), (2, Metric::Power)]);
        assert_eq!(layout.outlet(2), Some(1));
        assert_eq!(layout.outlet(3), None);
    }
}
