//! The one that writes readings: takes rows off a bounded queue, numbers devices and schemas, puts them
//! one by one, each day's into its directory. When a put fails the rows are counted as dropped, and it is told; it
//! goes on trying.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::model::id::PduId;
use crate::model::reading::Datum;
use crate::model::time::Stamp;
use crate::model::topology::Layout;
use crate::series::row::pack;

use super::archive::Archive;
use super::chunk::{Change, ChunkStore, StoreError};
use super::shelf::{HOUR_MS, Kind, Name, Shelf, day_of, key, schema_key};

/// One poll's readings.
#[derive(Debug, Clone)]
pub struct Row {
    /// Of which PDU.
    pub pdu: PduId,
    /// Its layout, for what the slots mean.
    pub layout: Arc<Layout>,
    /// When the poll began.
    pub at: Stamp,
    /// Slots in rising order with what was read.
    pub data: Vec<(u16, Datum)>,
}

/// Counts for status.
#[derive(Debug, Default)]
pub struct Counts {
    /// Rows put.
    pub written: AtomicU64,
    /// Rows lost.
    pub dropped: AtomicU64,
}

/// What the columns of a row are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Schema {
    /// The device.
    pub pdu: String,
    /// Part and metric key of each column.
    pub columns: Vec<(String, String)>,
}

/// Most rows in one batch.
const BATCH: usize = 256;
/// How long the first row of a batch waits for others: those of PDUs that are polled at the same time. sled holds a row in
/// memory until its flush, every half second: that, this and the poll itself are what a kill may cost.
const GATHER: Duration = Duration::from_millis(50);
/// Schemas remembered by what they were made from; beyond, they are looked up anew.
const KNOWN: usize = 4_096;

/// What a schema was made from: the address of its layout (which is kept beside it), how many readings,
/// and whose.
type Origin = (usize, usize, PduId);

/// What was found out of a row, for the next ones like it.
struct Known {
    /// Held, so that its address cannot come back for another.
    _layout: Arc<Layout>,
    /// Slots of all readings.
    slots: Vec<u16>,
    /// Which of them are stored.
    stored: Vec<usize>,
    schema: u32,
}

/// What is known of a directory that rows go to.
struct Open {
    shelf: Arc<Shelf>,
    store: Arc<dyn ChunkStore>,
    schemas: HashMap<Schema, u32>,
    /// The highest number of a schema; numbers are never given twice, so that old rows mean what they meant.
    last_schema: u32,
    /// Schemas by what they were made from, so that a row costs one look-up.
    known: HashMap<Origin, Known>,
}

/// Writes rows into the archive.
pub struct Writer {
    archive: Arc<Archive>,
    counts: Arc<Counts>,
    /// The directories in use: today's, and for a while yesterday's.
    open: HashMap<Name, Open>,
}

impl Writer {
    /// Over an archive.
    pub fn new(archive: Arc<Archive>, counts: Arc<Counts>) -> Self {
        Self { archive, counts, open: HashMap::new() }
    }

    /// Writes rows until the queue is closed; then flushes. Blocks: runs on a thread of its own.
    pub fn run(mut self, mut rows: mpsc::Receiver<Row>) {
        let mut batch = Vec::with_capacity(BATCH);
        while rows.blocking_recv_many(&mut batch, BATCH) > 0 {
            if batch.len() < BATCH {
                std::thread::sleep(GATHER);
                while batch.len() < BATCH
                    && let Ok(row) = rows.try_recv()
                {
                    batch.push(row);
                }
            }
            self.write(&batch);
            batch.clear();
        }
        self.flush();
    }

    /// Makes what was written survive a power cut.
    pub fn flush(&mut self) {
        for open in self.open.values() {
            if let Err(error) = open.store.flush() {
                tracing::error!(%error, "the last readings may be lost");
            }
        }
    }

    /// Writes rows, each into the directory of its day.
    pub fn write(&mut self, rows: &[Row]) {
        for rows in rows.chunk_by(|a, b| day_of(a.at) == day_of(b.at)) {
            let count = rows.len() as u64;
            match self.put(rows) {
                Ok(()) => {
                    self.counts.written.fetch_add(count, Ordering::Relaxed);
                    self.archive.lower(
                        "store.failed",
                        "store.recovered",
                        "readings are stored again",
                    );
                }
                Err(error) => {
                    self.counts.dropped.fetch_add(count, Ordering::Relaxed);
                    self.archive.raise("store.failed", format!("readings are not stored: {error}"));
                }
            }
        }
    }

    fn put(&mut self, rows: &[Row]) -> Result<(), StoreError> {
        let Some(first) = rows.first() else { return Ok(()) };
        if !self.archive.has_room() {
            return Err(StoreError::Full);
        }
        let archive = self.archive.clone();
        let _putting = archive.putting();
        let shelf = archive.head(day_of(first.at));
        let name = shelf.name;
        // The directory may have been sealed or set aside meanwhile.
        self.open.retain(|name, open| {
            *name == shelf.name && Arc::ptr_eq(&open.shelf, &shelf)
                || self.archive.shelf(*name).is_some_and(|now| Arc::ptr_eq(&now, &open.shelf))
        });
        if !self.open.contains_key(&name) {
            self.open.insert(name, Open::new(&self.archive, shelf.clone())?);
        }
        let Some(open) = self.open.get_mut(&name) else { return Ok(()) };
        let mut changes = Vec::with_capacity(rows.len() + 2);
        rows.iter().for_each(|row| open.add(row, &mut changes));
        // One after the other, each schema before its rows: sled's log is read back up to its end, in order.
        let applied = changes.chunks(1).try_for_each(|change| open.store.apply(change));
        // Also where it failed: some may be there.
        for row in rows {
            let hour = row.at.0.div_euclid(HOUR_MS) * HOUR_MS;
            archive.touch(name, row.pdu.as_str(), hour);
        }
        if let Err(error) = applied {
            // What was numbered in this batch is not stored, and sled fails for ever once it has failed: all anew.
            self.open.remove(&name);
            match &error {
                StoreError::Damaged(why) => self.archive.set_aside(&shelf, why),
                _ => shelf.close(),
            }
            return Err(error);
        }
        Ok(())
    }
}

impl Open {
    fn new(archive: &Archive, shelf: Arc<Shelf>) -> Result<Self, StoreError> {
        let store = archive.store(&shelf)?;
        let found = super::reader::schemas(store.as_ref())?;
        let last_schema = super::reader::last_schema(store.as_ref())?;
        let schemas = found.into_iter().map(|(number, schema)| (schema, number)).collect();
        Ok(Self { shelf, store, schemas, last_schema, known: HashMap::new() })
    }

    fn add(&mut self, row: &Row, changes: &mut Vec<Change>) {
        let origin = (Arc::as_ptr(&row.layout) as usize, row.data.len(), row.pdu.clone());
        let is_like = |known: &&Known| known.slots.iter().eq(row.data.iter().map(|(slot, _)| slot));
        let value = match self.known.get(&origin).filter(is_like) {
            Some(known) => packed(known, row),
            None => packed(self.learn(origin, row, changes), row),
        };
        changes.push(Change::Put(key(Kind::Row, row.pdu.as_str(), row.at.0), value));
    }

    /// Finds out what a row's schema is; one that is new gets a number.
    fn learn(&mut self, origin: Origin, row: &Row, changes: &mut Vec<Change>) -> &Known {
        let slots: Vec<u16> = row.data.iter().map(|(slot, _)| *slot).collect();
        let is_stored = |place: &usize| is_series(&row.layout, slots[*place]);
        let stored: Vec<usize> = (0..slots.len()).filter(is_stored).collect();
        let columns = stored.iter().map(|place| column(&row.layout, slots[*place])).collect();
        let schema = Schema { pdu: row.pdu.to_string(), columns };
        let next = self.last_schema + 1;
        let number = *self.schemas.entry(schema.clone()).or_insert_with(|| {
            changes.push(Change::Put(schema_key(next), schema_bytes(&schema)));
            changes.push(Change::Put(device_key(&schema.pdu), checked(&[])));
            next
        });
        if self.known.len() > KNOWN {
            self.known.clear();
        }
        self.last_schema = self.last_schema.max(number);
        let known = Known { _layout: row.layout.clone(), slots, stored, schema: number };
        self.known.entry(origin).insert_entry(known).into_mut()
    }
}

/// The readings of a row that are stored.
fn packed(known: &Known, row: &Row) -> Vec<u8> {
    pack(known.schema, known.stored.iter().map(|place| row.data[*place].1))
}

/// A schema as it is stored.
pub fn schema_bytes(schema: &Schema) -> Vec<u8> {
    // Plain strings always make JSON.
    let json =
        serde_json::to_vec(schema).unwrap_or_else(|_| unreachable!("a schema is plain data"));
    checked(&json)
}

/// The key that says that a directory has something of a device.
pub fn device_key(pdu: &str) -> Vec<u8> {
    let mut key = vec![b'P'];
    key.extend_from_slice(pdu.as_bytes());
    key
}

fn is_series(layout: &Layout, slot: u16) -> bool {
    layout.slots().get(usize::from(slot)).is_some_and(|slot| slot.metric.is_series())
}

fn column(layout: &Layout, slot: u16) -> (String, String) {
    let slot = layout.slots()[usize::from(slot)];
    let part = &layout.parts(slot.scope)[usize::from(slot.part)];
    (part.id.clone(), slot.metric.key().to_owned())
}

/// Bytes with their checksum before them.
pub fn checked(bytes: &[u8]) -> Vec<u8> {
    let mut out = crc32fast::hash(bytes).to_le_bytes().to_vec();
    out.extend_from_slice(bytes);
    out
}

/// The bytes behind a checksum, if it is theirs.
pub fn verified(bytes: &[u8]) -> Option<&[u8]> {
    let (sum, rest) = bytes.split_at_checked(4)?;
    (sum == crc32fast::hash(rest).to_le_bytes()).then_some(rest)
}
