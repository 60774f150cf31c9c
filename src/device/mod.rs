//! Devices: one task owns one PDU. It asks, decodes, shows the result on the board, hands it to the
//! store, and carries out the writes that switching orders. Nobody else talks to the device.

pub mod adopt;
pub mod fleet;
mod orders;
mod read;
mod serve;
mod startup;
pub mod target;
mod task;
pub mod traps;

pub use fleet::Fleet;
pub use orders::{Handle, OrderError};
pub use startup::{SetCourse, SetStartup, Startups};
pub use target::{Manners, Target};
pub use task::{Services, Settings, spawn};
