//! Plans: from wishes and a picture of the rack to timed steps such that no limit is passed at any instant, inrush
//! and steps under way included; or to a refusal that names the limit. Pure: the same input gives the same plan.

pub mod bound;
mod jobs;
pub mod planner;
mod queue;
pub mod world;

pub use planner::{Plan, Refusal, Step, plan};
pub use world::{Draw, Goal, Host, Limit, Outlet, Relays, Want, World};
