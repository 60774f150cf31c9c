//! Rows of a table: from index columns that were walked, or from the driver file itself.

use std::collections::BTreeSet;

use crate::model::limits::TABLE_ROWS;
use crate::model::oid::Oid;

use super::format::{Profile, Register, Rows, Source, Table};
use super::sweep::Item;
use super::units::Units;

/// One row: its index, and the number it is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Index parts by name, the unit of a daisy chain included.
    pub parts: Vec<(String, Vec<u32>)>,
    /// Place in the table as the device lists it, from 0; rows that are filtered out keep theirs.
    pub place: u16,
    /// The number printed beside it, and what is added to it for its unit.
    pub number: u16,
    /// What is added to the numbers of its unit.
    pub base: u16,
}

impl Row {
    /// An index part.
    pub fn part(&self, name: &str) -> Option<&[u32]> {
        self.parts.iter().find(|(part, _)| part == name).map(|(_, arcs)| arcs.as_slice())
    }

    /// Sets an index part.
    pub(super) fn set_part(&mut self, name: &str, arcs: Vec<u32>) {
        self.parts.retain(|(part, _)| part != name);
        self.parts.push((name.to_owned(), arcs));
    }
}

/// Which unit is wanted, and which there are.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    /// The one; nothing for all of them.
    pub chosen: Option<Vec<u32>>,
    /// Those that rows were found of.
    pub there: BTreeSet<Vec<u32>>,
}

/// The rows of a table from the instances that a walk of its column brought, in walk order and not yet
/// numbered. Rows of other units, and instances whose index has another shape, are left out; without a
/// unit all units count.
pub fn walked(profile: &Profile, table: usize, chain: &mut Chain, instances: &[Oid]) -> Vec<Row> {
    let columns = profile.key_columns(table);
    let index = profile.tables[table].rows.index();
    let indexed = instances.iter().filter_map(|oid| {
        let arcs = columns.iter().find_map(|column| oid.below(column))?;
        Units::split(profile.unit.as_ref(), index, &arcs)
    });
    from_indices(profile, index, chain, indexed.take(TABLE_ROWS))
}

/// The rows of a table that the driver file lists, or of which the device told the count.
pub fn listed(profile: &Profile, table: &Table, chain: &mut Chain, counted: u16) -> Vec<Row> {
    let index = table.rows.index();
    match &table.rows {
        Rows::Single => from_indices(profile, index, chain, std::iter::once(vec![])),
        Rows::Listed { rows, .. } => {
            let arcs = |row: &Vec<u32>| row.iter().map(|arc| vec![*arc]).collect();
            from_indices(profile, index, chain, rows.iter().map(arcs))
        }
        Rows::Counted { max, .. } => {
            let rows = (0..counted.min(*max)).map(|_| vec![]);
            from_indices(profile, index, chain, rows)
        }
        Rows::Walk { .. } | Rows::Named { .. } => Vec::new(),
    }
}

pub(super) fn from_indices(
    profile: &Profile,
    names: &[String],
    chain: &mut Chain,
    indices: impl Iterator<Item = Vec<Vec<u32>>>,
) -> Vec<Row> {
    let mut rows = Vec::new();
    for (place, arcs) in (0u16..).zip(indices) {
        let parts = names.iter().cloned().zip(arcs).collect();
        let mut row = Row { parts, place, number: 0, base: 0 };
        if let Some(units) = &profile.unit {
            if let Some(unit) = row.part(&units.part).map(<[u32]>::to_vec) {
                let wanted = chain.chosen.as_ref().is_none_or(|chosen| *chosen == unit);
                chain.there.insert(unit);
                if !wanted {
                    continue;
                }
            } else {
                let unit = chain.chosen.clone().or_else(|| units.first());
                unit.into_iter().for_each(|unit| row.set_part(&units.part, unit));
            }
        }
        rows.push(row);
    }
    rows
}

/// A source at a row; `None` if the row does not fill it.
pub fn item_at(source: &Source, row: &Row) -> Option<Item> {
    match source {
        Source::Oid(template) | Source::Listed(template, _) | Source::Behind(template, _) => {
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
pub fn unit_row(profile: &Profile, chosen: Option<&[u32]>) -> Row {
    let mut row = Row { parts: Vec::new(), place: 0, number: 1, base: 0 };
    if let Some(units) = &profile.unit {
        let unit = chosen.map(<[u32]>::to_vec).or_else(|| units.first());
        unit.into_iter().for_each(|unit| row.set_part(&units.part, unit));
    }
    row
}
