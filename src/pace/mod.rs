//! When to poll next: pure logic on ticks. It is told the time and what happened, and says when it wants
//! to be called again. No clock, no I/O, no randomness.

pub mod health;
pub mod schedule;

pub use health::{Pulse, Vitals};
pub use schedule::{Due, Paces, Schedule};
