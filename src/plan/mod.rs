//! Plans: from wishes and a picture of the rack to timed steps such that no limit is passed at any instant, inrush
//! and steps under way included; or to a refusal that names the limit. And their carrying out, as far as it is
//! decided: what is to be done next, for what was heard. Pure: the same input gives the same plan and the same deeds.

pub mod alone;
pub mod bound;
pub mod calendar;
mod feeds;
pub mod guard;
pub mod hosts;
mod jobs;
mod less;
pub mod lit;
mod loads;
pub mod memory;
pub mod onset;
pub mod picture;
pub mod planner;
mod queue;
pub mod record;
pub mod run;
mod search;
pub mod shed;
pub mod site;
pub mod starts;
mod wiring;
pub mod world;

pub use memory::Memory;
pub use picture::{Picture, Sight, Told};
pub use planner::{After, Plan, Refusal, Step, Until};
pub use record::{Mark, OnFailure, OnOverload, PlanState, Record, StepRecord, StepState};
pub use run::Runs;
pub use search::{fits, plan};
pub use site::Site;
pub use wiring::{Strange, strange};
pub use world::{Draw, Goal, Host, Limit, Outlet, Relays, Share, Want, World};
