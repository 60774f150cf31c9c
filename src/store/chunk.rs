//! The seam under the time-series store: keys and values in order. Values carry their own checksums, so a store only
//! has to keep bytes; what it must promise is that a batch is there as a whole or not at all.

/// A change of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The key has this value now.
    Put(Vec<u8>, Vec<u8>),
    /// The key is gone.
    Delete(Vec<u8>),
}

/// Why the store did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The disk, or what is on it.
    #[error("the time-series store failed: {0}")]
    Failed(String),
    /// There is no room; what is stored stays, and writing goes on when there is room.
    #[error("the disk is full: readings are not stored until there is room")]
    Full,
    /// It does not open, and trying again will not help.
    #[error("the time-series store is damaged: {0}")]
    Damaged(String),
}

/// How a store is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Bytes on disk.
    pub bytes: u64,
}

/// What a range is shown entry by entry; returning false ends it.
pub type Visitor<'v> = &'v mut dyn FnMut(&[u8], &[u8]) -> bool;

/// A store of keys and values.
pub trait ChunkStore: Send + Sync {
    /// `sled` or `memory`, for status.
    fn kind(&self) -> &'static str;

    /// Makes all changes, or none.
    fn apply(&self, batch: &[Change]) -> Result<(), StoreError>;

    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Entries with `from <= key < to`, in order of their keys.
    fn range(&self, from: &[u8], to: &[u8], visit: Visitor<'_>) -> Result<(), StoreError>;

    /// Makes everything put so far survive a power cut.
    fn flush(&self) -> Result<(), StoreError>;
}
