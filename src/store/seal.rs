//! Sealing: an hour's rows become a block, a day's blocks become one, with the day's hours beside it. Each step is made
//! whole before what it was made from goes. A day's minutes are made when its readings go: see [`super::roll`].

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use crate::series::block::{Head, Stored, Value};
use crate::series::merge::{Merged, Rows, Source};
use crate::series::rollup::{self, Made};
use crate::series::row::{Packed, RowError};

use super::archive::Archive;
use super::chunk::{Change, ChunkStore, StoreError};
use super::reader::{devices, schema};
use super::roll;
use super::shelf::{DAY_MS, HOUR_MS, Kind, Name, Shelf, key, part, unkey};
use super::sled::{SledStore, Use};
use super::writer::{checked, device_key};

/// A block in a store, read.
pub struct Loaded {
    store: Arc<dyn ChunkStore>,
    pdu: String,
    kind: Kind,
    at: i64,
    head: Vec<u8>,
    /// The value that was asked for last: columns come in their order.
    last: RefCell<Option<(u16, Option<Value>)>>,
    /// Why one could not be read that is not damaged.
    failure: RefCell<Option<StoreError>>,
}

impl Loaded {
    /// A block's head, if there is one under this moment.
    pub fn find(
        store: &Arc<dyn ChunkStore>,
        kind: Kind,
        pdu: &str,
        at: i64,
    ) -> Result<Option<Self>, StoreError> {
        let head = store.get(&part(kind, pdu, at, 0))?;
        let (store, pdu) = (store.clone(), pdu.to_owned());
        let (last, failure) = (RefCell::default(), RefCell::default());
        Ok(head.map(|head| Self { store, pdu, kind, at, head, last, failure }))
    }

    /// Tells of the first value that could not be read though nothing is wrong with it, as far as is known: whoever makes
    /// something else of the block does not let it go then.
    pub fn all_read(&self) -> Result<(), StoreError> {
        self.failure.borrow().clone().map_or(Ok(()), Err)
    }

    /// What it is a block of.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The head's bytes.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// One of its values; one that cannot be read is as good as damaged.
    pub fn group(&self, number: u16) -> Option<Value> {
        let mut last = self.last.borrow_mut();
        if let Some((known, value)) = &*last
            && *known == number
        {
            return value.clone();
        }
        let key = part(self.kind, &self.pdu, self.at, number);
        let value = self.store.get(&key).unwrap_or_else(|error| {
            if !matches!(error, StoreError::Damaged(_)) {
                self.failure.borrow_mut().get_or_insert(error);
            }
            None
        });
        let value = value.map(Arc::new);
        *last = Some((number, value.clone()));
        value
    }
}

/// The changes that put a block, the head last: where they are made one by one, there is no block before there is all of
/// it. Values that an older block of the same moment had go.
pub fn put_block(kind: Kind, pdu: &str, at: i64, block: Stored, before: usize) -> Vec<Change> {
    let mut changes = vec![Change::Put(device_key(pdu), checked(&[]))];
    let count = block.groups.len();
    for (number, group) in (1_u16..).zip(block.groups) {
        changes.push(Change::Put(part(kind, pdu, at, number), Arc::unwrap_or_clone(group)));
    }
    for number in count + 1..=before {
        changes.push(Change::Delete(part(kind, pdu, at, number as u16)));
    }
    changes.push(Change::Put(part(kind, pdu, at, 0), block.head));
    changes
}

/// How many values a block has.
pub fn groups(head: &Head<'_>) -> usize {
    head.columns.iter().map(|entry| usize::from(entry.group)).max().unwrap_or(0)
}

/// Reads rows of a device from a moment until before another. Returns the keys of what can go once they are sealed, and
/// how many are damaged.
pub fn rows(
    store: &dyn ChunkStore,
    pdu: &str,
    from: i64,
    until: i64,
) -> Result<(Rows, Vec<Vec<u8>>, usize), StoreError> {
    let mut rows = Rows::default();
    let mut keys = Vec::new();
    let mut damaged = 0;
    // How many columns rows of a schema have, and the number of their shape.
    let mut schemas: HashMap<u32, Option<(usize, usize)>> = HashMap::new();
    let mut failure = None;
    store.range(&key(Kind::Row, pdu, from), &key(Kind::Row, pdu, until), &mut |key, value| {
        let Some((_, at, _)) = unkey(key) else { return true };
        match Packed::open(value) {
            Ok(row) => {
                let known = schemas.entry(row.schema).or_insert_with(|| {
                    let found = schema(store, row.schema).unwrap_or_else(|error| {
                        failure = Some(error);
                        None
                    });
                    let found = found.filter(|schema| schema.pdu == pdu);
                    found.map(|found| (found.columns.len(), rows.shape(&found.columns)))
                });
                match known {
                    Some((columns, shape)) if *columns == row.len() => {
                        rows.add(at, *shape, row.cells());
                    }
                    _ => damaged += 1,
                }
            }
            // From a program that is newer: not ours to throw away.
            Err(RowError::Version(_)) => return true,
            Err(_) => damaged += 1,
        }
        keys.push(key.to_vec());
        failure.is_none()
    })?;
    failure.map_or(Ok((rows, keys, damaged)), Err)
}

/// Makes an hour's rows into a block, with what was sealed of that hour before, and with rows from elsewhere. All in
/// one batch.
pub fn seal_hour(
    archive: &Archive,
    shelf: &Arc<Shelf>,
    pdu: &str,
    hour: i64,
    more: &Rows,
) -> Result<(), StoreError> {
    let store = archive.store(shelf)?;
    let (rows, keys, damaged) = rows(store.as_ref(), pdu, hour, hour + HOUR_MS)?;
    if keys.is_empty() && more.is_empty() {
        return Ok(());
    }
    told(archive, damaged, pdu);
    let loaded = Loaded::find(&store, Kind::Block, pdu, hour)?;
    let head = loaded.as_ref().map(|loaded| Head::open(loaded.head()));
    let fetch = |number| loaded.as_ref().and_then(|loaded| loaded.group(number));
    let mut sources = vec![Source::Rows(more)];
    let mut before = 0;
    match &head {
        Some(Ok(head)) => {
            before = groups(head);
            sources.push(Source::Block(head, &fetch));
        }
        Some(Err(_)) => told(archive, 1, pdu),
        None => {}
    }
    sources.push(Source::Rows(&rows));
    let block = Merged::new(sources).block_quickly();
    let mut changes = put_block(Kind::Block, pdu, hour, block, before);
    changes.extend(keys.into_iter().map(Change::Delete));
    store.apply(&changes)
}

pub(super) fn told(archive: &Archive, damaged: usize, pdu: &str) {
    if damaged > 0 {
        let text =
            format!("{damaged} stored readings of {pdu} are damaged: they are gaps from now on");
        archive.raise("store.damaged", text);
    }
}

/// A block from elsewhere, as from a copy.
pub type Extra = (String, Stored);

/// Makes a day into one directory that is written once, with all that there is of the day: sealed before, or in hours,
/// or still in rows, or from elsewhere. Returns whether it did; it does not where rows come in meanwhile.
pub fn seal_day(archive: &Archive, day: i64, extra: &[Extra]) -> Result<bool, StoreError> {
    let Some(root) = archive.root() else { return Ok(false) };
    for key in archive.touched().iter().filter(|(name, _, _)| name.days().0 == day) {
        let (name, pdu, hour) = key;
        archive.sealed_hour(key);
        if let Some(shelf) = archive.shelf(*name)
            && let Err(error) = seal_hour(archive, &shelf, pdu, *hour, &Rows::default())
        {
            archive.touch(*name, pdu, *hour);
            return Err(error);
        }
    }
    let before = archive.sealed(day);
    let next = before.map_or(1, |generation| generation + 1);
    let name = Name::Day(day, next);
    let old: Vec<Arc<Shelf>> = archive
        .shelves()
        .into_iter()
        .filter(|s| matches!(s.name, Name::Head(d, _) | Name::Day(d, _) if d == day))
        .collect();
    let mut stores = Vec::new();
    for shelf in &old {
        stores.push((shelf.name, archive.store(shelf)?));
    }
    let making = root.join(format!("{}.new", name.dir()));
    if making.exists() {
        std::fs::remove_dir_all(&making).map_err(failed(&making))?;
    }
    let made = make_day(archive, day, &stores, extra, &making);
    drop(stores);
    if let Err(error) = made {
        // What is half made is no use; that it cannot be removed is told at the next start.
        drop(std::fs::remove_dir_all(&making));
        return Err(error);
    }
    let names: Vec<Name> = old.iter().map(|shelf| shelf.name).collect();
    drop(old);
    let exchanged = archive.exchange(&names, || {
        let shelf = Shelf::new(root, name, archive.settings.flush_every.0);
        std::fs::rename(&making, shelf.path()).map_err(failed(&making))?;
        sync_dir(root)?;
        Ok(Some(Arc::new(shelf)))
    })?;
    if !exchanged {
        std::fs::remove_dir_all(&making).map_err(failed(&making))?;
    }
    Ok(exchanged)
}

fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed(dir))
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> StoreError {
    let path = path.display().to_string();
    move |error| match error.kind() {
        std::io::ErrorKind::StorageFull => StoreError::Full,
        _ => StoreError::Failed(format!("{path}: {error}")),
    }
}

fn make_day(
    archive: &Archive,
    day: i64,
    stores: &[(Name, Arc<dyn ChunkStore>)],
    extra: &[Extra],
    making: &Path,
) -> Result<(), StoreError> {
    let mut pdus: BTreeSet<String> = extra.iter().map(|(pdu, _)| pdu.clone()).collect();
    for (_, store) in stores {
        pdus.extend(devices(store.as_ref())?);
    }
    let new = SledStore::open(making, Use::Sealed)?;
    for pdu in &pdus {
        let extra = extra.iter().filter(|(of, _)| of == pdu).map(|(_, block)| block);
        let Some((block, hours)) = merge_day(archive, stores, extra, pdu, day)? else { continue };
        roll::sealed(archive, pdu, day, &block, &hours)?;
        // One value after the other: sled splits what it gets at once over more pages than it needs.
        for change in put_block(Kind::Block, pdu, day * DAY_MS, block, 0) {
            new.apply(&[change])?;
        }
    }
    roll::flush(archive, day)?;
    new.flush()
}

/// The block of a device's day, and its hours.
fn merge_day<'e>(
    archive: &Archive,
    stores: &[(Name, Arc<dyn ChunkStore>)],
    extra: impl Iterator<Item = &'e Stored>,
    pdu: &str,
    day: i64,
) -> Result<Option<(Stored, Made)>, StoreError> {
    let start = day * DAY_MS;
    let mut loaded = Vec::new();
    for (name, store) in stores {
        // A sealed day is one block; a day under way has one an hour.
        let step = if matches!(name, Name::Day(..)) { DAY_MS } else { HOUR_MS };
        for at in (start..start + DAY_MS).step_by(step as usize) {
            loaded.extend(Loaded::find(store, Kind::Block, pdu, at)?);
        }
    }
    let mut damaged = 0;
    let heads: Vec<(Head<'_>, &Loaded)> = loaded
        .iter()
        .filter_map(|loaded| {
            let head = Head::open(loaded.head()).ok();
            damaged += usize::from(head.is_none());
            Some((head?, loaded))
        })
        .collect();
    let fetches: Vec<_> =
        heads.iter().map(|(_, loaded)| move |number| loaded.group(number)).collect();
    let extra: Vec<&Stored> = extra.collect();
    let extra_heads: Vec<(Head<'_>, &Stored)> =
        extra.iter().filter_map(|block| Some((Head::open(&block.head).ok()?, *block))).collect();
    let extra_fetches: Vec<_> =
        extra_heads.iter().map(|(_, block)| move |number: u16| block.group(number)).collect();
    // What is here counts over what comes from elsewhere.
    let mut sources: Vec<Source<'_>> = Vec::new();
    for ((head, _), fetch) in extra_heads.iter().zip(&extra_fetches) {
        sources.push(Source::Block(head, fetch));
    }
    for ((head, _), fetch) in heads.iter().zip(&fetches) {
        sources.push(Source::Block(head, fetch));
    }
    let mut merged = Merged::new(sources);
    if merged.is_empty() {
        told(archive, damaged, pdu);
        return Ok(None);
    }
    let mut hours = Made::new();
    let block = merged.block(|(part, key), times, column| {
        let name = (part.to_owned(), key.to_owned());
        hours.insert(name, rollup::roll_column(times, column, HOUR_MS));
    });
    loaded.iter().try_for_each(Loaded::all_read)?;
    told(archive, damaged + merged.damaged, pdu);
    Ok(Some((block, hours)))
}
