//! The time-series store on sled 0.34. Its `flush()` does not reach the disk's platters (sync_file_range,
//! no fsync), so a flush here also syncs the file; opening a damaged store panics inside sled, so opening
//! is caught and the damaged directory set aside: polling and switching never wait for it.

use std::collections::BTreeMap;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::chunk::{ChunkStore, Put, Stats, StoreError, Tree, Visitor};

/// Pages that sled keeps in memory. A gateway answers from the board; history is read now and then.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// How often sled's own thread writes and fsyncs: what a kill or a power cut may cost.
const FLUSH_MS: u64 = 500;

/// A store on disk.
pub struct SledStore {
    db: sled::Db,
    trees: BTreeMap<Tree, sled::Tree>,
    file: PathBuf,
}

/// What came of opening a store.
pub struct Opened {
    /// The store.
    pub store: SledStore,
    /// Where an older one went that could not be opened, and why.
    pub set_aside: Option<(PathBuf, String)>,
}

impl SledStore {
    /// Opens the store in a directory; sets a damaged one aside and begins a new one.
    pub fn open(dir: &Path) -> Result<Opened, StoreError> {
        match Self::try_open(dir) {
            Ok(store) => Ok(Opened { store, set_aside: None }),
            Err(why) => {
                let aside = Self::set_aside(dir)?;
                let store = Self::try_open(dir).map_err(StoreError)?;
                Ok(Opened { store, set_aside: Some((aside, why)) })
            }
        }
    }

    fn try_open(dir: &Path) -> Result<Self, String> {
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(Some(FLUSH_MS));
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let db = config.open()?;
            let trees: Result<BTreeMap<_, _>, sled::Error> =
                Tree::ALL.into_iter().map(|(name, tree)| Ok((tree, db.open_tree(name)?))).collect();
            Ok::<_, sled::Error>((db, trees?))
        }));
        match opened {
            Ok(Ok((db, trees))) => Ok(Self { db, trees, file: dir.join("db") }),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it is damaged: sled panicked while opening it".into()),
        }
    }

    fn set_aside(dir: &Path) -> Result<PathBuf, StoreError> {
        let fail = |error: std::io::Error| {
            StoreError(format!("{} cannot be set aside: {error}", dir.display()))
        };
        for number in 1.. {
            let aside = dir.with_extension(format!("damaged-{number}"));
            if !aside.exists() {
                std::fs::rename(dir, &aside).map_err(fail)?;
                return Ok(aside);
            }
        }
        unreachable!("there is a free number")
    }

    fn tree(&self, tree: Tree) -> Result<&sled::Tree, StoreError> {
        self.trees.get(&tree).ok_or_else(|| StoreError(format!("there is no tree {tree:?}")))
    }
}

#[allow(clippy::needless_pass_by_value)] // as `map_err` gives it
fn failed(error: sled::Error) -> StoreError {
    StoreError(error.to_string())
}

impl ChunkStore for SledStore {
    fn kind(&self) -> &'static str {
        "sled"
    }

    fn put(&self, batch: &[Put]) -> Result<(), StoreError> {
        // Atomic per tree; a row whose schema is missing is skipped by the reader, so schemas go first.
        for (_, tree) in Tree::ALL {
            let mut puts = sled::Batch::default();
            let mut of_tree = batch.iter().filter(|put| put.tree == tree).peekable();
            // An empty batch costs sled as much as a small one.
            if of_tree.peek().is_none() {
                continue;
            }
            of_tree.for_each(|put| puts.insert(put.key.as_slice(), put.value.as_slice()));
            self.tree(tree)?.apply_batch(puts).map_err(failed)?;
        }
        Ok(())
    }

    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.tree(tree)?.get(key).map_err(failed)?.map(|value| value.to_vec()))
    }

    fn range(
        &self,
        tree: Tree,
        from: &[u8],
        to: &[u8],
        visit: Visitor<'_>,
    ) -> Result<(), StoreError> {
        if from >= to {
            return Ok(());
        }
        for entry in self.tree(tree)?.range(from..to) {
            let (key, value) = entry.map_err(failed)?;
            if !visit(&key, &value) {
                break;
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.db.flush().map_err(failed)?;
        let synced = File::open(&self.file).and_then(|file| file.sync_data());
        synced.map_err(|error| StoreError(error.to_string()))
    }

    fn stats(&self) -> Stats {
        // Told for status only: a size that cannot be read is none.
        Stats { bytes: self.db.size_on_disk().unwrap_or(0) }
    }
}
