//! A store without a disk: for a gateway whose disk has failed, and for tests. It keeps the newest rows.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::chunk::{ChunkStore, Put, Stats, StoreError, Tree, Visitor};

/// Rows kept: a day of four PDUs at ten seconds is 34 560.
const ROWS: usize = 50_000;

/// Entries that are visited under one lock.
const PAGE: usize = 256;

/// The entries of a tree, in the order of their keys.
type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// A store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    trees: Mutex<BTreeMap<Tree, Entries>>,
}

impl MemoryStore {
    fn page(&self, tree: Tree, from: &[u8], to: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let trees = self.lock();
        let Some(entries) = trees.get(&tree).filter(|_| from < to) else { return Vec::new() };
        let range = entries.range(from.to_vec()..to.to_vec()).take(PAGE);
        range.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Tree, Entries>> {
        self.trees.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ChunkStore for MemoryStore {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn put(&self, batch: &[Put]) -> Result<(), StoreError> {
        let mut trees = self.lock();
        for put in batch {
            trees.entry(put.tree).or_default().insert(put.key.clone(), put.value.clone());
        }
        let rows = trees.entry(Tree::Rows).or_default();
        while rows.len() > ROWS {
            // The oldest row of any device: keys are device number, then moment.
            let oldest = rows.keys().min_by_key(|key| key.get(4..)).cloned();
            oldest.and_then(|key| rows.remove(&key));
        }
        Ok(())
    }

    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.lock().get(&tree).and_then(|entries| entries.get(key)).cloned())
    }

    fn range(
        &self,
        tree: Tree,
        from: &[u8],
        to: &[u8],
        visit: Visitor<'_>,
    ) -> Result<(), StoreError> {
        let mut from = from.to_vec();
        // Page by page, and not under the lock: a visitor may read other trees.
        loop {
            let page = self.page(tree, &from, to);
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

    fn stats(&self) -> Stats {
        Stats::default()
    }
}
