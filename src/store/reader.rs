//! Reading series back: from rows, hours and days, or from rollups where they tell enough; oldest first, one block in
//! memory at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::model::id::PduId;
use crate::model::metric::Metric;
use crate::model::reading::Gap;
use crate::model::time::{Span, Stamp};
use crate::series::block::{Head, Value};
use crate::series::cells::{self, Column, Piece};
use crate::series::rollup::{self, Rolled};
use crate::series::window::{Run, Sample};

use super::ahead;
use super::archive::Archive;
use super::chunk::{ChunkStore, StoreError};
use super::pieces::Pieces;
use super::seal::Loaded;
use super::shelf::{DAY_MS, HOUR_MS, Kind, MINUTE_MS, Name, Shelf};
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

/// What a scan shows to: the number of the column, and what is beside each other of it; returning false ends it.
pub type Show<'v> = &'v mut dyn FnMut(usize, Run<'_>) -> bool;

/// Shows items of columns of a device one by one, as [`scan_runs`] shows them together.
pub fn scan(
    archive: &Archive,
    asked: &Scan<'_>,
    visit: &mut dyn FnMut(usize, Item<'_>) -> bool,
) -> Result<usize, StoreError> {
    scan_runs(archive, asked, &mut |number, run| match run {
        Run::Rolled(steps, width) => {
            steps.iter().all(|step| visit(number, Item::Rolled(step, width)))
        }
        run => run.samples().all(|sample| visit(number, Item::Sample(sample))),
    })
}

/// Shows columns of a device with `start <= at < end`, until told to stop; what is of one column oldest first. Returns
/// how many rows and blocks in the window are damaged: their readings are missing.
pub fn scan_runs(
    archive: &Archive,
    asked: &Scan<'_>,
    visit: Show<'_>,
) -> Result<usize, StoreError> {
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
    let days: Vec<i64> = days.into_iter().collect();
    let mut damaged = 0;
    'days: for (number, day) in days.iter().copied().enumerate() {
        if number % ahead::DAYS == 0 {
            let coming = days[number..].iter().copied().take(ahead::DAYS);
            ahead::open(&wanted(archive, asked, coming, &under_way), asked);
        }
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

/// The sealed directories that may tell of some days, each with its days; not those that are asked only where a better
/// one has nothing.
fn wanted(
    archive: &Archive,
    asked: &Scan<'_>,
    days: impl Iterator<Item = i64>,
    under_way: &BTreeSet<i64>,
) -> Vec<(Arc<Shelf>, Kind, Vec<i64>)> {
    let mut wanted: BTreeMap<Name, (Arc<Shelf>, Kind, Vec<i64>)> = BTreeMap::new();
    for day in days.filter(|day| !under_way.contains(day)) {
        for tier in tiers(asked) {
            let named = match tier {
                Tier::Raw => archive.sealed(day).map(|at| (Name::Day(day, at), Kind::Block)),
                Tier::Minutes => Some((Name::minutes(day), Kind::Minute)),
                Tier::Hours => Some((Name::hours(day), Kind::Hour)),
            };
            let Some((name, kind)) = named else { continue };
            let Some(shelf) = archive.shelf(name) else { continue };
            wanted.entry(name).or_insert_with(|| (shelf, kind, Vec::new())).2.push(day);
            // A week has the minutes of those of its days whose readings went.
            if *tier != Tier::Minutes {
                break;
            }
        }
    }
    wanted.into_values().collect()
}

pub(super) enum Shown {
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
    let mut cells = Column::default();
    let mut next = 0;
    for (number, (part, metric)) in asked.columns.iter().enumerate() {
        let Some((place, entry)) = head.find_from(next, (part, metric.key())) else { continue };
        next = place + 1;
        let times = head.times_of(entry);
        let group = loaded.group(entry.group);
        let coded = group.as_ref().and_then(|group| entry.cells(group).ok());
        if coded.and_then(|coded| cells::decode_into(coded, times.len(), &mut cells)).is_none() {
            damaged += 1;
            cells.push_gaps(times.len(), Gap::Damaged);
        }
        if !show(number, asked, &times, &cells, visit) {
            return Ok(Shown::Stop(damaged));
        }
    }
    Ok(Shown::Some(damaged))
}

/// Shows of a column what is asked for.
pub(super) fn show(
    number: usize,
    asked: &Scan<'_>,
    times: &[i64],
    cells: &Column,
    visit: Show<'_>,
) -> bool {
    let [from, until] = [asked.start, asked.end].map(|end| times.partition_point(|at| *at < end.0));
    let mut at = 0;
    for piece in cells.pieces() {
        let (first, last) = (from.max(at), until.min(at + piece.len()));
        if first < last {
            let times = &times[first..last];
            let run = match piece {
                Piece::Numbers(numbers) => Run::Numbers(times, &numbers[first - at..last - at]),
                Piece::Gaps(_, gap) => Run::Gaps(times, gap),
            };
            if !visit(number, run) {
                return false;
            }
        }
        at += piece.len();
    }
    true
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
        // One that is wider than what is asked for stands for all of its time, also for what is left of it at the start.
        let is_wide = asked.step.is_some_and(|(_, step)| step.0 < width.unsigned_abs());
        let start = if is_wide { asked.start.0.saturating_sub(width - 1) } else { asked.start.0 };
        let [from, until] =
            [start, asked.end.0].map(|end| steps.partition_point(|step| step.at < end));
        if from < until && !visit(number, Run::Rolled(&steps[from..until], width)) {
            return Ok(Shown::Stop(damaged));
        }
    }
    Ok(Shown::Some(damaged))
}

/// The parts of a device that a metric was stored of, as the newest directory that has any knows them: history is there
/// before the device has been reached again.
pub fn parts(archive: &Archive, pdu: &PduId, metric: Metric) -> Result<Vec<String>, StoreError> {
    let found = parts_until(archive, pdu, metric, |found| !found.is_empty())?;
    Ok(found.into_iter().collect())
}

/// Whether anything of a series is stored.
pub fn is_stored(archive: &Archive, series: &Series) -> Result<bool, StoreError> {
    let has = |found: &BTreeSet<String>| found.contains(&series.part);
    Ok(has(&parts_until(archive, &series.pdu, series.metric, has)?))
}

/// The parts that directories know, the newest first, until those are enough.
fn parts_until(
    archive: &Archive,
    pdu: &PduId,
    metric: Metric,
    enough: impl Fn(&BTreeSet<String>) -> bool,
) -> Result<BTreeSet<String>, StoreError> {
    let mut names: Vec<Name> = archive.shelves().iter().map(|shelf| shelf.name).collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.days()));
    let mut found = BTreeSet::new();
    for name in names {
        let Some(shelf) = archive.shelf(name) else { continue };
        let looked = archive
            .store(&shelf)
            .and_then(|store| look_for_parts(&store, name, (pdu, metric), &mut found, &enough));
        match looked {
            Ok(()) | Err(StoreError::Damaged(_) | StoreError::Full) => {}
            Err(error) => return Err(error),
        }
        if enough(&found) {
            break;
        }
    }
    Ok(found)
}

fn look_for_parts(
    store: &Arc<dyn ChunkStore>,
    name: Name,
    (pdu, metric): (&PduId, Metric),
    found: &mut BTreeSet<String>,
    enough: &impl Fn(&BTreeSet<String>) -> bool,
) -> Result<(), StoreError> {
    let (first, end) = name.days();
    let (kind, step) = match name {
        Name::Head(..) => (Kind::Block, HOUR_MS),
        Name::Day(..) => (Kind::Block, DAY_MS),
        Name::Minutes(_) => (Kind::Minute, DAY_MS),
        Name::Hours(_) => (Kind::Hour, DAY_MS),
    };
    for (_, schema) in schemas(store.as_ref())?.into_iter().filter(|(_, s)| s.pdu == pdu.as_str()) {
        let of = schema.columns.into_iter().filter(|(_, key)| key == metric.key());
        found.extend(of.map(|(part, _)| part));
    }
    let places = (end - first) * DAY_MS / step;
    for at in (0..places).rev().map(|n| first * DAY_MS + n * step) {
        if enough(found) {
            return Ok(());
        }
        let Some(loaded) = Loaded::find(store, kind, pdu.as_str(), at)? else { continue };
        let Ok(head) = Head::open(loaded.head()) else { continue };
        let of = head.columns.iter().filter(|entry| entry.key == metric.key());
        found.extend(of.map(|entry| entry.part.to_owned()));
    }
    Ok(())
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
