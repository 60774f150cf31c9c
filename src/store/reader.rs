//! Reading series back: from rows, hours and days, or from rollups where they tell enough; oldest first, one block in
//! memory at a time.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::model::id::PduId;
use crate::model::metric::Metric;
use crate::model::reading::Gap;
use crate::model::time::{Span, Stamp};
use crate::series::block::{Head, Value};
use crate::series::cells;
use crate::series::rollup::{self, Rolled};
use crate::series::row::Packed;
use crate::series::window::Sample;

use super::archive::Archive;
use super::chunk::{ChunkStore, StoreError};
use super::seal::Loaded;
use super::shelf::{DAY_MS, HOUR_MS, Kind, MINUTE_MS, Name, Shelf, key, unkey};
use super::writer::{Schema, verified};

/// Readings of a series.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The readings, oldest first.
    pub samples: Vec<Sample>,
    /// Rows or blocks in the window that are damaged or from another format: their readings are missing.
    pub damaged: usize,
    /// There were more readings than were asked for.
    pub truncated: bool,
}

/// Which series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Series {
    /// The PDU.
    pub pdu: PduId,
    /// The part within it: `7`, `L1`, `I1`.
    pub part: String,
    /// What is read.
    pub metric: Metric,
}

/// Why a text names no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no target: write a PDU, or a PDU and one of its parts, as in pdu-a, pdu-a/7, pdu-a/L1, pdu-a/B2, pdu-a/T1"
)]
pub struct TargetError(String);

/// A target of a series: the PDU, and the part; a PDU alone is its inlet.
pub fn target(text: &str) -> Result<(PduId, String), TargetError> {
    let wrong = || TargetError(text.chars().take(80).collect());
    let (pdu, part) = text.split_once('/').unwrap_or((text, "I1"));
    let plain =
        !part.is_empty() && part.len() <= 16 && part.bytes().all(|b| b.is_ascii_alphanumeric());
    if !plain {
        return Err(wrong());
    }
    Ok((pdu.parse().map_err(|_| wrong())?, part.to_owned()))
}

/// What a scan shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item<'i> {
    /// A reading.
    Sample(Sample),
    /// Readings that were rolled up, and over how many milliseconds.
    Rolled(&'i Rolled, i64),
}

/// What is read: parts and metrics of one device, over a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan<'s> {
    /// The device.
    pub pdu: &'s PduId,
    /// Its columns.
    pub columns: &'s [(String, Metric)],
    /// From when.
    pub start: Stamp,
    /// Until before when.
    pub end: Stamp,
    /// How wide the steps are that it is for, and where they begin; without, readings as they came.
    pub step: Option<(Stamp, Span)>,
}

/// The readings of a series with `start <= at < end`, at most `limit`.
pub fn read(
    archive: &Archive,
    series: &Series,
    start: Stamp,
    end: Stamp,
    limit: usize,
) -> Result<Found, StoreError> {
    let mut found = Found::default();
    let columns = [(series.part.clone(), series.metric)];
    let asked = Scan { pdu: &series.pdu, columns: &columns, start, end, step: None };
    found.damaged = scan(archive, &asked, &mut |_, item| {
        let Item::Sample(sample) = item else { return true };
        found.truncated = found.samples.len() == limit;
        if !found.truncated {
            found.samples.push(sample);
        }
        !found.truncated
    })?;
    Ok(found)
}

/// Which kinds of what is kept answer, the one to be preferred first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tier {
    Raw,
    Minutes,
    Hours,
}

fn tiers(asked: &Scan<'_>) -> &'static [Tier] {
    let Some((begin, step)) = asked.step else { return &[Tier::Raw] };
    let fits = |width: i64| step.0 % width as u64 == 0 && begin.0 % width == 0;
    if fits(HOUR_MS) {
        &[Tier::Hours, Tier::Minutes, Tier::Raw]
    } else if fits(MINUTE_MS) {
        &[Tier::Minutes, Tier::Raw, Tier::Hours]
    } else {
        &[Tier::Raw, Tier::Minutes, Tier::Hours]
    }
}

/// What a scan shows items to: the number of the column, and the item; returning false ends it.
type Show<'v> = &'v mut dyn FnMut(usize, Item<'_>) -> bool;

/// Shows items of columns of a device with `start <= at < end`, until told to stop; those of one column oldest first.
/// Returns how many rows and blocks in the window are damaged: their readings are missing.
pub fn scan(archive: &Archive, asked: &Scan<'_>, visit: Show<'_>) -> Result<usize, StoreError> {
    if asked.start >= asked.end {
        return Ok(0);
    }
    let (first, last) = (asked.start.0.div_euclid(DAY_MS), (asked.end.0 - 1).div_euclid(DAY_MS));
    let mut days = BTreeSet::new();
    let mut under_way = BTreeSet::new();
    // Their names only: who holds a directory keeps it on the disk, and a visitor may take its time.
    for name in archive.shelves().iter().map(|shelf| shelf.name) {
        let (from, until) = name.days();
        days.extend(from.max(first)..until.min(last + 1));
        if matches!(name, Name::Head(..)) {
            under_way.insert(from);
        }
    }
    let mut damaged = 0;
    'days: for day in days {
        for tier in tiers(asked) {
            // Rollups are made when a day is sealed: of one that is under way they are not all.
            if *tier != Tier::Raw && under_way.contains(&day) {
                continue;
            }
            let shown = match tier {
                Tier::Raw => raw_day(archive, asked, day, visit),
                Tier::Minutes => {
                    let name = Name::minutes(day);
                    rolled_day(archive, name, Kind::Minute, MINUTE_MS, asked, day, visit)
                }
                Tier::Hours => {
                    let name = Name::hours(day);
                    rolled_day(archive, name, Kind::Hour, HOUR_MS, asked, day, visit)
                }
            };
            match shown {
                Ok(Shown::Nothing) => {}
                Ok(Shown::Some(bad)) => {
                    damaged += bad;
                    break;
                }
                Ok(Shown::Stop(bad)) => {
                    damaged += bad;
                    break 'days;
                }
                // A directory that is damaged has been set aside, and one that does not open on a full disk will when there
                // is room: the next tier may know.
                Err(StoreError::Damaged(_) | StoreError::Full) => damaged += 1,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(damaged)
}

enum Shown {
    /// There is nothing of that day here.
    Nothing,
    /// There is; so much is damaged.
    Some(usize),
    /// The visitor has enough.
    Stop(usize),
}

fn raw_day(
    archive: &Archive,
    asked: &Scan<'_>,
    day: i64,
    visit: Show<'_>,
) -> Result<Shown, StoreError> {
    let of_day: Vec<Arc<Shelf>> = archive
        .shelves()
        .into_iter()
        .filter(|s| matches!(s.name, Name::Head(d, _) | Name::Day(d, _) if d == day))
        .collect();
    match &of_day[..] {
        [] => return Ok(Shown::Nothing),
        [shelf] if matches!(shelf.name, Name::Day(..)) => {
            return sealed_day(archive, shelf, asked, day, visit);
        }
        _ => {}
    }
    let mut pieces = Pieces::new(asked);
    for shelf in &of_day {
        let store = match archive.store(shelf) {
            Ok(store) => store,
            Err(StoreError::Damaged(_) | StoreError::Full) => {
                pieces.damaged += 1;
                continue;
            }
            Err(error) => return Err(error),
        };
        pieces.take(&store, shelf.name, day)?;
    }
    Ok(pieces.show(visit))
}

/// A sealed day is one block, in order of time: each column is shown as it is decoded, in memory that the next one uses
/// again.
fn sealed_day(
    archive: &Archive,
    shelf: &Arc<Shelf>,
    asked: &Scan<'_>,
    day: i64,
    visit: Show<'_>,
) -> Result<Shown, StoreError> {
    let store = match archive.store(shelf) {
        Ok(store) => store,
        Err(StoreError::Damaged(_) | StoreError::Full) => return Ok(Shown::Some(1)),
        Err(error) => return Err(error),
    };
    let loaded = Loaded::find(&store, Kind::Block, asked.pdu.as_str(), day * DAY_MS)?;
    let Some(loaded) = loaded else { return Ok(Shown::Nothing) };
    let Ok(head) = Head::open(loaded.head()) else { return Ok(Shown::Some(1)) };
    let mut damaged = 0;
    let mut cells = Vec::new();
    for (number, (part, metric)) in asked.columns.iter().enumerate() {
        let Some(entry) = head.find(part, metric.key()) else { continue };
        let times = head.times_of(entry);
        let group = loaded.group(entry.group);
        let coded = group.as_ref().and_then(|group| entry.cells(group).ok());
        if coded.and_then(|coded| cells::decode_into(coded, times.len(), &mut cells)).is_none() {
            damaged += 1;
            cells.clear();
            cells.resize(times.len(), Err(Gap::Damaged));
        }
        let [from, until] =
            [asked.start, asked.end].map(|end| times.partition_point(|at| *at < end.0));
        for (at, cell) in times[from..until].iter().zip(&cells[from..until]) {
            if !visit(number, Item::Sample((Stamp(*at), *cell))) {
                return Ok(Shown::Stop(damaged));
            }
        }
    }
    Ok(Shown::Some(damaged))
}

/// What there is of a day, per column.
struct Pieces<'a, 's> {
    asked: &'a Scan<'s>,
    keys: Vec<&'static str>,
    columns: Vec<Vec<Sample>>,
    damaged: usize,
    found: bool,
}

impl<'a, 's> Pieces<'a, 's> {
    fn new(asked: &'a Scan<'s>) -> Self {
        let keys = asked.columns.iter().map(|(_, metric)| metric.key()).collect();
        let columns = vec![Vec::new(); asked.columns.len()];
        Self { asked, keys, columns, damaged: 0, found: false }
    }

    fn take(
        &mut self,
        store: &Arc<dyn ChunkStore>,
        name: Name,
        day: i64,
    ) -> Result<(), StoreError> {
        let pdu = self.asked.pdu.as_str();
        let (start, end) = (day * DAY_MS, (day + 1) * DAY_MS);
        // Rows first: what is sealed in between is then seen twice, and not missed.
        if matches!(name, Name::Head(..)) {
            self.rows(store.as_ref(), start.max(self.asked.start.0), end.min(self.asked.end.0))?;
        }
        let step = if matches!(name, Name::Day(..)) { DAY_MS } else { HOUR_MS };
        for at in (start..end).step_by(step as usize) {
            if at >= self.asked.end.0 || at + step <= self.asked.start.0 {
                continue;
            }
            let Some(loaded) = Loaded::find(store, Kind::Block, pdu, at)? else { continue };
            self.found = true;
            match Head::open(loaded.head()) {
                Ok(head) => self.block(&head, &loaded),
                Err(_) => self.damaged += 1,
            }
        }
        Ok(())
    }

    fn block(&mut self, head: &Head<'_>, loaded: &Loaded) {
        let (start, end) = (self.asked.start.0, self.asked.end.0);
        let mut groups: HashMap<u16, Option<Value>> = HashMap::new();
        for (number, (part, _)) in self.asked.columns.iter().enumerate() {
            let Some(entry) = head.find(part, self.keys[number]) else { continue };
            let times = head.times_of(entry);
            let group = groups.entry(entry.group).or_insert_with(|| loaded.group(entry.group));
            let cells = group.as_ref().and_then(|group| entry.cells(group).ok());
            let Some(cells) = cells.and_then(|cells| cells::decode(cells, times.len())) else {
                self.damaged += 1;
                continue;
            };
            let [from, until] = [start, end].map(|end| times.partition_point(|at| *at < end));
            let samples = times[from..until].iter().zip(&cells[from..until]);
            self.columns[number].extend(samples.map(|(at, cell)| (Stamp(*at), *cell)));
        }
    }

    fn rows(&mut self, store: &dyn ChunkStore, from: i64, until: i64) -> Result<(), StoreError> {
        let pdu = self.asked.pdu.as_str();
        // For each schema, where each of its columns goes.
        let mut ways: HashMap<u32, Vec<(usize, usize)>> = HashMap::new();
        let mut failure = None;
        let (from, until) = (key(Kind::Row, pdu, from), key(Kind::Row, pdu, until));
        store.range(&from, &until, &mut |key, value| {
            let (Some((_, at, _)), Ok(row)) = (unkey(key), Packed::open(value)) else {
                self.damaged += 1;
                return true;
            };
            self.found = true;
            let way = ways.entry(row.schema).or_insert_with(|| {
                let known = schema(store, row.schema).unwrap_or_else(|error| {
                    failure = Some(error);
                    None
                });
                self.way(known.filter(|schema| schema.pdu == pdu))
            });
            let mut wanted = way.iter().peekable();
            for (place, cell) in row.cells().enumerate() {
                match wanted.peek() {
                    Some((at_place, number)) if *at_place == place => {
                        self.columns[*number].push((Stamp(at), cell));
                        wanted.next();
                    }
                    Some(_) => {}
                    None => break,
                }
            }
            failure.is_none()
        })?;
        failure.map_or(Ok(()), Err)
    }

    /// Places in a schema's rows and the numbers of the columns that are asked for, by place.
    fn way(&self, schema: Option<Schema>) -> Vec<(usize, usize)> {
        let Some(schema) = schema else { return Vec::new() };
        let columns = schema.columns.iter().enumerate();
        columns
            .filter_map(|(place, (part, key))| {
                let wanted = self.asked.columns.iter().zip(&self.keys);
                let number = wanted.enumerate().find(|(_, ((p, _), k))| p == part && *k == key);
                number.map(|(number, _)| (place, number))
            })
            .collect()
    }

    fn show(mut self, visit: Show<'_>) -> Shown {
        for (number, column) in self.columns.iter_mut().enumerate() {
            if !column.is_sorted_by(|a, b| a.0 < b.0) {
                column.sort_by_key(|(at, _)| *at);
                column.dedup_by_key(|(at, _)| *at);
            }
            for sample in column.drain(..) {
                if !visit(number, Item::Sample(sample)) {
                    return Shown::Stop(self.damaged);
                }
            }
        }
        let shown = self.found || self.damaged > 0;
        if shown { Shown::Some(self.damaged) } else { Shown::Nothing }
    }
}

fn rolled_day(
    archive: &Archive,
    name: Name,
    kind: Kind,
    width: i64,
    asked: &Scan<'_>,
    day: i64,
    visit: Show<'_>,
) -> Result<Shown, StoreError> {
    let Some(shelf) = archive.shelf(name) else { return Ok(Shown::Nothing) };
    let store = archive.store(&shelf)?;
    let Some(loaded) = Loaded::find(&store, kind, asked.pdu.as_str(), day * DAY_MS)? else {
        return Ok(Shown::Nothing);
    };
    // A damaged rollup says nothing; the next tier may.
    let Ok(head) = Head::open(loaded.head()) else { return Ok(Shown::Nothing) };
    let mut damaged = 0;
    let mut groups: HashMap<u16, Option<Value>> = HashMap::new();
    for (number, (part, metric)) in asked.columns.iter().enumerate() {
        let Some(entry) = head.find(part, metric.key()) else { continue };
        let group = groups.entry(entry.group).or_insert_with(|| loaded.group(entry.group));
        let coded = group.as_ref().and_then(|group| entry.cells(group).ok());
        let Some(steps) = coded.and_then(|coded| rollup::decode(coded, &head.times_of(entry)))
        else {
            damaged += 1;
            continue;
        };
        let inside = |step: &&Rolled| step.at >= asked.start.0 && step.at < asked.end.0;
        for step in steps.iter().filter(inside) {
            if !visit(number, Item::Rolled(step, width)) {
                return Ok(Shown::Stop(damaged));
            }
        }
    }
    Ok(Shown::Some(damaged))
}

/// The parts of a device that a metric was stored of, as the newest directory that has any knows them: history is there
/// before the device has been reached again.
pub fn parts(archive: &Archive, pdu: &PduId, metric: Metric) -> Result<Vec<String>, StoreError> {
    let mut shelves = archive.shelves();
    shelves.sort_by_key(|shelf| std::cmp::Reverse(shelf.name.days()));
    for shelf in shelves {
        let store = match archive.store(&shelf) {
            Ok(store) => store,
            Err(StoreError::Damaged(_) | StoreError::Full) => continue,
            Err(error) => return Err(error),
        };
        let (first, end) = shelf.name.days();
        let mut found = BTreeSet::new();
        let (kind, step) = match shelf.name {
            Name::Head(..) => (Kind::Block, HOUR_MS),
            Name::Day(..) => (Kind::Block, DAY_MS),
            Name::Minutes(_) => (Kind::Minute, DAY_MS),
            Name::Hours(_) => (Kind::Hour, DAY_MS),
        };
        for (_, schema) in
            schemas(store.as_ref())?.into_iter().filter(|(_, s)| s.pdu == pdu.as_str())
        {
            found.extend(
                schema
                    .columns
                    .into_iter()
                    .filter(|(_, key)| key == metric.key())
                    .map(|(part, _)| part),
            );
        }
        let places = (end - first) * DAY_MS / step;
        for at in (0..places).rev().map(|n| first * DAY_MS + n * step) {
            if !found.is_empty() {
                break;
            }
            let Some(loaded) = Loaded::find(&store, kind, pdu.as_str(), at)? else { continue };
            let Ok(head) = Head::open(loaded.head()) else { continue };
            let of = head.columns.iter().filter(|entry| entry.key == metric.key());
            found.extend(of.map(|entry| entry.part.to_owned()));
        }
        if !found.is_empty() {
            return Ok(found.into_iter().collect());
        }
    }
    Ok(Vec::new())
}

/// A schema by its number.
pub fn schema(store: &dyn ChunkStore, number: u32) -> Result<Option<Schema>, StoreError> {
    let value = store.get(&super::shelf::schema_key(number))?;
    Ok(value.as_deref().and_then(schema_in))
}

fn schema_in(value: &[u8]) -> Option<Schema> {
    serde_json::from_slice(verified(value)?).ok()
}

/// The devices that a store has something of.
pub fn devices(store: &dyn ChunkStore) -> Result<Vec<String>, StoreError> {
    let mut found = Vec::new();
    store.range(b"P", b"Q", &mut |key, _| {
        found.extend(std::str::from_utf8(&key[1..]).ok().map(str::to_owned));
        true
    })?;
    Ok(found)
}

/// The highest number of a schema ever given, to one that is damaged now too.
pub(super) fn last_schema(store: &dyn ChunkStore) -> Result<u32, StoreError> {
    let mut last = 0;
    store.range(b"S", b"T", &mut |key, _| {
        last = key[1..].try_into().map_or(last, |key| last.max(u32::from_be_bytes(key)));
        true
    })?;
    Ok(last)
}

/// Schemas in a store.
pub(super) fn schemas(store: &dyn ChunkStore) -> Result<Vec<(u32, Schema)>, StoreError> {
    let mut found = Vec::new();
    store.range(b"S", b"T", &mut |key, value| {
        let number = key[1..].try_into().ok().map(u32::from_be_bytes);
        found.extend(number.zip(schema_in(value)));
        true
    })?;
    Ok(found)
}
