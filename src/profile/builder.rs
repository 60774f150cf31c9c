//! Building an adopted device out of the rows that count and what was read of them: parts, slots, readers.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::metric::{Metric, Scope, Word};
use crate::model::reading::{Datum, Gap};
use crate::model::topology::{Layout, Part, Slot};

use super::adopt::{Known, Lookup, shape};
use super::decode::{Decode, Sense, decode, vouches};
use super::format::{Meaning, PointSpec, Profile, Source, Verb};
use super::instance::{Instance, Reader, Sums, added};
use super::rows::{Row, item_at};
use super::sweep::{Answer, Item};
use super::units::STRIDE;

/// Whether a point's instances follow each other in a walk of its column.
pub(super) fn is_dense(profile: &Profile, spec: &PointSpec, rows: &[Row]) -> bool {
    let Source::Oid(template) = &spec.source else { return false };
    let index = profile.tables[spec.table].rows.index();
    let follows = rows.windows(2).all(|pair| pair[0].place + 1 == pair[1].place);
    !index.is_empty() && template.is_column_of(index) && follows
}

/// A reading: scope, number of the part, metric.
type Key = (Scope, u16, Metric);

/// An instance in the making.
#[derive(Default)]
pub(super) struct Builder {
    parts: [BTreeMap<u16, Part>; 5],
    /// By scope, number of the part and metric: parts get their places once all are known.
    pub(super) readers: BTreeMap<(Scope, u16, Metric), (Reader, Datum)>,
    /// Sensors by table, place and metric: each reading of a row is a sensor of its own.
    sensors: BTreeMap<(usize, u16, Metric), u16>,
    links: Vec<(Scope, u16, Scope, u16)>,
    outlets: BTreeMap<u16, Row>,
}

impl Builder {
    pub(super) fn take(&mut self, spec: &PointSpec, row: &Row, dense: bool, lookup: &Lookup<'_>) {
        let scope = spec.point.scope;
        let Some(item) = item_at(&spec.source, row) else { return };
        let Some(answer) = lookup.answer(&spec.source, row) else { return };
        let applies = spec.when.as_ref().is_none_or(|when| lookup.holds(when, row) == Some(true));
        if !applies || *answer == Err(Gap::Missing) {
            return;
        }
        match &spec.meaning {
            Meaning::Text => {
                let text = lookup.text(&spec.source, row).filter(|text| !text.is_empty());
                for number in self.numbers(spec, row) {
                    let Some(part) = self.parts[scope as usize].get_mut(&number) else { continue };
                    let is_label = spec.point.metric == Metric::Label;
                    let place = if is_label { &mut part.label } else { &mut part.name };
                    if place.is_none() {
                        place.clone_from(&text);
                    }
                }
            }
            Meaning::Link => {
                let to_branch = spec.point.metric == Metric::Branch;
                let target = if to_branch { Scope::Branch } else { Scope::Phase };
                let text = lookup.text(&spec.source, row);
                if let Some(linked) = text.and_then(|text| trailing_number(&text)) {
                    let linked = row.base.saturating_add(linked);
                    self.links.push((scope, row.number, target, linked));
                }
            }
            Meaning::Quantity { .. } | Meaning::States(_) => {
                let column = dense.then_some((spec.table, spec.point.metric, row.place));
                self.reader(spec, row, Reading { item, answer, column }, lookup);
            }
        }
    }

    /// The parts that a row of a table stands for.
    fn numbers(&self, spec: &PointSpec, row: &Row) -> Vec<u16> {
        if spec.point.scope != Scope::Sensor {
            return vec![row.number];
        }
        let of_row = self
            .sensors
            .iter()
            .filter(|((table, place, _), _)| (*table, *place) == (spec.table, row.place));
        of_row.map(|(_, number)| *number).collect()
    }

    fn number_for(&mut self, spec: &PointSpec, row: &Row) -> u16 {
        if spec.point.scope != Scope::Sensor {
            return row.number;
        }
        let next = self.sensors.len() as u16 + 1;
        *self.sensors.entry((spec.table, row.place, spec.point.metric)).or_insert(next)
    }

    fn reader(&mut self, spec: &PointSpec, row: &Row, came: Reading<'_>, lookup: &Lookup<'_>) {
        let Some(decode_of) = decode_of(spec, row, lookup) else { return };
        let datum = trusted(spec, row, lookup, decode(&decode_of, came.answer));
        let number = self.number_for(spec, row);
        let key = (spec.point.scope, number, spec.point.metric);
        // Of several points of one name the first that the device has is taken.
        let lacks = |datum: &Datum| *datum == Datum::Gap(Gap::Unsupported);
        if self.readers.get(&key).is_some_and(|(_, before)| !lacks(before) || lacks(&datum)) {
            return;
        }
        let part = self.parts[spec.point.scope as usize].entry(number).or_default();
        part.number = number;
        let valid = spec.valid.as_ref().and_then(|test| {
            Some((item_at(&test.source, row)?, test.check.clone(), shape(&test.source, row)))
        });
        let Reading { item, column, .. } = came;
        let reader = Reader { item, decode: decode_of, every: spec.every, valid, column };
        self.readers.insert(key, (reader, datum));
        // What is switched is what is looked at: another table may have another row of that number.
        if (spec.point.scope, spec.point.metric) == (Scope::Outlet, Metric::State) {
            self.outlets.insert(number, row.clone());
        }
    }

    pub(super) fn outlet_rows(&mut self, profile: &Profile, rows: &[Vec<Row>]) {
        // Outlets that tell no state: a family may keep them in one of several tables.
        for (table, rows) in profile.tables.iter().zip(rows) {
            if table.scope == Scope::Outlet {
                for row in rows {
                    self.outlets.entry(row.number).or_insert_with(|| row.clone());
                }
            }
        }
    }

    pub(super) fn build(
        mut self,
        profile: &Profile,
        known: &Known,
        units: Vec<String>,
    ) -> (Instance, Vec<Datum>) {
        let place = |parts: &[BTreeMap<u16, Part>; 5], scope: Scope, number: u16| {
            parts[scope as usize].keys().position(|n| *n == number).map(|at| at as u16)
        };
        for (scope, number, target, linked) in std::mem::take(&mut self.links) {
            let at = |number| place(&self.parts, target, number);
            let (one, other) = match linked {
                // Families that count phases 1 to 3 call what is between two of them 4 to 6.
                4..=6 if target == Scope::Phase && at(linked).is_none() => {
                    (at(linked - 3), at((linked - 3) % 3 + 1))
                }
                _ => (at(linked), None),
            };
            if let Some(part) = self.parts[scope as usize].get_mut(&number) {
                if target == Scope::Branch {
                    part.branch = one;
                } else {
                    (part.phase, part.other_phase) = (one, other.filter(|_| one.is_some()));
                }
            }
        }
        let sums = self.sums(profile);
        let chosen =
            |verbs: &[Verb]| verbs.iter().find(|v| known.is_able(v.needs.as_ref())).cloned();
        let verbs = (chosen(&profile.on), chosen(&profile.off));
        let can_switch = verbs.0.is_some() && verbs.1.is_some();
        for (number, part) in &mut self.parts[Scope::Outlet as usize] {
            let of = |metric| self.readers.get(&(Scope::Outlet, *number, metric));
            let allowed = of(Metric::Switchable).is_none_or(|(_, d)| *d == Datum::Word(Word::Yes));
            let seen = of(Metric::State).is_some();
            part.switchable = can_switch && seen && allowed && self.outlets.contains_key(number);
        }
        self.name_parts();
        let mut slots: Vec<(Slot, Reader, Datum)> = std::mem::take(&mut self.readers)
            .into_iter()
            .filter_map(|((scope, number, metric), (reader, datum))| {
                let part = place(&self.parts, scope, number)?;
                Some((Slot { scope, part, metric }, reader, datum))
            })
            .collect();
        slots.sort_by_key(|(slot, ..)| *slot);
        let outlets = self.parts[Scope::Outlet as usize].keys();
        let rows = outlets.map(|number| self.outlets.get(number).cloned()).collect();
        let place_of = |(scope, number, metric): (Scope, u16, Metric)| {
            let part = place(&self.parts, scope, number)?;
            slots.iter().position(|(slot, ..)| *slot == Slot { scope, part, metric })
        };
        let sums = sums.into_iter().filter_map(|(whole, parts)| {
            Some((place_of(whole)?, parts.into_iter().filter_map(place_of).collect()))
        });
        let sums: Sums = sums.collect();
        let parts = self.parts.map(|parts| parts.into_values().collect());
        let layout = Layout::new(parts, slots.iter().map(|(slot, ..)| *slot).collect());
        let mut readers = Vec::with_capacity(slots.len());
        let mut data = Vec::with_capacity(slots.len());
        for (_, reader, datum) in slots {
            readers.push(reader);
            data.push(datum);
        }
        let identity = Arc::new(known.identity.clone());
        let instance = Instance::new(profile, identity, units, layout, readers, (rows, verbs));
        (instance.with_sums(sums), data)
    }

    /// What an inlet does not tell and its phases do: a reading that stands for all of them together.
    fn sums(&mut self, profile: &Profile) -> Vec<(Key, Vec<Key>)> {
        let unit = |number: u16| if profile.unit.is_some() { number / STRIDE } else { 0 };
        let mut sums = Vec::new();
        for metric in &profile.sums {
            let mut phases: BTreeMap<u16, Vec<Key>> = BTreeMap::new();
            for number in self.parts[Scope::Phase as usize].keys() {
                phases.entry(unit(*number)).or_default().push((Scope::Phase, *number, *metric));
            }
            for (unit_number, keys) in phases {
                let inlets = self.parts[Scope::Inlet as usize].keys().copied();
                let inlets: Vec<u16> = inlets.filter(|n| unit(*n) == unit_number).collect();
                let told = |number: &u16| {
                    let reader = self.readers.get(&(Scope::Inlet, *number, *metric));
                    reader.is_some_and(|(_, datum)| *datum != Datum::Gap(Gap::Unsupported))
                };
                let data: Option<Vec<(Reader, Datum)>> =
                    keys.iter().map(|key| self.readers.get(key).cloned()).collect();
                let (Some(data), false) = (data, inlets.len() > 1 || inlets.iter().any(told))
                else {
                    continue;
                };
                let number = inlets.first().copied().unwrap_or(unit_number * STRIDE + 1);
                let every = data.iter().map(|(reader, _)| reader.every).max();
                let (Some((first, _)), Some(every)) = (data.first(), every) else { continue };
                let reader = Reader { every, valid: None, column: None, ..first.clone() };
                let datum = added(data.iter().map(|(_, datum)| *datum));
                self.parts[Scope::Inlet as usize].entry(number).or_default().number = number;
                self.readers.insert((Scope::Inlet, number, *metric), (reader, datum));
                sums.push(((Scope::Inlet, number, *metric), keys));
            }
        }
        sums
    }

    /// `7`, `L2`, `B1`, `I1`, `T1`.
    fn name_parts(&mut self) {
        let mut kinds = BTreeMap::new();
        for ((_, _, metric), number) in &self.sensors {
            let count: &mut u16 = kinds.entry(*metric).or_default();
            *count += 1;
            let letter = if *metric == Metric::Humidity { "H" } else { "T" };
            if let Some(part) = self.parts[Scope::Sensor as usize].get_mut(number) {
                part.id = format!("{letter}{count}");
            }
        }
        for (scope, letter) in
            [(Scope::Inlet, "I"), (Scope::Phase, "L"), (Scope::Branch, "B"), (Scope::Outlet, "")]
        {
            for (number, part) in &mut self.parts[scope as usize] {
                part.id = format!("{letter}{number}");
            }
        }
    }
}

/// What came for one reading.
struct Reading<'a> {
    item: Item,
    answer: &'a Answer,
    column: Option<(usize, Metric, u16)>,
}

pub(super) fn decode_of(spec: &PointSpec, row: &Row, lookup: &Lookup<'_>) -> Option<Decode> {
    let sense = sense(spec, row, lookup)?;
    let absent = spec.absent.clone();
    Some(Decode { point: spec.point, shape: shape(&spec.source, row), sense, absent })
}

/// A value that the device itself does not vouch for is none.
pub(super) fn trusted(spec: &PointSpec, row: &Row, lookup: &Lookup<'_>, datum: Datum) -> Datum {
    let vouched = spec.valid.as_ref().is_none_or(|valid| {
        let answer = lookup.answer(&valid.source, row);
        answer.is_some_and(|answer| vouches(&valid.check, answer, shape(&valid.source, row)))
    });
    if vouched || !datum.is_good() { datum } else { Datum::Gap(Gap::Unavailable) }
}

fn sense(spec: &PointSpec, row: &Row, lookup: &Lookup<'_>) -> Option<Sense> {
    match &spec.meaning {
        Meaning::States(states) => Some(Sense::States(states.clone())),
        Meaning::Quantity { count, digits, factor, fahrenheit, sign } => {
            let count = match digits {
                None => *count,
                // Without its scale a number means nothing.
                Some(digits) => count.with_digits(lookup.number(digits, row)?)?,
            };
            let count = match factor {
                None => count,
                Some(factor) => count.with_factor(lookup.number(factor, row)?)?,
            };
            let fahrenheit = match fahrenheit {
                None => false,
                // Nor without its unit; a device that has no such setting counts in degrees Celsius.
                Some(test) => match lookup.answer(&test.source, row) {
                    Some(Err(gap)) if *gap != Gap::Missing => return None,
                    _ => lookup.holds(test, row) == Some(true),
                },
            };
            Some(Sense::Quantity { count, fahrenheit, sign: *sign })
        }
        Meaning::Text | Meaning::Link => None,
    }
}

/// The number at the end of "L2", "Bank 3", "2".
fn trailing_number(text: &str) -> Option<u16> {
    let digits = text.len() - text.bytes().rev().take_while(u8::is_ascii_digit).count();
    text[digits..].parse().ok()
}
