//! PowerMan: one hardened rack-level gateway to the power distribution units of many vendors.
//!
//! The rooms, bottom to top. A room uses only rooms above it in this list; `tests/all/tidy.rs` checks.

pub mod model;

pub mod profile;
