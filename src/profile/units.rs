//! Units: several PDUs behind one agent, as a daisy chain or a group has them. Which unit a row belongs to, and what
//! number it has, so that a number stands for the same socket whichever of the others answer.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::id::ChainUnit;

use super::format::{NumberBy, Source, Table};
use super::rows::Row;

/// Outlet 7 of unit 2 is 2007 where all units are read together. The largest PDU known has 84 outlets.
pub(super) const STRIDE: u16 = 1_000;
/// The greatest number of a unit that can stand before its outlets'.
const FARTHEST: u32 = (u16::MAX / STRIDE - 1) as u32;

/// How a family tells its units apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Units {
    /// The index part that says which.
    pub part: String,
    /// The number of the first; nothing where units go by a text, which is in the index with its length before it.
    pub first: Option<u32>,
}

impl Units {
    /// How an index has a unit that was named; nothing if none can have that name.
    pub fn arcs(&self, unit: &ChainUnit) -> Option<Vec<u32>> {
        let text = unit.as_str();
        if self.first.is_some() {
            return Some(vec![text.parse().ok()?]);
        }
        let length = u32::try_from(text.len()).ok()?;
        Some(std::iter::once(length).chain(text.bytes().map(u32::from)).collect())
    }

    /// What a unit is called.
    pub fn name(&self, arcs: &[u32]) -> String {
        let text = |arc: &u32| char::from_u32(*arc).unwrap_or('?');
        match (self.first, arcs) {
            (Some(_), [number, ..]) => number.to_string(),
            (_, [_, text_arcs @ ..]) => text_arcs.iter().map(text).collect(),
            (_, []) => String::new(),
        }
    }

    /// The first unit, where units are counted.
    pub fn first(&self) -> Option<Vec<u32>> {
        self.first.map(|first| vec![first])
    }

    /// Whether none of the units that there are has a number that can stand before its outlets': those that go by a text,
    /// and those that all have addresses as great as 210.
    fn by_order<'a>(&self, mut there: impl Iterator<Item = &'a Vec<u32>>) -> bool {
        self.first.is_none() || there.all(|arcs| arcs.first().is_some_and(|unit| *unit > FARTHEST))
    }

    /// Whether the units that there are, by name, have numbers by their order only: who comes first when another does not
    /// answer has its numbers.
    pub fn unnumbered(&self, there: &[String]) -> bool {
        let arcs: Vec<Vec<u32>> =
            there.iter().filter_map(|name| self.arcs(&name.parse().ok()?)).collect();
        match self.first {
            None => there.len() > 1,
            Some(_) => !arcs.is_empty() && self.by_order(arcs.iter()),
        }
    }

    /// The unit that is alone and has such a number: what is said of it is said in its rows.
    pub fn alone(&self, there: &[String]) -> Option<ChainUnit> {
        let [lone] = there else { return None };
        lone.parse().ok().filter(|_| self.unnumbered(there))
    }

    /// An index with its parts: each has one arc, but for a unit that goes by a text.
    pub fn split(units: Option<&Units>, names: &[String], arcs: &[u32]) -> Option<Vec<Vec<u32>>> {
        let is_text = |name: &String| units.is_some_and(|u| u.first.is_none() && u.part == *name);
        let mut rest = arcs;
        let mut parts = Vec::with_capacity(names.len());
        for name in names {
            let length = if is_text(name) { *rest.first()? as usize + 1 } else { 1 };
            let part = rest.get(..length)?;
            parts.push(part.to_vec());
            rest = &rest[length..];
        }
        rest.is_empty().then_some(parts)
    }
}

/// What a device says in a column of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// A number.
    Number(i64),
    /// There is no such object.
    Nothing,
    /// Something else.
    Strange,
}

/// Where numbers begin for the rows of each unit.
#[derive(Debug, Clone, Default)]
pub struct Bases {
    /// Nothing where one unit was chosen: its numbers are those that are printed.
    of: Option<BTreeMap<Vec<u32>, u16>>,
    part: String,
}

impl Bases {
    /// For the units that there are, all read together. A unit that is counted keeps its own whoever else is there; those
    /// that go by a text, or whose numbers are all too great, have none but by their order. One beyond the 65th among
    /// others has none: its rows are left out.
    pub fn new(units: Option<&Units>, there: &BTreeSet<Vec<u32>>, chosen: bool) -> Self {
        let Some(units) = units.filter(|_| !chosen) else { return Self::default() };
        let counted = units.first.filter(|_| !units.by_order(there.iter()));
        let base = |(at, arcs): (usize, &Vec<u32>)| {
            let unit = match counted {
                Some(first) if arcs.as_slice() == [first] => 0,
                Some(_) => u16::try_from(*arcs.first()?).ok()?,
                None if at == 0 => 0,
                None => u16::try_from(at + 1).ok()?,
            };
            // A unit that is not the first and yet has number 0 would be taken for the first.
            let is_first = match counted {
                Some(first) => arcs.as_slice() == [first],
                None => at == 0,
            };
            (is_first || unit > 0).then_some(())?;
            Some((
                arcs.clone(),
                unit.checked_mul(STRIDE).filter(|base| *base <= u16::MAX - STRIDE)?,
            ))
        };
        Self {
            of: Some(there.iter().enumerate().filter_map(base).collect()),
            part: units.part.clone(),
        }
    }

    fn base(&self, row: &Row) -> Option<u16> {
        let Some(of) = &self.of else { return Some(0) };
        row.part(&self.part).map_or(Some(0), |unit| of.get(unit).copied())
    }

    fn most(&self) -> u16 {
        if self.of.is_some() { STRIDE - 1 } else { u16::MAX }
    }
}

/// Gives the rows of a table their numbers: by the first way the driver names that the device has and that tells the
/// rows of a unit apart, else from 1 in each unit. Rows that have none do not count.
pub fn number(
    table: &Table,
    rows: &mut Vec<Row>,
    bases: &Bases,
    told: &dyn Fn(&Source, &Row) -> Told,
) {
    rows.retain_mut(|row| {
        let base = bases.base(row);
        row.base = base.unwrap_or(0);
        base.is_some()
    });
    let by = table.number.iter().find_map(|by| numbers(table, rows, bases, by, told));
    let mut by = by.unwrap_or_else(|| from_one(rows)).into_iter();
    rows.retain_mut(|row| {
        let number = by.next().flatten().filter(|number| *number <= bases.most());
        let whole = number.and_then(|number| row.base.checked_add(number));
        row.number = whole.unwrap_or(0);
        whole.is_some()
    });
}

fn from_one(rows: &[Row]) -> Vec<Option<u16>> {
    let mut next: BTreeMap<u16, u16> = BTreeMap::new();
    let number = |row: &Row| {
        let count = next.entry(row.base).or_default();
        *count = count.saturating_add(1);
        Some(*count)
    };
    rows.iter().map(number).collect()
}

/// The numbers of rows by one way; nothing if it cannot be gone here.
fn numbers(
    table: &Table,
    rows: &[Row],
    bases: &Bases,
    by: &NumberBy,
    told: &dyn Fn(&Source, &Row) -> Told,
) -> Option<Vec<Option<u16>>> {
    let fits = |number: i64| u16::try_from(number).ok().filter(|n| *n <= bases.most());
    let (source, of, per) = match by {
        NumberBy::Part(part) => {
            let of_row =
                |row: &Row| fits(i64::from(*row.part(part)?.first()?) + table.number_offset);
            return apart(rows, rows.iter().map(of_row).collect());
        }
        NumberBy::Told { source, of, per } => (source, of, per),
    };
    let said: Vec<Told> = rows.iter().map(|row| told(source, row)).collect();
    if of.is_empty() {
        let number = |told: &Told| match told {
            Told::Number(number) => fits(*number + table.number_offset),
            Told::Nothing | Told::Strange => None,
        };
        return apart(rows, said.iter().map(number).collect());
    }
    if said.iter().all(|told| *told == Told::Nothing) {
        return None;
    }
    let most = of.iter().map(|(_, number)| *number).max().unwrap_or(0);
    let number = |(row, told): (&Row, &Told)| {
        let Told::Number(said) = told else { return None };
        let (_, number) = of.iter().find(|(key, _)| key == said)?;
        let group = match per {
            Some(part) => u16::try_from(*row.part(part)?.first()?).ok()?.saturating_sub(1),
            None => 0,
        };
        most.checked_mul(group)?.checked_add(*number)
    };
    Some(rows.iter().zip(&said).map(number).collect())
}

/// Numbers, if every row has one and no two of a unit have the same.
fn apart(rows: &[Row], numbers: Vec<Option<u16>>) -> Option<Vec<Option<u16>>> {
    let all: Option<BTreeSet<(u16, u16)>> =
        rows.iter().zip(&numbers).map(|(row, number)| Some((row.base, (*number)?))).collect();
    (all?.len() == rows.len()).then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(index: &[&[u32]]) -> Vec<Row> {
        let row = |arcs: &&[u32]| Row {
            parts: ["unit", "outlet"]
                .map(str::to_owned)
                .into_iter()
                .zip(arcs.iter().map(|a| vec![*a]))
                .collect(),
            place: 0,
            number: 0,
            base: 0,
        };
        index.iter().map(row).collect()
    }

    fn table(number: Vec<NumberBy>) -> Table {
        Table {
            name: "outlet".into(),
            scope: crate::model::metric::Scope::Outlet,
            rows: super::super::format::Rows::Single,
            keep: Vec::new(),
            unit: None,
            number,
            number_offset: 0,
        }
    }

    fn numbered(units: &Units, number: Vec<NumberBy>, index: &[&[u32]]) -> Vec<u16> {
        let mut rows = rows(index);
        let there = rows.iter().map(|row| row.parts[0].1.clone()).collect();
        let bases = Bases::new(Some(units), &there, false);
        super::number(&table(number), &mut rows, &bases, &|_, _| Told::Nothing);
        rows.iter().map(|row| row.number).collect()
    }

    #[test]
    fn a_unit_keeps_its_numbers_whoever_else_is_there() {
        let units = Units { part: "unit".into(), first: Some(1) };
        let by = || vec![NumberBy::Part("outlet".into())];
        assert_eq!(
            numbered(&units, by(), &[&[1, 1], &[1, 2], &[3, 1], &[3, 2]]),
            [1, 2, 3001, 3002]
        );
        assert_eq!(numbered(&units, by(), &[&[3, 1], &[3, 2]]), [3001, 3002]);
        // Without numbers of their own they are counted, in each unit from 1.
        assert_eq!(
            numbered(&units, vec![], &[&[1, 9], &[2, 4], &[1, 7], &[2, 2]]),
            [1, 2001, 2, 2002]
        );
        // No two rows share a number; one that cannot have any does not count.
        assert_eq!(numbered(&units, by(), &[&[1, 1], &[2, 1], &[2, 1]]), [1, 2001, 2002]);
        assert_eq!(numbered(&units, by(), &[&[1, 1], &[66, 1], &[0, 1]]), [1]);
    }

    #[test]
    fn units_with_great_addresses_are_read_by_their_order_and_said_to_be() {
        let units = Units { part: "unit".into(), first: Some(1) };
        let by = || vec![NumberBy::Part("outlet".into())];
        assert_eq!(numbered(&units, by(), &[&[210, 1], &[210, 2]]), [1, 2]);
        assert_eq!(numbered(&units, by(), &[&[201, 1], &[210, 1], &[210, 2]]), [1, 2001, 2002]);
        assert_eq!(numbered(&units, by(), &[&[64, 1], &[210, 1]]), [64_001]);
        let names = |all: &[&str]| all.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(units.unnumbered(&names(&["201", "210"])) && units.unnumbered(&names(&["65"])));
        assert!(!units.unnumbered(&names(&["64"])) && !units.unnumbered(&names(&["2", "210"])));
        assert!(!units.unnumbered(&[]));
        assert_eq!(units.alone(&names(&["210"])), Some("210".parse().unwrap()));
        assert_eq!(units.alone(&names(&["2"])), None);
        assert_eq!(units.alone(&names(&["201", "210"])), None);
        let texts = Units { part: "unit".into(), first: None };
        assert!(!texts.unnumbered(&names(&["0D"])) && texts.unnumbered(&names(&["0D", "0E"])));
    }

    #[test]
    fn a_unit_that_goes_by_a_text_is_found_in_the_index() {
        let units = Units { part: "mac".into(), first: None };
        let names = ["row", "mac"].map(str::to_owned);
        let arcs = units.arcs(&"0D".parse().unwrap()).unwrap();
        assert_eq!(arcs, [2, 48, 68]);
        let split = Units::split(Some(&units), &names, &[7, 2, 48, 68]).unwrap();
        assert_eq!((split[0].as_slice(), split[1].as_slice()), (&[7][..], arcs.as_slice()));
        assert_eq!(units.name(&arcs), "0D");
        for wrong in [&[7, 2, 48][..], &[7, 2, 48, 68, 1], &[7], &[7, u32::MAX, 1]] {
            assert_eq!(Units::split(Some(&units), &names, wrong), None, "{wrong:?}");
        }
    }
}
