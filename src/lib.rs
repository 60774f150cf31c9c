//! PowerMan: one hardened rack-level gateway to the power distribution units of many vendors.
//!
//! The rooms, bottom to top, a level a paragraph. A room uses only rooms of the levels above it in this list, never
//! its neighbours, and the rooms of the first two levels are pure: no I/O, no tasks, no clock of their own.
//! `tests/all/tidy.rs` checks.

pub mod model;

pub mod access;
pub mod audit;
pub mod pace;
pub mod plan;
pub mod profile;
pub mod series;
pub mod wire;

pub mod board;
pub mod events;
pub mod link;
pub mod resolve;
pub mod store;
pub mod tls;

pub mod device;

pub mod switching;

pub mod api;
pub mod cli;
pub mod sim;

pub mod app;
