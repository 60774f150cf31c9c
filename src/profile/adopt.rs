//! Adopting a device: from a profile and a few rounds of answers to an [`Instance`]. Each round says what
//! to read; the caller reads it and brings the answers. Nothing here does I/O.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::ask::{Ask, Reply, Value};
use crate::model::id::ChainUnit;
use crate::model::limits::{NAMED, TABLE_ROWS};
use crate::model::metric::Point;
use crate::model::oid::Oid;
use crate::model::reading::{Datum, Gap};
use crate::model::topology::Identity;

use super::builder::{Builder, decode_of, is_dense, trusted};
use super::decode::{Number, decode, holds, number, raw_text, text_of};
use super::format::{
    Every, Meaning, PointSpec, Profile, Rows, Shape, ShapeKind, Source, Test, UnitBy,
};
use super::instance::Instance;
use super::names::NameMap;
use super::rows::{Chain, Row, item_at, listed, unit_row, walked};
use super::sweep::{Answer, Item, ReadSet, Wanted};
use super::sweep_snmp::NO_SUCH_NAME;
use super::units::{Bases, Told, Units, number as number_rows};

/// Why a device cannot be adopted with a profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdoptError {
    /// None of the readings that the family has is there.
    #[error(
        "the device answers, but has none of the readings of driver {0}: is it the right driver?"
    )]
    Nothing(String),
    /// What there is could not be learned; what is missing would be taken for absent.
    #[error("the device did not tell {what} ({gap}); it is asked again")]
    Unsure {
        /// What.
        what: &'static str,
        /// How it failed.
        gap: Gap,
    },
    /// A unit of a chain is asked for, and the family has no such thing.
    #[error("driver {0} knows no units of a chain: leave chain_unit out")]
    NoUnits(String),
    /// The unit that is asked for is not there.
    #[error("unit {unit} of its chain is not there; chain_unit is one of those that are: {}", listed_units(.there))]
    NoSuchUnit {
        /// Which.
        unit: String,
        /// Those that are.
        there: Vec<String>,
    },
}

fn listed_units(there: &[String]) -> String {
    if there.is_empty() { "none".into() } else { there.join(", ") }
}

/// Fails on an answer that is neither a value nor a clear "there is no such thing".
fn sure(what: &'static str, answer: Option<&Answer>) -> Result<(), AdoptError> {
    match answer {
        Some(Err(gap)) if *gap != Gap::Missing => Err(AdoptError::Unsure { what, gap: *gap }),
        _ => Ok(()),
    }
}

/// Round one: who the device is, what it can, how many rows it has. Items and the answers they get
/// keep their order.
pub struct Facts<'p> {
    profile: &'p Profile,
    chosen: Option<Vec<u32>>,
    items: Vec<Item>,
}

/// What round one told.
#[derive(Debug, Clone)]
pub struct Known {
    /// The unit of a daisy chain that is adopted; nothing for all of them.
    pub chosen: Option<Vec<u32>>,
    /// Who the device says it is.
    pub identity: Identity,
    capabilities: Vec<String>,
    counts: BTreeMap<usize, u16>,
}

impl Known {
    pub(super) fn is_able(&self, needs: Option<&String>) -> bool {
        needs.is_none_or(|name| self.capabilities.contains(name))
    }
}

impl<'p> Facts<'p> {
    /// For one unit of a daisy chain, or for all of them.
    pub fn new(profile: &'p Profile, unit: Option<&ChainUnit>) -> Result<Self, AdoptError> {
        let chosen = match (unit, &profile.unit) {
            (None, _) => None,
            (Some(_), None) => return Err(AdoptError::NoUnits(profile.id.to_string())),
            (Some(unit), Some(units)) => Some(units.arcs(unit).ok_or_else(|| {
                AdoptError::NoSuchUnit { unit: unit.to_string(), there: Vec::new() }
            })?),
        };
        let row = unit_row(profile, chosen.as_deref());
        let identity = &profile.identity;
        let named = [&identity.model, &identity.serial, &identity.firmware, &identity.name];
        let sources = named
            .into_iter()
            .flat_map(|sources| own(profile, chosen.as_deref(), sources))
            .chain(profile.capabilities.iter().map(|(_, test)| &test.source))
            .chain(profile.tables.iter().filter_map(counted));
        let items = sources.filter_map(|source| item_at(source, &row)).collect();
        Ok(Self { profile, chosen, items })
    }

    /// What to read.
    pub fn set(&self) -> ReadSet {
        ReadSet::new(&self.profile.speech, self.items.iter().cloned().map(Wanted::single).collect())
    }

    /// What the device said of itself, each with where it said it: for those who check drivers.
    pub fn identity_read(&self, answers: &[Answer]) -> Vec<(&'static str, Item, String)> {
        let row = unit_row(self.profile, self.chosen.as_deref());
        let lookup = Lookup::new(&self.items, answers);
        let identity = &self.profile.identity;
        let named = [
            ("identity.model", &identity.model),
            ("identity.serial", &identity.serial),
            ("identity.firmware", &identity.firmware),
            ("identity.name", &identity.name),
        ];
        let mut read = Vec::new();
        for (name, sources) in named {
            for source in own(self.profile, self.chosen.as_deref(), sources) {
                if let (Some(item), Some(text)) = (item_at(source, &row), lookup.text(source, &row))
                {
                    read.push((name, item, text));
                }
            }
        }
        read
    }

    /// Takes the answers in.
    pub fn known(&self, answers: &[Answer]) -> Result<Known, AdoptError> {
        let row = unit_row(self.profile, self.chosen.as_deref());
        let lookup = Lookup::new(&self.items, answers);
        for source in self.profile.tables.iter().filter_map(counted) {
            sure("how many rows it has", lookup.answer(source, &row))?;
        }
        let first = |sources: &'p [Source]| {
            let sources = own(self.profile, self.chosen.as_deref(), sources);
            let mut texts = sources.filter_map(|source| lookup.text(source, &row));
            texts.find(|text| !text.is_empty())
        };
        let identity = &self.profile.identity;
        let able = |(name, test): &(String, Test)| {
            lookup.holds(test, &row).unwrap_or(false).then(|| name.clone())
        };
        let counts = self.profile.tables.iter().enumerate().filter_map(|(at, table)| {
            let count = lookup.number(counted(table)?, &row)?;
            Some((at, u16::try_from(count).unwrap_or(0)))
        });
        Ok(Known {
            chosen: self.chosen.clone(),
            identity: Identity {
                vendor: Some(self.profile.vendor.clone()),
                model: first(&identity.model),
                serial: first(&identity.serial),
                firmware: first(&identity.firmware),
                name: first(&identity.name),
            },
            capabilities: self.profile.capabilities.iter().filter_map(able).collect(),
            counts: counts.collect(),
        })
    }
}

/// Where a unit says who it is: what an agent says of itself is true of its first unit only.
fn own<'s>(
    profile: &'s Profile,
    chosen: Option<&[u32]>,
    sources: &'s [Source],
) -> impl Iterator<Item = &'s Source> {
    let other = profile
        .unit
        .as_ref()
        .filter(|units| chosen.is_some_and(|chosen| units.first().as_deref() != Some(chosen)));
    let names_it = move |source: &Source| match (other, source) {
        (Some(units), Source::Oid(template) | Source::Behind(template, _)) => {
            template.holes().any(|hole| hole == units.part)
        }
        _ => false,
    };
    let told_apart = sources.iter().any(names_it);
    sources.iter().filter(move |source| !told_apart || names_it(source))
}

fn counted(table: &super::format::Table) -> Option<&Source> {
    match &table.rows {
        Rows::Counted { source, .. } => Some(source),
        _ => None,
    }
}

/// Answers by item.
pub(super) struct Lookup<'a> {
    by_item: std::collections::BTreeMap<&'a Item, &'a Answer>,
}

impl<'a> Lookup<'a> {
    fn new(items: &'a [Item], answers: &'a [Answer]) -> Self {
        Self { by_item: items.iter().zip(answers).collect() }
    }

    pub(super) fn answer(&self, source: &Source, row: &Row) -> Option<&Answer> {
        self.by_item.get(&item_at(source, row)?).copied()
    }

    pub(super) fn text(&self, source: &Source, row: &Row) -> Option<String> {
        let raw = self.answer(source, row)?.as_ref().ok()?;
        let shape = shape(source, row);
        let number = || Some(raw_text(raw, shape));
        let text = text_of(raw, shape).or_else(number);
        match source {
            Source::Behind(_, mark) => behind(&text?, mark),
            _ => text,
        }
    }

    pub(super) fn number(&self, source: &Source, row: &Row) -> Option<i64> {
        match number(self.answer(source, row)?.as_ref().ok()?, shape(source, row)) {
            Ok(Number::Whole(whole)) => Some(whole),
            _ => None,
        }
    }

    fn told(&self, source: &Source, row: &Row) -> Told {
        match self.answer(source, row) {
            None | Some(Err(_)) => Told::Nothing,
            Some(Ok(_)) => self.number(source, row).map_or(Told::Strange, Told::Number),
        }
    }

    pub(super) fn holds(&self, test: &Test, row: &Row) -> Option<bool> {
        Some(holds(&test.check, self.answer(&test.source, row)?, shape(&test.source, row)))
    }
}

/// The word behind a mark, up to a blank, a comma or a closing bracket.
fn behind(text: &str, mark: &str) -> Option<String> {
    let (_, rest) = text.split_once(mark)?;
    let ends = |c: char| c.is_whitespace() || matches!(c, ',' | ';' | ')');
    let word = rest.trim_start().split(ends).next()?;
    (!word.is_empty()).then(|| word.to_owned())
}

/// The shape of a Modbus source, or of an item of a list.
pub(super) fn shape(source: &Source, row: &Row) -> Option<Shape> {
    match source {
        Source::Listed(_, item) => Some(Shape {
            kind: ShapeKind::Item,
            words: item.unwrap_or(row.place),
            low_first: false,
            bit: None,
        }),
        Source::Register(register) => Some(register.shape),
        _ => None,
    }
}

/// Round two, one for each table that is walked: the instances under its column.
pub struct Walk {
    column: Oid,
    at: Oid,
    rows: u32,
    found: Vec<(Oid, Value)>,
    most: usize,
    over: bool,
    broken: bool,
}

impl Walk {
    /// Walks of a profile, with the tables they are for: of several the first that finds rows counts. `bulk_rows` 0
    /// walks with GETNEXT.
    pub fn all(profile: &Profile, bulk_rows: u32) -> Vec<(usize, Vec<Walk>)> {
        let walk = |(at, table): (usize, &super::format::Table)| match &table.rows {
            Rows::Walk { .. } => {
                let columns = profile.key_columns(at).into_iter();
                Some((at, columns.map(|column| Walk::of(column, bulk_rows)).collect()))
            }
            _ => None,
        };
        profile.tables.iter().enumerate().filter_map(walk).collect()
    }

    /// The walk of the names that a device gives its variables, if the driver goes by them.
    pub fn names(profile: &Profile, bulk_rows: u32) -> Option<Walk> {
        let names = profile.names.as_ref()?;
        Some(Walk { most: NAMED, ..Walk::of(names.column.clone(), bulk_rows) })
    }

    /// A walk of one column.
    pub fn of(column: Oid, bulk_rows: u32) -> Self {
        Self {
            most: TABLE_ROWS,
            at: column.clone(),
            column,
            rows: bulk_rows,
            found: Vec::new(),
            over: false,
            broken: false,
        }
    }

    /// What to ask next, or nothing at the end.
    pub fn next(&self) -> Option<Ask> {
        if self.over {
            return None;
        }
        Some(match self.rows {
            0 => Ask::GetNext(vec![self.at.clone()]),
            rows => Ask::GetBulk { names: vec![self.at.clone()], single: 0, repeat: rows },
        })
    }

    /// Takes a reply in. Ends at the end of the column, at an agent that does not advance, and at
    /// [`TABLE_ROWS`].
    pub fn answer(&mut self, reply: Reply) {
        let Reply::Binds(binds) = reply else {
            // An agent that refuses GETBULK may still know GETNEXT. SNMPv1 ends a walk with noSuchName; any other
            // refusal in the middle of a table is no end of it.
            let ends = matches!(reply, Reply::Refused { status, .. } if status == NO_SUCH_NAME);
            self.over = self.rows == 0;
            self.broken = self.over && !ends && !self.found.is_empty();
            self.rows = 0;
            return;
        };
        let before = self.found.len();
        for (oid, value) in binds {
            let onward = oid.is_under(&self.column) && oid > self.at && value != Value::Nothing;
            if !onward || self.found.len() >= self.most {
                self.over = true;
                return;
            }
            self.at = oid.clone();
            self.found.push((oid, value));
        }
        self.over = self.found.len() == before;
    }

    /// What was found.
    pub fn found(self) -> Result<Vec<Oid>, AdoptError> {
        Ok(self.found_with_values()?.into_iter().map(|(oid, _)| oid).collect())
    }

    /// What was found, with its values.
    pub fn found_with_values(self) -> Result<Vec<(Oid, Value)>, AdoptError> {
        if self.broken {
            return Err(AdoptError::Unsure { what: "all rows of a table", gap: Gap::DeviceError });
        }
        Ok(self.found)
    }
}

/// Round three: which rows count, which unit they belong to and what number they have.
pub struct Filter<'p> {
    profile: &'p Profile,
    chain: Chain,
    rows: Vec<Vec<Row>>,
    items: Vec<Item>,
}

impl<'p> Filter<'p> {
    /// From what the walks found, by table.
    pub fn new(
        profile: &'p Profile,
        known: &Known,
        found: &BTreeMap<usize, Vec<Oid>>,
        names: &NameMap,
    ) -> Self {
        let mut rows = Vec::new();
        let mut items = BTreeSet::new();
        let mut chain = Chain { chosen: known.chosen.clone(), there: BTreeSet::new() };
        for (at, table) in profile.tables.iter().enumerate() {
            let mut of_table = if let Rows::Named { pattern, index } = &table.rows {
                names.rows(profile, pattern, index, &mut chain)
            } else if let Some(instances) = found.get(&at) {
                walked(profile, at, &mut chain, instances)
            } else {
                let count = known.counts.get(&at).copied().unwrap_or(0);
                listed(profile, table, &mut chain, count)
            };
            names.enrich(&mut of_table);
            // A test of a fixed place is the same for every row.
            for source in table.asked_of_rows() {
                items.extend(of_table.iter().filter_map(|row| item_at(source, row)));
            }
            rows.push(of_table);
        }
        Self { profile, chain, rows, items: items.into_iter().collect() }
    }

    /// What to read; may be empty.
    pub fn set(&self) -> ReadSet {
        ReadSet::new(&self.profile.speech, self.items.iter().cloned().map(Wanted::single).collect())
    }

    /// The rows that count, by table, and the units that there are.
    pub fn kept(mut self, answers: &[Answer]) -> Result<(Vec<Vec<Row>>, Vec<String>), AdoptError> {
        let lookup = Lookup::new(&self.items, answers);
        for (table, rows) in self.profile.tables.iter().zip(&mut self.rows) {
            for source in table.asked_of_rows() {
                for row in rows.iter() {
                    sure("which of its rows count", lookup.answer(source, row))?;
                }
            }
            if !table.keep.is_empty() {
                rows.retain(|row| keeps(&table.keep, row, &lookup));
            }
            if let (Some(units), Some(by)) = (&self.profile.unit, &table.unit) {
                rows.retain_mut(|row| {
                    let Some(unit) = unit_of(units, by, row, &lookup) else { return false };
                    self.chain.there.insert(unit.clone());
                    let wanted = self.chain.chosen.as_ref().is_none_or(|chosen| *chosen == unit);
                    row.set_part(&units.part, unit);
                    wanted
                });
            }
        }
        let units = self.profile.unit.as_ref();
        let name = |arcs: &Vec<u32>| units.map_or(String::new(), |units| units.name(arcs));
        let there: Vec<String> = self.chain.there.iter().map(name).collect();
        if let Some(chosen) = self.chain.chosen.as_ref().filter(|c| !self.chain.there.contains(*c))
            && !there.is_empty()
        {
            return Err(AdoptError::NoSuchUnit { unit: name(chosen), there });
        }
        let bases = Bases::new(units, &self.chain.there, self.chain.chosen.is_some());
        for (table, rows) in self.profile.tables.iter().zip(&mut self.rows) {
            number_rows(table, rows, &bases, &|source, row| lookup.told(source, row));
        }
        Ok((self.rows, there))
    }
}

/// Whether a row counts. Where the device has none of the objects only a test for that can tell.
fn keeps(tests: &[Test], row: &Row, lookup: &Lookup<'_>) -> bool {
    let missing =
        |test: &&Test| matches!(lookup.answer(&test.source, row), None | Some(Err(Gap::Missing)));
    let deciding = tests.iter().find(|test| !missing(test)).or(tests.last());
    deciding.is_some_and(|test| lookup.holds(test, row).unwrap_or(false))
}

/// The unit of a row. One whose device has no such column is of the first; one of a unit that makes no sense is of none.
fn unit_of(units: &Units, by: &UnitBy, row: &Row, lookup: &Lookup<'_>) -> Option<Vec<u32>> {
    match by {
        UnitBy::Fixed(unit) => Some(vec![*unit]),
        UnitBy::Told(source) => match lookup.told(source, row) {
            Told::Number(unit) => Some(vec![u32::try_from(unit).ok()?]),
            Told::Nothing => units.first(),
            Told::Strange => None,
        },
    }
}

/// Round four: everything that the rows may have, once. What is there stays.
pub struct Probe<'p> {
    profile: &'p Profile,
    known: Known,
    rows: Vec<Vec<Row>>,
    units: Vec<String>,
    wanted: Vec<Wanted>,
}

impl<'p> Probe<'p> {
    /// From the rows that count, and the units that there are.
    pub fn new(
        profile: &'p Profile,
        known: Known,
        (rows, units): (Vec<Vec<Row>>, Vec<String>),
    ) -> Self {
        let mut wanted: Vec<Wanted> = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        let mut push = |item: Option<Item>, cell, is_text| {
            if let Some(item) = item.filter(|item| seen.insert(item.clone())) {
                wanted.push(Wanted { item, cell, is_text });
            }
        };
        for (column, spec) in (0u32..).zip(Self::points(profile, &known)) {
            let dense = is_dense(profile, spec, &rows[spec.table]);
            let is_text = matches!(spec.meaning, Meaning::Text | Meaning::Link);
            for (at, row) in (0u32..).zip(&rows[spec.table]) {
                push(item_at(&spec.source, row), dense.then_some((column, at)), is_text);
                for source in spec.companions() {
                    push(item_at(source, row), None, false);
                }
            }
        }
        Self { profile, known, rows, units, wanted }
    }

    fn points<'a>(profile: &'a Profile, known: &Known) -> Vec<&'a PointSpec> {
        profile.points.iter().filter(|spec| known.is_able(spec.needs.as_ref())).collect()
    }

    /// What to read.
    pub fn set(&self) -> ReadSet {
        ReadSet::new(&self.profile.speech, self.wanted.clone())
    }

    /// The adopted device with its first readings, in the order of its layout's slots.
    pub fn settle(&self, answers: &[Answer]) -> Result<(Instance, Vec<Datum>), AdoptError> {
        let items: Vec<Item> = self.wanted.iter().map(|w| w.item.clone()).collect();
        let lookup = Lookup::new(&items, answers);
        let mut builder = Builder::default();
        let specs = Self::points(self.profile, &self.known);
        // Texts and links need the parts that readings make.
        let is_text = |spec: &&&PointSpec| matches!(spec.meaning, Meaning::Text | Meaning::Link);
        for spec in specs.iter().filter(|spec| !is_text(spec)).chain(specs.iter().filter(is_text)) {
            let dense = is_dense(self.profile, spec, &self.rows[spec.table]);
            for row in &self.rows[spec.table] {
                builder.take(spec, row, dense, &lookup);
            }
        }
        if !builder.readers.values().any(|(_, datum)| datum.is_good()) {
            return Err(AdoptError::Nothing(self.profile.id.to_string()));
        }
        builder.outlet_rows(self.profile, &self.rows);
        Ok(builder.build(self.profile, &self.known, self.units.clone()))
    }

    /// What was read, point by point, alternatives included: for those who write and check drivers.
    pub fn points_read(&self, answers: &[Answer]) -> Vec<PointRead> {
        let items: Vec<Item> = self.wanted.iter().map(|w| w.item.clone()).collect();
        let lookup = Lookup::new(&items, answers);
        let mut read = Vec::new();
        for spec in Self::points(self.profile, &self.known) {
            for row in &self.rows[spec.table] {
                let Some(answer) = lookup.answer(&spec.source, row) else { continue };
                let applies = spec.when.as_ref().is_none_or(|w| lookup.holds(w, row) == Some(true));
                if !applies || *answer == Err(Gap::Missing) {
                    continue;
                }
                let Some(item) = item_at(&spec.source, row) else { continue };
                let datum = match decode_of(spec, row, &lookup) {
                    Some(decode_of) => trusted(spec, row, &lookup, decode(&decode_of, answer)),
                    None => Datum::Gap(Gap::NotRead),
                };
                let raw = answer.as_ref().ok().map(|raw| raw_text(raw, shape(&spec.source, row)));
                let text = lookup.text(&spec.source, row);
                read.push(PointRead { point: spec.point, row: row.number, item, raw, datum, text });
            }
        }
        read
    }
}

/// One point as it was read.
#[derive(Debug, Clone)]
pub struct PointRead {
    /// The dictionary entry.
    pub point: Point,
    /// Number of the row.
    pub row: u16,
    /// Where it was read.
    pub item: Item,
    /// As it came, if it came.
    pub raw: Option<String>,
    /// What it means, for quantities and states.
    pub datum: Datum,
    /// What it says, for texts and links.
    pub text: Option<String>,
}

impl Every {
    /// Whether a poll of this pace reads the point.
    pub(super) fn is_due(self, slow: bool) -> bool {
        match self {
            Every::Fast => true,
            Every::Slow => slow,
            Every::Once => false,
        }
    }
}
