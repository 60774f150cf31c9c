//! Everything that is tested from outside, in one program: each test starts what it needs on ports of its
//! own and ends it.

#![allow(clippy::unwrap_used, clippy::missing_docs_in_private_items)]

mod api;
mod approved;
mod audited;
mod automation;
mod cli;
mod coalesce;
mod config;
mod crash;
mod demo;
mod detect;
mod drivers;
mod families;
mod fence;
mod groups;
mod history;
mod hooks;
mod learned;
mod links;
mod modbus;
mod modbus_files;
mod outcome;
mod overload;
mod peers;
mod planned;
mod plans;
mod poison;
mod poller;
mod protocol;
mod proxy;
mod record;
mod recordings;
mod registers;
mod rig;
mod rows;
mod rtu;
mod sidebyside;
mod store;
mod switching;
mod tidy;
mod timed;
mod traps;
mod units;
mod wired;
