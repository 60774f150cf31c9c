//! Everything that is tested from outside, in one program: each test starts what it needs on ports of its
//! own and ends it.

#![allow(clippy::unwrap_used, clippy::missing_docs_in_private_items)]

mod api;
mod cli;
mod coalesce;
mod config;
mod crash;
mod demo;
mod drivers;
mod families;
mod fence;
mod history;
mod links;
mod modbus;
mod outcome;
mod peers;
mod planned;
mod plans;
mod poison;
mod poller;
mod protocol;
mod proxy;
mod recordings;
mod registers;
mod rig;
mod rtu;
mod store;
mod switching;
mod tidy;
mod traps;
