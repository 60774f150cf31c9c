//! A store without a disk: for a gateway whose disk has failed, and for tests. It keeps the newest rows.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::chunk::{Change, ChunkStore, StoreError, Visitor};

/// Entries kept: a day of four PDUs at ten seconds is 34 560.
const ENTRIES: usize = 50_000;

/// Entries that are visited under one lock.
const PAGE: usize = 256;

/// The entries, in the order of their keys.
type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// A store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    entries: Mutex<Entries>,
}

impl MemoryStore {
    fn page(&self, from: &[u8], to: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        if from >= to {
            return Vec::new();
        }
        let entries = self.lock();
        let range = entries.range(from.to_vec()..to.to_vec()).take(PAGE);
        range.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ChunkStore for MemoryStore {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn apply(&self, batch: &[Change]) -> Result<(), StoreError> {
        let mut entries = self.lock();
        for change in batch {
            match change {
                Change::Put(key, value) => drop(entries.insert(key.clone(), value.clone())),
                Change::Delete(key) => drop(entries.remove(key)),
            }
        }
        while entries.len() > ENTRIES {
            // The oldest row of any device: a row's key ends with its moment.
            let rows = entries.keys().filter(|key| key.first() == Some(&b'R'));
            let oldest = rows.min_by_key(|key| key.get(key.len().saturating_sub(8)..)).cloned();
            let Some(oldest) = oldest else { break };
            entries.remove(&oldest);
        }
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.lock().get(key).cloned())
    }

    fn range(&self, from: &[u8], to: &[u8], visit: Visitor<'_>) -> Result<(), StoreError> {
        let mut from = from.to_vec();
        // Page by page, and not under the lock: a visitor may read on.
        loop {
            let page = self.page(&from, to);
            for (key, value) in &page {
                if !visit(key, value) {
                    return Ok(());
                }
            }
            match page.last() {
                Some((last, _)) if page.len() == PAGE => {
                    from = last.clone();
                    from.push(0);
                }
                _ => return Ok(()),
            }
        }
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
