//! The HTTPS API: connections and their limits, the route table, and a file a noun. Handlers read the board
//! and the store and hand every wish to switch to the one gate; they decide nothing themselves.

mod arrow;
mod audit;
mod compat;
mod context;
mod energy;
mod events;
mod groups;
mod history;
mod hosts;
mod limits;
mod locks;
mod metrics;
mod openapi;
mod page;
mod pdus;
mod plans;
mod power;
mod problem;
mod remote_read;
mod route;
mod select;
mod series;
pub mod serve;
mod sheet;
mod status;
mod steps;
mod store;
mod stream;

pub use context::State;
pub use stream::Turns;
