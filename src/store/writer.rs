//! The one that writes readings: takes rows off a bounded queue, numbers devices and schemas, puts them
//! in batches. When a put fails the rows are counted as dropped, and it is told; it goes on trying.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::model::event::About;
use crate::model::id::PduId;
use crate::model::reading::Datum;
use crate::model::time::Stamp;
use crate::model::topology::Layout;
use crate::series::row::pack;

use super::chunk::{ChunkStore, Put, StoreError, Tree};

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
    pub device: u32,
    /// Part and metric key of each column.
    pub columns: Vec<(String, String)>,
}

/// How rows are told to be lost.
pub type Alarm = Box<dyn Fn(&'static str, About, String) + Send>;

/// Most rows in one batch.
const BATCH: usize = 256;
/// How long the first row of a batch waits for others. With the store's own flush every half second a row is on its
/// way to the disk within three quarters of a second of its poll.
const GATHER: Duration = Duration::from_millis(250);

/// What a schema was made from: the address of its layout (which is kept beside it), how many columns,
/// and whose.
type Origin = (usize, usize, PduId);

/// Writes rows into a store.
pub struct Writer {
    store: Arc<dyn ChunkStore>,
    counts: Arc<Counts>,
    alarm: Alarm,
    devices: HashMap<PduId, u32>,
    schemas: HashMap<Schema, u32>,
    /// The highest number of a schema; numbers are never given twice, so that old rows mean what they meant.
    last_schema: u32,
    /// Schemas by what they were made from, so that a row costs one look-up.
    known: HashMap<Origin, (Arc<Layout>, Vec<u16>, u32)>,
    failing: bool,
}

impl Writer {
    /// Over a store; reads what devices and schemas it knows.
    pub fn new(
        store: Arc<dyn ChunkStore>,
        counts: Arc<Counts>,
        alarm: Alarm,
    ) -> Result<Self, StoreError> {
        let mut devices = HashMap::new();
        let mut schemas = HashMap::new();
        for (id, number) in super::reader::devices(store.as_ref())? {
            devices.insert(id, number);
        }
        for (number, schema) in super::reader::schemas(store.as_ref())? {
            schemas.insert(schema, number);
        }
        let last_schema = super::reader::last_schema(store.as_ref())?;
        Ok(Self {
            store,
            counts,
            alarm,
            devices,
            schemas,
            last_schema,
            known: HashMap::new(),
            failing: false,
        })
    }

    /// Writes rows until the queue is closed; then flushes. Blocks: runs on a thread of its own.
    pub fn run(mut self, mut rows: mpsc::Receiver<Row>) {
        let mut batch = Vec::with_capacity(BATCH);
        while rows.blocking_recv_many(&mut batch, BATCH) > 0 {
            // Every write wakes all of sled's threads, so rows wait for company.
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
        if let Err(error) = self.store.flush() {
            tracing::error!(%error, "the last readings may be lost");
        }
    }

    fn write(&mut self, rows: &[Row]) {
        let mut puts = Vec::with_capacity(rows.len());
        rows.iter().for_each(|row| self.put(row, &mut puts));
        let count = rows.len() as u64;
        match self.store.put(&puts) {
            Ok(()) => {
                self.counts.written.fetch_add(count, Ordering::Relaxed);
                if std::mem::take(&mut self.failing) {
                    (self.alarm)(
                        "store.recovered",
                        About::default(),
                        "readings are stored again".into(),
                    );
                }
            }
            Err(error) => {
                self.counts.dropped.fetch_add(count, Ordering::Relaxed);
                // What was numbered in this batch is not stored: number it anew with the next.
                self.known.clear();
                self.schemas.clear();
                self.devices.clear();
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, "readings are not stored");
                    (self.alarm)(
                        "store.failed",
                        About::default(),
                        format!("readings are not stored: {error}"),
                    );
                }
                self.relearn();
            }
        }
    }

    fn relearn(&mut self) {
        if let Ok(devices) = super::reader::devices(self.store.as_ref()) {
            self.devices.extend(devices);
        }
        if let Ok(schemas) = super::reader::schemas(self.store.as_ref()) {
            self.schemas.extend(schemas.into_iter().map(|(number, schema)| (schema, number)));
        }
    }

    fn put(&mut self, row: &Row, puts: &mut Vec<Put>) {
        let series: Vec<(u16, Datum)> =
            row.data.iter().copied().filter(|(slot, _)| is_series(&row.layout, *slot)).collect();
        let schema = self.schema(row, &series, puts);
        let device = self.devices.get(&row.pdu).copied().unwrap_or(0);
        let value = pack(schema, series.iter().map(|(_, datum)| *datum));
        puts.push(Put { tree: Tree::Rows, key: row_key(device, row.at), value });
    }

    fn schema(&mut self, row: &Row, series: &[(u16, Datum)], puts: &mut Vec<Put>) -> u32 {
        let slots: Vec<u16> = series.iter().map(|(slot, _)| *slot).collect();
        let memo = (Arc::as_ptr(&row.layout) as usize, slots.len(), row.pdu.clone());
        // The layout is held beside its address, so that the address cannot come back for another.
        if let Some((_, known, number)) = self.known.get(&memo)
            && *known == slots
        {
            return *number;
        }
        let next = self.devices.values().max().map_or(1, |n| n + 1);
        let device = *self.devices.entry(row.pdu.clone()).or_insert_with(|| {
            let key = row.pdu.as_str().as_bytes().to_vec();
            puts.push(Put { tree: Tree::Devices, key, value: checked(&next.to_be_bytes()) });
            next
        });
        let columns = slots.iter().map(|slot| column(&row.layout, *slot)).collect();
        let schema = Schema { device, columns };
        let next = self.last_schema + 1;
        let number = *self.schemas.entry(schema.clone()).or_insert_with(|| {
            // Plain strings and numbers always make JSON.
            let json = serde_json::to_vec(&schema)
                .unwrap_or_else(|_| unreachable!("a schema is plain data"));
            puts.push(Put {
                tree: Tree::Schemas,
                key: next.to_be_bytes().to_vec(),
                value: checked(&json),
            });
            next
        });
        if self.known.len() > 4_096 {
            self.known.clear();
        }
        self.last_schema = self.last_schema.max(number);
        self.known.insert(memo, (row.layout.clone(), slots, number));
        number
    }
}

fn is_series(layout: &Layout, slot: u16) -> bool {
    layout.slots().get(usize::from(slot)).is_some_and(|slot| slot.metric.is_series())
}

fn column(layout: &Layout, slot: u16) -> (String, String) {
    let slot = layout.slots()[usize::from(slot)];
    let part = &layout.parts(slot.scope)[usize::from(slot.part)];
    (part.id.clone(), slot.metric.key().to_owned())
}

/// The key of a row: big-endian, so that rows of a device lie in order of time.
pub fn row_key(device: u32, at: Stamp) -> Vec<u8> {
    let shifted = (at.0 as u64) ^ (1 << 63);
    let mut key = device.to_be_bytes().to_vec();
    key.extend_from_slice(&shifted.to_be_bytes());
    key
}

/// The moment in a row's key.
pub fn row_at(key: &[u8]) -> Option<Stamp> {
    let bytes: [u8; 8] = key.get(4..12)?.try_into().ok()?;
    Some(Stamp((u64::from_be_bytes(bytes) ^ (1 << 63)) as i64))
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
