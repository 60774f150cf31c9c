//! Readings over time, without I/O: how a row is packed, how columns of rows become blocks, and how a window is
//! answered.

pub mod code;
pub mod column;
pub mod rans;
pub mod row;
pub mod window;
