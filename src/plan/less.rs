//! What to leave out of wishes that do not fit: as little as is found.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::model::id::OutletId;

use super::planner::Refusal;
use super::search::{tried, wished};
use super::world::{Goal, Want, World};

/// Wishes of more outlets than that are told what was left, not what is least: each try is a plan of its own.
const MANY: usize = 600;
/// How many wishes are put back, to see whether they fit after all.
const BACK: usize = 16;

/// The outlets without which the rest fits: taken away where a limit was passed, the largest first, and put back where
/// they turn out to fit. All feeds of a host go together.
pub(super) fn leave_out(world: &World, goals: &[Goal], first: &OutletId) -> Vec<OutletId> {
    let mut out: Vec<BTreeSet<usize>> = Vec::new();
    let mut largest = goals.len() <= MANY;
    loop {
        let rest = without(goals, &out);
        let (limit, left) = match wished(world, &rest).and_then(|jobs| tried(world, &jobs)) {
            Ok(_) => break,
            Err(Refusal::Limit { limit, leave_out, .. }) => (limit, leave_out),
            // One that needs what was left out is left out as well.
            Err(Refusal::Needs { host, .. }) => {
                let is_its = |goal: &&Goal| {
                    let of = world.outlets[goal.outlet].host;
                    of.is_some_and(|of| world.hosts[of].id.as_str() == host)
                };
                let Some(goal) = rest.iter().find(is_its) else { break };
                out.push(unit(world, &rest, goal.outlet));
                continue;
            }
            // Taken apart they fit no better.
            Err(_) => return vec![first.clone()],
        };
        let unit = if largest { largest_on(world, &rest, &limit) } else { None };
        if let Some(unit) = unit {
            out.push(unit);
        } else {
            largest = false;
            out.extend(left.iter().map(|id| unit_of(world, &rest, id)));
        }
        if without(goals, &out).len() == rest.len() {
            return left;
        }
    }
    let tries = if goals.len() <= MANY { BACK } else { 0 };
    for _ in 0..tries.min(out.len()) {
        // Of those that were taken away the last matters most, where that is asked.
        let unit = if world.by_priority { out.pop().unwrap_or_default() } else { out.remove(0) };
        let fits = wished(world, &without(goals, &out)).and_then(|jobs| tried(world, &jobs));
        match fits {
            Ok(_) => {}
            Err(_) if world.by_priority => out.insert(0, unit),
            Err(_) => out.push(unit),
        }
    }
    let outlets: BTreeSet<usize> = out.into_iter().flatten().collect();
    outlets.into_iter().map(|at| world.outlets[at].id.clone()).collect()
}

fn without(goals: &[Goal], out: &[BTreeSet<usize>]) -> Vec<Goal> {
    let is_out = |goal: &&Goal| out.iter().all(|unit| !unit.contains(&goal.outlet));
    goals.iter().filter(is_out).cloned().collect()
}

/// The host or outlet that would draw most through a limit of those that are wished on.
fn largest_on(world: &World, goals: &[Goal], limit: &str) -> Option<BTreeSet<usize>> {
    let at = world.limits.iter().position(|of| of.name == limit)?;
    let draws = |goal: &&Goal| {
        let outlet = &world.outlets[goal.outlet];
        let draw = outlet.draw.falling();
        // Of those that may start up alike, the one that draws more in the end.
        outlet.share(at).map_or((0, 0), |share| (share.of(draw.boot), share.of(draw.steady)))
    };
    let ons = goals.iter().filter(|goal| goal.want != Want::Off);
    // Who matters less stays off first, where that is asked.
    let priority = |goal: &&Goal| match world.outlets[goal.outlet].host {
        Some(host) if world.by_priority => world.hosts[host].priority,
        _ => 0,
    };
    let goal = ons
        .filter(|goal| draws(goal).0 > 0)
        .max_by_key(|goal| (Reverse(priority(goal)), draws(goal)))?;
    Some(unit(world, goals, goal.outlet))
}

fn unit_of(world: &World, goals: &[Goal], id: &OutletId) -> BTreeSet<usize> {
    let at = goals.iter().map(|goal| goal.outlet).find(|at| world.outlets[*at].id == *id);
    at.map_or_else(BTreeSet::new, |at| unit(world, goals, at))
}

/// An outlet with the other wished feeds of its host.
fn unit(world: &World, goals: &[Goal], outlet: usize) -> BTreeSet<usize> {
    let host = world.outlets[outlet].host;
    let same = |at: &usize| *at == outlet || host.is_some() && world.outlets[*at].host == host;
    goals.iter().map(|goal| goal.outlet).filter(same).collect()
}
