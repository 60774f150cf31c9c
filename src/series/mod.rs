//! Readings over time, without I/O: how a row is packed, and how a window is answered.

pub mod row;
pub mod window;
