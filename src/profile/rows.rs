//! Rows of a table: from index columns that were walked, or from the driver file itself.

use crate::model::limits::TABLE_ROWS;
use crate::model::oid::Oid;

use super::format::{Profile, Register, Rows, Source, Table};
use super::sweep::Item;

/// One row: its index, and the number it is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Index parts by name, the unit of a daisy chain included.
    pub parts: Vec<(String, Vec<u32>)>,
    /// Place in the table as the device lists it, from 0; rows that are filtered out keep theirs.
    pub place: u16,
    /// The number printed beside it.
    pub number: u16,
}

/// The rows of a table from the instances that a walk of its column brought, in walk order and not yet
/// numbered. Rows of other units, and instances whose index has another shape, are left out; without a
/// unit all units count.
pub fn walked(profile: &Profile, table: &Table, unit: Option<u32>, instances: &[Oid]) -> Vec<Row> {
    let Rows::Walk { column, index } = &table.rows else { return Vec::new() };
    let indexed = instances.iter().filter_map(|oid| {
        let arcs = oid.below(column)?;
        (arcs.len() == index.len()).then_some(arcs)
    });
    from_indices(profile, table.rows.index(), unit, indexed.take(TABLE_ROWS))
}

/// The rows of a table that the driver file lists, or of which the device told the count.
pub fn listed(profile: &Profile, table: &Table, unit: Option<u32>, counted: u16) -> Vec<Row> {
    match &table.rows {
        Rows::Single => from_indices(profile, table.rows.index(), unit, [vec![]].into_iter()),
        Rows::Listed { rows, .. } => {
            from_indices(profile, table.rows.index(), unit, rows.iter().cloned())
        }
        Rows::Counted { max, .. } => {
            let rows = (0..counted.min(*max)).map(|_| vec![]);
            from_indices(profile, table.rows.index(), unit, rows)
        }
        Rows::Walk { .. } | Rows::Named { .. } => Vec::new(),
    }
}

pub(super) fn from_indices(
    profile: &Profile,
    names: &[String],
    unit: Option<u32>,
    indices: impl Iterator<Item = Vec<u32>>,
) -> Vec<Row> {
    let mut rows = Vec::new();
    for (place, arcs) in (0u16..).zip(indices) {
        let mut parts: Vec<(String, Vec<u32>)> =
            names.iter().cloned().zip(arcs.into_iter().map(|arc| vec![arc])).collect();
        if let Some((unit_part, first)) = &profile.unit {
            match (parts.iter().find(|(name, _)| name == unit_part), unit) {
                (Some((_, value)), Some(unit)) if *value != [unit] => continue,
                (Some(_), _) => {}
                (None, unit) => parts.push((unit_part.clone(), vec![unit.unwrap_or(*first)])),
            }
        }
        rows.push(Row { parts, place, number: 0 });
    }
    rows
}

/// Gives the rows that count their numbers: from the index part that the driver names, or from 1 where
/// it names none, or where those numbers are not unique (several units of a chain together).
pub fn number(table: &Table, rows: &mut [Row]) {
    let told = |row: &Row| {
        let (_, value) = row.parts.iter().find(|(part, _)| Some(part) == table.number.as_ref())?;
        u16::try_from(i64::from(*value.first()?) + table.number_offset).ok()
    };
    let numbers: Option<Vec<u16>> = rows.iter().map(told).collect();
    let unique = |numbers: &Vec<u16>| {
        numbers.iter().collect::<std::collections::BTreeSet<_>>().len() == numbers.len()
    };
    let numbers = numbers.filter(unique).unwrap_or_else(|| (1..=rows.len() as u16).collect());
    rows.iter_mut().zip(numbers).for_each(|(row, number)| row.number = number);
}

/// A source at a row; `None` if the row does not fill it.
pub fn item_at(source: &Source, row: &Row) -> Option<Item> {
    match source {
        Source::Oid(template) | Source::Listed(template, _) => {
            template.fill(&row.parts).map(Item::Oid)
        }
        Source::Register(register) => register_at(register, row).map(|address| Item::Register {
            table: register.table,
            address,
            words: register.shape.words,
        }),
        Source::DeviceId(id) => Some(Item::DeviceId(*id)),
    }
}

fn register_at(register: &Register, row: &Row) -> Option<u16> {
    let offset = u32::from(row.place) * u32::from(register.step);
    u16::try_from(u32::from(register.address) + offset).ok()
}

/// A row for sources that stand outside all tables: only the unit is known.
pub fn unit_row(profile: &Profile, unit: Option<u32>) -> Row {
    let part = |(part, first): &(String, u32)| (part.clone(), vec![unit.unwrap_or(*first)]);
    let parts = profile.unit.iter().map(part).collect();
    Row { parts, place: 0, number: 1 }
}
