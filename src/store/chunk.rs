//! The seam under the time-series store: keys and values in a few trees. Values carry their own checksum,
//! so a store only has to keep bytes.

/// Which tree a key lives in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tree {
    /// Device numbers by PDU id.
    Devices,
    /// What the columns of a row are, by schema number.
    Schemas,
    /// One row a poll: device number and moment, both big-endian.
    Rows,
}

impl Tree {
    /// All trees.
    pub const ALL: [(&'static str, Tree); 3] =
        [("devices", Tree::Devices), ("schemas", Tree::Schemas), ("rows", Tree::Rows)];
}

/// A key and its value, to be put.
#[derive(Debug, Clone)]
pub struct Put {
    /// Where.
    pub tree: Tree,
    /// Key.
    pub key: Vec<u8>,
    /// Value.
    pub value: Vec<u8>,
}

/// Why the store did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the time-series store failed: {0}")]
pub struct StoreError(pub String);

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

    /// Puts all, or none.
    fn put(&self, batch: &[Put]) -> Result<(), StoreError>;

    /// The value of a key.
    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Entries with `from <= key < to`, in order of their keys.
    fn range(
        &self,
        tree: Tree,
        from: &[u8],
        to: &[u8],
        visit: Visitor<'_>,
    ) -> Result<(), StoreError>;

    /// Makes everything put so far survive a power cut.
    fn flush(&self) -> Result<(), StoreError>;

    /// How it is doing.
    fn stats(&self) -> Stats;
}
