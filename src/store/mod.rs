//! What is kept: readings in a time-series store that may fail without stopping anything, and a journal that must not.
//! Readings go through [`writer`] into an [`archive`] of directories, are sealed by the [`keeper`], and come back
//! through [`reader`].

mod ahead;
pub mod archive;
pub mod chunk;
pub mod copy;
pub mod journal;
pub mod keeper;
pub mod legacy;
pub mod memory;
mod pieces;
pub mod reader;
pub mod roll;
pub mod seal;
pub mod shelf;
pub mod sled;
#[cfg(test)]
mod tests;
pub mod writer;

pub use archive::Archive;
pub use chunk::{ChunkStore, StoreError};
