//! The command line. Exit codes: 0 done, 1 refused or failed, 2 usage, 3 unreachable.

pub mod args;
pub mod audit;
pub mod ca;
mod client_args;
mod discover;
pub mod driver;
pub mod events;
pub mod exit;
mod follow;
pub mod out;
pub mod pdu;
pub mod plan;
mod private;
mod prove;
pub mod record;
mod record_modbus;
pub mod remote;
mod scrub;
pub mod series;
pub mod store;
pub mod switch;
mod timeline;
