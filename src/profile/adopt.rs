//! Adopting a device: from a profile and a few rounds of answers to an [`Instance`]. Each round says what
//! to read; the caller reads it and brings the answers. Nothing here does I/O.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::ask::{Ask, Reply, Value};
use crate::model::limits::TABLE_ROWS;
use crate::model::metric::{Metric, Point, Scope, Word};
use crate::model::oid::Oid;
use crate::model::reading::{Datum, Gap};
use crate::model::topology::{Identity, Layout, Part, Slot};

use super::decode::{Decode, Number, Sense, decode, holds, number, raw_text, text_of, vouches};
use super::format::{Every, Meaning, PointSpec, Profile, Rows, Shape, Source, Test, Verb};
use super::instance::{Instance, Reader};
use super::rows::{Row, item_at, listed, number as number_rows, unit_row, walked};
use super::sweep::{Answer, Item, ReadSet, Wanted};

/// Why a device cannot be adopted with a profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdoptError {
    /// None of the readings that the family has is there.
    #[error(
        "the device answers, but has none of the readings of driver {0}: is it the right driver?"
    )]
    Nothing(String),
}

/// Round one: who the device is, what it can, how many rows it has. Items and the answers they get
/// keep their order.
pub struct Facts<'p> {
    profile: &'p Profile,
    unit: Option<u32>,
    items: Vec<Item>,
}

/// What round one told.
#[derive(Debug, Clone)]
pub struct Known {
    /// The unit of a daisy chain that is adopted; nothing for all of them.
    pub unit: Option<u32>,
    /// Who the device says it is.
    pub identity: Identity,
    capabilities: Vec<String>,
    counts: BTreeMap<usize, u16>,
}

impl Known {
    fn is_able(&self, needs: Option<&String>) -> bool {
        needs.is_none_or(|name| self.capabilities.contains(name))
    }
}

impl<'p> Facts<'p> {
    /// For one unit of a daisy chain, or for all of them.
    pub fn new(profile: &'p Profile, unit: Option<u32>) -> Self {
        let row = unit_row(profile, unit);
        let identity = &profile.identity;
        let named = [&identity.model, &identity.serial, &identity.firmware, &identity.name];
        let sources = named
            .into_iter()
            .flatten()
            .chain(profile.capabilities.iter().map(|(_, test)| &test.source))
            .chain(profile.tables.iter().filter_map(counted));
        let items = sources.filter_map(|source| item_at(source, &row)).collect();
        Self { profile, unit, items }
    }

    /// What to read.
    pub fn set(&self) -> ReadSet {
        ReadSet::new(&self.profile.speech, self.items.iter().cloned().map(Wanted::single).collect())
    }

    /// What the device said of itself, each with where it said it: for those who check drivers.
    pub fn identity_read(&self, answers: &[Answer]) -> Vec<(&'static str, Item, String)> {
        let row = unit_row(self.profile, self.unit);
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
            for source in sources {
                if let (Some(item), Some(text)) = (item_at(source, &row), lookup.text(source, &row))
                {
                    read.push((name, item, text));
                }
            }
        }
        read
    }

    /// Takes the answers in.
    pub fn known(&self, answers: &[Answer]) -> Known {
        let row = unit_row(self.profile, self.unit);
        let lookup = Lookup::new(&self.items, answers);
        let first = |sources: &[Source]| {
            let texts = sources.iter().filter_map(|source| lookup.text(source, &row));
            texts.into_iter().find(|text| !text.is_empty())
        };
        let identity = &self.profile.identity;
        let able = |(name, test): &(String, Test)| {
            lookup.holds(test, &row).unwrap_or(false).then(|| name.clone())
        };
        let counts = self.profile.tables.iter().enumerate().filter_map(|(at, table)| {
            let count = lookup.number(counted(table)?, &row)?;
            Some((at, u16::try_from(count).unwrap_or(0)))
        });
        Known {
            unit: self.unit,
            identity: Identity {
                vendor: Some(self.profile.vendor.clone()),
                model: first(&identity.model),
                serial: first(&identity.serial),
                firmware: first(&identity.firmware),
                name: first(&identity.name),
            },
            capabilities: self.profile.capabilities.iter().filter_map(able).collect(),
            counts: counts.collect(),
        }
    }
}

fn counted(table: &super::format::Table) -> Option<&Source> {
    match &table.rows {
        Rows::Counted { source, .. } => Some(source),
        _ => None,
    }
}

/// Answers by item.
struct Lookup<'a> {
    by_item: std::collections::BTreeMap<&'a Item, &'a Answer>,
}

impl<'a> Lookup<'a> {
    fn new(items: &'a [Item], answers: &'a [Answer]) -> Self {
        Self { by_item: items.iter().zip(answers).collect() }
    }

    fn answer(&self, source: &Source, row: &Row) -> Option<&Answer> {
        self.by_item.get(&item_at(source, row)?).copied()
    }

    fn text(&self, source: &Source, row: &Row) -> Option<String> {
        let raw = self.answer(source, row)?.as_ref().ok()?;
        let shape = shape(source);
        let number = || Some(raw_text(raw, shape));
        text_of(raw, shape).or_else(number)
    }

    fn number(&self, source: &Source, row: &Row) -> Option<i64> {
        match number(self.answer(source, row)?.as_ref().ok()?, shape(source)) {
            Ok(Number::Whole(whole)) => Some(whole),
            _ => None,
        }
    }

    fn holds(&self, test: &Test, row: &Row) -> Option<bool> {
        Some(holds(&test.check, self.answer(&test.source, row)?, shape(&test.source)))
    }
}

/// The shape of a Modbus source.
pub(super) fn shape(source: &Source) -> Option<Shape> {
    match source {
        Source::Register(register) => Some(register.shape),
        _ => None,
    }
}

/// Round two, one for each table that is walked: the instances under its column.
pub struct Walk {
    column: Oid,
    at: Oid,
    rows: u32,
    found: Vec<Oid>,
    over: bool,
}

impl Walk {
    /// Walks of a profile, with the tables they are for. `bulk_rows` 0 walks with GETNEXT.
    pub fn all(profile: &Profile, bulk_rows: u32) -> Vec<(usize, Walk)> {
        let walk = |(at, table): (usize, &super::format::Table)| match &table.rows {
            Rows::Walk { column, .. } => Some((at, Walk::of(column.clone(), bulk_rows))),
            _ => None,
        };
        profile.tables.iter().enumerate().filter_map(walk).collect()
    }

    /// A walk of one column.
    pub fn of(column: Oid, bulk_rows: u32) -> Self {
        Self { at: column.clone(), column, rows: bulk_rows, found: Vec::new(), over: false }
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
            // An agent that refuses GETBULK may still know GETNEXT.
            self.over = self.rows == 0;
            self.rows = 0;
            return;
        };
        let before = self.found.len();
        for (oid, value) in binds {
            let onward = oid.is_under(&self.column) && oid > self.at && value != Value::Nothing;
            if !onward || self.found.len() >= TABLE_ROWS {
                self.over = true;
                return;
            }
            self.at = oid.clone();
            self.found.push(oid);
        }
        self.over = self.found.len() == before;
    }

    /// What was found.
    pub fn found(self) -> Vec<Oid> {
        self.found
    }
}

/// Round three: which rows count.
pub struct Filter<'p> {
    profile: &'p Profile,
    rows: Vec<Vec<Row>>,
    items: Vec<Item>,
}

impl<'p> Filter<'p> {
    /// From what the walks found, by table.
    pub fn new(profile: &'p Profile, known: &Known, found: &BTreeMap<usize, Vec<Oid>>) -> Self {
        let mut rows = Vec::new();
        let mut items = Vec::new();
        for (at, table) in profile.tables.iter().enumerate() {
            let of_table = if let Some(instances) = found.get(&at) {
                walked(profile, table, known.unit, instances)
            } else {
                let count = known.counts.get(&at).copied().unwrap_or(0);
                listed(profile, table, known.unit, count)
            };
            if let Some(keep) = &table.keep {
                items.extend(of_table.iter().filter_map(|row| item_at(&keep.source, row)));
            }
            rows.push(of_table);
        }
        Self { profile, rows, items }
    }

    /// What to read; may be empty.
    pub fn set(&self) -> ReadSet {
        ReadSet::new(&self.profile.speech, self.items.iter().cloned().map(Wanted::single).collect())
    }

    /// The rows that count, by table.
    pub fn kept(mut self, answers: &[Answer]) -> Vec<Vec<Row>> {
        let lookup = Lookup::new(&self.items, answers);
        for (table, rows) in self.profile.tables.iter().zip(&mut self.rows) {
            let Some(keep) = &table.keep else { continue };
            rows.retain(|row| lookup.holds(keep, row).unwrap_or(false));
        }
        for (table, rows) in self.profile.tables.iter().zip(&mut self.rows) {
            number_rows(table, rows);
        }
        self.rows
    }
}

/// Round four: everything that the rows may have, once. What is there stays.
pub struct Probe<'p> {
    profile: &'p Profile,
    known: Known,
    rows: Vec<Vec<Row>>,
    wanted: Vec<Wanted>,
}

impl<'p> Probe<'p> {
    /// From the rows that count.
    pub fn new(profile: &'p Profile, known: Known, rows: Vec<Vec<Row>>) -> Self {
        let mut wanted: Vec<Wanted> = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        let mut push = |item: Option<Item>, cell| {
            if let Some(item) = item.filter(|item| seen.insert(item.clone())) {
                wanted.push(Wanted { item, cell });
            }
        };
        for (column, spec) in (0u32..).zip(Self::points(profile, &known)) {
            let dense = is_dense(profile, spec, &rows[spec.table]);
            for (at, row) in (0u32..).zip(&rows[spec.table]) {
                push(item_at(&spec.source, row), dense.then_some((column, at)));
                for source in Self::companions(spec) {
                    push(item_at(source, row), None);
                }
            }
        }
        Self { profile, known, rows, wanted }
    }

    fn points<'a>(profile: &'a Profile, known: &Known) -> Vec<&'a PointSpec> {
        profile.points.iter().filter(|spec| known.is_able(spec.needs.as_ref())).collect()
    }

    fn companions(spec: &PointSpec) -> Vec<&Source> {
        let mut sources: Vec<&Source> =
            [&spec.when, &spec.valid].into_iter().flatten().map(|test| &test.source).collect();
        if let Meaning::Quantity { digits, fahrenheit, .. } = &spec.meaning {
            sources.extend(digits);
            sources.extend(fahrenheit.iter().map(|test| &test.source));
        }
        sources
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
        Ok(builder.build(self.profile, &self.known))
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
                let raw = answer.as_ref().ok().map(|raw| raw_text(raw, shape(&spec.source)));
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

/// Whether a point's instances follow each other in a walk of its column.
fn is_dense(profile: &Profile, spec: &PointSpec, rows: &[Row]) -> bool {
    let Source::Oid(template) = &spec.source else { return false };
    let index = profile.tables[spec.table].rows.index();
    let follows = rows.windows(2).all(|pair| pair[0].place + 1 == pair[1].place);
    !index.is_empty() && template.is_column_of(index) && follows
}

#[derive(Default)]
struct Builder {
    parts: [BTreeMap<u16, Part>; 5],
    /// By scope, number of the part and metric: parts get their places once all are known.
    readers: BTreeMap<(Scope, u16, Metric), (Reader, Datum)>,
    /// Sensors by table, place and metric: each reading of a row is a sensor of its own.
    sensors: BTreeMap<(usize, u16, Metric), u16>,
    links: Vec<(Scope, u16, Scope, u16)>,
    outlets: BTreeMap<u16, Row>,
}

impl Builder {
    fn take(&mut self, spec: &PointSpec, row: &Row, dense: bool, lookup: &Lookup<'_>) {
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
            Some((item_at(&test.source, row)?, test.check.clone(), shape(&test.source)))
        });
        let Reading { item, column, .. } = came;
        let reader = Reader { item, decode: decode_of, every: spec.every, valid, column };
        self.readers.insert(key, (reader, datum));
    }

    fn outlet_rows(&mut self, profile: &Profile, rows: &[Vec<Row>]) {
        let Some(table) = profile.table_of(Scope::Outlet) else { return };
        self.outlets = rows[table].iter().map(|row| (row.number, row.clone())).collect();
    }

    fn build(mut self, profile: &Profile, known: &Known) -> (Instance, Vec<Datum>) {
        let place = |parts: &[BTreeMap<u16, Part>; 5], scope: Scope, number: u16| {
            parts[scope as usize].keys().position(|n| *n == number).map(|at| at as u16)
        };
        for (scope, number, target, linked) in std::mem::take(&mut self.links) {
            let at = place(&self.parts, target, linked);
            if let Some(part) = self.parts[scope as usize].get_mut(&number) {
                if target == Scope::Branch { part.branch = at } else { part.phase = at }
            }
        }
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
        let parts = self.parts.map(|parts| parts.into_values().collect());
        let layout = Layout::new(parts, slots.iter().map(|(slot, ..)| *slot).collect());
        let mut readers = Vec::with_capacity(slots.len());
        let mut data = Vec::with_capacity(slots.len());
        for (_, reader, datum) in slots {
            readers.push(reader);
            data.push(datum);
        }
        let identity = Arc::new(known.identity.clone());
        (Instance::new(profile, identity, layout, readers, rows, verbs), data)
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

fn decode_of(spec: &PointSpec, row: &Row, lookup: &Lookup<'_>) -> Option<Decode> {
    let sense = sense(spec, row, lookup)?;
    let absent = spec.absent.clone();
    Some(Decode { point: spec.point, shape: shape(&spec.source), sense, absent })
}

/// A value that the device itself does not vouch for is none.
fn trusted(spec: &PointSpec, row: &Row, lookup: &Lookup<'_>, datum: Datum) -> Datum {
    let vouched = spec.valid.as_ref().is_none_or(|valid| {
        let answer = lookup.answer(&valid.source, row);
        answer.is_some_and(|answer| vouches(&valid.check, answer, shape(&valid.source)))
    });
    if vouched || !datum.is_good() { datum } else { Datum::Gap(Gap::Unavailable) }
}

fn sense(spec: &PointSpec, row: &Row, lookup: &Lookup<'_>) -> Option<Sense> {
    match &spec.meaning {
        Meaning::States(states) => Some(Sense::States(states.clone())),
        Meaning::Quantity { count, digits, fahrenheit, absolute } => {
            let count = match digits {
                None => *count,
                // Without its scale a number means nothing.
                Some(digits) => count.with_digits(lookup.number(digits, row)?)?,
            };
            let fahrenheit =
                fahrenheit.as_ref().is_some_and(|test| lookup.holds(test, row) == Some(true));
            Some(Sense::Quantity { count, fahrenheit, absolute: *absolute })
        }
        Meaning::Text | Meaning::Link => None,
    }
}

/// The number at the end of "L2", "Bank 3", "2".
fn trailing_number(text: &str) -> Option<u16> {
    let digits = text.len() - text.bytes().rev().take_while(u8::is_ascii_digit).count();
    text[digits..].parse().ok()
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
