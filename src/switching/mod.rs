//! Switching: the one gate for every wish to switch, from whatever door it comes. Submit → authorise → plan →
//! journal → step by step: guard, durable intent, write, verify, durable outcome → and after a crash, look.
//!
//! Never: a write before its intent is durable; a second write for one intent; a step on stale or unknown
//! state.

mod crash;
mod execute;
mod locks;
mod picture;
mod plans;
mod record;
mod refusal;
mod resume;
pub mod site;
mod submit;
mod witness;

pub use locks::{Lock, Standing};
pub use plans::{Line, Mark, OnFailure, Preview, Select, Wish};
pub use record::{PlanState, Record, StepRecord, StepState};
pub use refusal::Refusal;
pub use site::{Feed, HostSpec, Member, Site};
pub use submit::{Request, Switching, Target, Ticket};
