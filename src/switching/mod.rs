//! Switching: the one gate for every wish to switch, from whatever door it comes. Submit → authorise → plan →
//! journal → what `plan::run` decides, step by step → and after a crash, look.
//!
//! Never: a write before its intent is durable; a second write for one intent; a step on stale or unknown
//! state.

mod audit;
mod awake;
pub mod body;
mod calendar;
mod conduct;
mod crash;
mod delays;
mod feeds;
mod foresee;
pub mod hooks;
mod keys;
mod locks;
mod past;
mod patience;
mod plans;
mod refusal;
mod restore;
mod rights;
pub mod site;
mod submit;
mod wanted;
mod watch;

pub use crate::plan::record::{OnFailure, OnOverload, PlanState, Record, Select, Selected};
pub use locks::{Lock, Standing};
pub use plans::{Asker, Line, Preview, Wish};
pub use refusal::Refusal;
pub use site::{Approvals, Site};
pub use submit::{Request, Switching, Target, Ticket, is_id, parse};
