//! Reading series back.

use std::collections::HashMap;

use crate::model::id::PduId;
use crate::model::metric::Metric;
use crate::model::time::Stamp;
use crate::series::row::Packed;
use crate::series::window::Sample;

use super::chunk::{ChunkStore, StoreError, Tree};
use super::writer::{Schema, row_at, row_key, verified};

/// Readings of a series.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The readings, oldest first.
    pub samples: Vec<Sample>,
    /// Rows in the window that are damaged or from another format: their readings are missing.
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

/// The readings of a series with `start <= at < end`, at most `limit`.
pub fn read(
    store: &dyn ChunkStore,
    series: &Series,
    start: Stamp,
    end: Stamp,
    limit: usize,
) -> Result<Found, StoreError> {
    let mut found = Found::default();
    found.damaged = scan(store, series, start, end, &mut |sample| {
        found.truncated = found.samples.len() == limit;
        if !found.truncated {
            found.samples.push(sample);
        }
        !found.truncated
    })?;
    Ok(found)
}

/// Shows the readings of a series with `start <= at < end`, oldest first, until told to stop. Returns how many
/// rows in the window are damaged or from another format: their readings are missing.
pub fn scan(
    store: &dyn ChunkStore,
    series: &Series,
    start: Stamp,
    end: Stamp,
    visit: &mut dyn FnMut(Sample) -> bool,
) -> Result<usize, StoreError> {
    let mut damaged = 0;
    let Some(device) = device(store, &series.pdu)? else { return Ok(0) };
    let mut columns: HashMap<u32, Option<usize>> = HashMap::new();
    let mut failure = None;
    let (from, to) = (row_key(device, start), row_key(device, end));
    store.range(Tree::Rows, &from, &to, &mut |key, value| {
        let (Some(at), Ok(row)) = (row_at(key), Packed::open(value)) else {
            damaged += 1;
            return true;
        };
        let column = *columns.entry(row.schema).or_insert_with(|| {
            column_of(store, row.schema, device, series).unwrap_or_else(|error| {
                failure = Some(error);
                None
            })
        });
        let value = column.and_then(|column| row.column(column));
        value.is_none_or(|value| visit((at, value))) && failure.is_none()
    })?;
    failure.map_or(Ok(damaged), Err)
}

fn device(store: &dyn ChunkStore, pdu: &PduId) -> Result<Option<u32>, StoreError> {
    let value = store.get(Tree::Devices, pdu.as_str().as_bytes())?;
    Ok(value.as_deref().and_then(number))
}

fn column_of(
    store: &dyn ChunkStore,
    schema: u32,
    device: u32,
    series: &Series,
) -> Result<Option<usize>, StoreError> {
    let value = store.get(Tree::Schemas, &schema.to_be_bytes())?;
    let Some(schema) = value.as_deref().and_then(schema_in) else { return Ok(None) };
    // A schema of another device under this number: never read as if it were this one's.
    if schema.device != device {
        return Ok(None);
    }
    let wanted =
        |(part, key): &(String, String)| *part == series.part && key == series.metric.key();
    Ok(schema.columns.iter().position(wanted))
}

fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(verified(value)?.try_into().ok()?))
}

fn schema_in(value: &[u8]) -> Option<Schema> {
    serde_json::from_slice(verified(value)?).ok()
}

/// Device numbers in a store.
pub(super) fn devices(store: &dyn ChunkStore) -> Result<Vec<(PduId, u32)>, StoreError> {
    let mut found = Vec::new();
    store.range(Tree::Devices, &[], &[0xff], &mut |key, value| {
        let id = std::str::from_utf8(key).ok().and_then(|id| id.parse().ok());
        found.extend(id.zip(number(value)));
        true
    })?;
    Ok(found)
}

/// The highest schema number ever given, to a schema that is damaged now too.
pub(super) fn last_schema(store: &dyn ChunkStore) -> Result<u32, StoreError> {
    let mut last = 0;
    store.range(Tree::Schemas, &[], &[0xff; 5], &mut |key, _| {
        last = key.try_into().map_or(last, |key| last.max(u32::from_be_bytes(key)));
        true
    })?;
    Ok(last)
}

/// Schemas in a store.
pub(super) fn schemas(store: &dyn ChunkStore) -> Result<Vec<(u32, Schema)>, StoreError> {
    let mut found = Vec::new();
    store.range(Tree::Schemas, &[], &[0xff; 5], &mut |key, value| {
        let number = key.try_into().ok().map(u32::from_be_bytes);
        found.extend(number.zip(schema_in(value)));
        true
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::memory::MemoryStore;
    use super::super::sled::SledStore;
    use super::super::writer::{Counts, Row, Writer};
    use super::*;
    use crate::model::metric::Scope;
    use crate::model::reading::{Datum, Gap};
    use crate::model::topology::{Layout, Part, Slot};

    fn rows() -> Vec<Row> {
        let outlet = |number: u16| Part { number, id: number.to_string(), ..Part::default() };
        let slot = |part, metric| Slot { scope: Scope::Outlet, part, metric };
        let layout = Layout::new(
            [vec![], vec![], vec![], vec![outlet(1), outlet(2)], vec![]],
            vec![slot(0, Metric::Power), slot(1, Metric::Power), slot(1, Metric::Rating)],
        );
        (0..50)
            .map(|n| {
                let second =
                    if n == 7 { Datum::Gap(Gap::Timeout) } else { Datum::Value(1_000 * n) };
                let data = vec![(0, Datum::Value(n)), (1, second), (2, Datum::Value(16_000))];
                Row {
                    pdu: "pdu-a".parse().unwrap(),
                    layout: layout.clone(),
                    at: Stamp(n * 10_000),
                    data,
                }
            })
            .collect()
    }

    fn fill(store: Arc<dyn ChunkStore>) {
        let writer =
            Writer::new(store, Arc::new(Counts::default()), Box::new(|_, _, _| {})).unwrap();
        let (sender, receiver) = tokio::sync::mpsc::channel(100);
        rows().into_iter().for_each(|row| sender.try_send(row).unwrap());
        drop(sender);
        writer.run(receiver);
    }

    fn check(store: &dyn ChunkStore) {
        let series =
            Series { pdu: "pdu-a".parse().unwrap(), part: "2".into(), metric: Metric::Power };
        let found = read(store, &series, Stamp(50_000), Stamp(100_000), 100).unwrap();
        let expected = [Ok(5_000), Ok(6_000), Err(Gap::Timeout), Ok(8_000), Ok(9_000)];
        assert_eq!(found.samples.iter().map(|s| s.1).collect::<Vec<_>>(), expected);
        assert_eq!(found.samples[0].0, Stamp(50_000));
        let few = read(store, &series, Stamp(0), Stamp(i64::MAX), 3).unwrap();
        assert!(few.truncated && few.samples.len() == 3);
        let rating = Series { metric: Metric::Rating, ..series.clone() };
        assert_eq!(read(store, &rating, Stamp(0), Stamp(i64::MAX), 3).unwrap(), Found::default());
        let other = Series { pdu: "pdu-b".parse().unwrap(), ..series };
        assert_eq!(read(store, &other, Stamp(0), Stamp(i64::MAX), 3).unwrap(), Found::default());
    }

    #[test]
    fn what_was_written_is_read_back_from_memory() {
        let store = Arc::new(MemoryStore::default());
        fill(store.clone());
        check(store.as_ref());
    }

    #[test]
    fn what_was_written_is_read_back_from_disk_after_a_restart_and_more_is_added() {
        let dir = tempfile::tempdir().unwrap();
        fill(Arc::new(SledStore::open(dir.path()).unwrap().store));
        let opened = SledStore::open(dir.path()).unwrap();
        assert!(opened.set_aside.is_none());
        check(&opened.store);
        let store = Arc::new(opened.store);
        fill(store.clone());
        check(store.as_ref());
        assert_eq!(schemas(store.as_ref()).unwrap().len(), 1);
    }

    #[test]
    fn a_damaged_store_is_set_aside_and_a_new_one_begun() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("readings");
        fill(Arc::new(SledStore::open(&path).unwrap().store));
        // Flip a bit in the middle of the file: sled panics on the next open (spacejam/sled issue 1387).
        let file = path.join("db");
        let mut bytes = std::fs::read(&file).unwrap();
        let middle = bytes.iter().rposition(|b| *b != 0).unwrap() / 2;
        bytes[middle] ^= 0x10;
        std::fs::write(&file, bytes).unwrap();
        let opened = SledStore::open(&path).unwrap();
        if let Some((aside, _)) = &opened.set_aside {
            assert!(aside.join("db").exists());
        }
        fill(Arc::new(opened.store));
    }

    #[test]
    fn targets_are_a_pdu_or_one_of_its_parts() {
        assert_eq!(target("pdu-a").unwrap().1, "I1");
        assert_eq!(target("pdu-a/7").unwrap().1, "7");
        for text in ["", "pdu-a/", "pdu-a/../b", "PDU", "pdu-a/7/8"] {
            assert!(target(text).is_err(), "{text}");
        }
    }
}
