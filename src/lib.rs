//! PowerMan: one hardened rack-level gateway to the power distribution units of many vendors.
//!
//! The rooms, bottom to top. A room uses only rooms above it in this list; `tests/all/tidy.rs` checks.

pub mod model;

pub mod profile;
pub mod series;
pub mod wire;

pub mod link;

pub mod board;
pub mod device;
pub mod sim;
pub mod switching;

pub mod access;
pub mod api;
pub mod app;
pub mod cli;
pub mod events;
pub mod pace;
pub mod resolve;
pub mod store;
pub mod tls;
