//! What is left of a day when its readings have had their time. Its hours are made when it is sealed, for next to
//! nothing. Its minutes take as much as the readings, and say nothing that these do not: they are made when the readings
//! are about to go, and are on the disk before they do. Whenever the program dies, making them again changes nothing: a step
//! is never replaced by one of fewer readings.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::series::block::{BlockError, Head, Stored};
use crate::series::merge::in_order;
use crate::series::rollup::{Made, Roller, Steps, join};

use super::archive::Archive;
use super::chunk::StoreError;
use super::reader::devices;
use super::seal::{Loaded, groups, put_block, told};
use super::shelf::{DAY_MS, HOUR_MS, Kind, MINUTE_MS, Name, Shelf};

/// A kind of rollup of a day: where it lies, and how wide its steps are.
#[derive(Debug, Clone, Copy)]
struct Of {
    kind: Kind,
    name: Name,
    width: i64,
}

impl Of {
    fn minutes(day: i64) -> Self {
        Self { kind: Kind::Minute, name: Name::minutes(day), width: MINUTE_MS }
    }

    fn hours(day: i64) -> Self {
        Self { kind: Kind::Hour, name: Name::hours(day), width: HOUR_MS }
    }
}

/// Puts what a device's day that is being sealed comes to: its hours, as they were rolled up on the way; and its minutes
/// where there are some already, as of a day that got late rows.
pub fn sealed(
    archive: &Archive,
    pdu: &str,
    day: i64,
    block: &Stored,
    hours: &Made,
) -> Result<(), StoreError> {
    put(archive, Of::hours(day), pdu, day, &[Steps::Made(hours)])?;
    let (of, Ok(head)) = (Of::minutes(day), Head::open(&block.head)) else { return Ok(()) };
    if found(archive, of, pdu, day)?.is_some() {
        let fetch = |number| block.group(number);
        put(archive, of, pdu, day, &[Steps::Readings(&head, &fetch)])?;
    }
    Ok(())
}

/// Makes what is left of a sealed day, for its readings are about to go: of all its devices hours that are missing, as
/// after damage, and minutes if they are wanted. They are on the disk when it returns; making them again does no harm.
pub fn before_going(archive: &Archive, name: Name, minutes: bool) -> Result<(), StoreError> {
    let (Name::Day(day, _), Some(shelf)) = (name, archive.shelf(name)) else { return Ok(()) };
    let store = archive.store(&shelf)?;
    for pdu in devices(store.as_ref())? {
        let Some(loaded) = Loaded::find(&store, Kind::Block, &pdu, day * DAY_MS)? else { continue };
        let Ok(head) = Head::open(loaded.head()) else {
            told(archive, 1, &pdu);
            continue;
        };
        let fetch = |number| loaded.group(number);
        let readings = [Steps::Readings(&head, &fetch)];
        if found(archive, Of::hours(day), &pdu, day)?.is_none() {
            put(archive, Of::hours(day), &pdu, day, &readings)?;
        }
        if minutes {
            put(archive, Of::minutes(day), &pdu, day, &readings)?;
        }
        loaded.all_read()?;
    }
    flush(archive, day)
}

/// Has the disk keep the rollups of a day.
pub fn flush(archive: &Archive, day: i64) -> Result<(), StoreError> {
    flush_all(archive, &BTreeSet::from([day]))
}

/// Has the disk keep the rollups of some days.
pub fn flush_all(archive: &Archive, days: &BTreeSet<i64>) -> Result<(), StoreError> {
    let names: BTreeSet<Name> =
        days.iter().flat_map(|day| [Of::minutes(*day).name, Of::hours(*day).name]).collect();
    for name in names {
        if let Some(shelf) = archive.shelf(name) {
            let store = archive.store(&shelf)?;
            // What was put is in its log, whatever is wrong with the disk: it is no reason to set it aside.
            store.flush().inspect_err(|_| shelf.close())?;
        }
    }
    Ok(())
}

/// Takes in a block of rollups from elsewhere. Minutes that the readings here tell as well are not stored. What is stored is
/// on the disk when its day has been flushed.
pub fn import(
    archive: &Archive,
    kind: Kind,
    pdu: &str,
    at: i64,
    block: &Stored,
) -> Result<(), StoreError> {
    let day = at.div_euclid(DAY_MS);
    let of = if kind == Kind::Minute { Of::minutes(day) } else { Of::hours(day) };
    let Ok(head) = Head::open(&block.head) else { return Ok(()) };
    let fetch = |number| block.group(number);
    let given = Steps::Rolled(&head, &fetch);
    let kept = found(archive, of, pdu, day)?;
    let raw = match archive.sealed(day).and_then(|number| archive.shelf(Name::Day(day, number))) {
        Some(shelf) => Loaded::find(&archive.store(&shelf)?, Kind::Block, pdu, day * DAY_MS)?,
        None => None,
    };
    let known: Vec<(Head<'_>, &Loaded)> = kept
        .iter()
        .chain(&raw)
        .filter_map(|loaded| Some((Head::open(loaded.head()).ok()?, loaded)))
        .collect();
    let fetches: Vec<_> =
        known.iter().map(|(_, loaded)| move |number| loaded.group(number)).collect();
    let mut known: Vec<Steps<'_>> = known
        .iter()
        .zip(&fetches)
        .map(|((head, loaded), fetch)| match loaded.kind() {
            Kind::Block | Kind::Row => Steps::Readings(head, fetch),
            Kind::Minute | Kind::Hour => Steps::Rolled(head, fetch),
        })
        .collect();
    if !adds(&given, &known, of.width) {
        return Ok(());
    }
    known.insert(0, given);
    put(archive, of, pdu, day, &known)
}

/// Whether steps say more than others do.
fn adds(given: &Steps<'_>, known: &[Steps<'_>], width: i64) -> bool {
    let mut ignored = 0;
    given.names().into_iter().any(|name| {
        let column = |steps: &Steps<'_>, damaged: &mut usize| steps.column(&name, width, damaged);
        let known =
            known.iter().fold(Vec::new(), |sum, steps| join(&sum, &column(steps, &mut ignored)));
        join(&column(given, &mut ignored), &known) != known
    })
}

/// Puts a device's day of steps, as the sources say it together with what is there already.
fn put(
    archive: &Archive,
    of: Of,
    pdu: &str,
    day: i64,
    sources: &[Steps<'_>],
) -> Result<(), StoreError> {
    let kept = found(archive, of, pdu, day)?;
    let head = match kept.as_ref().map(|kept| Head::open(kept.head())) {
        // From a program that is newer: not ours to throw away.
        Some(Err(BlockError::Version(_))) => return Ok(()),
        head => head.and_then(Result::ok),
    };
    let fetch = |number| kept.as_ref().and_then(|kept| kept.group(number));
    let before = head.as_ref().map_or(0, groups);
    let replaces = kept.is_some();
    let kept = head.as_ref().map(|head| Steps::Rolled(head, &fetch));
    let all = || kept.iter().chain(sources);
    let mut damaged = 0;
    let mut roller = Roller::default();
    let names: Vec<_> = all().flat_map(Steps::names).collect();
    for (part, key) in in_order(names.iter().map(|(part, key)| (part.as_str(), key.as_str()))) {
        let name = (part.to_owned(), key.to_owned());
        let mut columns = all().map(|steps| steps.column(&name, of.width, &mut damaged));
        let first = columns.next().unwrap_or_default();
        roller.add(&name, &columns.fold(first, |sum, steps| join(&sum, &steps)));
    }
    told(archive, damaged, pdu);
    let Some(block) = roller.block() else { return Ok(()) };
    // A directory of rollups has days whose readings are gone: it must not be what finds the disk full.
    if !archive.has_room_for(block.bytes() as u64) {
        return Err(StoreError::Full);
    }
    if archive.is_leaving(of.name) {
        let why = format!("{} of before is still read, and goes after that", of.name.dir());
        return Err(StoreError::Failed(why));
    }
    let shelf = archive.shelf_or_new(of.name);
    let store = archive.store(&shelf)?;
    let changes = put_block(of.kind, pdu, day * DAY_MS, block, before);
    // A new block one value after the other, which takes sled less room; what takes the place of another all at once.
    let at_once = if replaces { changes.len() } else { 1 };
    let applied = changes.chunks(at_once).try_for_each(|changes| store.apply(changes));
    applied.inspect_err(|error| failed(archive, &shelf, error))
}

fn found(archive: &Archive, of: Of, pdu: &str, day: i64) -> Result<Option<Loaded>, StoreError> {
    let Some(shelf) = archive.shelf(of.name) else { return Ok(None) };
    Loaded::find(&archive.store(&shelf)?, of.kind, pdu, day * DAY_MS)
}

/// sled fails for ever once it has failed: it is opened anew for the next attempt.
fn failed(archive: &Archive, shelf: &Arc<Shelf>, error: &StoreError) {
    match error {
        StoreError::Damaged(why) => archive.set_aside(shelf, why),
        StoreError::Failed(_) | StoreError::Full => shelf.close(),
    }
}
