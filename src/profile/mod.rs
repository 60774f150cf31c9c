//! Driver files: how a family of PDUs speaks. From text to a checked [`Profile`] (all faults at once),
//! from a profile and a device's answers to an [`instance::Instance`], from there the fewest requests
//! that read it, and from replies to readings.
//!
//! Never: an address, a secret, what a site allows, I/O, the time.

pub mod adopt;
mod builder;
pub mod catalog;
pub mod control;
pub mod decode;
pub mod detect;
pub mod format;
pub mod instance;
mod load;
mod load_parts;
mod load_source;
mod load_startup;
mod load_verbs;
pub mod names;
pub mod rows;
pub mod startup;
pub mod sweep;
mod sweep_modbus;
mod sweep_snmp;
pub mod template;
pub mod units;

pub use format::Profile;
pub use load::load;
pub use load_verbs::expected;
