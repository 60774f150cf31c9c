//! What is kept: readings in a time-series store that may fail without stopping anything, and a journal
//! that must not. Readings go through [`writer`], come back through [`reader`].

pub mod chunk;
pub mod journal;
pub mod memory;
pub mod reader;
pub mod sled;
pub mod writer;

pub use chunk::{ChunkStore, Stats, StoreError, Tree};
