//! A bound below which no plan can end, whatever its order: for judging plans, and for knowing when one is good enough.
//!
//! Three things take time: a device does one step after the other; chains of steps wait for each other; and what a
//! start takes beyond what stays needs room on every limit above it, for a while.

use std::collections::{BTreeSet, BinaryHeap};

use crate::model::switching::Relay;

use super::jobs::{Job, tails};
use super::planner::{Refusal, Until};
use super::search::wished;
use super::world::{Goal, World};

/// A lower bound on the makespan of wishes, ms.
pub fn lower(world: &World, goals: &[Goal]) -> Result<u64, Refusal> {
    Ok(of_jobs(world, &wished(world, goals)?))
}

pub(super) fn of_jobs(world: &World, jobs: &[Job]) -> u64 {
    let heads = heads(world, jobs);
    let tails = tails(world, jobs);
    let chains = heads.iter().zip(&tails).map(|(head, tail)| head + tail).max().unwrap_or(0);
    let by_device =
        (0..world.step_ms.len()).map(|device| by_device(world, jobs, &heads, &tails, device));
    let by_limit = (0..world.limits.len()).map(|limit| by_limit(world, jobs, &heads, limit));
    by_device.chain(by_limit).max().unwrap_or(0).max(chains)
}

/// When each step can begin at the earliest: after its pause, and after the chains that it waits for.
fn heads(world: &World, jobs: &[Job]) -> Vec<u64> {
    let mut heads: Vec<u64> = jobs.iter().map(|job| job.ready).collect();
    let mut waits: Vec<usize> = jobs.iter().map(|job| job.waits).collect();
    let mut free: Vec<usize> = (0..jobs.len()).filter(|at| waits[*at] == 0).collect();
    while let Some(at) = free.pop() {
        let outlet = &world.outlets[jobs[at].outlet];
        let done = heads[at] + world.step_ms[outlet.device];
        let is_on = jobs[at].relay == Relay::On;
        let up = done + if is_on { outlet.draw.settles_ms() } else { 0 };
        for (then, until, pause) in &jobs[at].frees {
            let from = if *until == Until::Up { up } else { done };
            heads[*then] = heads[*then].max(from + pause);
            waits[*then] -= 1;
            if waits[*then] == 0 {
                free.push(*then);
            }
        }
    }
    heads
}

/// A device's steps follow each other, none before its head, and after each its tail goes on: Jackson's rule, most tail
/// first and interrupted where a longer one arrives, ends no later than any order can.
fn by_device(world: &World, jobs: &[Job], heads: &[u64], tails: &[u64], device: usize) -> u64 {
    let of = |at: &usize| world.outlets[jobs[*at].outlet].device == device;
    let mut own: Vec<usize> = (0..jobs.len()).filter(of).collect();
    own.sort_by_key(|at| std::cmp::Reverse(heads[*at]));
    let step_ms = world.step_ms[device];
    // By tail behind the step, with what is left of the step.
    let mut open: BinaryHeap<(u64, u64)> = BinaryHeap::new();
    let (mut now, mut longest) = (0, 0);
    loop {
        while let Some(at) = own.pop_if(|at| heads[*at] <= now) {
            open.push((tails[at] - step_ms, step_ms));
        }
        let next = own.last().map(|at| heads[*at]);
        match (open.pop(), next) {
            (Some((tail, left)), next) => {
                let until = next.map_or(now + left, |next| next.min(now + left));
                let rest = left - (until - now);
                now = until;
                if rest > 0 {
                    open.push((tail, rest));
                } else {
                    longest = longest.max(now + tail);
                }
            }
            (None, Some(next)) => now = next,
            (None, None) => return longest,
        }
    }
}

/// Each start takes, beyond its steady load, an area of mVA·ms out of what the limit has left; and what is left shrinks
/// by every steady load that was added. Least time goes by if those come first that take most area for what they add
/// for ever, were they divisible: T = Σ (area / steady) · ln(room before / room after).
fn by_limit(world: &World, jobs: &[Job], heads: &[u64], limit: usize) -> u64 {
    let room = world.limits[limit].budget - world.limits[limit].load + freed(world, jobs, limit);
    if room <= 0 {
        return 0;
    }
    let mut starts = Vec::new();
    let mut hosts: BTreeSet<usize> = BTreeSet::new();
    let mut first = u64::MAX;
    for (at, job) in jobs.iter().enumerate().filter(|(_, job)| job.relay == Relay::On) {
        let outlet = &world.outlets[job.outlet];
        let Some(share) = outlet.share(limit) else { continue };
        first = first.min(heads[at]);
        // Another feed of a host that is under the limit may carry it already: only one of them is sure to add.
        if outlet.host.is_some_and(|host| shares(world, host, limit) && !hosts.insert(host)) {
            continue;
        }
        if outlet.host.is_some_and(|host| carries(world, jobs, host, job.outlet, limit)) {
            continue;
        }
        let draw = outlet.draw.falling();
        let step = world.step_ms[outlet.device] + draw.inrush_ms;
        let excess = share.of(draw.boot) - share.of(draw.steady);
        starts.push((excess as f64 * (step + draw.boot_ms) as f64, share.of(draw.steady) as f64));
    }
    // area / steady, descending.
    starts.sort_by(|a, b| (b.0 * a.1).total_cmp(&(a.0 * b.1)));
    let mut left = room as f64;
    let mut time = 0.0;
    for (area, steady) in starts {
        if left - steady < 1.0 {
            break;
        }
        time +=
            if steady < 1.0 { area / left } else { area / steady * (left / (left - steady)).ln() };
        left -= steady;
    }
    // Down: it is a bound.
    time as u64 + if first == u64::MAX { 0 } else { first }
}

/// What the offs of a plan free on a limit at most, mVA.
fn freed(world: &World, jobs: &[Job], limit: usize) -> i64 {
    let offs = jobs.iter().filter(|job| job.relay == Relay::Off);
    let outlets = offs.map(|job| &world.outlets[job.outlet]);
    outlets.filter_map(|outlet| Some(outlet.share(limit)?.of(outlet.load))).sum()
}

/// Whether a host has more than one feed under a limit.
fn shares(world: &World, host: usize, limit: usize) -> bool {
    let own = world.outlets.iter().filter(|outlet| outlet.host == Some(host));
    own.filter(|outlet| outlet.share(limit).is_some()).count() > 1
}

/// Whether another feed of a host may be on under a limit while one goes on: then it adds nothing there.
fn carries(world: &World, jobs: &[Job], host: usize, but: usize, limit: usize) -> bool {
    let mut others = world.outlets.iter().enumerate().filter(|(at, outlet)| {
        *at != but && outlet.host == Some(host) && outlet.share(limit).is_some()
    });
    others.any(|(at, outlet)| {
        let goes_off = jobs.iter().any(|job| job.outlet == at && job.relay == Relay::Off);
        outlet.relay != super::world::Relays::Off && !goes_off
    })
}
