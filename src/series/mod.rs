//! Readings over time, without I/O: how a row is packed, how columns of rows become blocks, and how a window is
//! answered.

pub mod block;
pub mod cells;
pub mod code;
pub mod column;
pub mod merge;
pub mod meter;
pub mod rans;
pub mod rollup;
pub mod row;
pub mod window;
